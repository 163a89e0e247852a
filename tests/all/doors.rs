//! The standard doors: components of `wasi:http` 0.2 and 0.3, and programs, that know
//! nothing of the host.

mod broken;
mod ends;
mod exchange;
mod heads;
mod hostile;
mod programs;
mod streaming;

use std::time::Duration;

use dunlin_tests::{Builder, Host, guest};
use serde_json::Value;

/// The guests that do over `wasi:http` what their path says.
const DOORS: [&str; 2] = ["web02", "web03"];

/// Both as functions with these keys.
fn both(keys: &str) -> Builder {
    let builder = Host::builder().function("web02", &guest("web02"), keys);
    builder.function("web03", &guest("web03"), keys)
}

/// Waits for the record of a function's only invocation with this outcome, and until
/// nothing runs; the function answers then.
#[track_caller]
fn ended(host: &Host, function: &str, outcome: &str) -> Value {
    let record = host.wait_for_log(|line| {
        line["kind"] == "invocation" && line["function"] == function && line["outcome"] == outcome
    });
    host.wait_until_quiet();
    let next = host.get(&format!("/{function}/ok"));
    assert_eq!((next.status, next.text().as_str()), (200, "ok"));
    record
}

/// Long enough that the head of an answer is sent before what comes after it.
const PAUSE: Duration = Duration::from_millis(200);

/// A target with a query that asks for [`PAUSE`].
fn paused(target: &str) -> String {
    let sign = if target.contains('?') { '&' } else { '?' };
    format!("{target}{sign}pause={}", PAUSE.as_millis())
}
