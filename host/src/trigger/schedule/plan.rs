//! What a schedule does at a moment: which fires come, which are missed, and what a clock
//! means that was set.
//!
//! - A fire comes when the wall clock has reached its time and its jitter. One that is more
//!   than [`GRACE`] late, because the host did not run, the clock was set forward or nothing
//!   could be stored, is **missed**: the schedule's policy decides.
//! - Fires come in the order of their times: jitter never takes one beyond the next.
//! - A fire that was sent is not sent again when the clock is set back: the schedule waits
//!   until the clock has come to where it was. If it was set back by more than
//!   [`SET_BACK`], the time before was wrong, and the schedule begins anew at the new time.
//! - While the clock is before this version of Dunlin was made, it is not set: nothing fires.
//!   What a schedule has come to by such a clock means nothing, and it begins when the clock
//!   is set.

#[cfg(test)]
mod tests;

use super::Entry;
use crate::queue::Mark;

/// How late a fire may be without having been missed, in milliseconds: EventBridge promises
/// its fires within the minute.
pub const GRACE: i64 = 60_000;
/// Set back by more than this, a clock was wrong before, in milliseconds: a day.
pub const SET_BACK: i64 = 86_400_000;
/// Before this no clock is right, in milliseconds since 1970: the start of 2026.
const NOT_BEFORE: i64 = 1_767_225_600_000;
/// Fires that are counted as missed at most.
const MOST_COUNTED: u32 = 10_000;

/// Whether a clock may be right.
#[must_use]
pub fn is_sane(now: i64) -> bool {
    now >= NOT_BEFORE
}

/// A step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The fire's time; or how far the schedule comes without one.
    pub scheduled: i64,
    /// What happens then.
    pub kind: Kind,
    /// Fires before it that do not come; if it does not come itself, with it.
    pub missed: u32,
}

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The fire comes.
    Fires,
    /// It was missed, and does not come.
    Skips,
    /// The schedule begins anew: what it had come to was by a wrong clock.
    Begins,
}

/// What is to be done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Planned>,
}

/// When there is something to be done for a schedule: now or earlier if there is. None:
/// never again.
#[must_use]
pub fn next_look(entry: &Entry, mark: Mark, now: i64) -> Option<i64> {
    if is_lost(mark, now) {
        return Some(now);
    }
    let next = entry.schedule.when.next(mark.at, mark.begun)?;
    Some(next.saturating_add(entry.jitter(next, mark.begun)))
}

/// Whether the clock by which it came where it stands was wrong.
fn is_lost(mark: Mark, now: i64) -> bool {
    !is_sane(mark.at) || mark.at > now.saturating_add(SET_BACK)
}

/// What a schedule does now.
#[must_use]
pub fn plan(entry: &Entry, mark: Mark, now: i64) -> Plan {
    if is_lost(mark, now) {
        let begin = Planned {
            scheduled: now,
            kind: Kind::Begins,
            missed: 0,
        };
        return Plan { steps: vec![begin] };
    }
    let when = &entry.schedule.when;
    let fires_at = |scheduled: i64| scheduled.saturating_add(entry.jitter(scheduled, mark.begun));
    let mut plan = Plan::default();
    let mut at = mark.at;

    // Those that are late: up to the last whose time, with its jitter, is too long ago.
    let too_late = now.saturating_sub(GRACE + 1);
    let mut missed = std::iter::successors(when.previous(too_late, mark.begun), |time| {
        when.previous(time - 1, mark.begun)
    });
    let last_missed = missed.find(|time| fires_at(*time) <= too_late);
    if let Some(last) = last_missed.filter(|last| *last > at) {
        let most = entry.schedule.missed.most();
        let kept = std::iter::successors(Some(last), |later| when.previous(later - 1, mark.begun));
        let mut kept: Vec<i64> = kept.take_while(|time| *time > at).take(most).collect();
        kept.reverse();
        let until = kept.first().copied().unwrap_or(last + 1);
        let all = std::iter::successors(when.next(at, mark.begun), |time| {
            when.next(*time, mark.begun)
        });
        let dropped = all
            .take(MOST_COUNTED as usize)
            .take_while(|time| *time < until);
        let mut missed = u32::try_from(dropped.count()).unwrap_or(MOST_COUNTED);
        if kept.is_empty() {
            plan.steps.push(Planned {
                scheduled: last,
                kind: Kind::Skips,
                missed,
            });
        }
        for scheduled in kept {
            plan.steps.push(Planned {
                scheduled,
                kind: Kind::Fires,
                missed: std::mem::take(&mut missed),
            });
        }
        at = last;
    }

    // Those that are due.
    while let Some(scheduled) = when.next(at, mark.begun) {
        if fires_at(scheduled) > now {
            break;
        }
        plan.steps.push(Planned {
            scheduled,
            kind: Kind::Fires,
            missed: 0,
        });
        at = scheduled;
    }
    plan
}
