use std::ops::Deref;
use std::vec;

use super::Message;
use crate::Failure;
use crate::failure::{IntoFailure, Outcome};

/// Messages of one queue that came together, in their order.
///
/// It is a slice of them, and gives them away when iterated over by value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    messages: Vec<Message>,
}

impl Batch {
    /// A batch of these messages, for tests of handlers.
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            messages: messages.into_iter().collect(),
        }
    }

    /// Handles one message after the other, as a handler of single messages
    /// does: prepare first what all of them need.
    ///
    /// In a FIFO queue the order of a group holds: behind a message that is to be
    /// tried again, those of its group are not handled but tried again too. A
    /// message that is rejected holds up none, since it leaves the queue.
    ///
    /// ```
    /// use dunlin_sdk::{Batch, BatchResult, Error};
    ///
    /// #[dunlin_sdk::queue]
    /// fn handle(batch: Batch) -> Result<BatchResult, Error> {
    ///     // If this fails, all messages of the batch come again.
    ///     let prices = std::fs::read_to_string("/data/prices")?;
    ///     Ok(batch.each(|message| {
    ///         let thing = message.text()?;
    ///         if !prices.contains(thing) {
    ///             return Err(format!("no price for {thing} yet").into());
    ///         }
    ///         Ok::<_, Error>(())
    ///     }))
    /// }
    /// ```
    pub fn each<R: Outcome<K>, K>(self, mut handle: impl FnMut(Message) -> R) -> BatchResult {
        let mut turns = Turns::default();
        for message in self.messages {
            if let Some(turn) = turns.begin(&message) {
                let outcome = handle(message);
                turns.end(turn, outcome);
            }
        }
        turns.result
    }

    /// As [`each`](Self::each), for an asynchronous function. One message is
    /// handled before the next begins.
    pub async fn each_async<R: Outcome<K>, K>(
        self,
        mut handle: impl AsyncFnMut(Message) -> R,
    ) -> BatchResult {
        let mut turns = Turns::default();
        for message in self.messages {
            if let Some(turn) = turns.begin(&message) {
                let outcome = handle(message).await;
                turns.end(turn, outcome);
            }
        }
        turns.result
    }
}

/// Goes through a batch, and keeps the order of its groups.
#[derive(Default)]
struct Turns {
    result: BatchResult,
    /// Groups with a message that is to be tried again. A batch has few: no
    /// hash set, which would import randomness.
    held_up: Vec<String>,
}

/// What is to be known of a message after its handler has consumed it.
struct Turn {
    id: String,
    attempt: u32,
    group: Option<String>,
}

impl Turns {
    /// `None`: it is not this message's turn, since its group is held up.
    fn begin(&mut self, message: &Message) -> Option<Turn> {
        let group = message.group.as_ref();
        if group.is_some_and(|group| self.held_up.contains(group)) {
            self.result.push(message.id.clone(), Failure::retry());
            return None;
        }
        Some(Turn {
            id: message.id.clone(),
            attempt: message.attempt,
            group: message.group.clone(),
        })
    }

    fn end<K>(&mut self, turn: Turn, outcome: impl Outcome<K>) {
        let Err(failure) = outcome.into_result() else {
            return;
        };
        failure.log("message", &turn.id, turn.attempt);
        if !failure.is_rejection() {
            self.held_up.extend(turn.group);
        }
        self.result.push(turn.id, failure);
    }
}

impl Deref for Batch {
    type Target = [Message];

    fn deref(&self) -> &[Message] {
        &self.messages
    }
}

impl IntoIterator for Batch {
    type Item = Message;
    type IntoIter = vec::IntoIter<Message>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.into_iter()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Message;
    type IntoIter = std::slice::Iter<'a, Message>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.iter()
    }
}

/// Which messages of a batch were not handled. All others are done with.
///
/// ```
/// use dunlin_sdk::{Batch, BatchResult, Failure};
///
/// #[dunlin_sdk::queue]
/// fn handle(batch: Batch) -> BatchResult {
///     let mut result = BatchResult::default();
///     for message in &batch {
///         if message.body.is_empty() {
///             result.fail(message, Failure::reject("it is empty"));
///         }
///     }
///     result
/// }
/// ```
#[must_use = "a message that nobody hears has failed counts as handled"]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BatchResult {
    failed: Vec<Failed>,
}

/// A message that was not handled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// Its id.
    pub id: String,
    /// What shall become of it, and why.
    pub failure: Failure,
}

impl BatchResult {
    /// Every message was handled.
    pub fn handled() -> Self {
        Self::default()
    }

    /// Adds a message that was not handled. Of two failures of one message the
    /// last counts.
    ///
    /// In a FIFO queue, those of its group behind it are done with unless they
    /// fail too: [`Batch::each`] sees to that.
    pub fn fail<K>(&mut self, message: &Message, failure: impl IntoFailure<K>) {
        let failure = failure.into_failure();
        failure.log("message", &message.id, message.attempt);
        self.push(message.id.clone(), failure);
    }

    /// The messages that were not handled.
    pub fn failed(&self) -> &[Failed] {
        &self.failed
    }

    /// Whether every message was handled.
    pub fn is_handled(&self) -> bool {
        self.failed.is_empty()
    }

    pub(super) fn push(&mut self, id: String, failure: Failure) {
        match self.failed.iter_mut().find(|failed| failed.id == id) {
            Some(known) => known.failure = failure,
            None => self.failed.push(Failed { id, failure }),
        }
    }

    pub(super) fn into_failed(self) -> Vec<Failed> {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    /// Messages named after their bodies. What stands before a `/` is the group.
    fn batch(names: &[&str]) -> Batch {
        Batch::new(names.iter().map(|name| {
            let message = Message::new(*name).with_id(*name);
            match name.split_once('/') {
                Some((group, _)) => message.with_group(group),
                None => message,
            }
        }))
    }

    fn handle(message: &Message) -> Result<(), Failure> {
        match message.text()? {
            text if text.contains("later") => Err(Failure::retry_after(Duration::from_secs(1))),
            text if text.contains("never") => Err(Failure::reject("no")),
            _ => Ok(()),
        }
    }

    #[track_caller]
    fn check(names: &[&str], handled: &[&str], failed: &[(&str, Failure)]) {
        let failed: Vec<Failed> = failed
            .iter()
            .map(|(id, failure)| Failed {
                id: (*id).to_owned(),
                failure: failure.clone(),
            })
            .collect();

        let mut seen = Vec::new();
        let result = batch(names).each(|message| {
            seen.push(message.id.clone());
            handle(&message)
        });
        assert_eq!(
            (seen.as_slice(), result.failed()),
            (&*handled_ids(handled), &*failed)
        );

        let mut seen = Vec::new();
        let result = batch(names).each_async(async |message| {
            seen.push(message.id.clone());
            handle(&message)
        });
        let result = ready(result);
        assert_eq!(
            (seen.as_slice(), result.failed()),
            (&*handled_ids(handled), &*failed)
        );
    }

    fn handled_ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn ready<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it awaits nothing"),
        }
    }

    fn later() -> Failure {
        Failure::retry_after(Duration::from_secs(1))
    }

    #[test]
    fn each_message_is_answered_for_itself_in_its_order() {
        check(
            &["a", "later", "b", "never", "c"],
            &["a", "later", "b", "never", "c"],
            &[("later", later()), ("never", Failure::reject("no"))],
        );
        check(&[], &[], &[]);
    }

    #[test]
    fn a_message_to_be_tried_again_holds_up_its_group_and_no_other() {
        check(
            &["x/1", "x/later", "y/1", "x/2", "alone", "x/never", "y/2"],
            &["x/1", "x/later", "y/1", "alone", "y/2"],
            &[
                ("x/later", later()),
                ("x/2", Failure::retry()),
                ("x/never", Failure::retry()),
            ],
        );
    }

    #[test]
    fn a_rejected_message_holds_up_nobody() {
        check(
            &["x/never", "x/1"],
            &["x/never", "x/1"],
            &[("x/never", Failure::reject("no"))],
        );
    }

    #[test]
    fn of_two_failures_of_one_message_the_last_counts() {
        let message = Message::new("");
        let mut result = BatchResult::handled();
        assert!(result.is_handled());
        result.fail(&message, "first");
        result.fail(&message, Failure::reject("second"));
        let expected = [Failed {
            id: "message".to_owned(),
            failure: Failure::reject("second"),
        }];
        assert_eq!(result.failed(), expected);
    }
}
