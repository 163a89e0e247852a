//! Between the generated types and ours. The code that `#[invoke]` writes calls
//! this; nobody else does.

use dunlin_sdk_async::invoke::exports::dunlin::event::invoke as asynchronous;

use super::function_error::{FunctionError, IntoFunctionError};
use super::{FromEvent, IntoPayload};
use crate::bindings::invoke::exports::dunlin::event::invoke as synchronous;

pub use asynchronous::FunctionError as AsyncFunctionError;
pub use asynchronous::Guest as AsyncGuest;
pub use synchronous::FunctionError as RawFunctionError;
pub use synchronous::Guest;

/// What a handler may return. `Kind` follows from the error.
#[diagnostic::on_unimplemented(
    message = "an invoke handler cannot return `{Self}`",
    note = "it returns `Result<T, E>`: `T` implements `serde::Serialize` or is `dunlin_sdk::Raw`; `E` implements `std::error::Error`, or is `dunlin_sdk::Error`, `dunlin_sdk::FunctionError` or text"
)]
pub trait Outcome<Kind> {
    /// The payload of the answer.
    fn into_payload(self) -> Result<Vec<u8>, FunctionError>;
}

impl<T: IntoPayload, E: IntoFunctionError<K>, K> Outcome<K> for Result<T, E> {
    fn into_payload(self) -> Result<Vec<u8>, FunctionError> {
        match self {
            Ok(value) => value.into_payload(),
            Err(error) => Err(error.into_function_error()),
        }
    }
}

/// Reads the event of a handler.
///
/// # Errors
///
/// As [`FromEvent`].
pub fn event<E: FromEvent>(payload: Vec<u8>) -> Result<E, FunctionError> {
    E::from_event(payload)
}

/// The answer of a handler.
///
/// # Errors
///
/// The handler's own, and `Runtime.MarshalError`.
pub fn answer<K>(outcome: impl Outcome<K>) -> Result<Vec<u8>, FunctionError> {
    outcome.into_payload()
}

impl From<FunctionError> for RawFunctionError {
    fn from(error: FunctionError) -> Self {
        let FunctionError {
            error_type,
            message,
            stack_trace,
        } = error;
        Self {
            error_type,
            message,
            stack_trace,
        }
    }
}

impl From<FunctionError> for AsyncFunctionError {
    fn from(error: FunctionError) -> Self {
        let FunctionError {
            error_type,
            message,
            stack_trace,
        } = error;
        Self {
            error_type,
            message,
            stack_trace,
        }
    }
}
