//! Turns: how functions share a core.
//!
//! Each core runs one guest at a time, for about a tick (`engine`) at once. When
//! several want to run, turns go to the function that had the least of the core
//! so far, divided by its weight (start-time fair queueing), and within a
//! function to whoever waited longest. So a flood of one function's invocations
//! costs its neighbours a share of the core, not a place in its queue.
//!
//! An invocation whose function is not ahead of the others starts at once and,
//! if it ends within its first slice, never queues. Between two turns, but for
//! short ones of one function, the core polls its sockets and runs what else is
//! ready.
//!
//! Ending a guest whose deadline has passed costs time too, and a thousand may
//! pass theirs at once: so that takes a turn as well, before the function's
//! other turns.
//!
//! All of it is state of one thread, and no locks are contended. Other cores see
//! only how much stands before each function here (`Share::pressure`).

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

/// How far ahead of those that wait a function may be and still start at once:
/// one slice, in nanoseconds.
const SLACK: u64 = 1_000_000;
/// What a function that used less than its share saves up, at most: so much of a
/// burst goes before those who used theirs, in nanoseconds.
const CREDIT: u64 = 50_000_000;
/// After so much of guests' work the sockets are polled before another turn is
/// given out.
const POLL_AFTER: u64 = 120_000;
/// An invocation goes to another core only if it has to wait so many nanoseconds less
/// there: on the way there and back it waits for a core that may be in the middle of a
/// slice.
const WORTH_MOVING: u64 = 500_000;
/// A slice as short as this is charged with the wall clock alone: what the kernel gave to
/// others in it is less.
const CHECKED: Duration = Duration::from_micros(200);
/// For so long a reading of the thread's own time serves the slices that begin. One that
/// the kernel interrupts is charged with so much too much, at most.
const STALE: Duration = Duration::from_millis(1);
/// The weight of the last turn in the mean of a function's turns, as a power of two.
const MEAN_SHIFT: u32 = 3;
/// The weight that counts time as it is.
const NORMAL_WEIGHT: u64 = 100;
/// Functions remembered per core before those at rest are forgotten.
const MAX_REMEMBERED: usize = 4096;

/// Names a function towards the cores, with its weight.
#[derive(Debug)]
pub struct Share {
    id: u64,
    weight: u64,
    /// For each core about how long another invocation of this function would wait
    /// there for those that wait already, in nanoseconds, so that the others see it.
    pressure: Box<[AtomicU64]>,
}

impl Share {
    /// A share of this weight (100 is the normal one) on so many cores.
    #[must_use]
    pub fn new(weight: u32, cores: usize) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            weight: u64::from(weight.max(1)),
            pressure: (0..cores).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// The core where another invocation waits so much less than on this one that it is
    /// worth moving there, if any: the one with the least wait.
    pub(super) fn core_with_less(&self, here: usize) -> Option<usize> {
        let pressure = |core: &AtomicU64| core.load(Ordering::Relaxed);
        let own = pressure(self.pressure.get(here)?);
        let all = self.pressure.iter().map(pressure).enumerate();
        let (best, least) = all.min_by_key(|(_, pressure)| *pressure)?;
        if least.saturating_add(WORTH_MOVING) > own {
            return None;
        }
        // So that not all of a burst go there; it publishes what is so itself.
        self.pressure[best].fetch_add(WORTH_MOVING / 4, Ordering::Relaxed);
        Some(best)
    }

    fn pressure_on(&self, core: usize) -> u64 {
        let pressure = self.pressure.get(core);
        pressure.map_or(0, |pressure| pressure.load(Ordering::Relaxed))
    }

    /// Nanoseconds of the core as virtual time, which goes more slowly for a
    /// greater weight.
    fn virtual_time(&self, nanos: u64) -> u64 {
        nanos.saturating_mul(NORMAL_WEIGHT) / self.weight
    }

    /// The same, for what a function may have beforehand: whatever its weight, no
    /// more of the core than these nanoseconds.
    fn bound(&self, nanos: u64) -> u64 {
        nanos.min(self.virtual_time(nanos))
    }
}

/// Wants no turn.
const RUNNING: u8 = 0;
/// Stands in the queue.
const WAITING: u8 = 1;
/// May run, and has not taken its turn yet.
const GRANTED: u8 = 2;

/// The place of one guest in its function's queue.
pub(crate) struct Seat {
    share: Arc<Share>,
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

struct Queue {
    share: Arc<Share>,
    /// Virtual time: nanoseconds of the core, scaled by the weight.
    virtual_time: u64,
    /// The mean of the last turns, in nanoseconds.
    turn: u64,
    seats: VecDeque<Arc<Seat>>,
}

impl Queue {
    /// Who rested saves up no more than its credit.
    fn rest_until(&mut self, clock: u64) {
        let credit = self.share.bound(CREDIT);
        self.virtual_time = self.virtual_time.max(clock.saturating_sub(credit));
    }
}

struct Core {
    /// Its number.
    index: usize,
    queues: FxHashMap<u64, Queue>,
    /// Functions with seats that wait.
    contending: Vec<u64>,
    /// Virtual time of the core: never behind the function served last.
    clock: u64,
    /// Turns given out and not yet over.
    outstanding: u64,
    /// Who got the last turn.
    granted: u64,
    /// Who ran last.
    last: u64,
    granter: Option<Waker>,
    /// What guests used since the sockets were last polled, in nanoseconds.
    since_poll: u64,
}

/// Some core has served more than one function since this was last looked at:
/// ticks come faster then, so that they wait less for each other.
pub(super) static SHARED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static CORE: RefCell<Option<Core>> = const { RefCell::new(None) };
    /// Turns taken within the poll that runs now.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    /// The thread's own time on a processor as it was last read, and when.
    static READ: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

impl Core {
    fn queue(&mut self, share: &Arc<Share>) -> &mut Queue {
        if self.queues.len() >= MAX_REMEMBERED {
            let clock = self.clock;
            self.queues
                .retain(|_, queue| !queue.seats.is_empty() || queue.virtual_time > clock);
        }
        let clock = self.clock;
        self.queues.entry(share.id).or_insert_with(|| Queue {
            share: Arc::clone(share),
            virtual_time: clock,
            turn: 0,
            seats: VecDeque::new(),
        })
    }

    /// The least virtual time of those that wait, or have a turn and have not
    /// taken it yet.
    fn least(&self) -> Option<(u64, u64)> {
        let granted = (self.outstanding > 0).then_some(&self.granted);
        self.contending
            .iter()
            .chain(granted)
            .filter_map(|id| Some((self.queues.get(id)?.virtual_time, *id)))
            .min()
    }

    /// Tells the other cores what stands before a function here.
    fn publish(&self, id: u64) {
        let queue = &self.queues[&id];
        let least = self.least().map_or(u64::MAX, |(least, _)| least);
        let ahead = queue.virtual_time > least.saturating_add(queue.share.bound(SLACK));
        if let Some(pressure) = queue.share.pressure.get(self.index) {
            // Who is ahead waits for one turn of another at least.
            let others = if ahead { SLACK / 4 } else { 0 };
            let own = queue.turn.saturating_mul(queue.seats.len() as u64);
            pressure.store(own.saturating_add(others), Ordering::Relaxed);
        }
    }

    fn may_start(&mut self, share: &Arc<Share>) -> bool {
        // A hundred that begin together would hold up the sockets together.
        if self.since_poll > SLACK {
            return false;
        }
        if !self.is_contended() {
            return true;
        }
        let clock = self.clock;
        let queue = self.queue(share);
        queue.rest_until(clock);
        if !queue.seats.is_empty() {
            return false;
        }
        let own = queue.virtual_time;
        match self.least() {
            Some((least, _)) => own <= least.saturating_add(share.bound(SLACK)),
            None => true,
        }
    }

    fn enqueue(&mut self, seat: &Arc<Seat>, urgent: bool) {
        let clock = self.clock;
        let queue = self.queue(&seat.share);
        queue.rest_until(clock);
        if urgent {
            queue.seats.push_front(Arc::clone(seat));
        } else {
            queue.seats.push_back(Arc::clone(seat));
        }
        if queue.seats.len() == 1 {
            self.contending.push(seat.share.id);
        }
        self.publish(seat.share.id);
        self.wake_granter();
    }

    fn wake_granter(&mut self) {
        if self.granter_has_work()
            && let Some(waker) = self.granter.take()
        {
            waker.wake();
        }
    }

    fn granter_has_work(&self) -> bool {
        let may_grant = self.outstanding == 0 && !self.contending.is_empty();
        may_grant || self.since_poll > POLL_AFTER
    }

    fn turn_over(&mut self, turns: u64) {
        self.outstanding = self.outstanding.saturating_sub(turns);
        // Short turns of one function follow each other: its guests find the
        // processor's caches warm.
        let same = self.least().is_some_and(|(_, id)| id == self.last);
        if self.outstanding == 0 && same && self.since_poll < POLL_AFTER {
            self.grant();
        }
        // Also when those who stood there have left: others may wait.
        self.wake_granter();
    }

    /// Whether somebody waits for a turn, or has one.
    fn is_contended(&self) -> bool {
        self.outstanding > 0 || !self.contending.is_empty()
    }

    fn charge(&mut self, share: &Arc<Share>, used: Duration) {
        if self.last != share.id {
            self.last = share.id;
            SHARED.store(true, Ordering::Relaxed);
        }
        let nanos = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        let clock = self.clock;
        let queue = self.queue(share);
        queue.rest_until(clock);
        let began = queue.virtual_time;
        queue.virtual_time = began.saturating_add(share.virtual_time(nanos));
        queue.turn = queue.turn - (queue.turn >> MEAN_SHIFT) + (nanos >> MEAN_SHIFT);
        let floor = self.least().map_or(began, |(least, _)| began.min(least));
        self.clock = clock.max(floor);
        // Of a core that nobody contends for there is nothing new to say.
        if self.is_contended() || share.pressure_on(self.index) != 0 {
            self.publish(share.id);
        }
        self.since_poll = self.since_poll.saturating_add(nanos);
        self.wake_granter();
    }

    /// Gives a turn to the function that had least.
    fn grant(&mut self) {
        let Some((virtual_time, id)) = self.least() else {
            return;
        };
        self.clock = self.clock.max(virtual_time);
        let queue = self
            .queues
            .get_mut(&id)
            .expect("a contending function has a queue");
        while let Some(seat) = queue.seats.pop_front() {
            // Who stood here may have left, or moved to the front.
            if seat.change(WAITING, GRANTED) {
                self.outstanding += 1;
                self.granted = id;
                seat.wake();
                break;
            }
        }
        if queue.seats.is_empty() {
            self.contending.retain(|other| *other != id);
        }
        self.publish(id);
    }
}

fn with_core<R>(use_it: impl FnOnce(&mut Core) -> R) -> Option<R> {
    CORE.with_borrow_mut(|core| core.as_mut().map(use_it))
}

/// Makes this thread the core of this number and gives out its turns, for ever.
pub(crate) async fn give_out(index: usize) {
    CORE.set(Some(Core {
        index,
        queues: FxHashMap::default(),
        contending: Vec::new(),
        clock: 0,
        outstanding: 0,
        granted: u64::MAX,
        last: u64::MAX,
        granter: None,
        since_poll: 0,
    }));
    loop {
        poll_fn(|context| {
            with_core(|core| {
                if core.granter_has_work() {
                    Poll::Ready(())
                } else {
                    core.granter = Some(context.waker().clone());
                    Poll::Pending
                }
            })
            .unwrap_or(Poll::Pending)
        })
        .await;
        // First whatever else is ready, and the sockets.
        tokio::task::yield_now().await;
        with_core(|core| {
            core.since_poll = 0;
            if core.outstanding == 0 {
                core.grant();
            }
        });
    }
}

/// Whether an invocation of this function may run now without a turn. True on
/// a thread that is no core.
pub(crate) fn may_start(share: &Arc<Share>) -> bool {
    with_core(|core| core.may_start(share)).unwrap_or(true)
}

/// Measures what a function used: the wall clock, and for a slice that took long while
/// others waited, the thread's own time on a processor, so that no function pays for what
/// the kernel gave to another process meanwhile. That costs a system call, which takes
/// longer than the wall clock's reading by a factor of fifty.
struct Stopwatch {
    began: Instant,
    /// The thread's time, read shortly before; None if nobody waits, and so nobody minds.
    before: Option<Duration>,
}

impl Stopwatch {
    fn start(contended: bool) -> Self {
        let began = Instant::now();
        let before = contended.then(|| match READ.get() {
            Some((at, time)) if began.saturating_duration_since(at) < STALE => time,
            _ => read_thread_time(began),
        });
        Self { began, before }
    }

    fn elapsed(&self) -> Duration {
        let now = Instant::now();
        let wall = now.saturating_duration_since(self.began);
        match self.before {
            Some(before) if wall >= CHECKED => {
                wall.min(read_thread_time(now).saturating_sub(before))
            }
            _ => wall,
        }
    }
}

/// The time that this thread has had on a processor.
fn read_thread_time(now: Instant) -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let time = Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    );
    READ.set(Some((now, time)));
    time
}

/// Runs a piece of an invocation (a poll of its future), charges the function
/// for it and ends the turns taken in it. Answers how long it took.
pub(crate) fn charged<R>(share: &Arc<Share>, run: impl FnOnce() -> R) -> (R, Duration) {
    let slice = Slice::begin(share);
    let result = run();
    (result, slice.end())
}

/// A slice that runs. It ends also when it panics: else nobody would get a turn
/// any more.
struct Slice<'a> {
    share: &'a Arc<Share>,
    watch: Stopwatch,
    /// Turns taken before, in a slice around this one.
    outer: u64,
}

impl<'a> Slice<'a> {
    fn begin(share: &'a Arc<Share>) -> Self {
        let contended = with_core(|core| core.is_contended()).unwrap_or(false);
        Self {
            share,
            outer: TAKEN.replace(0),
            watch: Stopwatch::start(contended),
        }
    }

    fn end(self) -> Duration {
        ManuallyDrop::new(self).finish()
    }

    fn finish(&mut self) -> Duration {
        let used = self.watch.elapsed();
        let taken = TAKEN.replace(self.outer);
        with_core(|core| {
            core.charge(self.share, used);
            if taken > 0 {
                core.turn_over(taken);
            }
        });
        used
    }
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Seat {
    /// A seat for one guest of this function.
    pub(crate) fn new(share: &Arc<Share>) -> Arc<Self> {
        Arc::new(Self {
            share: Arc::clone(share),
            state: AtomicU8::new(RUNNING),
            waker: Mutex::new(None),
        })
    }

    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn wake(&self) {
        if let Some(waker) = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            waker.wake();
        }
    }

    fn wake_me(&self, context: &Context<'_>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
    }

    /// Begins to run: at once, or with a turn. Answers whether it was at once.
    pub(crate) async fn start(self: &Arc<Self>) -> bool {
        let at_once = may_start(&self.share);
        if !at_once {
            self.turn().await;
        }
        at_once
    }

    /// Waits for the next turn.
    pub(crate) fn turn(self: &Arc<Self>) -> Turn {
        Turn {
            seat: Arc::clone(self),
            asked: false,
            done: false,
        }
    }

    /// The guest's deadline has passed while it waited for something: from now
    /// on the seat waits for the turn to end it, before all others of the
    /// function. Answers whether that may happen at once.
    pub(crate) fn expire(self: &Arc<Self>, context: &Context<'_>) -> bool {
        if self.state.load(Ordering::Acquire) == GRANTED {
            return self.take();
        }
        if !with_core(|core| core.is_contended()).unwrap_or(false) {
            return true;
        }
        self.wake_me(context);
        self.state.store(WAITING, Ordering::Release);
        with_core(|core| core.enqueue(self, true));
        false
    }

    /// Takes the turn, if it was granted.
    fn take(&self) -> bool {
        let granted = self.change(GRANTED, RUNNING);
        if granted {
            TAKEN.set(TAKEN.get() + 1);
        }
        granted
    }

    /// Whether the turn to end an expired guest has come.
    pub(crate) fn may_end(&self, context: &Context<'_>) -> bool {
        self.take() || {
            self.wake_me(context);
            false
        }
    }

    /// Wants no turn any more; one that was granted goes to the next.
    pub(crate) fn leave(&self) {
        if self.state.swap(RUNNING, Ordering::AcqRel) == GRANTED {
            with_core(|core| core.turn_over(1));
        }
    }
}

/// Waits for a turn. On a thread that is no core it yields once.
pub(crate) struct Turn {
    seat: Arc<Seat>,
    asked: bool,
    done: bool,
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.done || (self.asked && self.seat.take()) {
            self.done = true;
            return Poll::Ready(());
        }
        self.seat.wake_me(context);
        if !self.asked {
            self.asked = true;
            self.seat.state.store(WAITING, Ordering::Release);
            if with_core(|core| core.enqueue(&self.seat, false)).is_none() {
                self.done = true;
                context.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.asked && !self.done {
            self.seat.leave();
        }
    }
}
