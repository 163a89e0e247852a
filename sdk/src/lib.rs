//! Write functions for Dunlin in Rust.
//!
//! A function is a crate of type `cdylib`, built for `wasm32-wasip2`, in which
//! one attribute marks each handler:
//!
//! ```
//! use dunlin_sdk::{Request, Response};
//!
//! #[dunlin_sdk::http]
//! fn handle(request: Request) -> Response {
//!     let name = request.param("name").unwrap_or("world");
//!     Response::text(format!("Hello, {name}!\n"))
//! }
//! ```
//!
//! | attribute | handler | may take | returns |
//! |---|---|---|---|
//! | [`http`](macro@http) | an HTTP request | [`Request`] | anything that is [`IntoResponse`] |
//! | [`invoke`](macro@invoke) | a direct invocation, or any other event as the JSON that Lambda would send | anything that is [`FromEvent`]: a `Deserialize` type, [`Raw`], [`LambdaEvent`] | `Result` of a `Serialize` type or [`Raw`], and an error |
//!
//! | [`schedule`](macro@schedule) | one fire of a schedule | [`Tick`] | nothing, or `Result<(), E>`: see [`Failure`] |
//! | [`queue`](macro@queue) | messages of a queue | [`Message`], one after the other, or [`Batch`] | nothing or `Result<(), E>`, for a batch [`BatchResult`]: see [`Failure`] |
//!
//! Each may take a [`Context`] as its second argument, and a crate may have
//! one of each. A handler is a plain `fn` or an `async fn`. The plain one is
//! the fast path: prefer it unless there is something to await.
//!
//! Any handler may send messages to queues and invoke other functions: see
//! [`producer`]. To ask other servers, by HTTP: see [`fetch`]. [`config`] has what whoever
//! deploys it chose.
//!
//! # Instances
//!
//! By default each event gets a fresh instance: what a handler leaves in a
//! `static` is gone with it. What must last belongs in a bucket: see [`key_value`].
//!
//! What every event needs is prepared before the first, once: by
//! [`init`](macro@init), whose result each instance finds. Under `isolation =
//! "reuse"`, [`retire`](macro@retire) is told when an instance ends.
//!
//! # Memory
//!
//! The host resets a small instance at next to no cost, so it pays to stay
//! small: `dunlin new` links functions with a stack of 64 KiB, by
//! `-Clink-arg=-zstack-size=65536` for the target `wasm32-wasip2` in
//! `.cargo/config.toml`. The stack lies first in memory, so an overflow traps,
//! as an access out of bounds. A function that needs more raises the size there,
//! or, as one of several in a workspace, in its `build.rs`:
//!
//! ```
//! println!("cargo::rustc-link-arg-cdylib=-zstack-size=1048576");
//! ```
//!
//! # Logs
//!
//! With the feature `log` (default) the records of the `log` crate, and with
//! `tracing` the events of the `tracing` crate, reach the host with their level
//! and fields. What is printed to standard output or error reaches it as plain
//! text. See [`logging`].
//!
//! # Tests on the build machine
//!
//! The crate also builds natively, so that handlers can be tested as the plain
//! functions they are, with [`Request::new`] to make requests. The host is
//! absent there: [`Context`] answers as it does outside an invocation, with
//! empty strings, zeros and `None`, metrics go nowhere, and what is sent stays
//! in the [`producer::outbox`]. [`Message::new`] and [`Tick::new`] make events.
//!
//! ```
//! # use dunlin_sdk::{Request, Response};
//! # fn handle(request: Request) -> Response {
//! #     Response::text(format!("Hello, {}!\n", request.param("name").unwrap()))
//! # }
//! let request = Request::new("GET", "/hello/ada").with_param("name", "ada");
//! assert_eq!(handle(request).body(), b"Hello, ada!\n");
//! ```

// The attributes name this crate by its name; so may its own tests.
extern crate self as dunlin_sdk;

mod bindings;
pub mod config;
mod context;
mod error;
mod failure;
pub mod fetch;
pub mod http;
pub mod invoke;
pub mod key_value;
pub mod lambda;
mod lifecycle;
pub mod logging;
pub mod metrics;
pub mod producer;
pub mod queue;
pub mod schedule;
mod time;

pub use context::Context;
pub use error::Error;
pub use failure::Failure;
pub use http::{HttpError, IntoResponse, Json, Request, Response, StatusCode};
pub use invoke::{FromEvent, FunctionError, Raw};
pub use lambda::LambdaEvent;
pub use queue::{Batch, BatchResult, Message};
pub use schedule::Tick;

/// Makes a function the handler of HTTP requests.
///
/// It takes a [`Request`], then if it likes a [`Context`], and returns anything
/// that is [`IntoResponse`]. It may be `async`.
///
/// ```
/// use dunlin_sdk::{Error, Json, Request};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct Order {
///     price: f64,
///     count: u32,
/// }
///
/// #[derive(Serialize)]
/// struct Total {
///     total: f64,
/// }
///
/// #[dunlin_sdk::http]
/// fn handle(request: Request) -> Result<Json<Total>, Error> {
///     let order: Order = request.json()?;
///     Ok(Json(Total { total: order.price * f64::from(order.count) }))
/// }
/// ```
pub use dunlin_sdk_macros::http;

/// Makes a function the handler of direct invocations.
///
/// It takes anything that is [`FromEvent`], then if it likes a [`Context`], and
/// returns a `Result`: on success a `Serialize` type or [`Raw`], otherwise an
/// error that becomes a [`FunctionError`]. It may be `async`.
///
/// ```
/// use dunlin_sdk::{Context, Error};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct Square {
///     number: i64,
/// }
///
/// #[derive(Serialize)]
/// struct Answer {
///     square: i64,
///     request_id: String,
/// }
///
/// #[dunlin_sdk::invoke]
/// fn handle(event: Square, context: Context) -> Result<Answer, Error> {
///     let square = event.number.checked_mul(event.number).ok_or("too large")?;
///     Ok(Answer { square, request_id: context.request_id() })
/// }
/// ```
pub use dunlin_sdk_macros::invoke;

/// Makes a function the handler of schedules.
///
/// It takes a [`Tick`], then if it likes a [`Context`], and returns `Result<(), E>`,
/// or nothing if it cannot fail. What an error means for the tick is told at
/// [`Failure`]. It may be `async`.
///
/// ```
/// use dunlin_sdk::{Error, Tick};
///
/// #[dunlin_sdk::schedule]
/// fn clean_up(tick: Tick) -> Result<(), Error> {
///     for entry in std::fs::read_dir("/data")? {
///         let entry = entry?;
///         let age = tick.scheduled_at.duration_since(entry.metadata()?.modified()?);
///         if age.is_ok_and(|age| age.as_secs() > 24 * 60 * 60) {
///             std::fs::remove_file(entry.path())?;
///         }
///     }
///     Ok(())
/// }
/// ```
pub use dunlin_sdk_macros::schedule;

/// Makes a function the handler of queues.
///
/// It takes one of these, then if it likes a [`Context`], and may be `async`:
///
/// - a [`Message`]. It is run for each message of a batch in turn, and returns
///   `Result<(), E>`, or nothing if it cannot fail. A message that fails fails
///   for itself; in a FIFO queue it holds up those of its group, as
///   [`Batch::each`] tells.
/// - a [`Batch`], or a `Vec<Message>`. It returns a [`BatchResult`], nothing if
///   all are handled for certain, or a `Result` of either. With `Err`, all
///   messages come again; none is rejected, since a `?` about one message says
///   nothing of the others.
///
/// What an error means for a message is told at [`Failure`]. A panic or a timeout
/// ends the whole batch, and all of its messages come again: those, too, that
/// were handled before.
///
/// ```
/// use dunlin_sdk::{Error, Message};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Order {
///     thing: String,
///     count: u32,
/// }
///
/// #[dunlin_sdk::queue]
/// fn handle(message: Message) -> Result<(), Error> {
///     // A body that is no order is rejected: it will never be one.
///     let order: Order = message.json()?;
///     println!("{} of {}", order.count, order.thing);
///     Ok(())
/// }
/// ```
pub use dunlin_sdk_macros::queue;

/// Makes a function what runs before the first event.
///
/// It takes nothing, and returns nothing or `Result<(), E>`, where `E` is `Display`.
/// An error refuses the deploy, and is shown to whoever deploys. It has ten seconds, and
/// ten times the fuel of an invocation. A crate has at most one.
///
/// It runs once, at deploy: what it leaves in memory is there in every instance, at no
/// cost. That is so unless it prints or logs, reads a file, asks a clock or for random
/// numbers, or reaches out of the sandbox: kept for all instances, that would not be
/// true. Then the deploy says what stood in the way, and it runs in each instance before
/// that has its first event. Environment variables may be read: another value makes
/// another state. Secrets are not there yet.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::OnceLock;
///
/// use dunlin_sdk::{Error, Request, Response};
///
/// static CAPITALS: OnceLock<HashMap<&str, &str>> = OnceLock::new();
///
/// #[dunlin_sdk::init]
/// fn index() -> Result<(), Error> {
///     let lines = "France,Paris\nNorway,Oslo".lines();
///     let pairs = lines.map(|line| line.split_once(',').ok_or("a line has no comma"));
///     let capitals = pairs.collect::<Result<_, _>>()?;
///     CAPITALS.set(capitals).expect("it runs once");
///     Ok(())
/// }
///
/// #[dunlin_sdk::http]
/// fn handle(request: Request) -> Response {
///     let country = request.param("country").unwrap_or("");
///     match CAPITALS.get().and_then(|capitals| capitals.get(country)) {
///         Some(capital) => Response::text(*capital),
///         None => Response::new(404_u16),
///     }
/// }
/// ```
pub use dunlin_sdk_macros::init;

/// Makes a function what runs when a reused instance ends in good health.
///
/// It takes and returns nothing, and has two seconds and the fuel of an invocation.
/// It is called only under `isolation = "reuse"`, and only for an instance that has
/// served; not after a trap, a timeout or a cancelled invocation, nor where the host
/// needs the instance's memory at once. So nothing that must happen belongs here: what
/// does, belongs in the handler. A crate has at most one.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use dunlin_sdk::{Request, Response};
///
/// static SERVED: AtomicU64 = AtomicU64::new(0);
///
/// #[dunlin_sdk::http]
/// fn handle(_request: Request) -> Response {
///     SERVED.fetch_add(1, Ordering::Relaxed);
///     Response::text("ok")
/// }
///
/// #[dunlin_sdk::retire]
/// fn say_goodbye() {
///     println!("served {} events", SERVED.load(Ordering::Relaxed));
/// }
/// ```
pub use dunlin_sdk_macros::retire;

/// What the code that the attributes write refers to. Not part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::{http, initialise, invoke, queue, retire, schedule};
    pub use crate::http::glue as http_glue;
    pub use crate::invoke::glue as invoke_glue;
    pub use crate::lifecycle::{InitialiseGuest, RetireGuest, outcome};
    pub use crate::logging::install;
    pub use crate::queue::glue as queue_glue;
    pub use crate::schedule::glue as schedule_glue;
    pub use dunlin_sdk_async as asynchronous;

    /// Sends on what was printed without an end of line: nobody runs a fresh
    /// instance's destructors.
    pub fn flush() {
        use std::io::Write as _;

        let _ = std::io::stdout().flush();
    }
}
