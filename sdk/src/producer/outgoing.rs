use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{SendError, json};

/// A message to send.
///
/// ```
/// use dunlin_sdk::producer::Outgoing;
/// use std::time::Duration;
///
/// let message = Outgoing::json(&["kite", "boat"])?
///     .attribute("country", "de")
///     .delay(Duration::from_secs(30));
/// # Ok::<(), dunlin_sdk::Error>(())
/// ```
#[must_use = "nothing is sent before `producer::send`"]
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Outgoing {
    /// The body: at most 256 KiB by default, attributes included.
    pub body: Vec<u8>,
    /// What reaches the receiver with the body.
    pub attributes: Vec<(String, String)>,
    /// No receiver sees the message before this has passed, which is rounded up
    /// to milliseconds.
    pub delay: Duration,
    /// The message group.
    pub group: Option<String>,
    /// The deduplication id.
    pub deduplication_id: Option<String>,
}

impl Outgoing {
    /// A message with this body: text or bytes.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// A message whose body is a value, written as JSON.
    ///
    /// # Errors
    ///
    /// [`SendError::Invalid`] if the value cannot be JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, SendError> {
        Ok(Self::new(json(value)?))
    }

    /// Adds an attribute, which the receiver finds under this name.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Hides the message from receivers for so long.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Puts the message into a group, whose messages are handled in their order.
    /// FIFO queues require one, and no other queue takes one.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Names what the message is about: within five minutes a FIFO queue takes a
    /// message of one id once. What is sent again is accepted and comes to nothing.
    pub fn deduplication_id(mut self, id: impl Into<String>) -> Self {
        self.deduplication_id = Some(id.into());
        self
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(body: Vec<u8>) -> Self {
        Self::new(body)
    }
}

impl From<&[u8]> for Outgoing {
    fn from(body: &[u8]) -> Self {
        Self::new(body)
    }
}

impl From<String> for Outgoing {
    fn from(body: String) -> Self {
        Self::new(body)
    }
}

impl From<&str> for Outgoing {
    fn from(body: &str) -> Self {
        Self::new(body)
    }
}

/// Without the body and the values of attributes, which may be secret.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("length", &self.body.len())
            .field("delay", &self.delay)
            .field("group", &self.group)
            .field("deduplication_id", &self.deduplication_id)
            .finish_non_exhaustive()
    }
}
