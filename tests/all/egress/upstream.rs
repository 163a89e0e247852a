//! Servers that functions ask: each does with a connection what the test says.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use dunlin_tests::PATIENCE;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// A server on loopback, until it is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
    said: Receiver<String>,
    _runtime: tokio::runtime::Runtime,
}

/// Tells the test what a server saw.
#[derive(Clone)]
pub(crate) struct Tell(Sender<String>);

impl Tell {
    pub(crate) fn say(&self, what: impl Into<String>) {
        // A test that has ended hears nothing any more.
        let _ = self.0.send(what.into());
    }
}

impl Upstream {
    /// Serves each connection so.
    pub(crate) fn start<F>(serve: impl Fn(TcpStream, Tell) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let (accepted, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (sender, said) = channel();
        let tell = Tell(sender);
        let (count, most) = (Arc::clone(&accepted), Arc::clone(&peak));
        runtime.spawn(async move {
            let open = Arc::new(AtomicUsize::new(0));
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let (served, open) = (serve(stream, tell.clone()), Arc::clone(&open));
                tokio::spawn(async move {
                    served.await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            accepted,
            peak,
            said,
            _runtime: runtime,
        }
    }

    /// Answers every request so, on connections that stay open.
    pub(crate) fn answering(answer: impl Into<String>) -> Self {
        let answer: Arc<str> = answer.into().into();
        Self::start(move |stream, tell| serve(stream, tell, Arc::clone(&answer)))
    }

    /// The same over TLS.
    pub(crate) fn answering_tls(config: Arc<ServerConfig>, answer: impl Into<String>) -> Self {
        let answer: Arc<str> = answer.into().into();
        Self::tls(config, move |stream, tell| {
            serve(stream, tell, Arc::clone(&answer))
        })
    }

    /// Serves each connection so, over TLS.
    pub(crate) fn tls<F>(
        config: Arc<ServerConfig>,
        then: impl Fn(TlsStream<TcpStream>, Tell) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (acceptor, then) = (TlsAcceptor::from(config), Arc::new(then));
        Self::start(move |stream, tell| {
            let (acceptor, then) = (acceptor.clone(), Arc::clone(&then));
            async move {
                match acceptor.accept(stream).await {
                    Ok(stream) => then(stream, tell).await,
                    Err(error) => tell.say(format!("no TLS: {error}")),
                }
            }
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The rule that grants it.
    pub(crate) fn rule(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections that were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections that were open at once, at most.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    /// What it says next.
    #[track_caller]
    pub(crate) fn hears(&self) -> String {
        self.said.recv_timeout(PATIENCE).expect("it says something")
    }

    /// Whether it says nothing for a moment.
    pub(crate) fn is_silent(&self) -> bool {
        self.said.recv_timeout(Duration::from_millis(100)).is_err()
    }
}

/// Reads a request, its body by its `content-length`; None at the end.
pub(crate) async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().expect("it is a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

/// What a server with this body answers.
pub(crate) fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Tells each request, answers it, and tells the end.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, tell: Tell, answer: Arc<str>) {
    while let Some(request) = request(&mut stream).await {
        tell.say(request);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            break;
        }
        let _ = stream.flush().await;
    }
}

/// Waits until the other side closes, and tells it.
pub(crate) async fn until_closed(mut stream: impl AsyncRead + Unpin, tell: Tell) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    tell.say("closed");
}
