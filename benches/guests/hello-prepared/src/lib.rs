//! The same hello as `guest-examples/hello`, but that it looks its greeting up, among 5 000 that
//! `init` has put into a map.

use std::collections::HashMap;
use std::sync::OnceLock;

use dunlin_sdk::{Request, Response};

/// Greetings in the map.
const GREETINGS: usize = 5_000;

static BY_NAME: OnceLock<HashMap<String, String>> = OnceLock::new();

#[dunlin_sdk::init]
fn prepare() -> Result<(), String> {
    let others = (1..GREETINGS).map(|number| format!("guest-{number}"));
    let names = others.chain(["world".to_owned()]);
    let greetings = names.map(|name| {
        let greeting = format!("Hello, {name}!\n");
        (name, greeting)
    });
    let set = BY_NAME.set(greetings.collect());
    set.map_err(|_| "it ran before".into())
}

#[dunlin_sdk::http]
fn hello(request: Request) -> Response {
    let by_name = BY_NAME.get().expect("`prepare` ran before any event");
    let name = request.param("name").unwrap_or("world");
    match by_name.get(name) {
        Some(greeting) => Response::text(greeting.clone()),
        None => Response::text(format!("Hello, {name}!\n")),
    }
}
