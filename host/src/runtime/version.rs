//! A version that is loaded: its component linked, its handlers known, and the
//! pool of instances that wait for events.

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use wasmtime::component::InstancePre;

use super::budget::Need;
use super::cores;
use super::ending::Why;
use super::handlers::Exports;
use super::instance::{Instance, Unavailable};
use super::lifecycle::INIT_TIMEOUT;
use super::state::{Common, State};
use super::{Digest, Shared, turns};
use crate::function::Isolation;
use crate::invocation::Handler;

/// How long a component may take to instantiate: what its own start functions
/// do. Lambda gives `Init` ten seconds.
pub(super) const INSTANTIATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Invocations that one instance serves under `reuse`: a random number between
/// these, so that instances do not all end at once and no guest counts on it.
const REUSE_SERVES: std::ops::Range<u32> = 500..1500;
/// How long an instance that has served waits for the next event.
const REUSE_IDLE: Duration = Duration::from_secs(60);

/// A loaded version of a function.
pub struct Version {
    /// What its instances have in common.
    pub common: Arc<Common>,
    digest: Digest,
    pre: InstancePre<State>,
    exports: Exports,
    shared: Arc<Shared>,
    /// Instances that wait, one shelf per core: memory that a core touched last
    /// is best used again by it.
    shelves: Box<[Mutex<Vec<Instance>>]>,
    /// How many wait, over all shelves.
    waiting: AtomicUsize,
    /// Whether somebody makes up for those that were leased.
    refilling: AtomicBool,
    retired: AtomicBool,
}

/// An instance on loan.
pub struct Lease {
    /// There until the lease ends.
    instance: Option<Instance>,
    /// Its `init` ran for this event, and ended then.
    initialised: Option<Instant>,
}

impl Lease {
    fn new(instance: Instance) -> Self {
        Self {
            instance: Some(instance),
            initialised: None,
        }
    }

    /// The deadline of the handler, where it was this before the lease: as Lambda does,
    /// the time of `init` is not the function's.
    #[must_use]
    pub fn deadline(&self, before: Instant) -> Instant {
        match (self.initialised, &self.instance) {
            (Some(then), Some(instance)) => {
                then + instance.store().data().common.spec.limits.timeout
            }
            _ => before,
        }
    }

    /// The instance.
    pub fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("a lease has its instance")
    }

    /// Ends the instance; answers how long that took. Its memory is made new for
    /// the next one: the function is charged with it.
    fn end(&mut self) -> Duration {
        let Some(instance) = self.instance.take() else {
            return Duration::ZERO;
        };
        let share = Arc::clone(&instance.store().data().common.share);
        turns::charged(&share, || drop(instance)).1
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end();
    }
}

impl Version {
    pub(super) fn new(
        common: Arc<Common>,
        digest: Digest,
        pre: InstancePre<State>,
        exports: Exports,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            common,
            digest,
            pre,
            exports,
            shelves: (0..shared.cores).map(|_| Mutex::default()).collect(),
            shared,
            waiting: AtomicUsize::new(0),
            refilling: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        }
    }

    /// Whether it exports this handler.
    #[must_use]
    pub fn handles(&self, handler: Handler) -> bool {
        self.exports.has(handler)
    }

    fn shelf(&self, index: usize) -> std::sync::MutexGuard<'_, Vec<Instance>> {
        self.shelves[index % self.shelves.len()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another instance should wait.
    fn wants_more(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < self.common.spec.provisioned as usize
            && self.shared.waiting.load(Ordering::Relaxed) < self.shared.ready
            && !self.retired.load(Ordering::Relaxed)
    }

    /// Makes a new instance before the deadline, adding the time it takes on the core to `cpu`.
    ///
    /// # Errors
    /// If there is no room for it, or the component does not instantiate.
    pub async fn instantiate(
        &self,
        deadline: Instant,
        cpu: &mut Duration,
    ) -> Result<Instance, Unavailable> {
        let made = self.make(Need::Work, deadline, cpu).await;
        // Those that only wait give way to those that have work.
        if matches!(made, Err(Unavailable::Full(_))) && self.shared.reclaim() {
            return self.make(Need::Work, deadline, cpu).await;
        }
        made
    }

    async fn make(
        &self,
        need: Need,
        deadline: Instant,
        cpu: &mut Duration,
    ) -> Result<Instance, Unavailable> {
        let budget = &self.shared.budget;
        let (pre, common) = (&self.pre, &self.common);
        // Whoever waits for it: `init` has its own time.
        let deadline = match common.lifecycle.runs_init() {
            true => Instant::now() + INIT_TIMEOUT,
            false => deadline,
        };
        Instance::make(pre, self.exports, common, budget, need, deadline, cpu).await
    }

    /// An instance for one event: one that waits, or a new one.
    ///
    /// # Errors
    /// As [`Self::instantiate`].
    pub async fn lease(&self, deadline: Instant, cpu: &mut Duration) -> Result<Lease, Unavailable> {
        let here = cores::current();
        for step in 0..self.shelves.len() {
            let taken = self.shelf(here + step).pop();
            if let Some(instance) = taken {
                self.dropped(1);
                let source = if instance.served > 0 {
                    &self.common.metrics.reused
                } else {
                    &self.common.metrics.from_ready
                };
                source.inc();
                return Ok(Lease::new(instance));
            }
            if self.waiting.load(Ordering::Relaxed) == 0 {
                break;
            }
        }
        self.common.metrics.on_demand.inc();
        let mut lease = Lease::new(self.instantiate(deadline, cpu).await?);
        lease.initialised = self.common.lifecycle.runs_init().then(Instant::now);
        Ok(lease)
    }

    /// Takes an instance back, adding what its end takes on the core to `cpu`. `sound`
    /// says whether it may serve again.
    pub fn give_back(&self, mut lease: Lease, sound: bool, cpu: &mut Duration) {
        let reused = sound && self.common.spec.isolation == Isolation::Reuse;
        if reused && let Some(instance) = lease.instance.take() {
            let lifetime = lifetime_at(std::ptr::from_ref(instance.store().data()) as usize);
            let worn = if instance.served < lifetime {
                self.put(instance)
            } else {
                Some(instance)
            };
            match worn {
                Some(instance) if instance.shutdown.is_some() => {
                    self.shared.ending.end(instance, Why::Worn);
                }
                worn => lease.instance = worn,
            }
        }
        *cpu += lease.end();
    }

    /// Lets it wait for an event. Answers it back if none will come.
    fn put(&self, mut instance: Instance) -> Option<Instance> {
        instance.since = Instant::now();
        instance.started = None;
        let mut shelf = self.shelf(cores::current());
        // Checked under the lock that `retire` takes after it has set the mark.
        if self.retired.load(Ordering::Acquire) {
            return Some(instance);
        }
        // Counted before somebody can take it.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.common.metrics.ready.inc();
        shelf.push(instance);
        None
    }

    /// Makes up for leased instances, off the path of events: call it when the
    /// answer is on its way.
    pub(crate) fn refill(self: &Arc<Self>) {
        // A host that ends drops what runs outside of its runtimes.
        let Ok(here) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if let Some(refill) = self.begin_refill() {
            here.spawn(refill);
        }
    }

    /// What makes up for leased instances, if any are missing and nobody is at
    /// it; to be run on a core.
    pub(super) fn begin_refill(self: &Arc<Self>) -> Option<impl Future<Output = ()> + use<>> {
        if !self.wants_more() || self.refilling.swap(true, Ordering::AcqRel) {
            return None;
        }
        let refilling = Refilling(Arc::clone(self));
        Some(async move {
            // If one cannot be made now, the next event finds out why.
            let _ = refilling.0.fill().await;
        })
    }

    /// Fills the pool.
    pub(super) async fn fill(&self) -> Result<(), Unavailable> {
        while self.wants_more() {
            let before = self.waiting.load(Ordering::Relaxed);
            let deadline = Instant::now() + INSTANTIATE_TIMEOUT;
            let mut cpu = Duration::ZERO;
            let made = self.make(Need::Ready, deadline, &mut cpu).await;
            self.common.metrics.spent(cpu);
            drop(self.put(made?));
            // Somebody took it, or all were dropped for somebody with work: then
            // this is not the time to make more.
            if self.waiting.load(Ordering::Relaxed) <= before {
                break;
            }
        }
        Ok(())
    }

    /// Drops instances that waited too long after they served.
    pub(super) fn reap(&self) {
        for shelf in &self.shelves {
            let mut gone = Vec::new();
            let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
            let mut index = 0;
            while index < shelf.len() {
                if shelf[index].served > 0 && shelf[index].since.elapsed() > REUSE_IDLE {
                    gone.push(shelf.swap_remove(index));
                } else {
                    index += 1;
                }
            }
            drop(shelf);
            self.dropped(gone.len());
            for instance in gone {
                self.shared.ending.end(instance, Why::Worn);
            }
        }
    }

    /// Drops what waits; answers how many there were. At once: somebody wants their
    /// memory, which a `shutdown` would keep.
    pub(super) fn clear(&self) -> usize {
        let shelves = self.shelves.iter();
        shelves.map(|shelf| self.empty(shelf).len()).sum()
    }

    fn empty(&self, shelf: &Mutex<Vec<Instance>>) -> Vec<Instance> {
        let instances = std::mem::take(&mut *shelf.lock().unwrap_or_else(PoisonError::into_inner));
        self.dropped(instances.len());
        instances
    }

    /// So many wait no more.
    fn dropped(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.shared.waiting.fetch_sub(count, Ordering::Relaxed);
        self.common
            .metrics
            .ready
            .sub(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// No new events come: what waits ends, by its `shutdown` if it has served; what runs
    /// ends with its events.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        for instance in self.shelves.iter().flat_map(|shelf| self.empty(shelf)) {
            self.shared.ending.end(instance, Why::Retired);
        }
    }

    /// Whether this file is what the version was made from.
    #[must_use]
    pub fn is_current(&self, component: &Path) -> bool {
        std::fs::read(component).is_ok_and(|bytes| Digest::of(&bytes) == self.digest)
    }

    /// How many instances wait.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Somebody fills the pool, for as long as this lives.
struct Refilling(Arc<Version>);

impl Drop for Refilling {
    fn drop(&mut self) {
        self.0.refilling.store(false, Ordering::Release);
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How many invocations the instance whose state is at this address serves: drawn from
/// the address, so that it needs no place. Stores are boxed and spread over the heap.
fn lifetime_at(address: usize) -> u32 {
    use std::hash::{BuildHasher as _, RandomState};
    thread_local! {
        static SEED: RandomState = RandomState::new();
    }
    let hash = SEED.with(|seed| seed.hash_one(address));
    REUSE_SERVES.start + (hash % u64::from(REUSE_SERVES.end - REUSE_SERVES.start)) as u32
}

/// The versions that are loaded, for those who look after all of them.
#[derive(Default)]
pub(super) struct Loaded(Mutex<Vec<Weak<Version>>>);

impl Loaded {
    pub(super) fn add(&self, version: &Arc<Version>) {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|version| version.strong_count() > 0);
        versions.push(Arc::downgrade(version));
    }

    pub(super) fn each(&self) -> Vec<Arc<Version>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reused_instances_serve_a_bounded_number_of_invocations_and_not_all_the_same() {
        let lifetimes: Vec<u32> = (0..1000).map(|n| lifetime_at(n * 4096)).collect();
        assert!(lifetimes.iter().all(|n| REUSE_SERVES.contains(n)));
        let (least, most) = (lifetimes.iter().min(), lifetimes.iter().max());
        assert!(
            most.unwrap() - least.unwrap() > 800,
            "{least:?} to {most:?}"
        );
        assert_eq!(lifetime_at(4096), lifetime_at(4096));
    }
}
