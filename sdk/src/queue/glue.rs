//! Between the generated types and ours. The code that `#[queue]` writes calls
//! this; nobody else does.

use dunlin_sdk_async::queue::dunlin::event::types as async_types;
use dunlin_sdk_async::queue::exports::dunlin::event::queue as asynchronous;

use super::{Batch, BatchResult, Failed, Message};
use crate::bindings::queue::dunlin::event::types;
use crate::bindings::queue::exports::dunlin::event::queue as synchronous;
use crate::failure::{IntoFailure, Outcome, Unfailing};
use crate::{Failure, logging, time};

pub use asynchronous::Guest as AsyncGuest;
pub use asynchronous::{Failed as AsyncFailed, Message as AsyncMessage};
pub use synchronous::Guest;
pub use synchronous::{Failed as RawFailed, Message as RawMessage};

/// What a handler of batches may return. `Kind` follows from the error.
#[diagnostic::on_unimplemented(
    message = "a handler of batches cannot return `{Self}`",
    note = "it returns `BatchResult`, nothing, or `Result<R, E>` where `R` is one of these: `E` is `dunlin_sdk::Failure`, implements `std::error::Error`, or is `dunlin_sdk::Error` or text"
)]
pub trait BatchOutcome<Kind> {
    /// The messages that failed, or why all of them did.
    fn into_result(self) -> Result<BatchResult, Failure>;
}

impl BatchOutcome<Unfailing> for () {
    fn into_result(self) -> Result<BatchResult, Failure> {
        Ok(BatchResult::handled())
    }
}

impl BatchOutcome<Unfailing> for BatchResult {
    fn into_result(self) -> Result<BatchResult, Failure> {
        Ok(self)
    }
}

impl<R: BatchOutcome<Unfailing>, E: IntoFailure<K>, K> BatchOutcome<K> for Result<R, E> {
    fn into_result(self) -> Result<BatchResult, Failure> {
        match self {
            Ok(result) => result.into_result(),
            Err(error) => Err(error.into_failure()),
        }
    }
}

/// What a handler may take, with what it then may return.
#[diagnostic::on_unimplemented(
    message = "a queue's handler cannot take `{Self}` and return `{R}`",
    note = "it takes `dunlin_sdk::Message` and returns `Result<(), E>`, or takes `dunlin_sdk::Batch` or `Vec<Message>` and returns `BatchResult` or `Result<BatchResult, E>`"
)]
pub trait Taken<R, Kind>: Sized {
    /// Runs a handler.
    fn run(batch: Batch, handle: impl FnMut(Self) -> R) -> BatchResult;

    /// Runs a handler that is asynchronous.
    fn run_async(
        batch: Batch,
        handle: impl AsyncFnMut(Self) -> R,
    ) -> impl Future<Output = BatchResult>;
}

impl<R: Outcome<K>, K> Taken<R, K> for Message {
    fn run(batch: Batch, handle: impl FnMut(Self) -> R) -> BatchResult {
        batch.each(handle)
    }

    async fn run_async(batch: Batch, handle: impl AsyncFnMut(Self) -> R) -> BatchResult {
        batch.each_async(handle).await
    }
}

impl<R: BatchOutcome<K>, K> Taken<R, K> for Batch {
    fn run(batch: Batch, mut handle: impl FnMut(Self) -> R) -> BatchResult {
        let ids = ids(&batch);
        together(ids, handle(batch))
    }

    async fn run_async(batch: Batch, mut handle: impl AsyncFnMut(Self) -> R) -> BatchResult {
        let ids = ids(&batch);
        together(ids, handle(batch).await)
    }
}

impl<R: BatchOutcome<K>, K> Taken<R, K> for Vec<Message> {
    fn run(batch: Batch, mut handle: impl FnMut(Self) -> R) -> BatchResult {
        Batch::run(batch, |batch| handle(batch.into_iter().collect()))
    }

    async fn run_async(batch: Batch, mut handle: impl AsyncFnMut(Self) -> R) -> BatchResult {
        Batch::run_async(batch, async |batch| {
            handle(batch.into_iter().collect()).await
        })
        .await
    }
}

fn ids(batch: &Batch) -> Vec<String> {
    batch.iter().map(|message| message.id.clone()).collect()
}

/// The result of a batch that was handled as a whole.
fn together<K>(ids: Vec<String>, outcome: impl BatchOutcome<K>) -> BatchResult {
    outcome.into_result().unwrap_or_else(|failure| {
        // What cannot be read in one message says nothing of the others: a `?`
        // must not send a whole batch to the dead letters.
        let each = match failure.delay() {
            Some(delay) => Failure::retry_after(delay),
            None => Failure::retry(),
        };
        if let Some(reason) = failure.reason() {
            logging::batch_not_handled(&ids, reason);
        }
        let mut result = BatchResult::handled();
        for id in ids {
            result.push(id, each.clone());
        }
        result
    })
}

/// Answers a batch.
pub fn run<T, R, K, M, F>(batch: Vec<M>, handle: impl FnMut(T) -> R) -> Vec<F>
where
    T: Taken<R, K>,
    Message: From<M>,
    F: From<Failed>,
{
    answer(T::run(event(batch), handle))
}

/// Answers a batch by an asynchronous handler.
pub async fn run_async<T, R, K, M, F>(batch: Vec<M>, handle: impl AsyncFnMut(T) -> R) -> Vec<F>
where
    T: Taken<R, K>,
    Message: From<M>,
    F: From<Failed>,
{
    answer(T::run_async(event(batch), handle).await)
}

fn event<M>(batch: Vec<M>) -> Batch
where
    Message: From<M>,
{
    Batch::new(batch.into_iter().map(Message::from))
}

fn answer<F: From<Failed>>(result: BatchResult) -> Vec<F> {
    result.into_failed().into_iter().map(F::from).collect()
}

/// The same types are generated once for each ABI.
macro_rules! conversions {
    ($message:ty, $failed:ident, $types:ident) => {
        impl From<$message> for Message {
            fn from(message: $message) -> Self {
                let $types::Delivery {
                    id,
                    attempt,
                    max_attempts,
                    enqueued_at,
                    source,
                } = message.delivery;
                Self {
                    id,
                    attempt,
                    max_attempts: (max_attempts > 0).then_some(max_attempts),
                    enqueued_at: time::from_millis(enqueued_at),
                    queue: source,
                    body: message.body,
                    attributes: message.attributes,
                    group: message.group,
                }
            }
        }

        impl From<Failed> for $failed {
            fn from(Failed { id, failure }: Failed) -> Self {
                let failure = if failure.is_rejection() {
                    $types::Failure::Reject(failure.into_reason())
                } else {
                    $types::Failure::Retry(failure.delay().map(time::to_millis))
                };
                Self { id, failure }
            }
        }
    };
}

conversions!(RawMessage, RawFailed, types);
conversions!(AsyncMessage, AsyncFailed, async_types);

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::Error;

    fn raw(id: &str, max_attempts: u32) -> RawMessage {
        RawMessage {
            delivery: types::Delivery {
                id: id.to_owned(),
                attempt: 2,
                max_attempts,
                enqueued_at: 1_500,
                source: "orders".to_owned(),
            },
            body: b"body".to_vec(),
            attributes: vec![("a".to_owned(), "b".to_owned())],
            group: Some("g".to_owned()),
        }
    }

    #[test]
    fn a_message_keeps_all_that_the_host_says_of_it() {
        let mut expected = Message::new("body")
            .with_id("1")
            .with_attempt(2, 3)
            .with_attribute("a", "b")
            .with_group("g");
        expected.enqueued_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        expected.queue = "orders".to_owned();
        assert_eq!(Message::from(raw("1", 3)), expected);
        assert_eq!(Message::from(raw("1", 0)).max_attempts, None);
    }

    /// The ids of the failed messages of a batch, with `r` for reject or the delay.
    fn run_on<T: Taken<R, K>, R, K>(handle: impl FnMut(T) -> R) -> Vec<(String, String)> {
        let failed: Vec<RawFailed> = run(vec![raw("1", 0), raw("2", 0)], handle);
        let told = |failure| match failure {
            types::Failure::Reject(reason) => format!("reject {reason}"),
            types::Failure::Retry(delay) => format!("retry {delay:?}"),
        };
        failed
            .into_iter()
            .map(|failed| (failed.id, told(failed.failure)))
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(id, fate)| ((*id).to_owned(), (*fate).to_owned()))
            .collect()
    }

    #[test]
    fn handlers_take_messages_or_batches_and_may_be_unable_to_fail() {
        assert_eq!(run_on(|_: Message| ()), []);
        assert_eq!(run_on(|_: Batch| ()), []);
        assert_eq!(run_on(|_: Vec<Message>| BatchResult::handled()), []);
        assert_eq!(run_on(|_: Batch| Ok::<(), Error>(())), []);
        assert_eq!(
            run_on(|message: Message| match message.id.as_str() {
                "2" => Err(Failure::reject("no")),
                _ => Ok(()),
            }),
            pairs(&[("2", "reject no")])
        );
        assert_eq!(
            run_on(|batch: Vec<Message>| {
                let mut result = BatchResult::default();
                result.fail(&batch[1], Failure::retry_after(Duration::from_millis(7)));
                Ok::<_, Error>(result)
            }),
            pairs(&[("2", "retry Some(7)")])
        );
    }

    #[test]
    fn an_error_of_a_whole_batch_has_all_of_it_tried_again_and_rejects_none() {
        assert_eq!(
            run_on(|_: Batch| Err::<BatchResult, _>(Failure::reject("one is not JSON"))),
            pairs(&[("1", "retry None"), ("2", "retry None")])
        );
        assert_eq!(
            run_on(|_: Batch| Err::<(), _>(Failure::retry_after(Duration::from_millis(7)))),
            pairs(&[("1", "retry Some(7)"), ("2", "retry Some(7)")])
        );
        assert_eq!(
            run_on(|_: Batch| Err::<(), _>("no")),
            pairs(&[("1", "retry None"), ("2", "retry None")])
        );
    }
}
