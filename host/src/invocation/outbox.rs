//! What functions send to queues and to each other.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::function::FunctionName;
use crate::queue::{NewMessage, QueueName};

/// Why an event was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no queue or function of this name.
    NotFound(String),
    /// Larger than this many bytes.
    TooLarge(u64),
    /// Something about it is wrong.
    Invalid(String),
    /// It is full: later, perhaps.
    Throttled(Option<Duration>),
    /// It cannot be stored now.
    Unavailable(String),
}

/// What an outbox answers, once it is durable.
pub type Posted<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An event for another function.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The function.
    pub function: FunctionName,
    /// Its version or alias.
    pub qualifier: Option<String>,
    /// What its handler gets.
    pub payload: Bytes,
    /// How many invocations stand before it in a chain.
    pub depth: u32,
    /// The W3C trace context of who sends it.
    pub traceparent: Option<String>,
}

/// Takes what functions send. Whether they may is decided here.
pub trait Outbox: Send + Sync {
    /// Sends messages to a queue; the answers, ids, are in their order.
    fn send(
        &self,
        queue: QueueName,
        messages: Vec<NewMessage>,
    ) -> Posted<'_, Vec<Result<String, Refused>>>;

    /// Accepts an event for a function. Answers its request id.
    fn invoke(&self, letter: Letter) -> Posted<'_, Result<String, Refused>>;
}

/// An outbox that takes nothing, for who runs functions alone.
pub struct NoOutbox;

impl Outbox for NoOutbox {
    fn send(
        &self,
        queue: QueueName,
        messages: Vec<NewMessage>,
    ) -> Posted<'_, Vec<Result<String, Refused>>> {
        let refused = Err(Refused::NotFound(queue.to_string()));
        Box::pin(async move { vec![refused; messages.len()] })
    }

    fn invoke(&self, letter: Letter) -> Posted<'_, Result<String, Refused>> {
        Box::pin(async move { Err(Refused::NotFound(letter.function.to_string())) })
    }
}
