//! Clients that go away, and clients that only seem to.

use std::time::Duration;

use dunlin_tests::Host;

use super::up;
use super::wire::{Wire, get};

/// One at a time, so that a permit that is not given back is missed.
const ONE: &str = r#"
[host]
admission-wait = "20s"

[function.probe]
component = "{probe}"
timeout = "60s"
fuel = "off"
reserved-concurrency = 1

[[function.probe.http]]
path = "/probe"
"#;

const FOR_LONG: &str = "GET /probe?sleep=50000 HTTP/1.1\r\nhost: a\r\n\r\n";

/// A request that runs.
#[track_caller]
fn running(host: &Host, request: &str) -> Wire {
    let mut wire = Wire::connect(host.http.address());
    wire.send(request);
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
    wire
}

#[track_caller]
fn was_cancelled(host: &Host, times: f64) {
    host.wait_for_metric(
        "dunlin_invocations_total",
        &[("outcome", "cancelled")],
        |n| n == times,
    );
    host.wait_until_quiet();
    let line = host.wait_for_log(|line| line["outcome"] == "cancelled");
    assert_eq!(
        (&line["function"], &line["trigger"]),
        (&"probe".into(), &"http".into())
    );
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
    assert_eq!(
        get(host.http.address(), "/probe").status,
        200,
        "its permit is back"
    );
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
}

#[test]
fn a_client_that_resets_cancels_its_invocation() {
    let host = up(ONE);
    running(&host, FOR_LONG).reset();
    was_cancelled(&host, 1.0);
}

#[test]
fn a_client_that_resets_cancels_a_guest_that_never_waits() {
    let host = up(ONE);
    running(&host, "GET /probe?spin HTTP/1.1\r\nhost: a\r\n\r\n").reset();
    was_cancelled(&host, 1.0);
}

#[test]
fn a_client_that_closes_cancels_its_invocation() {
    let host = up(ONE);
    drop(running(&host, FOR_LONG));
    was_cancelled(&host, 1.0);
    drop(running(
        &host,
        "POST /probe?sleep=50000 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    ));
    was_cancelled(&host, 2.0);
}

#[test]
fn a_client_that_is_done_sending_gets_its_answer() {
    let host = up(ONE);
    let mut wire = running(&host, "GET /probe?sleep=1000 HTTP/1.1\r\nhost: a\r\n\r\n");
    wire.half_close();
    assert_eq!(wire.final_answer().status, 200);
    wire.closed();
}

#[test]
fn a_client_that_sends_all_at_once_and_is_done_gets_its_answer() {
    // As `nc -N` does: the end may come together with the request.
    let host = up(ONE);
    let mut lost = Vec::new();
    for number in 0..30 {
        let body = if number % 2 == 0 { "" } else { "hello" };
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        let mut wire = Wire::connect(host.http.address());
        wire.send(format!(
            "{method} /probe HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        wire.half_close();
        match wire.final_answer_or_end() {
            Ok(answer) => assert_eq!(answer.json()["body"], body),
            Err(error) => lost.push(format!("{number} {method}: {error}")),
        }
    }
    assert_eq!(lost, Vec::<String>::new());
    assert_eq!(
        host.metric("dunlin_invocations_total", &[("outcome", "ok")]),
        Some(30.0)
    );
}

#[test]
fn a_client_that_goes_while_it_waits_for_admission_leaves_the_line() {
    let host = up(ONE);
    let mut first = running(&host, "GET /probe?sleep=3000 HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut second = Wire::connect(host.http.address());
    second.send("GET /probe?second HTTP/1.1\r\nhost: a\r\n\r\n");
    host.wait_for_metric("dunlin_admission_waiting", &[], |n| n == 1.0);
    second.reset();
    host.wait_for_metric("dunlin_admission_waiting", &[], |n| n == 0.0);
    assert_eq!(first.answer().status, 200);
    host.wait_for_metric(
        "dunlin_invocations_total",
        &[("outcome", "cancelled")],
        |n| n == 1.0,
    );
    assert_eq!(get(host.http.address(), "/probe").status, 200);
}

#[test]
fn a_client_that_goes_in_the_middle_of_its_body_runs_nothing() {
    let host = up(ONE);
    let mut wire = Wire::connect(host.http.address());
    wire.send("POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nhello");
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 1.0);
    wire.reset();
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(0.0));
    assert_eq!(get(host.http.address(), "/probe").status, 200);
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |used| used < 4e6);
}

#[test]
fn a_client_that_does_not_read_its_answer_holds_no_permit() {
    let host = up(ONE);
    // More than the sockets' buffers hold.
    let mut wire = Wire::connect(host.http.address());
    wire.send("GET /probe?size=6000000 HTTP/1.1\r\nhost: a\r\n\r\n");
    host.wait_for_metric("dunlin_invocations_total", &[("outcome", "ok")], |n| {
        n == 1.0
    });
    assert_eq!(get(host.http.address(), "/probe").status, 200);
    assert!(
        !wire.is_silent_for(Duration::from_millis(100)),
        "the answer is there all the same"
    );
}
