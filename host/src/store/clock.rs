//! The time by which messages are visible, events age and schedules fire.
//!
//! A box may start without a clock, in 1970, and learn the time later; a wrong time
//! server may set it anywhere. So the store's time follows one rule: **it never goes
//! back**. It is the wall clock's while that is ahead of all that the store has seen,
//! over restarts too; else it goes on from there at the pace of the monotonic clock,
//! until the wall clock has caught up.
//!
//! What is kept for a while is measured by another count, the **age**: the time that the
//! store was open, by the monotonic clock. A wall clock that is set right after a start
//! in 1970 would else make a minute's messages half a century old.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, by the wall clock.
    fn wall(&self) -> i64;
    /// Since any fixed moment, never going back.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks.
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> i64 {
        // Before 1970 is not a time that a store can have seen.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A moment of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub now: i64,
    /// Milliseconds that the store has been open, over all its life.
    pub age: i64,
}

/// How long the store has been open, over all its life.
#[derive(Clone)]
pub struct Age {
    clock: Arc<dyn Clock>,
    /// The age when it was opened, and when that was.
    before: i64,
    opened: Duration,
}

impl Age {
    /// In milliseconds, now.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.at(self.clock.monotonic())
    }

    fn at(&self, at: Duration) -> i64 {
        self.before + millis(at.saturating_sub(self.opened))
    }
}

/// The store's time.
pub struct Timeline {
    clock: Arc<dyn Clock>,
    /// The latest that was seen, and when that was.
    seen: i64,
    at: Duration,
    age: Age,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Timeline {
    /// Goes on from the latest moment that was seen before.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, seen: Moment) -> Self {
        let at = clock.monotonic();
        let age = Age {
            clock: Arc::clone(&clock),
            before: seen.age,
            opened: at,
        };
        Self {
            clock,
            seen: seen.now,
            at,
            age,
        }
    }

    /// The store's age, for others to look at.
    #[must_use]
    pub fn age(&self) -> Age {
        self.age.clone()
    }

    /// The moment that is now.
    pub fn now(&mut self) -> Moment {
        let at = self.clock.monotonic();
        let age = self.age.at(at);
        let steady = self.seen + millis(at.saturating_sub(self.at));
        let wall = self.clock.wall();
        if wall >= steady {
            (self.seen, self.at) = (wall, at);
        }
        Moment {
            now: wall.max(steady),
            age,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Set {
        wall: AtomicI64,
        monotonic: AtomicU64,
    }

    impl Clock for Set {
        fn wall(&self) -> i64 {
            self.wall.load(Ordering::SeqCst)
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic.load(Ordering::SeqCst))
        }
    }

    #[test]
    fn time_never_goes_back_and_goes_on_without_the_wall_clock() {
        let clock = Arc::new(Set::default());
        let at = |wall: i64, monotonic: u64| {
            clock.wall.store(wall, Ordering::SeqCst);
            clock.monotonic.store(monotonic, Ordering::SeqCst);
        };
        at(0, 0);
        // Started in 1970, and the store has seen more.
        let seen = Moment {
            now: 5_000,
            age: 100,
        };
        let mut timeline = Timeline::new(clock.clone(), seen);
        assert_eq!(timeline.now().now, 5_000);
        at(10, 700);
        assert_eq!(timeline.now().now, 5_700);
        // It learns the time.
        at(9_000, 800);
        assert_eq!(timeline.now().now, 9_000);
        // And is set back.
        at(1, 1_000);
        assert_eq!(timeline.now().now, 9_200);
        at(2, 1_000);
        assert_eq!(timeline.now().now, 9_200);
        at(9_300, 1_200);
        assert_eq!(timeline.now().now, 9_400);
        at(9_500, 1_300);
        assert_eq!(timeline.now().now, 9_500);
        // The age knows nothing of all that.
        assert_eq!(timeline.now().age, 1_400);
    }
}
