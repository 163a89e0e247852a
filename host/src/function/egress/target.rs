//! Who a request is for: scheme, host and port in the one form in which they are compared.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
/// The longest part of a name.
const MAX_LABEL: usize = 63;

/// How it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// In plain text.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where none is given.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// From a URL, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Http, Self::Https];
        let mut all = all.into_iter();
        all.find(|scheme| text.eq_ignore_ascii_case(scheme.as_str()))
    }
}

/// A host, in the form in which hosts are compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name in lower case, without a dot at its end.
    Name(String),
    /// An address; one of IPv4 in that form, also if it was written as a mapped one.
    Address(IpAddr),
}

/// Who a request is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// How it is reached.
    pub scheme: Scheme,
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// What names no host and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTarget(pub &'static str);

impl Target {
    /// From a scheme and the authority of a URL: `HOST`, `HOST:PORT`.
    ///
    /// # Errors
    /// If it is anything else: with a user, with a name that is none, with a number that
    /// some read as an address.
    pub fn new(scheme: Scheme, authority: &str) -> Result<Self, InvalidTarget> {
        let (host, port) = split_port(authority)?;
        Ok(Self {
            scheme,
            host: Host::parse(host)?,
            port: match port {
                "" => scheme.port(),
                port => parse_port(port)?,
            },
        })
    }

    /// What stands in `Host` and `:authority`: without the port that the scheme implies.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// `HOST` and what follows its `:`.
pub(super) fn split_port(authority: &str) -> Result<(&str, &str), InvalidTarget> {
    if authority.contains('@') {
        return Err(InvalidTarget("a user in it"));
    }
    let end = match authority.rfind(']') {
        Some(end) => end + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, port)),
        None if rest.is_empty() => Ok((host, "")),
        None => Err(InvalidTarget("no host and port")),
    }
}

pub(super) fn parse_port(text: &str) -> Result<u16, InvalidTarget> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| is_number && *port != 0);
    port.ok_or(InvalidTarget("no port from 1 to 65535"))
}

impl Host {
    /// From a URL.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']');
            let address = inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            let address = address.ok_or(InvalidTarget("no IPv6 address in its brackets"))?;
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if !text.is_ascii() {
            return Err(InvalidTarget(
                "letters beyond ASCII; write its name as `xn--…` (punycode)",
            ));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        // Resolvers read `127.1`, `0x7f.1` and `2130706433` as addresses; so is what
        // ends in a number one or nothing (WHATWG URL, "ends in a number").
        let is_number = last.bytes().all(|b| b.is_ascii_digit())
            || last
                .strip_prefix("0x")
                .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if !last.is_empty() && is_number {
            let address = name.parse::<Ipv4Addr>();
            let address = address.map_err(|_| InvalidTarget("no IPv4 address"))?;
            return Ok(Self::Address(address.into()));
        }
        let is_label = |label: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(allowed)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > MAX_NAME || !name.split('.').all(is_label) {
            return Err(InvalidTarget("no host name"));
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}
