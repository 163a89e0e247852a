//! How SQS writes what belongs to a message: the same in the answers of the API and in the
//! event that Lambda makes of a batch.

use std::collections::BTreeMap;

use md5::{Digest as _, Md5};

use crate::hex::hex;
use crate::queue::message::Attributes;
use crate::queue::{Message, QueueName};

/// The MD5 by which who sent or received a body checks it.
pub(crate) fn body_md5(body: &[u8]) -> String {
    hex(&Md5::digest(body))
}

/// The MD5 of attributes, by AWS's rule: by name, each with the lengths of its parts. None
/// without attributes.
pub(crate) fn attributes_md5(attributes: &Attributes) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for (name, attribute) in attributes {
        let transport = if attribute.kind.starts_with("Binary") {
            2
        } else {
            1
        };
        part(&mut all, name.as_bytes());
        part(&mut all, attribute.kind.as_bytes());
        all.push(transport);
        part(&mut all, &attribute.value);
    }
    Some(hex(&Md5::digest(&all)))
}

/// Bytes with their length before them.
fn part(all: &mut Vec<u8>, bytes: &[u8]) {
    all.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    all.extend(bytes);
}

/// A sequence number: twenty digits.
pub(crate) fn sequence(number: u64) -> String {
    format!("{number:020}")
}

/// SQS's own attributes of a message, by name. `arn` names queues.
pub(crate) fn system_attributes(
    message: &Message,
    sender: &str,
    arn: impl Fn(&QueueName) -> String,
) -> BTreeMap<&'static str, String> {
    let mut all = BTreeMap::from([
        ("SenderId", sender.to_owned()),
        ("SentTimestamp", message.sent.to_string()),
        ("ApproximateReceiveCount", message.receives.to_string()),
    ]);
    let first = message.first_received.map(|at| at.to_string());
    let source = message.dead.as_ref().map(|dead| arn(&dead.source));
    let number = message.group.as_ref().map(|_| sequence(message.sequence));
    for (name, value) in [
        ("ApproximateFirstReceiveTimestamp", first),
        ("DeadLetterQueueSourceArn", source),
        ("SequenceNumber", number),
        ("MessageGroupId", message.group.clone()),
        ("MessageDeduplicationId", message.deduplication.clone()),
    ] {
        all.extend(value.map(|value| (name, value)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::message::Attribute;

    #[test]
    fn digests_are_those_that_aws_documents() {
        // From the documentation of the Java SDK's checker: name, type, 1, value.
        let attribute = |kind: &str, value: &[u8]| Attribute {
            kind: kind.to_owned(),
            value: value.to_vec(),
        };
        let attributes = Attributes::from([
            ("b".to_owned(), attribute("Binary", &[1, 2])),
            ("a".to_owned(), attribute("String", b"x")),
        ]);
        let bytes = [
            b"\0\0\0\x01a\0\0\0\x06String\x01\0\0\0\x01x".as_slice(),
            b"\0\0\0\x01b\0\0\0\x06Binary\x02\0\0\0\x02\x01\x02".as_slice(),
        ]
        .concat();
        assert_eq!(attributes_md5(&attributes), Some(body_md5(&bytes)));
        assert_eq!(attributes_md5(&Attributes::new()), None);
    }
}
