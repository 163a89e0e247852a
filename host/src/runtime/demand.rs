//! How many instances a version keeps ready that says nothing of it: it follows from what
//! the version gets. A rule without clocks and locks; the keeper applies it about once a
//! second.

use std::time::Duration;

/// What a version keeps that gets events: one for the event that comes now, one for the
/// event that comes while the first is being replaced.
pub(super) const FIRST: usize = 2;
/// An instance that is made on the path of an event is missed only if that takes longer
/// than this on the core, or waits for its `init`. One that is quick to make costs less
/// there than a pool that outgrows the processor's caches.
const WORTH_KEEPING: Duration = Duration::from_micros(50);
/// A pool of which a part was not needed for so long gives up a quarter of that part.
const SHRINK_AFTER: Duration = Duration::from_secs(10);

/// Whether an instance is missed that was made on the path of an event, which took so much
/// time on the core and ran its `init`, or not.
pub(super) fn is_worth_keeping(cpu: Duration, runs_init: bool) -> bool {
    runs_init || cpu > WORTH_KEEPING
}

/// What a version got since it was last looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Whether it got anything.
    pub(super) events: bool,
    /// Events for which an instance had to be made, where that took long.
    pub(super) missed: usize,
    /// How many instances waited at least, all the time.
    pub(super) least: usize,
}

/// The bounds of the rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Instances that one version may keep.
    pub(super) most: usize,
    /// After so long without an event it keeps none.
    pub(super) rest_after: Duration,
}

/// How many instances one version keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    wanted: usize,
    /// Since the last event.
    idle: Duration,
    /// It got events in one interval, and not yet in another.
    once: bool,
    /// Since the pool last grew or shrank.
    steady: Duration,
    /// What waited all that time.
    spare: Option<usize>,
}

impl Demand {
    /// That of a version which was just deployed, and is expected to get events.
    pub(super) fn fresh(wanted: usize) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// Since the last event.
    pub(super) fn idle(&self) -> Duration {
        self.idle
    }

    /// How many it keeps from now on, by what it got in the time that has passed.
    pub(super) fn next(&mut self, seen: Seen, passed: Duration, bounds: Bounds) -> usize {
        let Bounds { most, rest_after } = bounds;
        self.idle = match seen.events {
            true => Duration::ZERO,
            false => self.idle + passed,
        };
        if self.idle >= rest_after {
            *self = Self {
                idle: self.idle,
                ..Self::default()
            };
        } else if self.wanted == 0 {
            // Whoever asks every function once does not fill every pool.
            if seen.events && self.once {
                self.resize(FIRST, most);
            }
            self.once |= seen.events;
        } else if seen.missed > 0 {
            self.resize(self.wanted + self.wanted.min(seen.missed), most);
        } else {
            self.spare = Some(self.spare.unwrap_or(usize::MAX).min(seen.least));
            self.steady += passed;
            if self.steady >= SHRINK_AFTER {
                let spare = self.spare.unwrap_or(0).div_ceil(4);
                self.resize(self.wanted.saturating_sub(spare).max(FIRST), most);
            }
        }
        self.wanted
    }

    fn resize(&mut self, wanted: usize, most: usize) {
        self.wanted = wanted.min(most);
        self.steady = Duration::ZERO;
        self.spare = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BOUNDS: Bounds = Bounds {
        most: 20,
        rest_after: Duration::from_secs(60),
    };

    fn missed(missed: usize) -> Seen {
        Seen {
            events: true,
            missed,
            least: 0,
        }
    }

    fn spare(least: usize) -> Seen {
        Seen {
            events: true,
            missed: 0,
            least,
        }
    }

    #[test]
    fn what_is_quick_to_make_is_missed_only_where_its_init_runs() {
        let [quick, slow] = [49, 51].map(Duration::from_micros);
        assert!(!is_worth_keeping(quick, false));
        assert!(is_worth_keeping(slow, false));
        // It may wait for others, which takes nothing of the core.
        assert!(is_worth_keeping(quick, true));
    }

    #[test]
    fn a_second_event_begins_a_pool_and_one_alone_does_not() {
        let mut demand = Demand::default();
        let mut next = |seen| demand.next(seen, SECOND, BOUNDS);
        assert_eq!(next(missed(1)), 0);
        assert_eq!(next(Seen::default()), 0);
        assert_eq!(next(missed(1)), FIRST);
    }

    #[test]
    fn a_pool_doubles_while_events_miss_it_up_to_its_bound() {
        let mut demand = Demand::fresh(FIRST);
        let mut next = |seen| demand.next(seen, SECOND, BOUNDS);
        assert_eq!(next(missed(1)), 3, "no more than were missed");
        let sizes = [next(missed(100)), next(missed(100)), next(missed(100))];
        assert_eq!(sizes, [6, 12, 20]);
        assert_eq!(next(missed(100)), 20);
    }

    #[test]
    fn a_pool_shrinks_slowly_by_what_was_spare_all_the_time() {
        let mut demand = Demand::fresh(20);
        let mut seconds = 0;
        let mut sizes = vec![20];
        while sizes.last() != Some(&8) {
            // Eight are out together now and then.
            let now = *sizes.last().unwrap();
            let size = demand.next(spare(now - 8), SECOND, BOUNDS);
            if size != now {
                sizes.push(size);
            }
            seconds += 1;
            assert!(seconds < 1000, "{sizes:?}");
        }
        assert_eq!(sizes, [20, 17, 14, 12, 11, 10, 9, 8]);
        assert_eq!(seconds, 70, "a step every ten seconds");
        // What is needed stays.
        for _ in 0..100 {
            assert_eq!(demand.next(spare(0), SECOND, BOUNDS), 8);
        }
    }

    #[test]
    fn without_an_event_it_keeps_its_first_and_then_none() {
        let mut demand = Demand::fresh(FIRST);
        for second in 1..60 {
            let kept = demand.next(
                Seen {
                    least: FIRST,
                    ..Seen::default()
                },
                SECOND,
                BOUNDS,
            );
            assert_eq!(kept, FIRST, "after {second} s");
        }
        assert_eq!(demand.next(Seen::default(), SECOND, BOUNDS), 0);
        assert_eq!(demand.next(missed(1), SECOND, BOUNDS), 0, "as at first");
    }

    #[test]
    fn a_bound_below_the_first_holds() {
        let none = Bounds { most: 0, ..BOUNDS };
        let mut demand = Demand::default();
        for _ in 0..5 {
            assert_eq!(demand.next(missed(9), SECOND, none), 0);
        }
        let one = Bounds { most: 1, ..BOUNDS };
        assert_eq!(demand.next(missed(9), SECOND, one), 1);
    }
}
