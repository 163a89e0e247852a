//! Lambda's form of a batch: the event that a function with only `invoke` gets, and what its
//! answer says.

mod answer;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

pub use answer::{InvalidReport, failures};

use crate::queue::message::Attribute;
use crate::queue::{Delivery, QueueName, Receipt};
use crate::sqs::{attributes_md5, body_md5, system_attributes};
use crate::trigger::text::text;

/// Where a batch comes from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The queue.
    pub queue: &'a QueueName,
    /// Names queues: this one, and those that dead letters come from.
    pub arn: &'a dyn Fn(&QueueName) -> String,
    /// The region that the event says.
    pub region: &'a str,
    /// The `SenderId` of all messages.
    pub sender: &'a str,
    /// What settles a message, as text.
    pub handle: &'a dyn Fn(&Receipt) -> String,
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "Records")]
    records: Vec<Record<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    message_id: String,
    receipt_handle: String,
    body: Cow<'a, str>,
    /// Lambda has no such field here. It is that of its HTTP events, and only there if it
    /// is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_base64_encoded: bool,
    attributes: BTreeMap<&'static str, String>,
    message_attributes: BTreeMap<&'a str, MessageAttribute<'a>>,
    md5_of_message_attributes: Option<String>,
    md5_of_body: String,
    event_source: &'static str,
    #[serde(rename = "eventSourceARN")]
    event_source_arn: String,
    aws_region: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageAttribute<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    string_value: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_value: Option<String>,
    /// SQS has never had lists, but Lambda sends them.
    string_list_values: [&'a str; 0],
    binary_list_values: [&'a str; 0],
    data_type: &'a str,
}

/// The event of a batch, as JSON.
///
/// SQS takes only text, but another producer may have sent other bytes: such a body comes as
/// base64, with `"isBase64Encoded": true` beside it, and `md5OfBody` is that of the base64.
#[must_use]
pub fn event(batch: &[Delivery], source: &Source<'_>) -> Vec<u8> {
    let records = batch.iter().map(|delivery| record(delivery, source));
    let event = Event {
        records: records.collect(),
    };
    serde_json::to_vec(&event).expect("strings and maps of strings are always JSON")
}

/// What a message says, as the event has it and as patterns look at it.
#[must_use]
pub fn body(body: &[u8]) -> Cow<'_, str> {
    text(body).text
}

/// The record of a message without its body, for patterns that look at more than that.
#[must_use]
pub fn fields(delivery: &Delivery, source: &Source<'_>) -> Value {
    let record = Record {
        body: Cow::Borrowed(""),
        ..record(delivery, source)
    };
    serde_json::to_value(record).expect("strings and maps of strings are always JSON")
}

fn record<'a>(delivery: &'a Delivery, source: &Source<'a>) -> Record<'a> {
    let message = &delivery.message;
    let body = text(&message.body);
    let attributes = message.attributes.iter();
    Record {
        message_id: message.id.to_string(),
        receipt_handle: (source.handle)(&delivery.receipt),
        md5_of_body: body_md5(body.text.as_bytes()),
        body: body.text,
        is_base64_encoded: body.is_base64,
        attributes: system_attributes(message, source.sender, source.arn),
        message_attributes: attributes
            .map(|(name, attribute)| (name.as_str(), MessageAttribute::of(attribute)))
            .collect(),
        md5_of_message_attributes: attributes_md5(&message.attributes),
        event_source: "aws:sqs",
        event_source_arn: (source.arn)(source.queue),
        aws_region: source.region,
    }
}

impl<'a> MessageAttribute<'a> {
    fn of(attribute: &'a Attribute) -> Self {
        let is_binary = attribute.kind.starts_with("Binary");
        Self {
            string_value: (!is_binary).then(|| String::from_utf8_lossy(&attribute.value)),
            binary_value: is_binary.then(|| STANDARD.encode(&attribute.value)),
            string_list_values: [],
            binary_list_values: [],
            data_type: &attribute.kind,
        }
    }
}

#[cfg(test)]
mod tests;
