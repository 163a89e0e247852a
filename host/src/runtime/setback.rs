//! When it makes sense to try again what has failed: later each time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// After many.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// What stands between a failure and the next attempt. Nothing at first.
#[derive(Debug, Default)]
pub(super) struct Setback {
    /// Failures since the last success.
    failures: AtomicU32,
    until: Mutex<Option<Instant>>,
}

impl Setback {
    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another attempt makes sense. Costs nothing where nothing has failed.
    pub(super) fn is_over(&self) -> bool {
        self.failures.load(Ordering::Relaxed) == 0 || self.is_over_at(Instant::now())
    }

    fn is_over_at(&self, now: Instant) -> bool {
        self.until().is_none_or(|until| now >= until)
    }

    /// An attempt failed. Answers whether the one before did not.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        let pause = FIRST * 2_u32.saturating_pow(before);
        *self.until() = Some(now + pause.min(LONGEST));
        before == 0
    }

    /// An attempt succeeded.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            *self.until() = None;
            self.failures.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_in_a_row_doubles_the_pause_up_to_the_longest() {
        let setback = Setback::default();
        assert!(setback.is_over());
        let begin = Instant::now();
        let pauses = [1, 2, 4, 8, 16, 32, 60, 60].into_iter().chain([60; 40]);
        for (index, seconds) in pauses.enumerate() {
            assert_eq!(setback.failed(begin), index == 0, "{index}");
            let pause = Duration::from_secs(seconds);
            let short = pause - Duration::from_millis(1);
            assert!(!setback.is_over_at(begin + short), "{index}");
            assert!(setback.is_over_at(begin + pause), "{index}");
        }
        assert!(!setback.is_over());
    }

    #[test]
    fn a_success_ends_it_and_the_next_failure_is_a_first_one() {
        let setback = Setback::default();
        let now = Instant::now();
        for _ in 0..5 {
            setback.failed(now);
        }
        setback.succeeded();
        assert!(setback.is_over());
        assert!(setback.failed(now));
        assert!(!setback.is_over_at(now));
        assert!(setback.is_over_at(now + FIRST));
    }
}
