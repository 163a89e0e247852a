//! A version that is loaded: its handlers known, its code mapped or resting, and the
//! pool of instances that wait for events.
//!
//! A version that gets nothing is asleep: nobody looks at it, and it holds nothing but
//! what is known of it. Its first event wakes it. While it is awake the keeper looks after
//! it: how many instances it keeps follows from what it gets (`demand`), unless its
//! configuration says how many.

use std::any::Any;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::budget::Need;
use super::code::{Code, Mapped};
use super::concurrent::{Entered, Job, Workers};
use super::cores;
use super::demand::{self, Bounds, Demand, Seen};
use super::ending::Why;
use super::instance::{Instance, Unavailable};
use super::lifecycle::INIT_TIMEOUT;
use super::setback::{self, Setback};
use super::state::Common;
use super::{Digest, Shared, broken, turns};
use crate::function::Isolation;
use crate::invocation::{Answer, Call, Door, Doors, Failure, Handler, StreamRequest};
use crate::telemetry::Level;

/// How long a component may take to instantiate: what its own start functions
/// do. Lambda gives `Init` ten seconds.
pub(super) const INSTANTIATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Invocations that one instance serves under `reuse`: a random number between
/// these, so that instances do not all end at once and no guest counts on it.
const REUSE_SERVES: std::ops::Range<u32> = 500..1500;
/// How long an instance that has served waits for the next event.
const REUSE_IDLE: Duration = Duration::from_secs(60);

/// How long after its deadline a request in a shared instance is given up from outside.
const GIVEN_UP: Duration = Duration::from_millis(50);

/// A loaded version of a function.
pub struct Version {
    /// What its instances have in common.
    pub common: Arc<Common>,
    code: Arc<Code>,
    doors: Doors,
    shared: Arc<Shared>,
    /// Instances that wait, one shelf per core: memory that a core touched last
    /// is best used again by it.
    shelves: Box<[Mutex<Vec<Instance>>]>,
    /// Those that serve several requests at once.
    workers: Workers,
    /// How many wait, over all shelves.
    waiting: AtomicUsize,
    /// How many shall wait.
    wanted: AtomicUsize,
    /// Whether somebody makes up for those that were leased.
    refilling: AtomicBool,
    /// Until then nobody does, where one could not be made.
    setback: Setback,
    retired: AtomicBool,
    /// Whether the keeper looks after it.
    awake: AtomicBool,
    /// It got an event since the keeper last looked.
    touched: AtomicBool,
    /// Instances that were missed since then.
    missed: AtomicUsize,
    /// The least that waited since then.
    least: AtomicUsize,
    demand: Mutex<Demand>,
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
        code: Arc<Code>,
        doors: Doors,
        shared: Arc<Shared>,
    ) -> Self {
        let version = Self {
            common,
            code,
            doors,
            workers: Workers::new(shared.cores),
            shelves: (0..shared.cores).map(|_| Mutex::default()).collect(),
            shared,
            waiting: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            refilling: AtomicBool::new(false),
            setback: Setback::default(),
            retired: AtomicBool::new(false),
            awake: AtomicBool::new(false),
            touched: AtomicBool::new(false),
            missed: AtomicUsize::new(0),
            least: AtomicUsize::new(0),
            demand: Mutex::default(),
        };
        version.want(version.common.spec.provisioned.unwrap_or(0) as usize);
        version
    }

    /// Whether it exports this handler.
    #[must_use]
    pub fn handles(&self, handler: Handler) -> bool {
        self.door(handler).is_some()
    }

    /// How the handler is called, if there is one.
    #[must_use]
    pub fn door(&self, handler: Handler) -> Option<Door> {
        self.doors.of_handler(handler)
    }

    fn shelf(&self, index: usize) -> std::sync::MutexGuard<'_, Vec<Instance>> {
        self.shelves[index % self.shelves.len()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another instance should wait.
    fn wants_more(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < self.wanted.load(Ordering::Relaxed)
            && self.shared.has_room()
            && !self.retired.load(Ordering::Relaxed)
            && self.setback.is_over()
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
        let (budget, common) = (&self.shared.budget, &self.common);
        let code = match self.code.mapped() {
            Some(code) => code,
            None => self.come_back(deadline, cpu).await?,
        };
        // Whoever waits for it: `init` has its own time.
        let deadline = match common.lifecycle.runs_init() {
            true => Instant::now() + INIT_TIMEOUT,
            false => deadline,
        };
        let Mapped { pre, exports } = &*code;
        let mut made = Instance::make(pre, *exports, common, budget, need, deadline, cpu).await?;
        // Whoever has the instance holds the code; the keeper unmaps it.
        made.code = Some(code);
        self.setback.succeeded();
        Ok(made)
    }

    async fn come_back(
        &self,
        deadline: Instant,
        cpu: &mut Duration,
    ) -> Result<Arc<Mapped>, Unavailable> {
        let back = self.code.come_back(&self.common.share, cpu);
        match tokio::time::timeout_at(deadline.into(), back).await {
            Ok(back) => back,
            Err(_) => Err(Unavailable::TooSlow),
        }
    }

    /// An instance for one event: one that waits, or a new one.
    ///
    /// # Errors
    /// As [`Self::instantiate`].
    pub async fn lease(
        self: &Arc<Self>,
        deadline: Instant,
        cpu: &mut Duration,
    ) -> Result<Lease, Unavailable> {
        self.touch();
        let here = cores::current();
        for step in 0..self.shelves.len() {
            let taken = self.shelf(here + step).pop();
            if let Some(instance) = taken {
                let left = self.dropped(1, instance.held());
                // Others may do the same at once: it is about right.
                if left < self.least.load(Ordering::Relaxed) {
                    self.least.store(left, Ordering::Relaxed);
                }
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
        let before = *cpu;
        // Apart: what it takes is large, and moved about with each event that needs none.
        let instance = Box::pin(self.instantiate(deadline, cpu)).await?;
        let runs_init = self.common.lifecycle.runs_init();
        if demand::is_worth_keeping(cpu.saturating_sub(before), runs_init) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        let mut lease = Lease::new(instance);
        lease.initialised = runs_init.then(Instant::now);
        Ok(lease)
    }

    /// It got an event.
    fn touch(self: &Arc<Self>) {
        if !self.touched.load(Ordering::Relaxed) {
            // Pairs with `sleep`: either that sees the mark, or this that it sleeps.
            self.touched.store(true, Ordering::SeqCst);
            self.wake();
        }
    }

    /// The keeper looks after it from now on.
    fn wake(self: &Arc<Self>) {
        if !self.awake.swap(true, Ordering::SeqCst) {
            self.shared.awake.add(self);
        }
    }

    /// Whether its instances serve several requests at once.
    #[must_use]
    pub fn is_concurrent(&self) -> bool {
        self.common.spec.isolation == Isolation::Concurrent
    }

    /// Has a request served by an instance that may serve others meanwhile: one that has
    /// room, or a new one. `hold` is held until the request has ended there.
    ///
    /// # Errors
    /// As [`Self::instantiate`].
    pub async fn share(
        self: &Arc<Self>,
        request: Box<StreamRequest>,
        call: Box<Call>,
        deadline: Instant,
        hold: Box<dyn Any + Send>,
        cpu: &mut Duration,
    ) -> Result<Result<Answer, Failure>, Unavailable> {
        self.touch();
        let (ended, end) = oneshot::channel();
        let job = Box::new(Job {
            request,
            call,
            deadline,
            hold,
            place: None,
            ended,
        });
        let entered = self.find_room(job, cpu).await?;
        // A guest that holds its instance up is given up from here.
        let late = tokio::time::Instant::from_std(entered.deadline + GIVEN_UP);
        Ok(match tokio::time::timeout_at(late, end).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(entered.lost(&self.common)),
            Err(_) => Err(entered.late(&self.common)),
        })
    }

    /// Gives a job to an instance on this core: one that has room, or a new one. While that
    /// is made, others may be there before: a burst needs no instance for each of its
    /// requests.
    async fn find_room(
        self: &Arc<Self>,
        mut job: Box<Job>,
        cpu: &mut Duration,
    ) -> Result<Entered, Unavailable> {
        let core = cores::current();
        let mut lease = pin!(self.lease(job.deadline, cpu));
        let mut lease = loop {
            let started = self.workers.started(core);
            match self.workers.give(core, job) {
                Ok(entered) => {
                    self.common.metrics.reused.inc();
                    return Ok(entered);
                }
                Err(back) => job = back,
            }
            tokio::select! {
                biased;
                () = started => {}
                made = &mut lease => break made?,
            }
            if self.common.lifecycle.runs_init() {
                // As of a lease: the wait for an `init` is not the function's.
                job.deadline = Instant::now() + self.common.spec.limits.timeout;
            }
        };
        job.deadline = lease.deadline(job.deadline);
        let address = std::ptr::from_ref(lease.instance().store().data()) as usize;
        let (entered, serving) = self.workers.start(core, lifetime_at(address), job);
        let version = Arc::clone(self);
        tokio::spawn(async move {
            let cpu = serving.run(lease.instance()).await;
            version.common.metrics.spent(cpu + lease.end());
        });
        Ok(entered)
    }

    /// Takes an instance back, adding what its end takes on the core to `cpu`. `sound`
    /// says whether it may serve again.
    pub fn give_back(self: &Arc<Self>, mut lease: Lease, sound: bool, cpu: &mut Duration) {
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
    fn put(self: &Arc<Self>, mut instance: Instance) -> Option<Instance> {
        instance.since = Instant::now();
        instance.started = None;
        let mut shelf = self.shelf(cores::current());
        // Checked under the lock that `retire` takes after it has set the mark.
        if self.retired.load(Ordering::Acquire) {
            return Some(instance);
        }
        // Counted before somebody can take it.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.shared
            .held
            .fetch_add(instance.held(), Ordering::Relaxed);
        self.common.metrics.ready.inc();
        shelf.push(instance);
        drop(shelf);
        // It may have slept while the instance was out. Pairs with `sleep`.
        if !self.awake.load(Ordering::SeqCst) {
            self.wake();
        }
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
        Some(async move { refilling.0.fill().await })
    }

    /// Fills the pool, as far as that goes now.
    async fn fill(self: &Arc<Self>) {
        while self.wants_more() {
            let before = self.waiting.load(Ordering::Relaxed);
            let deadline = Instant::now() + INSTANTIATE_TIMEOUT;
            let mut cpu = Duration::ZERO;
            let made = self.make(Need::Ready, deadline, &mut cpu).await;
            self.common.metrics.spent(cpu);
            match made {
                Ok(instance) => drop(self.put(instance)),
                // A full house keeps fewer ready; what is there still serves.
                Err(Unavailable::Full(_)) => break,
                Err(unavailable) => {
                    self.set_back(unavailable);
                    break;
                }
            }
            // Somebody took it, or all were dropped for somebody with work: then
            // this is not the time to make more.
            if self.waiting.load(Ordering::Relaxed) <= before {
                break;
            }
        }
    }

    /// One could not be made, and so it may be for a while. The log says so once; an event
    /// finds out for itself.
    fn set_back(&self, unavailable: Unavailable) {
        if self.setback.failed(Instant::now()) {
            let name = &self.common.spec.name;
            let message = format!(
                "function {name}: no instance can be made ready: {}; another attempt follows \
                 after a second, and later each time, up to {} seconds",
                broken(self, unavailable),
                setback::LONGEST.as_secs()
            );
            self.common.telemetry.log.host(Level::Warn, &message);
        }
    }

    /// Keeps so many from now on, since it was just deployed and nobody knows yet what it
    /// gets. Not for one whose configuration says how many.
    pub(super) fn begin_with(&self, wanted: usize) {
        *self.demand() = Demand::fresh(wanted);
        self.want(wanted);
    }

    /// The keeper looks after it until it sleeps.
    pub(super) fn watch_over(self: &Arc<Self>) {
        if self.wanted.load(Ordering::Relaxed) > 0 {
            self.wake();
        }
    }

    fn demand(&self) -> MutexGuard<'_, Demand> {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, wanted: usize) {
        let before = self.wanted.swap(wanted, Ordering::Relaxed);
        if before != wanted {
            // Another version of the function may want some, too.
            let gauge = &self.common.metrics.wanted;
            let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
            gauge.add(signed(wanted) - signed(before));
        }
    }

    /// Looks after a version that is awake, with what has happened in the time that has
    /// passed; answers whether it goes on to be.
    pub(super) fn look_after(&self, passed: Duration, bounds: Bounds) -> bool {
        if self.retired.load(Ordering::Acquire) {
            self.touched.store(false, Ordering::Relaxed);
            return false;
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        let seen = Seen {
            events: self.touched.swap(false, Ordering::AcqRel),
            missed: self.missed.swap(0, Ordering::Relaxed),
            least: self.least.swap(waiting, Ordering::Relaxed),
        };
        if seen.events {
            self.code.touch();
        }
        self.reap();
        // Also of one that says how many it keeps: if that is none, it gives way.
        let wanted = self.demand().next(seen, passed, bounds);
        if self.common.spec.provisioned.is_none() {
            self.want(wanted);
            self.trim(wanted);
        }
        seen.events || self.wanted.load(Ordering::Relaxed) > 0 || self.keeps_any()
    }

    /// Whether it has instances that would give way to others.
    pub(super) fn keeps_any(&self) -> bool {
        self.ready() > 0 || self.workers.any()
    }

    /// Nobody looks after it until its next event; answers whether that has come already.
    pub(super) fn sleep(&self) -> bool {
        self.awake.store(false, Ordering::SeqCst);
        let stirs = self.touched.load(Ordering::SeqCst) || self.waiting.load(Ordering::SeqCst) > 0;
        stirs && !self.awake.swap(true, Ordering::SeqCst)
    }

    /// How long it has had no event; None if it keeps instances all the same.
    pub(super) fn idle(&self) -> Option<Duration> {
        match self.common.spec.provisioned {
            None | Some(0) => Some(self.demand().idle()),
            Some(_) => None,
        }
    }

    /// Keeps nothing, for the sake of others, until it gets events again.
    pub(super) fn make_room(&self) {
        self.begin_with(0);
        self.clear();
    }

    /// Ends instances that waited too long after they served.
    fn reap(&self) {
        let is_idle =
            |instance: &Instance| instance.served > 0 && instance.since.elapsed() > REUSE_IDLE;
        self.take_where(is_idle, |instance| {
            self.shared.ending.end(instance, Why::Worn);
        });
    }

    /// Drops those that never served and are more than are wanted.
    fn trim(&self, wanted: usize) {
        let waiting = self.waiting.load(Ordering::Relaxed);
        let mut surplus = waiting.saturating_sub(wanted);
        if surplus > 0 {
            let goes = |instance: &Instance| {
                let goes = surplus > 0 && instance.served == 0;
                surplus -= usize::from(goes);
                goes
            };
            self.take_where(goes, drop);
        }
    }

    /// Drops what waits; answers how many there were. At once: somebody wants their
    /// memory, which a `shutdown` would keep. Instances that serve several requests and
    /// have none end, too, but not yet when this answers: they are not counted.
    pub(super) fn clear(&self) -> usize {
        self.workers.close_idle();
        self.take_where(|_| true, drop)
    }

    /// Takes those away that go, and ends them; answers how many there were.
    fn take_where(&self, mut goes: impl FnMut(&Instance) -> bool, end: impl Fn(Instance)) -> usize {
        let mut taken = 0;
        for shelf in &self.shelves {
            // The oldest first: the others may be in the processor's caches.
            let gone: Vec<Instance> = {
                let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
                shelf.extract_if(.., |instance| goes(instance)).collect()
            };
            if !gone.is_empty() {
                self.dropped(gone.len(), gone.iter().map(Instance::held).sum());
                taken += gone.len();
                gone.into_iter().for_each(&end);
            }
        }
        taken
    }

    /// So many wait no more, which held so much; answers how many still do.
    fn dropped(&self, count: usize, held: u64) -> usize {
        let before = self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.shared.waiting.fetch_sub(count, Ordering::Relaxed);
        self.shared.held.fetch_sub(held, Ordering::Relaxed);
        self.common
            .metrics
            .ready
            .sub(i64::try_from(count).unwrap_or(i64::MAX));
        before.saturating_sub(count)
    }

    /// No new events come: what waits ends, by its `shutdown` if it has served; what runs
    /// ends with its events.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.workers.close();
        let end = |instance| self.shared.ending.end(instance, Why::Retired);
        self.take_where(|_| true, end);
        self.want(0);
    }

    /// The component that it was made from.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        self.code.digest()
    }

    /// Whether its machine code is mapped.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.code.mapped().is_some()
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
        self.want(0);
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
