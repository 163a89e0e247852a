//! Does what the body says, step by step, and answers what came of each.
//!
//! The body is `{ "draft": 1 or 2, "bucket": NAME, "do": [STEP, …] }`. A step is an array:
//! the operation, and what it is given. The answer has `{ "ok": … }` or `{ "error": … }` for
//! each. `GET` below `/config` and `/log` are for the other two interfaces.

#![allow(unsafe_code, reason = "the bindings are generated")]

use dunlin_sdk::{Error, Request, Response};
use serde_json::{Value, json};

mod draft {
    wit_bindgen::generate!({
        path: "../../../wit/deps/keyvalue-0.2.0-draft",
        inline: "package dunlin:values;
            world values-draft {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
            }",
        world: "dunlin:values/values-draft",
        generate_all,
    });
    pub(crate) use wasi::keyvalue::{atomics, batch, store};
}

mod draft2 {
    wit_bindgen::generate!({
        path: "../../../wit/deps/keyvalue-0.2.0-draft2",
        inline: "package dunlin:values;
            world values-draft2 {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }",
        world: "dunlin:values/values-draft2",
        generate_all,
    });
    pub(crate) use wasi::keyvalue::{atomics, batch, store};
}

mod others {
    pub(crate) mod release {
        wit_bindgen::generate!({
            path: "../../../wit/deps/config-0.2.0-rc.1",
            inline: "package dunlin:values;
                world values-config { import wasi:config/store@0.2.0-rc.1; }",
            world: "dunlin:values/values-config",
            generate_all,
        });
        pub(crate) use wasi::config::store;
    }

    pub(crate) mod draft {
        wit_bindgen::generate!({
            path: "../../../wit/deps/config-0.2.0-draft-2024-09-27",
            inline: "package dunlin:values;
                world values-config-draft { import wasi:config/store@0.2.0-draft-2024-09-27; }",
            world: "dunlin:values/values-config-draft",
            generate_all,
        });
        pub(crate) use wasi::config::store;
    }

    pub(crate) mod log {
        wit_bindgen::generate!({
            path: "../../../wit/deps/logging-0.1.0-draft",
            inline: "package dunlin:values;
                world values-logging { import wasi:logging/logging@0.1.0-draft; }",
            world: "dunlin:values/values-logging",
            generate_all,
        });
        pub(crate) use wasi::logging::logging;
    }
}

#[dunlin_sdk::http]
fn handle(request: Request) -> Result<Response, Error> {
    let query = |name: &str| {
        let value = request.query_param(name);
        value.map_or_else(String::new, |value| value.into_owned())
    };
    let answer = match request.path().split('/').nth(2) {
        Some("config") => configured(&query("name")),
        Some("log") => {
            let repeat = query("repeat").parse().unwrap_or(1);
            log(
                &query("level"),
                &query("context"),
                &query("message"),
                repeat,
            );
            Value::Null
        }
        _ if request.body().is_empty() => Value::Null,
        _ => {
            let body: Value = request.json()?;
            let name = body["bucket"].as_str().unwrap_or_default();
            let steps = body["do"].as_array().cloned().unwrap_or_default();
            if body["draft"] == 1 {
                in_draft(name, &steps)
            } else {
                in_draft2(name, &steps)
            }
        }
    };
    Ok(Response::json(&answer))
}

fn configured(name: &str) -> Value {
    let release = others::release::store::get(name).unwrap();
    let draft = others::draft::store::get(name).unwrap();
    let all = others::release::store::get_all().unwrap();
    let all_draft = others::draft::store::get_all().unwrap();
    let environment: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    json!({
        "value": release,
        "same": release == draft && all == all_draft,
        "all": all,
        "environment": environment,
    })
}

fn log(level: &str, context: &str, message: &str, repeat: usize) {
    use others::log::logging::{Level, log};
    let level = match level {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "critical" => Level::Critical,
        _ => Level::Info,
    };
    log(level, context, &message.repeat(repeat));
}

/// A text of the step, or one as long as its number says.
fn text(step: &Value, at: usize) -> String {
    match step[at].as_u64() {
        Some(length) => "x".repeat(usize::try_from(length).unwrap()),
        None => step[at].as_str().unwrap_or_default().to_owned(),
    }
}

fn keys(step: &Value) -> Vec<String> {
    let keys = step[1].as_array().into_iter().flatten();
    keys.map(|key| key.as_str().unwrap().to_owned()).collect()
}

fn entries(step: &Value) -> Vec<(String, Vec<u8>)> {
    let entries = step[1].as_array().into_iter().flatten();
    let entry = |entry: &Value| (text(entry, 0), text(entry, 1).into_bytes());
    entries.map(entry).collect()
}

/// What a value says: a text, or how long it is.
fn shown(value: Vec<u8>) -> Value {
    match value.len() {
        0..=64 => String::from_utf8_lossy(&value).into_owned().into(),
        length => length.into(),
    }
}

macro_rules! interpreter {
    ($name:ident, $module:ident, $number:ty, $cursor:expr, $more:expr) => {
        fn $name(name: &str, steps: &[Value]) -> Value {
            use $module::store::{Bucket, Error, open};
            use $module::{atomics, batch};

            fn named(error: Error) -> Value {
                match error {
                    Error::NoSuchStore => json!("no-such-store"),
                    Error::AccessDenied => json!("access-denied"),
                    Error::Other(what) => json!(what),
                }
            }

            fn step(bucket: &Bucket, step: &Value) -> Result<Value, Value> {
                let key = text(step, 1);
                let found = |value: Option<Vec<u8>>| value.map_or(Value::Null, shown);
                let done = match step[0].as_str().unwrap() {
                    "get" => bucket.get(&key).map(found),
                    "set" => bucket.set(&key, text(step, 2).as_bytes()).map(Value::from),
                    "delete" => bucket.delete(&key).map(Value::from),
                    "exists" => bucket.exists(&key).map(Value::from),
                    "keys" => {
                        let cursor = $cursor(&step[1]);
                        let page = bucket.list_keys(cursor);
                        page.map(|page| json!({ "keys": page.keys, "cursor": page.cursor }))
                    }
                    "increment" => {
                        let delta = step[2].as_i64().unwrap() as $number;
                        atomics::increment(bucket, &key, delta).map(Value::from)
                    }
                    "count" => (0..step[2].as_u64().unwrap())
                        .try_for_each(|_| atomics::increment(bucket, &key, 1).map(drop))
                        .map(Value::from),
                    "get-many" => batch::get_many(bucket, &keys(step)).map(|all| {
                        let all = all.into_iter();
                        let pairs = all.map(|pair| pair.map(|(key, value)| (key, shown(value))));
                        json!(pairs.collect::<Vec<_>>())
                    }),
                    "set-many" => batch::set_many(bucket, &entries(step)).map(Value::from),
                    // Until there is a file at this path.
                    "wait" => {
                        while !std::path::Path::new(&key).exists() {
                            std::thread::sleep(std::time::Duration::from_millis(10));
                        }
                        return Ok(Value::Null);
                    }
                    "delete-many" => batch::delete_many(bucket, &keys(step)).map(Value::from),
                    other => return $more(bucket, other, step, named),
                };
                done.map_err(named)
            }

            let bucket = match open(name) {
                Ok(bucket) => bucket,
                Err(error) => return json!({ "error": named(error) }),
            };
            let done = steps.iter().map(|it| match step(&bucket, it) {
                Ok(ok) => json!({ "ok": ok }),
                Err(error) => json!({ "error": error }),
            });
            done.collect()
        }
    };
}

interpreter!(
    in_draft,
    draft,
    u64,
    Value::as_u64,
    |_: &_, other: &str, _: &_, _: fn(_) -> Value| panic!("no operation {other}")
);
interpreter!(in_draft2, draft2, i64, Value::as_str, compare);

/// What the second draft has and the first has not.
fn compare(
    bucket: &draft2::store::Bucket,
    operation: &str,
    step: &Value,
    named: fn(draft2::store::Error) -> Value,
) -> Result<Value, Value> {
    use draft2::atomics::{Cas, CasError, swap};
    let key = text(step, 1);
    match operation {
        // Sets a value between the beginning of a swap and its end.
        "race" => {
            let cas = Cas::new(bucket, &key).map_err(named)?;
            let before = cas.current().map_err(named)?.map(shown);
            bucket.set(&key, b"theirs").map_err(named)?;
            match swap(cas, b"mine") {
                Ok(()) => Ok(json!("swapped")),
                Err(CasError::StoreError(error)) => Err(named(error)),
                Err(CasError::CasFailed(again)) => {
                    let now = again.current().map_err(named)?.map(shown);
                    let second = swap(again, b"mine").is_ok();
                    Ok(json!([before, now, second]))
                }
            }
        }
        "swap" => {
            let cas = Cas::new(bucket, &key).map_err(named)?;
            match swap(cas, text(step, 2).as_bytes()) {
                Ok(()) => Ok(json!("swapped")),
                Err(CasError::StoreError(error)) => Err(named(error)),
                Err(CasError::CasFailed(_)) => Ok(json!("changed")),
            }
        }
        // Appends a letter so many times, each by compare-and-swap.
        "append" => {
            let mut failed = 0;
            for _ in 0..step[2].as_u64().unwrap() {
                let mut cas = Cas::new(bucket, &key).map_err(named)?;
                loop {
                    let mut value = cas.current().map_err(named)?.unwrap_or_default();
                    value.push(b'x');
                    match swap(cas, &value) {
                        Ok(()) => break,
                        Err(CasError::StoreError(error)) => return Err(named(error)),
                        Err(CasError::CasFailed(again)) => {
                            failed += 1;
                            cas = again;
                        }
                    }
                }
            }
            Ok(failed.into())
        }
        "handles" => {
            let count = step[2].as_u64().unwrap();
            let all: Result<Vec<Cas>, _> = (0..count).map(|_| Cas::new(bucket, &key)).collect();
            Ok(all.map_err(named)?.len().into())
        }
        other => panic!("no operation {other}"),
    }
}
