//! Turns: how functions share a core.
//!
//! Each core runs one guest at a time, for about a tick (1 ms) at once. When
//! several want to run, turns go to the function that had the least of the core
//! so far, divided by its weight (start-time fair queueing), and within a
//! function to whoever waited longest. So a flood of one function's invocations
//! costs its neighbours a share of the core, not a place in its queue.
//!
//! An invocation whose function is not ahead of the others starts at once and,
//! if it ends within its first slice, never queues. Between two turns the core
//! polls its sockets and runs what else is ready.
//!
//! Ending a guest whose deadline has passed costs time too, and a thousand may
//! pass theirs at once: so that takes a turn as well, before the function's
//! other turns.
//!
//! All of it is state of one thread: no locks are contended and nothing here
//! is visible to other cores.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How far ahead of those that wait a function may be and still start at once:
/// one slice.
const SLACK: u64 = 1_000_000;
/// Turns that end at once are given out several at a time, up to this much
/// together.
const BATCH: u64 = 1_000_000;
/// And no more than this many.
const MAX_BATCH: u64 = 16;
/// After so many turns none of which a tick had to end.
const CALM: u32 = 1000;
/// The weight that counts time as it is.
const NORMAL_WEIGHT: u64 = 100;
/// Functions remembered per core before those at rest are forgotten.
const MAX_REMEMBERED: usize = 4096;

/// Names a function towards the cores, with its weight.
#[derive(Debug)]
pub struct Share {
    id: u64,
    weight: u64,
}

impl Share {
    /// A share of this weight; 100 is the normal one.
    #[must_use]
    pub fn new(weight: u32) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            weight: u64::from(weight.max(1)),
        })
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
    /// A tick has stopped the guest in the middle of its work.
    stopped: AtomicBool,
}

struct Queue {
    weight: u64,
    /// Virtual time: nanoseconds of the core, scaled by the weight.
    virtual_time: u64,
    /// How long a turn is expected to last, in nanoseconds.
    typical: u64,
    /// Turns since one of its guests was last stopped by a tick.
    calm: u32,
    seats: VecDeque<Arc<Seat>>,
}

struct Core {
    queues: HashMap<u64, Queue>,
    /// Functions with seats that wait.
    contending: Vec<u64>,
    /// Virtual time of the core: never behind the function served last.
    clock: u64,
    /// Turns given out and not yet over.
    outstanding: u64,
    /// Who ran last.
    last: u64,
    granter: Option<Waker>,
}

/// Some core has served more than one function since this was last looked at:
/// ticks come faster then, so that they wait less for each other.
pub(super) static SHARED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static CORE: RefCell<Option<Core>> = const { RefCell::new(None) };
    /// Turns taken within the poll that runs now.
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl Core {
    fn queue(&mut self, share: &Share) -> &mut Queue {
        if self.queues.len() >= MAX_REMEMBERED {
            let clock = self.clock;
            self.queues
                .retain(|_, queue| !queue.seats.is_empty() || queue.virtual_time > clock);
        }
        let clock = self.clock;
        self.queues.entry(share.id).or_insert_with(|| Queue {
            weight: share.weight,
            virtual_time: clock,
            typical: SLACK,
            calm: 0,
            seats: VecDeque::new(),
        })
    }

    /// The least virtual time of those that wait.
    fn least(&self) -> Option<(u64, u64)> {
        self.contending
            .iter()
            .map(|id| (self.queues[id].virtual_time, *id))
            .min()
    }

    fn may_start(&mut self, share: &Share) -> bool {
        let clock = self.clock;
        let queue = self.queue(share);
        // Who rested does not save up: it begins where the others are.
        queue.virtual_time = queue.virtual_time.max(clock);
        if !queue.seats.is_empty() {
            return false;
        }
        let own = queue.virtual_time;
        match self.least() {
            Some((least, _)) => own <= least.saturating_add(SLACK),
            None => true,
        }
    }

    fn enqueue(&mut self, seat: &Arc<Seat>, urgent: bool) {
        let clock = self.clock;
        let queue = self.queue(&seat.share);
        queue.virtual_time = queue.virtual_time.max(clock);
        if seat.stopped.swap(false, Ordering::Relaxed) {
            queue.calm = 0;
        }
        if urgent {
            queue.seats.push_front(Arc::clone(seat));
        } else {
            queue.seats.push_back(Arc::clone(seat));
        }
        if queue.seats.len() == 1 {
            self.contending.push(seat.share.id);
        }
        self.wake_granter();
    }

    fn wake_granter(&mut self) {
        if self.outstanding == 0
            && let Some(waker) = self.granter.take()
        {
            waker.wake();
        }
    }

    fn turn_over(&mut self, turns: u64) {
        self.outstanding = self.outstanding.saturating_sub(turns);
        if !self.contending.is_empty() {
            self.wake_granter();
        }
    }

    fn charge(&mut self, share: &Share, used: Duration) {
        if self.last != share.id {
            self.last = share.id;
            SHARED.store(true, Ordering::Relaxed);
        }
        let nanos = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        let queue = self.queue(share);
        let began = queue.virtual_time;
        queue.virtual_time =
            began.saturating_add(nanos.saturating_mul(NORMAL_WEIGHT) / queue.weight);
        // Up at once and down slowly: turns are given out several at a time
        // only where they are surely short.
        queue.typical = nanos.max((queue.typical * 15 + nanos) / 16);
        let floor = self.least().map_or(began, |(least, _)| began.min(least));
        self.clock = self.clock.max(floor);
    }

    /// Gives turns to the function that had least.
    fn grant(&mut self) {
        let Some((virtual_time, id)) = self.least() else {
            return;
        };
        self.clock = self.clock.max(virtual_time);
        let queue = self
            .queues
            .get_mut(&id)
            .expect("a contending function has a queue");
        queue.calm = queue.calm.saturating_add(1);
        let mut turns = if queue.calm < CALM {
            1
        } else {
            (BATCH / queue.typical.max(1)).clamp(1, MAX_BATCH)
        };
        while turns > 0
            && let Some(seat) = queue.seats.pop_front()
        {
            // Who stood here may have left, or moved to the front.
            if seat.change(WAITING, GRANTED) {
                turns -= 1;
                self.outstanding += 1;
                seat.wake();
            }
        }
        if queue.seats.is_empty() {
            self.contending.retain(|other| *other != id);
        }
    }
}

fn with_core<R>(use_it: impl FnOnce(&mut Core) -> R) -> Option<R> {
    CORE.with_borrow_mut(|core| core.as_mut().map(use_it))
}

/// Makes this thread a core and gives out its turns, for ever.
pub(crate) async fn give_out() {
    CORE.set(Some(Core {
        queues: HashMap::new(),
        contending: Vec::new(),
        clock: 0,
        outstanding: 0,
        last: u64::MAX,
        granter: None,
    }));
    loop {
        poll_fn(|context| {
            with_core(|core| {
                if core.outstanding == 0 && !core.contending.is_empty() {
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
        with_core(Core::grant);
    }
}

/// Whether an invocation of this function may run now without a turn. True on
/// a thread that is no core.
pub(crate) fn may_start(share: &Share) -> bool {
    with_core(|core| core.may_start(share)).unwrap_or(true)
}

/// What measures a slice.
enum Stopwatch {
    /// The wall clock: nobody waits, so nobody minds what the kernel took.
    Wall(Instant),
    /// The thread's own time on a processor, so that no function pays for what
    /// the kernel gave to another process meanwhile. Reading it costs a system
    /// call.
    Thread(Duration),
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Stopwatch {
    fn start(contended: bool) -> Self {
        if contended {
            Self::Thread(thread_time())
        } else {
            Self::Wall(Instant::now())
        }
    }

    fn elapsed(&self) -> Duration {
        match self {
            Self::Wall(began) => began.elapsed(),
            Self::Thread(began) => thread_time().saturating_sub(*began),
        }
    }
}

/// Runs a piece of an invocation (a poll of its future), charges the function
/// for it and ends the turns taken in it. Answers how long it took.
pub(crate) fn slice<R>(share: &Share, run: impl FnOnce() -> R) -> (R, Duration) {
    let contended = with_core(|core| core.outstanding > 0 || !core.contending.is_empty());
    let stopwatch = Stopwatch::start(contended.unwrap_or(false));
    let outer = TAKEN.replace(0);
    let result = run();
    let used = stopwatch.elapsed();
    let taken = TAKEN.replace(outer);
    with_core(|core| {
        core.charge(share, used);
        if taken > 0 {
            core.turn_over(taken);
        }
    });
    (result, used)
}

impl Seat {
    /// A seat for one guest of this function.
    pub(crate) fn new(share: &Arc<Share>) -> Arc<Self> {
        Arc::new(Self {
            share: Arc::clone(share),
            state: AtomicU8::new(RUNNING),
            waker: Mutex::new(None),
            stopped: AtomicBool::new(false),
        })
    }

    pub(crate) fn share(&self) -> &Share {
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

    /// Begins to run: at once, or with a turn. Answers whether it had to wait.
    pub(crate) async fn start(self: &Arc<Self>) -> bool {
        let at_once = may_start(&self.share);
        if !at_once {
            self.turn().await;
        }
        !at_once
    }

    /// A tick has stopped the guest: waits for its next turn.
    pub(crate) fn stop(self: &Arc<Self>) -> Turn {
        self.stopped.store(true, Ordering::Relaxed);
        self.turn()
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
        let uncontended = with_core(|core| core.contending.is_empty() && core.outstanding == 0);
        if uncontended.unwrap_or(true) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// Takes `slices` slices of a millisecond each, as a busy guest does.
    async fn busy(share: Arc<Share>, used: Rc<Cell<u64>>, stop: Rc<Cell<bool>>) {
        let mut first = true;
        let seat = Seat::new(&share);
        while !stop.get() {
            if !(first && may_start(&share)) {
                let mut turn = seat.turn();
                poll_fn(|context| {
                    let poll = Pin::new(&mut turn).poll(context);
                    if poll.is_ready() {
                        let taken = TAKEN.replace(0);
                        with_core(|core| core.charge(&share, Duration::from_millis(1)));
                        with_core(|core| core.turn_over(taken));
                        used.set(used.get() + 1);
                    }
                    poll
                })
                .await;
            }
            first = false;
        }
    }

    fn on_a_core<F: Future<Output = ()>>(test: F) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            tokio::task::spawn_local(give_out());
            tokio::task::yield_now().await;
            test.await;
        });
        CORE.set(None);
    }

    #[test]
    fn a_flood_of_one_function_costs_its_neighbour_a_share_and_no_more() {
        on_a_core(async {
            let (flood, lone) = (Share::new(100), Share::new(100));
            let stop = Rc::new(Cell::new(false));
            let used = [Rc::new(Cell::new(0)), Rc::new(Cell::new(0))];
            for _ in 0..50 {
                tokio::task::spawn_local(busy(
                    Arc::clone(&flood),
                    Rc::clone(&used[0]),
                    Rc::clone(&stop),
                ));
            }
            tokio::task::spawn_local(busy(
                Arc::clone(&lone),
                Rc::clone(&used[1]),
                Rc::clone(&stop),
            ));
            while used[0].get() + used[1].get() < 1000 {
                tokio::task::yield_now().await;
            }
            stop.set(true);
            let share = used[1].get() as f64 / 1000.0;
            assert!((0.45..=0.55).contains(&share), "{share}");
        });
    }

    #[test]
    fn shares_follow_the_weights() {
        on_a_core(async {
            let (light, heavy) = (Share::new(100), Share::new(300));
            let stop = Rc::new(Cell::new(false));
            let used = [Rc::new(Cell::new(0)), Rc::new(Cell::new(0))];
            for (share, used) in [(&light, &used[0]), (&heavy, &used[1])] {
                for _ in 0..4 {
                    tokio::task::spawn_local(busy(
                        Arc::clone(share),
                        Rc::clone(used),
                        Rc::clone(&stop),
                    ));
                }
            }
            while used[0].get() + used[1].get() < 1000 {
                tokio::task::yield_now().await;
            }
            stop.set(true);
            let share = used[1].get() as f64 / 1000.0;
            assert!((0.72..=0.78).contains(&share), "{share}");
        });
    }

    #[test]
    fn a_turn_that_is_given_up_goes_to_the_next() {
        on_a_core(async {
            let share = Share::new(100);
            let mut first = Seat::new(&share).turn();
            let mut second = Seat::new(&share).turn();
            poll_fn(|context| {
                assert!(Pin::new(&mut first).poll(context).is_pending());
                assert!(Pin::new(&mut second).poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            // Granted while nobody polls it, then dropped; and one dropped while it waits.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            drop(first);
            tokio::time::timeout(Duration::from_secs(5), second)
                .await
                .unwrap();
        });
    }

    #[test]
    fn a_function_that_is_not_ahead_starts_at_once_and_one_that_is_queues() {
        on_a_core(async {
            let (quiet, busy) = (Share::new(100), Share::new(100));
            assert!(may_start(&busy));
            with_core(|core| core.charge(&busy, Duration::from_millis(5)));
            let mut turn = Seat::new(&busy).turn();
            poll_fn(|context| Poll::Ready(Pin::new(&mut turn).poll(context)))
                .await
                .is_pending();
            assert!(!may_start(&busy), "its own invocations wait already");
            assert!(may_start(&quiet), "it had less than those that wait");
            with_core(|core| core.charge(&quiet, Duration::from_millis(20)));
            assert!(!may_start(&quiet), "now it had more");
        });
    }

    #[test]
    fn an_expired_guest_ends_before_the_others_of_its_function_run() {
        on_a_core(async {
            let share = Share::new(100);
            let (busy, expired) = (Seat::new(&share), Seat::new(&share));
            let mut waiting: Vec<_> = (0..3).map(|_| Seat::new(&share).turn()).collect();
            let mut own = expired.turn();
            poll_fn(|context| {
                for turn in &mut waiting {
                    assert!(Pin::new(turn).poll(context).is_pending());
                }
                assert!(Pin::new(&mut own).poll(context).is_pending());
                assert!(!expired.expire(context), "others contend");
                Poll::Ready(())
            })
            .await;
            tokio::time::timeout(
                Duration::from_secs(5),
                poll_fn(|context| {
                    if expired.may_end(context) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                }),
            )
            .await
            .unwrap();
            poll_fn(|context| {
                for turn in &mut waiting {
                    assert!(Pin::new(turn).poll(context).is_pending(), "they come after");
                }
                Poll::Ready(())
            })
            .await;
            drop(busy);
        });
    }

    #[test]
    fn an_expired_guest_that_is_dropped_holds_up_nobody() {
        on_a_core(async {
            let share = Share::new(100);
            let (expired, other) = (Seat::new(&share), Seat::new(&share));
            let mut waiting = Seat::new(&share).turn();
            poll_fn(|context| {
                assert!(Pin::new(&mut waiting).poll(context).is_pending());
                assert!(!expired.expire(context), "another contends");
                Poll::Ready(())
            })
            .await;
            // Granted by now, and never taken.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            expired.leave();
            drop(waiting);
            tokio::time::timeout(Duration::from_secs(5), other.turn())
                .await
                .unwrap();
        });
    }
}
