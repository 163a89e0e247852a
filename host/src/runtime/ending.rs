//! Reused instances that end in good health: their `shutdown` is called, off the path of
//! events, and then they are gone.

use std::sync::{Arc, OnceLock, Weak};

use tokio_util::task::TaskTracker;

use super::RESERVE_SLOTS;
use super::cores::Cores;
use super::instance::Instance;

/// Instances that may be about it at once, over all functions, while others are at work:
/// each holds a slot and its memory for up to two seconds. What is more ends without its
/// `shutdown`.
const MAX_ENDING: usize = RESERVE_SLOTS as usize;

/// Why instances end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Each for itself: it has served its number, or nobody asked for it in a while.
    Worn,
    /// All that a version has. They have had their slots until now.
    Retired,
}

/// Where instances end.
#[derive(Default)]
pub(super) struct Ending {
    cores: OnceLock<Weak<Cores>>,
    under_way: TaskTracker,
}

impl Ending {
    /// Calls them on these cores. Before this, none has served.
    pub(super) fn on(&self, cores: &Arc<Cores>) {
        let _ = self.cores.set(Arc::downgrade(cores));
    }

    /// Ends an instance: with its `shutdown` if it has one and has served an event.
    pub(super) fn end(&self, instance: Instance, why: Why) {
        let wants = instance.shutdown.is_some() && instance.served > 0;
        let room = why == Why::Retired || self.under_way.len() < MAX_ENDING;
        if !wants || !room {
            return;
        }
        if let Some(cores) = self.cores.get().and_then(Weak::upgrade) {
            cores.spawn(|load| {
                self.under_way.track_future(async move {
                    let _load = load;
                    instance.shut_down().await;
                })
            });
        }
    }

    /// Waits for those under way.
    pub(super) async fn wait(&self) {
        self.under_way.close();
        self.under_way.wait().await;
        self.under_way.reopen();
    }
}
