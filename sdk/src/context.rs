use std::fmt;
use std::time::{Duration, SystemTime};

use crate::time;

#[cfg(target_arch = "wasm32")]
use crate::bindings::imports::context as host;
#[cfg(not(target_arch = "wasm32"))]
use native as host;

/// What a handler may ask about the invocation it runs in.
///
/// Take it as the second argument of a handler, or call [`Context::current`]
/// anywhere. It holds nothing: each method asks the host, and its answer always
/// belongs to the invocation that asks, also when an instance is reused.
///
/// Outside an invocation (while a function initialises, and in native tests)
/// the methods answer with empty strings, zero and `None`.
///
/// ```
/// use dunlin_sdk::{Context, Request, Response};
/// use std::time::Duration;
///
/// #[dunlin_sdk::http]
/// fn handle(_request: Request, context: Context) -> Response {
///     if context.remaining_time() < Duration::from_millis(100) {
///         return Response::new(503);
///     }
///     Response::text(context.request_id())
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Context(());

impl Context {
    /// The context of the current invocation.
    pub fn current() -> Self {
        Self(())
    }

    /// Names this invocation in the log and towards the client: a UUID. It is
    /// the same on each attempt of one asynchronous event.
    pub fn request_id(&self) -> String {
        host::request_id()
    }

    /// The name under which the function is deployed.
    pub fn function_name(&self) -> String {
        host::function_name()
    }

    /// The version that runs: a number, or `$LATEST`.
    pub fn version(&self) -> String {
        host::function_version()
    }

    /// The ARN the caller used, with the alias or version as the caller gave it.
    pub fn invoked_as(&self) -> String {
        host::invoked_as()
    }

    /// The cap on the instance's memory in bytes.
    pub fn memory_limit(&self) -> u64 {
        host::memory_limit()
    }

    /// When the host ends this invocation.
    pub fn deadline(&self) -> SystemTime {
        time::from_millis(self.deadline_ms())
    }

    /// How long until the [`deadline`](Self::deadline), in whole milliseconds;
    /// zero when it has passed.
    pub fn remaining_time(&self) -> Duration {
        Duration::from_millis(host::remaining_time())
    }

    /// What is left of the budget of computation; `None` when it is unlimited.
    /// One unit is about one WebAssembly instruction.
    pub fn remaining_fuel(&self) -> Option<u64> {
        host::remaining_fuel()
    }

    /// Which attempt of its event this invocation is, from 1.
    pub fn attempt(&self) -> u32 {
        host::attempt()
    }

    /// The W3C `traceparent` of this invocation.
    pub fn traceparent(&self) -> Option<String> {
        host::traceparent()
    }

    /// The parameters that the HTTP route took from the path, decoded, in the
    /// order of the pattern. See also [`Request::param`](crate::Request::param).
    pub fn route_parameters(&self) -> Vec<(String, String)> {
        host::route_parameters()
    }

    /// The pattern of the HTTP route, such as `/users/{id}`. `None` if HTTP did
    /// not bring the event.
    pub fn route(&self) -> Option<String> {
        host::route()
    }

    /// The address of the HTTP peer, without its port. `None` if HTTP did not
    /// bring the event.
    pub fn client_address(&self) -> Option<String> {
        host::client_address()
    }

    /// The client context of a direct invocation: JSON, as the client sent it.
    pub fn client_context(&self) -> Option<String> {
        host::client_context()
    }

    /// Where the function's log lines go, in Lambda's words:
    /// `/aws/lambda/<function>`.
    pub fn log_group(&self) -> String {
        host::log_group()
    }

    /// The stream of log lines this instance writes to.
    pub fn log_stream(&self) -> String {
        host::log_stream()
    }

    /// The current value of a secret. `None` if the function's configuration
    /// does not declare one of this name.
    pub fn secret(&self, name: &str) -> Option<String> {
        host::secret(name)
    }

    /// Says when to try again should this invocation fail: its event comes back
    /// no earlier than after this delay, rounded up to milliseconds and capped
    /// at 12 hours by the host. The last call counts.
    ///
    /// It holds for asynchronous invocations, schedules, and each failed message
    /// of a batch that has no delay of its own; see
    /// [`Failure::retry_after`](crate::Failure::retry_after) for that. Where
    /// somebody waits for the answer nothing is tried again, and it changes
    /// nothing.
    ///
    /// ```
    /// use dunlin_sdk::{Context, Error};
    /// use std::time::Duration;
    ///
    /// #[dunlin_sdk::invoke]
    /// fn handle(address: String, context: Context) -> Result<(), Error> {
    ///     # let is_busy = |_: &str| true;
    ///     if is_busy(&address) {
    ///         context.retry_after(Duration::from_secs(60));
    ///         return Err("the line is busy".into());
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn retry_after(&self, delay: Duration) {
        host::retry_after(time::to_millis(delay));
    }

    /// The deadline in milliseconds since 1970-01-01T00:00:00Z.
    pub(crate) fn deadline_ms(&self) -> u64 {
        host::deadline()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// The host's answers where there is no host.
#[cfg(not(target_arch = "wasm32"))]
mod native {
    macro_rules! answers {
        ($($name:ident: $type:ty),* $(,)?) => {
            $(pub(super) fn $name() -> $type {
                Default::default()
            })*
        };
    }

    answers! {
        request_id: String,
        function_name: String,
        function_version: String,
        invoked_as: String,
        memory_limit: u64,
        deadline: u64,
        remaining_time: u64,
        remaining_fuel: Option<u64>,
        attempt: u32,
        traceparent: Option<String>,
        route_parameters: Vec<(String, String)>,
        route: Option<String>,
        client_address: Option<String>,
        client_context: Option<String>,
        log_group: String,
        log_stream: String,
    }

    pub(super) fn secret(_name: &str) -> Option<String> {
        None
    }

    pub(super) fn retry_after(_delay: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_host_the_answers_are_empty() {
        let context = Context::current();
        assert_eq!(context.request_id(), "");
        assert_eq!(context.deadline(), SystemTime::UNIX_EPOCH);
        assert_eq!(context.remaining_time(), Duration::ZERO);
        assert_eq!(context.remaining_fuel(), None);
        assert_eq!(context.secret("api-key"), None);
    }
}
