//! A URL that the operator names, to which the host itself sends.

use std::fmt;

use super::rule::Rule;
use super::target::{InvalidTarget, Scheme, Target};
use super::{Egress, MAX_URL};

/// Where records are posted.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The whole of it.
    url: String,
    /// Who it is.
    target: Target,
    /// What may be reached on the way: its own name, and of other than public addresses
    /// those that the host lists.
    reach: Egress,
}

impl Endpoint {
    /// Reads it, within what a host allows.
    ///
    /// # Errors
    /// If it is none, or the host does not allow it.
    pub fn parse(url: &str, ceiling: &[Rule]) -> Result<Self, InvalidEndpoint> {
        if url.len() > MAX_URL {
            return Err(InvalidTarget("longer than 8 KiB").into());
        }
        let (scheme, rest) = url.split_once("://").ok_or(InvalidTarget("no scheme"))?;
        let other = InvalidTarget("another scheme than `http` and `https`");
        let scheme = Scheme::parse(scheme).ok_or(other)?;
        if rest.contains('#') {
            return Err(InvalidTarget("a `#`, which no server sees").into());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let target = Target::new(scheme, authority)?;
        if url.parse::<http::Uri>().is_err() || !path.is_ascii() {
            return Err(InvalidTarget("no path; percent-encode what is none").into());
        }
        let rule = Rule::of(&target);
        if !ceiling.iter().any(|ceiling| ceiling.covers(&rule)) {
            return Err(InvalidEndpoint::Above(rule));
        }
        let listed = ceiling.iter().filter(|rule| rule.is_of_addresses());
        let rules = listed.cloned().chain([rule]).collect();
        Ok(Self {
            url: url.to_owned(),
            target,
            reach: Egress {
                rules,
                ..Egress::default()
            },
        })
    }

    /// The whole URL. It may hold a secret: it is in no log.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Who it is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What may be reached on the way.
    #[must_use]
    pub fn reach(&self) -> &Egress {
        &self.reach
    }
}

/// The path may hold a secret.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}/…)", self.target)
    }
}

/// What is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// It is no URL.
    #[error(transparent)]
    Url(#[from] InvalidTarget),
    /// The host does not allow what this rule says.
    #[error("`{0}` is more than the host allows")]
    Above(Rule),
}
