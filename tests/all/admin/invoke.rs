//! Invoke: its names, types, answers and errors.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_tests::Host;
use serde_json::{Value, json};

use super::{Api, PROBE, is_error};
use crate::http::up;
use crate::http::wire::Wire;

const ARN: &str = "arn:aws:lambda:edge-1:123456789012:function";

#[test]
fn an_invocation_answers_with_the_functions_result() {
    let host = up(PROBE);
    let api = Api::of(&host);
    let response = api.invoke(json!({ "do": "echo", "value": { "b": [1, null], "a": "é" } }));
    assert_eq!(
        (response.status, response.json()),
        (200, json!({ "b": [1, null], "a": "é" }))
    );
    assert_eq!(response.header("x-amz-executed-version"), Some("$LATEST"));
    assert_eq!(response.header("x-amz-function-error"), None);
    assert_eq!(response.header("x-amz-log-result"), None);
    let record = host.record(response.request_id());
    assert_eq!(
        (&record["trigger"], &record["outcome"]),
        (&json!("invoke"), &json!("ok"))
    );
    assert_eq!(
        host.metric(
            "dunlin_invocations_total",
            &[("trigger", "invoke"), ("outcome", "ok")]
        ),
        Some(1.0)
    );
}

#[test]
fn any_json_is_an_event_and_none_is_an_empty_object() {
    let host = up(PROBE);
    let api = Api::of(&host);
    for event in [
        "7",
        "\"text\"",
        "[1,2]",
        "null",
        "true",
        "{\"x\":1}",
        " {} ",
    ] {
        let response = api.invoke_with("probe", &[], event.as_bytes());
        assert_eq!(
            (response.status, response.json()),
            (200, serde_json::from_str(event).unwrap()),
            "{event}"
        );
    }
    assert_eq!(api.invoke_with("probe", &[], b"").json(), json!({}));
    for event in ["{", "{\"a\":1", "nonsense", "{}{}", "\u{feff}{}", "{'a':1}"] {
        let error = is_error(
            &api.invoke_with("probe", &[], event.as_bytes()),
            400,
            "InvalidRequestContentException",
        );
        assert_eq!(error["Type"], "User");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .starts_with("Could not parse request body into json: "),
            "{error}"
        );
    }
    is_error(
        &api.invoke_with("probe", &[], b"\"\xff\""),
        400,
        "InvalidRequestContentException",
    );
}

#[test]
fn a_function_that_answers_nothing_answers_null() {
    let host = up(PROBE);
    let response = Api::of(&host).invoke(json!({ "do": "raw", "text": "" }));
    assert_eq!((response.status, response.text().as_str()), (200, "null"));
    assert_eq!(response.header("x-amz-function-error"), None);
}

#[test]
fn the_content_type_does_not_matter() {
    let host = up(PROBE);
    let api = Api::of(&host);
    for content_type in ["application/octet-stream", "application/json", "text/plain"] {
        let response = api.invoke_with("probe", &[("content-type", content_type)], b"{\"x\":1}");
        assert_eq!(response.json(), json!({ "x": 1 }), "{content_type}");
    }
}

#[test]
fn every_form_of_a_name_reaches_the_function() {
    let host = up(PROBE);
    let api = Api::of(&host);
    let event = br#"{"do":"context"}"#;
    for name in [
        "probe".to_owned(),
        "probe:$LATEST".to_owned(),
        "probe%3A%24LATEST".to_owned(),
        "123456789012:function:probe".to_owned(),
        "123456789012%3Afunction%3Aprobe%3A%24LATEST".to_owned(),
        format!("{ARN}:probe"),
        format!("{ARN}:probe:$LATEST"),
        format!("{ARN}:probe:$LATEST")
            .replace(':', "%3A")
            .replace('$', "%24"),
        "probe?x=1".to_owned(),
    ] {
        let (name, query) = name.split_once('?').unwrap_or((&name, ""));
        let target = format!("/2015-03-31/functions/{name}/invocations?{query}");
        let response = api.send("POST", &target, &[], event);
        assert_eq!(
            (response.status, &response.json()["function"]),
            (200, &json!("probe")),
            "{name}"
        );
    }
}

#[test]
fn qualifiers_are_resolved_and_told_to_the_guest() {
    let host = up(PROBE);
    let api = Api::of(&host);
    let send = |function: &str, query: &str| {
        let target = format!("/2015-03-31/functions/{function}/invocations{query}");
        api.send("POST", &target, &[], br#"{"do":"context"}"#)
    };
    let response = send("probe", "?Qualifier=%24LATEST");
    assert_eq!(response.header("x-amz-executed-version"), Some("$LATEST"));
    assert_eq!(response.json()["invokedAs"], format!("{ARN}:probe:$LATEST"));
    assert_eq!(
        send("probe", "").json()["invokedAs"],
        format!("{ARN}:probe"),
        "what the caller said, bare"
    );
    assert_eq!(send("probe", "").json()["version"], "$LATEST");

    for (function, query) in [
        ("probe", "?Qualifier=7"),
        ("probe%3Alive", ""),
        ("probe", "?Qualifier=live"),
    ] {
        let error = is_error(&send(function, query), 404, "ResourceNotFoundException");
        let qualifier = if query.contains('7') { "7" } else { "live" };
        assert_eq!(
            error,
            json!({ "Type": "User", "Message": format!("Function not found: {ARN}:probe:{qualifier}") })
        );
    }
    let error = is_error(
        &send("probe%3Alive", "?Qualifier=7"),
        400,
        "InvalidParameterValueException",
    );
    assert_eq!(
        error["message"],
        "The derived qualifier from the function name does not match the specified qualifier."
    );
}

#[test]
fn names_that_reach_nothing_are_told_apart() {
    let host = up(PROBE);
    let api = Api::of(&host);
    let error = is_error(
        &api.invoke_with("nobody", &[], b"{}"),
        404,
        "ResourceNotFoundException",
    );
    assert_eq!(
        error,
        json!({ "Type": "User", "Message": format!("Function not found: {ARN}:nobody:$LATEST") })
    );
    let other = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Aprobe";
    let error = is_error(
        &api.invoke_with(other, &[], b"{}"),
        404,
        "ResourceNotFoundException",
    );
    assert_eq!(
        error["Message"],
        "Functions from 'us-east-1' are not reachable in this region ('edge-1')"
    );
    let other = "arn%3Aaws%3Alambda%3Aedge-1%3A999999999999%3Afunction%3Aprobe";
    is_error(
        &api.invoke_with(other, &[], b"{}"),
        403,
        "AccessDeniedException",
    );
    is_error(
        &api.invoke_with("a%3Ab%3Ac", &[], b"{}"),
        400,
        "ValidationException",
    );
}

#[test]
fn a_dry_run_says_whether_it_could_and_runs_nothing() {
    let host = up(PROBE);
    let api = Api::of(&host);
    let dry = [("x-amz-invocation-type", "DryRun")];
    let response = api.invoke_with("probe", &dry, b"{}");
    assert_eq!((response.status, response.body.len()), (204, 0));
    assert_eq!(response.header("x-amz-executed-version"), None);
    is_error(
        &api.invoke_with("nobody", &dry, b"{}"),
        404,
        "ResourceNotFoundException",
    );
    is_error(
        &api.invoke_with("probe", &dry, b"{"),
        400,
        "InvalidRequestContentException",
    );
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(0.0));
}

#[test]
fn what_is_not_there_yet_says_so() {
    let host = up(PROBE);
    let api = Api::of(&host);
    is_error(
        &api.invoke_with("probe", &[("x-amz-invocation-type", "Nonsense")], b"{}"),
        400,
        "ValidationException",
    );
    for (method, path) in [
        ("GET", "/2015-03-31/functions"),
        ("GET", "/2015-03-31/functions/probe/invocations"),
        ("POST", "/"),
        ("DELETE", "/2015-03-31/functions/probe"),
    ] {
        let error = is_error(
            &api.send(method, path, &[], b""),
            501,
            "NotImplementedException",
        );
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains(path)),
            "{error}"
        );
    }
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(0.0));
}

#[test]
fn the_tail_of_the_log_comes_with_the_answer() {
    let host = up(PROBE);
    let api = Api::of(&host);
    let tail = [("x-amz-log-type", "Tail")];
    let event = json!({ "do": "say", "lines": ["first", "second"] }).to_string();
    let response = api.invoke_with("probe", &tail, event.as_bytes());
    assert_eq!(response.status, 200);
    let id = response.request_id();
    let log = STANDARD
        .decode(response.header("x-amz-log-result").expect("a tail"))
        .unwrap();
    let log = String::from_utf8(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], format!("START RequestId: {id} Version: $LATEST"));
    assert_eq!(
        &lines[1..4],
        ["first", "second", format!("END RequestId: {id}").as_str()]
    );
    let report = lines[4];
    assert!(
        report.starts_with(&format!("REPORT RequestId: {id}\tDuration: ")),
        "{report}"
    );
    for part in [
        " ms\tBilled Duration: ",
        " ms\tMemory Size: 16 MB\tMax Memory Used: ",
    ] {
        assert!(report.contains(part), "{report}");
    }
    assert_eq!(lines.len(), 5);

    // Only the last 4 KB.
    let many: Vec<String> = (0..100)
        .map(|number| format!("{} line {number}", "-".repeat(90)))
        .collect();
    let response = api.invoke_with(
        "probe",
        &tail,
        json!({ "do": "say", "lines": many }).to_string().as_bytes(),
    );
    let log = STANDARD
        .decode(response.header("x-amz-log-result").expect("a tail"))
        .unwrap();
    assert!(log.len() <= 4096, "{}", log.len());
    let log = String::from_utf8(log).unwrap();
    assert!(
        log.contains(" line 99\n")
            && !log.contains(" line 0\n")
            && log.contains("REPORT RequestId: "),
        "{log}"
    );

    // Of a failure too.
    let failing = json!({ "do": "panic" }).to_string();
    let response = api.invoke_with("probe", &tail, failing.as_bytes());
    let log = String::from_utf8(
        STANDARD
            .decode(response.header("x-amz-log-result").expect("a tail"))
            .unwrap(),
    )
    .unwrap();
    assert!(log.contains("as asked"), "what the panic said: {log}");
}

#[test]
fn the_client_context_reaches_the_guest() {
    let host = up(PROBE);
    let api = Api::of(&host);
    let text = r#"{"custom":{"k":"é"}}"#;
    let event = br#"{"do":"context"}"#;
    let response = api.invoke_with(
        "probe",
        &[("x-amz-client-context", &STANDARD.encode(text))],
        event,
    );
    let context = response.json()["clientContext"]
        .as_str()
        .expect("a context")
        .to_owned();
    assert_eq!(
        serde_json::from_str::<Value>(&context).unwrap(),
        json!({ "custom": { "k": "é" } })
    );
    assert_eq!(
        api.invoke_with("probe", &[], event).json()["clientContext"],
        Value::Null
    );
    let long = STANDARD.encode(format!("{{\"k\":\"{}\"}}", "x".repeat(3000)));
    for bad in [
        "no base64!",
        &STANDARD.encode("no json"),
        &STANDARD.encode("[1]"),
        &long,
    ] {
        let response = api.invoke_with("probe", &[("x-amz-client-context", bad)], event);
        is_error(&response, 400, "InvalidRequestContentException");
    }
}

/// Checks a function error, which is 200; answers its body.
#[track_caller]
fn fails(api: &Api<'_>, event: Value, outcome: &str) -> (Value, String) {
    let response = api.invoke(event.clone());
    assert_eq!(response.status, 200, "{event}: {}", response.text());
    assert_eq!(
        response.header("x-amz-function-error"),
        Some("Unhandled"),
        "{event}"
    );
    assert_eq!(response.header("x-amz-executed-version"), Some("$LATEST"));
    let id = response.request_id().to_owned();
    assert_eq!(api.host.record(&id)["outcome"], outcome, "{event}");
    (response.json(), id)
}

#[test]
fn failures_of_a_function_have_lambdas_form() {
    let host = up(PROBE);
    let api = Api::of(&host);

    let (body, id) = fails(
        &api,
        json!({ "do": "fail", "name": "TeapotError", "message": "I am one" }),
        "function_error",
    );
    assert_eq!(
        body,
        json!({ "errorType": "TeapotError", "errorMessage": "I am one", "requestId": id, "stackTrace": [] })
    );

    let (body, id) = fails(&api, json!({ "do": "sleep", "ms": 30_000 }), "timeout");
    let message = format!("RequestId: {id} Error: Task timed out after 2.00 seconds");
    assert_eq!(
        body,
        json!({ "errorType": "Sandbox.Timedout", "errorMessage": message })
    );
    let (body, _) = fails(&api, json!({ "do": "spin" }), "timeout");
    assert_eq!(body["errorType"], "Sandbox.Timedout");

    let (body, id) = fails(&api, json!({ "do": "exit", "code": 3 }), "trap");
    let message = format!("RequestId: {id} Error: Runtime exited with error: exit status ");
    assert_eq!(body["errorType"], "Runtime.ExitError");
    assert!(
        body["errorMessage"].as_str().unwrap().starts_with(&message),
        "{body}"
    );

    let (body, id) = fails(&api, json!({ "do": "panic" }), "trap");
    assert_eq!(body["errorType"], "Runtime.ExitError");
    let message = format!("RequestId: {id} Error: Runtime exited with error: ");
    assert!(
        body["errorMessage"].as_str().unwrap().starts_with(&message),
        "{body}"
    );

    let (body, id) = fails(&api, json!({ "do": "hoard" }), "out_of_memory");
    let kind = body["errorType"].as_str().unwrap();
    assert!(
        ["Runtime.ExitError", "Runtime.OutOfMemory"].contains(&kind),
        "{body}"
    );
    assert!(
        body["errorMessage"]
            .as_str()
            .unwrap()
            .starts_with(&format!("RequestId: {id} Error: ")),
        "{body}"
    );

    let (body, id) = fails(
        &api,
        json!({ "do": "raw", "text": "not json" }),
        "function_error",
    );
    assert_eq!(
        (&body["errorType"], &body["requestId"]),
        (&json!("Runtime.MarshalError"), &json!(id))
    );
    assert!(
        body["errorMessage"]
            .as_str()
            .unwrap()
            .starts_with("Unable to marshal response: "),
        "{body}"
    );
    assert_eq!(body["stackTrace"], json!([]));

    let (body, _) = fails(
        &api,
        json!({ "do": "large", "bytes": 65537 }),
        "function_error",
    );
    assert_eq!(body["errorType"], "Function.ResponseSizeTooLarge");
    assert_eq!(
        body["errorMessage"],
        "Response payload size exceeded maximum allowed payload size (65536 bytes)."
    );
    let response = api.invoke(json!({ "do": "large", "bytes": 65536 }));
    assert_eq!(
        (response.header("x-amz-function-error"), response.body.len()),
        (None, 65536)
    );

    assert_eq!(api.invoke(json!(1)).status, 200, "and it goes on");
}

#[test]
fn an_event_that_is_too_large_is_refused() {
    let host = up(PROBE);
    let api = Api::of(&host);
    let event = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert_eq!(
        api.invoke_with("probe", &[], event(64 << 10).as_bytes())
            .status,
        200
    );
    let error = is_error(
        &api.invoke_with("probe", &[], event((64 << 10) + 1).as_bytes()),
        413,
        "RequestEntityTooLargeException",
    );
    assert_eq!(
        error,
        json!({ "Type": "User", "message": "Request must be smaller than 65536 bytes for the InvokeFunction operation" })
    );
    // More than any function may take.
    let response = api.invoke_with("probe", &[], event((64 << 20) + 1).as_bytes());
    is_error(&response, 413, "RequestEntityTooLargeException");
}

#[test]
fn a_function_that_only_answers_http_says_so() {
    let host = dunlin_tests::Host::builder()
        .function("hello", &dunlin_tests::example("hello"), "")
        .start();
    let error = is_error(
        &Api::of(&host).invoke_with("hello", &[], b"{}"),
        400,
        "InvalidParameterValueException",
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("dunlin:event/invoke"),
        "{error}"
    );
}

const ONE: &str = r#"
[host]
admission-wait = "0"

[function.probe]
component = "{probe}"
timeout = "20s"
reserved-concurrency = 1

[function.other]
component = "{probe}"
"#;

#[test]
fn a_throttled_invocation_names_the_limit() {
    let host = up(ONE);
    let api = Api::of(&host);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| api.invoke(json!({ "do": "sleep", "ms": 5000 })));
        host.wait_for_metric(
            "dunlin_invocations_running",
            &[("function", "probe")],
            |n| n == 1.0,
        );
        let response = api.invoke(json!(1));
        let error = is_error(&response, 429, "TooManyRequestsException");
        assert_eq!(
            error,
            json!({
                "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
                "Type": "User",
                "message": "Rate Exceeded.",
            })
        );
        assert!(response.header("retry-after").is_some());
        assert_eq!(
            api.invoke_with("other", &[], b"1").status,
            200,
            "its neighbour is not concerned"
        );
        assert_eq!(first.join().unwrap().json(), json!({ "slept": 5000 }));
    });
    assert_eq!(api.invoke(json!(1)).status, 200);
    assert_eq!(
        host.metric("dunlin_invocations_total", &[("outcome", "throttled")]),
        Some(1.0)
    );
}

#[test]
fn the_hosts_concurrency_is_another_limit() {
    let host = up(r#"
[host]
admission-wait = "0"
concurrency = 1

[function.probe]
component = "{probe}"
timeout = "20s"
"#);
    let api = Api::of(&host);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| api.invoke(json!({ "do": "sleep", "ms": 3000 })));
        host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
        let error = is_error(&api.invoke(json!(1)), 429, "TooManyRequestsException");
        assert_eq!(error["Reason"], "ConcurrentInvocationLimitExceeded");
        assert_eq!(first.join().unwrap().status, 200);
    });
}

/// Sends an invocation that sleeps, on a connection of its own.
fn invoke_on_a_wire(host: &Host, millis: u64) -> Wire {
    let target = "/2015-03-31/functions/probe/invocations";
    let authority = host.admin.address().to_string();
    let body = json!({ "do": "sleep", "ms": millis }).to_string();
    let signed = Api::of(host)
        .key
        .sign("POST", target, &[("host", &authority)], body.as_bytes());
    let headers: String = signed
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let mut wire = Wire::connect(host.admin.address());
    wire.send(format!(
        "POST {target} HTTP/1.1\r\nhost: {authority}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    ));
    wire
}

#[test]
fn a_client_that_goes_away_does_not_cancel_an_invocation() {
    let host = up(&ONE.replace("admission-wait = \"0\"", "admission-wait = \"20s\""));
    for end in ["close", "reset"] {
        let wire = invoke_on_a_wire(&host, 1500);
        host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
        match end {
            "close" => drop(wire),
            _ => wire.reset(),
        }
        host.wait_until_quiet();
    }
    assert_eq!(
        host.metric("dunlin_invocations_total", &[("outcome", "ok")]),
        Some(2.0)
    );
    assert_eq!(
        host.metric("dunlin_invocations_total", &[("outcome", "cancelled")]),
        Some(0.0)
    );
}

#[test]
fn a_drain_waits_for_direct_invocations() {
    let mut host = up(ONE);
    let mut wire = invoke_on_a_wire(&host, 2500);
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
    host.signal(rustix::process::Signal::TERM);
    let answer = wire
        .next(true)
        .unwrap_or_else(|error| panic!("what ran was lost: {error}"));
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "slept": 2500 }))
    );
    assert_eq!(host.wait_for_exit(Duration::from_secs(60)).code(), Some(0));
}

#[test]
fn a_drain_waits_for_direct_invocations_whose_clients_are_gone() {
    let mut host = up(ONE);
    let wire = invoke_on_a_wire(&host, 2500);
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
    drop(wire);
    host.signal(rustix::process::Signal::TERM);
    assert_eq!(host.wait_for_exit(Duration::from_secs(60)).code(), Some(0));
    let outcomes: Vec<_> = host
        .log()
        .into_iter()
        .filter(|line| line["kind"] == "invocation")
        .map(|line| line["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["ok"]);
}
