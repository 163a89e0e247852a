//! `wasi:sockets` 0.2: whom the function lists, and nobody else.
//!
//! wasmtime-wasi does the work; before it connects, binds, sends or hands out what was
//! received it asks [`Reach::allows`]. So:
//!
//! - A function that lists nobody gets no socket at all (`access-denied`).
//! - TCP connects to what is listed, UDP sends to it and receives from it. Nothing listens,
//!   and no port is chosen: a socket is bound to any address and port 0, or not at all.
//! - The addresses that this host serves are refused, listed or not.
//! - Names are not looked up; an IP address as a name is answered with itself.
//! - Sockets are counted for each instance and for all instances of a function, and what
//!   the host buffers for them is charged to the memory budget ([`Sockets`]).
//!
//! All of it ends with the instance. WASI 0.3's sockets are not provided: they are made by
//! an interface that cannot be counted apart from the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::ResolveAddressStream;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::bindings::sockets::udp::HostUdpSocket;
use wasmtime_wasi::p2::bindings::sockets::{
    instance_network, ip_name_lookup, network, tcp, tcp_create_socket, udp, udp_create_socket,
};
use wasmtime_wasi::p2::{DynPollable, SocketError, SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::sockets::{
    SocketAddrUse, WasiSockets, WasiSocketsCtxView, WasiSocketsView as _,
};

use crate::egress::OwnAddresses;
use crate::function::{Peer, Protocol};
use crate::runtime::{Budget, Charge, State};

/// Sockets of one instance: a small pool of connections.
pub(crate) const MAX_OF_INSTANCE: usize = 32;
/// Sockets of all instances of a function: each is a file of the process, of which systems
/// give out some ten thousand.
pub(crate) const MAX_OF_FUNCTION: usize = 512;
/// What is charged for a socket: wasmtime-wasi reads and writes 64 KiB at once.
const BUFFERS: u64 = 128 << 10;
/// What the kernel buffers in each direction, to begin with: set, it does not grow by
/// itself, which goes up to some MiB. A guest may ask for more, as far as the system lets it
/// (`net.core.rmem_max`, `wmem_max`).
const KERNEL_BUFFER: u64 = 128 << 10;

/// Whom a function may reach.
pub(crate) struct Reach {
    tcp: FxHashSet<SocketAddr>,
    udp: FxHashSet<SocketAddr>,
    own: Arc<OwnAddresses>,
    /// What is left of [`MAX_OF_FUNCTION`].
    room: Arc<Semaphore>,
}

impl Reach {
    pub(crate) fn new(peers: &[Peer], own: &Arc<OwnAddresses>) -> Arc<Self> {
        let of = |protocol| {
            let peers = peers.iter().filter(move |peer| peer.protocol == protocol);
            peers.map(|peer| peer.address).collect()
        };
        Arc::new(Self {
            tcp: of(Protocol::Tcp),
            udp: of(Protocol::Udp),
            own: Arc::clone(own),
            room: Arc::new(Semaphore::new(MAX_OF_FUNCTION)),
        })
    }

    fn nobody(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty()
    }

    /// The answer to each question of wasmtime-wasi's.
    fn allows(&self, address: SocketAddr, what: SocketAddrUse) -> bool {
        let listed = |peers: &FxHashSet<SocketAddr>| {
            peers.contains(&plain(address)) && !self.own.include(address)
        };
        match what {
            // Asked also where the kernel binds by itself.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                address.ip().is_unspecified() && address.port() == 0
            }
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => false,
            SocketAddrUse::TcpConnect => listed(&self.tcp),
            SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => listed(&self.udp),
        }
    }
}

/// Without IPv6's flow label, which says nothing of whom is reached.
fn plain(mut address: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(address) = &mut address {
        address.set_flowinfo(0);
    }
    address
}

/// Lets a guest have sockets for whom it may reach.
pub(super) fn allow(builder: &mut WasiCtxBuilder, reach: &Arc<Reach>) {
    if reach.nobody() {
        // None at all is wasmtime-wasi's default.
        return;
    }
    let asked = Arc::clone(reach);
    builder
        .allow_tcp(!reach.tcp.is_empty())
        .allow_udp(!reach.udp.is_empty())
        // No name comes so far.
        .allow_ip_name_lookup(true)
        .socket_addr_check(move |address, what| {
            Box::pin(std::future::ready(asked.allows(address, what)))
        });
}

/// Room for the sockets of one instance: for as many as it had at once.
#[derive(Default)]
pub(crate) struct Sockets(Vec<Room>);

struct Room {
    _permit: OwnedSemaphorePermit,
    _charge: Charge,
}

impl Sockets {
    /// Sees that there is room for one more than the table has.
    fn admit(
        &mut self,
        table: &mut ResourceTable,
        reach: &Reach,
        budget: &Arc<Budget>,
    ) -> Result<(), ErrorCode> {
        let open = table
            .iter_mut()
            .filter(|entry| entry.is::<TcpSocket>() || entry.is::<UdpSocket>())
            .count();
        if open < self.0.len() {
            return Ok(());
        }
        if open >= MAX_OF_INSTANCE {
            return Err(ErrorCode::NewSocketLimit);
        }
        let permit = Arc::clone(&reach.room).try_acquire_owned();
        let permit = permit.map_err(|_| ErrorCode::NewSocketLimit)?;
        let mut charge = budget.charge();
        if !charge.grow(BUFFERS) {
            return Err(ErrorCode::OutOfMemory);
        }
        self.0.push(Room {
            _permit: permit,
            _charge: charge,
        });
        Ok(())
    }
}

/// Room for one socket more.
fn admit(state: &mut State) -> SocketResult<()> {
    let reach = Arc::clone(&state.common.reach);
    // Refused by name below.
    if reach.nobody() {
        return Ok(());
    }
    let budget = Arc::clone(state.limiter.budget());
    state.sockets.admit(&mut state.table, &reach, &budget)?;
    Ok(())
}

impl network::Host for State {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.sockets().network_error_code(error)
    }
}

impl network::HostNetwork for State {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets(), network)
    }
}

impl tcp_create_socket::Host for State {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        admit(self)?;
        let mut wasi: WasiSocketsCtxView<'_> = self.sockets();
        let socket = wasi.create_tcp_socket(family)?;
        let it = || Resource::new_borrow(socket.rep());
        HostTcpSocket::set_receive_buffer_size(&mut wasi, it(), KERNEL_BUFFER)?;
        HostTcpSocket::set_send_buffer_size(&mut wasi, it(), KERNEL_BUFFER)?;
        Ok(socket)
    }
}

impl udp_create_socket::Host for State {
    async fn create_udp_socket(
        &mut self,
        family: IpAddressFamily,
    ) -> SocketResult<Resource<UdpSocket>> {
        admit(self)?;
        let mut wasi: WasiSocketsCtxView<'_> = self.sockets();
        let socket = udp_create_socket::Host::create_udp_socket(&mut wasi, family).await?;
        let it = || Resource::new_borrow(socket.rep());
        HostUdpSocket::set_receive_buffer_size(&mut wasi, it(), KERNEL_BUFFER)?;
        HostUdpSocket::set_send_buffer_size(&mut wasi, it(), KERNEL_BUFFER)?;
        Ok(socket)
    }
}

impl ip_name_lookup::Host for State {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        match name.parse::<std::net::IpAddr>() {
            Ok(address) if !self.common.reach.nobody() => {
                // Nothing is looked up for an address.
                self.sockets()
                    .resolve_addresses(network, address.to_string())
            }
            _ => Err(ErrorCode::AccessDenied.into()),
        }
    }
}

impl ip_name_lookup::HostResolveAddressStream for State {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> Result<Option<network::IpAddress>, SocketError> {
        self.sockets().resolve_next_address(stream)
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        ip_name_lookup::HostResolveAddressStream::subscribe(&mut self.sockets(), stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        ip_name_lookup::HostResolveAddressStream::drop(&mut self.sockets(), stream)
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let l = linker;
    let options = network::LinkOptions::default();
    network::add_to_linker::<State, WasiSockets>(l, &options, State::sockets)?;
    instance_network::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    tcp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    udp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    tcp_create_socket::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    udp_create_socket::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    ip_name_lookup::add_to_linker::<State, HasSelf<State>>(l, |state| state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(peers: &[&str], own: &str) -> Arc<Reach> {
        let addresses = Arc::new(OwnAddresses::default());
        addresses.set([own.parse().unwrap()]);
        let peers: Vec<Peer> = peers.iter().map(|it| Peer::parse(it).unwrap()).collect();
        Reach::new(&peers, &addresses)
    }

    #[test]
    fn nothing_is_allowed_but_what_is_listed() {
        use SocketAddrUse as Use;
        let reach = reach(
            &[
                "tcp://192.0.2.1:5432",
                "udp://[2001:db8::53]:53",
                "tcp://127.0.0.1:3000",
            ],
            "0.0.0.0:3000",
        );
        let all = [
            Use::TcpBind,
            Use::TcpListen,
            Use::TcpAccept,
            Use::TcpConnect,
            Use::UdpBind,
            Use::UdpSend,
            Use::UdpReceive,
        ];
        for (address, allowed) in [
            ("192.0.2.1:5432", &[3][..]),
            ("192.0.2.1:5433", &[]),
            ("192.0.2.2:5432", &[]),
            ("[2001:db8::53]:53", &[5, 6]),
            ("[2001:db8::53]:5432", &[]),
            // Another interface is another network.
            ("[2001:db8::53%1]:53", &[]),
            ("[::ffff:192.0.2.1]:5432", &[]),
            // Its own, though listed.
            ("127.0.0.1:3000", &[]),
            // What the kernel does by itself before it connects.
            ("0.0.0.0:0", &[0, 4]),
            ("[::]:0", &[0, 4]),
            ("0.0.0.0:5432", &[]),
            ("127.0.0.1:0", &[]),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            for (index, what) in all.into_iter().enumerate() {
                let expected = allowed.contains(&index);
                assert_eq!(reach.allows(address, what), expected, "{address} {what:?}");
            }
        }
        let SocketAddr::V6(mut labelled) = "[2001:db8::53]:53".parse().unwrap() else {
            unreachable!()
        };
        labelled.set_flowinfo(7);
        assert!(reach.allows(labelled.into(), Use::UdpSend));
    }

    #[test]
    fn sockets_are_counted_for_an_instance_and_for_a_function() {
        let reach = reach(&["tcp://192.0.2.1:1"], "127.0.0.1:3000");
        let budget = Budget::new(u64::MAX);
        let mut instances: Vec<Sockets> = Vec::new();
        // As many as it had at once: none is in the table here, so one is enough.
        let mut sockets = Sockets::default();
        for _ in 0..3 {
            let mut table = ResourceTable::new();
            sockets.admit(&mut table, &reach, &budget).unwrap();
        }
        assert_eq!(budget.used(), BUFFERS);
        instances.push(sockets);
        while instances.len() < MAX_OF_FUNCTION {
            let mut sockets = Sockets::default();
            let mut table = ResourceTable::new();
            sockets.admit(&mut table, &reach, &budget).unwrap();
            instances.push(sockets);
        }
        let mut table = ResourceTable::new();
        let refused = Sockets::default().admit(&mut table, &reach, &budget);
        assert_eq!(refused, Err(ErrorCode::NewSocketLimit));
        instances.pop();
        let mut sockets = Sockets::default();
        sockets.admit(&mut table, &reach, &budget).unwrap();
        drop(sockets);
        drop(instances);
        assert_eq!(budget.used(), 0);
        let refused = Sockets::default().admit(&mut table, &reach, &Budget::new(BUFFERS - 1));
        assert_eq!(refused, Err(ErrorCode::OutOfMemory));
    }
}
