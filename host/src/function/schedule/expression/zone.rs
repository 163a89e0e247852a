//! Time zones by their IANA names. Their rules are in the binary: a small box may have no
//! `/usr/share/zoneinfo`, and all boxes are to agree.

use std::sync::Arc;

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
