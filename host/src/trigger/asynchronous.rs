//! Asynchronous invocation: an event is accepted when it is durable, and then tried until it
//! succeeds or is given up.
//!
//! Each function has a queue of its own that nobody else can name. What is accepted is a
//! message there; its id is the request id of all its attempts. Schedules send their fires
//! the same way.
//!
//! A record for an HTTP endpoint is a message, too, in another queue of the function's: it is
//! sent in the commit that ends the event, and posted from there until somebody takes it.

mod deliver;
mod envelope;
mod intake;
mod outbox;
pub mod record;
mod worker;

pub use deliver::Deliveries;
pub use envelope::{Envelope, Fire};
pub use intake::{Intake, NewEvent};
pub use outbox::HostOutbox;
pub use worker::{AsyncWorker, Surroundings};

use crate::function::FunctionName;
use crate::queue::QueueName;

/// How many functions may invoke each other in a chain: Lambda breaks a loop after about
/// sixteen.
pub const MAX_DEPTH: u32 = 16;

/// The queue of a function's events.
#[must_use]
pub fn queue_of(function: &FunctionName) -> QueueName {
    QueueName::internal("async", function.as_str())
}

/// The queue of records that are posted to a function's destinations.
#[must_use]
pub fn records_of(function: &FunctionName) -> QueueName {
    QueueName::internal("http", function.as_str())
}
