//! Requests to other servers, by HTTP.
//!
//! A function reaches only what its manifest lists in `egress`:
//!
//! ```toml
//! [function.weather]
//! egress = ["https://api.example.com"]
//! ```
//!
//! ```
//! use dunlin_sdk::{Error, Request, Response, fetch};
//!
//! #[dunlin_sdk::http]
//! fn handle(request: Request) -> Result<Response, Error> {
//!     let city = request.param("city").unwrap_or("Berlin");
//!     let forecast = fetch::get(format!("https://api.example.com/v1/{city}"))
//!         .header("accept", "application/json")
//!         .send()?
//!         .ok()?
//!         .text()?;
//!     Ok(Response::text(forecast))
//! }
//! ```
//!
//! - The host keeps connections and uses them again, also for other instances of the
//!   function: making a request costs no handshake each time.
//! - Redirects are not followed: the answer has its `location`, and whether it may be asked
//!   for is decided when it is.
//! - Any status is an answer; [`Response::ok`] makes an error of those that are none.
//! - [`Builder::send`] waits. To have several requests under way, [`start`](Builder::start)
//!   them all and [`wait`](Pending::wait) then.
//! - The answer's body comes as it is read: by [`Response::bytes`] as a whole, or bit by bit
//!   through [`std::io::Read`]. What is read as a whole is held in the function's memory.
//! - An answer may begin before the request's body is sent. The rest is then sent while the
//!   answer is read.
//! - An invocation that ends takes its requests along.
//!
//! These calls use WASI 0.2 (`wasi:http/outgoing-handler`).
//!
//! In tests on the build machine there is no host: [`stub`] answers in its place.

mod error;
#[cfg(target_arch = "wasm32")]
mod host;
mod response;
#[cfg(not(target_arch = "wasm32"))]
mod stub;

use std::time::Duration;

use serde::Serialize;

#[cfg(not(target_arch = "wasm32"))]
use self::stub as host;

pub use error::FetchError;
pub use response::Response;
#[cfg(not(target_arch = "wasm32"))]
pub use stub::stub;

/// Asks for a resource.
pub fn get(url: impl Into<String>) -> Builder {
    Builder::new("GET", url)
}

/// Sends something.
pub fn post(url: impl Into<String>) -> Builder {
    Builder::new("POST", url)
}

/// A request that is being written.
#[derive(Clone, Debug)]
#[must_use = "a request is sent by `send` or `start`"]
pub struct Builder {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeouts: Timeouts,
    wrong: Option<String>,
}

/// How long what may take. The host's own limits hold where nothing is said, and where
/// more is.
#[derive(Clone, Copy, Debug, Default)]
struct Timeouts {
    connect: Option<Duration>,
    first_byte: Option<Duration>,
    between_bytes: Option<Duration>,
}

impl Builder {
    /// A request by this method for `http://…` or `https://…`.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeouts: Timeouts::default(),
            wrong: None,
        }
    }

    /// Adds a header. `host`, `connection` and others that the host sets are refused when the
    /// request is sent.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers
            .push((name.into().to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets the body. Its length is sent along.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to a value as JSON, with its `content-type`.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.header("content-type", "application/json").body(body),
            Err(error) => Self {
                wrong: Some(format!("the body cannot be JSON: {error}")),
                ..self
            },
        }
    }

    /// How long it may take to be connected, name resolution and TLS included. The manifest
    /// has the most: `connect-timeout`, 10 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.connect = Some(timeout);
        self
    }

    /// How long the answer may take to begin. The manifest has the most:
    /// `first-byte-timeout`, 60 s by default.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.first_byte = Some(timeout);
        self
    }

    /// How long the answer's body may pause. The manifest has the most:
    /// `between-bytes-timeout`, 60 s by default.
    pub fn between_bytes_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.between_bytes = Some(timeout);
        self
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The body as it stands.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Sends it, and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// It may not be sent, or there is no answer.
    pub fn send(self) -> Result<Response, FetchError> {
        self.start()?.wait()
    }

    /// Sends it, and does not wait for the answer.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn start(self) -> Result<Pending, FetchError> {
        match &self.wrong {
            Some(what) => Err(FetchError::Invalid(what.clone())),
            None => Ok(Pending(host::start(self)?)),
        }
    }
}

/// A request that is under way. Dropped, it is given up.
#[must_use = "an answer that nobody waits for is not read"]
pub struct Pending(host::Pending);

impl Pending {
    /// Waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn wait(self) -> Result<Response, FetchError> {
        self.0.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StatusCode;

    #[test]
    fn a_stub_answers_in_place_of_the_host() {
        stub(|request| {
            assert_eq!(
                (request.method(), request.url()),
                ("POST", "https://a.example/x")
            );
            assert_eq!(request.body_bytes(), b"[1,2]");
            Ok(Response::new(201, "made").with_header("Location", "/x/1"))
        });
        let response = post("https://a.example/x").json(&[1, 2]).send().unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.header("location"), Some("/x/1"));
        assert_eq!(response.text().unwrap(), "made");
    }

    #[test]
    fn a_status_that_is_no_success_is_an_error_where_one_is_wanted() {
        stub(|_| Ok(Response::new(404, "no")));
        let response = get("https://a.example/").send().unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let error = get("https://a.example/").send().unwrap().ok().map(|_| ());
        assert_eq!(error, Err(FetchError::Status(StatusCode::NOT_FOUND)));
    }

    #[test]
    fn what_cannot_be_json_is_said_when_it_is_sent() {
        let value = std::collections::HashMap::from([((1, 2), 3)]);
        let sent = post("https://a.example/").json(&value).send();
        assert!(matches!(sent.map(|_| ()), Err(FetchError::Invalid(_))));
    }
}
