//! Where events go that are sent in tests on the build machine. It is not there
//! in a function.
//!
//! Each thread, and so each test, has its own.
//!
//! ```
//! use dunlin_sdk::producer::{self, SendError, outbox};
//! use dunlin_sdk::{Error, Raw};
//!
//! fn handle(Raw(event): Raw) -> Result<String, Error> {
//!     Ok(producer::send("copies", event)?)
//! }
//!
//! handle(Raw(b"kite".into())).unwrap();
//! assert_eq!(outbox::take()[0].body(), b"kite");
//!
//! outbox::refuse(SendError::Throttled(None));
//! handle(Raw(b"boat".into())).unwrap_err();
//! assert_eq!(outbox::take(), []);
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;

use super::{Outgoing, SendError};

/// An event that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    /// A message.
    Message {
        /// The queue it was sent to.
        queue: String,
        /// What was sent.
        message: Outgoing,
    },
    /// An invocation.
    Invocation {
        /// The function, with its alias or version if it was named.
        function: String,
        /// Its event.
        payload: Vec<u8>,
    },
}

impl Sent {
    /// The body of the message, or the payload of the invocation.
    pub fn body(&self) -> &[u8] {
        match self {
            Self::Message { message, .. } => &message.body,
            Self::Invocation { payload, .. } => payload,
        }
    }

    /// The queue or the function.
    pub fn target(&self) -> &str {
        match self {
            Self::Message { queue, .. } => queue,
            Self::Invocation { function, .. } => function,
        }
    }
}

#[derive(Default)]
struct Outbox {
    sent: Vec<Sent>,
    refusals: VecDeque<SendError>,
    /// So that each event has an id of its own.
    accepted: u64,
}

thread_local! {
    static OUTBOX: RefCell<Outbox> = RefCell::default();
}

/// What this thread sent since the last call, in its order.
pub fn take() -> Vec<Sent> {
    OUTBOX.with_borrow_mut(|outbox| mem::take(&mut outbox.sent))
}

/// Has the next event refused that this thread sends, once. Several calls have
/// as many events refused, in their order.
pub fn refuse(error: SendError) {
    OUTBOX.with_borrow_mut(|outbox| outbox.refusals.push_back(error));
}

fn accept(event: Sent) -> Result<String, SendError> {
    OUTBOX.with_borrow_mut(|outbox| {
        if let Some(error) = outbox.refusals.pop_front() {
            return Err(error);
        }
        outbox.sent.push(event);
        outbox.accepted += 1;
        Ok(format!("sent-{}", outbox.accepted))
    })
}

pub(super) fn send(queue: &str, message: Outgoing) -> Result<String, SendError> {
    accept(Sent::Message {
        queue: queue.to_owned(),
        message,
    })
}

pub(super) fn send_batch(queue: &str, messages: Vec<Outgoing>) -> Vec<Result<String, SendError>> {
    messages
        .into_iter()
        .map(|message| send(queue, message))
        .collect()
}

pub(super) fn invoke(function: &str, payload: Vec<u8>) -> Result<String, SendError> {
    accept(Sent::Invocation {
        function: function.to_owned(),
        payload,
    })
}

/// The same, ready at once.
pub(super) mod asynchronous {
    use super::{Outgoing, SendError};

    pub(in super::super) async fn send(
        queue: &str,
        message: Outgoing,
    ) -> Result<String, SendError> {
        super::send(queue, message)
    }

    pub(in super::super) async fn send_batch(
        queue: &str,
        messages: Vec<Outgoing>,
    ) -> Vec<Result<String, SendError>> {
        super::send_batch(queue, messages)
    }

    pub(in super::super) async fn invoke(
        function: &str,
        payload: Vec<u8>,
    ) -> Result<String, SendError> {
        super::invoke(function, payload)
    }
}
