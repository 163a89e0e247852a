//! `wasi:http/client` of WASI 0.3: a guest that passes requests on, and what comes back.

use std::time::Duration;

use dunlin_tests::{Host, Response, guest};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::holding;
use super::upstream::{Tell, Upstream, request, until_closed};

const MIB: usize = 1 << 20;

/// The guest `proxy03`, by this kind of instance and with this timeout.
fn proxy(upstream: &Upstream, isolation: &str, timeout: &str) -> Host {
    let rules = json!([upstream.rule()]);
    Host::builder()
        .manifest(format!("[host]\negress = {rules}"))
        .function(
            "proxy",
            &guest("proxy03"),
            &format!(
                "isolation = {isolation:?}\ntimeout = {timeout:?}\nresponse-limit = \"16MiB\"\n\
                 egress = {rules}"
            ),
        )
        .start()
}

fn passed(host: &Host, method: &str, url: &str, body: &[u8]) -> Response {
    host.http.request(method, "/proxy", &[("x-to", url)], body)
}

/// Reads a request, its body in chunks or of a length; tells its first line, and answers
/// how long it is. None at the end.
async fn whole(stream: &mut (impl AsyncRead + Unpin), tell: &Tell) -> Option<usize> {
    let head = request(stream).await?;
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            match stream.read_buf(&mut body).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }
    let line = head.lines().next().unwrap_or_default();
    tell.say(line);
    Some(head.len() + body.len())
}

#[test]
fn requests_and_answers_are_passed_on_in_each_kind_of_instance() {
    let upstream = Upstream::start(|mut stream, tell| async move {
        while let Some(size) = whole(&mut stream, &tell).await {
            tell.say(format!("{}", size >= 4 * MIB));
            let head =
                "HTTP/1.1 203 Fine\r\nx-name: upstream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.expect("it is read");
            for _ in 0..8 {
                let piece = format!("{MIB:x}\r\n{}\r\n", "y".repeat(MIB));
                stream
                    .write_all(piece.as_bytes())
                    .await
                    .expect("it is read");
            }
            stream.write_all(b"0\r\n\r\n").await.expect("it is read");
        }
    });
    for isolation in ["fresh", "concurrent"] {
        let host = proxy(&upstream, isolation, "30s");
        for (method, size) in [("GET", 0), ("POST", 4 * MIB)] {
            let answer = passed(&host, method, &upstream.url("/a?b"), &vec![b'x'; size]);
            assert_eq!(
                (answer.status, answer.header("x-name"), answer.body.len()),
                (203, Some("upstream"), 8 * MIB),
                "{isolation}, {method}"
            );
            assert!(answer.body.iter().all(|byte| *byte == b'y'));
            assert_eq!(upstream.hears(), format!("{method} /a?b HTTP/1.1"));
            assert_eq!(upstream.hears(), (size > 0).to_string());
        }
        let labels = [("function", "proxy"), ("result", "ok")];
        host.wait_for_metric("dunlin_egress_requests_total", &labels, |n| n == 2.0);
        host.stop();
    }
}

#[test]
fn what_is_not_listed_is_denied_in_the_words_of_wasi() {
    let upstream = Upstream::start(until_closed);
    let host = proxy(&upstream, "fresh", "30s");
    for (url, code) in [
        ("http://127.0.0.1:1/", "HttpRequestDenied"),
        (
            "http://169.254.169.254/latest/meta-data",
            "HttpRequestDenied",
        ),
        ("https://example.com/", "HttpRequestDenied"),
        // The same server by another name and by another scheme.
        (
            &format!("http://localhost:{}/", upstream.port()),
            "HttpRequestDenied",
        ),
        (
            &upstream.url("/").replace("http", "https"),
            "HttpRequestDenied",
        ),
        // Not even asked.
        ("ftp://example.com/", "HttpProtocolError"),
    ] {
        let answer = passed(&host, "GET", url, b"");
        assert_eq!(answer.status, 502, "{url}: {answer:?}");
        assert!(answer.text().contains(code), "{url}: {}", answer.text());
    }
    assert_eq!(upstream.accepted(), 0);
    let labels = [("function", "proxy"), ("result", "denied")];
    host.wait_for_metric("dunlin_egress_requests_total", &labels, |n| n == 5.0);
    host.stop();
}

#[test]
fn an_answer_that_breaks_off_is_none() {
    let upstream = Upstream::start(|mut stream, _| async move {
        request(&mut stream).await;
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        let _ = stream.write_all(half).await;
    });
    let host = proxy(&upstream, "fresh", "30s");
    // The head was passed on already, perhaps: then the connection breaks.
    let answer = host
        .http
        .try_request("GET", "/proxy", &[("x-to", &upstream.url("/"))], b"");
    assert!(
        answer.as_ref().is_ok_and(|answer| answer.status == 502) || answer.is_err(),
        "{answer:?}"
    );
    host.stop();
}

#[test]
fn what_ends_the_invocation_ends_the_call() {
    let upstream = holding();
    let silent = Upstream::start(|mut stream, tell| async move {
        request(&mut stream).await;
        tell.say("begun");
        until_closed(stream, tell).await;
    });
    // A client that goes away while it reads the answer.
    for isolation in ["fresh", "concurrent"] {
        let host = proxy(&upstream, isolation, "30s");
        let mut client = host.http.connect();
        client.set_read_timeout(Duration::from_secs(10));
        client.send(format!(
            "GET /proxy HTTP/1.1\r\nhost: a\r\nx-to: {}\r\n\r\n",
            upstream.url("/")
        ));
        assert_eq!(upstream.hears(), "begun");
        drop(client);
        assert_eq!(upstream.hears(), "closed", "{isolation}");
        host.wait_until_quiet();
        host.stop();
    }
    // The deadline.
    for isolation in ["fresh", "concurrent"] {
        let host = proxy(&silent, isolation, "500ms");
        let late = passed(&host, "GET", &silent.url("/"), b"");
        assert_eq!((late.status, late.outcome()), (504, Some("timeout")));
        assert_eq!(
            (silent.hears(), silent.hears()),
            ("begun".into(), "closed".into())
        );
        host.wait_until_quiet();
        host.stop();
    }
}
