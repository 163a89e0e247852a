//! Messages as SQS writes them, with the digests by which clients check them.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::error::SqsError;
use super::seconds;
use crate::function::rfc3339;
use crate::queue::message::{Attribute, Attributes};
use crate::queue::{Message, NewMessage, QueueName, Sent};
use crate::sqs::{attributes_md5, body_md5, sequence, system_attributes};

/// The longest delay of a message, in seconds: 15 min.
const MAX_DELAY: u64 = 900;
/// A message has up to ten attributes.
const MAX_ATTRIBUTES: usize = 10;

/// A message as it is sent.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Outgoing {
    #[serde(default)]
    message_body: String,
    delay_seconds: Option<i64>,
    #[serde(default)]
    message_attributes: BTreeMap<String, Value>,
    message_group_id: Option<String>,
    message_deduplication_id: Option<String>,
}

/// The value of an attribute, on its way in or out.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Value {
    data_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    string_value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binary_value: Option<String>,
}

/// What the sender compares with its own.
pub(super) struct Digests {
    body: String,
    attributes: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SentReceipt {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    message_id: String,
    #[serde(rename = "MD5OfMessageBody")]
    body: String,
    #[serde(
        rename = "MD5OfMessageAttributes",
        skip_serializing_if = "Option::is_none"
    )]
    attributes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence_number: Option<String>,
}

impl Digests {
    pub(super) fn receipt(self, sent: Sent, is_fifo: bool, id: Option<String>) -> SentReceipt {
        SentReceipt {
            id,
            message_id: sent.id.to_string(),
            body: self.body,
            attributes: self.attributes,
            sequence_number: is_fifo.then(|| sequence(sent.sequence)),
        }
    }
}

impl Outgoing {
    pub(super) fn into_message(self) -> Result<(NewMessage, Digests), SqsError> {
        if self.message_body.is_empty() {
            return Err(SqsError::Missing("MessageBody"));
        }
        let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        if !self.message_body.chars().all(allowed) {
            return Err(SqsError::BadCharacters);
        }
        for (name, id) in [
            ("MessageGroupId", &self.message_group_id),
            ("MessageDeduplicationId", &self.message_deduplication_id),
        ] {
            let valid = |id: &String| {
                (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
            };
            if id.as_ref().is_some_and(|id| !valid(id)) {
                return Err(SqsError::InvalidParameter {
                    message: format!(
                        "The value of {name} can only include alphanumeric and punctuation \
                         characters, 1 to 128 in length."
                    ),
                });
            }
        }
        if self.message_attributes.len() > MAX_ATTRIBUTES {
            return Err(SqsError::InvalidParameter {
                message: format!(
                    "Number of message attributes [{}] exceeds the allowed maximum [{MAX_ATTRIBUTES}].",
                    self.message_attributes.len()
                ),
            });
        }
        let attributes: Result<Attributes, SqsError> = self
            .message_attributes
            .into_iter()
            .map(|(name, value)| value.into_attribute(&name).map(|value| (name, value)))
            .collect();
        let attributes = attributes?;
        let delay = match self.delay_seconds {
            Some(value) => Some(seconds("DelaySeconds", value, MAX_DELAY)?),
            None => None,
        };
        let digests = Digests {
            body: body_md5(self.message_body.as_bytes()),
            attributes: attributes_md5(&attributes),
        };
        let message = NewMessage {
            body: self.message_body.into(),
            attributes,
            // With zero a client of a FIFO queue says nothing.
            delay: delay.filter(|delay| *delay > Duration::ZERO || self.message_group_id.is_none()),
            group: self.message_group_id,
            deduplication: self.message_deduplication_id,
            ..NewMessage::default()
        };
        Ok((message, digests))
    }
}

impl Value {
    fn into_attribute(self, name: &str) -> Result<Attribute, SqsError> {
        let invalid = |what: &str| SqsError::InvalidParameter {
            message: format!("The message attribute '{name}' {what}."),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let lower = name.to_ascii_lowercase();
        if name.is_empty()
            || name.len() > 256
            || !name.bytes().all(allowed)
            || name.starts_with('.')
            || name.ends_with('.')
            || name.contains("..")
            || lower.starts_with("aws.")
            || lower.starts_with("amazon.")
        {
            return Err(invalid("has a name that is not allowed"));
        }
        let kind = self.data_type.split('.').next().unwrap_or_default();
        let value = match (kind, self.string_value, self.binary_value) {
            ("String" | "Number", Some(text), None) => {
                if kind == "Number" && text.parse::<f64>().is_err() {
                    return Err(invalid("is not the number that its type says"));
                }
                text.into_bytes()
            }
            ("Binary", None, Some(text)) => STANDARD
                .decode(&text)
                .map_err(|_| invalid("has a value that is not base64"))?,
            ("String" | "Number" | "Binary", ..) => {
                return Err(invalid("must have one value, of the type that it says"));
            }
            _ => {
                return Err(invalid(
                    "has an invalid type: use String, Number or Binary, and a label after a dot",
                ));
            }
        };
        if value.is_empty() {
            return Err(invalid("must contain a non-empty value"));
        }
        Ok(Attribute {
            kind: self.data_type,
            value,
        })
    }

    fn of(attribute: &Attribute) -> Self {
        let is_binary = attribute.kind.starts_with("Binary");
        let text = || String::from_utf8_lossy(&attribute.value).into_owned();
        Self {
            data_type: attribute.kind.clone(),
            string_value: (!is_binary).then(text),
            binary_value: is_binary.then(|| STANDARD.encode(&attribute.value)),
        }
    }
}

/// What a receiver asked for.
pub(super) struct Wanted {
    /// Names of SQS's own attributes, or `All`.
    pub(super) system: Vec<String>,
    /// Names of attributes, `All`, `.*`, or the beginning of names with `.*` behind it.
    pub(super) attributes: Vec<String>,
}

/// A message as it is received.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Incoming {
    message_id: String,
    receipt_handle: String,
    #[serde(rename = "MD5OfBody")]
    md5: String,
    body: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    message_attributes: BTreeMap<String, Value>,
    #[serde(
        rename = "MD5OfMessageAttributes",
        skip_serializing_if = "Option::is_none"
    )]
    attributes_md5: Option<String>,
}

impl Wanted {
    fn wants(&self, name: &str) -> bool {
        self.attributes
            .iter()
            .any(|wanted| match wanted.strip_suffix(".*") {
                Some(beginning) => name.starts_with(beginning),
                None => wanted == "All" || wanted == name,
            })
    }

    /// The message for who asked. `arn` names queues.
    pub(super) fn incoming(
        &self,
        message: Message,
        receipt_handle: String,
        sender: &str,
        arn: impl Fn(&QueueName) -> String,
    ) -> Incoming {
        let mut system = system_attributes(&message, sender, arn);
        system.retain(|name, _| {
            self.system
                .iter()
                .any(|wanted| wanted == "All" || wanted == name)
        });
        let mut attributes = message.attributes;
        attributes.retain(|name, _| self.wants(name));
        let body = String::from_utf8_lossy(&message.body).into_owned();
        Incoming {
            message_id: message.id.to_string(),
            receipt_handle,
            md5: body_md5(body.as_bytes()),
            body,
            attributes: system,
            // Of those that are sent along: the receiver has no others to compare.
            attributes_md5: attributes_md5(&attributes),
            message_attributes: attributes
                .iter()
                .map(|(name, attribute)| (name.clone(), Value::of(attribute)))
                .collect(),
        }
    }
}

/// A message as `dunlin queue peek` shows it.
pub(super) fn peeked(message: Message) -> serde_json::Value {
    let mut shown = serde_json::json!({
        "id": message.id.to_string(),
        "body": String::from_utf8_lossy(&message.body),
        "sent": rfc3339(message.sent),
        "visible": rfc3339(message.visible),
        "receives": message.receives,
    });
    let dead = message.dead.as_ref();
    for (name, value) in [
        ("group", message.group.as_deref()),
        ("dead_from", dead.map(|dead| dead.source.as_str())),
        ("reason", dead.map(|dead| dead.reason.as_str())),
    ] {
        if let Some(value) = value {
            shown[name] = value.into();
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_chosen_by_beginning() {
        let wanted = |names: &[&str], name: &str| {
            let attributes = names.iter().map(|&name| name.to_owned()).collect();
            let system = Vec::new();
            Wanted { system, attributes }.wants(name)
        };
        assert!(wanted(&["All"], "a"));
        assert!(wanted(&[".*"], "a"));
        assert!(wanted(&["or.*"], "order"));
        assert!(!wanted(&["or.*"], "a"));
        assert!(wanted(&["x", "a"], "a"));
        assert!(!wanted(&[], "a"));
    }
}
