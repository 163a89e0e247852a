//! `at(2026-11-20T13:00:00)`: once.

use jiff::civil::{Date, DateTime, Time};

use super::invalid::InvalidExpression;
use super::local::{FIRST_YEAR, LAST_YEAR};
use super::moments;
use super::zone::Zone;

/// One moment, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(i64);

const FORM: &str = "write a date and a time like `at(2026-11-20T13:00:00)`";

impl At {
    /// Reads what is between the parentheses.
    pub(super) fn parse(text: &str, zone: &Zone) -> Result<Self, InvalidExpression> {
        let whole = || {
            let what = "not of the form yyyy-mm-ddThh:mm:ss";
            InvalidExpression::new(None, &format!("at({text})"), what, FORM)
        };
        let (date, time) = text.split_once('T').ok_or_else(whole)?;
        let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or_else(whole)?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2]).ok_or_else(whole)?;
        if !(FIRST_YEAR..=LAST_YEAR).contains(&year) {
            return Err(InvalidExpression::new(
                "year",
                &date[..4],
                format!("not between {FIRST_YEAR} and {LAST_YEAR}"),
                FORM,
            ));
        }
        let day = Date::new(year, small(month), small(day)).map_err(|_| {
            let remedy = "use a month from 01 to 12 and a day that it has in that year";
            InvalidExpression::new("date", date, "no day of the calendar", remedy)
        })?;
        let time_of_day =
            Time::new(small(hour), small(minute), small(second), 0).map_err(|_| {
                let remedy = "use 00:00:00 to 23:59:59";
                InvalidExpression::new("time", time, "no time of day", remedy)
            })?;
        let local = DateTime::from_parts(day, time_of_day);
        let moment = moments::resolve(zone.rules(), local).ok_or_else(whole)?;
        Ok(Self(moment.as_millisecond()))
    }

    pub(super) fn next(self, after: i64) -> Option<i64> {
        (self.0 > after).then_some(self.0)
    }

    pub(super) fn previous(self, at: i64) -> Option<i64> {
        (self.0 <= at).then_some(self.0)
    }
}

/// Three numbers of so many digits.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[i16; 3]> {
    let mut parts = text.split(between);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Two digits.
fn small(number: i16) -> i8 {
    i8::try_from(number).expect("two digits are below 128")
}
