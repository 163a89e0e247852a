//! Sizes and durations with their units.

use std::fmt;
use std::time::Duration;

/// A number of bytes, written with a unit: `64KiB`, `128MiB`, `1GiB`, `6MB`, `512B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// Why a text is no size or duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// A bare number: nobody can tell what it counts.
    #[error("`{0}` has no unit: write {1}")]
    NoUnit(String, &'static str),
    /// The text after the number is no unit we know.
    #[error("`{0}` has the unknown unit `{1}`: use {2}")]
    UnknownUnit(String, String, &'static str),
    /// The text before the unit is no whole number.
    #[error("`{0}` does not begin with a whole number")]
    NoNumber(String),
    /// It does not fit 64 bits.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// In microseconds, the finest unit.
const TIME_UNITS: &[(&str, u64)] = &[
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("min", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

fn parse(
    text: &str,
    units: &[(&str, u64)],
    example: &'static str,
    list: &'static str,
) -> Result<u64, InvalidUnit> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let digits: String = number.chars().filter(|c| *c != '_').collect();
    if digits.is_empty() {
        return Err(InvalidUnit::NoNumber(text.to_owned()));
    }
    let number: u64 = digits
        .parse()
        .map_err(|_| InvalidUnit::TooLarge(text.to_owned()))?;
    if unit.is_empty() {
        // Nothing is nothing in every unit.
        return if number == 0 {
            Ok(0)
        } else {
            Err(InvalidUnit::NoUnit(text.to_owned(), example))
        };
    }
    let (_, scale) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| InvalidUnit::UnknownUnit(text.to_owned(), unit.to_owned(), list))?;
    number
        .checked_mul(*scale)
        .ok_or_else(|| InvalidUnit::TooLarge(text.to_owned()))
}

impl ByteSize {
    /// So many MiB.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// So many KiB.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// Reads a size with its unit.
    ///
    /// # Errors
    /// If the unit is missing or unknown, or the number is none.
    pub fn parse(text: &str) -> Result<Self, InvalidUnit> {
        parse(
            text,
            SIZE_UNITS,
            "a size such as `64MiB`",
            "B, KiB, MiB, GiB, KB, MB or GB",
        )
        .map(Self)
    }

    /// As a `usize`, capped at its largest value.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, scale) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= scale && self.0.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Reads a duration with its unit: `us`, `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// If the unit is missing or unknown, or the number is none.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidUnit> {
    parse(
        text,
        TIME_UNITS,
        "a duration such as `250ms` or `3s`",
        "us, ms, s, m, h or d",
    )
    .map(Duration::from_micros)
}

/// Milliseconds since 1970 as RFC 3339 has it, in UTC.
#[must_use]
pub fn rfc3339(millis: i64) -> String {
    let format = &time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    time.ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_units() {
        assert_eq!(ByteSize::parse("64MiB"), Ok(ByteSize(64 << 20)));
        assert_eq!(ByteSize::parse(" 6 MB "), Ok(ByteSize(6_000_000)));
        assert_eq!(ByteSize::parse("1_024 B"), Ok(ByteSize(1024)));
        assert_eq!(ByteSize::parse("0"), Ok(ByteSize(0)));
        assert!(matches!(
            ByteSize::parse("128"),
            Err(InvalidUnit::NoUnit(..))
        ));
        assert!(matches!(
            ByteSize::parse("128Mi"),
            Err(InvalidUnit::UnknownUnit(..))
        ));
        assert!(matches!(
            ByteSize::parse("MiB"),
            Err(InvalidUnit::NoNumber(_))
        ));
        assert!(matches!(
            ByteSize::parse("-1MiB"),
            Err(InvalidUnit::NoNumber(_))
        ));
        assert!(matches!(
            ByteSize::parse("99999999999GiB"),
            Err(InvalidUnit::TooLarge(_))
        ));
    }

    #[test]
    fn sizes_print_as_they_are_read() {
        for text in ["1GiB", "128MiB", "64KiB", "1000B", "0B"] {
            assert_eq!(ByteSize::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn durations_need_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert!(matches!(parse_duration("3"), Err(InvalidUnit::NoUnit(..))));
        assert!(matches!(
            parse_duration("3 weeks"),
            Err(InvalidUnit::UnknownUnit(..))
        ));
        assert!(matches!(
            parse_duration("1.5s"),
            Err(InvalidUnit::UnknownUnit(..))
        ));
    }
}
