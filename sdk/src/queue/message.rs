use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;

use crate::Failure;

/// A message of a queue.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Names the message: the same on each attempt.
    pub id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// After this many attempts a message that fails goes to the dead-letter
    /// queue. `None`: there is no such limit.
    pub max_attempts: Option<u32>,
    /// When the queue accepted it.
    pub enqueued_at: SystemTime,
    /// The queue it comes from.
    pub queue: String,
    /// The body as it was sent.
    pub body: Vec<u8>,
    /// The sender's attributes, binary ones in base64, and those of the queue,
    /// whose names begin with `sys:`.
    pub attributes: Vec<(String, String)>,
    /// The message group in a FIFO queue.
    pub group: Option<String>,
}

impl Message {
    /// A first attempt of a message from nowhere, for tests of handlers.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            id: "message".to_owned(),
            attempt: 1,
            max_attempts: None,
            enqueued_at: SystemTime::UNIX_EPOCH,
            queue: String::new(),
            body: body.into(),
            attributes: Vec::new(),
            group: None,
        }
    }

    /// Sets the id, for tests.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets which attempt this is and after how many the message fails for good,
    /// for tests.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32, max_attempts: impl Into<Option<u32>>) -> Self {
        self.attempt = attempt;
        self.max_attempts = max_attempts.into();
        self
    }

    /// Adds an attribute, for tests.
    #[must_use]
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Sets the message group, for tests.
    #[must_use]
    pub fn with_group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// The body as text.
    ///
    /// # Errors
    ///
    /// If it is not UTF-8: the message is rejected.
    pub fn text(&self) -> Result<&str, Failure> {
        str::from_utf8(&self.body).map_err(|error| Failure::reject(format!("body: {error}")))
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    ///
    /// If it is not JSON, or does not fit `T`: the message is rejected, with a
    /// reason that says what is wrong, and where.
    ///
    /// ```
    /// # use dunlin_sdk::Message;
    /// #[derive(serde::Deserialize, Debug)]
    /// struct Order {
    ///     thing: String,
    /// }
    ///
    /// let failure = Message::new(r#"{"think":"kite"}"#).json::<Order>().unwrap_err();
    /// assert!(failure.is_rejection());
    /// assert_eq!(failure.reason(), Some("body: missing field `thing` at line 1 column 16"));
    /// ```
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::reject(format!("body: {error}")))
    }

    /// The first attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the message goes to the dead-letter queue if this attempt fails.
    pub fn is_last_attempt(&self) -> bool {
        self.max_attempts.is_some_and(|max| self.attempt >= max)
    }
}

/// Without the body and the values of attributes, which may be secret.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("queue", &self.queue)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_cannot_be_read_is_rejected() {
        let message = Message::new([b'[', 0xff]);
        assert!(message.text().unwrap_err().is_rejection());
        assert!(message.json::<Vec<u8>>().unwrap_err().is_rejection());
        assert_eq!(Message::new("[1]").json(), Ok([1]));
        assert_eq!(Message::new("[1]").text(), Ok("[1]"));
    }

    #[test]
    fn the_first_attribute_of_a_name_counts() {
        let message = Message::new("")
            .with_attribute("country", "de")
            .with_attribute("country", "fr");
        assert_eq!(message.attribute("country"), Some("de"));
        assert_eq!(message.attribute("Country"), None);
    }

    #[test]
    fn the_last_attempt_is_the_one_after_which_a_message_is_dead() {
        let is_last = |attempt, max: Option<u32>| {
            Message::new("")
                .with_attempt(attempt, max)
                .is_last_attempt()
        };
        assert!(!is_last(2, Some(3)));
        assert!(is_last(3, Some(3)));
        // A limit that was lowered since.
        assert!(is_last(4, Some(3)));
        assert!(!is_last(4, None));
    }

    #[test]
    fn debug_shows_neither_body_nor_attributes() {
        let message = Message::new("secret-1").with_attribute("token", "secret-2");
        assert!(!format!("{message:?}").contains("secret"));
    }
}
