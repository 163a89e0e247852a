//! Admission: who may run at all, before anything is instantiated for it.
//!
//! As in Lambda, reserved concurrency is set aside for a function and is also
//! the most it gets; the rest is shared by all others.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::function::{FunctionName, FunctionSpec};
use crate::invocation::{Failure, OutcomeKind};

/// Events that may wait for one lane: as many again as the host runs by
/// default. More are turned away at once.
const MAX_WAITING: usize = 1000;

/// When a client that was turned away may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One invocation may run at a time, for as long as this or a clone of it lives.
#[derive(Clone, Debug)]
pub struct Permit {
    _lane: Arc<OwnedSemaphorePermit>,
    _background: Option<Arc<OwnedSemaphorePermit>>,
}

/// The permits of one function, or those that functions share.
#[derive(Clone)]
pub struct Lane {
    permits: Arc<Semaphore>,
    /// What events may take that nobody waits for.
    background: Arc<Semaphore>,
    most_background: usize,
    waiting: Arc<AtomicUsize>,
    wait: Duration,
    size: usize,
    /// Lambda's word for what is exceeded.
    reason: &'static str,
}

/// Divides the host's concurrency into lanes.
pub struct Admission {
    wait: Duration,
    reserved: HashMap<FunctionName, Lane>,
    shared: Lane,
}

pub(super) fn throttled(message: String) -> Failure {
    Failure {
        retry_after: Some(RETRY_AFTER),
        ..Failure::new(OutcomeKind::Throttled, "TooManyRequestsException", message)
    }
}

/// Counts as waiting while it lives.
struct Waiting<'a>(&'a AtomicUsize, &'a IntGauge);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.dec();
    }
}

impl Lane {
    fn new(size: usize, background: usize, wait: Duration, reason: &'static str) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(size)),
            background: Arc::new(Semaphore::new(background)),
            most_background: background,
            waiting: Arc::default(),
            wait,
            size,
            reason,
        }
    }

    /// Waits for a permit, for a bounded time.
    pub(super) async fn admit(&self, gauge: &IntGauge) -> Result<Permit, Failure> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(Permit {
                _lane: Arc::new(permit),
                _background: None,
            });
        }
        let exceeded = || {
            throttled(format!(
                "{}: all {} permits are taken",
                self.reason, self.size
            ))
        };
        if self.size == 0 || self.wait.is_zero() {
            return Err(exceeded());
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        let _waiting = Waiting(&self.waiting, gauge);
        if before >= MAX_WAITING {
            return Err(exceeded());
        }
        match tokio::time::timeout(self.wait, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(permit) => Ok(Permit {
                _lane: Arc::new(permit.expect("the semaphore is never closed")),
                _background: None,
            }),
            Err(_) => Err(exceeded()),
        }
    }

    /// Waits for a permit for an event that nobody waits for, however long it takes. Those
    /// take half of what functions share at most, and all that their function reserves.
    pub async fn admit_background(&self) -> Permit {
        let acquire = async |semaphore: &Arc<Semaphore>| {
            let permit = Arc::clone(semaphore).acquire_owned().await;
            permit.expect("the semaphore is never closed")
        };
        let background = acquire(&self.background).await;
        Permit {
            _lane: Arc::new(acquire(&self.permits).await),
            _background: Some(Arc::new(background)),
        }
    }

    /// One more, if one is free now.
    #[must_use]
    pub fn try_admit_background(&self) -> Option<Permit> {
        let background = Arc::clone(&self.background).try_acquire_owned().ok()?;
        Some(Permit {
            _lane: Arc::new(Arc::clone(&self.permits).try_acquire_owned().ok()?),
            _background: Some(Arc::new(background)),
        })
    }

    /// Nothing ever runs in it: the function reserves none.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.size == 0
    }

    /// How many events that nobody waits for may run at once.
    #[must_use]
    pub fn background_size(&self) -> usize {
        self.most_background
    }

    /// Permits that are free now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }
}

impl Admission {
    /// Divides `concurrency`; an event waits at most `wait`.
    #[must_use]
    pub fn new<'a>(
        concurrency: u32,
        wait: Duration,
        functions: impl Iterator<Item = &'a FunctionSpec>,
    ) -> Self {
        let mut left = concurrency as usize;
        let mut reserved = HashMap::new();
        for function in functions {
            if let Some(size) = function.reserved_concurrency {
                let size = size as usize;
                left = left.saturating_sub(size);
                let lane = Lane::new(
                    size,
                    size,
                    wait,
                    "ReservedFunctionConcurrentInvocationLimitExceeded",
                );
                reserved.insert(function.name.clone(), lane);
            }
        }
        Self {
            wait,
            reserved,
            // A backlog leaves room for those who wait for an answer.
            shared: Lane::new(
                left,
                left.div_ceil(2),
                wait,
                "ConcurrentInvocationLimitExceeded",
            ),
        }
    }

    /// The same division with functions as they are now. Lanes whose size did
    /// not change are kept with the permits that are out; one that did begins
    /// anew, so while old invocations end, the sum may be exceeded by them.
    #[must_use]
    pub fn again<'a>(
        &self,
        concurrency: u32,
        functions: impl Iterator<Item = &'a FunctionSpec>,
    ) -> Self {
        let mut new = Self::new(concurrency, self.wait, functions);
        for (name, lane) in &mut new.reserved {
            if let Some(old) = self.reserved.get(name).filter(|old| old.size == lane.size) {
                *lane = old.clone();
            }
        }
        if new.shared.size == self.shared.size {
            new.shared = self.shared.clone();
        }
        new
    }

    /// The lane of a function.
    #[must_use]
    pub fn lane(&self, function: &FunctionName) -> Lane {
        self.reserved.get(function).unwrap_or(&self.shared).clone()
    }
}
