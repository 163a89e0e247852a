//! Whom we trust, and how TLS is spoken.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use super::Error;

/// TLS sessions that a function may take up again.
const SESSIONS: usize = 64;

/// The roots of trust: the system's, and those that the operator adds. Read when the first
/// function needs them; a machine without any still serves what needs none.
pub(crate) struct Roots {
    added: Vec<CertificateDer<'static>>,
    store: OnceCell<Arc<RootCertStore>>,
}

impl Roots {
    pub(crate) fn new(added: Vec<CertificateDer<'static>>) -> Self {
        Self {
            added,
            store: OnceCell::new(),
        }
    }

    /// A configuration of one function's own: it takes up no session of another.
    pub(super) async fn config(&self) -> Result<ClientConfig, Error> {
        let store = self.store.get_or_try_init(|| self.read()).await?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(Arc::clone(store))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    async fn read(&self) -> Result<Arc<RootCertStore>, Error> {
        let added = self.added.clone();
        let read = tokio::task::spawn_blocking(move || {
            let found = rustls_native_certs::load_native_certs();
            let mut store = RootCertStore::empty();
            // Systems carry some that nobody can read; the others still count.
            let (usable, _) = store.add_parsable_certificates(found.certs);
            store.add_parsable_certificates(added.clone());
            if usable == 0 && added.is_empty() {
                let why = found.errors.first().map(|error| format!(": {error}"));
                return Err(Error::Host(format!(
                    "this machine has no root certificates{}; install `ca-certificates`, or \
                     name a file of them as `ca-file` of `[host]`",
                    why.unwrap_or_default()
                )));
            }
            Ok(Arc::new(store))
        });
        let ended = |_| Error::Host("the host ends".into());
        read.await.map_err(ended)?
    }
}
