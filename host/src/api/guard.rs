//! The first look at a request to the admin address, before its path, body or signature.
//!
//! A browser on the same machine or network can be made by any web page to send requests to an
//! address that the page's author could never reach. Two doors stand open to it, and both are
//! shut here, whatever the request asks for and whether it is signed or not:
//!
//! - **Cross-site requests**: a form or script of another site posts to us. Browsers mark these
//!   with `Origin` or `Sec-Fetch-Site`. No web page is a client of this address, so any `Origin`
//!   is refused, and any `Sec-Fetch-Site` but `same-origin` and `none` (typed into the address
//!   bar).
//! - **DNS rebinding**: a site's name is made to resolve to our address, so that for the browser
//!   its page and we are the same origin, and neither header tells. Yet `Host` still carries the
//!   site's name. So `Host` must be one of our own names: an IP address cannot be rebound, nor
//!   can `localhost`, which browsers resolve themselves; other names only the operator vouches
//!   for.
//!
//! This is no authentication: a client that is no browser sets these headers as it likes.
//! Signatures are for that.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, StatusCode, Uri};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How much of a client's header is repeated in an answer or a log line.
const MAX_ECHO_CHARS: usize = 100;

/// The names under which the admin address answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    addresses: Addresses,
    port: u16,
    /// Lower case, each with its port.
    names: Vec<(String, u16)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Addresses {
    /// Bound to a wildcard: any address literal is one of ours.
    Any,
    Only(Vec<IpAddr>),
}

/// A name in the configuration that can never be a `Host`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no name for the admin address: give a host name or an IP address, with or \
     without `:port`, and no scheme or path"
)]
pub struct InvalidName {
    pub name: String,
}

/// Why a request is turned away unread. The texts are for the client and for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the request has the header Origin ({origin}), so a web page sent it, and the admin \
         address does not serve web pages: use the command line or an SDK outside the browser"
    )]
    Origin { origin: String },
    #[error(
        "the request has the header Sec-Fetch-Site with {value}, so a page of another site sent \
         it, and the admin address does not serve web pages: use the command line or an SDK \
         outside the browser"
    )]
    CrossSite { value: String },
    #[error("the request has no Host header: send the address's own name, such as {expected}")]
    HostMissing { expected: String },
    #[error("the request has {count} Host headers: send one")]
    HostRepeated { count: usize },
    #[error("Host {host} is not a name of the admin address: use {expected}")]
    HostForeign { host: String, expected: String },
}

impl Refusal {
    /// AWS's name for it: the `x-amzn-errortype` of the answer.
    pub fn code(&self) -> &'static str {
        "AccessDeniedException"
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}

impl Guard {
    /// Accepts the names of an address that is bound as `bound` (with its real port, after the
    /// bind), and `names` besides. A name without a port goes with the bound one; one with a port
    /// serves clients that come through a forwarded port.
    ///
    /// - Bound to one address: that address.
    /// - Bound to a loopback address: also `localhost`, `127.0.0.1` and `[::1]`, because a tunnel
    ///   or a client may say any of them.
    /// - Bound to `0.0.0.0` or `[::]`: every IP address, and `localhost`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] for the first name that is none.
    pub fn new(bound: SocketAddr, names: &[String]) -> Result<Self, InvalidName> {
        let ip = bound.ip().to_canonical();
        let port = bound.port();
        let mut addresses = if ip.is_unspecified() {
            Addresses::Any
        } else if ip.is_loopback() {
            Addresses::Only(vec![
                ip,
                Ipv4Addr::LOCALHOST.into(),
                Ipv6Addr::LOCALHOST.into(),
            ])
        } else {
            Addresses::Only(vec![ip])
        };
        let mut known = Vec::new();
        if ip.is_unspecified() || ip.is_loopback() {
            known.push(("localhost".to_owned(), port));
        }
        for name in names {
            let invalid = || InvalidName { name: name.clone() };
            let Authority { host, port: given } = Authority::parse(name).ok_or_else(invalid)?;
            match (host, given) {
                (Host::Address(ip), None) => {
                    if let Addresses::Only(addresses) = &mut addresses {
                        addresses.push(ip);
                    }
                }
                (Host::Address(ip), Some(given)) => known.push((ip.to_string(), given)),
                (Host::Name(name), given) => known.push((name, given.unwrap_or(port))),
            }
        }
        Ok(Self {
            addresses,
            port,
            names: known,
        })
    }

    /// Looks at one request, whatever its method. `uri` is the request target: with HTTP/2 and in
    /// absolute form it names an authority too, which must be one of ours as well.
    ///
    /// # Errors
    ///
    /// [`Refusal`], to be answered with 403 and nothing else.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if let Some(origin) = headers.get(ORIGIN) {
            return Err(Refusal::Origin {
                origin: echo(origin.as_bytes()),
            });
        }
        for value in headers.get_all(&SEC_FETCH_SITE) {
            if !matches!(value.as_bytes(), b"same-origin" | b"none") {
                return Err(Refusal::CrossSite {
                    value: echo(value.as_bytes()),
                });
            }
        }

        let hosts: Vec<&[u8]> = headers
            .get_all(HOST)
            .iter()
            .map(|host| host.as_bytes())
            .collect();
        if hosts.len() > 1 {
            return Err(Refusal::HostRepeated { count: hosts.len() });
        }
        let authority = uri
            .authority()
            .map(|authority| authority.as_str().as_bytes());
        if hosts.is_empty() && authority.is_none() {
            return Err(Refusal::HostMissing {
                expected: self.example(),
            });
        }
        match hosts
            .into_iter()
            .chain(authority)
            .find(|host| !self.is_own(host))
        {
            None => Ok(()),
            Some(host) => Err(Refusal::HostForeign {
                host: echo(host),
                expected: self.example(),
            }),
        }
    }

    fn is_own(&self, host: &[u8]) -> bool {
        let Some(Authority { host, port }) =
            std::str::from_utf8(host).ok().and_then(Authority::parse)
        else {
            return false;
        };
        // Clients leave out the port that their scheme implies.
        let has_port = |own: u16| port.map_or(matches!(own, 80 | 443), |port| port == own);
        let has_name = |host: &str| {
            self.names
                .iter()
                .any(|(name, own)| name == host && has_port(*own))
        };
        match host {
            Host::Name(name) => has_name(&name),
            Host::Address(ip) => {
                let is_bound = match &self.addresses {
                    Addresses::Any => true,
                    Addresses::Only(addresses) => addresses.contains(&ip),
                };
                (is_bound && has_port(self.port)) || has_name(&ip.to_string())
            }
        }
    }

    /// A name that would be accepted, for error texts.
    fn example(&self) -> String {
        match (&self.addresses, self.names.first()) {
            (Addresses::Only(addresses), _) => SocketAddr::new(addresses[0], self.port).to_string(),
            (Addresses::Any, Some((name, port))) => format!("{name}:{port}"),
            (Addresses::Any, None) => format!("an IP address and port {}", self.port),
        }
    }
}

/// What a `Host` header says. Stricter than the RFC: no user, no percent-encoding, no empty port.
#[derive(Debug, PartialEq, Eq)]
struct Authority {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    /// Lower case.
    Name(String),
}

impl Authority {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, after) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':')?),
            };
            (Host::Address(IpAddr::V6(address).to_canonical()), port)
        } else {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (Host::parse(host)?, port)
        };
        let port = match port {
            None => None,
            // `parse` alone would take a sign.
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
        };
        Some(Self { host, port })
    }
}

impl Host {
    fn parse(host: &str) -> Option<Self> {
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let is_host = !host.is_empty() && host.len() <= 253 && host.bytes().all(is_name);
        is_host.then(|| Self::Name(host.to_ascii_lowercase()))
    }
}

/// A client's text, quoted, without control characters, not too much of it.
fn echo(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let mut short: String = text.chars().take(MAX_ECHO_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
