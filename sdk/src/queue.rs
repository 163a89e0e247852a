//! Queues: a [`Message`] at a time, or a [`Batch`] of them, each of which is
//! answered for itself.
//!
//! A handler of single messages is run for each message of a batch in turn. In a
//! FIFO queue a message that is to be tried again holds up those of its group
//! behind it; see [`Batch::each`].
//!
//! Delivery is at least once. A handler that must not act twice remembers
//! [`Message::id`], or hands on what it did with a
//! [deduplication id](crate::producer::Outgoing::deduplication_id).

mod batch;
#[doc(hidden)]
pub mod glue;
mod message;

pub use crate::failure::{IntoFailure, Outcome};
pub use batch::{Batch, BatchResult, Failed};
pub use message::Message;
