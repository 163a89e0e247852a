//! The tasks of a connection of HTTP/2.
//!
//! hyper has one that speaks with the other side, and some for each request. They outlive
//! what it hands out as the connection, as long as a body is on its way, which the other side
//! may refuse to take for ever.

use std::future::Future;
use std::time::Duration;

use hyper::rt::Executor;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long they may take to say goodbye.
const CLOSING: Duration = Duration::from_secs(1);

/// Those that were started: dropped, it ends them.
pub(super) struct Tasks(watch::Sender<()>);

/// Starts them.
#[derive(Clone)]
pub(super) struct Starter(watch::Receiver<()>);

impl Tasks {
    pub(super) fn new() -> (Self, Starter) {
        let (tasks, starter) = watch::channel(());
        (Self(tasks), Starter(starter))
    }

    /// Waits for a moment until they have ended, and ends those that have not.
    pub(super) async fn end(self) {
        // Each has a starter's end of the channel.
        let _ = timeout(CLOSING, self.0.closed()).await;
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Starter {
    fn execute(&self, task: F) {
        let Self(mut tasks) = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                // Nothing is ever sent: the other end is gone.
                _ = tasks.changed() => {}
            }
        });
    }
}
