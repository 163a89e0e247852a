//! Opens a connection to an address that was checked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::{Error, Shared};
use crate::function::Egress;
use crate::function::egress::{Host, Scheme, Target};

/// How many addresses of a name are looked at: each that does not answer at once would be
/// another connection that is tried.
const MOST_ADDRESSES: usize = 16;

/// Bytes on their way.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, and what is spoken on it.
pub(super) struct Opened {
    pub(super) stream: Box<dyn Stream>,
    /// Whether both sides chose HTTP/2.
    pub(super) is_http2: bool,
}

/// Who connects.
pub(super) struct Dialler<'a> {
    pub(super) shared: &'a Shared,
    pub(super) policy: &'a Egress,
    /// The function's own bound on names that are looked up.
    pub(super) lookups: &'a Arc<Semaphore>,
    /// When there must be a connection.
    pub(super) by: Instant,
}

impl Dialler<'_> {
    /// Opens a connection to one of the target's addresses: the first that may be reached
    /// and can be.
    pub(super) async fn open(
        &self,
        target: &Target,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Opened, Error> {
        let addresses = self.addresses(target).await?;
        let stream = self.tcp(&addresses).await?;
        let (Scheme::Https, Some(config)) = (target.scheme, tls) else {
            return Ok(Opened {
                stream: Box::new(stream),
                is_http2: false,
            });
        };
        let name = server_name(&target.host)?;
        let connecting = TlsConnector::from(config).connect(name, stream);
        let stream = timeout_at(self.by.into(), connecting).await;
        let stream = stream
            .map_err(|_| Error::ConnectTimeout)?
            .map_err(tls_error)?;
        Ok(Opened {
            is_http2: stream.get_ref().1.alpn_protocol() == Some(b"h2"),
            stream: Box::new(stream),
        })
    }

    /// Where the target is, as far as it may be reached. These very addresses are connected
    /// to: what the name stands for a moment later does not count.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Error> {
        let mut found = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.resolve(name).await?,
        };
        found.truncate(MOST_ADDRESSES);
        let mut denied = None;
        let mut allowed = Vec::with_capacity(found.len());
        for ip in found {
            let address = SocketAddr::new(ip.to_canonical(), target.port);
            match self.check(target, address) {
                Ok(()) => allowed.push(address),
                Err(why) => denied = Some(why),
            }
        }
        match (allowed.is_empty(), denied) {
            (false, _) => Ok(allowed),
            (true, Some(why)) => Err(Error::AddressDenied(target.clone(), why)),
            (true, None) => Err(Error::Dns("it has no address".into())),
        }
    }

    fn check(&self, target: &Target, address: SocketAddr) -> Result<(), &'static str> {
        self.policy.admits_address(target, address.ip())?;
        if self.shared.own.include(address) {
            return Err("the host's own address, which nothing allows");
        }
        Ok(())
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let resolving = async {
            let slot = Arc::clone(self.lookups).acquire_owned().await;
            let slot = slot.expect("it is never closed");
            self.shared.resolver.resolve(name, slot).await
        };
        let resolved = timeout_at(self.by.into(), resolving).await;
        let resolved = resolved.map_err(|_| Error::DnsTimeout)?;
        resolved.map_err(|error| Error::Dns(error.to_string()))
    }

    /// The first that answers; each gets its part of the time.
    async fn tcp(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
        let mut last = Error::ConnectTimeout;
        for (index, address) in addresses.iter().enumerate() {
            let left = self.by.saturating_duration_since(Instant::now());
            let others = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            match timeout(left / others, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Of a socket that is gone already nothing else comes either.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Error::Connect(error),
                Err(_) => last = Error::ConnectTimeout,
            }
        }
        Err(last)
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Error> {
    match host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|_| Error::Certificate("there are none for such a name".into())),
    }
}

fn tls_error(error: std::io::Error) -> Error {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => Error::Certificate(why.to_string()),
        Some(rustls::Error::AlertReceived(alert)) => {
            Error::TlsAlert(u8::from(*alert), format!("{alert:?}"))
        }
        Some(other) => Error::Tls(other.to_string()),
        None => Error::Tls(error.to_string()),
    }
}
