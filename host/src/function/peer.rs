//! Whom a function may reach with sockets of its own.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What is spoken over a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// As the manifest says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The other end of a socket: `tcp://10.0.0.5:5432`, `udp://[fd00::53]:53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// What is spoken with it.
    pub protocol: Protocol,
    /// Where it is: one address and one port, never a name.
    pub address: SocketAddr,
}

/// Why a text names no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeer {
    /// Neither `tcp://` nor `udp://`.
    #[error("it does not begin with `tcp://` or `udp://`")]
    Protocol,
    /// No IP address with a port.
    #[error("no IP address and port behind the protocol (names are not looked up)")]
    Address,
    /// Port 0 is nobody's.
    #[error("port 0")]
    Port,
    /// `0.0.0.0`, a broadcast or a group.
    #[error("not the address of one machine")]
    Unicast,
    /// `::ffff:10.0.0.5`: the kernel would take it for the IPv4 address.
    #[error("an IPv4 address written as IPv6")]
    Mapped,
}

impl Peer {
    /// Reads `PROTOCOL://ADDRESS:PORT`.
    ///
    /// # Errors
    /// If it is anything else, or names nobody in particular.
    pub fn parse(text: &str) -> Result<Self, InvalidPeer> {
        let (protocol, rest) = text.split_once("://").ok_or(InvalidPeer::Protocol)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(InvalidPeer::Protocol),
        };
        let address: SocketAddr = rest.parse().map_err(|_| InvalidPeer::Address)?;
        if address.port() == 0 {
            return Err(InvalidPeer::Port);
        }
        let ip = address.ip();
        if ip.to_canonical() != ip {
            return Err(InvalidPeer::Mapped);
        }
        let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        if ip.is_unspecified() || ip.is_multicast() || broadcast {
            return Err(InvalidPeer::Unicast);
        }
        Ok(Self { protocol, address })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.protocol.as_str(), self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_one_address_with_a_port() {
        for text in [
            "tcp://10.0.0.5:5432",
            "udp://[fd00::53]:53",
            "tcp://127.0.0.1:1",
        ] {
            assert_eq!(Peer::parse(text).unwrap().to_string(), text);
        }
        for (text, error) in [
            ("10.0.0.5:5432", InvalidPeer::Protocol),
            ("http://10.0.0.5:80", InvalidPeer::Protocol),
            ("TCP://10.0.0.5:80", InvalidPeer::Protocol),
            ("tcp://db.example:5432", InvalidPeer::Address),
            ("tcp://10.0.0.5", InvalidPeer::Address),
            ("tcp://10.0.0.0/8:80", InvalidPeer::Address),
            ("tcp://10.0.0.5:65536", InvalidPeer::Address),
            ("tcp://10.0.0.5:80/", InvalidPeer::Address),
            ("tcp://", InvalidPeer::Address),
            ("tcp://10.0.0.5:0", InvalidPeer::Port),
            ("tcp://0.0.0.0:80", InvalidPeer::Unicast),
            ("tcp://[::]:80", InvalidPeer::Unicast),
            ("udp://255.255.255.255:80", InvalidPeer::Unicast),
            ("udp://224.0.0.1:80", InvalidPeer::Unicast),
            ("udp://[ff02::1]:80", InvalidPeer::Unicast),
            ("tcp://[::ffff:10.0.0.5]:80", InvalidPeer::Mapped),
        ] {
            assert_eq!(Peer::parse(text), Err(error), "{text}");
        }
    }
}
