//! `wasi:http/outgoing-handler` and, of WASI 0.3, `wasi:http/client`: requests of guests
//! to others, within what [`crate::egress`] allows.
//!
//! A guest that ends, however it ends, takes its requests along: their tasks and bodies
//! belong to its store.

use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::BodyExt as _;
use wasmtime::component::Linker;
use wasmtime_wasi_http::{
    Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};

use crate::egress::{self, Alive, BoxError, Client, Options, Outgoing};
use crate::runtime::State;

/// All names and values of a head together, in bytes: what the host reads of a request,
/// too.
const MAX_FIELDS: usize = 64 << 10;
/// What a guest writes of a body at once, and what waits of it for its reader.
const CHUNK: usize = 64 << 10;

/// What `wasi:http` needs of an instance.
pub(crate) struct Http {
    context: WasiHttpCtx,
    hooks: Hooks,
}

impl Http {
    pub(crate) fn new(client: &Arc<Client>, deadline: Instant) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_FIELDS);
        Self {
            context,
            hooks: Hooks {
                client: Arc::clone(client),
                alive: Alive::default(),
                deadline,
            },
        }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.hooks.alive.end();
    }
}

struct Hooks {
    client: Arc<Client>,
    /// Until the instance ends.
    alive: Alive,
    /// When whatever runs now must have ended.
    deadline: Instant,
}

/// What becomes of a request.
type Answered = Result<(
    http::Response<WasiBody>,
    Box<dyn Future<Output = Result<()>> + Send>,
)>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Answered> + Send> {
        let client = Arc::clone(&self.client);
        let alive = self.alive.clone();
        let RequestOptions {
            connect_timeout,
            first_byte_timeout,
            between_bytes_timeout,
        } = options.unwrap_or_default();
        let options = Options {
            connect_timeout,
            first_byte_timeout,
            between_bytes_timeout,
            deadline: self.deadline,
        };
        Box::new(async move {
            let request = request.map(|body| {
                let body = body.map_err(|error| -> BoxError { Box::new(error) });
                Outgoing::new(body.boxed_unsync(), alive)
            });
            let response = client.send(request, options).await.map_err(head_error)?;
            let response = response.map(|body| body.map_err(body_error).boxed_unsync());
            let done: Box<dyn Future<Output = Result<()>> + Send> = Box::new(async { Ok(()) });
            Ok((response, done))
        })
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name| wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS.contains(name))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

/// Why there is no answer, in the words of WASI.
fn head_error(error: egress::Error) -> Error {
    match error {
        egress::Error::Denied(_) => Error::HttpRequestDenied,
        egress::Error::AddressDenied(..) => Error::DestinationIpProhibited,
        egress::Error::Uri(_) => Error::HttpRequestUriInvalid,
        egress::Error::Method => Error::HttpRequestMethodInvalid,
        egress::Error::Headers(_) | egress::Error::Host(_) => {
            Error::InternalError(Some(error.to_string()))
        }
        egress::Error::Limit => Error::ConnectionLimitReached,
        egress::Error::Dns(why) => Error::DnsError {
            rcode: Some(why),
            info_code: None,
        },
        egress::Error::DnsTimeout => Error::DnsTimeout,
        egress::Error::ConnectTimeout => Error::ConnectionTimeout,
        egress::Error::Connect(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Error::ConnectionRefused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                Error::DestinationIpUnroutable
            }
            _ => Error::DestinationUnavailable,
        },
        egress::Error::Certificate(_) => Error::TlsCertificateError,
        egress::Error::TlsAlert(id, message) => Error::TlsAlertReceived {
            alert_id: Some(id),
            alert_message: Some(message),
        },
        egress::Error::Tls(_) => Error::TlsProtocolError,
        egress::Error::ResponseTimeout => Error::HttpResponseTimeout,
        egress::Error::ReadTimeout => Error::ConnectionReadTimeout,
        egress::Error::HeadTooLarge => Error::HttpResponseHeaderSectionSize(None),
        egress::Error::ResponseTooLarge(most) => Error::HttpResponseBodySize(Some(most)),
        egress::Error::Terminated => Error::ConnectionTerminated,
        egress::Error::Upgrade => Error::HttpUpgradeFailed,
        egress::Error::Protocol(_) | egress::Error::Body => Error::HttpProtocolError,
    }
}

/// Why an answer does not go on.
fn body_error(error: egress::Error) -> Error {
    match error {
        egress::Error::Terminated => Error::HttpResponseIncomplete,
        other => head_error(other),
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.http.hooks.deadline = self.deadline;
        WasiHttpCtxView {
            hooks: &mut self.http.hooks,
            table: &mut self.table,
            ctx: &mut self.http.context,
        }
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)
}
