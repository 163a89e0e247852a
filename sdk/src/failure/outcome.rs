use super::{Failure, IntoFailure};

/// What a handler of one message or one tick may return: `Result<(), E>`, or
/// nothing if it cannot fail.
///
/// `Kind` follows from the error.
#[diagnostic::on_unimplemented(
    message = "a handler of messages or ticks cannot return `{Self}`",
    note = "it returns `Result<(), E>`, or nothing if it cannot fail: `E` is `dunlin_sdk::Failure`, implements `std::error::Error`, or is `dunlin_sdk::Error` or text"
)]
pub trait Outcome<Kind> {
    /// Whether the event was handled.
    ///
    /// # Errors
    ///
    /// What shall become of it, and why.
    fn into_result(self) -> Result<(), Failure>;
}

/// The kind of what has no error.
#[derive(Debug)]
pub enum Unfailing {}

impl Outcome<Unfailing> for () {
    fn into_result(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: IntoFailure<K>, K> Outcome<K> for Result<(), E> {
    fn into_result(self) -> Result<(), Failure> {
        self.map_err(E::into_failure)
    }
}
