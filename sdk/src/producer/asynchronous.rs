//! The functions of [`producer`](super) for an `async fn` handler: while the host
//! stores one event, the handler may do something else, or send another.
//!
//! ```
//! use dunlin_sdk::producer::asynchronous as producer;
//! use dunlin_sdk::{Error, Raw};
//!
//! #[dunlin_sdk::invoke]
//! async fn handle(Raw(event): Raw) -> Result<String, Error> {
//!     Ok(producer::send("copies", event).await?)
//! }
//! ```

use serde::Serialize;

#[cfg(target_arch = "wasm32")]
use super::host::asynchronous as host;
#[cfg(not(target_arch = "wasm32"))]
use super::outbox::asynchronous as host;
use super::{MAX_BATCH, Outgoing, SendError, json};

/// As [`send`](super::send).
///
/// # Errors
///
/// The message was not accepted.
pub async fn send(queue: &str, message: impl Into<Outgoing>) -> Result<String, SendError> {
    host::send(queue, message.into()).await
}

/// As [`send_batch`](super::send_batch).
#[must_use = "each message is accepted or refused by itself"]
pub async fn send_batch<M: Into<Outgoing>>(
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
        answers.extend(host::send_batch(queue, batch).await);
    }
}

/// As [`invoke`](super::invoke).
///
/// # Errors
///
/// The invocation was not accepted.
pub async fn invoke(function: &str, payload: impl Into<Vec<u8>>) -> Result<String, SendError> {
    host::invoke(function, payload.into()).await
}

/// As [`invoke_json`](super::invoke_json).
///
/// # Errors
///
/// The invocation was not accepted, or the value cannot be JSON.
pub async fn invoke_json<T: Serialize + ?Sized>(
    function: &str,
    payload: &T,
) -> Result<String, SendError> {
    invoke(function, json(payload)?).await
}
