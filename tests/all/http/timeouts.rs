//! Clients that are too slow, and clients that say nothing.

use std::io::{Read as _, Write as _};
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
pub(super) fn trickle(wire: &Wire, piece: &'static str) -> std::thread::JoinHandle<()> {
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

/// A function whose answers are larger than what the sockets' buffers hold.
fn large(min_rate: &str) -> String {
    QUICK
        .replace("[host]", &format!("[host]\nmin-rate = {min_rate:?}"))
        .replace("timeout = \"20s\"", "response-limit = \"32MiB\"")
}

const LARGE: usize = 16_000_000;

/// Asks for it on a socket that takes little at a time.
fn ask_for_much(host: &Host) -> Wire {
    let mut wire = Wire::connect(host.http.address());
    let socket = socket2::SockRef::from(&wire.stream);
    socket.set_recv_buffer_size(64 << 10).unwrap();
    wire.send(format!(
        "GET /probe?size={LARGE} HTTP/1.1\r\nhost: a\r\n\r\n"
    ));
    wire
}

/// Reads so much every 20 milliseconds, to the end of the answer or the connection.
fn read_slowly(wire: &mut Wire, piece: usize) -> usize {
    let mut buffer = vec![0; piece];
    let mut length = 0;
    while length < LARGE {
        match wire.stream.read(&mut buffer) {
            Ok(read) if read > 0 => length += read,
            _ => break,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    length
}

fn memory_is_free(host: &Host) {
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |used| used < 4e6);
}

#[test]
fn a_client_that_does_not_read_its_answer_is_closed_and_holds_no_memory() {
    let host = up(&large("0B"));
    let wire = ask_for_much(&host);
    timed_out(&host, "answer");
    memory_is_free(&host);
    drop(wire);
}

#[test]
fn a_client_that_reads_too_slowly_is_closed_and_holds_no_memory() {
    let host = up(&large("1MiB"));
    let mut wire = ask_for_much(&host);
    // A quarter of what it must read.
    let length = read_slowly(&mut wire, 5 << 10);
    assert!(length < LARGE, "it had all of it");
    timed_out(&host, "answer");
    memory_is_free(&host);
}

#[test]
fn a_client_that_takes_its_time_within_the_rate_gets_all_of_its_answer() {
    let host = up(&large("64KiB"));
    let mut wire = ask_for_much(&host);
    // Longer than the idle timeout, and many times the rate.
    let length = read_slowly(&mut wire, 256 << 10);
    assert!(length >= LARGE, "{length}");
    assert_eq!(
        host.metric("dunlin_http_timeouts_total", &[("timeout", "answer")]),
        None
    );
}
