//! What a guest may ask the host, and what it cannot reach. That imports
//! beyond that are refused is in `hostile/deploy.rs`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_tests::{Builder, Host, Response, guest};
use serde_json::json;

fn observer(keys: &str) -> Builder {
    Host::builder().function("observer", &guest("observer"), keys)
}

#[test]
fn the_context_describes_the_invocation() {
    let host = observer("memory = \"32MiB\"\ntimeout = \"20s\"\nfuel = 70_000_000").start();
    let before = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("now is after 1970");
    let response = host.get("/observer/context");
    let seen = response.json();

    assert_eq!(seen["requestId"], response.request_id());
    assert_eq!(seen["function"], "observer");
    assert_eq!(seen["version"], "$LATEST");
    assert_eq!(
        seen["invokedAs"],
        "arn:aws:lambda:edge-1:123456789012:function:observer"
    );
    assert_eq!(seen["memoryLimit"], 32 << 20);
    assert_eq!(seen["attempt"], 1);
    assert_eq!(seen["route"], "/observer/{*rest}");
    assert_eq!(seen["parameters"], json!([["rest", "context"]]));
    assert_eq!(seen["client"], "127.0.0.1");
    assert_eq!(seen["clientContext"], json!(null));
    assert_eq!(seen["logGroup"], "/aws/lambda/observer");
    let stream = seen["logStream"].as_str().expect("a text");
    assert!(stream.contains("/[$LATEST]"), "{stream}");

    let number = |key: &str| {
        seen[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {seen}"))
    };
    assert!(
        number("timeMs") <= 20_000 && number("timeMs") > 10_000,
        "{seen}"
    );
    assert!(number("laterTimeMs") < number("timeMs"), "{seen}");
    assert!(
        number("fuel") < 70_000_000 && number("laterFuel") < number("fuel"),
        "{seen}"
    );
    // Its clock is the host's, and its deadline is on it.
    let before = before.as_millis() as u64;
    assert!(
        number("nowMs") >= before && number("nowMs") < before + 60_000,
        "{seen}"
    );
    let deadline = number("deadlineMs");
    assert!(
        deadline > before + 10_000 && deadline < before + 20_000 + 60_000,
        "{seen}"
    );
    host.stop();
}

#[test]
fn each_invocation_has_a_context_of_its_own_also_in_a_reused_instance() {
    let host = observer("isolation = \"reuse\"\nprovisioned = 1").start();
    let ids: Vec<String> = (0..5)
        .map(|_| {
            let response = host.get("/observer/context");
            assert_eq!(response.json()["requestId"], response.request_id());
            response.request_id().to_owned()
        })
        .collect();
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
    host.stop();
}

#[test]
fn an_unlimited_budget_is_none() {
    let host = observer("fuel = \"off\"").start();
    assert_eq!(host.get("/observer/context").json()["fuel"], json!(null));
    host.stop();
}

#[test]
fn route_parameters_are_decoded_and_in_order() {
    let host = Host::builder()
        .manifest(format!(
            "[function.observer]\ncomponent = {:?}\n\
             [[function.observer.http]]\npath = \"/{{zebra}}/context/{{apple}}\"",
            guest("observer").display().to_string()
        ))
        .start();
    let seen = host.get("/a%20b%C3%BC/context/x%2Fy?z=%20").json();
    assert_eq!(seen["route"], "/{zebra}/context/{apple}");
    assert_eq!(
        seen["parameters"],
        json!([["zebra", "a bü"], ["apple", "x/y"]])
    );
    host.stop();
}

#[test]
fn the_trace_of_the_client_goes_on() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let host = observer("").start();
    let response = host
        .http
        .request("GET", "/observer/context", &[("traceparent", TRACE)], b"");
    let seen = response.json();
    let parent = seen["traceparent"].as_str().expect("a trace");
    assert!(
        parent.starts_with(&TRACE[..35]),
        "the trace is the same: {parent}"
    );
    host.stop();
}

#[test]
fn a_trace_is_begun_where_the_client_has_none_or_one_that_is_none() {
    // "The W3C traceparent that came with the event or that the host began."
    let host = observer("").start();
    let is_trace = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        lengths == [2, 32, 16, 2] && parts.iter().all(|part| hex(part))
    };
    for headers in [
        &[][..],
        &[("traceparent", "nonsense")],
        &[(
            "traceparent",
            "00-00000000000000000000000000000000-0000000000000000-00",
        )],
    ] {
        let response = host.http.request("GET", "/observer/context", headers, b"");
        let seen = response.json();
        let parent = seen["traceparent"].as_str();
        assert!(parent.is_some_and(is_trace), "{headers:?}: {seen}");
    }
    host.stop();
}

#[test]
fn what_is_printed_is_logged_with_the_request_id() {
    let host = observer("").start();
    let response = host.get("/observer/print");
    let lines = host.guest_log(response.request_id());
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!(line["function"], "observer");
            assert_eq!(line["version"], "$LATEST");
            assert_eq!(line["level"], "info");
            (
                line["stream"].as_str().unwrap_or(""),
                line["message"].as_str().unwrap_or(""),
            )
        })
        .collect();
    assert_eq!(seen, [("stdout", "to stdout"), ("stderr", "to stderr")]);
    host.stop();
}

#[test]
fn what_is_printed_without_an_end_of_line_belongs_to_its_invocation() {
    // A guest's standard library holds it back until somebody flushes.
    let host = observer("isolation = \"reuse\"\nprovisioned = 1").start();
    for _ in 0..3 {
        let response = host.get("/observer/print-without-end");
        let lines = host.guest_log(response.request_id());
        let messages: Vec<_> = lines.iter().map(|line| line["message"].clone()).collect();
        assert_eq!(messages, ["without an end"]);
    }
    host.stop();
}

#[test]
fn structured_records_keep_their_level_and_fields() {
    let host = observer("").start();
    let response = host.get("/observer/log");
    let lines = host.guest_log(response.request_id());
    let with = |message: &str| {
        let mut found = lines.iter().filter(|line| line["message"] == message);
        found
            .next()
            .unwrap_or_else(|| panic!("{message} in {lines:?}"))
            .clone()
    };
    assert_eq!(with("an error")["level"], "error");
    assert_eq!(with("a warning")["level"], "warn");
    assert_eq!(with("a warning")["fields"]["code"], 7);
    let information = with("some information");
    assert_eq!(information["level"], "info");
    assert_eq!(information["kind"], "log", "not what the guest says");
    assert_eq!(information["fields"]["kind"], "forged");
    host.stop();
}

#[test]
fn events_of_tracing_keep_their_level_their_fields_and_those_of_their_spans() {
    let host = Host::builder()
        .function("tracer", &guest("tracer"), "")
        .start();
    let response = host.get("/tracer/here");
    assert_eq!(response.status, 200, "{response:?}");
    let lines = host.guest_log(response.request_id());
    let seen: Vec<_> = lines
        .iter()
        .map(|line| json!([line["level"], line["message"], line["fields"]]))
        .collect();
    assert_eq!(
        seen,
        [
            json!(["error", "an error", { "target": "tracer" }]),
            json!(["warn", "low on tea", {
                "target": "tracer", "id": 7, "total": 2.5, "country": "de", "path": "/tracer/here",
            }]),
            json!(["info", "outside of the span", { "target": "tracer", "done": true }]),
        ]
    );
    host.stop();
}

#[test]
fn metrics_of_guests_are_scraped_with_the_hosts() {
    let host = observer("").start();
    for _ in 0..3 {
        assert_eq!(host.get("/observer/metrics").status, 200);
    }
    let metrics = host.scrape();
    let get = |name: &str, labels: &[(&str, &str)]| {
        let mut all = vec![("function", "observer")];
        all.extend(labels);
        metrics.get(name, &all)
    };
    let orders = [("name", "orders"), ("country", "de")];
    assert_eq!(get("dunlin_guest_counter_total", &orders), Some(6.0));
    assert_eq!(get("dunlin_guest_gauge", &[("name", "depth")]), Some(7.5));
    let lag = [("name", "lag_seconds")];
    assert_eq!(get("dunlin_guest_histogram_count", &lag), Some(3.0));
    let bucket = [("name", "lag_seconds"), ("le", "0.005")];
    assert_eq!(get("dunlin_guest_histogram_bucket", &bucket), Some(3.0));
    assert_eq!(get("dunlin_guest_metrics_dropped_total", &[]), Some(6.0));
    host.stop();
}

#[test]
fn metrics_of_guests_are_bounded() {
    let host = observer("timeout = \"30s\"").start();
    assert_eq!(host.get("/observer/metrics?n=5000").status, 200);
    let metrics = host.scrape();
    let own = [("function", "observer")];
    let series = metrics.count("dunlin_guest_counter_total", &own)
        + metrics.count("dunlin_guest_gauge", &own)
        + metrics.count("dunlin_guest_histogram_count", &own);
    assert_eq!(series, 200);
    // Two that are never taken, and those that were too many.
    let dropped = metrics.get("dunlin_guest_metrics_dropped_total", &own);
    assert_eq!(dropped, Some(f64::from(2 + 4999 + 3 - 200)));
    host.stop();
}

#[test]
fn nothing_else_is_within_reach() {
    let host = observer("").env("OF_THE_HOST", "not for guests").start();
    assert_eq!(
        host.get("/observer/reach").json(),
        json!({ "file": false, "folder": false, "input": "" })
    );
    let seen = host.get("/observer/environment").json();
    assert_eq!(seen["variables"], json!({}));
    assert_eq!(seen["arguments"], json!([]));
    host.stop();
}

#[test]
fn time_passes_for_a_guest_as_for_others() {
    let host = observer("timeout = \"20s\"").start();
    let begun = std::time::Instant::now();
    let seen = host.get("/observer/context").json();
    let slept = seen["timeMs"].as_u64().zip(seen["laterTimeMs"].as_u64());
    assert!(
        slept.is_some_and(|(first, later)| first - later >= 20),
        "{seen}"
    );
    assert!(begun.elapsed() >= Duration::from_millis(20));
    host.stop();
}

/// The guest that asks through the standard interfaces.
fn standard(keys: &str) -> Builder {
    Host::builder().function("values", &guest("values"), keys)
}

#[test]
fn configuration_is_the_functions_own_in_both_versions_and_no_environment() {
    let host = standard("environment = { IN_ENVIRONMENT = \"x\" }")
        .manifest(
            "[function.values.config]\ngreeting = \"hi\"\n\"feature/dark\" = \"on\"\n\
             region = { env = \"OF_THE_HOST\" }\n",
        )
        .env("OF_THE_HOST", "north")
        .start();
    let seen = host.get("/values/config?name=region").json();
    assert_eq!(
        seen,
        json!({
            "value": "north",
            "same": true,
            "all": [["feature/dark", "on"], ["greeting", "hi"], ["region", "north"]],
            "environment": ["IN_ENVIRONMENT"],
        })
    );
    for name in ["IN_ENVIRONMENT", "OF_THE_HOST", "Greeting", ""] {
        let seen = host.get(&format!("/values/config?name={name}")).json();
        assert_eq!(seen["value"], json!(null), "{name}");
    }
    host.stop();
}

/// What an invocation left in the log: level, stream, message and fields.
fn logged(host: &Host, response: &Response) -> Vec<serde_json::Value> {
    let lines = host.guest_log(response.request_id());
    let parts = lines.iter().map(|line| {
        assert_eq!(line["function"], "values");
        json!([
            line["level"],
            line["stream"],
            line["message"],
            line["fields"]
        ])
    });
    parts.collect()
}

#[test]
fn records_have_their_level_and_context_in_the_functions_log() {
    let host = standard("").start();
    for (level, of_line, finer) in [
        ("trace", "info", Some("trace")),
        ("debug", "info", Some("debug")),
        ("info", "info", None),
        ("warn", "warn", None),
        ("error", "error", None),
        ("critical", "error", Some("critical")),
    ] {
        let target = format!("/values/log?level={level}&context=db&message=a%0A%1Bb");
        let response = host.get(&target);
        let mut fields = json!({ "context": "db" });
        if let Some(finer) = finer {
            fields["level"] = finer.into();
        }
        assert_eq!(
            logged(&host, &response),
            [json!([of_line, "log", "a\n\u{1b}b", fields])]
        );
    }
    let response = host.get("/values/log?message=alone");
    assert_eq!(
        logged(&host, &response),
        [json!(["info", "log", "alone", null])]
    );
    assert!(!host.log_text().contains('\u{1b}'), "escapes stay escaped");
    host.stop();
}

#[test]
fn records_count_against_the_log_limit_and_long_ones_come_in_pieces() {
    let host = standard("log-limit = \"40KiB\"").start();
    // 20 KiB of a letter of three bytes: no piece ends within one.
    let response = host.get("/values/log?level=warn&context=c&message=%E2%82%AC&repeat=6827");
    let lines = host.guest_log(response.request_id());
    let messages = lines
        .iter()
        .map(|line| line["message"].as_str().expect("a text"));
    let whole: String = messages.collect();
    assert_eq!((lines.len(), whole), (2, "€".repeat(6827)));
    assert!(lines.iter().all(|line| line["level"] == "warn"));
    assert!(lines.iter().all(|line| line["fields"]["context"] == "c"));

    let response = host.get("/values/log?message=x&repeat=50000");
    let lines = host.guest_log(response.request_id());
    let last = lines.last().expect("a line")["message"].to_string();
    assert!(
        lines.len() == 3 && last.contains("raise `log-limit`"),
        "{lines:?}"
    );
    let truncated = host.metric(
        "dunlin_guest_log_truncated_total",
        &[("function", "values")],
    );
    assert_eq!(truncated, Some(1.0));
    host.stop();
}
