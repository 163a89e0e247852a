//! How much a connection is used.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Notify;

use super::{Pool, REST};

/// How much a connection is used.
pub(super) struct Usage {
    /// In one order with those that wait for [`Room`](super::Room): of a connection that goes
    /// to rest and of somebody who begins to wait, one sees the other.
    requests: AtomicUsize,
    /// When the last of them ended.
    since: Mutex<Instant>,
    /// It serves nobody any more.
    pub(super) ended: Notify,
    /// Who is told when nobody uses it any more: the pool of a connection of HTTP/2, as those
    /// who wait there may need its ticket. One of HTTP/1.1 has none then, and nobody to tell.
    told: Weak<Pool>,
}

impl Usage {
    pub(super) fn new(told: Weak<Pool>) -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicUsize::new(0),
            since: Mutex::new(Instant::now()),
            ended: Notify::new(),
            told,
        })
    }

    /// When it has rested long enough. Later, the longer it is used.
    pub(super) fn ends(&self) -> Instant {
        let since = self.since();
        match self.requests.load(Ordering::SeqCst) {
            0 => since + REST,
            _ => Instant::now() + REST,
        }
    }

    /// When it was used last.
    pub(super) fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_resting(&self) -> bool {
        self.requests.load(Ordering::SeqCst) == 0
    }
}

/// A request on a connection, for as long as this lives.
pub(super) struct Using(Arc<Usage>);

impl Using {
    pub(super) fn of(usage: &Arc<Usage>) -> Self {
        usage.requests.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(usage))
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let before = self.0.requests.fetch_sub(1, Ordering::SeqCst);
        if before == 1
            && let Some(pool) = self.0.told.upgrade()
        {
            pool.rests_unused();
        }
    }
}
