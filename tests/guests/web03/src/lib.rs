//! Does over `wasi:http` 0.3 what its path says, as a standard handler does and as none
//! should. Built with the standard bindings alone: nothing in it knows the host.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Web);

struct Web;

/// Requests in this instance, now and in all.
static NOW: AtomicU32 = AtomicU32::new(0);
static IN_ALL: AtomicU32 = AtomicU32::new(0);

struct Here;

impl Here {
    fn enter() -> Self {
        NOW.fetch_add(1, Ordering::Relaxed);
        IN_ALL.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        NOW.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A number of the query.
fn number(query: &str, name: &str) -> Option<u64> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

async fn sleep(time: Duration) {
    monotonic_clock::wait_for(time.as_nanos() as u64).await;
}

fn fields(headers: &[(&str, &str)]) -> Fields {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    Fields::from_list(&headers).unwrap()
}

/// What a response's body does when it is written.
#[derive(Clone, Copy)]
enum End {
    Well,
    Trailers,
    Error,
    Panic,
    Spin,
    Grow,
    Never,
}

/// A response with so many pieces, and this end.
fn pieces(
    headers: &[(&str, &str)],
    piece: Vec<u8>,
    count: u64,
    pause: Duration,
    end: End,
) -> Response {
    let (mut body, contents) = wit_stream::new();
    let (trailers, ends) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(fields(headers), Some(contents), ends);
    let here = Here::enter();
    wit_bindgen::spawn_local(async move {
        let _here = here;
        for _ in 0..count {
            if !body.write_all(piece.clone()).await.is_empty() {
                // Nobody reads it.
                return;
            }
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
        let end = match end {
            End::Well => Ok(None),
            End::Trailers => Ok(Some(fields(&[
                ("x-last", "seen"),
                ("content-encoding", "gzip"),
            ]))),
            End::Error => Err(ErrorCode::ConfigurationError),
            End::Panic => panic!("as it is told to"),
            End::Spin => loop {
                std::hint::black_box(count);
            },
            End::Grow => {
                let mut all = Vec::new();
                loop {
                    all.push(vec![1_u8; 1 << 20]);
                }
            }
            End::Never => {
                sleep(Duration::from_secs(3600)).await;
                Ok(None)
            }
        };
        drop(body);
        let _ = trailers.write(end).await;
    });
    response
}

fn text(status: u16, text: String) -> Response {
    let response = pieces(&[], text.into_bytes(), 1, Duration::ZERO, End::Well);
    response.set_status_code(status).unwrap();
    response
}

/// Answers with the request's own body and trailers.
fn echo(request: Request) -> Response {
    let (_, processed) = wit_future::new(|| Ok(()));
    let (contents, trailers) = Request::consume_body(request, processed);
    let (response, _) = Response::new(fields(&[("trailer", "x-last")]), Some(contents), trailers);
    response
}

/// The same, through the guest's own memory.
fn copy(request: Request) -> Response {
    let (_, processed) = wit_future::new(|| Ok(()));
    let (mut from, trailers) = Request::consume_body(request, processed);
    let (mut to, contents) = wit_stream::new();
    let (response, _) = Response::new(fields(&[]), Some(contents), trailers);
    wit_bindgen::spawn_local(async move {
        let mut buffer = Vec::with_capacity(64 << 10);
        loop {
            let (result, read) = from.read(buffer).await;
            if read.is_empty() && !matches!(result, wit_bindgen::StreamResult::Complete(_)) {
                return;
            }
            buffer = to.write_all(read).await;
            if !buffer.is_empty() {
                return;
            }
            buffer = Vec::with_capacity(64 << 10);
        }
    });
    response
}

/// Reads the request's body; answers how long it was.
async fn count_body(request: Request) -> Result<u64, ErrorCode> {
    let (_, processed) = wit_future::new(|| Ok(()));
    let (mut from, trailers) = Request::consume_body(request, processed);
    let mut count = 0;
    loop {
        let (result, read) = from.read(Vec::with_capacity(64 << 10)).await;
        count += read.len() as u64;
        if read.is_empty() && !matches!(result, wit_bindgen::StreamResult::Complete(_)) {
            drop(from);
            trailers.await?;
            return Ok(count);
        }
    }
}

impl wasip3::exports::http::handler::Guest for Web {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pause = Duration::from_millis(number(query, "pause").unwrap_or(0));
        let count = number(query, "count").unwrap_or(1);
        let piece = vec![b'x'; number(query, "size").unwrap_or(4) as usize];
        let here = Here::enter();
        let response = match path.rsplit('/').next().unwrap_or_default() {
            "ok" => text(200, "ok".into()),
            "request" => {
                let mut headers = request.get_headers().copy_all();
                headers.sort();
                let headers: Vec<String> = headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
                    .collect();
                let described = format!(
                    "{:?} {:?} {:?} {:?}\n{}",
                    request.get_method(),
                    request.get_scheme(),
                    request.get_authority(),
                    request.get_path_with_query(),
                    headers.join("\n")
                );
                text(200, described)
            }
            "status" => text(number(query, "code").unwrap() as u16, "status".into()),
            "echo" => echo(request),
            "copy" => copy(request),
            "count" => text(200, count_body(request).await?.to_string()),
            "length" => {
                let length = number(query, "length").unwrap().to_string();
                let (ends, end) = wit_future::new(|| Ok(None));
                drop(ends);
                let headers = fields(&[("content-length", &length)]);
                let (response, _) = Response::new(headers, None, end);
                let code = number(query, "code").unwrap_or(200) as u16;
                response.set_status_code(code).unwrap();
                response
            }
            "goes-on" => {
                wit_bindgen::spawn_local(async move {
                    sleep(pause).await;
                    println!("went on");
                });
                text(200, "answered".into())
            }
            "pieces" => {
                let length = number(query, "length").map(|length| length.to_string());
                let length = length.as_deref().map(|length| ("content-length", length));
                pieces(length.as_slice(), piece, count, pause, End::Well)
            }
            "trailers" => pieces(&[("trailer", "x-last")], piece, count, pause, End::Trailers),
            // Waits, and says how many were here meanwhile, and how many came in all.
            "waits" => {
                sleep(pause).await;
                let (now, in_all) = (NOW.load(Ordering::Relaxed), IN_ALL.load(Ordering::Relaxed));
                text(200, format!("{now} {in_all}"))
            }
            // Says so before it answers.
            "says" => {
                println!("begun");
                text(200, "ok".into())
            }
            // Computes for so long, and waits for nothing.
            "computes" => {
                let until = monotonic_clock::now() + pause.as_nanos() as u64;
                while monotonic_clock::now() < until {}
                text(200, "done".into())
            }
            // Keeps the memory that it took.
            "grows" => {
                std::hint::black_box(vec![1_u8; number(query, "size").unwrap() as usize]);
                text(200, "grown".into())
            }
            // What none should do.
            "error" => return Err(ErrorCode::ConfigurationError),
            "panic" => panic!("as it is told to"),
            "spins" => loop {
                std::hint::black_box(query);
            },
            "sleeps" => {
                sleep(Duration::from_secs(3600)).await;
                text(200, "late".into())
            }
            "panics-late" => pieces(&[], piece, count, pause, End::Panic),
            "errors-late" => pieces(&[], piece, count, pause, End::Error),
            "spins-late" => pieces(&[], piece, count, pause, End::Spin),
            "grows-late" => pieces(&[], piece, count, pause, End::Grow),
            "hangs-late" => pieces(&[], piece, count, pause, End::Never),
            "short" => pieces(&[("content-length", "10")], piece, 1, pause, End::Well),
            "long" => pieces(&[("content-length", "2")], piece, 1, pause, End::Well),
            _ => text(404, "no such path".into()),
        };
        drop(here);
        Ok(response)
    }
}
