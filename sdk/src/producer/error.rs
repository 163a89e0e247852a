use std::fmt;
use std::time::Duration;

/// Why an event was not accepted.
///
/// In a handler of a queue or a schedule, `?` makes a
/// [`Failure`](crate::Failure) of it that has the event tried again, after the
/// delay that the host asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// There is no queue or function of this name.
    NotFound(String),
    /// It exists, and the manifest does not give it to this function.
    NotAllowed(String),
    /// It is larger than this many bytes.
    TooLarge(u64),
    /// Something about it is wrong; the text says what.
    Invalid(String),
    /// The queue is full, or a quota is used up. Try again, after the delay if one
    /// is given.
    Throttled(Option<Duration>),
    /// The host cannot store it now; the text says why.
    Unavailable(String),
}

impl SendError {
    /// Whether the same event may be accepted later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Throttled(_) | Self::Unavailable(_) => true,
            Self::NotFound(_) | Self::NotAllowed(_) | Self::TooLarge(_) | Self::Invalid(_) => false,
        }
    }

    /// How long to wait before it is sent again, if the host says so.
    pub fn delay(&self) -> Option<Duration> {
        match self {
            Self::Throttled(delay) => *delay,
            _ => None,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(name) => write!(f, "there is no queue or function `{name}`"),
            Self::NotAllowed(name) => write!(f, "this function may not send to `{name}`"),
            Self::TooLarge(most) => write!(f, "it is larger than {most} bytes"),
            Self::Invalid(what) => write!(f, "it cannot be sent: {what}"),
            Self::Throttled(None) => f.write_str("the host takes no more for now"),
            Self::Throttled(Some(delay)) => write!(f, "the host takes no more for {delay:?}"),
            Self::Unavailable(why) => write!(f, "the host cannot store it: {why}"),
        }
    }
}

impl std::error::Error for SendError {}
