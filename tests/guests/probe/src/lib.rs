//! Does what an event asks for, and says what it received.
//!
//! Over HTTP the query asks: `sleep=MS`, `spin`, `say=TEXT`, `measure`,
//! `status=N`, `size=BYTES`, `header=NAME:VALUE`. The answer is a JSON object with what the
//! handler saw, or that many bytes. Invoked directly, `{"do": …}` asks.

use std::time::Duration;

use dunlin_sdk::{Context, FunctionError, Raw, Request, Response, metrics};
use serde::Deserialize;
use serde_json::{Value, json};

#[dunlin_sdk::http]
fn over_http(request: Request) -> Response {
    let context = Context::current();
    let mut response = Response::new(200_u16);
    let mut body = None;
    for (name, value) in request.query_params() {
        match name.as_ref() {
            "sleep" => sleep(value.parse().expect("milliseconds")),
            "spin" => spin(),
            "measure" => measure(),
            "say" => println!("{value}"),
            "status" => response = response.with_status(value.parse::<u16>().expect("a status")),
            "size" => body = Some(vec![b'x'; value.parse().expect("a number of bytes")]),
            "header" => {
                let (name, value) = value.split_once(':').expect("a name and a value");
                response = response.append_header(name, value);
            }
            _ => {}
        }
    }
    let headers: Vec<(&str, String)> = request
        .headers()
        .map(|(name, value)| (name, String::from_utf8_lossy(value).into_owned()))
        .collect();
    let saw = json!({
        "method": request.method(),
        "path": request.path(),
        "query": request.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(request.body()),
        "length": request.body().len(),
        "parameters": context.route_parameters(),
        "route": context.route(),
        "client": context.client_address(),
        "request_id": context.request_id(),
    });
    response.with_body(body.unwrap_or_else(|| saw.to_string().into_bytes()))
}

/// What a direct invocation asks for.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Task {
    /// Answer with this value.
    Echo {
        value: Value,
    },
    /// Say what is known of the invocation.
    Context,
    /// Print lines, then answer.
    Say {
        lines: Vec<String>,
    },
    Sleep {
        ms: u64,
    },
    Spin,
    /// Fail as a handler does.
    Fail {
        name: String,
        message: String,
    },
    Panic,
    Exit {
        code: i32,
    },
    /// Take memory until there is none.
    Hoard,
    /// Answer these bytes, JSON or not.
    Raw {
        text: String,
    },
    /// Answer a JSON string of this many bytes in all.
    Large {
        bytes: usize,
    },
}

#[dunlin_sdk::invoke]
fn directly(event: Value, context: Context) -> Result<Raw, FunctionError> {
    let value = match serde_json::from_value(event.clone()) {
        // Nothing of ours: the event itself is the answer.
        Err(_) => event,
        Ok(Task::Echo { value }) => value,
        Ok(Task::Context) => json!({
            "requestId": context.request_id(),
            "function": context.function_name(),
            "version": context.version(),
            "invokedAs": context.invoked_as(),
            "clientContext": context.client_context(),
            "attempt": context.attempt(),
        }),
        Ok(Task::Say { lines }) => {
            for line in lines {
                println!("{line}");
            }
            Value::Null
        }
        Ok(Task::Sleep { ms }) => {
            sleep(ms);
            json!({ "slept": ms })
        }
        Ok(Task::Spin) => spin(),
        Ok(Task::Fail { name, message }) => return Err(FunctionError::new(name, message)),
        Ok(Task::Panic) => panic!("as asked"),
        Ok(Task::Exit { code }) => std::process::exit(code),
        Ok(Task::Hoard) => hoard(),
        Ok(Task::Raw { text }) => return Ok(Raw(text.into_bytes())),
        Ok(Task::Large { bytes }) => Value::String("x".repeat(bytes.saturating_sub(2))),
    };
    Ok(Raw(value.to_string().into_bytes()))
}

/// A point of each kind of metric.
fn measure() {
    metrics::counter("points").add(1.0);
    metrics::gauge("level").set(1.0);
    metrics::histogram("spread").observe(1.0);
}

fn sleep(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn spin() -> ! {
    let mut x = 0_u64;
    loop {
        x = std::hint::black_box(x.wrapping_add(1));
    }
}

fn hoard() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}
