//! Names of queues.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a queue: 1 to 80 letters, digits, `-` and `_`; that of a FIFO queue ends
/// with `.fifo`. SQS's rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName(Arc<str>);

/// What cannot name a queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` cannot name a queue: use 1 to 80 letters, digits, `-` and `_`, and `.fifo` at the end for a FIFO queue",
    .0.escape_debug()
)]
pub struct InvalidQueueName(String);

/// The longest name.
const MAX_LENGTH: usize = 80;
const FIFO: &str = ".fifo";
/// How the names of the host's own queues begin, and no others.
const INTERNAL: char = '@';

impl QueueName {
    /// Checks a name.
    ///
    /// # Errors
    /// If it cannot name a queue.
    pub fn new(name: &str) -> Result<Self, InvalidQueueName> {
        let bare = name.strip_suffix(FIFO).unwrap_or(name);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if bare.is_empty() || name.len() > MAX_LENGTH || !bare.bytes().all(allowed) {
            return Err(InvalidQueueName(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// That of a queue which the host keeps for itself: nobody else can name it.
    #[must_use]
    pub fn internal(kind: &str, name: &str) -> Self {
        Self(format!("{INTERNAL}{kind}:{name}").into())
    }

    /// As it stands in a store, also one of the host's own.
    ///
    /// # Errors
    /// If it cannot name a queue.
    pub fn stored(name: &str) -> Result<Self, InvalidQueueName> {
        match name.starts_with(INTERNAL) {
            true => Ok(Self(name.into())),
            false => Self::new(name),
        }
    }

    /// Whether the host keeps it for itself.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.0.starts_with(INTERNAL)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a key of TOML: one with a dot stands in quotes.
    #[must_use]
    pub fn toml_key(&self) -> String {
        match self.0.contains('.') {
            true => format!("\"{}\"", self.0),
            false => self.0.as_ref().to_owned(),
        }
    }

    /// Whether it is that of a FIFO queue.
    #[must_use]
    pub fn is_fifo(&self) -> bool {
        self.0.ends_with(FIFO)
    }
}

impl TryFrom<String> for QueueName {
    type Error = InvalidQueueName;

    fn try_from(name: String) -> Result<Self, InvalidQueueName> {
        Self::new(&name)
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_of_sqs() {
        for name in ["a", "Orders_2-x", "orders.fifo", &"a".repeat(80)] {
            assert_eq!(QueueName::new(name).unwrap().as_str(), name);
        }
        assert!(QueueName::new("orders.fifo").unwrap().is_fifo());
        assert!(!QueueName::new("ordersfifo").unwrap().is_fifo());
        for name in [
            "",
            ".fifo",
            "a.b",
            "a b",
            "é",
            "a.fifo.fifo",
            &"a".repeat(81),
        ] {
            let error = QueueName::new(name).unwrap_err();
            assert!(error.to_string().contains("1 to 80"), "{error}");
        }
    }
}
