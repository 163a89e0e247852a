//! A function that exports only `dunlin:event/invoke`, behind a route: API
//! Gateway's event in, its form of an answer out. The fields are checked one by
//! one in `host/src/trigger/http/payload/tests.rs`.

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use dunlin_tests::{Host, Response};

use super::up;

const PAYLOAD: &str = r#"
[function.payload]
component = "{payload}"

[[function.payload.http]]
path = "/things/{id}"
"#;

#[test]
fn the_event_is_charged_to_the_memory_budget_as_the_json_that_it_is() {
    let host = up(&format!(
        "[host]\nmemory-budget = \"24MiB\"\n{}",
        PAYLOAD.replace("[function.payload]", "[function.payload]\nprovisioned = 0")
    ));
    // Six bytes of JSON each.
    let body = vec![1; 5 << 20];
    let headers = [("host", "a"), ("content-type", "text/plain")];
    let response = host.http.request("PUT", "/things/1", &headers, &body);
    assert_eq!(response.status, 503, "{:?}", response.headers);
    assert!(response.header("retry-after").is_some());
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |n| n == 0.0);
    let response = host.http.request("PUT", "/things/1", &headers, b"small");
    assert_eq!(response.status, 200);
}

#[test]
fn the_event_is_what_handlers_for_lambda_read() {
    let host = up(PAYLOAD);
    let response = host.http.request(
        "PUT",
        "/things/caf%C3%A9?a=1&a=2&b=x+y",
        &[
            ("host", "api.box.test:8080"),
            ("user-agent", "tests/1.0"),
            ("content-type", "application/json"),
            ("cookie", "c=1; d=2"),
            ("x-tag", "one"),
            ("x-tag", "two"),
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
        ],
        br#"{"k":"v"}"#,
    );
    assert_eq!(
        (response.status, response.header("content-type")),
        (200, Some("application/json"))
    );
    let event: ApiGatewayV2httpRequest =
        serde_json::from_slice(&response.body).expect("aws_lambda_events reads it");

    assert_eq!(event.version.as_deref(), Some("2.0"));
    assert_eq!(event.route_key.as_deref(), Some("PUT /things/{id}"));
    assert_eq!(event.raw_path.as_deref(), Some("/things/caf%C3%A9"));
    assert_eq!(event.raw_query_string.as_deref(), Some("a=1&a=2&b=x+y"));
    assert_eq!(
        event.cookies.as_deref(),
        Some(&["c=1".to_owned(), "d=2".to_owned()][..])
    );
    assert_eq!(event.headers["x-tag"], "one,two");
    assert_eq!(event.headers["x-forwarded-for"], "127.0.0.1");
    assert!(!event.headers.contains_key("x-private") && !event.headers.contains_key("connection"));
    assert_eq!(event.query_string_parameters.first("b"), Some("x y"));
    assert_eq!(event.path_parameters["id"], "café");
    assert_eq!(
        (event.body.as_deref(), event.is_base64_encoded),
        (Some(r#"{"k":"v"}"#), false)
    );
    let context = event.request_context;
    assert_eq!(
        context.request_id.as_deref(),
        response.header("x-amzn-requestid")
    );
    assert_eq!(context.http.method, "PUT");
    assert_eq!(context.http.source_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(context.http.user_agent.as_deref(), Some("tests/1.0"));
    assert_eq!(context.http.protocol.as_deref(), Some("HTTP/1.1"));
}

#[track_caller]
fn answering(host: &Host, payload: &str) -> Response {
    host.http.request(
        "POST",
        "/things/1?answer",
        &[("content-type", "text/plain")],
        payload.as_bytes(),
    )
}

#[test]
fn every_form_of_an_answer_is_understood() {
    let host = up(PAYLOAD);
    let response = answering(
        &host,
        r#"{"statusCode":201,"headers":{"X-One":"1","content-type":"text/plain"},"cookies":["a=1","b=2"],"body":"made"}"#,
    );
    assert_eq!((response.status, response.text().as_str()), (201, "made"));
    assert_eq!(
        (response.header("x-one"), response.header("content-type")),
        (Some("1"), Some("text/plain"))
    );
    let cookies: Vec<&str> = response
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(cookies, ["a=1", "b=2"]);

    let response = answering(&host, r#"{"statusCode":"418","body":"short and stout"}"#);
    assert_eq!(
        (response.status, response.text().as_str()),
        (418, "short and stout")
    );
    let response = answering(
        &host,
        r#"{"statusCode":200,"isBase64Encoded":true,"body":"AAEC/w=="}"#,
    );
    assert_eq!(response.body, [0, 1, 2, 255]);
    for (json, body) in [
        (r#"{"message":"hi"}"#, r#"{"message":"hi"}"#),
        ("\"a\\nb\"", "a\nb"),
        ("[1,2]", "[1,2]"),
        ("7", "7"),
        ("null", "null"),
    ] {
        let response = answering(&host, json);
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, body),
            "{json}"
        );
        assert_eq!(
            response.header("content-type"),
            Some("application/json"),
            "{json}"
        );
    }
}

#[test]
fn what_is_no_answer_is_502_and_stays_in_the_log() {
    let host = up(PAYLOAD);
    for payload in [
        "not json",
        r#"{"statusCode":"x"}"#,
        r#"{"statusCode":200,"isBase64Encoded":true,"body":"!"}"#,
    ] {
        let response = answering(&host, payload);
        assert_eq!(
            (response.status, response.outcome()),
            (502, Some("function_error")),
            "{payload}"
        );
        assert!(
            !response.text().contains("statusCode"),
            "the client learns nothing of the insides"
        );
        let record = host.record(response.request_id());
        assert_eq!(
            (&record["outcome"], &record["error_type"]),
            (&"function_error".into(), &"Function.InvalidResponse".into())
        );
    }
    let response = host.get("/things/1?fail");
    assert_eq!(
        (response.status, response.outcome()),
        (502, Some("function_error"))
    );
    assert!(!response.text().contains("as asked"), "{}", response.text());
    assert_eq!(host.record(response.request_id())["error_type"], "Failed");
    assert_eq!(host.get("/things/1").status, 200);
}

#[test]
fn the_response_limit_holds_for_it_too() {
    let host = up(r#"
[function.payload]
component = "{payload}"
response-limit = "1KiB"

[[function.payload.http]]
path = "/things/{id}"
"#);
    let response = answering(&host, &format!("\"{}\"", "x".repeat(2000)));
    assert_eq!(response.status, 502);
    assert_eq!(answering(&host, "\"x\"").text(), "x");
}
