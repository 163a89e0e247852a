//! Asks others by HTTP. The second segment of the path says how; the first line of the
//! body is the URL, and what follows is sent. Answers JSON: `{ "status", "headers",
//! "body" }` or `{ "error": … }`.
//!
//! | path | what it does |
//! |---|---|
//! | `ok` | nothing |
//! | `get`, `post` | that |
//! | `with NAME:VALUE…` (in the query) | the same as `get`, with these headers |
//! | `follow` | as `get`, and goes where a `location` leads |
//! | `count` | reads the answer, and says only how long it is |
//! | `quick` | as `get`, with timeouts of 200 ms |
//! | `patient` | as `get`, with timeouts of an hour |
//! | `hold` | reads the head, and keeps the answer until it is ended |
//! | `trap` | reads the head, and traps |
//! | `upload` | sends so many KiB as the query says |
//! | `many` | sends as many at once as the query says; answers how many succeeded |
//! | `later` | sends, and ends without waiting |

use std::io::Read as _;
use std::time::Duration;

use dunlin_sdk::fetch::{self, Builder, FetchError, Pending};
use dunlin_sdk::{Request, Response};
use serde_json::{Value, json};

#[dunlin_sdk::http]
fn handle(request: Request) -> Response {
    let text = String::from_utf8_lossy(request.body()).into_owned();
    let (url, body) = text.split_once('\n').unwrap_or((&text, ""));
    let query = request.query().unwrap_or_default().to_owned();
    let how = request.path().split('/').nth(2).unwrap_or_default();
    let get = || fetch::get(url);
    let answer = match how {
        "ok" => Ok(json!("ok")),
        "get" => whole(get()),
        "post" => whole(fetch::post(url).body(body)),
        "with" => {
            let fields = query.split('&').filter_map(|field| field.split_once(':'));
            whole(fields.fold(get(), |request, (name, value)| request.header(name, value)))
        }
        "follow" => follow(get()),
        "count" => get().send().and_then(|mut answer| {
            let mut buffer = [0; 8192];
            let mut count = 0;
            loop {
                match answer.read(&mut buffer) {
                    Ok(0) => break Ok(json!({ "count": count })),
                    Ok(read) => count += read,
                    Err(error) => break Ok(json!({ "count": count, "error": error.to_string() })),
                }
            }
        }),
        "quick" => whole(in_time(get(), Duration::from_millis(200))),
        "patient" => whole(in_time(get(), Duration::from_secs(3600))),
        "hold" => get().send().map(|_held| {
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }),
        "trap" => get().send().map(|_held| panic!("as asked")),
        "upload" => {
            let size = query.parse::<usize>().unwrap_or(0) << 10;
            whole(fetch::post(url).body(vec![b'x'; size]))
        }
        "many" => many(&get(), query.parse().unwrap_or(0)),
        "later" => get().start().map(|pending| {
            std::mem::forget(pending);
            json!("sent")
        }),
        other => Ok(json!({ "unknown": other })),
    };
    let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:?}") }));
    Response::text(answer.to_string())
}

fn in_time(request: Builder, time: Duration) -> Builder {
    request.first_byte_timeout(time).between_bytes_timeout(time)
}

fn whole(request: Builder) -> Result<Value, FetchError> {
    let answer = request.send()?;
    let status = answer.status().as_u16();
    let headers = answer
        .headers()
        .map(|(name, value)| (name.to_owned(), json!(String::from_utf8_lossy(value))));
    let headers: Value = headers.collect::<serde_json::Map<_, _>>().into();
    let body = answer.text()?;
    Ok(json!({ "status": status, "headers": headers, "body": body }))
}

fn follow(request: Builder) -> Result<Value, FetchError> {
    let answer = request.send()?;
    match answer.header("location") {
        Some(to) => whole(fetch::get(to)),
        None => Ok(json!({ "status": answer.status().as_u16() })),
    }
}

fn many(request: &Builder, count: usize) -> Result<Value, FetchError> {
    let pending: Result<Vec<Pending>, _> = (0..count).map(|_| request.clone().start()).collect();
    let mut errors = std::collections::BTreeMap::<String, usize>::new();
    let mut succeeded = 0;
    for pending in pending? {
        match pending.wait().and_then(|answer| answer.text()) {
            Ok(_) => succeeded += 1,
            Err(error) => *errors.entry(format!("{error:?}")).or_default() += 1,
        }
    }
    Ok(json!({ "succeeded": succeeded, "errors": errors }))
}
