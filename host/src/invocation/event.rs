//! Events, what is known of their origin, and answers.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::{Advice, Handler, StreamRequest, Tail};

/// Names one invocation towards the client, the log and the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// The id of an event, which its invocations have too.
    #[must_use]
    pub fn of(id: Uuid) -> Self {
        Self(id)
    }

    /// As a UUID.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// A new random one.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Writes it into a buffer on the stack, without allocating.
    pub fn with_str<R>(self, use_it: impl FnOnce(&str) -> R) -> R {
        let mut buffer = Uuid::encode_buffer();
        use_it(self.0.hyphenated().encode_lower(&mut buffer))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What kind of trigger brought an event. A closed set: it is a label of
/// metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// An HTTP route.
    Http,
    /// A direct invocation through the API.
    Invoke,
    /// An asynchronous invocation.
    Async,
    /// A schedule.
    Schedule,
    /// A queue mapping.
    Queue,
}

impl Trigger {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Http,
        Self::Invoke,
        Self::Async,
        Self::Schedule,
        Self::Queue,
    ];

    /// As it stands in logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Invoke => "invoke",
            Self::Async => "async",
            Self::Schedule => "schedule",
            Self::Queue => "queue",
        }
    }
}

/// An HTTP request, whole, for a function that exports `dunlin:event/http`.
#[derive(Debug)]
pub struct HttpRequest {
    /// The method.
    pub method: http::Method,
    /// Path and query as the client sent them.
    pub target: http::uri::PathAndQuery,
    /// Headers, already without those that concern only the connection.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What a handler receives.
#[derive(Debug)]
pub enum Event {
    /// For `dunlin:event/http`.
    Http(HttpRequest),
    /// For `wasi:http`.
    Stream(StreamRequest),
    /// For `dunlin:event/invoke` or `wasi:cli/run`.
    Payload(Bytes),
    /// For `dunlin:event/schedule`.
    Tick(Tick),
    /// For `dunlin:event/queue`.
    Batch(Vec<QueueMessage>),
}

impl Event {
    /// Who handles it.
    #[must_use]
    pub fn handler(&self) -> Handler {
        match self {
            Self::Http(_) | Self::Stream(_) => Handler::Http,
            Self::Payload(_) => Handler::Invoke,
            Self::Tick(_) => Handler::Schedule,
            Self::Batch(_) => Handler::Queue,
        }
    }
}

/// What is known of the delivery of an event that may come more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Names the event, the same on each attempt.
    pub id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// After so many a failed event is a dead letter. 0: no such limit.
    pub max_attempts: u32,
    /// When it was accepted, in milliseconds since 1970.
    pub enqueued_at: u64,
    /// The name of the queue or schedule.
    pub source: Arc<str>,
}

/// One fire of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Its delivery.
    pub occurrence: Occurrence,
    /// The schedule's name.
    pub schedule: String,
    /// When it was due, in milliseconds since 1970.
    pub scheduled_at: u64,
    /// When the host sent it, in milliseconds since 1970.
    pub fired_at: u64,
    /// Fires before this one that were missed and will not come.
    pub missed: u32,
    /// What the schedule was given to deliver.
    pub payload: Bytes,
}

/// One message of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueMessage {
    /// Its delivery.
    pub occurrence: Occurrence,
    /// The body as it was sent.
    pub body: Bytes,
    /// The sender's attributes and, with the prefix `sys:`, those of the queue.
    pub attributes: Vec<(String, String)>,
    /// The message group in a FIFO queue.
    pub group: Option<String>,
}

/// A message of a batch that was not handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The id of its delivery.
    pub id: String,
    /// What the handler says of it.
    pub advice: Advice,
}

/// How a request matched a route.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The pattern as it stands in the manifest.
    pub pattern: Arc<str>,
    /// Parameters in the order of the pattern, decoded.
    pub parameters: Vec<(String, String)>,
}

/// A W3C trace context, if it is one (Trace Context section 3.2.2): a version, a
/// trace and a parent that are not all zeros, and flags, in lower-case
/// hexadecimal. What is none must be treated as if it had not come.
#[must_use]
pub fn traceparent(text: &str) -> Option<String> {
    let fields: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags, ..] = fields.as_slice() else {
        return None;
    };
    let hex = |field: &str, length: usize| {
        field.len() == length
            && field
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let not_zero = |field: &str| field.bytes().any(|b| b != b'0');
    let known_form = fields.len() == 4 || *version != "00";
    let valid = hex(version, 2)
        && *version != "ff"
        && known_form
        && hex(trace, 32)
        && not_zero(trace)
        && hex(parent, 16)
        && not_zero(parent)
        && hex(flags, 2);
    valid.then(|| text.to_owned())
}

/// What is known of an invocation beside its event.
#[derive(Debug)]
pub struct Call {
    /// Its name.
    pub request_id: RequestId,
    /// What brought it.
    pub trigger: Trigger,
    /// The qualifier the caller used, if any.
    pub qualifier: Option<String>,
    /// Which attempt of its event it is, from 1.
    pub attempt: u32,
    /// The W3C trace context that came with it.
    pub traceparent: Option<String>,
    /// The route that matched.
    pub route: Option<RouteMatch>,
    /// The HTTP peer.
    pub client: Option<IpAddr>,
    /// The client context of a direct invocation, as JSON.
    pub client_context: Option<String>,
    /// Where the end of its log goes as well.
    pub tail: Option<Tail>,
    /// How many invocations stand before it in a chain of functions that send events to
    /// each other.
    pub depth: u32,
    /// When another attempt makes sense, as the guest says while it runs.
    pub retry_after: Option<Duration>,
}

impl Call {
    /// A first attempt of which nothing else is known.
    #[must_use]
    pub fn new(trigger: Trigger) -> Self {
        Self {
            request_id: RequestId::random(),
            trigger,
            qualifier: None,
            attempt: 1,
            traceparent: None,
            route: None,
            client: None,
            client_context: None,
            tail: None,
            depth: 0,
            retry_after: None,
        }
    }
}

/// An HTTP response, whole and fit to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status, 200 to 599.
    pub status: http::StatusCode,
    /// Headers, without those that frame the message.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Headers that concern one connection or the framing of one message (RFC 9110
/// section 7.6.1, RFC 9112 section 6): the host's business in both directions.
#[must_use]
pub fn is_connection_header(name: &http::HeaderName) -> bool {
    use http::header;
    const KEEP_ALIVE: http::HeaderName = http::HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: http::HeaderName = http::HeaderName::from_static("proxy-connection");
    [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ]
    .contains(name)
}

/// What may not come after a body, in either direction (RFC 9110 section 6.5.1): what
/// frames or routes the message, says who asks, how the request is to be handled or the
/// answer kept, and what the body is.
fn is_forbidden_trailer(name: &http::HeaderName) -> bool {
    use http::header;
    const FORBIDDEN: [http::HeaderName; 17] = [
        header::AGE,
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::COOKIE,
        header::DATE,
        header::EXPECT,
        header::EXPIRES,
        header::HOST,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::PRAGMA,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::RETRY_AFTER,
        header::SET_COOKIE,
        header::VARY,
        header::WWW_AUTHENTICATE,
    ];
    is_connection_header(name)
        || name.as_str().starts_with("content-")
        || name.as_str().starts_with("if-")
        || FORBIDDEN.contains(name)
}

/// Takes out of trailers what may not stand in them.
#[must_use]
pub fn allowed_trailers(mut trailers: http::HeaderMap) -> http::HeaderMap {
    let forbidden: Vec<http::HeaderName> = trailers
        .keys()
        .filter(|name| is_forbidden_trailer(name))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
    trailers
}

/// A status that ends a request.
fn check_status(status: u16) -> Result<http::StatusCode, String> {
    http::StatusCode::from_u16(status)
        .ok()
        .filter(|_| (200..600).contains(&status))
        .ok_or_else(|| format!("the status {status} is none that ends a request: use 200 to 599"))
}

/// Checks the head of an answer whose body comes in pieces, and takes out what concerns
/// only a connection. What says how long the body is, and which trailers follow it,
/// stays: it was checked, or is checked with the body.
///
/// # Errors
/// What no client may be sent, and why.
pub fn check_head<B: http_body::Body>(
    response: &mut http::Response<B>,
    may_lack_body: bool,
) -> Result<(), String> {
    use http::header::{CONTENT_LENGTH, TRAILER};
    check_status(response.status().as_u16())?;
    let without_body = may_lack_body
        || matches!(
            response.status(),
            http::StatusCode::NO_CONTENT | http::StatusCode::NOT_MODIFIED
        );
    let is_empty = response.body().is_end_stream();
    let headers = response.headers_mut();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let text = length.to_str().unwrap_or_default();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let shown = || length.as_bytes().escape_ascii();
        let Some(announced) = text.parse::<u64>().ok().filter(|_| digits) else {
            return Err(format!("`{}` is no content-length", shown()));
        };
        if lengths.next().is_some() {
            return Err("it has several content-lengths".into());
        }
        if is_empty && announced > 0 && !without_body {
            return Err(format!(
                "its content-length is {announced}, and it has no body"
            ));
        }
    }
    let connection: Vec<http::HeaderName> = headers
        .keys()
        .filter(|name| is_connection_header(name) && ![CONTENT_LENGTH, TRAILER].contains(*name))
        .cloned()
        .collect();
    for name in connection {
        headers.remove(name);
    }
    Ok(())
}

impl HttpAnswer {
    /// Checks what a guest answered.
    ///
    /// # Errors
    /// What no client may be sent, and why.
    pub fn check<N, V>(
        status: u16,
        headers: impl Iterator<Item = (N, V)>,
        body: impl Into<Bytes>,
    ) -> Result<Self, String>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let code = check_status(status)?;
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            let shown = || String::from_utf8_lossy(name.as_ref()).into_owned();
            let name = http::HeaderName::from_bytes(name.as_ref())
                .map_err(|_| format!("`{}` is no name of a header", shown().escape_debug()))?;
            if is_connection_header(&name) {
                continue;
            }
            let value = http::HeaderValue::from_bytes(value.as_ref()).map_err(|_| {
                format!("the value of the header `{name}` has bytes that HTTP does not allow")
            })?;
            map.try_append(name, value)
                .map_err(|_| "it has too many headers".to_owned())?;
        }
        Ok(Self {
            status: code,
            headers: map,
            body: body.into(),
        })
    }
}

/// What a handler answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// From `dunlin:event/http`.
    Http(HttpAnswer),
    /// From `wasi:http`: the answer has gone to whoever waited for it.
    Streamed,
    /// From `dunlin:event/invoke` or `wasi:cli/run`.
    Payload(Vec<u8>),
    /// From `dunlin:event/schedule`.
    Done,
    /// From `dunlin:event/queue`: the messages that failed.
    Batch(Vec<Failed>),
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Response};
    use http_body_util::{Empty, Full};

    use super::*;

    /// What is wrong with a head with these headers.
    fn head<B: http_body::Body>(
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: B,
        may_lack_body: bool,
    ) -> Result<HeaderMap, String> {
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_static(name);
            response.headers_mut().append(name, value.parse().unwrap());
        }
        check_head(&mut response, may_lack_body).map(|()| response.headers().clone())
    }

    fn body() -> Full<Bytes> {
        Full::from("body")
    }

    #[test]
    fn a_head_keeps_its_length_and_loses_what_concerns_the_connection() {
        let kept = head(
            200,
            &[
                ("content-length", "4"),
                ("trailer", "x-last"),
                ("connection", "close"),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("te", "trailers"),
                ("x-own", "1"),
                ("x-own", "2"),
            ],
            body(),
            false,
        );
        let kept = kept.unwrap();
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "trailer", "x-own"]);
        assert_eq!(kept.get_all("x-own").iter().count(), 2);
    }

    #[test]
    fn a_length_that_is_none_is_named() {
        let length = |value| head(200, &[("content-length", value)], body(), false).unwrap_err();
        assert_eq!(length("+4"), "`+4` is no content-length");
        assert_eq!(length("4 "), "`4 ` is no content-length");
        assert_eq!(length(""), "`` is no content-length");
        assert_eq!(
            length("18446744073709551616"),
            "`18446744073709551616` is no content-length"
        );
        let twice = [("content-length", "4"), ("content-length", "4")];
        assert_eq!(
            head(200, &twice, body(), false).unwrap_err(),
            "it has several content-lengths"
        );
    }

    #[test]
    fn a_length_without_a_body_is_one_of_an_answer_that_has_none() {
        let ten = [("content-length", "10")];
        let empty = Empty::<Bytes>::new;
        assert_eq!(
            head(200, &ten, empty(), false).unwrap_err(),
            "its content-length is 10, and it has no body"
        );
        assert!(head(200, &ten, empty(), true).is_ok(), "to HEAD");
        assert!(head(304, &ten, empty(), false).is_ok());
        assert!(head(200, &[("content-length", "0")], empty(), false).is_ok());
    }

    #[test]
    fn a_status_ends_the_request() {
        for (status, ends) in [(199, false), (200, true), (599, true), (600, false)] {
            assert_eq!(head(status, &[], body(), false).is_ok(), ends, "{status}");
        }
        assert_eq!(
            head(103, &[], body(), false).unwrap_err(),
            "the status 103 is none that ends a request: use 200 to 599"
        );
    }

    #[test]
    fn of_trailers_remains_what_may_be_known_late() {
        let mut trailers = HeaderMap::new();
        for name in [
            "authorization",
            "cache-control",
            "content-length",
            "content-type",
            "cookie",
            "connection",
            "host",
            "if-match",
            "location",
            "set-cookie",
            "trailer",
            "transfer-encoding",
            "etag",
            "grpc-status",
            "server-timing",
        ] {
            trailers.append(name, "1".parse().unwrap());
        }
        trailers.append("etag", "2".parse().unwrap());
        trailers.append("host", "2".parse().unwrap());
        let allowed = allowed_trailers(trailers);
        let mut names: Vec<&str> = allowed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["etag", "grpc-status", "server-timing"]);
        assert_eq!(allowed.get_all("etag").iter().count(), 2);
    }
}
