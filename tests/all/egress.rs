//! What functions ask of others: what they reach, and that it is all within limits.

mod destinations;
mod passed_on;
pub(crate) mod upstream;

use std::sync::Arc;
use std::time::Duration;

use dunlin_tests::{Builder, Host, guest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::scene::{Scene, TIMEOUT, trap};
use upstream::{Upstream, ok, request, until_closed};

/// The guest `fetcher`, which may reach these, and so may the host.
fn fetcher(rules: &[String], keys: &str) -> Builder {
    let rules = json!(rules).to_string();
    Host::builder()
        .manifest(format!("[host]\negress = {rules}"))
        .function(
            "fetcher",
            &guest("fetcher"),
            &format!("timeout = \"30s\"\negress = {{ allow = {rules}, {keys} }}"),
        )
}

#[track_caller]
fn does(host: &Host, how: &str, url: &str) -> Value {
    let response = host.post(&format!("/fetcher/{how}"), url);
    assert_eq!(response.status, 200, "{how} {url}: {response:?}");
    response.json()
}

#[track_caller]
fn fails(host: &Host, how: &str, url: &str, error: &str) {
    let answer = does(host, how, url);
    let got = answer["error"].as_str().unwrap_or_default();
    assert!(got.starts_with(error), "{how} {url}: {answer}");
}

#[track_caller]
fn counted(host: &Host, result: &str, count: f64) {
    let labels = [("function", "fetcher"), ("result", result)];
    host.wait_for_metric("dunlin_egress_requests_total", &labels, |n| n == count);
}

/// An authority, and a server's configuration with a certificate of it.
fn tls(alpn: &[&[u8]]) -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("keys can be made");
    let ca = CertifiedIssuer::self_signed(params, key).expect("it signs itself");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().expect("keys can be made");
    let leaf = CertificateParams::new(names).expect("they are names");
    let leaf = leaf.signed_by(&key, &ca).expect("it signs");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("it is a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("there are versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private);
    let mut config = config.expect("it is its key");
    config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    (ca.pem(), Arc::new(config))
}

#[test]
fn a_function_asks_and_its_instances_share_connections() {
    let upstream = Upstream::answering(
        "HTTP/1.1 201 Created\r\nx-one: 1\r\nkeep-alive: timeout=5\r\ncontent-length: 4\r\n\r\nmade",
    );
    let host = fetcher(&[upstream.rule()], "").start();
    let answer = does(&host, "get", &upstream.url("/a/../b?c=%2e"));
    // What belongs to the connection is not the guest's.
    let headers = json!({ "x-one": "1", "content-length": "4" });
    assert_eq!(
        answer,
        json!({ "status": 201, "headers": headers, "body": "made" })
    );
    let expected = format!(
        "GET /a/../b?c=%2e HTTP/1.1\r\nhost: {}\r\n\r\n",
        upstream.address
    );
    assert_eq!(upstream.hears(), expected);
    let answer = does(&host, "post", &format!("{}\nsome text", upstream.url("")));
    assert_eq!(answer["status"], 201);
    let expected = format!(
        "POST / HTTP/1.1\r\ncontent-length: 9\r\nhost: {}\r\n\r\nsome text",
        upstream.address
    );
    assert_eq!(upstream.hears(), expected);
    // Each was another instance, and one connection served both.
    assert_eq!(upstream.accepted(), 1);
    counted(&host, "ok", 2.0);
    let open = [("function", "fetcher")];
    host.wait_for_metric("dunlin_egress_connections", &open, |n| n == 1.0);
    host.stop();
}

#[test]
fn what_the_manifest_does_not_list_is_denied_and_said() {
    let upstream = Upstream::answering(ok("secret"));
    let port = upstream.port();
    let listed = [
        "https://*.example.com".to_owned(),
        format!("http://localhost:{port}"),
    ];
    let host = fetcher(&listed, "").start();
    for url in [
        upstream.url("/path?key=hidden"),
        format!("https://127.0.0.1:{port}/"),
        "http://a.example.com/".to_owned(),
        "https://example.com/".to_owned(),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
    ] {
        fails(&host, "get", &url, "Denied");
    }
    counted(&host, "denied", 5.0);
    // A name alone leads nowhere inside.
    fails(
        &host,
        "get",
        &format!("http://localhost:{port}/"),
        "AddressDenied",
    );
    fails(
        &host,
        "get",
        &format!("http://LOCALHOST.:{port}/"),
        "AddressDenied",
    );
    counted(&host, "address_denied", 2.0);
    for url in [
        format!("http://user@127.0.0.1:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://0x7f000001:{port}/"),
        format!("http://2130706433:{port}/"),
        "ftp://a.example.com/".to_owned(),
    ] {
        fails(&host, "get", &url, "Invalid");
    }
    let line = |text: &str| {
        host.wait_for_log(|line| {
            line["message"]
                .as_str()
                .is_some_and(|message| message.contains(text))
        })
    };
    let denied =
        format!("the function fetcher may not reach http://127.0.0.1:{port}: its `egress`");
    assert_eq!(line(&denied)["level"], "warn");
    line(&format!(
        "may not reach http://localhost:{port}: a loopback address"
    ));
    assert!(!host.log_text().contains("hidden"));
    assert_eq!(upstream.accepted(), 0);
    host.stop();
}

#[test]
fn the_hosts_own_addresses_are_reached_by_no_list() {
    let listed = [
        "http://0.0.0.0/0:*".to_owned(),
        "http://[::/0]:*".to_owned(),
        "http://*:*".to_owned(),
    ];
    let host = fetcher(&listed, "")
        .args(["--http", "0.0.0.0:0", "--metrics", "127.0.0.1:0"])
        .start();
    for port in [host.http, host.admin, host.metrics].map(|client| client.address().port()) {
        for name in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            fails(
                &host,
                "get",
                &format!("http://{name}:{port}/"),
                "AddressDenied",
            );
        }
    }
    // Bound to all addresses, the host is at each of this machine's.
    let port = host.http.address().port();
    fails(
        &host,
        "get",
        &format!("http://127.0.0.9:{port}/"),
        "AddressDenied",
    );
    fails(
        &host,
        "get",
        &format!("http://0.0.0.0:{port}/"),
        "AddressDenied",
    );
    // Others on loopback are reached, and a header that names the host changes nothing.
    let upstream = Upstream::answering(ok("other"));
    assert_eq!(does(&host, "get", &upstream.url("/"))["body"], "other");
    host.stop();
}

#[test]
fn a_redirect_is_handed_on_and_leads_nowhere_else() {
    let inside = Upstream::answering(ok("inside"));
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        inside.url("/latest/meta-data")
    );
    let upstream = Upstream::answering(redirect);
    let host = fetcher(&[upstream.rule()], "").start();
    let answer = does(&host, "get", &upstream.url("/"));
    assert_eq!(answer["status"], 302);
    assert_eq!(
        answer["headers"]["location"],
        inside.url("/latest/meta-data")
    );
    fails(&host, "follow", &upstream.url("/"), "Denied");
    assert_eq!(inside.accepted(), 0);
    host.stop();
}

#[test]
fn tls_is_spoken_with_whom_the_operator_trusts() {
    let (ca, config) = tls(&[b"http/1.1"]);
    let upstream = Upstream::answering_tls(config, ok("over TLS"));
    let port = upstream.port();
    let rules = [
        format!("https://localhost:{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("https://127.0.0.2:{port}"),
    ];
    let trusting = |builder: Builder| {
        let rules = json!(rules).to_string();
        let keys = format!("egress = {{ allow = {rules} }}");
        builder.function("fetcher", &guest("fetcher"), &keys)
    };
    let rules_of_host = format!("[host]\negress = {}", json!(rules));
    let folder = tempfile_with(&[("ca.pem", &ca)]);
    let host = trusting(Host::builder().manifest(format!(
        "{rules_of_host}\nca-file = {:?}",
        folder.path().join("ca.pem").display().to_string()
    )))
    .start();
    for name in ["localhost", "127.0.0.1"] {
        let url = format!("https://{name}:{port}/");
        assert_eq!(does(&host, "get", &url)["body"], "over TLS");
        assert!(upstream.hears().contains(&format!("host: {name}:{port}")));
    }
    host.stop();
    // Whom it does not trust it does not ask.
    let host = trusting(Host::builder().manifest(rules_of_host)).start();
    let answer = does(&host, "get", &format!("https://localhost:{port}/"));
    let error = answer["error"].as_str().unwrap_or_default();
    // A machine may have no roots at all.
    assert!(
        error.starts_with("Tls") || error.contains("root certificates"),
        "{answer}"
    );
    host.stop();
}

fn tempfile_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("it is writable");
    }
    folder
}

#[test]
fn http2_is_chosen_where_both_speak_it() {
    let (ca, config) = tls(&[b"h2", b"http/1.1"]);
    let upstream = Upstream::tls(config, |stream, tell| async move {
        let mut connection = h2::server::handshake(stream)
            .await
            .expect("it speaks HTTP/2");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tell.say(format!(
                "{} {:?}",
                request.uri(),
                request.headers().get("host")
            ));
            let response = http::Response::new(());
            let mut stream = respond.send_response(response, false).expect("it answers");
            stream.send_data("two".into(), true).expect("it answers");
        }
    });
    let folder = tempfile_with(&[("ca.pem", &ca)]);
    let rules = json!([
        format!("https://localhost:{}", upstream.port()),
        format!("https://127.0.0.1:{}", upstream.port())
    ]);
    let host = Host::builder()
        .manifest(format!(
            "[host]\negress = {rules}\nca-file = {:?}",
            folder.path().join("ca.pem").display().to_string()
        ))
        .function(
            "fetcher",
            &guest("fetcher"),
            &format!("egress = {rules}\ntimeout = \"30s\""),
        )
        .start();
    let url = format!("https://localhost:{}/x?y", upstream.port());
    assert_eq!(does(&host, "get", &url)["body"], "two");
    assert_eq!(upstream.hears(), format!("{url} None"));
    // Many at once go over few connections, and later ones over one.
    let answer = does(&host, "many?50", &url);
    assert_eq!(answer, json!({ "succeeded": 50, "errors": {} }));
    let before = upstream.accepted();
    assert_eq!(does(&host, "many?50", &url)["succeeded"], 50);
    assert_eq!(upstream.accepted(), before);
    host.stop();
}

#[test]
fn slow_answers_end_in_time() {
    let silent = Upstream::start(|mut stream, tell| async move {
        request(&mut stream).await;
        until_closed(stream, tell).await;
    });
    let halting = Upstream::start(|mut stream, tell| async move {
        request(&mut stream).await;
        let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        stream.write_all(begun).await.expect("it is read");
        until_closed(stream, tell).await;
    });
    let keys = "first-byte-timeout = \"500ms\", between-bytes-timeout = \"500ms\"";
    let rules = [silent.rule(), halting.rule()];
    // One with the host's defaults, which are longer than it may run.
    let calm = format!("timeout = \"30s\"\negress = {}", json!(rules));
    let host = fetcher(&rules, keys)
        .function("calm", &guest("fetcher"), &calm)
        .start();
    // By the manifest, not beyond it, and by the guest's own wish.
    for target in ["/fetcher/get", "/fetcher/patient", "/calm/quick"] {
        for (upstream, what) in [(&silent, "the answer"), (&halting, "the answer's body")] {
            let answer = host.post(target, upstream.url("/")).json();
            assert_eq!(answer["error"], format!("Timeout({what:?})"), "{target}");
            assert_eq!(upstream.hears(), "closed");
        }
    }
    counted(&host, "timeout", 4.0);
    host.stop();
}

#[test]
fn endless_answers_end_at_the_limit_and_cost_no_memory() {
    let endless = Upstream::start(|mut stream, tell| async move {
        request(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut sent = stream.write_all(head).await;
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
        while sent.is_ok() {
            sent = stream.write_all(chunk.as_bytes()).await;
        }
        tell.say("closed");
    });
    let heads = Upstream::start(|mut stream, tell| async move {
        request(&mut stream).await;
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while sent.is_ok() {
            sent = stream
                .write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
                .await;
        }
        tell.say("closed");
    });
    let host = fetcher(
        &[endless.rule(), heads.rule()],
        "response-limit = \"32MiB\"",
    )
    .start();
    let before = host.rss();
    let answer = does(&host, "count", &endless.url("/"));
    assert_eq!(answer["error"], "the answer is too large");
    let count = answer["count"].as_u64().unwrap_or_default();
    assert!(count > 31 << 20 && count <= 32 << 20, "{answer}");
    assert_eq!(endless.hears(), "closed");
    fails(&host, "get", &heads.url("/"), "TooLarge");
    assert_eq!(heads.hears(), "closed");
    let grown = host.rss().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");
    host.stop();
}

/// An upstream that begins an answer, and tells when it is left.
fn holding() -> Upstream {
    Upstream::start(|mut stream, tell| async move {
        request(&mut stream).await;
        let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        stream.write_all(begun).await.expect("it is read");
        tell.say("begun");
        until_closed(stream, tell).await;
    })
}

#[test]
fn what_ends_an_invocation_ends_what_it_asked_for() {
    let upstream = holding();
    let builder = fetcher(&[upstream.rule()], "").function(
        "brief",
        &guest("fetcher"),
        &format!("timeout = \"300ms\"\negress = [\"{}\"]", upstream.rule()),
    );
    let scene = Scene::new(builder);
    let url = upstream.url("/");
    // The deadline.
    scene.post_ends("/brief/hold", &url, &TIMEOUT);
    assert_eq!(
        (upstream.hears(), upstream.hears()),
        ("begun".into(), "closed".into())
    );
    // A trap.
    scene.post_ends("/fetcher/trap", &url, &trap("unreachable"));
    assert_eq!(
        (upstream.hears(), upstream.hears()),
        ("begun".into(), "closed".into())
    );
    // A client that goes away.
    let mut client = scene.host.http.connect();
    client.send(format!(
        "POST /fetcher/hold HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{url}",
        url.len()
    ));
    assert_eq!(upstream.hears(), "begun");
    drop(client);
    assert_eq!(upstream.hears(), "closed");
    // Its end.
    assert_eq!(does(&scene.host, "later", &url), "sent");
    let metric = [("function", "fetcher")];
    let host = &scene.host;
    host.wait_for_metric("dunlin_egress_connections", &metric, |n| n == 0.0);
    scene.end();
}

#[test]
fn many_calls_at_once_stay_within_the_limits() {
    let upstream = Upstream::start(|mut stream, _| async move {
        while request(&mut stream).await.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if stream.write_all(ok("x").as_bytes()).await.is_err() {
                break;
            }
        }
    });
    let keys = "connections = 4, requests = 16";
    let scene = Scene::new(fetcher(&[upstream.rule()], keys));
    let url = upstream.url("/");
    let answer = does(&scene.host, "many?500", &url);
    assert_eq!(answer, json!({ "succeeded": 500, "errors": {} }));
    assert!(upstream.peak() <= 4, "{}", upstream.peak());
    // More than may wait are told so.
    let answer = does(&scene.host, "many?3000", &url);
    assert!(answer["succeeded"].as_u64() >= Some(1000), "{answer}");
    assert!(answer["errors"]["Limit"].as_u64() > Some(0), "{answer}");
    // More than an instance may hold.
    scene.post_ends("/fetcher/many?10000", &url, &trap(""));
    assert!(upstream.peak() <= 4, "{}", upstream.peak());
    scene.end();
}

#[test]
fn connections_that_the_other_side_closes_fail_nobody() {
    let upstream = Upstream::start(|mut stream, _| async move {
        request(&mut stream).await;
        let _ = stream.write_all(ok("once").as_bytes()).await;
    });
    let host = fetcher(&[upstream.rule()], "").start();
    for _ in 0..20 {
        let answer = does(&host, "get", &upstream.url("/"));
        assert_eq!(answer["body"], "once", "{answer}");
    }
    counted(&host, "ok", 20.0);
    host.stop();
}

#[test]
fn headers_of_the_connection_are_the_hosts_alone() {
    let upstream = Upstream::answering(ok("x"));
    let host = fetcher(&[upstream.rule()], "").start();
    for header in [
        "host:evil.example",
        "connection:close",
        "transfer-encoding:chunked",
        "upgrade:websocket",
        "proxy-authorization:x",
        "keep-alive:1",
        "http2-settings:x",
    ] {
        fails(
            &host,
            &format!("with?{header}"),
            &upstream.url("/"),
            "Invalid",
        );
    }
    for header in [
        "content-length:5",
        "content-length:+0",
        "content-length:0&content-length:5",
    ] {
        let answer = does(&host, &format!("with?{header}"), &upstream.url("/"));
        assert!(answer["error"].is_string(), "{header}: {answer}");
    }
    assert!(upstream.is_silent());
    let answer = does(&host, "with?te:trailers&x-own:1", &upstream.url("/"));
    assert_eq!(answer["status"], 200, "{answer}");
    let said = upstream.hears();
    assert!(said.contains("x-own: 1") && !said.contains("te:"), "{said}");
    host.stop();
}

#[test]
fn an_upload_waits_for_who_reads_it() {
    let slow = Upstream::start(|mut stream, tell| async move {
        if let Some(request) = request(&mut stream).await {
            tell.say(request.len().to_string());
            let _ = stream.write_all(ok("got it").as_bytes()).await;
        }
    });
    let never = Upstream::start(|stream, tell| async move {
        tell.say("open");
        let _held = stream;
        std::future::pending::<()>().await;
    });
    let keys = "first-byte-timeout = \"1s\"";
    let host = fetcher(&[slow.rule(), never.rule()], keys).start();
    let answer = does(&host, "upload?8192", &slow.url("/"));
    assert_eq!(answer["body"], "got it", "{answer}");
    assert!(
        slow.hears()
            .parse::<usize>()
            .is_ok_and(|read| read > 8 << 20)
    );
    // Nobody takes it: the time for the answer counts from when something was taken last.
    fails(
        &host,
        "upload?16384",
        &never.url("/"),
        "Timeout(\"the answer\")",
    );
    host.stop();
}

#[test]
fn an_answer_may_come_before_the_upload_is_read() {
    // It reads nothing more.
    let early = Upstream::start(|mut stream, tell| async move {
        let mut head = [0; 16];
        let _ = stream.read_exact(&mut head).await;
        let _ = stream.write_all(ok("early").as_bytes()).await;
        tell.say("answered");
        std::future::pending::<()>().await;
    });
    // It reads no faster than it is read.
    let echo = Upstream::start(|mut stream, tell| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("it says more"));
        }
        let size = 4 << 20;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
        let (read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read.take(size), &mut write).await;
        tell.say("done");
        std::future::pending::<()>().await;
    });
    let host = fetcher(&[early.rule(), echo.rule()], "").start();
    let answer = does(&host, "upload?16384", &early.url("/"));
    assert_eq!(answer["body"], "early", "{answer}");
    let answer = does(&host, "upload?4096", &echo.url("/"));
    let body = answer["body"].as_str().unwrap_or_default();
    assert_eq!(body.len(), 4 << 20);
    host.stop();
}

#[test]
fn nothing_listed_is_nothing_reached() {
    let upstream = Upstream::answering(ok("x"));
    let host = Host::builder()
        .function("fetcher", &guest("fetcher"), "")
        .start();
    fails(&host, "get", &upstream.url("/"), "Denied");
    fails(&host, "get", "https://example.com/", "Denied");
    host.stop();
}
