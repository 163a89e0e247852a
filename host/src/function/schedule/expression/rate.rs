//! `rate(5 minutes)`: fixed durations from an anchor on, without a zone.

use super::invalid::InvalidExpression;

/// A period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// In milliseconds, from a minute to `LONGEST`.
    period: i64,
}

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// A hundred years. AWS names no limit.
const LONGEST: i64 = 36_525 * DAY;

const UNITS: &[(&str, &str, i64)] = &[
    ("minute", "minutes", MINUTE),
    ("hour", "hours", 60 * MINUTE),
    ("day", "days", DAY),
];

const EXAMPLE: &str = "write a rate like `rate(5 minutes)`, `rate(1 hour)` or `rate(7 days)`";

impl Rate {
    /// Reads what is between the parentheses.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidExpression> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [value, unit] = words[..] else {
            return Err(InvalidExpression::new(
                None,
                &format!("rate({text})"),
                "not a value and a unit",
                EXAMPLE,
            ));
        };
        let invalid =
            |what: &str, remedy: &str| InvalidExpression::new("value", value, what, remedy);
        if !value.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid("no whole number", "use a whole number, 1 or more"));
        }
        // What does not fit is too long in any unit.
        let count: i64 = value.parse().unwrap_or(i64::MAX);
        if count == 0 {
            return Err(invalid("no period", "use a whole number, 1 or more"));
        }
        let known = UNITS
            .iter()
            .find(|(one, many, _)| *one == unit || *many == unit);
        let Some(&(one, many, scale)) = known else {
            return Err(InvalidExpression::new(
                "unit",
                unit,
                "no unit of a rate",
                "use `minute`, `minutes`, `hour`, `hours`, `day` or `days`",
            ));
        };
        let right = if count == 1 { one } else { many };
        if unit != right {
            return Err(InvalidExpression::new(
                "unit",
                unit,
                format!("the wrong number for {value}"),
                format!("write `rate({value} {right})`"),
            ));
        }
        let period = count.saturating_mul(scale);
        if period > LONGEST {
            let remedy = "use 36525 days at most, or `cron(…)` with a year";
            return Err(invalid("more than a hundred years", remedy));
        }
        Ok(Self { period })
    }

    /// The first fire after. Fires are whole periods from the anchor, which is none itself.
    pub(super) fn next(self, after: i64, anchor: i64) -> Option<i64> {
        let passed = after.max(anchor).checked_sub(anchor)?;
        anchor.checked_add((passed / self.period + 1).checked_mul(self.period)?)
    }

    /// The last fire at or before.
    pub(super) fn previous(self, at: i64, anchor: i64) -> Option<i64> {
        let periods = at.checked_sub(anchor)? / self.period;
        (periods >= 1).then(|| anchor + periods * self.period)
    }
}
