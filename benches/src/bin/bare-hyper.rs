//! The limit to compare with: hyper alone, serving a constant.
//!
//! The same versions, features, profile and allocator as the host; connections are taken as the
//! host takes them: one acceptor, which deals each to the core with the fewest, and a
//! `current_thread` runtime per core. It shares no code with the host, so that it stays the same
//! limit when the host changes.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mimalloc::MiMalloc;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// As the host has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// As the host has it.
const BACKLOG: i32 = 1024;

struct Core {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

fn start_core(index: usize) -> std::io::Result<Core> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name(format!("core-{index}"))
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(Core {
        handle,
        connections: Arc::default(),
    })
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// A constant, or the body of the request at `/echo`.
type Body = Either<Full<Bytes>, Incoming>;

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/echo" {
        return Ok(Response::new(Either::Right(request.into_body())));
    }
    let hello = Full::new(Bytes::from_static(b"Hello, world!\n"));
    let mut response = Response::new(Either::Left(hello));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

async fn serve(stream: std::net::TcpStream) {
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    let _ = stream.set_nodelay(true);
    // How the client ends its connection is its own affair.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

fn main() -> std::io::Result<()> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = (0..count)
        .map(start_core)
        .collect::<std::io::Result<Vec<_>>>()?;
    let acceptor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    acceptor.block_on(async {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        eprintln!("listening http=http://{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            let stream = stream.into_std()?;
            let core = cores
                .iter()
                .min_by_key(|core| core.connections.load(Ordering::Relaxed))
                .expect("there is a core");
            core.connections.fetch_add(1, Ordering::Relaxed);
            let connections = Arc::clone(&core.connections);
            core.handle.spawn(async move {
                serve(stream).await;
                connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    })
}
