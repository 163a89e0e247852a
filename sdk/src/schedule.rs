//! Schedules: a [`Tick`] each time that one fires.
//!
//! Delivery is at least once: a tick that fails comes again with the same
//! [`Tick::id`], also after a restart of the host.

#[doc(hidden)]
pub mod glue;

use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;

use crate::Failure;

/// One fire of a schedule.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// Names the tick: the schedule and the time for which it was planned. The
    /// same on each attempt.
    pub id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// After this many attempts a tick that fails goes to the dead-letter queue.
    /// `None`: there is no such limit.
    pub max_attempts: Option<u32>,
    /// The name of the schedule.
    pub schedule: String,
    /// When it was due. What a tick is about follows from this, not from the
    /// time at which it comes.
    pub scheduled_at: SystemTime,
    /// When the host sent it: later than due after a restart or with jitter.
    pub fired_at: SystemTime,
    /// How many ticks before this one were missed and will not come.
    pub missed: u32,
    /// What the schedule was given to deliver.
    pub payload: Vec<u8>,
}

impl Tick {
    /// A first attempt with no payload, due at the beginning of 1970, for tests of
    /// handlers.
    pub fn new(schedule: impl Into<String>) -> Self {
        Self {
            id: "tick".to_owned(),
            attempt: 1,
            max_attempts: None,
            schedule: schedule.into(),
            scheduled_at: SystemTime::UNIX_EPOCH,
            fired_at: SystemTime::UNIX_EPOCH,
            missed: 0,
            payload: Vec::new(),
        }
    }

    /// Sets when it was due, and fired, for tests.
    #[must_use]
    pub fn with_time(mut self, scheduled_at: SystemTime) -> Self {
        self.scheduled_at = scheduled_at;
        self.fired_at = scheduled_at;
        self
    }

    /// Sets the payload, for tests.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Sets which attempt this is and after how many the tick fails for good, for
    /// tests.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32, max_attempts: impl Into<Option<u32>>) -> Self {
        self.attempt = attempt;
        self.max_attempts = max_attempts.into();
        self
    }

    /// The payload, read as JSON.
    ///
    /// # Errors
    ///
    /// If it is not JSON, or does not fit `T`: the tick is rejected, with a
    /// reason that says what is wrong, and where.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.payload)
            .map_err(|error| Failure::reject(format!("payload: {error}")))
    }

    /// Whether the tick is lost, or a dead letter, if this attempt fails.
    pub fn is_last_attempt(&self) -> bool {
        self.max_attempts.is_some_and(|max| self.attempt >= max)
    }
}

/// Without the payload, which may be secret.
impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tick")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("scheduled_at", &self.scheduled_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_does_not_fit_is_rejected_with_the_reason() {
        let tick = Tick::new("nightly").with_payload("[1]");
        assert_eq!(tick.json(), Ok([1]));
        let failure = tick.json::<u8>().unwrap_err();
        assert!(failure.is_rejection());
        let reason = failure.reason().unwrap();
        assert!(reason.starts_with("payload: invalid type"), "{reason}");
    }
}
