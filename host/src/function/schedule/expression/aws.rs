//! AWS's `cron(minutes hours day-of-month month day-of-week year)`.
//!
//! After "Cron expressions" in the user guides of EventBridge and its Scheduler. As there,
//! names and letters may be lower case; `L` and `W` may also stand in lists.

use super::bits;
use super::days::{Days, EVERY, Join, Rule};
use super::fields::{Common, Dialect, Field, WEEKDAYS, common};
use super::invalid::InvalidExpression;
use super::local::{FIRST_YEAR, Kind, LAST_YEAR, LocalTimes};

const COMMON: Common = common(Dialect::Aws);

const DAY_OF_MONTH: Field = Field {
    name: "day-of-month",
    min: 1,
    max: 31,
    names: &[],
    dialect: Dialect::Aws,
    remedy: "use 1 to 31, `*`, `?`, `L`, `LW`, `15W`, lists, ranges and steps",
};

const DAY_OF_WEEK: Field = Field {
    name: "day-of-week",
    min: 1,
    max: 7,
    names: WEEKDAYS,
    dialect: Dialect::Aws,
    remedy: "use 1 (Sunday) to 7 or SUN to SAT, `*`, `?`, `L`, `5L`, `3#2`, lists, ranges and steps",
};

const YEAR: Field = Field {
    name: "year",
    min: FIRST_YEAR.unsigned_abs(),
    max: LAST_YEAR.unsigned_abs(),
    names: &[],
    dialect: Dialect::Aws,
    remedy: "use 1970 to 2199, `*`, lists, ranges and steps",
};

/// "No matter which day": the other field decides.
const ANY: &str = "?";

/// Reads what is between the parentheses.
pub(super) fn parse(text: &str) -> Result<LocalTimes, InvalidExpression> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday, year] = words[..] else {
        return Err(InvalidExpression::new(
            None,
            &format!("cron({text})"),
            format!("of {} fields, not 6", words.len()),
            "write `cron(minutes hours day-of-month month day-of-week year)`; five fields go without `cron(…)`",
        ));
    };
    let minutes = COMMON.minutes.parse(minute)?;
    let hours = COMMON.hours.parse(hour)?;
    let of_month = days_of_month(day)?;
    let months = COMMON.month.parse(month)?;
    let of_week = days_of_week(weekday)?;
    let mut years = YEAR.parse(year)?.list;
    one_day_field(day, weekday)?;

    years.sort_unstable();
    years.dedup();
    let times = LocalTimes {
        kind: if minutes.by_interval || hours.by_interval {
            Kind::Interval
        } else {
            Kind::FixedTimes
        },
        minutes: bits::set(minutes.list),
        hours: bits::set(hours.list),
        days: Days {
            of_month,
            of_week,
            join: Join::Both,
        },
        months: bits::set(months.list),
        years: years.into_iter().map(u16::cast_signed).collect(),
    };
    if times.exist() {
        return Ok(times);
    }
    let in_any_year = LocalTimes {
        years: (FIRST_YEAR..=LAST_YEAR).collect(),
        ..times
    };
    Err(if in_any_year.exist() {
        YEAR.invalid(year, format!("without that day in month {month}"))
    } else {
        never(day, month)
    })
}

/// For a day that no month has, as the 30th of February.
pub(super) fn never(day: &str, month: &str) -> InvalidExpression {
    InvalidExpression::new(
        DAY_OF_MONTH.name,
        day,
        format!("never a day of month {month}, so the schedule can never fire"),
        "choose a day that the month has, such as `L` in `cron(…)` for its last",
    )
}

/// Exactly one of the two is `?`.
fn one_day_field(day: &str, weekday: &str) -> Result<(), InvalidExpression> {
    match (day == ANY, weekday == ANY) {
        (true, true) => Err(InvalidExpression::new(
            DAY_OF_MONTH.name,
            day,
            "`?` where day-of-week is `?` too",
            "put `*` in one of the two for all days",
        )),
        (false, false) => {
            let (field, value, other) = if day == "*" {
                (DAY_OF_MONTH.name, day, DAY_OF_WEEK.name)
            } else {
                (DAY_OF_WEEK.name, weekday, DAY_OF_MONTH.name)
            };
            Err(InvalidExpression::new(
                field,
                value,
                format!(
                    "given beside {other} `{}`",
                    if day == "*" { weekday } else { day }
                ),
                "put `?` in one of the two, AWS takes only one of them",
            ))
        }
        _ => Ok(()),
    }
}

fn days_of_month(text: &str) -> Result<Vec<Rule>, InvalidExpression> {
    if text == ANY {
        return Ok(vec![EVERY]);
    }
    let rule = |item: &str| {
        if item.eq_ignore_ascii_case("L") {
            Ok(Rule::Last)
        } else if item.eq_ignore_ascii_case("LW") {
            Ok(Rule::LastWorkday)
        } else if let Some(day) = item.strip_suffix(['W', 'w']) {
            Ok(Rule::NearestWorkday(DAY_OF_MONTH.value(day)?.into()))
        } else {
            Ok(Rule::Days(bits::set(DAY_OF_MONTH.parse(item)?.list)))
        }
    };
    text.split(',').map(rule).collect()
}

fn days_of_week(text: &str) -> Result<Vec<Rule>, InvalidExpression> {
    if text == ANY {
        return Ok(vec![EVERY]);
    }
    if text.contains('#') && text.contains(',') {
        return Err(InvalidExpression::new(
            DAY_OF_WEEK.name,
            text,
            "a list with `#`",
            "write a schedule for each `#`: AWS takes it alone only",
        ));
    }
    // AWS counts from 1, the rules from 0.
    let weekday = |text: &str| Ok(u32::from(DAY_OF_WEEK.value(text)? - 1));
    let rule = |item: &str| {
        if item.eq_ignore_ascii_case("L") {
            return Ok(Rule::Weekdays(1 << 6));
        }
        if let Some(day) = item.strip_suffix(['L', 'l']) {
            return Ok(Rule::LastOf(weekday(day)?));
        }
        if let Some((day, nth)) = item.split_once('#') {
            let nth = match nth {
                "1" => 1,
                "2" => 2,
                "3" => 3,
                "4" => 4,
                "5" => 5,
                _ => return Err(DAY_OF_WEEK.invalid(item, "not the 1st to 5th of a weekday")),
            };
            return Ok(Rule::Nth(weekday(day)?, nth));
        }
        let days = DAY_OF_WEEK.parse(item)?.list;
        Ok(Rule::Weekdays(bits::set(
            days.into_iter().map(|day| day - 1),
        )))
    };
    text.split(',').map(rule).collect()
}
