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
mod own_addresses;
mod pool;
mod resolve;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;

pub(crate) use body::{Alive, BoxError, Outgoing, ResponseBody};
pub(crate) use client::{Client, Options};
pub(crate) use error::Error;
pub(crate) use own_addresses::OwnAddresses;
use pool::Room;
pub(crate) use resolve::{Resolve, SystemResolver};
pub(crate) use tls::Roots;

use crate::telemetry::Log;

/// What the clients of all functions have in common.
pub struct Shared {
    resolver: Arc<dyn Resolve>,
    roots: Roots,
    room: Arc<Room>,
    log: Log,
    own: Arc<OwnAddresses>,
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
            room: Room::new(connections),
            log,
            own: Arc::default(),
        }
    }

    /// Of a runtime without a host around it: nothing is reached.
    #[must_use]
    pub fn nowhere(log: Log) -> Self {
        Self::new(Arc::new(resolve::Nobody), Roots::none(), 0, log)
    }

    /// Where the host itself listens: to be told, so that no guest reaches it.
    pub(crate) fn own_addresses(&self) -> &Arc<OwnAddresses> {
        &self.own
    }
}
