//! Which addresses belong to the public Internet, by the registries of IANA
//! ("IPv4 Special-Purpose Address Registry", "IPv6 Special-Purpose Address Registry").

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It belongs to the public Internet.
    Public,
    /// It does not, and is reached only if it is listed.
    Special(&'static str),
    /// Nobody has it: it is never reached.
    Never(&'static str),
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Net {
    base: IpAddr,
    prefix: u8,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Net {
    Net {
        base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        prefix,
    }
}

const fn v6(head: [u16; 4], tail: [u16; 4], prefix: u8) -> Net {
    let [a, b, c, d] = head;
    let [e, f, g, h] = tail;
    Net {
        base: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)),
        prefix,
    }
}

/// Blocks that are never a destination. In the order in which they are looked at.
const NEVER: [(Net, &str); 5] = [
    (v4(0, 0, 0, 0, 8), "an unspecified address"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v4(255, 255, 255, 255, 32), "the broadcast address"),
    (v6([0; 4], [0; 4], 128), "an unspecified address"),
    (v6([0xff00, 0, 0, 0], [0; 4], 8), "a multicast address"),
];

/// Blocks that are reached only if they are listed.
const SPECIAL: [(Net, &str); 25] = [
    (v4(127, 0, 0, 0, 8), "a loopback address"),
    (v4(10, 0, 0, 0, 8), "a private address"),
    (v4(172, 16, 0, 0, 12), "a private address"),
    (v4(192, 168, 0, 0, 16), "a private address"),
    (
        v4(100, 64, 0, 0, 10),
        "an address of a carrier's own network",
    ),
    (v4(169, 254, 169, 254, 32), "a cloud's metadata address"),
    // Azure's, which looks like a public one.
    (v4(168, 63, 129, 16, 32), "a cloud's metadata address"),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(192, 0, 0, 0, 24), "an address of the IETF's protocols"),
    (v4(192, 0, 2, 0, 24), "an address for documentation"),
    (v4(198, 51, 100, 0, 24), "an address for documentation"),
    (v4(203, 0, 113, 0, 24), "an address for documentation"),
    (v4(192, 88, 99, 0, 24), "an address of 6to4 relays"),
    (v4(198, 18, 0, 0, 15), "an address for benchmarks"),
    (v4(240, 0, 0, 0, 4), "a reserved address"),
    (v6([0; 4], [0, 0, 0, 1], 128), "a loopback address"),
    (
        v6([0xfd00, 0x0ec2, 0, 0], [0, 0, 0, 0x254], 128),
        "a cloud's metadata address",
    ),
    (v6([0xfc00, 0, 0, 0], [0; 4], 7), "a private address"),
    (v6([0xfe80, 0, 0, 0], [0; 4], 10), "a link-local address"),
    (v6([0xfec0, 0, 0, 0], [0; 4], 10), "a site-local address"),
    (
        v6([0x2001, 0, 0, 0], [0; 4], 32),
        "an address of a Teredo tunnel",
    ),
    (
        v6([0x2001, 0, 0, 0], [0; 4], 23),
        "an address of the IETF's protocols",
    ),
    (
        v6([0x2001, 0x0db8, 0, 0], [0; 4], 32),
        "an address for documentation",
    ),
    (
        v6([0x3fff, 0, 0, 0], [0; 4], 20),
        "an address for documentation",
    ),
    (
        v6([0x5f00, 0, 0, 0], [0; 4], 16),
        "a segment-routing address",
    ),
];

/// All of today's public IPv6 addresses (RFC 4291, 2.4).
const GLOBAL_UNICAST: Net = v6([0x2000, 0, 0, 0], [0; 4], 3);
/// RFC 3056.
const SIX_TO_FOUR: Net = v6([0x2002, 0, 0, 0], [0; 4], 16);
/// RFC 6052.
const NAT64: Net = v6([0x0064, 0xff9b, 0, 0], [0; 4], 96);
/// RFC 8215: a network's own translator, to whatever it reaches.
const LOCAL_NAT64: Net = v6([0x0064, 0xff9b, 1, 0], [0; 4], 48);
/// RFC 4291, 2.5.5.1; deprecated.
const COMPATIBLE: Net = v6([0; 4], [0; 4], 96);
/// RFC 2765: addresses that a translator makes.
const TRANSLATED: Net = v6([0; 4], [0xffff, 0, 0, 0], 96);

/// What kind of address it is. An IPv4 address in an IPv6 one (mapped, 6to4, NAT64) is what
/// the IPv4 address is.
#[must_use]
pub fn kind(address: IpAddr) -> Kind {
    let address = address.to_canonical();
    let found = |blocks: &'static [(Net, &'static str)]| {
        let mut blocks = blocks.iter();
        blocks.find_map(|(net, what)| net.contains(address).then_some(*what))
    };
    if let Some(what) = found(&NEVER) {
        return Kind::Never(what);
    }
    if let Some(what) = found(&SPECIAL) {
        return Kind::Special(what);
    }
    if address.is_ipv4() {
        return Kind::Public;
    }
    if COMPATIBLE.contains(address) || TRANSLATED.contains(address) {
        return Kind::Special("an IPv4 address in an outdated form");
    }
    if LOCAL_NAT64.contains(address) {
        return Kind::Special("an address of this network's translator");
    }
    match embedded(address) {
        Some(inner) => kind(inner.into()),
        None if GLOBAL_UNICAST.contains(address) => Kind::Public,
        None => Kind::Special("a reserved address"),
    }
}

/// The IPv4 address that an IPv6 one leads to.
#[must_use]
pub fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    let octets = v6.octets();
    let at = |index: usize| {
        let four: [u8; 4] = octets[index..index + 4].try_into().expect("it is four");
        Ipv4Addr::from(four)
    };
    if SIX_TO_FOUR.contains(address) {
        return Some(at(2));
    }
    let last = [NAT64, LOCAL_NAT64, COMPATIBLE, TRANSLATED];
    let in_last = last.iter().any(|net| net.contains(address));
    v6.to_ipv4_mapped().or(in_last.then(|| at(12)))
}

impl Net {
    /// One address, an IPv4 address in its own form.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let base = address.to_canonical();
        let prefix = if base.is_ipv4() { 32 } else { 128 };
        Self { base, prefix }
    }

    /// A block; None if the prefix is too long, or bits beyond it are set.
    #[must_use]
    pub fn new(base: IpAddr, prefix: u8) -> Option<Self> {
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let net = Self { base, prefix };
        (prefix <= longest && net.masked(base) == bits(base)).then_some(net)
    }

    /// Those bits of an address that the prefix covers.
    fn masked(self, address: IpAddr) -> u128 {
        let ignored = 128 - u32::from(self.prefix);
        let mask = u128::MAX.checked_shl(ignored).unwrap_or(0);
        bits(address) & mask
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.base.is_ipv4() == address.is_ipv4() && self.masked(address) == bits(self.base)
    }

    /// Whether all of the other lies in it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base)
    }

    /// What it is, if all of it is never reached.
    #[must_use]
    pub fn nowhere(self) -> Option<&'static str> {
        let mut blocks = NEVER.iter();
        blocks.find_map(|(net, what)| net.covers(self).then_some(*what))
    }

    /// Whether every address in it belongs to the public Internet.
    #[must_use]
    pub fn is_public(self) -> bool {
        let meets = |net: Self| net.covers(self) || self.covers(net);
        let blocks = NEVER.iter().chain(&SPECIAL);
        kind(self.base) == Kind::Public
            && !blocks.into_iter().any(|(net, _)| meets(*net))
            && (self.base.is_ipv4()
                || self.prefix == 128
                || (GLOBAL_UNICAST.covers(self) && !meets(SIX_TO_FOUR)))
    }
}

/// In the highest places, so that prefixes count alike.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => v6.into(),
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, prefix } = *self;
        let whole = if base.is_ipv4() { 32 } else { 128 };
        let (open, close) = if base.is_ipv4() { ("", "") } else { ("[", "]") };
        if prefix == whole {
            write!(f, "{open}{base}{close}")
        } else {
            write!(f, "{open}{base}/{prefix}{close}")
        }
    }
}
