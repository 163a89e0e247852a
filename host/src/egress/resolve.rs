//! From names to addresses.

use std::future::Future;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Names that are looked up at once, for all functions: each holds a thread, for as long as
/// a name server that does not answer makes it.
const LOOKUPS: usize = 64;

/// The addresses of a name, in the order in which they are tried.
pub(crate) type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Who knows what names stand for.
pub(crate) trait Resolve: Send + Sync {
    /// Looks a name up. `slot` is held as long as that takes, also when nobody waits for it
    /// any more.
    fn resolve(&self, name: &str, slot: OwnedSemaphorePermit) -> Resolving<'_>;
}

/// The machine's own resolver: `/etc/hosts`, DNS, and whatever else it is set up for.
pub(crate) struct SystemResolver {
    /// Where it may block: never on a core's few threads, which files may hold.
    blocking: Handle,
    lookups: Arc<Semaphore>,
}

impl SystemResolver {
    pub(crate) fn new(blocking: Handle) -> Self {
        Self {
            blocking,
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str, slot: OwnedSemaphorePermit) -> Resolving<'_> {
        let name = name.to_owned();
        Box::pin(async move {
            let lookup = Arc::clone(&self.lookups).acquire_owned().await;
            let lookup = lookup.map_err(io::Error::other)?;
            let resolved = self.blocking.spawn_blocking(move || {
                let _held = (lookup, slot);
                let addresses = (name.as_str(), 0).to_socket_addrs()?;
                Ok(addresses.map(|address| address.ip()).collect())
            });
            // A host that ends takes no new work.
            resolved
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)))
        })
    }
}

/// Knows no name.
pub(super) struct Nobody;

impl Resolve for Nobody {
    fn resolve(&self, _name: &str, _slot: OwnedSemaphorePermit) -> Resolving<'_> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}
