//! From local times to moments: the rule for clocks that change, which the module
//! `expression` states.
//!
//! Fixed times rest on one fact: `resolve` never goes back. A later local time is never an
//! earlier moment, so the first local time that resolves beyond a moment is the next fire.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::local::{Kind, LocalTimes, minute_after, minute_before};
use super::zone::Zone;

/// Two days around the years that there are: no zone is further from UTC.
const EARLIEST: i64 = -2 * DAY;
const LATEST: i64 = 7_258_118_400_000 + 2 * DAY;
const DAY: i64 = 86_400_000;

/// The first fire strictly after.
pub(super) fn next(times: &LocalTimes, zone: &Zone, after: i64) -> Option<i64> {
    if after >= LATEST {
        return None;
    }
    let after = Timestamp::from_millisecond(after.max(EARLIEST)).ok()?;
    let next = match times.kind {
        Kind::FixedTimes => next_fixed(times, zone.rules(), after),
        Kind::Interval => next_in_interval(times, zone.rules(), after),
    };
    next.map(Timestamp::as_millisecond)
}

/// The last fire at or before.
pub(super) fn previous(times: &LocalTimes, zone: &Zone, at: i64) -> Option<i64> {
    if at < EARLIEST {
        return None;
    }
    let at = Timestamp::from_millisecond(at.min(LATEST)).ok()?;
    let previous = match times.kind {
        Kind::FixedTimes => previous_fixed(times, zone.rules(), at),
        Kind::Interval => previous_in_interval(times, zone.rules(), at),
    };
    previous.map(Timestamp::as_millisecond)
}

/// When a fixed local time happens: in a gap at its end, in an overlap at the first
/// occurrence.
pub(super) fn resolve(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            // By the offset to come, a time in the gap lies before the change.
            let earlier = after.to_timestamp(local).ok()?;
            let mut changes = zone.following(earlier);
            let change = changes.find(|change| change.offset() == after)?;
            Some(change.timestamp())
        }
    }
}

fn next_fixed(times: &LocalTimes, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut from = zone.to_datetime(after);
    // More than once only for the minute of `after`, and while an hour is repeated: its
    // local times have fired.
    loop {
        let local = times.at_or_after(from)?;
        let moment = resolve(zone, local)?;
        if moment > after {
            return Some(moment);
        }
        from = minute_after(local)?;
    }
}

fn previous_fixed(times: &LocalTimes, zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
    let local = zone.to_datetime(at);
    let mut to = match zone.to_ambiguous_timestamp(local).offset() {
        // While an hour is repeated, its local times yet to come have fired too.
        AmbiguousOffset::Fold { before, .. } => before.to_datetime(at),
        _ => local,
    };
    loop {
        let local = times.at_or_before(to)?;
        let moment = resolve(zone, local)?;
        if moment <= at {
            return Some(moment);
        }
        to = minute_before(local)?;
    }
}

/// Between two changes of the clock, local time runs evenly; so it goes from one change to
/// the next.
fn next_in_interval(times: &LocalTimes, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut from = after.checked_add(SignedDuration::from_millis(1)).ok()?;
    while from.as_millisecond() < LATEST {
        let offset = zone.to_offset(from);
        let end = zone.following(from).next().map(|change| change.timestamp());
        let local = whole_minute(offset.to_datetime(from))?;
        if let Some(local) = times.at_or_after(local) {
            let moment = offset.to_timestamp(local).ok()?;
            if end.is_none_or(|end| moment < end) {
                return Some(moment);
            }
        }
        from = end?;
    }
    None
}

fn previous_in_interval(times: &LocalTimes, zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
    let mut to = at;
    while to.as_millisecond() >= EARLIEST {
        let offset = zone.to_offset(to);
        // Strictly before the next millisecond, hence perhaps at `to`.
        let next = to.checked_add(SignedDuration::from_millis(1)).ok()?;
        let start = zone.preceding(next).next().map(|change| change.timestamp());
        if let Some(local) = times.at_or_before(offset.to_datetime(to)) {
            let moment = offset.to_timestamp(local).ok()?;
            if start.is_none_or(|start| moment >= start) {
                return Some(moment);
            }
        }
        to = start?.checked_sub(SignedDuration::from_millis(1)).ok()?;
    }
    None
}

/// The first whole minute that is this local time or later.
fn whole_minute(local: DateTime) -> Option<DateTime> {
    let begun = local.date().at(local.hour(), local.minute(), 0, 0);
    if begun == local {
        Some(local)
    } else {
        minute_after(begun)
    }
}
