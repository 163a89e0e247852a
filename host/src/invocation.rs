//! The words that triggers, dispatcher and runtime share: what comes in, on
//! whose behalf, and how it ended. Plain data, no I/O.

mod event;
mod outcome;
mod tail;

pub use event::{
    Answer, Call, Event, HttpAnswer, HttpRequest, RequestId, RouteMatch, Trigger,
    is_connection_header, traceparent,
};
pub use outcome::{Failure, OutcomeKind, Usage};
pub use tail::Tail;
