//! Whom we trust, and how TLS is spoken.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

use super::Error;

/// TLS sessions that a function may take up again.
const SESSIONS: usize = 64;

/// The roots of trust: the system's, and those that the operator adds. Read when the first
/// function needs them; a machine without any still serves what needs none.
pub(crate) struct Roots {
    added: Vec<CertificateDer<'static>>,
    /// Where it may block: never on a core's few threads, which files may hold.
    blocking: Option<Handle>,
    store: OnceCell<Arc<RootCertStore>>,
    /// Who began to read may be gone: the next one waits for the same.
    reading: Mutex<Option<Reading>>,
}

type Reading = JoinHandle<Result<Arc<RootCertStore>, Error>>;

impl Roots {
    pub(crate) fn new(added: Vec<CertificateDer<'static>>, blocking: Handle) -> Self {
        Self {
            added,
            blocking: Some(blocking),
            ..Self::none()
        }
    }

    /// Of a runtime whose functions reach nobody.
    pub(super) fn none() -> Self {
        Self {
            added: Vec::new(),
            blocking: None,
            store: OnceCell::new(),
            reading: Mutex::default(),
        }
    }

    /// A configuration of one function's own: it takes up no session of another. Dropped, it
    /// leaves what it has begun to the next that asks.
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
        let mut reading = self.reading.lock().await;
        let read = match (&mut *reading, &self.blocking) {
            (Some(reading), _) => reading,
            (none, Some(blocking)) => {
                let added = self.added.clone();
                none.insert(blocking.spawn_blocking(|| load(added)))
            }
            (None, None) => return Err(Error::Host("nobody is trusted here".into())),
        };
        let store = read.await;
        *reading = None;
        store.map_err(|_| Error::Host("the host ends".into()))?
    }
}

fn load(added: Vec<CertificateDer<'static>>) -> Result<Arc<RootCertStore>, Error> {
    let has_added = !added.is_empty();
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Systems carry some that nobody can read; the others still count.
    let (usable, _) = store.add_parsable_certificates(found.certs);
    store.add_parsable_certificates(added);
    if usable == 0 && !has_added {
        let why = found.errors.first().map(|error| format!(": {error}"));
        return Err(Error::Host(format!(
            "this machine has no root certificates{}; install `ca-certificates`, or name a \
             file of them as `ca-file` of `[host]`",
            why.unwrap_or_default()
        )));
    }
    Ok(Arc::new(store))
}
