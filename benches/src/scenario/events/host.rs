//! A host with queues, in a state directory of its own.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use dunlin::queue::sqlite::SqliteQueues;
use dunlin::queue::{NewMessage, Owner, QueueName, QueueSettings, QueueStore as _};
use dunlin::store::SystemClock;
use tempfile::TempDir;

use super::super::Setup;
use super::BODY;
use crate::client::SqsClient;
use crate::manifest::Manifest;
use crate::server::Server;

/// The queue.
pub(super) const QUEUE: &str = "work";
/// More than any run sends.
const MAX_MESSAGES: u64 = 50_000_000;
const MAX_BYTES: u64 = 64 << 30;
/// Messages of one operation while a queue is filled.
const FILLED_AT_ONCE: usize = 500;

/// Where a host runs, and what it is to serve.
pub(super) struct Home {
    folder: TempDir,
    manifest: Manifest,
}

impl Home {
    /// For a host with a queue that nobody reads.
    pub(super) fn new(setup: &Setup) -> Result<Self> {
        let manifest = Manifest::new(&[&format!("memory-reset = \"{}\"", setup.memory_reset)]);
        let queue = format!(
            "[queue.{QUEUE}]\nmax-messages = {MAX_MESSAGES}\nmax-bytes = \"{}GiB\"",
            MAX_BYTES >> 30
        );
        Self::of(setup, manifest.with(&queue))
    }

    /// For a host with a queue that feeds a function, ten messages at a time.
    pub(super) fn with_consumer(setup: &Setup) -> Result<Self> {
        let mut home = Self::new(setup)?;
        let mapping = format!("[[function.sink.queue]]\nname = \"{QUEUE}\"\nbatch-size = 10");
        home.manifest = home
            .manifest
            .function("sink", &setup.guests.sink, &[], &[])
            .with(&mapping);
        Ok(home)
    }

    /// For a host with this manifest.
    pub(super) fn of(setup: &Setup, manifest: Manifest) -> Result<Self> {
        let folder = tempfile::tempdir_in(setup.scratch.path())?;
        Ok(Self { folder, manifest })
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts the host, and waits until it listens.
    pub(super) fn start(&self, setup: &Setup) -> Result<Server> {
        Server::dunlin(
            &setup.dunlin,
            &self.manifest,
            self.folder.path(),
            setup.backtraces,
        )
    }

    /// A client of the host that runs here.
    pub(super) fn client(&self, server: &Server) -> Result<SqsClient> {
        SqsClient::new(server.admin()?, &self.state())
    }

    /// Puts so many messages into the queue, before the host runs.
    pub(super) fn fill(&self, messages: usize) -> Result<()> {
        let state = self.state();
        DirBuilder::new().mode(0o700).create(&state)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let _within = runtime.enter();
        let clock = Arc::new(SystemClock::default());
        let (queues, thread) = SqliteQueues::open(&state.join("queue.db"), clock)?;
        let queue = QueueName::new(QUEUE)?;
        let settings = QueueSettings {
            max_messages: MAX_MESSAGES,
            max_bytes: MAX_BYTES,
            ..QueueSettings::default()
        };
        runtime.block_on(async {
            let declared = vec![(queue.clone(), settings)];
            queues.put(declared, Owner::Manifest).await?;
            let mut left = messages;
            while left > 0 {
                let now = left.min(FILLED_AT_ONCE);
                let batch = vec![NewMessage::of(BODY); now];
                for sent in queues.send(queue.clone(), batch).await? {
                    sent?;
                }
                left -= now;
            }
            anyhow::Ok(())
        })?;
        drop(queues);
        thread.join().ok().context("the writer panicked")
    }
}
