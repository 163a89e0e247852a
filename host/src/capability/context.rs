//! `dunlin:event/context`: what a handler may ask about its invocation.

use std::time::{Duration, Instant, SystemTime};

use wasmtime::component::{Access, HasSelf};
use wasmtime::{AsContext as _, AsContextMut as _};

use super::bindings::dunlin::event::{context, types};
use crate::function::Fuel;
use crate::runtime::State;

/// The longest that a message is hidden (SQS's limit of a visibility timeout).
const MAX_RETRY_AFTER: Duration = Duration::from_hours(12);

/// Where a function's log lines go, in Lambda's words.
pub(super) fn log_group(function: &str) -> String {
    format!("/aws/lambda/{function}")
}

impl types::Host for State {}

/// The state, at the request that this call belongs to.
fn here<'a, T>(access: &'a mut Access<'_, T, HasSelf<State>>) -> &'a mut State {
    let task = if access.get().serves_several() {
        let mut store = access.as_context_mut();
        // The request's own task is the last: others were called by it.
        store.async_call_stack().ok().and_then(Iterator::last)
    } else {
        None
    };
    let state = access.get();
    state.focus(task);
    state
}

impl<T: Send + 'static> context::HostWithStore<T> for HasSelf<State> {
    fn remaining_fuel(mut store: Access<'_, T, Self>) -> Option<u64> {
        let unlimited = store.get().common.spec.limits.fuel == Fuel::Unlimited;
        if unlimited {
            None
        } else {
            store.as_context().get_fuel().ok()
        }
    }

    fn request_id(mut store: Access<'_, T, Self>) -> String {
        here(&mut store).request_id()
    }

    fn function_name(mut store: Access<'_, T, Self>) -> String {
        here(&mut store).function_name()
    }

    fn function_version(mut store: Access<'_, T, Self>) -> String {
        here(&mut store).function_version()
    }

    fn invoked_as(mut store: Access<'_, T, Self>) -> String {
        here(&mut store).invoked_as()
    }

    fn memory_limit(mut store: Access<'_, T, Self>) -> u64 {
        here(&mut store).memory_limit()
    }

    fn deadline(mut store: Access<'_, T, Self>) -> u64 {
        here(&mut store).deadline()
    }

    fn remaining_time(mut store: Access<'_, T, Self>) -> u64 {
        here(&mut store).remaining_time()
    }

    fn attempt(mut store: Access<'_, T, Self>) -> u32 {
        here(&mut store).attempt()
    }

    fn traceparent(mut store: Access<'_, T, Self>) -> Option<String> {
        here(&mut store).traceparent()
    }

    fn route_parameters(mut store: Access<'_, T, Self>) -> Vec<(String, String)> {
        here(&mut store).route_parameters()
    }

    fn route(mut store: Access<'_, T, Self>) -> Option<String> {
        here(&mut store).route()
    }

    fn client_address(mut store: Access<'_, T, Self>) -> Option<String> {
        here(&mut store).client_address()
    }

    fn client_context(mut store: Access<'_, T, Self>) -> Option<String> {
        here(&mut store).client_context()
    }

    fn log_group(mut store: Access<'_, T, Self>) -> String {
        here(&mut store).log_group()
    }

    fn log_stream(mut store: Access<'_, T, Self>) -> String {
        here(&mut store).log_stream()
    }

    fn retry_after(mut store: Access<'_, T, Self>, delay: u64) {
        here(&mut store).retry_after(delay);
    }

    fn secret(mut store: Access<'_, T, Self>, name: String) -> Option<String> {
        here(&mut store).secret(name)
    }
}

impl context::Host for State {}

/// The answers.
impl State {
    fn request_id(&mut self) -> String {
        self.current
            .as_ref()
            .map(|current| current.call.request_id.to_string())
            .unwrap_or_default()
    }

    fn function_name(&mut self) -> String {
        self.common.spec.name.to_string()
    }

    fn function_version(&mut self) -> String {
        self.common.version.clone()
    }

    fn invoked_as(&mut self) -> String {
        // Lambda's rule: the qualifier as the caller gave it, none if none.
        match self
            .current
            .as_ref()
            .and_then(|current| current.call.qualifier.as_deref())
        {
            Some(qualifier) => format!("{}:{qualifier}", self.common.arn),
            None => self.common.arn.clone(),
        }
    }

    fn memory_limit(&mut self) -> u64 {
        self.common.spec.limits.memory.0
    }

    fn deadline(&mut self) -> u64 {
        self.current
            .as_ref()
            .map(|current| current.deadline_unix())
            .unwrap_or_default()
    }

    fn remaining_time(&mut self) -> u64 {
        let left = self
            .current
            .as_ref()
            .map(|current| current.deadline.saturating_duration_since(Instant::now()));
        u64::try_from(left.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
    }

    fn attempt(&mut self) -> u32 {
        self.current
            .as_ref()
            .map(|current| current.call.attempt)
            .unwrap_or_default()
    }

    fn traceparent(&mut self) -> Option<String> {
        let call = &self.current.as_ref()?.call;
        Some(match &call.traceparent {
            Some(theirs) => theirs.clone(),
            // A trace that begins here, of which nobody keeps samples. Named
            // after the request, so that the two can be told from each other.
            None => call.request_id.with_str(|id| {
                let trace = id.replace('-', "");
                format!("00-{trace}-{}-00", &trace[16..])
            }),
        })
    }

    fn route_parameters(&mut self) -> Vec<(String, String)> {
        let route = self
            .current
            .as_ref()
            .and_then(|current| current.call.route.as_ref());
        route
            .map(|route| route.parameters.clone())
            .unwrap_or_default()
    }

    fn route(&mut self) -> Option<String> {
        Some(
            self.current
                .as_ref()?
                .call
                .route
                .as_ref()?
                .pattern
                .to_string(),
        )
    }

    fn client_address(&mut self) -> Option<String> {
        Some(self.current.as_ref()?.call.client?.to_string())
    }

    fn client_context(&mut self) -> Option<String> {
        self.current.as_ref()?.call.client_context.clone()
    }

    fn log_group(&mut self) -> String {
        log_group(self.common.spec.name.as_str())
    }

    fn log_stream(&mut self) -> String {
        let version = &self.common.version;
        self.log_stream
            .get_or_insert_with(|| {
                let day = time::OffsetDateTime::from(SystemTime::now()).date();
                let (year, month, day) = (day.year(), u8::from(day.month()), day.day());
                format!(
                    "{year}/{month:02}/{day:02}/[{version}]{}",
                    uuid::Uuid::new_v4().simple()
                )
            })
            .clone()
    }

    fn retry_after(&mut self, delay: u64) {
        if let Some(current) = &mut self.current {
            let delay = Duration::from_millis(delay).min(MAX_RETRY_AFTER);
            current.call.retry_after = Some(delay);
        }
    }

    fn secret(&mut self, name: String) -> Option<String> {
        // Only within an invocation: what `init` sees may be kept for all.
        self.current.as_ref()?;
        let secrets = &self.common.spec.secrets;
        secrets
            .iter()
            .find(|secret| secret.name == name)
            .map(|secret| secret.value.clone())
    }
}
