//! Direct invocation: an event in, a result out, by custom both JSON.
//!
//! A function with this handler alone may also be bound to HTTP, schedules and
//! queues. It then receives the JSON that AWS Lambda would send.

mod function_error;
#[doc(hidden)]
pub mod glue;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use function_error::{FunctionError, IntoFunctionError};

/// Bytes that are not to be read or written as JSON.
///
/// ```
/// use dunlin_sdk::{Error, Raw};
///
/// #[dunlin_sdk::invoke]
/// fn reverse(Raw(mut bytes): Raw) -> Result<Raw, Error> {
///     bytes.reverse();
///     Ok(Raw(bytes))
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Raw(pub Vec<u8>);

/// What an invoke handler may take as its event: any `Deserialize` type, which
/// is read from JSON, [`Raw`], or [`LambdaEvent`](crate::LambdaEvent) of either.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an event",
    note = "an invoke handler takes a type that implements `serde::Deserialize` (and borrows nothing), `dunlin_sdk::Raw` or `dunlin_sdk::LambdaEvent`"
)]
pub trait FromEvent: Sized {
    /// Reads the event.
    ///
    /// # Errors
    ///
    /// `Runtime.UnmarshalError`, as on Lambda, if the payload is not JSON or
    /// does not fit the type.
    fn from_event(payload: Vec<u8>) -> Result<Self, FunctionError>;
}

impl<T: DeserializeOwned> FromEvent for T {
    fn from_event(payload: Vec<u8>) -> Result<Self, FunctionError> {
        serde_json::from_slice(&payload).map_err(|error| {
            FunctionError::new(
                "Runtime.UnmarshalError",
                format!("Unable to unmarshal input: {error}"),
            )
        })
    }
}

impl FromEvent for Raw {
    fn from_event(payload: Vec<u8>) -> Result<Self, FunctionError> {
        Ok(Self(payload))
    }
}

/// What an invoke handler may return when it succeeds: any `Serialize` type,
/// which is written as JSON, or [`Raw`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of an invocation",
    note = "an invoke handler returns `Ok` of a type that implements `serde::Serialize`, or of `dunlin_sdk::Raw`"
)]
pub trait IntoPayload {
    /// Writes the result.
    ///
    /// # Errors
    ///
    /// `Runtime.MarshalError`, as on Lambda, if the value cannot be JSON.
    fn into_payload(self) -> Result<Vec<u8>, FunctionError>;
}

impl<T: Serialize> IntoPayload for T {
    fn into_payload(self) -> Result<Vec<u8>, FunctionError> {
        serde_json::to_vec(&self).map_err(|error| {
            FunctionError::new(
                "Runtime.MarshalError",
                format!("Unable to marshal response: {error}"),
            )
        })
    }
}

impl IntoPayload for Raw {
    fn into_payload(self) -> Result<Vec<u8>, FunctionError> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Event {
        id: u32,
    }

    #[test]
    fn events_are_read_from_json_or_taken_as_they_are() {
        assert_eq!(
            Event::from_event(b"{\"id\":7}".to_vec()),
            Ok(Event { id: 7 })
        );
        assert_eq!(Raw::from_event(b"\xff".to_vec()), Ok(Raw(b"\xff".to_vec())));
    }

    #[test]
    fn an_event_that_does_not_fit_says_what_is_wrong() {
        let error = Event::from_event(b"{}".to_vec()).unwrap_err();
        assert_eq!(error.error_type, "Runtime.UnmarshalError");
        assert_eq!(
            error.message,
            "Unable to unmarshal input: missing field `id` at line 1 column 2"
        );
    }

    #[test]
    fn results_are_written_as_json_or_given_as_they_are() {
        assert_eq!([1, 2].into_payload(), Ok(b"[1,2]".to_vec()));
        assert_eq!(().into_payload(), Ok(b"null".to_vec()));
        assert_eq!(Raw(b"\xff".to_vec()).into_payload(), Ok(b"\xff".to_vec()));
    }

    #[test]
    fn a_result_that_cannot_be_json_is_a_marshal_error() {
        let error = HashMap::from([((1, 2), 3)]).into_payload().unwrap_err();
        assert_eq!(error.error_type, "Runtime.MarshalError");
        assert_eq!(
            error.message,
            "Unable to marshal response: key must be a string"
        );
    }
}
