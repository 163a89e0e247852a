//! One line of an `egress` list.

use std::fmt;
use std::net::IpAddr;

use super::address::{Kind, Net, kind};
use super::target::{Host, InvalidTarget, Scheme, Target, parse_port, split_port};

/// What one entry of a list allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    scheme: Scheme,
    hosts: Hosts,
    /// None: every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// `*`: every name, and every public address.
    Any,
    /// `*.example.com`: every name below, not this one.
    Below(String),
    /// This name.
    Name(String),
    /// An address or a block of them, also if it is no public one.
    Net(Net),
}

/// What allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct InvalidRule {
    /// What is wrong.
    pub what: String,
    /// What to write.
    pub remedy: &'static str,
}

const FORMS: &str = "write `SCHEME://HOST` or `SCHEME://HOST:PORT`, such as \
                     `https://api.example.com`, `https://*.example.com`, `http://10.0.0.5:8080` \
                     or `http://10.0.0.0/8:8080`";

impl From<InvalidTarget> for InvalidRule {
    fn from(InvalidTarget(what): InvalidTarget) -> Self {
        invalid(what)
    }
}

fn invalid(what: &str) -> InvalidRule {
    InvalidRule {
        what: what.to_owned(),
        remedy: FORMS,
    }
}

impl Rule {
    /// Reads it.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidRule> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(invalid("no scheme"));
        };
        let Some(scheme) = Scheme::parse(scheme) else {
            return Err(invalid("another scheme than `http` and `https`"));
        };
        let (host, port) = split_port(rest)?;
        let port = match port {
            "" => Some(scheme.port()),
            "*" => None,
            port => Some(parse_port(port)?),
        };
        let hosts = Hosts::parse(host)?;
        if let Hosts::Net(net) = hosts
            && let Some(what) = net.nowhere()
        {
            return Err(InvalidRule {
                what: format!("{what}, which is never reached"),
                remedy: "leave it out",
            });
        }
        Ok(Self {
            scheme,
            hosts,
            port,
        })
    }

    /// The rule that allows this and nothing else.
    #[must_use]
    pub fn of(target: &Target) -> Self {
        Self {
            scheme: target.scheme,
            hosts: match &target.host {
                Host::Name(name) => Hosts::Name(name.clone()),
                Host::Address(address) => Hosts::Net(Net::of(*address)),
            },
            port: Some(target.port),
        }
    }

    /// Every public address, by one scheme.
    #[must_use]
    pub fn anywhere(scheme: Scheme) -> Self {
        Self {
            scheme,
            hosts: Hosts::Any,
            port: None,
        }
    }

    /// Whether it names addresses, not names.
    #[must_use]
    pub fn is_of_addresses(&self) -> bool {
        matches!(self.hosts, Hosts::Net(_))
    }

    fn is_about(&self, target: &Target) -> bool {
        self.scheme == target.scheme && self.port.is_none_or(|port| port == target.port)
    }

    /// Whether this may be asked for.
    #[must_use]
    pub fn admits(&self, target: &Target) -> bool {
        let host = match (&self.hosts, &target.host) {
            (Hosts::Any, Host::Name(_)) => true,
            (Hosts::Any, Host::Address(address)) => kind(*address) == Kind::Public,
            (Hosts::Below(suffix), Host::Name(name)) => is_below(name, suffix),
            (Hosts::Name(own), Host::Name(name)) => own == name,
            (Hosts::Net(net), Host::Address(address)) => net.contains(*address),
            (Hosts::Below(_) | Hosts::Name(_), Host::Address(_))
            | (Hosts::Net(_), Host::Name(_)) => false,
        };
        host && self.is_about(target)
    }

    /// Whether it lists this address for such a target, whatever kind of address it is.
    #[must_use]
    pub fn lists(&self, target: &Target, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.is_about(target) && matches!(self.hosts, Hosts::Net(net) if net.contains(address))
    }

    /// Whether it allows all that the other allows.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let hosts = match (&self.hosts, &other.hosts) {
            (Hosts::Any, Hosts::Net(net)) => net.is_public(),
            (Hosts::Any, _) => true,
            (Hosts::Below(own), Hosts::Below(suffix)) => own == suffix || is_below(suffix, own),
            (Hosts::Below(own), Hosts::Name(name)) => is_below(name, own),
            (Hosts::Name(own), Hosts::Name(name)) => own == name,
            (Hosts::Net(own), Hosts::Net(net)) => own.covers(*net),
            _ => false,
        };
        hosts && self.scheme == other.scheme && (self.port.is_none() || self.port == other.port)
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    let head = name.strip_suffix(suffix);
    head.is_some_and(|head| head.len() > 1 && head.ends_with('.'))
}

impl Hosts {
    fn parse(text: &str) -> Result<Self, InvalidRule> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return match Host::parse(suffix)? {
                Host::Name(name) => Ok(Self::Below(name)),
                Host::Address(_) => Err(invalid("an address below which there is nothing")),
            };
        }
        if text.contains('*') {
            return Err(invalid("a `*` that is not the first part of the name"));
        }
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let Some((base, prefix)) = bare.unwrap_or(text).split_once('/') else {
            return Ok(match Host::parse(text)? {
                Host::Name(name) => Self::Name(name),
                Host::Address(address) => Self::Net(Net::of(address)),
            });
        };
        let base = base.parse::<IpAddr>();
        let base = base.ok().filter(|base| base.is_ipv6() == bare.is_some());
        let base = base.ok_or_else(|| invalid("a path, of which nothing is looked at"))?;
        let net = prefix
            .parse()
            .ok()
            .and_then(|prefix| Net::new(base, prefix));
        let net = net.ok_or_else(|| {
            invalid("no block of addresses: its prefix is too long, or bits beyond it are set")
        })?;
        Ok(Self::Net(net))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme,
            hosts,
            port,
        } = self;
        write!(f, "{}://", scheme.as_str())?;
        match hosts {
            Hosts::Any => f.write_str("*")?,
            Hosts::Below(suffix) => write!(f, "*.{suffix}")?,
            Hosts::Name(name) => f.write_str(name)?,
            Hosts::Net(net) => net.fmt(f)?,
        }
        match port {
            Some(port) if *port == scheme.port() => Ok(()),
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}
