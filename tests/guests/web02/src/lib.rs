//! Does over `wasi:http` 0.2 what its path says: as a standard handler does, and as none
//! should. Built with the standard bindings alone: nothing in it knows the host.

use std::io::{Read, Write};
use std::time::Duration;

use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse,
    ResponseOutparam,
};

wasip2::http::proxy::export!(Web);

struct Web;

/// A number of the query.
fn number(query: &str, name: &str) -> Option<u64> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

/// Sets a response with these headers; answers its body.
fn answer(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> OutgoingBody {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

fn write(body: &OutgoingBody, bytes: &[u8]) {
    let mut stream = body.write().unwrap();
    stream.write_all(bytes).unwrap();
    stream.flush().unwrap();
}

fn text(out: ResponseOutparam, status: u16, text: &str) {
    let body = answer(out, status, &[]);
    write(&body, text.as_bytes());
    OutgoingBody::finish(body, None).unwrap();
}

/// Copies the request's body to the response's, and its trailers.
fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().unwrap();
    let body = answer(out, 200, &[("trailer", "x-last")]);
    let mut to = body.write().unwrap();
    let mut from = incoming.stream().unwrap();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = Read::read(&mut from, &mut buffer).unwrap();
        if read == 0 {
            break;
        }
        to.write_all(&buffer[..read]).unwrap();
    }
    to.flush().unwrap();
    drop((to, from));
    let trailers = IncomingBody::finish(incoming);
    trailers.subscribe().block();
    let trailers = trailers.get().unwrap().unwrap().unwrap();
    let trailers = trailers.map(|fields| Fields::from_list(&fields.entries()).unwrap());
    OutgoingBody::finish(body, trailers).unwrap();
}

/// Reads the request's body; answers how long it was.
fn count(request: &IncomingRequest) -> u64 {
    let incoming = request.consume().unwrap();
    let mut from = incoming.stream().unwrap();
    let mut buffer = vec![0; 64 << 10];
    let mut count = 0;
    loop {
        match Read::read(&mut from, &mut buffer).unwrap() {
            0 => return count,
            read => count += read as u64,
        }
    }
}

/// What the handler sees of a request.
fn describe(request: &IncomingRequest) -> String {
    let mut headers = request.headers().entries();
    headers.sort();
    let headers: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
        .collect();
    format!(
        "{:?} {:?} {:?} {:?}\n{}",
        request.method(),
        request.scheme(),
        request.authority(),
        request.path_with_query(),
        headers.join("\n")
    )
}

impl wasip2::exports::http::incoming_handler::Guest for Web {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pause = Duration::from_millis(number(query, "pause").unwrap_or(0));
        match path.rsplit('/').next().unwrap_or_default() {
            "ok" => text(out, 200, "ok"),
            "request" => text(out, 200, &describe(&request)),
            "echo" => echo(&request, out),
            "count" => {
                let count = count(&request);
                text(out, 200, &count.to_string());
            }
            // As long as it is asked for, and without being asked.
            "length" => {
                let length = number(query, "length").unwrap().to_string();
                let fields = Fields::new();
                fields.append("content-length", length.as_bytes()).unwrap();
                let response = OutgoingResponse::new(fields);
                response
                    .set_status_code(number(query, "code").unwrap_or(200) as u16)
                    .unwrap();
                ResponseOutparam::set(out, Ok(response));
            }
            "status" => {
                let status = number(query, "code").unwrap() as u16;
                text(out, status, "status");
            }
            // So many pieces of such a size, with pauses between them.
            "pieces" => {
                let count = number(query, "count").unwrap_or(u64::MAX);
                let piece = vec![b'x'; number(query, "size").unwrap_or(1) as usize];
                let length = number(query, "length").map(|length| length.to_string());
                let length = length.as_deref().map(|length| ("content-length", length));
                let body = answer(out, 200, length.as_slice());
                let mut stream = body.write().unwrap();
                for _ in 0..count {
                    let written = stream.write_all(&piece);
                    if written.and_then(|()| Write::flush(&mut stream)).is_err() {
                        // Nobody reads it.
                        break;
                    }
                    if !pause.is_zero() {
                        std::thread::sleep(pause);
                    }
                }
                drop(stream);
                OutgoingBody::finish(body, None).unwrap();
            }
            "trailers" => {
                let body = answer(out, 200, &[("trailer", "x-last")]);
                write(&body, b"body");
                std::thread::sleep(pause);
                let trailers = Fields::new();
                trailers.append("x-last", b"seen").unwrap();
                trailers.append("content-encoding", b"gzip").unwrap();
                trailers.append("x-last", b"twice").unwrap();
                OutgoingBody::finish(body, Some(trailers)).unwrap();
            }
            "goes-on" => {
                text(out, 200, "answered");
                std::thread::sleep(pause);
                println!("went on");
            }
            // What none should do.
            "none" => {}
            "error" => ResponseOutparam::set(out, Err(ErrorCode::ConfigurationError)),
            "panic" => panic!("as it is told to"),
            "sleeps" => std::thread::sleep(Duration::from_secs(3600)),
            "spins" => loop {
                std::hint::black_box(query);
            },
            "panics-late" => {
                let body = answer(out, 200, &[]);
                write(
                    &body,
                    &vec![b'x'; number(query, "size").unwrap_or(1) as usize],
                );
                std::thread::sleep(pause);
                panic!("as it is told to");
            }
            "hangs-late" => {
                let body = answer(out, 200, &[]);
                write(&body, b"half");
                std::thread::sleep(Duration::from_secs(3600));
            }
            "spins-late" => {
                let body = answer(out, 200, &[]);
                write(&body, b"half");
                std::thread::sleep(pause);
                loop {
                    std::hint::black_box(query);
                }
            }
            "grows-late" => {
                let body = answer(out, 200, &[]);
                write(&body, b"half");
                std::thread::sleep(pause);
                let mut all = Vec::new();
                loop {
                    all.push(vec![1_u8; 1 << 20]);
                }
            }
            "drops" => {
                let body = answer(out, 200, &[]);
                write(&body, b"half");
                std::thread::sleep(pause);
            }
            "leaks" => {
                let body = answer(out, 200, &[]);
                write(&body, b"half");
                std::thread::sleep(pause);
                std::mem::forget(body);
            }
            // The end that writes, too.
            "leaks-all" => {
                let body = answer(out, 200, &[]);
                let mut stream = body.write().unwrap();
                stream.write_all(b"half").unwrap();
                stream.flush().unwrap();
                std::thread::sleep(pause);
                std::mem::forget((stream, body));
            }
            "forgets-request" => std::mem::forget(request),
            "short" => {
                let body = answer(out, 200, &[("content-length", "10")]);
                write(&body, b"short");
                let _ = OutgoingBody::finish(body, None);
            }
            "long" => {
                let body = answer(out, 200, &[("content-length", "4")]);
                let mut stream = body.write().unwrap();
                let _ = stream.write_all(b"too long");
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            "length-alone" => {
                let fields = Fields::new();
                fields.append("content-length", b"10").unwrap();
                ResponseOutparam::set(out, Ok(OutgoingResponse::new(fields)));
            }
            // Says which of these lengths is refused.
            "lengths" => {
                let refused = ["+5", "-1", "5 5", "18446744073709551616", ""].map(|text| {
                    Fields::new()
                        .append("content-length", text.as_bytes())
                        .is_err()
                });
                let twice = Fields::new();
                twice.append("content-length", b"0").unwrap();
                let again = twice.append("content-length", b"0").is_err();
                text(out, 200, &format!("{refused:?} {again}"));
            }
            "forbidden" => {
                let fields = Fields::new();
                let refused = ["connection", "transfer-encoding", "upgrade", "host"]
                    .map(|name| fields.append(name, b"x").is_err());
                let broken = [
                    fields.append("bad name", b"x"),
                    fields.append("x", b"a\r\nb: c"),
                ];
                let broken = broken.map(|result| result.is_err());
                text(out, 200, &format!("{refused:?} {broken:?}"));
            }
            "many-headers" => {
                let fields = Fields::new();
                let added = (0..40_000_u32)
                    .take_while(|n| fields.append(&format!("x-{n}"), b"value").is_ok())
                    .count();
                text(out, 200, &added.to_string());
            }
            "upgrade" => {
                let body = answer(out, 200, &[("keep-alive-x", "y"), ("te", "trailers")]);
                write(&body, b"plain");
                OutgoingBody::finish(body, None).unwrap();
            }
            _ => text(out, 404, "no such path"),
        }
    }
}
