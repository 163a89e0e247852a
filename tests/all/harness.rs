//! The harness itself: a host that starts serves, logs, counts and stops.

use dunlin_tests::{Host, example};

#[test]
fn a_host_starts_answers_counts_and_stops() {
    let host = Host::builder()
        .function("hello", &example("hello"), "")
        .start();
    let response = host.get("/hello");
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "Hello, world!\n")
    );
    let record = host.record(response.request_id());
    assert_eq!(record["outcome"], "ok");
    host.wait_for_metric("dunlin_invocations_total", &[("outcome", "ok")], |n| {
        n == 1.0
    });
    assert!(host.rss() > 1 << 20);
    host.stop();
}

#[test]
fn a_host_that_refuses_says_why() {
    let failure = Host::builder().manifest("[hots]").start_expecting_failure();
    assert_eq!(failure.code, 64);
    assert!(failure.stderr.contains("hots"), "{failure:?}");
}
