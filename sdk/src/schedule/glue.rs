//! Between the generated types and ours. The code that `#[schedule]` writes calls
//! this; nobody else does.

use dunlin_sdk_async::schedule::dunlin::event::types as async_types;
use dunlin_sdk_async::schedule::exports::dunlin::event::schedule as asynchronous;

use super::Tick;
use crate::bindings::schedule::dunlin::event::types;
use crate::bindings::schedule::exports::dunlin::event::schedule as synchronous;
use crate::failure::Outcome;
use crate::{Failure, time};

pub use async_types::Failure as AsyncFailure;
pub use asynchronous::Guest as AsyncGuest;
pub use asynchronous::Tick as AsyncTick;
pub use synchronous::Guest;
pub use synchronous::Tick as RawTick;
pub use types::Failure as RawFailure;

/// Answers a tick.
///
/// # Errors
///
/// What shall become of it, if the handler failed.
pub fn run<R, K, F>(tick: impl Into<Tick>, handle: impl FnOnce(Tick) -> R) -> Result<(), F>
where
    R: Outcome<K>,
    F: From<Failure>,
{
    let tick = tick.into();
    let (id, attempt) = (tick.id.clone(), tick.attempt);
    answer(&id, attempt, handle(tick))
}

/// Answers a tick by an asynchronous handler.
///
/// # Errors
///
/// As [`run`].
pub async fn run_async<R, K, F>(
    tick: impl Into<Tick>,
    handle: impl AsyncFnOnce(Tick) -> R,
) -> Result<(), F>
where
    R: Outcome<K>,
    F: From<Failure>,
{
    let tick = tick.into();
    let (id, attempt) = (tick.id.clone(), tick.attempt);
    answer(&id, attempt, handle(tick).await)
}

fn answer<K, F: From<Failure>>(id: &str, attempt: u32, outcome: impl Outcome<K>) -> Result<(), F> {
    outcome.into_result().map_err(|failure| {
        failure.log("tick", id, attempt);
        failure.into()
    })
}

/// The same types are generated once for each ABI.
macro_rules! conversions {
    ($tick:ty, $types:ident) => {
        impl From<$tick> for Tick {
            fn from(tick: $tick) -> Self {
                let $types::Delivery {
                    id,
                    attempt,
                    max_attempts,
                    // When the host fired it, and the schedule: both are in the tick.
                    enqueued_at: _,
                    source: _,
                } = tick.delivery;
                Self {
                    id,
                    attempt,
                    max_attempts: (max_attempts > 0).then_some(max_attempts),
                    schedule: tick.schedule,
                    scheduled_at: time::from_millis(tick.scheduled_at),
                    fired_at: time::from_millis(tick.fired_at),
                    missed: tick.missed,
                    payload: tick.payload,
                }
            }
        }

        impl From<Failure> for $types::Failure {
            fn from(failure: Failure) -> Self {
                if failure.is_rejection() {
                    Self::Reject(failure.into_reason())
                } else {
                    Self::Retry(failure.delay().map(time::to_millis))
                }
            }
        }
    };
}

conversions!(RawTick, types);
conversions!(AsyncTick, async_types);

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn raw() -> RawTick {
        RawTick {
            delivery: types::Delivery {
                id: "nightly-1".to_owned(),
                attempt: 2,
                max_attempts: 3,
                enqueued_at: 1_750,
                source: "nightly".to_owned(),
            },
            schedule: "nightly".to_owned(),
            scheduled_at: 1_500,
            fired_at: 1_750,
            missed: 4,
            payload: b"{}".to_vec(),
        }
    }

    #[test]
    fn a_tick_keeps_all_that_the_host_says_of_it() {
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let mut expected = Tick::new("nightly")
            .with_time(at(1_500))
            .with_payload("{}")
            .with_attempt(2, 3);
        expected.id = "nightly-1".to_owned();
        expected.fired_at = at(1_750);
        expected.missed = 4;
        assert_eq!(Tick::from(raw()), expected);
    }

    #[test]
    fn a_handler_that_fails_says_what_becomes_of_the_tick() {
        let rejected = run(raw(), |_| Err(Failure::reject("no")));
        assert!(matches!(rejected, Err(RawFailure::Reject(reason)) if reason == "no"));
        let delay = Duration::from_millis(7);
        let later = run(raw(), |_| Err(Failure::retry_after(delay)));
        assert!(matches!(later, Err(RawFailure::Retry(Some(7)))));
        let retried = run(raw(), |_| Err("no"));
        assert!(matches!(retried, Err(RawFailure::Retry(None))));
        let handled = run(raw(), |_| ());
        assert!(matches!(handled, Ok::<(), RawFailure>(())));
    }
}
