use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::function::pattern::Filter;
use crate::queue::Message;
use crate::queue::message::{Attributes, Dead};

const ID: Uuid = Uuid::from_u128(0x059f_36b4_87a3_44ab_83d2_6619_7583_0a7d);

fn delivery(body: &'static [u8]) -> Delivery {
    let attribute = |kind: &str, value: &[u8]| Attribute {
        kind: kind.to_owned(),
        value: value.to_vec(),
    };
    Delivery {
        message: Message {
            id: ID,
            sequence: 7,
            body: Bytes::from_static(body),
            attributes: Attributes::from([
                (
                    "Attribute1".to_owned(),
                    attribute("String", b"AttributeValue1"),
                ),
                ("Attribute2".to_owned(), attribute("Number", b"123")),
                ("Attribute3".to_owned(), attribute("Binary", b"1100")),
            ]),
            sent: 1_520_621_625_029,
            visible: 1_520_621_625_029,
            receives: 2,
            first_received: Some(1_520_621_634_884),
            group: None,
            deduplication: None,
            dead: None,
            depth: 0,
            releases: 0,
        },
        age: Duration::ZERO,
        is_suspect: false,
        receipt: Receipt {
            queue: 1,
            sequence: 7,
            round: 2,
        },
    }
}

fn with_source<R>(then: impl FnOnce(&Source<'_>) -> R) -> R {
    then(&Source {
        queue: &QueueName::new("SQSQueue").unwrap(),
        arn: &|name| format!("arn:aws:sqs:us-west-2:123456789012:{name}"),
        region: "us-west-2",
        sender: "AROAIWPX5BD2BHG722MW4:sender",
        handle: &|receipt| format!("handle-{}-{}", receipt.sequence, receipt.round),
    })
}

fn bytes(batch: &[Delivery]) -> Vec<u8> {
    with_source(|source| event(batch, source))
}

fn value(batch: &[Delivery]) -> Value {
    serde_json::from_slice(&bytes(batch)).unwrap()
}

#[test]
fn the_event_is_lambdas() {
    // The values of `example-sqs-event.json` of aws_lambda_events 1.2.1; but with an id that
    // is one, digests that are right, and the lists empty, as they always are.
    let expected = json!({
        "Records": [{
            "messageId": ID.to_string(),
            "receiptHandle": "handle-7-2",
            "body": "Message Body",
            "md5OfBody": "77a3cf88eba293be44f5fd5c61835a43",
            "md5OfMessageAttributes": "5e245f81e602ee5aa6641584635f9a43",
            "eventSourceARN": "arn:aws:sqs:us-west-2:123456789012:SQSQueue",
            "eventSource": "aws:sqs",
            "awsRegion": "us-west-2",
            "attributes": {
                "ApproximateReceiveCount": "2",
                "SentTimestamp": "1520621625029",
                "SenderId": "AROAIWPX5BD2BHG722MW4:sender",
                "ApproximateFirstReceiveTimestamp": "1520621634884"
            },
            "messageAttributes": {
                "Attribute3": {
                    "binaryValue": "MTEwMA==",
                    "stringListValues": [],
                    "binaryListValues": [],
                    "dataType": "Binary"
                },
                "Attribute2": {
                    "stringValue": "123",
                    "stringListValues": [],
                    "binaryListValues": [],
                    "dataType": "Number"
                },
                "Attribute1": {
                    "stringValue": "AttributeValue1",
                    "stringListValues": [],
                    "binaryListValues": [],
                    "dataType": "String"
                }
            }
        }]
    });
    assert_eq!(value(&[delivery(b"Message Body")]), expected);
}

#[test]
fn the_event_is_one_of_lambdas_rust_types() {
    let mut dead = delivery(b"{\"a\":\"Test\",\"b\":123}");
    dead.message.group = Some("g".to_owned());
    dead.message.deduplication = Some("d".to_owned());
    dead.message.attributes.clear();
    dead.message.dead = Some(Dead {
        source: QueueName::new("orders").unwrap(),
        reason: "it failed".to_owned(),
    });
    let batch = [delivery(b"Message Body"), dead];
    let event: SqsEvent = serde_json::from_slice(&bytes(&batch)).unwrap();
    let [first, second] = event.records.as_slice() else {
        panic!("two records");
    };
    assert_eq!(first.message_id, Some(ID.to_string()));
    assert_eq!(first.receipt_handle.as_deref(), Some("handle-7-2"));
    assert_eq!(first.body.as_deref(), Some("Message Body"));
    assert_eq!(first.md5_of_body, Some(body_md5(b"Message Body")));
    let digest = attributes_md5(&batch[0].message.attributes);
    assert!(digest.is_some());
    assert_eq!(first.md5_of_message_attributes, digest);
    assert_eq!(first.event_source.as_deref(), Some("aws:sqs"));
    let arn = "arn:aws:sqs:us-west-2:123456789012:SQSQueue";
    assert_eq!(first.event_source_arn.as_deref(), Some(arn));
    assert_eq!(first.aws_region.as_deref(), Some("us-west-2"));
    assert_eq!(first.attributes.len(), 4);
    let binary = &first.message_attributes["Attribute3"];
    assert_eq!(binary.binary_value.as_ref().unwrap().as_slice(), b"1100");
    assert_eq!(binary.string_value, None);
    assert_eq!(binary.data_type.as_deref(), Some("Binary"));
    let text = &first.message_attributes["Attribute1"];
    assert_eq!(text.string_value.as_deref(), Some("AttributeValue1"));
    assert!(text.string_list_values.is_empty() && text.binary_list_values.is_empty());

    assert_eq!(second.body.as_deref(), Some("{\"a\":\"Test\",\"b\":123}"));
    assert_eq!(second.md5_of_message_attributes, None);
    for (name, value) in [
        ("SequenceNumber", "00000000000000000007"),
        ("MessageGroupId", "g"),
        ("MessageDeduplicationId", "d"),
        (
            "DeadLetterQueueSourceArn",
            "arn:aws:sqs:us-west-2:123456789012:orders",
        ),
    ] {
        assert_eq!(second.attributes[name], value);
    }
}

#[test]
fn what_is_absent_is_so_in_lambdas_way() {
    let mut plain = delivery(b"x");
    plain.message.attributes.clear();
    plain.message.first_received = None;
    let event = value(&[plain]);
    let record = event["Records"][0].as_object().unwrap();
    assert_eq!(record.get("md5OfMessageAttributes"), Some(&Value::Null));
    assert_eq!(record["messageAttributes"], json!({}));
    assert_eq!(record["attributes"].as_object().unwrap().len(), 3);
    assert!(!record.contains_key("isBase64Encoded"));
    assert_eq!(value(&[]), json!({"Records": []}));
}

#[test]
fn bodies_that_are_no_text_come_as_base64() {
    let event = value(&[delivery(b"\xff\x00\xfe")]);
    let record = &event["Records"][0];
    assert_eq!(record["body"], "/wD+");
    assert_eq!(record["isBase64Encoded"], true);
    assert_eq!(record["md5OfBody"], body_md5(b"/wD+"));
    assert_eq!(body(b"\xff\x00\xfe"), "/wD+");
    // All that is text is as it was sent.
    let odd = "\u{0}\u{7f}\"\\\u{2028}\u{fffd}𐀀";
    let event = value(&[delivery(odd.as_bytes())]);
    assert_eq!(event["Records"][0]["body"], odd);
    assert_eq!(body(odd.as_bytes()), odd);
}

#[test]
fn patterns_look_at_what_the_function_would_get() {
    let chosen = |pattern: &str, delivery: &Delivery| {
        let filter = Filter::for_messages([pattern]).unwrap();
        let text = body(&delivery.message.body);
        with_source(|source| filter.matches_message(&text, || fields(delivery, source)))
    };
    let message = delivery(b"{\"a\": 1}");
    assert!(chosen(r#"{"body": {"a": [1]}}"#, &message));
    let by_attribute =
        r#"{"messageAttributes": {"Attribute1": {"stringValue": [{"prefix": "Attr"}]}}}"#;
    assert!(chosen(by_attribute, &message));
    let seldom = r#"{"body": {"a": [1]}, "attributes": {"ApproximateReceiveCount": ["1"]}}"#;
    assert!(!chosen(seldom, &message));
    assert!(chosen(&format!(r#"{{"messageId": ["{ID}"]}}"#), &message));
    assert_eq!(with_source(|source| fields(&message, source))["body"], "");
}
