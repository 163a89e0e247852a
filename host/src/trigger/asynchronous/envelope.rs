//! What lies with an event in its queue.

use serde::{Deserialize, Serialize};

use crate::function::rfc3339;
use crate::queue::message::Attribute;
use crate::queue::{Attributes, Message};

/// The attribute that it stands in. A dead letter keeps it, so that it can be sent back.
const ATTRIBUTE: &str = "dunlin";

/// What is known of an event beside its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Envelope {
    /// The version or alias that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<String>,
    /// The W3C trace context that came with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The fire of a schedule that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fire: Option<Fire>,
}

/// A fire of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Fire {
    /// The schedule's name.
    pub schedule: String,
    /// When it was due, in milliseconds since 1970.
    pub scheduled_at: u64,
    /// When it was sent, in milliseconds since 1970.
    pub fired_at: u64,
    /// Fires before it that will not come.
    pub missed: u32,
    /// Whether the schedule gives a payload.
    pub has_payload: bool,
}

impl Fire {
    /// Names it: the same fire has the same name, also after a restart.
    #[must_use]
    pub fn id(&self) -> String {
        format!(
            "{}@{}",
            self.schedule,
            rfc3339(self.scheduled_at.cast_signed())
        )
    }
}

impl Envelope {
    /// Puts it with a message. Nothing is put where nothing is known.
    pub fn seal(&self, attributes: &mut Attributes) {
        if *self == Self::default() {
            return;
        }
        let value = serde_json::to_vec(self).expect("strings and numbers are JSON");
        let attribute = Attribute {
            kind: "String".into(),
            value,
        };
        attributes.insert(ATTRIBUTE.to_owned(), attribute);
    }

    /// Reads it from a message; what cannot be read is not known.
    #[must_use]
    pub fn open(message: &Message) -> Self {
        let attribute = message.attributes.get(ATTRIBUTE);
        attribute
            .and_then(|attribute| serde_json::from_slice(&attribute.value).ok())
            .unwrap_or_default()
    }
}
