//! Clients that go away, and a host that does.

use std::time::Duration;

use dunlin_tests::{Host, PATIENCE, eventually, guest};
use http::Request;
use rustix::process::Signal;

use super::exchange::{End, Exchange};
use super::{DOORS, both, ended, paused};
use crate::http::h2c;

/// One at a time, so that a permit that is not given back is missed.
const ONE: &str = "timeout = \"60s\"\nfuel = \"off\"\nreserved-concurrency = 1\n";
/// Before the head of the answer, while it is computed, and after it.
const LONG: [&str; 4] = [
    "sleeps",
    "spins",
    "hangs-late",
    "pieces?count=100000&pause=20",
];

#[track_caller]
fn running(host: &Host) {
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
}

#[track_caller]
fn cancelled(host: &Host, function: &str, times: u32) {
    let labels = [("function", function), ("outcome", "cancelled")];
    host.wait_for_metric("dunlin_invocations_total", &labels, |n| {
        n == f64::from(times)
    });
    ended(host, function, "cancelled");
}

#[test]
fn a_client_that_goes_away_ends_its_invocation() {
    let host = both(ONE).start();
    for function in DOORS {
        for (times, what) in (1..).zip(LONG) {
            let mut exchange = Exchange::open(&host);
            exchange.ask("GET", &format!("/{function}/{what}"));
            running(&host);
            if times > 2 {
                assert_eq!(exchange.head().0, 200);
            }
            exchange.reset();
            cancelled(&host, function, times);
        }
    }
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
}

#[test]
fn a_client_that_closes_is_noticed_with_the_next_piece() {
    let host = both(ONE).start();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        exchange.ask("GET", &format!("/{function}/pieces?count=100000&pause=20"));
        assert_eq!(exchange.head().0, 200);
        drop(exchange);
        cancelled(&host, function, 1);
    }
}

#[test]
fn a_stream_of_http2_that_is_reset_ends_its_invocation_only() {
    let host = std::sync::Arc::new(both("timeout = \"60s\"\nfuel = \"off\"").start());
    for function in DOORS {
        for (times, what) in (1..).zip(LONG) {
            h2c::run(async {
                let mut connection = h2c::Connection::open(&host).await;
                let request = |target: &str| {
                    let request = Request::get(format!("http://box.test/{target}"));
                    request.body(()).unwrap()
                };
                let (goes, mut stream) = connection
                    .requests
                    .send_request(request(&format!("{function}/{what}")), true)
                    .unwrap();
                let waiting = std::sync::Arc::clone(&host);
                h2c::on_host(move || running(&waiting)).await;
                if times > 2 {
                    let response = goes.await.unwrap();
                    assert_eq!(response.status(), 200);
                    stream.send_reset(h2::Reason::CANCEL);
                } else {
                    stream.send_reset(h2::Reason::CANCEL);
                    drop(goes);
                }
                let waiting = std::sync::Arc::clone(&host);
                let function = function.to_owned();
                h2c::on_host(move || cancelled(&waiting, &function, times)).await;
                let target = format!("/{}/ok", DOORS[0]);
                let (parts, _) = connection.send("GET", &target, b"").await.unwrap();
                assert_eq!(parts.status, 200, "the connection goes on");
            });
        }
    }
}

#[test]
fn a_connection_of_http2_that_goes_ends_its_invocations() {
    let host = std::sync::Arc::new(both("timeout = \"60s\"\nfuel = \"off\"").start());
    h2c::run(async {
        let mut connection = h2c::Connection::open(&host).await;
        let mut streams = Vec::new();
        for function in DOORS {
            for what in ["sleeps", "hangs-late"] {
                let request = Request::get(format!("http://box.test/{function}/{what}"));
                let request = request.body(()).unwrap();
                streams.push(connection.requests.send_request(request, true).unwrap());
            }
        }
        let waiting = std::sync::Arc::clone(&host);
        h2c::on_host(move || {
            waiting.wait_for_metric("dunlin_invocations_running", &[], |n| n == 4.0)
        })
        .await;
        connection.end.abort();
        let _ = connection.end.await;
    });
    let labels = [("outcome", "cancelled")];
    host.wait_for_metric("dunlin_invocations_total", &labels, |n| n == 4.0);
    host.wait_until_quiet();
}

#[test]
fn an_answer_that_ends_with_trailers_ends_its_invocation_well() {
    let host = both("timeout = \"30s\"").start();
    for function in DOORS {
        let target = paused(&format!("/{function}/trailers"));
        for te in ["", "te: trailers\r\n"] {
            let mut exchange = Exchange::open(&host);
            exchange.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n{te}\r\n"));
            let answer = exchange.answer();
            assert!(answer.is_whole(), "{answer:?}");
            let record = host.record(answer.header("x-amzn-requestid").unwrap());
            assert_eq!(record["outcome"], "ok", "{function} {te}: {record}");
        }
        let parts = h2c::run(async {
            let mut connection = h2c::Connection::open(&host).await;
            let (parts, _) = connection.send("GET", &target, b"").await.unwrap();
            parts
        });
        let id = parts.headers["x-amzn-requestid"].to_str().unwrap();
        let record = host.record(id);
        assert_eq!(record["outcome"], "ok", "{function} over HTTP/2: {record}");
    }
    host.wait_until_quiet();
}

#[test]
fn an_answer_that_nobody_gets_ends_before_its_deadline() {
    let host = both(ONE)
        .manifest("[host]\nidle-timeout = \"700ms\"")
        .start();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        exchange.ask("HEAD", &format!("/{function}/pieces?count=100000&pause=20"));
        assert_eq!(exchange.head_of("HEAD").0, 200);
        running(&host);
        // The handler finds that nobody reads on, and ends.
        let record = host.wait_for_log_within(Duration::from_secs(20), |line| {
            line["kind"] == "invocation" && line["function"] == function
        });
        assert_eq!(record["outcome"], "ok", "{record}");
    }
    host.wait_until_quiet();
}

#[test]
fn an_answer_under_way_comes_to_its_end_in_the_drain() {
    for function in DOORS {
        let mut host = both("timeout = \"30s\"").start();
        let mut exchange = Exchange::open(&host);
        exchange.ask(
            "GET",
            &format!("/{function}/pieces?count=10&size=4&pause=100"),
        );
        assert_eq!(exchange.head().0, 200);
        host.signal(Signal::TERM);
        let (body, end) = exchange.rest();
        assert_eq!(
            (body.len(), end),
            (40, End::Whole(Vec::new())),
            "{function}"
        );
        assert_eq!(host.wait_for_exit(PATIENCE).code(), Some(0));
        host.wait_for_log(|line| line["function"] == function && line["outcome"] == "ok");
    }
}

/// What an end that is not waited for may take beyond its timeout.
const SLACK: Duration = Duration::from_secs(4);

#[test]
fn after_the_drain_timeout_an_answer_is_broken_off() {
    for function in DOORS {
        let host = both("timeout = \"60s\"").args(["--drain-timeout", "1s"]);
        let mut host = host.start();
        let mut exchange = Exchange::open(&host);
        exchange.ask("GET", &format!("/{function}/hangs-late"));
        assert_eq!(exchange.head().0, 200);
        // This one does not even read.
        let mut stuck = Exchange::narrow(&host);
        stuck.ask("GET", &format!("/{function}/pieces?count=100&size=65536"));
        assert_eq!(stuck.head().0, 200);
        host.signal(Signal::TERM);
        let (_, end) = exchange.rest();
        assert_eq!(end, End::Broken, "{function}");
        host.wait_for_exit(Duration::from_secs(1) + SLACK);
    }
}

#[test]
fn the_drain_waits_for_what_a_handler_does_after_its_answer() {
    for function in DOORS {
        let mut host = both("timeout = \"30s\"").start();
        let mut exchange = Exchange::open(&host);
        let answer = exchange.get(&format!("/{function}/goes-on?pause=1500"));
        assert_eq!((answer.text(), answer.is_whole()), ("answered", true));
        assert_eq!(
            host.metric("dunlin_invocations_running", &[]),
            Some(1.0),
            "{function}: it goes on"
        );
        host.signal(Signal::TERM);
        assert_eq!(host.wait_for_exit(PATIENCE).code(), Some(0));
        host.wait_for_log(|line| line["kind"] == "log" && line["message"] == "went on");
        host.wait_for_log(|line| line["function"] == function && line["outcome"] == "ok");
    }
}

#[test]
fn a_change_of_what_is_deployed_does_not_touch_an_answer_under_way() {
    let host = both("timeout = \"60s\"").args(["--watch"]).start();
    let mut streams: Vec<Exchange> = DOORS
        .iter()
        .map(|function| {
            let mut exchange = Exchange::open(&host);
            exchange.ask(
                "GET",
                &format!("/{function}/pieces?count=60&size=4&pause=100"),
            );
            assert_eq!(exchange.head().0, 200);
            exchange
        })
        .collect();
    let text = std::fs::read_to_string(host.manifest()).unwrap();
    let text = text.replace("timeout = \"60s\"", "timeout = \"50s\"");
    let more = format!(
        "{text}\n[function.new]\ncomponent = {:?}\n[[function.new.http]]\npath = \"/new\"\n",
        guest("web02")
    );
    let beside = host.folder().join("new~");
    std::fs::write(&beside, more).unwrap();
    std::fs::rename(&beside, host.manifest()).unwrap();
    eventually("the new state serves", || {
        (host.get("/new").text() == "no such path").then_some(())
    });
    for exchange in &mut streams {
        let (body, end) = exchange.rest();
        assert_eq!((body.len(), end), (240, End::Whole(Vec::new())));
    }
    host.stop();
}
