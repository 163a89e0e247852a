//! The words that triggers, dispatcher and runtime share: what comes in, on
//! whose behalf, and how it ended. Plain data, no I/O.

mod event;
mod handler;
mod outbox;
mod outcome;
mod tail;

pub use event::{
    Answer, Call, Event, Failed, HttpAnswer, HttpRequest, Occurrence, QueueMessage, RequestId,
    RouteMatch, Tick, Trigger, is_connection_header, traceparent,
};
pub use handler::Handler;
pub use outbox::{Letter, NoOutbox, Outbox, Posted, Refused};
pub use outcome::{Advice, Failure, OutcomeKind, Usage};
pub use tail::Tail;
