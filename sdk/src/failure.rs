mod outcome;

use std::fmt;
use std::time::Duration;

use crate::error::kind::{Any, Itself, Standard, Text};
use crate::error::{self, Error};
use crate::logging;
use crate::producer::SendError;

pub use outcome::Outcome;
pub(crate) use outcome::Unfailing;

/// Why a handler of a queue or a schedule did not do what the event asks for,
/// and what shall become of the event.
///
/// A handler need not make one. From its error it is made so:
///
/// | error | the event | reason |
/// |---|---|---|
/// | `Failure` | as it says | its own |
/// | [`SendError`] that names a delay | comes again, no earlier than after it | the error |
/// | any other type that implements [`std::error::Error`] | comes again | the error and its causes |
/// | [`Error`](crate::Error) | as a `Failure` or `SendError` inside it says, else comes again | likewise |
/// | `String`, `&str` | comes again | the text |
///
/// An event that comes again comes after the delay, or else after the trigger's
/// own back-off, and it counts as an attempt: after the last one it goes to the
/// dead-letter queue. The reason is logged with the id of the event. A rejected
/// event goes to the dead-letter queue at once, where the reason stays with it.
///
/// Make one where another attempt would change nothing, or where you know when
/// it may succeed:
///
/// ```
/// use dunlin_sdk::{Failure, Message};
/// use std::time::Duration;
///
/// #[dunlin_sdk::queue]
/// fn handle(message: Message) -> Result<(), Failure> {
///     let address = message.text()?;
///     if !address.contains('@') {
///         return Err(Failure::reject("the address has no @"));
///     }
///     if is_busy(address) {
///         return Err(Failure::retry_after(Duration::from_secs(60)));
///     }
///     Ok(())
/// }
/// # fn is_busy(_: &str) -> bool { false }
/// ```
///
/// `?` turns other errors into one, and one into an [`Error`](crate::Error). A
/// type of your own that has its own idea of what may succeed later implements
/// `From<ItsError> for Failure` and not `std::error::Error`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    fate: Fate,
    reason: Option<String>,
}

/// What shall become of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Retry(Option<Duration>),
    Reject,
}

impl Failure {
    /// Try again, after the trigger's own back-off.
    pub fn retry() -> Self {
        Self {
            fate: Fate::Retry(None),
            reason: None,
        }
    }

    /// Try again, no earlier than after this delay, which is rounded up to
    /// milliseconds.
    pub fn retry_after(delay: Duration) -> Self {
        Self {
            fate: Fate::Retry(Some(delay)),
            reason: None,
        }
    }

    /// It will never succeed: to the dead-letter queue now, with this reason, of
    /// which 1 KiB is kept.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self {
            fate: Fate::Reject,
            reason: Some(reason.into()),
        }
    }

    /// Gives the reason: `Failure::retry().because("the shop is closed")`.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Whether it goes to the dead-letter queue without another attempt.
    pub fn is_rejection(&self) -> bool {
        self.fate == Fate::Reject
    }

    /// The delay before the next attempt, if it has one of its own.
    pub fn delay(&self) -> Option<Duration> {
        match self.fate {
            Fate::Retry(delay) => delay,
            Fate::Reject => None,
        }
    }

    /// What went wrong, if it was said.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Logs why an event is tried again, which nobody else is told. The reason of
    /// a rejection stays with the event.
    pub(crate) fn log(&self, what: &str, id: &str, attempt: u32) {
        if let (Some(reason), false) = (&self.reason, self.is_rejection()) {
            logging::not_handled(what, id, attempt, reason);
        }
    }

    /// The reason, without a copy.
    pub(crate) fn into_reason(self) -> String {
        self.reason.unwrap_or_default()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fate {
            Fate::Retry(None) => f.write_str("to be tried again")?,
            Fate::Retry(Some(delay)) => write!(f, "to be tried again after {delay:?}")?,
            Fate::Reject => f.write_str("rejected")?,
        }
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// For `?`. So that this may hold for every error, `Failure` is itself no
/// `std::error::Error`.
impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        // `From` cannot be implemented for one error beside all of them.
        let any: &dyn std::any::Any = &error;
        let delay = any.downcast_ref().and_then(SendError::delay);
        Self::of(&error, delay)
    }
}

impl Failure {
    fn of(error: &(dyn std::error::Error + 'static), delay: Option<Duration>) -> Self {
        Self {
            fate: Fate::Retry(delay),
            reason: Some(error::chain(error)),
        }
    }
}

/// Carries a [`Failure`] through an [`Error`].
#[derive(Debug)]
struct Boxed(Failure);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Boxed {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Box::new(Boxed(failure))
    }
}

/// What a handler of a queue or a schedule may return when it fails; see
/// [`Failure`].
///
/// `Kind` only tells the implementations apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a queue's or schedule's handler",
    note = "it fails with `dunlin_sdk::Failure`, a type that implements `std::error::Error`, `dunlin_sdk::Error` or text"
)]
pub trait IntoFailure<Kind> {
    /// What shall become of the event, and why.
    fn into_failure(self) -> Failure;
}

impl IntoFailure<Itself> for Failure {
    fn into_failure(self) -> Failure {
        self
    }
}

impl<E: std::error::Error + 'static> IntoFailure<Standard> for E {
    fn into_failure(self) -> Failure {
        self.into()
    }
}

impl IntoFailure<Any> for Error {
    fn into_failure(self) -> Failure {
        match self.downcast::<Boxed>() {
            Ok(failure) => failure.0,
            Err(error) => {
                let delay = error.downcast_ref().and_then(SendError::delay);
                Failure::of(&*error, delay)
            }
        }
    }
}

impl IntoFailure<Text> for String {
    fn into_failure(self) -> Failure {
        Failure::retry().because(self)
    }
}

impl IntoFailure<Text> for &str {
    fn into_failure(self) -> Failure {
        Failure::retry().because(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[track_caller]
    fn check<K>(error: impl IntoFailure<K>, expected: Failure) {
        assert_eq!(error.into_failure(), expected);
    }

    #[test]
    fn ordinary_errors_are_tried_again_and_say_why() {
        let standard = || "x".parse::<u8>().unwrap_err();
        let expected = || Failure::retry().because("invalid digit found in string");
        check(standard(), expected());
        check(Error::from(standard()), expected());
        check("no", Failure::retry().because("no"));
        check(String::from("no"), Failure::retry().because("no"));
        check(Error::from("no"), Failure::retry().because("no"));
    }

    #[test]
    fn a_failure_says_itself_what_becomes_of_the_event_also_when_boxed() {
        for failure in [
            Failure::retry(),
            Failure::retry_after(MINUTE),
            Failure::reject("no such thing"),
        ] {
            check(failure.clone(), failure.clone());
            check(Error::from(failure.clone()), failure);
        }
    }

    #[test]
    fn a_refused_send_passes_its_delay_on() {
        let throttled = || SendError::Throttled(Some(MINUTE));
        let expected = Failure::retry_after(MINUTE).because(throttled().to_string());
        check(throttled(), expected.clone());
        check(Error::from(throttled()), expected.clone());
        assert_eq!(Failure::from(throttled()), expected);
        assert_eq!(Failure::from(SendError::Throttled(None)).delay(), None);
    }

    #[test]
    fn it_reads_as_a_sentence() {
        let said = |failure: Failure| failure.to_string();
        assert_eq!(said(Failure::retry()), "to be tried again");
        assert_eq!(
            said(Failure::retry_after(MINUTE).because("busy")),
            "to be tried again after 60s: busy"
        );
        assert_eq!(said(Failure::reject("no @")), "rejected: no @");
    }
}
