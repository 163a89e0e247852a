//! Bodies go through as they come, in both directions, and whoever is quicker waits.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use dunlin_tests::{Host, eventually};
use http::Request;

use super::exchange::{End, Exchange, chunk};
use super::{both, ended};
use crate::http::h2c;

/// Far more than any buffer holds.
const LARGE: usize = 64 << 20;
const PIECE: usize = 32 << 10;
/// What the host may hold of it: the buffers of a few sockets and pieces.
const HELD: u64 = 24 << 20;

const WIDE: &str = r#"
timeout = "60s"
fuel = "off"
memory = "8MiB"
request-limit = "128MiB"
response-limit = "128MiB"
"#;

/// What stands at a place of the body.
fn piece(number: usize) -> Vec<u8> {
    let mut piece = vec![0; PIECE];
    piece[..8].copy_from_slice(&number.to_le_bytes());
    piece
}

/// Looks at the host's memory until it is dropped.
struct Watched {
    before: u64,
    most: u64,
}

impl Watched {
    fn from_now(host: &Host) -> Self {
        let before = host.rss();
        Self {
            before,
            most: before,
        }
    }

    fn look(&mut self, host: &Host) {
        self.most = self.most.max(host.rss());
    }

    #[track_caller]
    fn stayed_flat(&self, what: &str) {
        let grew = self.most - self.before;
        assert!(grew < HELD, "{what}: the host grew by {grew} bytes");
    }
}

#[test]
fn a_large_body_goes_there_and_back_and_the_host_holds_little_of_it() {
    let host = both(WIDE).start();
    for target in ["web02/echo", "web03/echo", "web03/copy"] {
        for framing in [
            "transfer-encoding: chunked",
            &format!("content-length: {LARGE}"),
        ] {
            // The first request has its own needs.
            assert_eq!(host.post(&format!("/{target}"), "warm").text(), "warm");
            let mut watched = Watched::from_now(&host);
            let mut exchange = Exchange::open(&host);
            exchange.send(format!(
                "POST /{target} HTTP/1.1\r\nhost: box.test\r\n{framing}\r\n\r\n"
            ));
            let mut to = exchange.sender();
            let chunked = framing.contains("chunked");
            let sender = std::thread::spawn(move || {
                for number in 0..LARGE / PIECE {
                    let piece = piece(number);
                    let bytes = if chunked { chunk(&piece) } else { piece };
                    to.write_all(&bytes).unwrap();
                }
                if chunked {
                    to.write_all(b"0\r\n\r\n").unwrap();
                }
            });
            let (status, headers) = exchange.head();
            assert_eq!(status, 200);
            let mut got = Vec::new();
            let mut number = 0;
            while let Some(more) = exchange.piece().unwrap() {
                got.extend_from_slice(&more);
                let whole = got.len() / PIECE * PIECE;
                for sent in got.drain(..whole).collect::<Vec<_>>().chunks(PIECE) {
                    assert!(sent == piece(number), "{target}: piece {number} is another");
                    number += 1;
                }
                if number % 64 == 0 {
                    watched.look(&host);
                }
            }
            sender.join().unwrap();
            assert_eq!(
                (number, got.len()),
                (LARGE / PIECE, 0),
                "{target} {framing}"
            );
            watched.stayed_flat(target);
            let id = headers.iter().find(|(name, _)| name == "x-amzn-requestid");
            let record = host.record(&id.unwrap().1);
            assert_eq!(record["outcome"], "ok", "{record}");
            assert!(record["memory_bytes"].as_u64() < Some(4 << 20), "{record}");
        }
    }
}

#[test]
fn a_large_body_goes_there_and_back_over_http2() {
    const LARGE: usize = 16 << 20;
    let host = both(WIDE).start();
    for target in ["web02/echo", "web03/echo", "web03/copy"] {
        assert_eq!(host.post(&format!("/{target}"), "warm").text(), "warm");
        let mut watched = Watched::from_now(&host);
        h2c::run(async {
            let mut connection = h2c::Connection::open(&host).await;
            let request = Request::post(format!("http://box.test/{target}"));
            let request = request.body(()).unwrap();
            let (response, mut to) = connection.requests.send_request(request, false).unwrap();
            let sender = tokio::spawn(async move {
                let all = (0..LARGE / PIECE).map(piece);
                for piece in all {
                    let mut piece = Bytes::from(piece);
                    while !piece.is_empty() {
                        to.reserve_capacity(piece.len());
                        let room = std::future::poll_fn(|context| to.poll_capacity(context)).await;
                        let room = room.unwrap().unwrap();
                        let part = piece.split_to(room.min(piece.len()));
                        to.send_data(part, false).unwrap();
                    }
                }
                to.send_data(Bytes::new(), true).unwrap();
            });
            let (parts, mut body) = response.await.unwrap().into_parts();
            assert_eq!(parts.status, 200);
            let mut length = 0;
            while let Some(more) = body.data().await {
                let more = more.unwrap();
                body.flow_control().release_capacity(more.len()).unwrap();
                length += more.len();
                watched.look(&host);
            }
            assert_eq!(length, LARGE, "{target}");
            sender.await.unwrap();
        });
        watched.stayed_flat(target);
    }
}

#[test]
fn a_piece_comes_back_before_the_next_is_sent() {
    let host = both("timeout = \"30s\"").start();
    for target in ["web02/echo", "web03/echo", "web03/copy"] {
        let mut exchange = Exchange::open(&host);
        exchange.send(format!(
            "POST /{target} HTTP/1.1\r\nhost: box.test\r\ntransfer-encoding: chunked\r\n\r\n"
        ));
        exchange.send(chunk(b"first"));
        let (status, _) = exchange.head();
        assert_eq!(status, 200, "{target}");
        for piece in ["first", "second", "third"] {
            if piece != "first" {
                exchange.send(chunk(piece.as_bytes()));
            }
            let back = exchange.piece().unwrap();
            assert_eq!(back.as_deref(), Some(piece.as_bytes()), "{target}");
        }
        exchange.send("0\r\n\r\n");
        assert_eq!(exchange.piece().unwrap(), None, "{target}");
        // The connection stays, and what follows is another request.
        assert_eq!(exchange.get("/web02/ok").text(), "ok");
    }
}

#[test]
fn pieces_come_as_they_are_made() {
    let host = both("timeout = \"60s\"").start();
    for door in DOORS_THAT_NEVER_END {
        let mut exchange = Exchange::open(&host);
        exchange.ask("GET", door);
        assert_eq!(exchange.head().0, 200);
        for _ in 0..3 {
            assert_eq!(exchange.piece().unwrap().as_deref(), Some(&b"xxxx"[..]));
        }
        assert_eq!(
            host.metric("dunlin_invocations_running", &[]),
            Some(1.0),
            "it is not near its end"
        );
        exchange.reset();
        host.wait_until_quiet();
    }
    for function in super::DOORS {
        ended(&host, function, "cancelled");
    }
}

const DOORS_THAT_NEVER_END: [&str; 2] = [
    "/web02/pieces?count=1000000&size=4&pause=50",
    "/web03/pieces?count=1000000&size=4&pause=50",
];

/// One at a time, so that a permit that is not given back is missed.
const ONE: &str = r#"
timeout = "60s"
fuel = "off"
response-limit = "1GiB"
reserved-concurrency = 1
"#;

#[test]
fn a_guest_waits_for_a_client_that_does_not_read() {
    let host = both(ONE).start();
    for function in super::DOORS {
        assert_eq!(host.get(&format!("/{function}/ok")).status, 200);
        let mut watched = Watched::from_now(&host);
        let mut exchange = Exchange::narrow(&host);
        exchange.ask("GET", &format!("/{function}/pieces?count=16000&size=65536"));
        assert_eq!(exchange.head().0, 200);
        // It runs until the sockets are full. Then nothing moves any more.
        eventually("the guest waits", || {
            let before = host.cpu();
            std::thread::sleep(Duration::from_millis(300));
            watched.look(&host);
            (host.cpu() - before < Duration::from_millis(60)).then_some(())
        });
        watched.stayed_flat(function);
        // It goes on where it was.
        let mut length = 0;
        while length < 32 << 20 {
            length += exchange.piece().unwrap().expect("more").len();
        }
        watched.look(&host);
        watched.stayed_flat(function);
        exchange.reset();
        ended(&host, function, "cancelled");
    }
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |used| used < 4e6);
}

#[test]
fn a_client_of_http_1_0_that_stops_reading_does_not_take_what_it_has_for_all() {
    let keys = "[host]\nidle-timeout = \"700ms\"\n";
    let host = both(ONE).manifest(keys).start();
    for (times, function) in (1..).zip(super::DOORS) {
        let mut exchange = Exchange::narrow(&host);
        exchange.send(format!(
            "GET /{function}/pieces?count=16000&size=65536 HTTP/1.0\r\n\r\n"
        ));
        assert_eq!(exchange.head().0, 200);
        let timeout = [("timeout", "answer")];
        host.wait_for_metric("dunlin_http_timeouts_total", &timeout, |n| {
            n == f64::from(times)
        });
        assert_eq!(exchange.rest().1, End::Broken, "{function}: a reset");
    }
}

#[test]
fn a_client_that_stops_reading_ends_the_invocation() {
    let keys = "[host]\nidle-timeout = \"700ms\"\n";
    let host = both(ONE).manifest(keys).start();
    for (times, function) in (1..).zip(super::DOORS) {
        let mut exchange = Exchange::narrow(&host);
        exchange.ask("GET", &format!("/{function}/pieces?count=16000&size=65536"));
        assert_eq!(exchange.head().0, 200);
        let timeout = [("timeout", "answer")];
        host.wait_for_metric("dunlin_http_timeouts_total", &timeout, |n| {
            n == f64::from(times)
        });
        let record = ended(&host, function, "cancelled");
        assert_eq!(record["trigger"], "http");
        drop(exchange);
    }
    host.wait_for_metric("dunlin_http_connections", &[], |n| n == 0.0);
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |used| used < 4e6);
}
