//! Room for connections, of all functions together.
//!
//! A connection that rests keeps its room as long as nobody lacks it. For who does, one that
//! rests is closed, one of the same function first; as long as somebody still waits, what
//! would begin to rest is closed instead.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::usage::Usage;
use super::{Pool, Target};

/// How many connections that rest are looked at to find the one to close: it takes some
/// hundred microseconds.
const LOOKED_AT: usize = 1024;

/// Room for connections, of all functions together.
pub(in crate::egress) struct Room {
    free: Arc<Semaphore>,
    /// How many wait for it.
    waiting: AtomicUsize,
    open: Mutex<BTreeMap<u64, Open>>,
    next_id: AtomicU64,
}

/// A connection that has room.
pub(super) struct Open {
    pub(super) usage: Arc<Usage>,
    pub(super) pool: Weak<Pool>,
    pub(super) target: Target,
}

/// A connection is among those that are open, for as long as this lives.
pub(super) struct Entry {
    room: Arc<Room>,
    id: u64,
}

impl Entry {
    /// What tells it from all others.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.room.open().remove(&self.id);
    }
}

/// Somebody waits, for as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Room {
    pub(in crate::egress) fn new(connections: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(connections)),
            waiting: AtomicUsize::new(0),
            open: Mutex::default(),
            next_id: AtomicU64::new(0),
        })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more, in the order in which it is asked for. `give_way` closes a
    /// connection of who asks that rests, and answers whether there was one.
    pub(super) async fn take(&self, give_way: impl FnOnce() -> bool) -> OwnedSemaphorePermit {
        if let Ok(free) = Arc::clone(&self.free).try_acquire_owned() {
            return free;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        // From now on nothing more goes to rest: the look misses none.
        if !give_way() {
            self.close_oldest();
        }
        let free = Arc::clone(&self.free).acquire_owned().await;
        free.expect("it is never closed")
    }

    /// Whether somebody waits.
    pub(super) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// A connection is open.
    pub(super) fn enter(self: &Arc<Self>, open: Open) -> Entry {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.open().insert(id, open);
        Entry {
            room: Arc::clone(self),
            id,
        }
    }

    /// Closes the connection that has rested longest, whosever it is.
    fn close_oldest(&self) {
        let open = self.open();
        let resting = open.iter().filter(|(_, it)| it.usage.is_resting());
        let mut resting: Vec<_> = resting.take(LOOKED_AT).collect();
        resting.sort_by_cached_key(|(_, it)| it.usage.since());
        // One that somebody took just now is not there any more.
        let _ = resting.into_iter().any(|(id, it)| {
            let pool = it.pool.upgrade();
            pool.is_some_and(|pool| pool.forget(&it.target, *id))
        });
    }
}
