//! The addresses that this host itself serves on: no guest's to reach, listed or not.
//!
//! Whoever reaches them from within the machine is taken for the operator: the admin
//! address trusts loopback, and a function that calls itself is a loop.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{PoisonError, RwLock};

use crate::function::egress::embedded;

/// The addresses that are served. As long as they are unknown, all are taken for them.
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses(RwLock<Option<Vec<SocketAddr>>>);

impl OwnAddresses {
    /// From now on these, and none from before. To be called with those of the
    /// configuration, and again when they are bound: port 0 is another one then.
    pub(crate) fn set(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let addresses = addresses.into_iter().map(canonical).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(addresses);
    }

    /// Whether a connection to this address would end at this host, directly or through a
    /// translator of IPv6. To be asked with the very address that is connected to, after
    /// names are looked up. What is served on all addresses (`0.0.0.0`, `[::]`) is reached
    /// by each that this machine has.
    ///
    /// Asks the kernel in that case alone, and only for a port that is served: microseconds.
    pub(crate) fn include(&self, address: SocketAddr) -> bool {
        let own = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = &*own else {
            return true;
        };
        let leads_to = embedded(address.ip().to_canonical());
        let at_last = leads_to.map(|ip| SocketAddr::new(ip.into(), address.port()));
        let is_own = |address: SocketAddr| own.iter().any(|own| meets(*own, address));
        is_own(canonical(address)) || at_last.is_some_and(is_own)
    }
}

/// Whether who connects to an address comes to one that is served.
fn meets(own: SocketAddr, address: SocketAddr) -> bool {
    own.port() == address.port()
        && (own.ip() == address.ip()
            // The kernel takes it for loopback.
            || address.ip().is_unspecified()
            || (own.ip().is_unspecified() && is_of_this_machine(address)))
}

/// `::ffff:127.0.0.1` is 127.0.0.1.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Whether this machine has the address: only then a socket can be bound to it. Where that
/// cannot be told, it has it.
fn is_of_this_machine(mut address: SocketAddr) -> bool {
    if address.ip().is_loopback() {
        return true;
    }
    address.set_port(0);
    match UdpSocket::bind(address) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::AddrNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn include(own: &str, address: &str) -> bool {
        let addresses = OwnAddresses::default();
        addresses.set([own.parse().unwrap()]);
        addresses.include(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_own_however_it_is_written() {
        for (own, address) in [
            ("127.0.0.1:3000", "127.0.0.1:3000"),
            ("127.0.0.1:3000", "[::ffff:127.0.0.1]:3000"),
            ("127.0.0.1:3000", "0.0.0.0:3000"),
            ("127.0.0.1:3000", "[::]:3000"),
            ("127.0.0.1:3000", "[::ffff:0.0.0.0]:3000"),
            ("[::1]:3000", "[::1]:3000"),
            ("[::ffff:127.0.0.1]:3000", "127.0.0.1:3000"),
            ("192.0.2.1:3000", "192.0.2.1:3000"),
            // Every address of this machine.
            ("0.0.0.0:3000", "127.0.0.1:3000"),
            ("0.0.0.0:3000", "127.1.2.3:3000"),
            ("0.0.0.0:3000", "[::ffff:127.0.0.1]:3000"),
            ("[::]:3000", "127.0.0.1:3000"),
            ("[::]:3000", "0.0.0.0:3000"),
            // Through a translator.
            ("127.0.0.1:3000", "[64:ff9b::127.0.0.1]:3000"),
            ("0.0.0.0:3000", "[64:ff9b::127.0.0.1]:3000"),
        ] {
            assert!(include(own, address), "{own} and {address}");
        }
    }

    #[test]
    fn others_are_not() {
        for (own, address) in [
            ("127.0.0.1:3000", "127.0.0.1:3001"),
            ("127.0.0.1:3000", "127.0.0.2:3000"),
            // Kept for documentation: nobody has them.
            ("0.0.0.0:3000", "192.0.2.1:3000"),
            ("0.0.0.0:3000", "[2001:db8::1]:3000"),
            ("[::]:3000", "198.51.100.7:3000"),
            ("0.0.0.0:3000", "127.0.0.1:3001"),
        ] {
            assert!(!include(own, address), "{own} and {address}");
        }
    }

    #[test]
    fn as_long_as_they_are_unknown_all_are() {
        let addresses = OwnAddresses::default();
        let address = "192.0.2.1:3000".parse().unwrap();
        assert!(addresses.include(address));
        addresses.set([]);
        assert!(!addresses.include(address));
    }

    #[test]
    fn the_last_ones_count() {
        let addresses = OwnAddresses::default();
        let [one, other] = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
        addresses.set([one]);
        addresses.set([other]);
        assert!(!addresses.include(one) && addresses.include(other));
    }
}
