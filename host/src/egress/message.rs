//! What a request must be to be sent, and what is taken off both ways.
//!
//! What belongs to one connection (RFC 9110, 7.6.1) is nobody's business beyond it, and how
//! long a message is must be said once or not at all: two readers that understand it
//! differently see different requests (request smuggling).

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;

use super::{Error, Outgoing};
use crate::function::egress::{Scheme, Target};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What belongs to a connection.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// What says how a message is read, and so may not come after it (RFC 9110, 6.5.1).
const NO_TRAILERS: [HeaderName; 3] = [CONTENT_LENGTH, HOST, TRAILER];

/// The head of a request that may be sent.
#[derive(Clone)]
pub(super) struct Head {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    pub(super) target: Target,
}

/// Whom a request is for.
pub(super) fn target(uri: &Uri) -> Result<Target, Error> {
    let scheme = uri.scheme_str().and_then(Scheme::parse);
    let scheme = scheme.ok_or(Error::Uri("its scheme is neither `http` nor `https`"))?;
    let authority = uri.authority().ok_or(Error::Uri("it names no host"))?;
    Target::new(scheme, authority.as_str()).map_err(|error| Error::Uri(error.0))
}

impl Head {
    /// Checks a request, and takes off what belongs to a connection.
    pub(super) fn check(
        request: Request<Outgoing>,
        target: Target,
    ) -> Result<(Self, Outgoing), Error> {
        let (parts, body) = request.into_parts();
        // It would make a tunnel to somebody else.
        if parts.method == Method::CONNECT {
            return Err(Error::Method);
        }
        let path = parts.uri.path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        // The line of a request names another host if it holds a whole URL.
        if !path.as_str().starts_with('/') {
            return Err(Error::Uri("its path does not begin with `/`"));
        }
        let mut headers = parts.headers;
        if headers.contains_key(TRANSFER_ENCODING) {
            return Err(Error::Headers("`transfer-encoding` is the host's to say"));
        }
        take_off(&mut headers);
        headers.remove(HOST);
        check_length(&headers, &body)?;
        let head = Self {
            method: parts.method,
            path,
            headers,
            target,
        };
        Ok((head, body))
    }

    /// Whether it may be sent twice: a second one changes nothing (RFC 9110, 9.2.2), and
    /// there is no body that was read.
    pub(super) fn is_repeatable(&self, body: &Outgoing) -> bool {
        self.method.is_idempotent() && body.is_end_stream()
    }

    /// As it goes over a connection.
    pub(super) fn over(&self, is_http2: bool, body: Outgoing) -> Request<Outgoing> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        let authority = self.target.authority();
        if is_http2 {
            let uri = Uri::builder()
                .scheme(self.target.scheme.as_str())
                .authority(authority)
                .path_and_query(self.path.clone());
            *request.uri_mut() = uri.build().expect("all parts were checked");
            *request.version_mut() = Version::HTTP_2;
        } else {
            *request.uri_mut() = Uri::from(self.path.clone());
            let host = HeaderValue::try_from(authority);
            let host = host.expect("a host is ASCII without control characters");
            request.headers_mut().insert(HOST, host);
        }
        request
    }
}

/// One `content-length` or none, a number, and that of the body if it is known.
fn check_length(headers: &HeaderMap, body: &Outgoing) -> Result<(), Error> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(());
    };
    if values.next().is_some() {
        return Err(Error::Headers("more than one `content-length`"));
    }
    let digits = value.as_bytes();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let length = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let Some(length) = length.filter(|_| is_number) else {
        return Err(Error::Headers("a `content-length` that is no number"));
    };
    let known = match body.is_end_stream() {
        true => Some(0),
        false => body.size_hint().exact(),
    };
    if known.is_some_and(|known| known != length) {
        return Err(Error::Headers("a `content-length` that is not the body's"));
    }
    Ok(())
}

/// Takes off what belongs to a connection.
pub(super) fn take_off(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter();
    let named = named.filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(','));
    let named: Vec<HeaderName> = named.filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        // Without it nobody knows how long a message is.
        if *name != CONTENT_LENGTH {
            headers.remove(name);
        }
    }
}

/// Takes out of trailers what may not be there.
pub(super) fn take_off_trailers(trailers: &mut HeaderMap) {
    take_off(trailers);
    for name in NO_TRAILERS {
        trailers.remove(name);
    }
}
