//! The listening socket: one, bound before anything is served, accepted by a
//! thread that no guest can hold up, and dealt out to the core with the fewest
//! connections.
//!
//! Not `SO_REUSEPORT`: a second host would bind the same port without an error,
//! and closing one of several listeners resets the connections waiting in it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::connection;
use super::service::{Draining, HttpTrigger};
use crate::runtime::Cores;
use crate::telemetry::Level;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// After an error that is not one peer's (no descriptors left, say).
const PAUSE: Duration = Duration::from_millis(100);

/// A bound socket.
pub struct Listener {
    listener: TcpListener,
}

/// Binds a socket without serving it yet. Port 0 picks a free one.
///
/// # Errors
/// If it cannot be bound.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // So that a restart does not wait for the last one's connections.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn is_peers_fault(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

impl Listener {
    /// Takes a bound socket into the runtime that runs now.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub fn new(socket: std::net::TcpListener) -> std::io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(socket)?,
        })
    }

    /// Accepts until the host drains, then takes what already waits and closes
    /// the socket. Ends when the last connection has ended.
    pub async fn serve(self, trigger: Arc<HttpTrigger>, cores: Arc<Cores>) {
        let most = trigger.limits.max_connections;
        let permits = Arc::new(Semaphore::new(most));
        let mut draining = trigger.draining.clone();
        loop {
            // The permit first: without one, connections wait in the kernel.
            let accept = async {
                let permit = Arc::clone(&permits)
                    .acquire_owned()
                    .await
                    .expect("the semaphore is never closed");
                (permit, self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accept => accepted,
                _ = draining.wait_for(|draining| *draining != Draining::No) => break,
            };
            match accepted {
                Ok((stream, peer)) => self.deal_out(&trigger, &cores, stream, peer, permit),
                Err(error) if is_peers_fault(&error) => {}
                Err(error) => {
                    trigger
                        .telemetry
                        .log
                        .host(Level::Warn, &format!("cannot accept a connection: {error}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        // Clients whose connection is made already have done nothing wrong.
        while let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            let Ok(Ok((stream, peer))) =
                tokio::time::timeout(Duration::from_millis(1), self.listener.accept()).await
            else {
                break;
            };
            self.deal_out(&trigger, &cores, stream, peer, permit);
        }
        drop(self.listener);
        let all = u32::try_from(most).unwrap_or(u32::MAX);
        let _ = permits.acquire_many(all).await;
    }

    fn deal_out(
        &self,
        trigger: &Arc<HttpTrigger>,
        cores: &Cores,
        stream: TcpStream,
        peer: SocketAddr,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) {
        trigger.telemetry.metrics.http.accepted.inc();
        // The socket leaves this runtime for the core's.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let trigger = Arc::clone(trigger);
        cores.spawn(move |load| async move {
            let _held = (load, permit);
            let connections = trigger.telemetry.metrics.http.connections.clone();
            connections.inc();
            if let Ok(stream) = TcpStream::from_std(stream) {
                connection::serve(trigger, stream, peer.ip()).await;
            }
            connections.dec();
        });
    }
}
