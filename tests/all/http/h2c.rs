//! HTTP/2 with prior knowledge.

use std::future::Future;
use std::io::Read as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_tests::{Host, PATIENCE};
use h2::client::SendRequest;
use http::{Request, Response};
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::timeouts::trickle;
use super::wire::Wire;
use super::{PROBE, box_with, up};

/// Runs a test's client, for a bounded time.
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, client)
            .await
            .expect("the client ends")
    })
}

/// Waits for a state of the host without holding up the connection.
pub(crate) async fn on_host<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(wait).await.expect("it holds")
}

/// Waits until so many invocations run.
async fn running(host: &Host, count: usize) {
    let (metrics, line) = (
        host.metrics,
        format!("dunlin_invocations_running{{function=\"probe\"}} {count}\n"),
    );
    let run = move || metrics.get("/metrics").text().contains(&line).then_some(());
    on_host(move || dunlin_tests::eventually("they run", run)).await;
}

pub(crate) struct Connection {
    pub(crate) requests: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) end: JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    pub(crate) async fn open(host: &Host) -> Self {
        let stream = tokio::net::TcpStream::connect(host.http.address())
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        Self {
            requests,
            end: tokio::spawn(connection),
        }
    }

    /// Asks for an answer of a million bytes: many windows.
    fn ask_for_much(&mut self) -> h2::client::ResponseFuture {
        let request = Request::get("http://box.test/probe?size=1000000");
        let request = request.body(()).unwrap();
        self.requests.send_request(request, true).unwrap().0
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> Result<(http::response::Parts, Bytes), h2::Error> {
        self.send_with(method, target, &[], body).await
    }

    async fn send_with(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(http::response::Parts, Bytes), h2::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://box.test{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        std::future::poll_fn(|context| self.requests.poll_ready(context)).await?;
        let (response, mut stream) = self.requests.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            // The answer may come before the body is wanted.
            let _ = stream.send_data(Bytes::copy_from_slice(body), true);
        }
        whole(response.await?).await
    }
}

async fn whole(
    response: Response<h2::RecvStream>,
) -> Result<(http::response::Parts, Bytes), h2::Error> {
    let (parts, mut body) = response.into_parts();
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok((parts, all.into()))
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
}

#[test]
fn requests_are_answered_as_over_http1() {
    let host = up(PROBE);
    run(async {
        let mut connection = Connection::open(&host).await;
        let (parts, body) = connection
            .send("GET", "/probe/a%20b?x=1", b"")
            .await
            .unwrap();
        assert_eq!(parts.status, 200);
        assert_eq!(parts.version, http::Version::HTTP_2);
        for name in ["date", "content-length", "x-amzn-requestid"] {
            assert!(parts.headers.contains_key(name), "{name}");
        }
        let saw = json(&body);
        assert_eq!(
            (&saw["path"], &saw["query"]),
            (&"/probe/a%20b".into(), &"x=1".into())
        );
        assert_eq!(saw["parameters"], serde_json::json!([["rest", "a b"]]));

        let large = vec![b'x'; 1 << 20];
        let (_, body) = connection.send("POST", "/probe", &large).await.unwrap();
        assert_eq!(json(&body)["length"], large.len());

        let (parts, body) = connection.send("HEAD", "/probe", b"").await.unwrap();
        assert_eq!((parts.status.as_u16(), body.len()), (200, 0));
        let (parts, _) = connection.send("GET", "/nothing", b"").await.unwrap();
        assert_eq!(parts.status, 404);
        let (parts, body) = connection
            .send(
                "GET",
                "/probe?size=3&header=connection:close&header=keep-alive:1",
                b"",
            )
            .await
            .unwrap();
        assert_eq!((parts.status.as_u16(), body.as_ref()), (200, &b"xxx"[..]));
        assert!(
            !parts.headers.contains_key("connection") && !parts.headers.contains_key("keep-alive")
        );
    });
    assert_eq!(host.metric("dunlin_http_accepted_total", &[]), Some(1.0));
}

#[test]
fn a_guest_sees_the_same_host_header_whatever_the_protocol() {
    let host = up(PROBE);
    let body = run(async {
        let mut connection = Connection::open(&host).await;
        connection.send("GET", "/probe", b"").await.unwrap().1
    });
    let headers: Vec<(String, String)> =
        serde_json::from_value(json(&body)["headers"].clone()).unwrap();
    let hosts: Vec<&str> = headers
        .iter()
        .filter(|(name, _)| name == "host")
        .map(|(_, v)| v.as_str())
        .collect();
    assert_eq!(
        hosts,
        ["box.test"],
        "RFC 9113 section 8.3.1: made from :authority"
    );
}

#[test]
fn streams_run_at_once() {
    let host = up(PROBE);
    run(async {
        let mut connection = Connection::open(&host).await;
        let mut streams = Vec::new();
        for number in 0..50 {
            std::future::poll_fn(|context| connection.requests.poll_ready(context))
                .await
                .unwrap();
            // The first ones end last.
            let sleep = if number < 25 { 600 } else { 0 };
            let request = Request::get(format!("http://box.test/probe?n={number}&sleep={sleep}"))
                .body(())
                .unwrap();
            streams.push(connection.requests.send_request(request, true).unwrap().0);
        }
        for (number, stream) in streams.into_iter().enumerate() {
            let (parts, body) = whole(stream.await.unwrap()).await.unwrap();
            assert_eq!(parts.status, 200);
            let query = json(&body)["query"].as_str().unwrap().to_owned();
            assert!(query.starts_with(&format!("n={number}&")), "{query}");
        }
    });
    assert_eq!(host.metric("dunlin_http_accepted_total", &[]), Some(1.0));
    assert_eq!(
        host.metric("dunlin_invocations_total", &[("outcome", "ok")]),
        Some(50.0)
    );
}

#[test]
fn a_stream_that_is_reset_cancels_its_invocation_only() {
    let host = std::sync::Arc::new(up(PROBE));
    run(async {
        let mut connection = Connection::open(&host).await;
        let request = |target: &str| {
            Request::get(format!("http://box.test{target}"))
                .body(())
                .unwrap()
        };
        let (stays, _) = connection
            .requests
            .send_request(request("/probe?sleep=3000"), true)
            .unwrap();
        let (goes, mut stream) = connection
            .requests
            .send_request(request("/probe?sleep=19000"), true)
            .unwrap();
        let waiting = std::sync::Arc::clone(&host);
        on_host(move || waiting.wait_for_metric("dunlin_invocations_running", &[], |n| n == 2.0))
            .await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(goes);
        let waiting = std::sync::Arc::clone(&host);
        let cancelled = [("outcome", "cancelled")];
        on_host(move || {
            waiting.wait_for_metric("dunlin_invocations_total", &cancelled, |n| n == 1.0)
        })
        .await;
        assert_eq!(whole(stays.await.unwrap()).await.unwrap().0.status, 200);
        let (parts, _) = connection.send("GET", "/probe", b"").await.unwrap();
        assert_eq!(parts.status, 200, "the connection goes on");
    });
    host.wait_until_quiet();
    assert_eq!(
        host.wait_for_log(|line| line["outcome"] == "cancelled")["function"],
        "probe"
    );
}

#[test]
fn a_connection_that_goes_cancels_all_its_invocations() {
    let host = std::sync::Arc::new(up(PROBE));
    run(async {
        let mut connection = Connection::open(&host).await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            let request = Request::get("http://box.test/probe?sleep=19000")
                .body(())
                .unwrap();
            streams.push(connection.requests.send_request(request, true).unwrap());
        }
        let waiting = std::sync::Arc::clone(&host);
        on_host(move || waiting.wait_for_metric("dunlin_invocations_running", &[], |n| n == 3.0))
            .await;
        connection.end.abort();
        let _ = connection.end.await;
    });
    host.wait_for_metric(
        "dunlin_invocations_total",
        &[("outcome", "cancelled")],
        |n| n == 3.0,
    );
    host.wait_until_quiet();
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
}

#[test]
fn limits_hold_as_over_http1() {
    let host = up(r#"
[host]
max-header-bytes = "16KiB"

[function.probe]
component = "{probe}"
request-limit = "64KiB"

[[function.probe.http]]
method = "POST"
path = "/probe"
"#);
    run(async {
        let mut connection = Connection::open(&host).await;
        let (parts, _) = connection
            .send("POST", "/probe", &vec![b'x'; (64 << 10) + 1])
            .await
            .unwrap();
        assert_eq!(parts.status, 413);
        let (parts, _) = connection.send("GET", "/probe", b"").await.unwrap();
        assert_eq!(
            (parts.status.as_u16(), &parts.headers["allow"]),
            (405, &"POST".parse().unwrap())
        );
        let (parts, _) = connection
            .send_with(
                "POST",
                "/probe",
                &[("x-padding", &"p".repeat(17 << 10))],
                b"",
            )
            .await
            .unwrap();
        assert_eq!(parts.status, 431);
        let (parts, _) = connection.send("POST", "/probe", b"x").await.unwrap();
        assert_eq!(
            parts.status, 200,
            "a stream that is refused leaves the connection to the others"
        );
    });
}

#[test]
fn a_body_that_does_not_end_is_refused_and_the_connection_goes_on() {
    let host = up(&format!("[host]\nbody-timeout = \"400ms\"\n{PROBE}"));
    let body_timeouts = [("timeout", "body")];
    run(async {
        let mut connection = Connection::open(&host).await;
        let post = || {
            let request = Request::post("http://box.test/probe");
            request.body(()).unwrap()
        };
        let (stops, mut body) = connection.requests.send_request(post(), false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let (trickles, mut more) = connection.requests.send_request(post(), false).unwrap();
        let trickle = tokio::spawn(async move {
            // Until nobody takes it any more.
            while more.send_data(Bytes::from_static(b"x"), false).is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        for response in [stops, trickles] {
            let (parts, _) = whole(response.await.unwrap()).await.unwrap();
            assert_eq!(parts.status, 408);
            assert!(!parts.headers.contains_key("connection"));
        }
        trickle.await.unwrap();
        let (parts, _) = connection.send("POST", "/probe", b"x").await.unwrap();
        assert_eq!(parts.status, 200);
    });
    assert_eq!(
        host.metric("dunlin_http_timeouts_total", &body_timeouts),
        Some(2.0)
    );
    let total = host.metric("dunlin_invocations_total", &[]);
    assert_eq!(total, Some(1.0), "no handler ran without its body");
}

#[test]
fn a_head_that_does_not_end_is_an_idle_connection() {
    let host = up(&format!("[host]\nidle-timeout = \"400ms\"\n{PROBE}"));
    // RFC 9113 section 4.1: length, type, flags, stream.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // HEADERS with END_STREAM and without END_HEADERS: `:method: GET`, `:scheme: http`.
    let headers = [0, 0, 2, 1, 1, 0, 0, 0, 1, 0x82, 0x86];
    // CONTINUATION, and not all that it announces.
    let continuation = [0, 0x20, 0, 9, 0, 0, 0, 0, 1];
    for trickles in [false, true] {
        let mut wire = Wire::connect(host.http.address());
        wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        wire.send([&settings[..], &headers, &continuation].concat());
        let sender = trickles.then(|| trickle(&wire, "x"));
        // Its frames end, or are broken off by a reset: what trickles is not read any more.
        let _ = wire.stream.read_to_end(&mut Vec::new());
        let ended = if trickles { 2.0 } else { 1.0 };
        host.wait_for_metric("dunlin_http_timeouts_total", &[("timeout", "idle")], |n| {
            n == ended
        });
        host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
        drop(wire);
        if let Some(sender) = sender {
            sender.join().unwrap();
        }
    }
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(0.0));
}

#[test]
fn a_client_that_takes_its_time_over_an_answer_gets_all_of_it() {
    let host = up(&format!("[host]\nidle-timeout = \"1s\"\n{PROBE}"));
    run(async {
        let mut connection = Connection::open(&host).await;
        let response = connection.ask_for_much();
        let mut body = response.await.unwrap().into_body();
        let began = Instant::now();
        let (mut length, mut pauses) = (0, 0);
        while let Some(piece) = body.data().await {
            let piece = piece.expect("it goes on");
            length += piece.len();
            body.flow_control().release_capacity(piece.len()).unwrap();
            // The window is that large.
            if length / 60_000 > pauses {
                pauses += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        assert_eq!(length, 1_000_000);
        assert!(began.elapsed() > Duration::from_secs(2));
        // And then it is, as one that reads nothing is.
        let end = (&mut connection.end).await.unwrap();
        assert!(end.is_ok(), "{end:?}");
    });
}

/// Connections that were closed since their clients did not read.
fn unread(host: &Host) -> Option<f64> {
    host.metric("dunlin_http_timeouts_total", &[("timeout", "answer")])
}

#[test]
fn a_client_that_never_reads_its_answer_is_closed_and_holds_no_memory() {
    let host = up(&format!("[host]\nidle-timeout = \"1s\"\n{PROBE}"));
    run(async {
        let mut connection = Connection::open(&host).await;
        let response = connection.ask_for_much();
        let _unread = response.await.unwrap();
        let _ = (&mut connection.end).await.unwrap();
    });
    assert_eq!(unread(&host), Some(1.0));
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |used| used < 4e6);
}

#[test]
fn a_client_that_reads_its_answer_too_slowly_is_closed() {
    let host = up(&format!(
        "[host]\nidle-timeout = \"1s\"\nmin-rate = \"1MiB\"\n{PROBE}"
    ));
    run(async {
        let mut connection = Connection::open(&host).await;
        let response = connection.ask_for_much();
        let mut body = response.await.unwrap().into_body();
        let mut length = 0;
        while let Some(Ok(piece)) = body.data().await {
            length += piece.len();
            tokio::time::sleep(Duration::from_millis(100)).await;
            if body.flow_control().release_capacity(piece.len()).is_err() {
                break;
            }
        }
        assert!(length < 1_000_000, "it had all of it");
    });
    assert_eq!(unread(&host), Some(1.0));
}

#[test]
fn a_drain_ends_streams_in_order() {
    let mut host = up(PROBE);
    run(async {
        let mut connection = Connection::open(&host).await;
        let request = Request::get("http://box.test/probe?sleep=1000")
            .body(())
            .unwrap();
        let (response, _) = connection.requests.send_request(request, true).unwrap();
        running(&host, 1).await;
        host.signal(Signal::TERM);
        let (parts, _) = whole(response.await.expect("what runs ends"))
            .await
            .expect("with its body");
        assert_eq!(parts.status, 200);
        // GOAWAY without an error.
        let end = (&mut connection.end).await.unwrap();
        assert!(end.is_ok(), "{end:?}");
        assert!(
            connection.send("GET", "/probe", b"").await.is_err(),
            "nothing new is taken"
        );
    });
    assert_eq!(host.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn an_answer_that_waits_for_its_clients_window_is_not_cut_off_by_the_drain() {
    let mut host = up(PROBE);
    run(async {
        let mut connection = Connection::open(&host).await;
        let response = connection.ask_for_much();
        let response = response.await.expect("it is answered");
        host.signal(Signal::TERM);
        // More than an idle connection has, and the window is not a tenth of it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (_, body) = whole(response).await.expect("the rest comes");
        assert_eq!(body.len(), 1_000_000);
        let end = (&mut connection.end).await.unwrap();
        assert!(end.is_ok(), "{end:?}");
    });
    assert_eq!(host.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_window_that_never_opens_does_not_hold_the_drain_beyond_its_timeout() {
    let mut host = box_with(PROBE).args(["--drain-timeout", "1s"]).start();
    run(async {
        let mut connection = Connection::open(&host).await;
        let response = connection.ask_for_much();
        let _unread = response.await.expect("it is answered");
        host.signal(Signal::TERM);
        let _ = (&mut connection.end).await.unwrap();
    });
    host.wait_for_exit(PATIENCE);
}

#[test]
fn after_the_drain_timeout_each_stream_is_answered_with_503() {
    let mut host = box_with(PROBE).args(["--drain-timeout", "1s"]).start();
    run(async {
        let mut connection = Connection::open(&host).await;
        let mut responses = Vec::new();
        for target in ["sleep=19000", "spin", "sleep=18000"] {
            let request = Request::get(format!("http://box.test/probe?{target}"));
            let request = request.body(()).unwrap();
            let (response, _) = connection.requests.send_request(request, true).unwrap();
            responses.push(response);
        }
        running(&host, 3).await;
        host.signal(Signal::TERM);
        for response in responses {
            let response = response.await.expect("an answer, not a reset");
            assert_eq!(response.status(), 503);
        }
    });
    host.wait_for_exit(PATIENCE);
}
