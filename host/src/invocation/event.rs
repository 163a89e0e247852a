//! Events, and what is known of their origin.

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

/// What a handler receives. Small: each step of an invocation has a place for it.
#[derive(Debug)]
pub enum Event {
    /// For `dunlin:event/http`.
    Http(Box<HttpRequest>),
    /// For `wasi:http`.
    Stream(Box<StreamRequest>),
    /// For `dunlin:event/invoke` or `wasi:cli/run`.
    Payload(Bytes),
    /// For `dunlin:event/schedule`.
    Tick(Box<Tick>),
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
