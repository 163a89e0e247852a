//! Crontab's five fields, as vixie cron reads them, and its nicknames.
//!
//! A day matches if it matches day-of-month and day-of-week; where neither field begins
//! with `*`, if it matches one of them.

use super::aws::never;
use super::bits;
use super::days::{Days, Join, Rule};
use super::fields::{Common, Dialect, Field, WEEKDAYS, common};
use super::invalid::InvalidExpression;
use super::local::{FIRST_YEAR, Kind, LAST_YEAR, LocalTimes};

const COMMON: Common = common(Dialect::Crontab);

const DAY_OF_MONTH: Field = Field {
    name: "day-of-month",
    min: 1,
    max: 31,
    names: &[],
    dialect: Dialect::Crontab,
    remedy: "use 1 to 31, `*`, lists, ranges and steps",
};

const DAY_OF_WEEK: Field = Field {
    name: "day-of-week",
    min: 0,
    max: 7,
    names: WEEKDAYS,
    dialect: Dialect::Crontab,
    remedy: "use 0 (Sunday) to 7 (Sunday too) or SUN to SAT, `*`, lists, ranges and steps",
};

const NICKNAMES: &[(&str, &str)] = &[
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// What only AWS's form knows.
const AWS_ONLY: &[char] = &['?', '#', 'L', 'W'];

/// Reads five fields or a nickname.
pub(super) fn parse(text: &str) -> Result<LocalTimes, InvalidExpression> {
    let text = if text.starts_with('@') {
        nickname(text)?
    } else {
        text
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = words[..] else {
        return Err(other_form(text, words.len()));
    };
    let minutes = COMMON.minutes.parse(minute)?;
    let hours = COMMON.hours.parse(hour)?;
    let days = day_field(&DAY_OF_MONTH, day)?;
    let months = COMMON.month.parse(month)?;
    let weekdays = day_field(&DAY_OF_WEEK, weekday)?;

    let times = LocalTimes {
        kind: if minutes.by_interval || hours.by_interval {
            Kind::Interval
        } else {
            Kind::FixedTimes
        },
        minutes: bits::set(minutes.list),
        hours: bits::set(hours.list),
        days: Days {
            of_month: vec![Rule::Days(bits::set(days))],
            of_week: vec![Rule::Weekdays(bits::set(
                weekdays.into_iter().map(|day| day % 7),
            ))],
            join: if day.starts_with('*') || weekday.starts_with('*') {
                Join::Both
            } else {
                Join::Either
            },
        },
        months: bits::set(months.list),
        years: (FIRST_YEAR..=LAST_YEAR).collect(),
    };
    if !times.exist() {
        return Err(never(day, month));
    }
    Ok(times)
}

fn nickname(text: &str) -> Result<&'static str, InvalidExpression> {
    let known = NICKNAMES.iter().find(|(name, _)| *name == text);
    known.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let names: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
        InvalidExpression::new(
            None,
            text,
            "no nickname of a schedule",
            format!("use {}, or a rate like `rate(5 minutes)`", names.join(", ")),
        )
    })
}

fn day_field(field: &Field, text: &str) -> Result<Vec<u16>, InvalidExpression> {
    let parsed = field.parse(text);
    // No name of a weekday has an L or a W, but for `WED`.
    let of_aws = text
        .to_ascii_uppercase()
        .replace("WED", "")
        .contains(AWS_ONLY);
    if parsed.is_err() && of_aws {
        return Err(InvalidExpression::new(
            field.name,
            text,
            "nothing that five fields can say",
            "write AWS's form: `cron(minutes hours day-of-month month day-of-week year)`",
        ));
    }
    Ok(parsed?.list)
}

fn other_form(text: &str, fields: usize) -> InvalidExpression {
    let remedy = if fields == 6 && !text.contains('(') {
        format!("if it is AWS's form, write `cron({text})`")
    } else {
        "write five fields (`minutes hours day-of-month month day-of-week`), `cron(…)`, \
         `rate(…)` or `at(…)`"
            .to_owned()
    };
    let what = match fields {
        0 => "empty".to_owned(),
        1 => "no schedule".to_owned(),
        fields => format!("of {fields} fields, not 5"),
    };
    InvalidExpression::new(None, text, what, remedy)
}
