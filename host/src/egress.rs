//! Outbound HTTP: what leaves this machine on behalf of a function.
//!
//! A [`Client`] sends the requests of one function. It knows the function's policy
//! ([`crate::function::Egress`]), resolves names itself, checks each address and connects to
//! the very address that it checked, keeps connections for reuse, and holds all limits: of
//! connections, requests, bytes and time. [`Shared`] is what all clients have in common: the
//! host's own addresses, which nobody reaches, the roots of trust, and the bound on all
//! connections together.
//!
//! **Where connections live.** A connection is driven by a task on the core (a runtime of one
//! thread) whose request opened it, and stays there. The pool is one for all cores: a request
//! from another core talks with the driver over hyper's channel, which wakes across threads,
//! so a connection serves whoever needs it; those of the own core come first, as they need no
//! such wake-up. A pool per core would open as many connections to each host as there are
//! cores, and divide the limit among them. All cores end together, so no driver ends early.
//!
//! Redirects are never followed: the answer is handed on, and who follows it sends a request
//! that is checked like any other. No proxy is used, whatever the environment says.

mod body;
mod client;
mod connect;
mod error;
mod message;
mod pool;
mod resolve;
#[cfg(test)]
mod tests;
mod tls;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

pub(crate) use body::{Alive, BoxError, Outgoing, ResponseBody};
pub(crate) use client::{Client, Options};
pub(crate) use error::Error;
pub(crate) use resolve::{Resolve, SystemResolver};
pub(crate) use tls::Roots;

use crate::function::egress::embedded;
use crate::telemetry::Log;

/// What the clients of all functions have in common.
pub struct Shared {
    resolver: Arc<dyn Resolve>,
    roots: Roots,
    /// Connections of all functions together.
    connections: Arc<Semaphore>,
    log: Log,
    /// Where the host itself listens. Unknown, nothing is reached.
    own: OnceLock<Vec<SocketAddr>>,
}

impl Shared {
    pub(crate) fn new(
        resolver: Arc<dyn Resolve>,
        roots: Roots,
        connections: usize,
        log: Log,
    ) -> Self {
        Self {
            resolver,
            roots,
            connections: Arc::new(Semaphore::new(connections)),
            log,
            own: OnceLock::new(),
        }
    }

    /// Of a runtime without a host around it: nothing is reached.
    #[must_use]
    pub fn nowhere(log: Log) -> Self {
        Self::new(Arc::new(resolve::Nobody), Roots::new(Vec::new()), 0, log)
    }

    /// Says where the host listens, which no function reaches. Before that, none reaches
    /// anything. Counts once.
    pub(crate) fn listens_on(&self, addresses: Vec<SocketAddr>) {
        let _ = self.own.set(addresses);
    }

    /// Whether a connection to this address would come to the host itself.
    fn is_own(&self, address: SocketAddr) -> bool {
        let Some(own) = self.own.get() else {
            return true;
        };
        let ip = address.ip().to_canonical();
        let leads_to = embedded(ip).map(IpAddr::V4);
        own.iter().any(|own| {
            let listens = own.ip().to_canonical();
            let meets =
                |ip: IpAddr| ip == listens || (listens.is_unspecified() && is_of_this_machine(ip));
            own.port() == address.port() && (meets(ip) || leads_to.is_some_and(meets))
        })
    }
}

/// Whether this machine has the address: only then a socket can be bound to it. Where that
/// cannot be told, it has it.
fn is_of_this_machine(ip: IpAddr) -> bool {
    if ip.is_loopback() {
        return true;
    }
    match UdpSocket::bind(SocketAddr::new(ip, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrNotAvailable,
    }
}
