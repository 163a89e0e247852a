//! Answers what the host lets it see, and writes what it is told to. The second
//! segment of the path says what.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use dunlin_sdk::{Context, Request, Response, metrics};
use serde_json::json;

#[dunlin_sdk::http]
fn handle(request: Request, context: Context) -> Response {
    let query = |name: &str| request.query_param(name).map(|value| value.into_owned());
    match request.path().split('/').nth(2).unwrap_or_default() {
        "context" => seen(&context),
        "secret" => Response::json(&context.secret(&query("name").unwrap_or_default())),
        "environment" => {
            let all: BTreeMap<String, String> = std::env::vars().collect();
            let arguments: Vec<String> = std::env::args().collect();
            Response::json(&json!({ "variables": all, "arguments": arguments }))
        }
        "print" => {
            println!("to stdout");
            eprintln!("to stderr");
            Response::text("printed\n")
        }
        "print-without-end" => {
            print!("without an end");
            Response::text("printed\n")
        }
        "log" => {
            log::error!("an error");
            log::warn!(code = 7; "a warning");
            log::info!(kind = "forged", request_id = "forged"; "some information");
            log::debug!("a detail");
            Response::text("logged\n")
        }
        "metrics" => {
            let n = query("n").map_or(1, |n| n.parse().expect("a number"));
            metrics::counter("orders").label("country", "de").add(2.0);
            metrics::gauge("depth").set(7.5);
            metrics::histogram("lag_seconds").observe(0.003);
            // Not taken: no name, and no amount of a counter.
            metrics::counter("no name").add(1.0);
            metrics::counter("orders").label("country", "de").add(-1.0);
            for i in 1..n {
                metrics::counter("many").label("n", i.to_string()).add(1.0);
            }
            Response::text("counted\n")
        }
        // What can be reached from here without being granted.
        "reach" => {
            let file = std::fs::read_to_string("/etc/hostname").map_err(|e| e.kind().to_string());
            let folder = std::fs::read_dir("/")
                .map(|_| ())
                .map_err(|e| e.kind().to_string());
            let input = std::io::read_to_string(std::io::stdin()).map_err(|e| e.kind().to_string());
            Response::json(&json!({
                "file": file.is_ok(),
                "folder": folder.is_ok(),
                "input": input.unwrap_or_default(),
            }))
        }
        other => Response::text(format!("`{other}` is nothing I do")).with_status(404),
    }
}

fn seen(context: &Context) -> Response {
    let fuel = context.remaining_fuel();
    let time = context.remaining_time();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let now = || std::time::SystemTime::now().duration_since(UNIX_EPOCH);
    let deadline = context.deadline().duration_since(UNIX_EPOCH);
    Response::json(&json!({
        "requestId": context.request_id(),
        "function": context.function_name(),
        "version": context.version(),
        "invokedAs": context.invoked_as(),
        "memoryLimit": context.memory_limit(),
        "deadlineMs": deadline.map_or(0, |at| at.as_millis() as u64),
        "nowMs": now().map_or(0, |at| at.as_millis() as u64),
        "timeMs": time.as_millis() as u64,
        "laterTimeMs": context.remaining_time().as_millis() as u64,
        "fuel": fuel,
        "laterFuel": context.remaining_fuel(),
        "attempt": context.attempt(),
        "traceparent": context.traceparent(),
        "parameters": context.route_parameters(),
        "route": context.route(),
        "client": context.client_address(),
        "clientContext": context.client_context(),
        "logGroup": context.log_group(),
        "logStream": context.log_stream(),
    }))
}
