//! Prepares itself as the variable `PREPARE` says, and ends as `RETIRE` says.
//!
//! The handler answers what the preparation left, and how many events the instance has
//! had. `GET /NAME/fail` traps.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime};

use dunlin_sdk::{Context, Request, Response, metrics};
use serde_json::json;

/// Random numbers, which the standard library does not offer.
#[allow(unsafe_code, reason = "wit-bindgen's ABI code is unsafe")]
mod host {
    wit_bindgen::generate!({
        inline: "
            package dunlin:prepared;

            world host-calls {
                import wasi:random/random@0.2.0;
            }

            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                    get-random-u64: func() -> u64;
                }
            }
        ",
        world: "dunlin:prepared/host-calls",
        generate_all,
    });
}

use host::wasi::random::random::get_random_u64;

/// What the preparation leaves.
struct Prepared {
    /// How often it ran.
    runs: u32,
    what: String,
    label: Option<String>,
    secret: Option<String>,
    words: Vec<String>,
}

static RUNS: AtomicU32 = AtomicU32::new(0);
static PREPARED: OnceLock<Prepared> = OnceLock::new();
static SERVED: AtomicU32 = AtomicU32::new(0);

#[dunlin_sdk::init]
fn prepare() -> Result<(), String> {
    let runs = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    let kind = std::env::var("PREPARE").unwrap_or_default();
    let what = match kind.as_str() {
        "" => String::new(),
        "name" => Context::current().function_name(),
        "log" => {
            println!("prepared");
            String::new()
        }
        "say-and-read" => {
            println!("looking for words");
            read()?
        }
        "read" => read()?,
        "read-or-hang" => read().unwrap_or_else(|_| hang()),
        "random" => get_random_u64().to_string(),
        "instant" => format!("{:?}", Instant::now()),
        "day" => format!("{:?}", SystemTime::now()),
        "metric" => {
            metrics::counter("prepared").add(1.0);
            String::new()
        }
        "stream" => Context::current().log_stream(),
        "err" => return Err("there are no words".into()),
        "say-and-err" => {
            println!("looking for words");
            return Err("there are no words".into());
        }
        "trap" => std::process::abort(),
        "panic" => panic!("no words"),
        "exit" => std::process::exit(7),
        "spin" => spin(),
        "say-and-spin" => {
            println!("looking for words");
            spin()
        }
        "sleep" => {
            std::thread::sleep(std::time::Duration::from_millis(400));
            String::new()
        }
        "hoard" => hoard(),
        other => return Err(format!("cannot prepare `{other}`")),
    };
    let prepared = Prepared {
        runs,
        what,
        label: std::env::var("LABEL").ok(),
        secret: Context::current().secret("key"),
        words: (0..5000).map(|n| format!("word-{n}")).collect(),
    };
    PREPARED.set(prepared).map_err(|_| "it ran before")?;
    Ok(())
}

#[dunlin_sdk::http]
fn handle(request: Request, context: Context) -> Response {
    let served = SERVED.fetch_add(1, Ordering::Relaxed) + 1;
    match request.path().rsplit('/').next() {
        Some("fail") => std::process::abort(),
        Some("sleep") => hang(),
        _ => {}
    }
    let prepared = PREPARED.get();
    Response::new(200_u16).with_body(
        json!({
            "served": served,
            "runs": prepared.map(|prepared| prepared.runs),
            "what": prepared.map(|prepared| prepared.what.clone()),
            "label": prepared.and_then(|prepared| prepared.label.clone()),
            "words": prepared.map(|prepared| prepared.words.len()),
            "last": prepared.and_then(|prepared| prepared.words.last().cloned()),
            "secret-then": prepared.and_then(|prepared| prepared.secret.clone()),
            "secret-now": context.secret("key"),
            "label-now": std::env::var("LABEL").ok(),
        })
        .to_string()
        .into_bytes(),
    )
}

#[dunlin_sdk::retire]
fn retire() {
    match std::env::var("RETIRE").as_deref() {
        Ok("spin") => spin(),
        Ok("trap") => std::process::abort(),
        Ok("hoard") => hoard(),
        Ok("secret") => println!("secret: {:?}", Context::current().secret("key")),
        _ => println!("goodbye after {}", SERVED.load(Ordering::Relaxed)),
    }
}

fn read() -> Result<String, String> {
    std::fs::read_to_string("/data/words").map_err(|error| error.to_string())
}

/// Longer than anything may take.
fn hang() -> ! {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(600));
    }
}

fn spin() -> ! {
    let mut x = 0_u64;
    loop {
        x = std::hint::black_box(x.wrapping_add(1));
    }
}

/// Takes memory until there is none.
fn hoard() -> ! {
    let mut kept = Vec::new();
    loop {
        let mut more = Vec::<u8>::new();
        if more.try_reserve(1 << 20).is_err() {
            std::process::abort();
        }
        kept.push(std::hint::black_box(more));
    }
}
