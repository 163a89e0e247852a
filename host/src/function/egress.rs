//! What a function may reach by HTTP: the policy, as plain data.
//!
//! Everything is denied but what a [`Rule`] allows. A request is checked twice: its
//! [`Target`] as it is written ([`Egress::admits`]), and each address that its name stands
//! for, right before a connection is made to that very address ([`Egress::admits_address`]).
//! So a name that is allowed leads to public addresses only, whatever its DNS says, unless
//! the address is listed itself.

mod address;
mod endpoint;
mod rule;
mod target;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use address::{Kind, Net, embedded, kind};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use rule::{InvalidRule, Rule};
pub use target::{Host, InvalidTarget, Scheme, Target};

use super::ByteSize;

/// Connections of one function: what a browser opens to a handful of hosts.
pub const DEFAULT_CONNECTIONS: u32 = 32;
/// What `connections` may be.
pub const CONNECTIONS_RANGE: RangeInclusive<u32> = 1..=1000;
/// Requests of one function under way: a few for each connection, for HTTP/2.
pub const DEFAULT_REQUESTS: u32 = 128;
/// What `requests` may be.
pub const REQUESTS_RANGE: RangeInclusive<u32> = 1..=10_000;
/// The body of one answer. It streams, so this bounds traffic, not memory.
pub const DEFAULT_RESPONSE: ByteSize = ByteSize::mib(64);
/// What `response-limit` may be.
pub const RESPONSE_RANGE: RangeInclusive<ByteSize> = ByteSize::kib(1)..=ByteSize::mib(1 << 20);
/// Three lost SYNs take seven seconds.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// nginx's `proxy_read_timeout`.
pub const DEFAULT_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
/// As above.
pub const DEFAULT_BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(60);
/// What the timeouts may be: up to the longest `timeout` of a function.
pub const TIMEOUTS_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_mins(15);
/// The longest URL of an endpoint: what servers take (nginx's `large_client_header_buffers`).
const MAX_URL: usize = 8 << 10;
/// How many rules a list may have.
pub const MAX_RULES: usize = 1000;

/// What a function may reach, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// What is allowed. Empty: nothing.
    pub rules: Vec<Rule>,
    /// Connections at once. 32 by default, 1–1000.
    pub connections: u32,
    /// Requests under way at once. 128 by default, 1–10 000.
    pub requests: u32,
    /// The largest body of an answer. 64 MiB by default, 1 KiB – 1 TiB.
    pub response: ByteSize,
    /// From the call to a connection: waiting for one, name resolution, TCP and TLS.
    /// 10 s by default.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the answer. 60 s by default.
    pub first_byte_timeout: Duration,
    /// Between two parts of the answer's body. 60 s by default.
    pub between_bytes_timeout: Duration,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            connections: DEFAULT_CONNECTIONS,
            requests: DEFAULT_REQUESTS,
            response: DEFAULT_RESPONSE,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            first_byte_timeout: DEFAULT_FIRST_BYTE_TIMEOUT,
            between_bytes_timeout: DEFAULT_BETWEEN_BYTES_TIMEOUT,
        }
    }
}

impl Egress {
    /// Whether this may be asked for, by its name.
    #[must_use]
    pub fn admits(&self, target: &Target) -> bool {
        self.rules.iter().any(|rule| rule.admits(target))
    }

    /// Whether a connection for a target that is admitted may go to this address.
    ///
    /// # Errors
    /// What kind of address it is.
    pub fn admits_address(&self, target: &Target, address: IpAddr) -> Result<(), &'static str> {
        match kind(address) {
            Kind::Public => Ok(()),
            Kind::Never(what) => Err(what),
            Kind::Special(what) => {
                let lists = |rule: &Rule| rule.lists(target, address);
                self.rules.iter().any(lists).then_some(()).ok_or(what)
            }
        }
    }
}

#[cfg(test)]
mod tests;
