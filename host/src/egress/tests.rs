//! The client against servers on loopback, and a resolver in the test's hands.

mod addresses;
mod http2;
mod room;
mod uploads;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::resolve::Resolving;
use super::*;
use crate::function::egress::{DEFAULT_CONNECT_TIMEOUT, Rule};
use crate::function::{ByteSize, Egress, FunctionName};
use crate::telemetry::{LogWriter, Metrics};

const PATIENCE: Duration = Duration::from_secs(30);
/// Of all functions together.
const CONNECTIONS: usize = 100;

/// Answers what it is told, once each; the last for ever.
struct Told(Mutex<VecDeque<Vec<IpAddr>>>, AtomicUsize);

impl Told {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        Arc::new(Self(
            Mutex::new(answers.iter().map(parse).collect()),
            AtomicUsize::new(0),
        ))
    }

    fn asked(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Resolve for Told {
    fn resolve(&self, _name: &str, _slot: OwnedSemaphorePermit) -> Resolving<'_> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.0.lock().unwrap();
        let answer = match answers.len() {
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        };
        Box::pin(async { Ok(answer) })
    }
}

/// Never answers.
struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _name: &str, _slot: OwnedSemaphorePermit) -> Resolving<'_> {
        Box::pin(std::future::pending::<io::Result<Vec<IpAddr>>>())
    }
}

/// A client, and what it is made of.
struct Bench {
    client: Arc<Client>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    lines: Arc<Mutex<Vec<u8>>>,
    _writer: LogWriter,
}

#[derive(Clone)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn bench_of(policy: Egress, resolver: Arc<dyn Resolve>, own: Vec<SocketAddr>) -> Bench {
    let roots = Roots::new(Vec::new(), Handle::current());
    let bench = bench_with(policy, resolver, roots);
    bench.shared.own.set(own);
    bench
}

fn bench_with(policy: Egress, resolver: Arc<dyn Resolve>, roots: Roots) -> Bench {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (log, writer) = Log::start(Lines(Arc::clone(&lines))).unwrap();
    let shared = Arc::new(Shared::new(resolver, roots, CONNECTIONS, log));
    shared.own.set([]);
    let metrics = Arc::new(Metrics::new().unwrap());
    let name = FunctionName::new("f").unwrap();
    let handles = metrics.function(&name);
    let client = Client::new(name, policy, Arc::clone(&shared), handles);
    Bench {
        client: Arc::new(client),
        shared,
        metrics,
        lines,
        _writer: writer,
    }
}

fn policy(rules: &[String]) -> Egress {
    Egress {
        rules: rules
            .iter()
            .map(|rule| Rule::parse(rule).unwrap())
            .collect(),
        ..Egress::default()
    }
}

/// Everything on loopback is granted, whatever its port.
fn loopback() -> Egress {
    policy(&["http://127.0.0.0/8:*".into(), "http://*:*".into()])
}

fn bench(policy: Egress) -> Bench {
    bench_of(policy, Told::new(&[&["127.0.0.1"]]), Vec::new())
}

fn options() -> Options {
    Options {
        connect_timeout: None,
        first_byte_timeout: None,
        between_bytes_timeout: None,
        deadline: Instant::now() + PATIENCE,
    }
}

fn get(url: &str) -> Request<Outgoing> {
    request(Method::GET, url, "")
}

fn request(method: Method, url: &str, body: &'static str) -> Request<Outgoing> {
    let body = match body.is_empty() {
        true => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        false => Full::from(body)
            .map_err(|never| match never {})
            .boxed_unsync(),
    };
    let body = Outgoing::new(body, Alive::default());
    let request = Request::builder().method(method).uri(url);
    request.body(body).unwrap()
}

impl Bench {
    async fn text(&self, request: Request<Outgoing>) -> Result<String, Error> {
        let response = self.client.send(request, options()).await?;
        let body = response.into_body().collect().await?;
        Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    async fn error(&self, request: Request<Outgoing>) -> Error {
        self.text(request).await.expect_err("it is refused")
    }

    fn counted(&self, result: &str) -> u64 {
        let (log, _writer) = Log::start(io::sink()).unwrap();
        let text = String::from_utf8(self.metrics.render(&log, 0, 0).unwrap()).unwrap();
        let line = format!("dunlin_egress_requests_total{{function=\"f\",result=\"{result}\"}} ");
        let value = text.lines().find_map(|it| it.strip_prefix(&line));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

/// A server that does with each connection what it is told.
async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream));
        }
    });
    (address, accepted)
}

/// Reads the head of a request; None at the end.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers `ok` to every request without a body.
async fn answers(mut stream: TcpStream) {
    while head(&mut stream).await.is_some() {
        if stream.write_all(OK).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let (address, accepted) = server(answers).await;
    let bench = bench(loopback());
    for _ in 0..5 {
        let url = format!("http://{address}/");
        assert_eq!(bench.text(get(&url)).await.unwrap(), "ok");
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
    assert_eq!(bench.counted("ok"), 5);
}

#[tokio::test]
async fn a_connection_that_was_made_on_one_core_serves_another() {
    let (address, accepted) = server(answers).await;
    let bench = bench(loopback());
    let url = format!("http://{address}/");
    assert_eq!(bench.text(get(&url)).await.unwrap(), "ok");
    let client = Arc::clone(&bench.client);
    let elsewhere = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let response = client.send(get(&url), options()).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        })
    });
    let answer = tokio::task::spawn_blocking(|| elsewhere.join().unwrap()).await;
    assert_eq!(answer.unwrap(), "ok");
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let bench = bench(loopback());
    let error = bench
        .error(request(Method::CONNECT, "http://a.example/", ""))
        .await;
    assert!(matches!(error, Error::Method), "{error}");
    for url in [
        "http://user@a.example/",
        "ftp://a.example/",
        "http://127.1/",
    ] {
        let error = bench.error(get(url)).await;
        assert!(matches!(error, Error::Uri(_)), "{url}: {error}");
    }
    for (name, values) in [
        ("content-length", &["+2"][..]),
        ("content-length", &["2", "2"]),
        ("content-length", &["2, 2"]),
        ("content-length", &["3"]),
        ("transfer-encoding", &["chunked"]),
    ] {
        let mut request = request(Method::POST, "http://a.example/", "ab");
        for value in values {
            request
                .headers_mut()
                .append(name, HeaderValue::from_static(value));
        }
        let error = bench.error(request).await;
        assert!(
            matches!(error, Error::Headers(_)),
            "{name} {values:?}: {error}"
        );
    }
    let mut absolute = get("http://a.example/");
    *absolute.uri_mut() = "*".parse().unwrap();
    assert!(matches!(bench.error(absolute).await, Error::Uri(_)));
    assert_eq!(bench.counted("refused"), 10);
}

#[tokio::test]
async fn a_request_goes_out_in_its_one_form() {
    let (said, mut heard) = mpsc::channel(1);
    let (address, _) = server(move |mut stream| {
        let said = said.clone();
        async move {
            let head = head(&mut stream).await.unwrap();
            said.send(head).await.unwrap();
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let bench = bench(loopback());
    let mut request = get(&format!(
        "http://API.Example.:{}//b/../c?d=%2e",
        address.port()
    ));
    for (name, value) in [
        ("host", "127.0.0.1"),
        ("connection", "x-secret, keep-alive"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "gzip"),
        ("upgrade", "websocket"),
        ("proxy-authorization", "Basic x"),
        ("x-kept", "yes"),
    ] {
        request
            .headers_mut()
            .append(name, HeaderValue::from_static(value));
    }
    assert_eq!(bench.text(request).await.unwrap(), "ok");
    let expected = format!(
        "GET //b/../c?d=%2e HTTP/1.1\r\nx-kept: yes\r\nhost: api.example:{}\r\n\r\n",
        address.port()
    );
    assert_eq!(heard.recv().await.unwrap(), expected);
}

#[tokio::test]
async fn trailers_and_answers_lose_what_belongs_to_a_connection() {
    let (address, _) = server(|mut stream| async move {
        head(&mut stream).await;
        let answer = "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nx-kept: 1\r\n\
                      keep-alive: timeout=1\r\ntransfer-encoding: chunked\r\n\
                      trailer: x-sum, content-length\r\n\r\n\
                      2\r\nok\r\n0\r\nx-sum: 7\r\ncontent-length: 9\r\nx-end: 1\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let bench = bench(loopback());
    let request = get(&format!("http://{address}/"));
    let response = bench.client.send(request, options()).await.unwrap();
    let names = |headers: &HeaderMap| {
        let mut names: Vec<_> = headers
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(response.headers()), ["trailer", "x-kept"]);
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().map(&names).unwrap_or_default();
    assert!(
        !trailers.contains(&"content-length".to_owned()),
        "{trailers:?}"
    );
    assert_eq!(collected.to_bytes(), "ok");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_rested_fails_nobody() {
    // Each connection serves one request and is closed without a word when the next comes.
    let (address, accepted) = server(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        head(&mut stream).await;
    })
    .await;
    let bench = bench(loopback());
    let url = format!("http://{address}/");
    for method in [Method::GET, Method::GET, Method::PUT, Method::DELETE] {
        let answer = bench.text(request(method, &url, "")).await;
        assert_eq!(answer.unwrap(), "ok");
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 4);
    // What may have been done already is not done twice.
    let error = bench.error(request(Method::POST, &url, "x")).await;
    assert!(matches!(error, Error::Terminated), "{error}");
    assert_eq!(accepted.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_rest_is_ended_by_the_other_side_before_the_next_request() {
    let (address, accepted) = server(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let bench = bench(loopback());
    let url = format!("http://{address}/");
    for _ in 0..20 {
        let answer = bench.text(request(Method::POST, &url, "")).await;
        assert_eq!(answer.unwrap(), "ok");
        // Until the driver has seen the end: then nothing is tried in vain.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 20);
}

#[tokio::test]
async fn connections_are_bounded_and_shared() {
    let (release, _) = tokio::sync::broadcast::channel::<()>(1);
    let gate = release.clone();
    let most = Arc::new(AtomicUsize::new(0));
    let now = Arc::new(AtomicUsize::new(0));
    let (peak, current) = (Arc::clone(&most), Arc::clone(&now));
    let (address, accepted) = server(move |mut stream| {
        let mut gate = gate.subscribe();
        let (peak, current) = (Arc::clone(&peak), Arc::clone(&current));
        async move {
            let open = current.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(open, Ordering::SeqCst);
            while head(&mut stream).await.is_some() {
                let _ = tokio::time::timeout(Duration::from_millis(20), gate.recv()).await;
                if stream.write_all(OK).await.is_err() {
                    break;
                }
            }
            current.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let bench = bench(Egress {
        connections: 3,
        ..loopback()
    });
    let url = format!("http://{address}/");
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let (client, url) = (Arc::clone(&bench.client), url.clone());
        all.spawn(async move {
            let response = client.send(get(&url), options()).await?;
            response.into_body().collect().await
        });
    }
    for answer in all.join_all().await {
        assert_eq!(answer.unwrap().to_bytes(), "ok");
    }
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert!(accepted.load(Ordering::Relaxed) <= 3);
    // Connections that rest make room for other hosts.
    for _ in 0..5 {
        let (other, _) = server(answers).await;
        assert_eq!(
            bench.text(get(&format!("http://{other}/"))).await.unwrap(),
            "ok"
        );
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_and_then_are_refused() {
    let (address, _) = server(|mut stream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let policy = Egress {
        requests: 2,
        connect_timeout: Duration::from_millis(200),
        ..loopback()
    };
    let bench = bench(policy);
    let url = format!("http://{address}/");
    let mut held = Vec::new();
    for _ in 0..2 {
        let (client, url) = (Arc::clone(&bench.client), url.clone());
        held.push(tokio::spawn(async move {
            client.send(get(&url), options()).await.map(|_| ())
        }));
    }
    while bench.client.free_requests() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = bench.error(get(&url)).await;
    assert!(matches!(error, Error::Limit), "{error}");
    // Who goes away makes room.
    held.pop().unwrap().abort();
    while bench.client.free_requests() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(bench.counted("limit"), 1);
    assert_eq!(bench.counted("cancelled"), 1);
}

#[tokio::test]
async fn every_wait_ends() {
    let short = Some(Duration::from_millis(100));
    let limits = |policy: Egress| Egress {
        connect_timeout: Duration::from_millis(100),
        ..policy
    };
    // The resolver.
    let bench = bench_of(limits(loopback()), Arc::new(Silent), Vec::new());
    let error = bench.error(get("http://a.example/")).await;
    assert!(matches!(error, Error::DnsTimeout), "{error}");
    // The handshake of TLS: it is accepted, and nothing comes.
    let (address, _) = server(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let rules = [
        "https://127.0.0.1:*".to_owned(),
        "http://127.0.0.1:*".to_owned(),
    ];
    let bench = self::bench(limits(policy(&rules)));
    let error = bench.error(get(&format!("https://{address}/"))).await;
    // Without roots on this machine it does not come so far.
    assert!(
        matches!(error, Error::ConnectTimeout | Error::Host(_)),
        "{error}"
    );
    // The head, by the policy and by the request's own wish.
    let url = format!("http://{address}/");
    let quick = Egress {
        first_byte_timeout: Duration::from_millis(100),
        ..loopback()
    };
    let bench = self::bench(quick);
    let error = bench.error(get(&url)).await;
    assert!(matches!(error, Error::ResponseTimeout), "{error}");
    let bench = self::bench(loopback());
    let own = Options {
        first_byte_timeout: short,
        ..options()
    };
    let error = bench
        .client
        .send(get(&url), own)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, Error::ResponseTimeout), "{error}");
    // The deadline ends it before any of them.
    let own = Options {
        deadline: Instant::now() + Duration::from_millis(100),
        ..options()
    };
    let error = bench
        .client
        .send(get(&url), own)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, Error::ResponseTimeout), "{error}");
    // The body.
    let (address, _) = server(|mut stream| async move {
        head(&mut stream).await;
        let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        stream.write_all(begun).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let own = Options {
        between_bytes_timeout: short,
        ..options()
    };
    let url = format!("http://{address}/");
    let response = bench.client.send(get(&url), own).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert!(matches!(error, Error::ReadTimeout), "{error}");
}

#[tokio::test]
async fn roots_that_cannot_be_read_hold_up_nobody_for_ever() {
    // The only thread that may read the roots is busy.
    let threads = tokio::runtime::Builder::new_multi_thread();
    let threads = { threads }
        .worker_threads(1)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let (release, hangs) = std::sync::mpsc::channel::<()>();
    threads.spawn_blocking(move || hangs.recv());
    let (address, accepted) = server(|stream| async move { drop(stream) }).await;
    let rules = ["https://127.0.0.1:*".to_owned()];
    let policy = Egress {
        connect_timeout: Duration::from_millis(100),
        ..policy(&rules)
    };
    // With one of the operator's a machine needs none of its own.
    let roots = Roots::new(vec![vec![0].into()], threads.handle().clone());
    let bench = bench_with(policy, Told::new(&[&[]]), roots);
    let url = format!("https://{address}/");
    for _ in 0..3 {
        let error = bench.error(get(&url)).await;
        assert!(matches!(error, Error::ConnectTimeout), "{error}");
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 0);
    drop(release);
    let begun = Instant::now();
    while matches!(bench.error(get(&url)).await, Error::ConnectTimeout) {
        assert!(begun.elapsed() < PATIENCE);
    }
    assert!(accepted.load(Ordering::Relaxed) > 0);
    threads.shutdown_background();
}

#[tokio::test]
async fn a_wish_for_more_time_than_the_policy_gives_is_not_heard() {
    let (address, _) = server(|mut stream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let bench = bench(Egress {
        first_byte_timeout: Duration::from_millis(100),
        ..loopback()
    });
    let own = Options {
        first_byte_timeout: Some(Duration::from_hours(1)),
        ..options()
    };
    let request = get(&format!("http://{address}/"));
    let error = bench
        .client
        .send(request, own)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, Error::ResponseTimeout), "{error}");
}

#[tokio::test]
async fn answers_are_bounded() {
    let small = Egress {
        response: ByteSize(1000),
        ..loopback()
    };
    let bench = bench(small);
    let answer = |text: &'static [u8], repeat: &'static [u8]| {
        server(move |mut stream| async move {
            head(&mut stream).await;
            let mut sent = stream.write_all(text).await;
            while sent.is_ok() && !repeat.is_empty() {
                sent = stream.write_all(repeat).await;
            }
        })
    };
    // It says so.
    let (address, _) = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n", b"").await;
    let error = bench.error(get(&format!("http://{address}/"))).await;
    assert!(matches!(error, Error::ResponseTooLarge(1000)), "{error}");
    // It does not.
    let endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let (address, _) = answer(endless, b"4\r\nmore\r\n").await;
    let error = bench.error(get(&format!("http://{address}/"))).await;
    assert!(matches!(error, Error::ResponseTooLarge(1000)), "{error}");
    // A head without end.
    let (address, _) = answer(b"HTTP/1.1 200 OK\r\nx: ", b"xxxxxxxxxxxxxxxxxxxxxxxxxxxx").await;
    let error = bench.error(get(&format!("http://{address}/"))).await;
    assert!(matches!(error, Error::HeadTooLarge), "{error}");
    let (address, _) = answer(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n").await;
    let error = bench.error(get(&format!("http://{address}/"))).await;
    assert!(matches!(error, Error::HeadTooLarge), "{error}");
    assert_eq!(bench.counted("limit"), 4);
    // Exactly as much as is allowed.
    let (address, _) = server(|mut stream| async move {
        head(&mut stream).await;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{:1000}", "");
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let text = bench
        .text(get(&format!("http://{address}/")))
        .await
        .unwrap();
    assert_eq!(text.len(), 1000);
}

#[tokio::test]
async fn what_breaks_off_or_is_no_http_is_said() {
    let bench = bench(loopback());
    for (answer, what) in [
        ("", "Terminated"),
        ("HTTP/1.1 200 OK\r\ncontent-len", "Terminated"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
            "Terminated",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            "Terminated",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n", "Protocol"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "Protocol",
        ),
        (
            "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            "Upgrade",
        ),
    ] {
        let (address, _) = server(move |mut stream| async move {
            head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        })
        .await;
        let error = bench.error(get(&format!("http://{address}/"))).await;
        assert!(
            format!("{error:?}").starts_with(what),
            "{answer}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_closes_its_connection() {
    let (ended, mut ends) = mpsc::channel(10);
    let (address, _) = server(move |mut stream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            let begun = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmore\r\n";
            let _ = stream.write_all(begun).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            ended.send(()).await.unwrap();
        }
    })
    .await;
    let bench = bench(loopback());
    let request = get(&format!("http://{address}/"));
    let response = bench.client.send(request, options()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    drop(response);
    tokio::time::timeout(PATIENCE, ends.recv()).await.unwrap();
}

#[tokio::test]
async fn half_a_body_is_never_taken_for_a_whole_one() {
    let (received, mut all) = mpsc::channel(10);
    let (address, _) = server(move |mut stream| {
        let received = received.clone();
        async move {
            let mut bytes = head(&mut stream).await.unwrap().into_bytes();
            received.send(Vec::new()).await.unwrap();
            let _ = stream.read_to_end(&mut bytes).await;
            received.send(bytes).await.unwrap();
        }
    })
    .await;
    let bench = bench(loopback());
    let (parts, body) = mpsc::channel::<Bytes>(1);
    let alive = Alive::default();
    let body = Outgoing::new(streamed(body), alive.clone());
    let request = Request::post(format!("http://{address}/"))
        .body(body)
        .unwrap();
    let client = Arc::clone(&bench.client);
    let sent = tokio::spawn(async move { client.send(request, options()).await.map(|_| ()) });
    parts.send("half".into()).await.unwrap();
    tokio::time::timeout(PATIENCE, all.recv()).await.unwrap();
    // Its maker is gone, and so is what it would still write.
    alive.end();
    drop(parts);
    let bytes = tokio::time::timeout(PATIENCE, all.recv())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("transfer-encoding: chunked"), "{text}");
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    let error = sent.await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Body | Error::Terminated),
        "{error:?}"
    );
}

/// A body of what comes through a channel.
fn streamed(
    parts: mpsc::Receiver<Bytes>,
) -> http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError> {
    struct Parts(mpsc::Receiver<Bytes>);
    impl http_body::Body for Parts {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
            let part = self.0.poll_recv(context);
            part.map(|part| part.map(|part| Ok(http_body::Frame::data(part))))
        }
    }
    Parts(parts).boxed_unsync()
}

#[tokio::test]
async fn the_log_names_what_was_denied_and_does_not_flood() {
    let bench = bench(policy(&["http://10.0.0.0/8:*".to_owned()]));
    for port in 1..=50 {
        bench
            .error(get(&format!("http://secret.example:{port}/path")))
            .await;
        bench
            .error(get(&format!("http://secret.example:{port}/path")))
            .await;
    }
    let lines = || String::from_utf8(bench.lines.lock().unwrap().clone()).unwrap();
    let begun = Instant::now();
    while lines().lines().count() < 10 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = lines();
    assert!(text.contains("the function f may not reach http://secret.example:1: its `egress`"));
    assert!(!text.contains("/path"), "{text}");
    assert_eq!(text.lines().count(), 10, "{text}");
    assert_eq!(bench.counted("denied"), 100);
}

#[tokio::test]
async fn who_waits_longest_gets_the_next_connection() {
    let (address, accepted) = server(answers).await;
    let bench = bench(Egress {
        connections: 2,
        requests: 6,
        ..loopback()
    });
    let url = format!("http://{address}/");
    // Many are under way, and their answers are read in order: none is overtaken by one
    // whose answer is read after it.
    let mut all = Vec::new();
    for _ in 0..40 {
        let (client, url) = (Arc::clone(&bench.client), url.clone());
        all.push(tokio::spawn(async move {
            client.send(get(&url), options()).await
        }));
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    for response in all {
        let response = response.await.unwrap().unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "ok"
        );
    }
    assert!(begun.elapsed() < DEFAULT_CONNECT_TIMEOUT);
    assert!(accepted.load(Ordering::Relaxed) <= 2);
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_let_go_in_time() {
    let (address, _) = server(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let bench = bench(Egress {
        first_byte_timeout: Duration::from_millis(200),
        ..loopback()
    });
    let (parts, body) = mpsc::channel::<Bytes>(1);
    let body = Outgoing::new(streamed(body), Alive::default());
    let request = Request::post(format!("http://{address}/"))
        .body(body)
        .unwrap();
    let client = Arc::clone(&bench.client);
    let sent = tokio::spawn(async move { client.send(request, options()).await.map(|_| ()) });
    let part = Bytes::from(vec![b'x'; 1 << 20]);
    let written = async { while parts.send(part.clone()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, written).await.unwrap();
    let error = sent.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::ResponseTimeout), "{error:?}");
}
