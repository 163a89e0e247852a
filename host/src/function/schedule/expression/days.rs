//! Which days of a month match: plain days, weekdays, and those that depend on the month
//! (`L`, `W` and `#`).

use jiff::civil;

use super::bits;

/// Days by one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// These days, a bit each.
    Days(u64),
    /// These weekdays, a bit each, Sunday's the lowest.
    Weekdays(u64),
    /// `L`: the month's last day.
    Last,
    /// `LW`: the month's last day from Monday to Friday.
    LastWorkday,
    /// `15W`: the day from Monday to Friday that is nearest to this one, in its month. In
    /// a month without that day, none.
    NearestWorkday(u32),
    /// `5L`: the month's last one of this weekday.
    LastOf(u32),
    /// `3#2`: the month's nth one of this weekday.
    Nth(u32, u32),
}

/// All days.
pub(super) const EVERY: Rule = Rule::Days(!0);

/// How day-of-month and day-of-week go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// A day matches both.
    Both,
    /// A day matches one of them.
    Either,
}

/// The day fields of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Days {
    pub(super) of_month: Vec<Rule>,
    pub(super) of_week: Vec<Rule>,
    pub(super) join: Join,
}

const SUNDAY: u32 = 0;
const SATURDAY: u32 = 6;

/// What the rules need to know of a month.
struct Month {
    length: u32,
    /// The weekday of its first day, 0 for Sunday.
    first: u32,
}

impl Days {
    /// The days of a month that match, a bit each.
    pub(super) fn of(&self, year: i16, month: i8) -> u64 {
        let first = civil::date(year, month, 1);
        let month = Month {
            length: first.days_in_month().unsigned_abs().into(),
            first: first
                .weekday()
                .to_sunday_zero_offset()
                .unsigned_abs()
                .into(),
        };
        let of_month = month.days_by(&self.of_month);
        let of_week = month.days_by(&self.of_week);
        match self.join {
            Join::Both => of_month & of_week,
            Join::Either => of_month | of_week,
        }
    }
}

impl Month {
    fn days_by(&self, rules: &[Rule]) -> u64 {
        let days = rules.iter().fold(0, |days, rule| days | self.days(rule));
        // The month's own: from the first to its last.
        days & ((1 << (self.length + 1)) - 2)
    }

    fn days(&self, rule: &Rule) -> u64 {
        match *rule {
            Rule::Days(days) => days,
            Rule::Weekdays(weekdays) => (SUNDAY..=SATURDAY)
                .filter(|weekday| weekdays & (1 << weekday) != 0)
                .fold(0, |days, weekday| days | self.each(weekday)),
            Rule::Last => 1 << self.length,
            Rule::LastWorkday => 1 << self.nearest_workday(self.length),
            Rule::NearestWorkday(day) if day > self.length => 0,
            Rule::NearestWorkday(day) => 1 << self.nearest_workday(day),
            Rule::LastOf(weekday) => {
                let last = bits::at_or_before(self.each(weekday), self.length);
                last.map_or(0, |day| 1 << day)
            }
            Rule::Nth(weekday, nth) => 1 << (self.first(weekday) + 7 * (nth - 1)),
        }
    }

    fn weekday(&self, day: u32) -> u32 {
        (self.first + day - 1) % 7
    }

    /// The first day that is this weekday.
    fn first(&self, weekday: u32) -> u32 {
        1 + (weekday + 7 - self.first) % 7
    }

    /// All days that are this weekday, and perhaps some after the month's end.
    fn each(&self, weekday: u32) -> u64 {
        let first = self.first(weekday);
        (0..5).fold(0, |days, week| days | 1 << (first + 7 * week))
    }

    /// Saturday gives way to Friday and Sunday to Monday, but never to another month.
    fn nearest_workday(&self, day: u32) -> u32 {
        match self.weekday(day) {
            SATURDAY if day == 1 => 3,
            SATURDAY => day - 1,
            SUNDAY if day == self.length => day - 2,
            SUNDAY => day + 1,
            _ => day,
        }
    }
}
