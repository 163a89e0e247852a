//! `/health`, `/ready` and `/metrics`: unsigned, because Prometheus and probes
//! cannot sign, and without any way to change anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::runtime::Budget;
use crate::telemetry::Telemetry;

/// What the endpoints show.
#[derive(Clone)]
pub struct Operator {
    telemetry: Telemetry,
    budget: Arc<Budget>,
    ready: Arc<AtomicBool>,
}

impl Operator {
    /// Endpoints of a host that is not ready yet.
    #[must_use]
    pub fn new(telemetry: Telemetry, budget: Arc<Budget>) -> Self {
        Self {
            telemetry,
            budget,
            ready: Arc::default(),
        }
    }

    /// Whether the host takes events: true once all is loaded and bound, false
    /// when it drains.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Answers a request, if it is for one of the endpoints.
    #[must_use]
    pub fn answer(&self, method: &Method, path: &str) -> Option<Response<Bytes>> {
        let mut response = match path {
            "/health" => text(StatusCode::OK, "ok\n"),
            "/ready" if self.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ready\n"),
            "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            "/metrics" => self.metrics(),
            _ => return None,
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        }
        Some(response)
    }

    fn metrics(&self) -> Response<Bytes> {
        let Telemetry { log, metrics, .. } = &self.telemetry;
        match metrics.render(log, self.budget.used(), self.budget.limit()) {
            Ok(rendered) => {
                let mut response = Response::new(rendered.into());
                let form = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, form);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, body: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
