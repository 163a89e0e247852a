//! Server-sent events over standard `wasi:http`: a clock that ticks.
//!
//! ```console
//! $ curl -N 'http://localhost:8080/clock?count=3&every=500'
//! retry: 500
//!
//! id: 1
//! event: tick
//! data: {"tick":1,"of":3,"at":1760000000000}
//! …
//! ```
//!
//! - `count`: how many events, 10 unless it is said, at most 10000.
//! - `every`: milliseconds between two of them, 1000 unless it is said, at least 10.
//!
//! A browser's `EventSource` that loses its connection comes again by itself, after the
//! `retry` that it was told, and names the last event that it saw in `Last-Event-ID`: the
//! clock goes on after it. When nothing is left it answers 204, which tells the browser
//! not to come again.
//!
//! Nothing here knows the host: any server of `wasi:http` 0.2 runs it. What the host does
//! for it: each write goes out at once; a write waits while the client does not read; and
//! when the client goes away, the host ends the invocation where it stands.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

wasip2::http::proxy::export!(Clock);

struct Clock;

const MOST_EVENTS: u64 = 10_000;
const LEAST_PAUSE: u64 = 10;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    count: u64,
    every: Duration,
    /// The last event that the client has seen.
    seen: u64,
}

impl Asked {
    /// From the target and the header, or what is wrong with them.
    fn of(target: &str, last_event_id: Option<&str>) -> Result<Self, String> {
        let (_, query) = target.split_once('?').unwrap_or_default();
        let mut asked = Self {
            count: 10,
            every: Duration::from_millis(1000),
            seen: 0,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = value.parse::<u64>().ok();
            match (name, number) {
                ("count", Some(count)) if count <= MOST_EVENTS => asked.count = count,
                ("count", _) => return Err(format!("count is a number up to {MOST_EVENTS}")),
                ("every", Some(every)) if every >= LEAST_PAUSE => {
                    asked.every = Duration::from_millis(every);
                }
                ("every", _) => {
                    return Err(format!("every is in milliseconds, {LEAST_PAUSE} or more"));
                }
                _ => return Err("there is `count` and `every`".into()),
            }
        }
        // What is no id of ours is no reason to send nothing.
        asked.seen = last_event_id
            .and_then(|id| id.parse().ok())
            .unwrap_or_default();
        Ok(asked)
    }
}

/// Sends the head of a response; answers its body.
fn answer(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> OutgoingBody {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    let headers = Fields::from_list(&headers).expect("these headers may be set");
    let response = OutgoingResponse::new(headers);
    response
        .set_status_code(status)
        .expect("a status of three digits");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn finish(body: OutgoingBody) {
    // Dropped without this, the host takes the body for half of one.
    OutgoingBody::finish(body, None).expect("no length was promised");
}

/// Ends a request whose answer is text.
fn text(out: ResponseOutparam, status: u16, text: &str) {
    let body = answer(out, status, &[("content-type", "text/plain")]);
    let mut stream = body.write().expect("the stream is taken once");
    // A client that has gone does not want it.
    let _ = stream.write_all(text.as_bytes());
    drop(stream);
    finish(body);
}

impl wasip2::exports::http::incoming_handler::Guest for Clock {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        if !matches!(request.method(), Method::Get) {
            return text(out, 405, "GET\n");
        }
        let last = request.headers().get("last-event-id");
        let last = last.first().and_then(|id| std::str::from_utf8(id).ok());
        let target = request.path_with_query().unwrap_or_default();
        let asked = match Asked::of(&target, last) {
            Ok(asked) => asked,
            Err(problem) => return text(out, 400, &format!("{problem}\n")),
        };
        if asked.seen >= asked.count {
            let body = answer(out, 204, &[]);
            return finish(body);
        }
        let body = answer(
            out,
            200,
            &[
                ("content-type", "text/event-stream"),
                ("cache-control", "no-cache"),
            ],
        );
        let mut stream = body.write().expect("the stream is taken once");
        let retry = asked.every.as_millis();
        // A write that fails means that nobody reads any more.
        if write!(stream, "retry: {retry}\n\n").is_ok() {
            for tick in asked.seen + 1..=asked.count {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let at = now.unwrap_or_default().as_millis();
                let count = asked.count;
                // In one write: as one piece on the wire.
                let event = format!(
                    "id: {tick}\nevent: tick\ndata: {{\"tick\":{tick},\"of\":{count},\"at\":{at}}}\n\n"
                );
                let sent = stream.write_all(event.as_bytes());
                if sent
                    .and_then(|()| std::io::Write::flush(&mut stream))
                    .is_err()
                {
                    break;
                }
                if tick < count {
                    std::thread::sleep(asked.every);
                }
            }
        }
        drop(stream);
        finish(body);
    }
}
