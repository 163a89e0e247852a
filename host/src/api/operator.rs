//! `/health`, `/ready` and `/metrics`: unsigned, because Prometheus and probes
//! cannot sign, and without any way to change anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use tokio::time::timeout;

use crate::key_value::Buckets;
use crate::queue::QueueStore;
use crate::runtime::Budget;
use crate::store::{Disk, Disks};
use crate::telemetry::{Telemetry, render_buckets, render_queues};

/// Queues in one scrape at most: those with the most messages.
const MAX_QUEUES: usize = 1000;
/// Buckets in one scrape at most: the fullest.
const MAX_BUCKETS: usize = 1000;
/// How long a scrape waits for them. A disk that hangs hides them, not the rest.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the endpoints show.
#[derive(Clone)]
pub struct Operator {
    telemetry: Telemetry,
    budget: Arc<Budget>,
    queues: Arc<dyn QueueStore>,
    buckets: Arc<Buckets>,
    disks: Disks,
    ready: Arc<AtomicBool>,
}

impl Operator {
    /// Endpoints of a host that is not ready yet.
    #[must_use]
    pub fn new(
        telemetry: Telemetry,
        budget: Arc<Budget>,
        queues: Arc<dyn QueueStore>,
        buckets: Arc<Buckets>,
        disks: Disks,
    ) -> Self {
        Self {
            telemetry,
            budget,
            queues,
            buckets,
            disks,
            ready: Arc::default(),
        }
    }

    /// Whether the host takes events: true once all is loaded and bound, false
    /// when it drains.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Answers a request, if it is for one of the endpoints.
    pub async fn answer(&self, method: &Method, path: &str) -> Option<Response<Bytes>> {
        if !matches!(path, "/health" | "/ready" | "/metrics") {
            return None;
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Some(text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"));
        }
        if path == "/metrics" {
            return Some(self.metrics().await);
        }
        let is_full = match self.disks.now() {
            Disk::Sound => false,
            Disk::Full => true,
            // The host is about to end: nothing is accepted any more.
            Disk::Broken(why) => {
                let message = format!("the store has failed: {why}\n");
                return Some(text(StatusCode::SERVICE_UNAVAILABLE, &message));
            }
        };
        Some(match path {
            // It is said, and is no reason to start the host anew: it serves, and would find
            // the disk as full.
            "/health" if is_full => text(
                StatusCode::OK,
                "ok, but the disk is full: events are refused until it has room\n",
            ),
            "/health" => text(StatusCode::OK, "ok\n"),
            _ if self.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        })
    }

    async fn metrics(&self) -> Response<Bytes> {
        let Telemetry { log, metrics, .. } = &self.telemetry;
        let (queues, buckets) = tokio::join!(
            timeout(PATIENCE, self.queues.overview(MAX_QUEUES)),
            timeout(PATIENCE, self.buckets.overview(MAX_BUCKETS)),
        );
        match metrics.render(log, self.budget.used(), self.budget.limit()) {
            Ok(mut rendered) => {
                if let Ok(Ok(queues)) = queues {
                    render_queues(&mut rendered, &queues);
                }
                if let Ok(Ok(buckets)) = buckets {
                    render_buckets(&mut rendered, &buckets);
                }
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

#[cfg(test)]
mod tests;
