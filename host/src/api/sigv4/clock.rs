//! The time of a signature: read, written, and compared with ours.

use http::HeaderMap;
use http::header::DATE;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc2822;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

use super::{MAX_CLOCK_SKEW, SignatureError, X_AMZ_DATE, error, single};

const BASIC_ISO_8601: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

pub(super) fn signing_time(headers: &HeaderMap) -> Result<OffsetDateTime, SignatureError> {
    let (value, time) = if let Some(value) = single(headers, &X_AMZ_DATE)? {
        (value, parse_basic_iso_8601(value))
    } else if let Some(value) = single(headers, &DATE)? {
        let time = OffsetDateTime::parse(value, &Rfc2822)
            .ok()
            .and_then(|time| time.checked_to_offset(UtcOffset::UTC));
        (value, time.or_else(|| parse_basic_iso_8601(value)))
    } else {
        return Err(SignatureError::Incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
                .to_owned(),
        ));
    };
    time.ok_or_else(|| {
        SignatureError::Incomplete(format!(
            "Date must be in ISO-8601 'basic format'. Got '{}'. \
             See http://en.wikipedia.org/wiki/ISO_8601",
            error::excerpt(value)
        ))
    })
}

fn parse_basic_iso_8601(value: &str) -> Option<OffsetDateTime> {
    // The parser alone would take a sign before the year.
    if value.len() != "20150830T123600Z".len() || !value.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let time = PrimitiveDateTime::parse(value, BASIC_ISO_8601).ok()?;
    Some(time.assume_utc())
}

pub(super) fn basic_iso_8601(utc: OffsetDateTime) -> String {
    utc.format(BASIC_ISO_8601)
        .expect("every point in time has all components of the format")
}

/// The `YYYYMMDD` of a time stamp in basic ISO 8601.
pub(super) fn date_of(timestamp: &str) -> &str {
    timestamp
        .split_once('T')
        .map_or(timestamp, |(date, _)| date)
}

pub(super) fn check_skew(
    signed_at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<(), SignatureError> {
    let age = now - signed_at;
    if age > MAX_CLOCK_SKEW {
        Err(SignatureError::Expired {
            signed: basic_iso_8601(signed_at),
            limit: basic_iso_8601(now.saturating_sub(MAX_CLOCK_SKEW)),
            now: basic_iso_8601(now),
        })
    } else if age < -MAX_CLOCK_SKEW {
        Err(SignatureError::NotYetCurrent {
            signed: basic_iso_8601(signed_at),
            limit: basic_iso_8601(now.saturating_add(MAX_CLOCK_SKEW)),
            now: basic_iso_8601(now),
        })
    } else {
        Ok(())
    }
}
