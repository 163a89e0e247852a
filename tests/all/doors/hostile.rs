//! Guests that ask too much of a stream.

use http::Request;

use super::exchange::Exchange;
use super::{DOORS, both, ended};
use crate::http::h2c;

const KEYS: &str = r#"
timeout = "60s"
fuel = "off"
memory = "16MiB"
response-limit = "1GiB"
"#;

/// What the host may hold of streams whose pieces are tiny.
const HELD: u64 = 32 << 20;

#[test]
fn thousands_of_tiny_pieces_come_through_as_they_are() {
    let host = both(KEYS).start();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        let answer = exchange.get(&format!("/{function}/pieces?count=1000&size=1"));
        assert_eq!((answer.body.len(), answer.is_whole()), (1000, true));
        h2c::run(async {
            let mut connection = h2c::Connection::open(&host).await;
            // This client takes a thousand of them for an attack.
            let target = format!("/{function}/pieces?count=100&size=1");
            let (_, body) = connection.send("GET", &target, b"").await.unwrap();
            assert_eq!(body.len(), 100);
        });
    }
}

#[test]
fn tiny_pieces_that_nobody_reads_do_not_pile_up() {
    let host = std::sync::Arc::new(both(KEYS).start());
    for function in DOORS {
        assert_eq!(host.get(&format!("/{function}/ok")).text(), "ok");
        let before = host.rss();
        h2c::run(async {
            // A window that takes all, on a connection that is not read.
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(16 << 10).unwrap();
            let stream = socket.connect(host.http.address()).await.unwrap();
            let (mut requests, connection) = h2::client::Builder::new()
                .initial_window_size(1 << 30)
                .initial_connection_window_size(1 << 30)
                .handshake::<_, bytes::Bytes>(stream)
                .await
                .unwrap();
            let connection = tokio::spawn(connection);
            let request = Request::get(format!(
                "http://box.test/{function}/pieces?count=100000000&size=1"
            ));
            let request = request.body(()).unwrap();
            let (response, _) = requests.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
            connection.abort();
            let _ = connection.await;
        });
        let grew = host.rss().saturating_sub(before);
        assert!(grew < HELD, "{function}: the host grew by {grew} bytes");
        ended(&host, function, "cancelled");
    }
}

#[test]
fn a_neighbour_answers_beside_streams_that_never_end() {
    let host = both(KEYS).start();
    let streams: Vec<Exchange> = DOORS
        .iter()
        .cycle()
        .take(8)
        .map(|function| {
            let mut exchange = Exchange::narrow(&host);
            exchange.ask("GET", &format!("/{function}/spins-late?count=1&pause=10"));
            assert_eq!(exchange.head().0, 200);
            exchange
        })
        .collect();
    for function in DOORS {
        for _ in 0..10 {
            let answer = host.get(&format!("/{function}/ok"));
            assert_eq!(answer.text(), "ok");
        }
    }
    streams.into_iter().for_each(Exchange::reset);
    let labels = [("outcome", "cancelled")];
    host.wait_for_metric("dunlin_invocations_total", &labels, |n| n == 8.0);
    host.wait_until_quiet();
}

#[test]
fn headers_beyond_what_a_head_may_hold_are_refused_to_the_guest() {
    let host = both(KEYS).start();
    let answer = host.get("/web02/many-headers");
    let got = (answer.status, answer.outcome());
    assert_eq!(got, (502, Some("trap")), "{answer:?}");
    let record = host.record(answer.request_id());
    let message = record["message"].as_str().unwrap();
    assert!(message.contains("size"), "{record}");
    assert_eq!(host.get("/web02/ok").text(), "ok");
}
