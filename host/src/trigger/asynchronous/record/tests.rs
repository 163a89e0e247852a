use serde_json::{Value, json};

use super::*;

const ARN: &str = "arn:aws:lambda:edge-1:123456789012:function:f:$LATEST";

fn record(request: &[u8]) -> Record<'_> {
    Record {
        time: 1_795_219_200_007,
        request_id: RequestId::random(),
        function_arn: ARN,
        condition: Condition::RetriesExhausted,
        invokes: 3,
        request,
        response: Some(Response {
            status: 200,
            version: Some("$LATEST"),
            error: Some("Unhandled"),
            payload: Some(br#"{"errorMessage": "boom", "errorType": "E"}"#),
        }),
    }
}

fn parsed(record: &Record<'_>) -> Value {
    serde_json::from_slice(&record.to_json()).unwrap()
}

#[test]
fn a_failure_is_recorded_as_lambda_does() {
    let record = record(br#"{"key": 1}"#);
    let expected = json!({
        "version": "1.0",
        "timestamp": "2026-11-21T00:00:00.007Z",
        "requestContext": {
            "requestId": record.request_id.to_string(),
            "functionArn": ARN,
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3
        },
        "requestPayload": {"key": 1},
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled"
        },
        "responsePayload": {"errorMessage": "boom", "errorType": "E"}
    });
    assert_eq!(parsed(&record), expected);
}

#[test]
fn a_success_has_no_error() {
    let mut record = record(b"1");
    record.condition = Condition::Success;
    record.response = Some(Response {
        status: 200,
        version: Some("7"),
        error: None,
        payload: Some(b""),
    });
    let json = parsed(&record);
    assert_eq!(json["requestContext"]["condition"], "Success");
    assert_eq!(
        json["responseContext"],
        json!({"statusCode": 200, "executedVersion": "7"})
    );
    // There, but empty.
    assert_eq!(
        json.as_object().unwrap().get("responsePayload"),
        Some(&Value::Null)
    );
}

#[test]
fn what_never_ran_has_no_response() {
    let mut record = record(b"{}");
    record.condition = Condition::ZeroReservedConcurrency;
    record.invokes = 0;
    record.response = None;
    let json = parsed(&record);
    assert_eq!(
        json["requestContext"]["condition"],
        "ZeroReservedConcurrency"
    );
    assert_eq!(json["requestContext"]["approximateInvokeCount"], 0);
    let names: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["requestContext", "requestPayload", "timestamp", "version"]
    );

    // Throttled in the last attempt.
    record.condition = Condition::EventAgeExceeded;
    record.response = Some(Response {
        status: 429,
        version: None,
        error: None,
        payload: None,
    });
    let json = parsed(&record);
    assert_eq!(json["responseContext"], json!({"statusCode": 429}));
    assert!(json.get("responsePayload").is_none());
}

#[test]
fn payloads_stand_as_they_were_sent() {
    // Neither the order of names, nor the form of numbers, nor space is changed.
    let request = br#"{"b": 1.00, "a": 12345678901234567890123 }"#;
    let json = String::from_utf8(record(request).to_json()).unwrap();
    let expected = r#""requestPayload":{"b": 1.00, "a": 12345678901234567890123 },"#;
    assert!(json.contains(expected), "{json}");
    for (request, expected) in [
        (b"".as_slice(), Value::Null),
        (b" [1] ", json!([1])),
        (b"no \"JSON\"", json!("no \"JSON\"")),
        (b"{} {}", json!("{} {}")),
        (b"\xff\xfe", json!("//4=")),
        (b"\"\xff\"", json!("Iv8i")),
    ] {
        assert_eq!(
            parsed(&record(request))["requestPayload"],
            expected,
            "{request:?}"
        );
    }
    // Too deep to be parsed, but that is not asked for.
    let deep = [[b'['; 500], [b']'; 500]].concat();
    let json = String::from_utf8(record(&deep).to_json()).unwrap();
    assert!(json.contains(&format!(
        r#""requestPayload":{}{},"#,
        "[".repeat(500),
        "]".repeat(500)
    )));
}

#[test]
fn dead_letters_say_what_was_wrong() {
    let id = RequestId::random();
    let of = |attributes: &Attributes| -> Vec<(String, String, String)> {
        let attributes = attributes.iter().map(|(name, attribute)| {
            let value = String::from_utf8(attribute.value.clone()).unwrap();
            (name.clone(), attribute.kind.clone(), value)
        });
        attributes.collect()
    };
    let attribute =
        |name: &str, kind: &str, value: &str| (name.to_owned(), kind.to_owned(), value.to_owned());
    assert_eq!(
        of(&dead_letter(id, Some(200), "boom")),
        [
            attribute("ErrorCode", "Number", "200"),
            attribute("ErrorMessage", "String", "boom"),
            attribute("RequestID", "String", &id.to_string()),
        ]
    );
    // The first KiB, of whole characters.
    let long = dead_letter(id, Some(200), &format!("x{}", "ü".repeat(1000)));
    let message = String::from_utf8(long["ErrorMessage"].value.clone()).unwrap();
    assert_eq!(message, format!("x{}", "ü".repeat(511)));
    assert_eq!(
        of(&dead_letter(id, None, "")),
        [attribute("RequestID", "String", &id.to_string())]
    );
}
