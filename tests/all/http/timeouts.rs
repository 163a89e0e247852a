//! Clients that are too slow, and clients that say nothing.

use std::io::Write as _;
use std::time::Duration;

use dunlin_tests::Host;

use super::up;
use super::wire::Wire;

const QUICK: &str = r#"
[host]
header-timeout = "400ms"
body-timeout = "400ms"
idle-timeout = "400ms"

[function.probe]
component = "{probe}"
timeout = "20s"

[[function.probe.http]]
path = "/probe"
"#;

/// Sends a piece again and again until nobody takes it any more, at most for
/// half a minute.
fn trickle(wire: &Wire, piece: &'static str) -> std::thread::JoinHandle<()> {
    let mut stream = wire.stream.try_clone().unwrap();
    std::thread::spawn(move || {
        for _ in 0..600 {
            if stream.write_all(piece.as_bytes()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    })
}

#[track_caller]
fn timed_out(host: &Host, which: &str) {
    host.wait_for_metric("dunlin_http_timeouts_total", &[("timeout", which)], |n| {
        n == 1.0
    });
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
}

#[test]
fn a_head_that_trickles_in_is_refused() {
    let host = up(QUICK);
    let mut wire = Wire::connect(host.http.address());
    wire.send("GET /probe HTTP/1.1\r\nhost: a\r\n");
    let sender = trickle(&wire, "x-more: 1\r\n");
    assert_eq!(wire.answer().status, 408);
    drop(wire);
    timed_out(&host, "header");
    sender.join().unwrap();
}

#[test]
fn a_head_that_stops_is_refused_also_on_a_connection_that_has_served() {
    let host = up(QUICK);
    let mut wire = Wire::connect(host.http.address());
    assert_eq!(wire.get("/probe").status, 200);
    wire.send("GET /pro");
    assert_eq!(wire.answer().status, 408);
    wire.closed();
    timed_out(&host, "header");
}

#[test]
fn a_client_that_says_nothing_is_closed() {
    let host = up(QUICK);
    let mut wire = Wire::connect(host.http.address());
    // It may be told why.
    if let Ok(answer) = wire.next(true) {
        assert_eq!(answer.status, 408);
        wire.closed();
    }
    timed_out(&host, "header");
}

#[test]
fn half_of_the_preface_of_http2_is_not_waited_for() {
    let host = up(QUICK);
    let mut wire = Wire::connect(host.http.address());
    wire.send("PRI * HTTP/2.0\r\n");
    if let Ok(answer) = wire.next(true) {
        assert_eq!(answer.status, 408);
        wire.closed();
    }
    timed_out(&host, "header");
}

#[test]
fn an_idle_connection_is_closed() {
    let host = up(QUICK);
    let mut wire = Wire::connect(host.http.address());
    assert_eq!(wire.get("/probe").status, 200);
    wire.closed();
    timed_out(&host, "idle");
}

#[test]
fn a_connection_that_is_used_is_not_idle() {
    let host = up(QUICK);
    let mut wire = Wire::connect(host.http.address());
    // The answer takes longer than any of the timeouts.
    assert_eq!(wire.get("/probe?sleep=1500").status, 200);
    assert_eq!(wire.get("/probe").status, 200);
}

#[test]
fn a_body_that_stops_is_refused() {
    let host = up(QUICK);
    let mut wire = Wire::connect(host.http.address());
    wire.send("POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhello");
    let answer = wire.answer();
    assert_eq!(answer.status, 408);
    assert!(answer.closes());
    drop(wire);
    timed_out(&host, "body");
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(0.0));
}

#[test]
fn a_body_that_trickles_in_is_refused() {
    let host = up(QUICK);
    let mut wire = Wire::connect(host.http.address());
    wire.send("POST /probe HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    let sender = trickle(&wire, "1\r\nx\r\n");
    assert_eq!(wire.answer().status, 408);
    drop(wire);
    timed_out(&host, "body");
    sender.join().unwrap();
}

#[test]
fn slow_clients_do_not_keep_a_good_one_from_its_answer() {
    let host = up(super::PROBE);
    let slow: Vec<Wire> = (0..200)
        .map(|number| {
            let mut wire = Wire::connect(host.http.address());
            match number % 3 {
                0 => wire.send("GET /probe HTTP/1.1\r\nhost: a\r\n"),
                1 => {
                    wire.send("POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhello")
                }
                _ => {}
            }
            wire
        })
        .collect();
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 200.0);
    let mut good = Wire::connect(host.http.address());
    for _ in 0..100 {
        assert_eq!(good.get("/probe").status, 200);
    }
    drop(slow);
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 1.0);
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(100.0));
}
