//! When a schedule fires: AWS's `cron(…)`, `rate(…)` and `at(…)`, crontab's five fields
//! and its nicknames. Pure: from a moment to the next or the previous fire, which is a
//! number of milliseconds since 1970. Local times outside the years 1970 to 2199 never
//! fire.
//!
//! # When clocks change
//! Crontab and AWS expressions are of two kinds, as for vixie cron.
//!
//! - **Fixed times**: minutes and hours are plain values, lists and ranges. A fire whose
//!   local time does not exist, because clocks go forward, happens once, at the first
//!   moment after the gap. A fire whose local time occurs twice happens once, at its first
//!   occurrence. `at(…)` is of this kind.
//! - **Intervals**: a `*` or a step (`/`) is in the minutes or the hours. They go by real
//!   time: each moment whose local time matches is a fire. So nothing piles up after a
//!   gap, and nothing pauses while a local hour is repeated.
//!
//! A `rate(…)` knows no zone.
//!
//! # Why no cron crate
//! croner 4.0 has `L`, `W`, `#` and both directions right, but takes the fixed times
//! `0,30 2 * * *` for an interval (skipped in the gap, twice in the overlap), fires
//! `0 0 */2 * 1` on days that vixie cron does not, reads `L,LW` as `LW`, and names no
//! field in its errors; jiff-cron 0.3 has no such letters and skips what is in a gap. The
//! matcher is therefore ours, over the civil dates and the bundled time zones of jiff.

mod at;
mod aws;
mod bits;
mod crontab;
mod days;
mod fields;
mod invalid;
mod local;
mod moments;
mod rate;
#[cfg(test)]
mod tests;
mod zone;

use std::fmt;
use std::sync::Arc;

pub use invalid::InvalidExpression;
pub use zone::{InvalidZone, Zone};

use at::At;
use local::LocalTimes;
use rate::Rate;

/// The longest expression, in bytes. AWS's limit; room for all minutes of an hour in a list.
const MAX_LENGTH: usize = 256;

/// When a schedule fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: Arc<str>,
    zone: Zone,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Cron(Arc<LocalTimes>),
    Rate(Rate),
    At(At),
}

impl Expression {
    /// Reads an expression whose local times are those of `zone`.
    ///
    /// # Errors
    /// If it is none of the forms, or can never fire. One that has fired for the last time
    /// is no error.
    pub fn parse(text: &str, zone: &Zone) -> Result<Self, InvalidExpression> {
        if text.len() > MAX_LENGTH {
            return Err(InvalidExpression::new(
                None,
                text,
                format!("longer than {MAX_LENGTH} bytes"),
                "use ranges and steps for long lists, or two schedules",
            ));
        }
        let trimmed = text.trim();
        let form = if let Some(inner) = call(trimmed, "cron")? {
            Form::Cron(Arc::new(aws::parse(inner)?))
        } else if let Some(inner) = call(trimmed, "rate")? {
            Form::Rate(Rate::parse(inner)?)
        } else if let Some(inner) = call(trimmed, "at")? {
            Form::At(At::parse(inner, zone)?)
        } else {
            Form::Cron(Arc::new(crontab::parse(trimmed)?))
        };
        Ok(Self {
            text: text.into(),
            zone: zone.clone(),
            form,
        })
    }

    /// The first fire strictly after a moment. `anchor` is from when on a rate counts: its
    /// first fire is one period later. The other forms ignore it.
    #[must_use]
    pub fn next(&self, after: i64, anchor: i64) -> Option<i64> {
        match &self.form {
            Form::Cron(times) => moments::next(times, &self.zone, after),
            Form::Rate(rate) => rate.next(after, anchor),
            Form::At(at) => at.next(after),
        }
    }

    /// The last fire at a moment or before. `anchor` as for [`Expression::next`].
    #[must_use]
    pub fn previous(&self, at: i64, anchor: i64) -> Option<i64> {
        match &self.form {
            Form::Cron(times) => moments::previous(times, &self.zone, at),
            Form::Rate(rate) => rate.previous(at, anchor),
            Form::At(once) => once.previous(at),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is between the parentheses of `name(…)`, if the text begins like that.
fn call<'t>(text: &'t str, name: &str) -> Result<Option<&'t str>, InvalidExpression> {
    let Some(rest) = text
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('('))
    else {
        return Ok(None);
    };
    let inner = rest.strip_suffix(')').ok_or_else(|| {
        InvalidExpression::new(
            None,
            text,
            "not closed",
            format!("end it with the `)` of `{name}(…)`"),
        )
    })?;
    Ok(Some(inner))
}
