//! Sending events: messages to queues, and invocations that nobody waits for.
//!
//! An id in the answer means that the event is on the host's disk, and will be
//! delivered at least once. A function reaches only the queues and functions
//! that its manifest names in `sends-to` and `invokes`.
//!
//! ```
//! use dunlin_sdk::producer::{self, Outgoing};
//! use dunlin_sdk::{Error, Request, Response, StatusCode};
//! use std::time::Duration;
//!
//! #[dunlin_sdk::http]
//! fn handle(request: Request) -> Result<Response, Error> {
//!     let id = producer::send("images", request.body())?;
//!     let reminder = Outgoing::new(id.as_str()).delay(Duration::from_secs(600));
//!     producer::send("reminders", reminder)?;
//!     Ok(Response::text(id).with_status(StatusCode::ACCEPTED))
//! }
//! ```
//!
//! The functions here wait until the host has answered, which takes an fsync that
//! many senders share. To do something else meanwhile, an `async fn` handler uses
//! those in [`asynchronous`].
//!
//! In tests on the build machine there is no host: what is sent goes to the
//! [`outbox`], where a test finds it.

pub mod asynchronous;
mod error;
#[cfg(target_arch = "wasm32")]
mod host;
#[cfg(not(target_arch = "wasm32"))]
pub mod outbox;
mod outgoing;

use serde::Serialize;

#[cfg(not(target_arch = "wasm32"))]
use self::outbox as host;

pub use error::SendError;
pub use outgoing::Outgoing;

/// So many messages go to the host in one call.
const MAX_BATCH: usize = 10;

/// Sends a message to a queue. The answer is the message's id.
///
/// A message may be an [`Outgoing`], or what its body shall be: text or bytes.
///
/// # Errors
///
/// The message was not accepted.
pub fn send(queue: &str, message: impl Into<Outgoing>) -> Result<String, SendError> {
    host::send(queue, message.into())
}

/// Sends several messages to a queue, which is faster than one after the other.
///
/// The answers, each an id or why that message was not accepted, stand in the
/// order of the messages.
#[must_use = "each message is accepted or refused by itself"]
pub fn send_batch<M: Into<Outgoing>>(
    queue: &str,
    messages: impl IntoIterator<Item = M>,
) -> Vec<Result<String, SendError>> {
    let mut messages = messages.into_iter().map(Into::into);
    let mut answers = Vec::new();
    loop {
        let batch: Vec<Outgoing> = messages.by_ref().take(MAX_BATCH).collect();
        if batch.is_empty() {
            return answers;
        }
        answers.extend(host::send_batch(queue, batch));
    }
}

/// Invokes a function, `name`, `name:alias` or `name:version`, with these bytes
/// as its event, and does not wait for it. The answer is the request id.
///
/// # Errors
///
/// The invocation was not accepted.
pub fn invoke(function: &str, payload: impl Into<Vec<u8>>) -> Result<String, SendError> {
    host::invoke(function, payload.into())
}

/// As [`invoke`], with a value that is written as JSON.
///
/// # Errors
///
/// The invocation was not accepted, or the value cannot be JSON.
pub fn invoke_json<T: Serialize + ?Sized>(
    function: &str,
    payload: &T,
) -> Result<String, SendError> {
    invoke(function, json(payload)?)
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, SendError> {
    serde_json::to_vec(value).map_err(|error| SendError::Invalid(format!("not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::outbox::Sent;
    use super::*;

    #[test]
    fn a_message_arrives_as_it_was_written() {
        let message = Outgoing::json(&[1, 2])
            .unwrap()
            .attribute("country", "de")
            .delay(Duration::from_secs(5))
            .group("customer-7")
            .deduplication_id("order-1");
        let id = send("orders.fifo", message.clone()).unwrap();
        assert_ne!(send("orders.fifo", "text").unwrap(), id);

        let sent = outbox::take();
        assert_eq!(
            sent[0],
            Sent::Message {
                queue: "orders.fifo".into(),
                message
            }
        );
        assert_eq!(sent[1].body(), b"text");
        assert_eq!(outbox::take(), []);
    }

    #[test]
    fn a_large_batch_goes_in_parts_and_each_answer_has_its_place() {
        outbox::refuse(SendError::TooLarge(3));
        let answers = send_batch("orders", (0..23).map(|i| i.to_string()));
        assert_eq!(answers.len(), 23);
        assert_eq!(answers[0], Err(SendError::TooLarge(3)));
        assert!(answers[1..].iter().all(Result::is_ok));

        let bodies: Vec<String> = outbox::take()
            .iter()
            .map(|sent| String::from_utf8_lossy(sent.body()).into_owned())
            .collect();
        let expected: Vec<String> = (1..23).map(|i| i.to_string()).collect();
        assert_eq!(bodies, expected);
        assert!(send_batch("orders", [""; 0]).is_empty());
    }

    #[test]
    fn invocations_carry_bytes_or_json() {
        invoke("resize:live", *b"\xff").unwrap();
        invoke_json("resize", "text").unwrap();
        let invocation = |function: &str, payload: &[u8]| Sent::Invocation {
            function: function.into(),
            payload: payload.into(),
        };
        let expected = [
            invocation("resize:live", b"\xff"),
            invocation("resize", b"\"text\""),
        ];
        assert_eq!(outbox::take(), expected);
    }

    #[test]
    fn what_cannot_be_json_is_not_sent() {
        let map = HashMap::from([((1, 2), 3)]);
        let message = "not JSON: key must be a string";
        assert_eq!(
            invoke_json("f", &map),
            Err(SendError::Invalid(message.into()))
        );
        assert_eq!(
            Outgoing::json(&map),
            Err(SendError::Invalid(message.into()))
        );
        assert_eq!(outbox::take(), []);
    }
}
