//! Field by field against AWS's payload format 2.0 (function URL, HTTP API).

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::*;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// A request to the route `/items/{id}`, and what varies about it.
struct Sent {
    method: Method,
    target: &'static str,
    headers: Vec<(&'static str, &'static [u8])>,
    body: &'static [u8],
    parameters: Vec<(String, String)>,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            method: Method::GET,
            target: "/items/7",
            headers: vec![("host", b"box.example:3000")],
            body: b"",
            parameters: vec![("id".to_owned(), "7".to_owned())],
        }
    }
}

impl Sent {
    fn event_for(&self, request_id: RequestId) -> Value {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(self.target);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let route = RouteMatch {
            pattern: "/items/{id}".into(),
            parameters: self.parameters.clone(),
        };
        let body = Bytes::from_static(self.body);
        let event = event(
            &parts,
            &body,
            "box.example:3000",
            &route,
            CLIENT,
            "HTTP/1.1",
            request_id,
        );
        serde_json::from_slice(&event).unwrap()
    }

    fn event(&self) -> Value {
        self.event_for(RequestId::random())
    }
}

fn with_body(content_type: &'static [u8], body: &'static [u8]) -> Value {
    let headers = vec![
        ("host", b"box.example".as_slice()),
        ("content-type", content_type),
    ];
    Sent {
        method: Method::POST,
        headers,
        body,
        ..Sent::default()
    }
    .event()
}

#[test]
fn a_plain_request_has_these_fields_and_no_others() {
    let request_id = RequestId::random();
    let sent = Sent {
        headers: vec![("host", b"box.example:3000"), ("user-agent", b"tests/1.0")],
        ..Sent::default()
    };
    let mut event = sent.event_for(request_id);

    let context = event["requestContext"].as_object_mut().unwrap();
    let time = context.remove("time").unwrap();
    let epoch = context.remove("timeEpoch").unwrap().as_u64().unwrap();
    let at = time::OffsetDateTime::from_unix_timestamp((epoch / 1000).cast_signed()).unwrap();
    let format = time::macros::format_description!(
        "[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000"
    );
    assert_eq!(
        time,
        at.format(format).unwrap(),
        "`time` and `timeEpoch` are the same moment"
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    assert!(
        now.abs_diff(u128::from(epoch)) < 60_000,
        "{epoch} is in milliseconds, and now"
    );

    let trace = event["headers"]
        .as_object_mut()
        .unwrap()
        .remove("x-amzn-trace-id");
    let trace = trace.expect("AWS adds x-amzn-trace-id");
    assert!(trace.as_str().unwrap().starts_with("Root=1-"), "{trace}");
    let port = event["headers"]
        .as_object_mut()
        .unwrap()
        .remove("x-forwarded-port");
    assert_eq!(
        port,
        Some(json!("3000")),
        "the port that the client spoke to"
    );

    assert_eq!(
        event,
        json!({
            "version": "2.0",
            "routeKey": "GET /items/{id}",
            "rawPath": "/items/7",
            "rawQueryString": "",
            "headers": {
                "host": "box.example:3000",
                "user-agent": "tests/1.0",
                "x-forwarded-for": "192.0.2.7",
                "x-forwarded-proto": "http",
            },
            "pathParameters": { "id": "7" },
            "requestContext": {
                "accountId": "anonymous",
                "apiId": "dunlin",
                "domainName": "box.example:3000",
                "domainPrefix": "box",
                "http": {
                    "method": "GET",
                    "path": "/items/7",
                    "protocol": "HTTP/1.1",
                    "sourceIp": "192.0.2.7",
                    "userAgent": "tests/1.0",
                },
                "requestId": request_id.to_string(),
                "routeKey": "GET /items/{id}",
                "stage": "$default",
            },
            "isBase64Encoded": false,
        })
    );
}

#[test]
fn what_is_empty_is_left_out() {
    let event = Sent {
        parameters: Vec::new(),
        ..Sent::default()
    }
    .event();
    for absent in [
        "cookies",
        "body",
        "queryStringParameters",
        "pathParameters",
        "stageVariables",
    ] {
        assert_eq!(event.get(absent), None, "{absent}");
    }
    let event = Sent {
        target: "/items/7?",
        ..Sent::default()
    }
    .event();
    assert_eq!(event.get("queryStringParameters"), None);
    assert_eq!(event["rawQueryString"], "");
}

#[test]
fn the_path_stays_encoded_and_parameters_are_decoded() {
    let sent = Sent {
        target: "/items/pa2%2Fth",
        parameters: vec![("id".into(), "pa2/th".into())],
        ..Sent::default()
    };
    let event = sent.event();
    assert_eq!(event["rawPath"], "/items/pa2%2Fth");
    assert_eq!(event["requestContext"]["http"]["path"], "/items/pa2%2Fth");
    assert_eq!(event["pathParameters"], json!({ "id": "pa2/th" }));
}

#[test]
fn query_parameters_are_decoded_and_joined() {
    let event = Sent {
        target: "/items/7?a=1&b=x+y%26z&a=2&flag&=v&&caf%C3%A9=1",
        ..Sent::default()
    }
    .event();
    assert_eq!(
        event["rawQueryString"],
        "a=1&b=x+y%26z&a=2&flag&=v&&caf%C3%A9=1"
    );
    assert_eq!(
        event["queryStringParameters"],
        json!({ "a": "1,2", "b": "x y&z", "flag": "", "": "v", "café": "1" })
    );
}

#[test]
fn repeated_headers_are_joined_and_cookies_stand_apart() {
    let sent = Sent {
        headers: vec![
            ("host", b"box.example"),
            ("X-Tag", b"one"),
            ("x-tag", b"two, three"),
            ("cookie", b"a=1; b=2"),
            ("cookie", b"c=3"),
            ("x-bytes", b"caf\xc3\xa9 \xff"),
        ],
        ..Sent::default()
    };
    let event = sent.event();
    assert_eq!(event["headers"]["x-tag"], "one,two, three");
    assert_eq!(event["cookies"], json!(["a=1", "b=2", "c=3"]));
    assert_eq!(event["headers"].get("cookie"), None);
    assert_eq!(event["headers"]["x-bytes"], "café \u{fffd}");
}

#[test]
fn a_client_cannot_say_that_it_is_another() {
    let sent = Sent {
        headers: vec![
            ("host", b"box.example"),
            ("x-forwarded-for", b"10.0.0.1"),
            ("x-forwarded-for", b"10.0.0.2"),
        ],
        ..Sent::default()
    };
    let event = sent.event();
    let forwarded = event["headers"]["x-forwarded-for"].as_str().unwrap();
    let last = forwarded.rsplit(',').next().unwrap().trim();
    assert_eq!(
        last, "192.0.2.7",
        "the last one is what this host saw: {forwarded}"
    );
    assert_eq!(event["requestContext"]["http"]["sourceIp"], "192.0.2.7");
}

#[test]
fn text_travels_as_text_and_the_rest_in_base64() {
    for text in [
        "text/plain",
        "text/html; charset=utf-8",
        "TEXT/CSV",
        "application/json",
        "Application/JSON;charset=UTF-8",
        "application/problem+json",
        "application/xml",
        "image/svg+xml",
        "application/javascript",
        "application/x-www-form-urlencoded",
    ] {
        let event = with_body(text.as_bytes(), "a=\u{e9}".as_bytes());
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!("a=é"), &json!(false)),
            "{text}"
        );
    }
    for binary in [
        "application/octet-stream",
        "image/png",
        "multipart/form-data; boundary=x",
        "",
    ] {
        let event = with_body(binary.as_bytes(), b"\x00\x01");
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!("AAE="), &json!(true)),
            "{binary:?}"
        );
    }
    let event = with_body(b"text/plain", b"\xff\xfe");
    assert_eq!(
        (&event["body"], &event["isBase64Encoded"]),
        (&json!("//4="), &json!(true)),
        "text that is none"
    );
    let event = with_body(b"image/png", b"");
    assert_eq!(
        (event.get("body"), &event["isBase64Encoded"]),
        (None, &json!(false)),
        "an empty body"
    );
}

/// Lambda's.
const LIMIT: u64 = 6 << 20;

fn answered(payload: &str) -> HttpAnswer {
    match interpret(Answer::Payload(payload.as_bytes().to_vec()), LIMIT) {
        Ok(answer) => answer,
        Err(failure) => panic!("{payload}: {failure:?}"),
    }
}

fn refused(payload: &str) -> Failure {
    match interpret(Answer::Payload(payload.as_bytes().to_vec()), LIMIT) {
        Ok(answer) => panic!("{payload}: {answer:?}"),
        Err(failure) => failure,
    }
}

fn values(answer: &HttpAnswer, name: &str) -> Vec<String> {
    answer
        .headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_object_with_a_status_is_a_response() {
    let answer = answered(
        r#"{"statusCode":201,"headers":{"X-One":"1","content-type":"text/plain"},
            "multiValueHeaders":{"x-two":["a","b"]},"cookies":["a=1; Secure","b=2"],"body":"made"}"#,
    );
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(values(&answer, "x-one"), ["1"]);
    assert_eq!(values(&answer, "x-two"), ["a", "b"]);
    assert_eq!(values(&answer, "set-cookie"), ["a=1; Secure", "b=2"]);
    assert_eq!(values(&answer, "content-type"), ["text/plain"]);
    assert_eq!(answer.body, "made");
}

#[test]
fn a_status_may_be_a_numeric_string() {
    assert_eq!(
        answered(r#"{"statusCode":"418","body":"x"}"#).status,
        StatusCode::IM_A_TEAPOT
    );
}

#[test]
fn a_response_has_a_type_and_may_lack_a_body() {
    let answer = answered(r#"{"statusCode":204}"#);
    assert_eq!(values(&answer, "content-type"), ["application/json"]);
    assert_eq!(answer.body, "");
    assert_eq!(answered(r#"{"statusCode":200,"body":null}"#).body, "");
}

#[test]
fn header_values_may_be_numbers_and_booleans() {
    let answer = answered(r#"{"statusCode":200,"headers":{"x-count":7,"x-flag":true}}"#);
    assert_eq!(values(&answer, "x-count"), ["7"]);
    assert_eq!(values(&answer, "x-flag"), ["true"]);
}

#[test]
fn a_body_in_base64_is_decoded() {
    assert_eq!(
        answered(r#"{"statusCode":200,"body":"AAEC","isBase64Encoded":true}"#).body,
        &[0, 1, 2][..]
    );
    assert_eq!(
        answered(r#"{"statusCode":200,"body":"AAEC","isBase64Encoded":false}"#).body,
        "AAEC"
    );
    let failure = refused(r#"{"statusCode":200,"body":"no base64!","isBase64Encoded":true}"#);
    assert_eq!(failure.kind, OutcomeKind::FunctionError);
}

#[test]
fn without_a_status_the_json_is_the_body_as_it_is() {
    // Byte for byte: neither the order of keys, nor the form of numbers, nor
    // blanks are the host's to change.
    for json in [
        r#"{"b":1,"a":2}"#,
        r#"{"n":12345678901234567890123, "x": 1.50}"#,
        r#"{ "message" : "\u00e9" }"#,
        "[1, 2]",
        "7",
        "true",
        "null",
        "12345678901234567890123",
    ] {
        let answer = answered(json);
        assert_eq!(answer.status, StatusCode::OK, "{json}");
        assert_eq!(
            values(&answer, "content-type"),
            ["application/json"],
            "{json}"
        );
        assert_eq!(answer.body, json, "as the function wrote it");
    }
}

#[test]
fn what_nobody_asks_for_is_passed_over() {
    // As a tree this would take gigabytes.
    let values = "[0,".repeat(10_000) + "0" + &"]".repeat(10_000);
    let answer = answered(&format!(
        r#"{{"statusCode":202,"other":{values},"statusCode":201,"body":{values}}}"#
    ));
    assert_eq!(answer.status, StatusCode::CREATED, "the last one counts");
    assert_eq!(answer.body, values, "as the function wrote it");
}

#[test]
fn parts_of_another_type_are_as_if_they_were_not_there() {
    let answer =
        answered(r#"{"statusCode":200,"headers":[1],"multiValueHeaders":"x","cookies":{}}"#);
    assert_eq!(values(&answer, "content-type"), ["application/json"]);
    assert_eq!(answer.headers.len(), 1);
}

#[test]
fn more_headers_than_can_be_held_are_refused() {
    let many = "\"v\",".repeat(MAX_HEADERS) + "\"v\"";
    for payload in [
        format!(r#"{{"statusCode":200,"multiValueHeaders":{{"a":["v"],"b":[{many}]}}}}"#),
        format!(
            r#"{{"statusCode":200,"multiValueHeaders":{{"a":["v","v"],"b":[{}]}}}}"#,
            &many[4..]
        ),
        format!(r#"{{"statusCode":200,"cookies":[{many}]}}"#),
    ] {
        let failure = refused(&payload);
        assert_eq!(failure.kind, OutcomeKind::FunctionError);
        assert!(failure.message.len() < 200, "{}", failure.message);
    }
}

#[test]
fn a_name_counts_with_each_of_its_values() {
    // As lines these are gigabytes.
    let name = "n".repeat(1 << 16);
    let values = "1,".repeat(30_000) + "1";
    let payload = format!(r#"{{"statusCode":200,"multiValueHeaders":{{"{name}":[{values}]}}}}"#);
    let failure = refused(&payload);
    assert_eq!(failure.error_type, "Function.ResponseSizeTooLarge");
}

#[test]
fn a_json_string_is_sent_without_its_quotes() {
    let answer = answered(r#""say \"hi\" \u00e9""#);
    assert_eq!(answer.body, "say \"hi\" é");
    assert_eq!(values(&answer, "content-type"), ["application/json"]);
}

#[test]
fn what_is_no_response_is_a_function_error() {
    for payload in [
        "not json",
        "{",
        "{\"statusCode\":200}x",
        r#"{"statusCode":"abc"}"#,
        r#"{"statusCode":true}"#,
        r#"{"statusCode":99}"#,
        r#"{"statusCode":101}"#,
        r#"{"statusCode":600}"#,
        r#"{"statusCode":-1}"#,
        r#"{"statusCode":65736}"#,
        r#"{"statusCode":200,"headers":{"bad name":"x"}}"#,
        r#"{"statusCode":200,"headers":{"x":"a\r\nset-cookie: b"}}"#,
        r#"{"statusCode":200,"cookies":["a\nb"]}"#,
    ] {
        let failure = refused(payload);
        assert_eq!(failure.kind, OutcomeKind::FunctionError, "{payload}");
        assert!(!failure.message.is_empty(), "{payload}");
    }
}

#[test]
fn headers_of_the_connection_are_left_out() {
    let answer = answered(
        r#"{"statusCode":200,"headers":{"Connection":"close","Content-Length":"99","Transfer-Encoding":"chunked","x-kept":"1"},"body":"hi"}"#,
    );
    for name in ["connection", "content-length", "transfer-encoding"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    assert_eq!(values(&answer, "x-kept"), ["1"]);
}
