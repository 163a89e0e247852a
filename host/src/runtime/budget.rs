//! Memory: what one instance may hold, and what all of them together may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use wasmtime::ResourceLimiter;

/// What a table's element counts for: wasmtime keeps a pointer for each.
const TABLE_ELEMENT_BYTES: u64 = 8;
/// Core instances of one component instance. A component of Rust has four; one of CPython
/// about forty, which are its shared libraries and what joins them. The pool keeps no
/// room for them, and what one instance's records take together has its bound in the
/// engine's settings.
pub(super) const MAX_CORE_INSTANCES: u32 = 64;
/// Linear memories of one component instance: fewer where so many instances may run at once
/// that the address space does not hold as many for each.
pub(super) const MAX_MEMORIES: u32 = 14;
/// Tables of one component instance.
pub(super) const MAX_TABLES: u32 = 16;

/// Gives back memory that nobody needs now; answers whether it gave any.
type Reclaim = Box<dyn Fn() -> bool + Send + Sync>;

/// The host-wide budget: what guests' memories and tables and buffered bodies
/// hold together. Charged before the memory is touched, so that the kernel's
/// OOM killer is never the one to say no.
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    reclaim: OnceLock<Reclaim>,
}

/// What memory is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// An event: instances that only wait give way to it.
    Work,
    /// An instance that will wait for an event: it takes what is free.
    Ready,
}

/// A part of the budget, given back when dropped.
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
    need: Need,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            reclaim: OnceLock::new(),
        })
    }

    /// How to give memory back when the budget is full. The first call counts.
    pub fn on_full(&self, reclaim: Reclaim) {
        let _ = self.reclaim.set(reclaim);
    }

    /// The limit in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What is charged now, in bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn try_take(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .is_ok()
    }

    fn take(&self, bytes: u64, need: Need) -> bool {
        loop {
            if self.try_take(bytes) {
                return true;
            }
            // Ready instances hold memory that nobody uses yet: theirs goes
            // before anybody with work is refused.
            let reclaims = need == Need::Work && bytes <= self.limit;
            if !reclaims || !self.reclaim.get().is_some_and(|reclaim| reclaim()) {
                return false;
            }
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A part that grows with what is put into it.
    #[must_use]
    pub fn charge(self: &Arc<Self>) -> Charge {
        Charge {
            budget: Arc::clone(self),
            bytes: 0,
            need: Need::Work,
        }
    }
}

/// Buffers below this size are not charged: they are no larger than what the host
/// keeps for a stream of HTTP anyway.
const UNCHARGED: usize = 512;

/// Bytes, and what they hold of the budget.
struct Held {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    /// Charges bytes for as long as they live, in whatever clones; None if there
    /// is no room. Less than 512 bytes are not charged.
    #[must_use]
    pub fn hold(self: &Arc<Self>, bytes: Bytes) -> Option<Bytes> {
        if bytes.len() < UNCHARGED {
            return Some(bytes);
        }
        let mut charge = self.charge();
        charge.grow(bytes.len() as u64).then(|| charge.hold(bytes))
    }
}

impl Charge {
    /// Lives as long as these bytes, which it was taken for.
    #[must_use]
    pub fn hold(self, bytes: Bytes) -> Bytes {
        if bytes.len() < UNCHARGED {
            return bytes;
        }
        let _charge = self;
        Bytes::from_owner(Held { bytes, _charge })
    }

    /// Takes more; answers false if the budget is full.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        let taken = self.budget.take(bytes, self.need);
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.give_back(bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// Which bound refused memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The function's own limit.
    Function,
    /// The host-wide budget.
    Host,
}

/// Holds an instance to its limit, over all its memories and tables together,
/// and charges the host-wide budget. wasmtime's own `StoreLimits` counts each
/// memory alone.
pub(crate) struct MemoryLimiter {
    limit: u64,
    charge: Charge,
    peak: u64,
    last_growth: u64,
    denied: Option<Denied>,
}

impl MemoryLimiter {
    pub(crate) fn new(limit: u64, budget: &Arc<Budget>, need: Need) -> Self {
        let mut charge = budget.charge();
        charge.need = need;
        Self {
            limit,
            charge,
            peak: 0,
            last_growth: 0,
            denied: None,
        }
    }

    /// What is charged.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.charge.budget
    }

    /// What is held now, in bytes.
    pub(crate) fn held(&self) -> u64 {
        self.charge.bytes
    }

    /// The most that was held since [`Self::begin`], in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Whether and by which bound growth was refused since [`Self::begin`].
    pub(crate) fn denied(&self) -> Option<Denied> {
        self.denied
    }

    /// Raises the limit by so many bytes: for what the host does itself.
    pub(crate) fn allow(&mut self, bytes: u64) {
        self.limit = self.limit.saturating_add(bytes);
    }

    /// A new invocation begins.
    pub(crate) fn begin(&mut self) {
        self.charge.need = Need::Work;
        self.peak = self.charge.bytes;
        self.denied = None;
    }

    /// Grows by so many elements, if the limits and the maximum allow it. Our
    /// limits come first: what exceeds both has run out of memory.
    fn grow_to(
        &mut self,
        elements: usize,
        bytes: u64,
        desired: usize,
        maximum: Option<usize>,
    ) -> bool {
        let more = (elements as u64).saturating_mul(bytes);
        let within = maximum.is_none_or(|maximum| desired <= maximum);
        if !within && self.charge.bytes.saturating_add(more) <= self.limit {
            self.last_growth = 0;
            return false;
        }
        self.grow(more)
    }

    fn grow(&mut self, bytes: u64) -> bool {
        self.last_growth = 0;
        if self.charge.bytes.saturating_add(bytes) > self.limit {
            self.denied = Some(Denied::Function);
            return false;
        }
        if !self.charge.grow(bytes) {
            self.denied = Some(Denied::Host);
            return false;
        }
        self.last_growth = bytes;
        self.peak = self.peak.max(self.charge.bytes);
        true
    }

    /// The engine could not do what was allowed: nothing was taken.
    fn undo(&mut self) {
        let bytes = std::mem::take(&mut self.last_growth);
        self.charge.shrink(bytes);
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow_to(desired.saturating_sub(current), 1, desired, maximum))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = desired.saturating_sub(current);
        Ok(self.grow_to(elements, TABLE_ELEMENT_BYTES, desired, maximum))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_and_tables_count_together() {
        let budget = Budget::new(1 << 30);
        let mut limiter = MemoryLimiter::new(1000, &budget, Need::Work);
        assert!(limiter.memory_growing(0, 400, None).unwrap());
        assert!(limiter.memory_growing(0, 400, None).unwrap());
        assert!(!limiter.memory_growing(400, 700, None).unwrap());
        assert_eq!(limiter.denied(), Some(Denied::Function));
        assert!(limiter.table_growing(0, 25, None).unwrap());
        assert!(!limiter.table_growing(25, 26, None).unwrap());
        assert_eq!(budget.used(), 1000);
        limiter.begin();
        assert_eq!((limiter.denied(), limiter.peak()), (None, 1000));
        drop(limiter);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_failed_growth_is_not_charged() {
        let budget = Budget::new(1000);
        let mut limiter = MemoryLimiter::new(1000, &budget, Need::Work);
        assert!(limiter.memory_growing(0, 600, None).unwrap());
        limiter
            .memory_grow_failed(wasmtime::Error::msg("no"))
            .unwrap();
        assert_eq!(budget.used(), 0);
        // A failure of something that was refused takes nothing back.
        assert!(limiter.memory_growing(0, 600, None).unwrap());
        assert!(!limiter.memory_growing(0, 600, None).unwrap());
        limiter
            .memory_grow_failed(wasmtime::Error::msg("no"))
            .unwrap();
        assert_eq!(budget.used(), 600);
    }

    #[test]
    fn a_full_budget_reclaims_before_it_refuses() {
        let budget = Budget::new(100);
        let idle = Arc::new(std::sync::Mutex::new(Some(budget.charge())));
        assert!(idle.lock().unwrap().as_mut().unwrap().grow(80));
        let taken = Arc::clone(&idle);
        budget.on_full(Box::new(move || taken.lock().unwrap().take().is_some()));
        let mut limiter = MemoryLimiter::new(1000, &budget, Need::Work);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(60, 120, None).unwrap());
        assert_eq!(limiter.denied(), Some(Denied::Host));
    }

    #[test]
    fn bytes_are_charged_until_their_last_clone_is_gone() {
        let budget = Budget::new(100_000);
        let bytes = |len: usize| Bytes::from(vec![7; len]);
        let held = budget.hold(bytes(90_000)).unwrap();
        assert_eq!(held, bytes(90_000));
        assert!(budget.hold(bytes(20_000)).is_none());
        assert!(budget.hold(bytes(500)).is_some(), "too small to matter");
        let part = held.slice(10..20);
        drop(held);
        assert_eq!(budget.used(), 90_000);
        drop(part);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_made_ready_takes_nothing_from_others_until_it_has_work() {
        let budget = Budget::new(100);
        let idle = Arc::new(std::sync::Mutex::new(Some(budget.charge())));
        assert!(idle.lock().unwrap().as_mut().unwrap().grow(80));
        let taken = Arc::clone(&idle);
        budget.on_full(Box::new(move || taken.lock().unwrap().take().is_some()));
        let mut limiter = MemoryLimiter::new(1000, &budget, Need::Ready);
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert_eq!(budget.used(), 80);
        limiter.begin();
        assert!(limiter.memory_growing(0, 60, None).unwrap());
    }
}
