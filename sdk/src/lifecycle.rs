//! Between the generated types and ours. The code that `#[init]` and `#[retire]` write
//! calls this; nobody else does.

use std::fmt::Display;

pub use crate::bindings::initialise::exports::dunlin::event::initialise::Guest as InitialiseGuest;
pub use crate::bindings::retire::exports::dunlin::event::retire::Guest as RetireGuest;

/// What an `init` may return.
pub trait Outcome {
    /// Nothing, or why it failed.
    ///
    /// # Errors
    ///
    /// If it failed.
    fn into_result(self) -> Result<(), String>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// What the host is told of an `init`.
///
/// # Errors
///
/// If it failed.
pub fn outcome(outcome: impl Outcome) -> Result<(), String> {
    outcome.into_result()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_that_fails_says_why() {
        assert_eq!(outcome(()), Ok(()));
        assert_eq!(outcome(Ok::<(), crate::Error>(())), Ok(()));
        assert_eq!(
            outcome(Err::<(), _>("no words")),
            Err("no words".to_owned())
        );
    }
}
