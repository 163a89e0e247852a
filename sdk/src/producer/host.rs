//! Between the generated types and ours.

use std::time::Duration;

use super::{Outgoing, SendError};
use crate::bindings::producer as generated;
use crate::time;

pub(super) fn send(queue: &str, message: Outgoing) -> Result<String, SendError> {
    generated::send(queue, &message.into()).map_err(Into::into)
}

pub(super) fn send_batch(queue: &str, messages: Vec<Outgoing>) -> Vec<Result<String, SendError>> {
    let messages: Vec<generated::Outgoing> = messages.into_iter().map(Into::into).collect();
    let answers = generated::send_batch(queue, &messages);
    answers
        .into_iter()
        .map(|answer| answer.map_err(Into::into))
        .collect()
}

pub(super) fn invoke(function: &str, payload: Vec<u8>) -> Result<String, SendError> {
    generated::invoke(function, &payload).map_err(Into::into)
}

/// The same, by the asynchronous ABI.
pub(super) mod asynchronous {
    use dunlin_sdk_async::producer as generated;

    use super::{Outgoing, SendError};

    pub(in super::super) async fn send(
        queue: &str,
        message: Outgoing,
    ) -> Result<String, SendError> {
        generated::send(queue.to_owned(), message.into())
            .await
            .map_err(Into::into)
    }

    pub(in super::super) async fn send_batch(
        queue: &str,
        messages: Vec<Outgoing>,
    ) -> Vec<Result<String, SendError>> {
        let messages = messages.into_iter().map(Into::into).collect();
        let answers = generated::send_batch(queue.to_owned(), messages).await;
        answers
            .into_iter()
            .map(|answer| answer.map_err(Into::into))
            .collect()
    }

    pub(in super::super) async fn invoke(
        function: &str,
        payload: Vec<u8>,
    ) -> Result<String, SendError> {
        generated::invoke(function.to_owned(), payload)
            .await
            .map_err(Into::into)
    }
}

/// The same types are generated once for each ABI.
macro_rules! conversions {
    ($generated:path) => {
        const _: () = {
            use $generated::{Error as GeneratedError, Outgoing as GeneratedOutgoing};

            impl From<Outgoing> for GeneratedOutgoing {
                fn from(message: Outgoing) -> Self {
                    let Outgoing {
                        body,
                        attributes,
                        delay,
                        group,
                        deduplication_id,
                    } = message;
                    Self {
                        body,
                        attributes,
                        delay: time::to_millis(delay),
                        group,
                        deduplication_id,
                    }
                }
            }

            impl From<GeneratedError> for SendError {
                fn from(error: GeneratedError) -> Self {
                    match error {
                        GeneratedError::NotFound(name) => Self::NotFound(name),
                        GeneratedError::NotAllowed(name) => Self::NotAllowed(name),
                        GeneratedError::TooLarge(most) => Self::TooLarge(most),
                        GeneratedError::Invalid(what) => Self::Invalid(what),
                        GeneratedError::Throttled(delay) => {
                            Self::Throttled(delay.map(Duration::from_millis))
                        }
                        GeneratedError::Unavailable(why) => Self::Unavailable(why),
                    }
                }
            }
        };
    };
}

conversions!(crate::bindings::producer);
conversions!(dunlin_sdk_async::producer);
