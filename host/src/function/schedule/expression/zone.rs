//! Time zones by their IANA names. Their rules are in the binary: a small box may have no
//! `/usr/share/zoneinfo`, and all boxes are to agree.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::invalid::shown;

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    name: Arc<str>,
    rules: TimeZone,
}

/// What names no time zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no time zone: use an IANA name such as `{suggestion}`", name.escape_debug())]
pub struct InvalidZone {
    /// What was given, cut short if it is long.
    pub name: String,
    /// A name that may be meant, else one that shows the form.
    pub suggestion: String,
}

const EXAMPLE: &str = "Europe/Berlin";

impl Zone {
    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self {
            name: "UTC".into(),
            rules: TimeZone::UTC,
        }
    }

    /// Finds a zone by its IANA name, in upper or lower case.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn parse(name: &str) -> Result<Self, InvalidZone> {
        let rules = TimeZoneDatabase::bundled()
            .get(name)
            .ok()
            // `Etc/Unknown` would quietly be UTC.
            .filter(|rules| !rules.is_unknown());
        let Some(rules) = rules else {
            return Err(InvalidZone {
                name: shown(name),
                suggestion: suggestion(name).unwrap_or_else(|| EXAMPLE.to_owned()),
            });
        };
        Ok(Self {
            name: rules.iana_name().unwrap_or(name).into(),
            rules,
        })
    }

    /// Its IANA name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Milliseconds since 1970 as RFC 3339 has them, in local time with its offset.
    #[must_use]
    pub fn rfc3339(&self, millis: i64) -> String {
        let moment = Timestamp::from_millisecond(millis);
        // Only years that no clock shows cannot be written.
        let written = moment.map(|moment| {
            let offset = self.rules.to_offset(moment);
            moment.display_with_offset(offset).to_string()
        });
        written.unwrap_or_default()
    }

    pub(super) fn rules(&self) -> &TimeZone {
        &self.rules
    }
}

/// The zone of a city that came without its continent, or with another one.
fn suggestion(name: &str) -> Option<String> {
    let city = name.rsplit('/').next()?.trim().replace(' ', "_");
    TimeZoneDatabase::bundled()
        .available()
        .map(|known| known.to_string())
        .find(|known| {
            let known = known.rsplit_once('/');
            known.is_some_and(|(_, known)| known.eq_ignore_ascii_case(&city))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_local_time_with_its_offset() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let kathmandu = Zone::parse("Asia/Kathmandu").unwrap();
        for (zone, millis, expected) in [
            (&berlin, 1_772_323_200_000, "2026-03-01T01:00:00+01:00"),
            (&berlin, 1_774_746_000_000, "2026-03-29T03:00:00+02:00"),
            (&kathmandu, 1_772_323_200_000, "2026-03-01T05:45:00+05:45"),
            (&Zone::utc(), 1_772_323_200_000, "2026-03-01T00:00:00+00:00"),
            (&Zone::utc(), i64::MAX, ""),
        ] {
            assert_eq!(zone.rfc3339(millis), expected);
        }
    }
}
