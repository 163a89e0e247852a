//! Requests that are too large: refused as soon as it is known, in a way that
//! the client can read.

use super::wire::Wire;
use super::{box_with, up};

const SMALL: &str = r#"
[host]
max-header-bytes = "16KiB"
max-headers = 20

[function.probe]
component = "{probe}"
request-limit = "64KiB"

[[function.probe.http]]
method = "POST"
path = "/probe"
"#;

const LIMIT: usize = 64 << 10;
/// More than fits into the sockets' buffers, and less than the host throws
/// away.
const ON_AND_ON: usize = 8 << 20;

#[test]
fn a_body_of_just_the_limit_is_taken() {
    let host = up(SMALL);
    let mut wire = Wire::connect(host.http.address());
    assert_eq!(
        wire.post("/probe", &vec![b'x'; LIMIT]).json()["length"],
        LIMIT
    );
    let answer = wire.post("/probe", &vec![b'x'; LIMIT + 1]);
    assert_eq!(answer.status, 413);
    assert!(answer.closes());
    wire.closed();
}

#[test]
fn a_length_over_the_limit_is_refused_before_the_body() {
    let host = up(SMALL);
    let mut wire = Wire::connect(host.http.address());
    wire.send(format!(
        "POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        LIMIT + 1
    ));
    let answer = wire.answer();
    assert_eq!(answer.status, 413);
    assert!(
        answer.text().contains("65536"),
        "it names the limit: {}",
        answer.text()
    );
    // The host waits a while for what may still come: nothing does.
    wire.half_close();
    wire.closed();
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(0.0));
}

#[test]
fn a_body_over_the_limit_is_not_even_asked_for() {
    let host = up(SMALL);
    let mut wire = Wire::connect(host.http.address());
    wire.send(format!(
        "POST /probe HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        LIMIT + 1
    ));
    assert_eq!(wire.answer().status, 413, "and no 100 before it");
}

#[test]
fn a_client_that_sends_on_can_read_the_refusal() {
    let host = up(SMALL);
    // By its length.
    let mut wire = Wire::connect(host.http.address());
    wire.send(format!(
        "POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: {ON_AND_ON}\r\n\r\n"
    ));
    wire.send(vec![b'x'; ON_AND_ON]);
    assert_eq!(wire.answer().status, 413);
    // By counting.
    let mut wire = Wire::connect(host.http.address());
    wire.send("POST /probe HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut chunk = b"10000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x10000, b'x');
    chunk.extend_from_slice(b"\r\n");
    assert_eq!(
        wire.send_while_taken(&chunk, ON_AND_ON / 0x10000),
        ON_AND_ON / 0x10000
    );
    assert_eq!(wire.answer().status, 413);
    assert_eq!(
        host.metric("dunlin_memory_used_bytes", &[])
            .map(|used| used < 16e6),
        Some(true)
    );
}

#[test]
fn a_body_for_nobody_does_not_hide_the_answer() {
    let host = up(SMALL);
    for (request, status) in [("POST /nothing", 404), ("PUT /probe", 405), ("POST *", 400)] {
        let mut wire = Wire::connect(host.http.address());
        wire.send(format!(
            "{request} HTTP/1.1\r\nhost: a\r\ncontent-length: {ON_AND_ON}\r\n\r\n"
        ));
        let piece = vec![b'x'; 64 << 10];
        wire.send_while_taken(&piece, ON_AND_ON / piece.len());
        let answer = wire
            .next(true)
            .unwrap_or_else(|error| panic!("{request}: the answer is lost: {error}"));
        assert_eq!(answer.status, status, "{request}");
    }
}

#[test]
fn a_body_without_end_is_cut_off() {
    let host = up(SMALL);
    let mut wire = Wire::connect(host.http.address());
    wire.send(format!(
        "POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        1_u64 << 40
    ));
    let piece = vec![b'x'; 1 << 20];
    let taken = wire.send_while_taken(&piece, 256);
    assert!(taken < 256, "{taken} MiB were taken");
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
}

/// A request whose head is this many bytes beyond its first lines.
fn head(bytes: usize) -> Vec<u8> {
    let mut head = b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nx-padding: ".to_vec();
    head.resize(head.len() + bytes, b'p');
    head.extend_from_slice(b"\r\n\r\n");
    head
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let host = up(SMALL);
    let mut wire = Wire::connect(host.http.address());
    wire.send(head(12 << 10));
    assert_eq!(wire.answer().status, 200);
    // Just above the limit, and far above it.
    for size in [17 << 10, 1 << 20] {
        let mut wire = Wire::connect(host.http.address());
        wire.send_while_taken(&head(size), 1);
        let answer = wire
            .next(true)
            .unwrap_or_else(|error| panic!("{size}: the answer is lost: {error}"));
        assert_eq!(answer.status, 431, "{size}");
        wire.closed();
    }
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(1.0));
}

#[test]
fn a_target_that_is_too_long_is_refused() {
    let host = up(SMALL);
    let mut wire = Wire::connect(host.http.address());
    wire.send_while_taken(
        format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(70_000)).as_bytes(),
        1,
    );
    let answer = wire
        .next(true)
        .unwrap_or_else(|error| panic!("the answer is lost: {error}"));
    assert!(matches!(answer.status, 414 | 431), "{answer:?}");
}

#[test]
fn too_many_headers_are_refused() {
    let host = box_with(SMALL).start();
    let request = |count: usize| {
        let mut head = "POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n".to_owned();
        for number in 2..count {
            head += &format!("x-{number}: 1\r\n");
        }
        head + "\r\n"
    };
    let mut wire = Wire::connect(host.http.address());
    wire.send(request(20));
    assert_eq!(wire.answer().status, 200, "as many as are allowed");
    wire.send(request(21));
    assert_eq!(wire.answer().status, 431);
    wire.closed();
}
