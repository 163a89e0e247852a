//! The words that triggers, dispatcher and runtime share: what comes in, on
//! whose behalf, and how it ended. Plain data, no I/O.

mod answer;
mod event;
mod handler;
mod outbox;
mod outcome;
mod stream;
mod tail;

pub use answer::{
    Answer, HttpAnswer, allowed_trailers, check_head, is_connection_header, remove_headers,
};
pub use event::{
    Call, Event, Failed, HttpRequest, Occurrence, QueueMessage, RequestId, RouteMatch, Tick,
    Trigger, traceparent,
};
pub use handler::{Door, Doors, Handler, Interface};
pub use outbox::{Letter, NoOutbox, Outbox, Posted, Refused};
pub use outcome::{Advice, Failure, OutcomeKind, Usage};
pub use stream::{StreamBody, StreamError, StreamRequest};
pub use tail::Tail;
