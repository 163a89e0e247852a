//! Matching of local times: what the fields of a cron expression say, without a zone.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time, date};

use super::bits;
use super::days::Days;

/// The years that there are.
pub(super) const FIRST_YEAR: i16 = 1970;
pub(super) const LAST_YEAR: i16 = 2199;

/// What happens when clocks change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each local time fires once.
    FixedTimes,
    /// Each moment whose local time matches fires.
    Interval,
}

/// The local times of a cron expression. The sets have a bit for each value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalTimes {
    pub(super) kind: Kind,
    pub(super) minutes: u64,
    pub(super) hours: u64,
    pub(super) days: Days,
    pub(super) months: u64,
    /// Ascending.
    pub(super) years: Box<[i16]>,
}

impl LocalTimes {
    /// Whether there is any.
    pub(super) fn exist(&self) -> bool {
        self.date_at_or_after(date(FIRST_YEAR, 1, 1)).is_some()
    }

    /// The first match that is `from` or later. Seconds of `from` are ignored.
    pub(super) fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
        let day = self.date_at_or_after(from.date())?;
        if day > from.date() {
            return Some(day.to_datetime(self.time_at_or_after(0, 0)?));
        }
        let (hour, minute) = hour_and_minute(from);
        if let Some(time) = self.time_at_or_after(hour, minute) {
            return Some(day.to_datetime(time));
        }
        let day = self.date_at_or_after(day.tomorrow().ok()?)?;
        Some(day.to_datetime(self.time_at_or_after(0, 0)?))
    }

    /// The last match that is `to` or earlier.
    pub(super) fn at_or_before(&self, to: DateTime) -> Option<DateTime> {
        let day = self.date_at_or_before(to.date())?;
        if day < to.date() {
            return Some(day.to_datetime(self.time_at_or_before(23, 59)?));
        }
        let (hour, minute) = hour_and_minute(to);
        if let Some(time) = self.time_at_or_before(hour, minute) {
            return Some(day.to_datetime(time));
        }
        let day = self.date_at_or_before(day.yesterday().ok()?)?;
        Some(day.to_datetime(self.time_at_or_before(23, 59)?))
    }

    fn date_at_or_after(&self, from: Date) -> Option<Date> {
        let start = self.years.partition_point(|&year| year < from.year());
        for &year in &self.years[start..] {
            let from = from.max(date(year, 1, 1));
            let mut month = bits::at_or_after(self.months, from.month().unsigned_abs().into());
            while let Some(this) = month {
                let first = from.max(date(year, small(this), 1));
                let days = self.days.of(year, first.month());
                if let Some(day) = bits::at_or_after(days, first.day().unsigned_abs().into()) {
                    return Some(date(year, first.month(), small(day)));
                }
                month = bits::at_or_after(self.months, this + 1);
            }
        }
        None
    }

    fn date_at_or_before(&self, to: Date) -> Option<Date> {
        let end = self.years.partition_point(|&year| year <= to.year());
        for &year in self.years[..end].iter().rev() {
            let to = to.min(date(year, 12, 31));
            let mut month = bits::at_or_before(self.months, to.month().unsigned_abs().into());
            while let Some(this) = month {
                let last = to.min(date(year, small(this), 1).last_of_month());
                let days = self.days.of(year, last.month());
                if let Some(day) = bits::at_or_before(days, last.day().unsigned_abs().into()) {
                    return Some(date(year, last.month(), small(day)));
                }
                month = bits::at_or_before(self.months, this - 1);
            }
        }
        None
    }

    fn time_at_or_after(&self, hour: u32, minute: u32) -> Option<Time> {
        let this = bits::at_or_after(self.hours, hour)?;
        if this > hour {
            return Some(time(this, bits::at_or_after(self.minutes, 0)?));
        }
        if let Some(minute) = bits::at_or_after(self.minutes, minute) {
            return Some(time(hour, minute));
        }
        let later = bits::at_or_after(self.hours, hour + 1)?;
        Some(time(later, bits::at_or_after(self.minutes, 0)?))
    }

    fn time_at_or_before(&self, hour: u32, minute: u32) -> Option<Time> {
        let this = bits::at_or_before(self.hours, hour)?;
        if this < hour {
            return Some(time(this, bits::at_or_before(self.minutes, 59)?));
        }
        if let Some(minute) = bits::at_or_before(self.minutes, minute) {
            return Some(time(hour, minute));
        }
        let earlier = bits::at_or_before(self.hours, hour.checked_sub(1)?)?;
        Some(time(earlier, bits::at_or_before(self.minutes, 59)?))
    }
}

/// The minute after this one, and the one before.
pub(super) fn minute_after(local: DateTime) -> Option<DateTime> {
    local.checked_add(1.minute()).ok()
}

pub(super) fn minute_before(local: DateTime) -> Option<DateTime> {
    local.checked_sub(1.minute()).ok()
}

fn hour_and_minute(local: DateTime) -> (u32, u32) {
    let part = |value: i8| u32::from(value.unsigned_abs());
    (part(local.hour()), part(local.minute()))
}

fn time(hour: u32, minute: u32) -> Time {
    Time::constant(small(hour), small(minute), 0, 0)
}

/// A member of one of the sets, none of which goes beyond 63.
fn small(value: u32) -> i8 {
    i8::try_from(value).expect("a bit's number is small")
}
