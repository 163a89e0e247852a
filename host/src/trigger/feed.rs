//! A feed: takes the messages of one queue to one function, as fast as the function's
//! concurrency allows.
//!
//! A message is received only when there is a permit for it: one that waits is charged no
//! attempt, whatever happens to the host. A feed begins with a few batches at once, grows
//! while there is more than it takes, and shrinks when permits are short.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatch::{Function, Permit};
use crate::queue::{
    Delivery, Held, MAX_RECEIVED, NewMessage, QueueError, QueueName, QueueStore, Receipt, Settled,
    Settlement,
};
use crate::runtime::Cores;
use crate::store::WriteError;
use crate::telemetry::{Level, Telemetry};

/// Batches at once with which a feed begins: Lambda's.
const FIRST_BREADTH: usize = 5;
/// How often a feed looks for messages that are not visible yet: a clock may have been set.
const LOOK: Duration = Duration::from_secs(30);
/// The same where there are none at all: who sends one calls.
const REST: Duration = Duration::from_mins(5);
/// Messages that are received at once, unless one batch is larger: others wait meanwhile
/// for the store.
const MAX_AT_ONCE: usize = 1000;
/// How long it waits after a failure, and for a permit before it asks for less.
const PAUSE: Duration = Duration::from_secs(1);
/// What comes while a batch gathers is counted this often at most.
const GATHER: Duration = Duration::from_millis(20);
/// Between the end of an invocation and its settlement: as long as this a message stays
/// hidden beyond what its function may take.
const SETTLING: Duration = Duration::from_secs(60);

/// What feeds have in common.
#[derive(Clone)]
pub struct Feeds {
    /// The queues.
    pub queues: Arc<dyn QueueStore>,
    /// Where invocations run.
    pub cores: Arc<Cores>,
    /// Those that run.
    pub running: TaskTracker,
    /// Where it is said what went wrong.
    pub telemetry: Telemetry,
}

/// How messages are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Messages of a batch.
    pub(crate) batch: usize,
    /// How long messages wait for others.
    pub(crate) window: Duration,
    /// Batches at once, at most.
    pub(crate) most: usize,
    /// How long a message is hidden at least, beside what its function may take.
    pub(crate) visibility: Duration,
}

/// Who works on what a feed brings.
pub(crate) trait Worker: Send + Sync + 'static {
    /// The queue that is read.
    fn queue(&self) -> &QueueName;

    /// The function as it is deployed now; None if it is not.
    fn function(&self) -> Option<Arc<Function>>;

    /// How messages are taken.
    fn rule(&self) -> impl Future<Output = Result<Rule, QueueError>> + Send;

    /// Works on a batch, and settles it.
    fn work(
        self: Arc<Self>,
        function: Arc<Function>,
        permit: Permit,
        batch: Vec<Delivery>,
    ) -> impl Future<Output = ()> + Send;

    /// Its settlements that wait for room on the disk.
    fn unsettled(&self) -> &Unsettled;

    /// Settles the messages of a function that may run nothing at all, if they do not wait
    /// for better times.
    fn refuse(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Settlements that wait for room on the disk. Nothing is received before them: it may be
/// the very messages that are done.
#[derive(Default)]
pub(crate) struct Unsettled(AtomicUsize);

impl Unsettled {
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// One of them, for as long as this lives.
struct Waits<'a>(&'a Unsettled);

impl<'a> Waits<'a> {
    fn on(unsettled: &'a Unsettled) -> Self {
        unsettled.0.fetch_add(1, Ordering::Relaxed);
        Self(unsettled)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Batches under way.
#[derive(Default)]
struct InFlight {
    count: AtomicUsize,
    ended: Notify,
}

/// One of them, for as long as this lives.
struct Slot(Arc<InFlight>);

impl Slot {
    fn take(in_flight: &Arc<InFlight>) -> Self {
        in_flight.count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(in_flight))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_one();
    }
}

impl InFlight {
    /// Waits until there are fewer, and answers how many there are.
    async fn below(&self, limit: usize) -> usize {
        loop {
            let count = self.count.load(Ordering::Relaxed);
            if count < limit {
                return count;
            }
            self.ended.notified().await;
        }
    }
}

/// How fast a feed goes.
struct Pace {
    /// Batches at once.
    breadth: usize,
    /// Whether there was more than was taken: then there is no need to ask first.
    more: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            breadth: FIRST_BREADTH,
            more: false,
        }
    }
}

/// When a feed looks again.
enum Look {
    Now,
    In(Duration),
}

/// Runs a feed until it is stopped. What was received by then is worked on to its end.
pub(crate) async fn run<W: Worker>(feeds: Feeds, worker: Arc<W>, stop: CancellationToken) {
    let mut arrivals = feeds.queues.arrivals(worker.queue());
    let in_flight = Arc::new(InFlight::default());
    let mut pace = Pace::default();
    while !stop.is_cancelled() {
        // From before the look: what comes right after it is not missed.
        arrivals.mark_unchanged();
        let look = round(&feeds, &worker, &in_flight, &mut pace, &stop).await;
        if let Look::In(time) = look {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(time) => {}
                _ = arrivals.changed() => {}
            }
        }
    }
}

async fn round<W: Worker>(
    feeds: &Feeds,
    worker: &Arc<W>,
    in_flight: &Arc<InFlight>,
    pace: &mut Pace,
    stop: &CancellationToken,
) -> Look {
    let Some(function) = worker.function() else {
        return Look::In(LOOK);
    };
    if function.lane.is_shut() {
        worker.refuse().await;
        return match feeds.queues.next(worker.queue().clone()).await {
            Ok(next) => until(next),
            Err(error) => failed(feeds, worker.queue(), &error),
        };
    }
    if !worker.unsettled().is_empty() {
        return Look::In(PAUSE);
    }
    let rule = match worker.rule().await {
        Ok(rule) => rule,
        Err(error) => return failed(feeds, worker.queue(), &error),
    };
    // A permit that is taken for nothing may be the one that somebody waits for.
    if !pace.more || !rule.window.is_zero() {
        match feeds.queues.next(worker.queue().clone()).await {
            Ok(Some(Duration::ZERO)) => {}
            Ok(next) => {
                *pace = Pace::default();
                return until(next);
            }
            Err(error) => return failed(feeds, worker.queue(), &error),
        }
    }
    if !rule.window.is_zero() {
        tokio::select! {
            () = stop.cancelled() => return Look::Now,
            () = gather(feeds, worker.queue(), rule) => {}
        }
    }
    let most = rule.most.min(function.lane.background_size());
    pace.breadth = pace.breadth.clamp(1, most.max(1));
    let permits = tokio::select! {
        () = stop.cancelled() => return Look::Now,
        permits = permits(&function, worker.queue(), in_flight, pace.breadth) => permits,
    };
    if permits.is_empty() {
        pace.breadth /= 2;
        return Look::Now;
    }

    let asked = (permits.len() * rule.batch).min(MAX_AT_ONCE.max(rule.batch));
    // Never broken off: what is received must come to somebody.
    let received = feeds.queues.receive(
        worker.queue().clone(),
        asked,
        Some(hidden(&function, rule.visibility)),
        Held::Host,
    );
    let received = match received.await {
        Ok(received) => received,
        Err(error) => return failed(feeds, worker.queue(), &error),
    };
    if received.is_empty() {
        // Others were faster, or what is visible is nobody's to receive.
        *pace = Pace::default();
        return Look::In(Duration::from_millis(1));
    }
    // Large messages stop a receive by their bytes.
    let bytes: usize = received.iter().map(|it| it.message.body.len()).sum();
    pace.more = received.len() == asked || bytes as u64 > MAX_RECEIVED / 2;
    if pace.more {
        pace.breadth += permits.len();
    }
    let mut permits = permits.into_iter();
    // What is in two batches of a FIFO queue has no order.
    let batches = match worker.queue().is_fifo() {
        true => vec![received],
        false => split(received, rule.batch),
    };
    for batch in batches {
        // Bytes may have made more batches of them than there are permits.
        let permit = match permits.next() {
            Some(permit) => permit,
            None => function.lane.admit_background().await,
        };
        let slot = Slot::take(in_flight);
        let (worker, function) = (Arc::clone(worker), Arc::clone(&function));
        let token = feeds.running.token();
        feeds.cores.spawn(|load| async move {
            let _held = (load, token, slot);
            worker.work(function, permit, batch).await;
        });
    }
    Look::Now
}

/// When there is something again.
fn until(next: Option<Duration>) -> Look {
    Look::In(next.map_or(REST, |next| next.clamp(Duration::from_millis(1), LOOK)))
}

/// How long what is received is hidden: as its queue says, and as long at least as the
/// function may take.
pub(crate) fn hidden(function: &Function, visibility: Duration) -> Duration {
    visibility.max(function.version.common.spec.limits.timeout + SETTLING)
}

/// Waits until a batch is full or its window is over.
async fn gather(feeds: &Feeds, queue: &QueueName, rule: Rule) {
    let mut arrivals = feeds.queues.arrivals(queue);
    let full = async {
        loop {
            arrivals.mark_unchanged();
            let waiting = feeds.queues.waiting(queue.clone(), rule.batch).await;
            if waiting.is_ok_and(|waiting| waiting >= rule.batch) {
                return;
            }
            sleep(GATHER).await;
            let _ = arrivals.changed().await;
        }
    };
    let _ = timeout(rule.window, full).await;
}

/// Waits for one permit, and takes as many more as are free, up to so many in all. None if
/// there was none for a while.
async fn permits(
    function: &Function,
    queue: &QueueName,
    in_flight: &InFlight,
    breadth: usize,
) -> Vec<Permit> {
    let under_way = in_flight.below(breadth).await;
    let Ok(first) = timeout(PAUSE, function.lane.admit_background()).await else {
        return Vec::new();
    };
    let most = if queue.is_fifo() {
        1
    } else {
        breadth - under_way
    };
    let more = std::iter::from_fn(|| function.lane.try_admit_background());
    std::iter::once(first).chain(more.take(most - 1)).collect()
}

/// Batches of so many messages, none too large for a handler.
fn split(received: Vec<Delivery>, most: usize) -> Vec<Vec<Delivery>> {
    let mut batches: Vec<Vec<Delivery>> = Vec::new();
    let mut bytes = 0;
    for delivery in received {
        bytes += delivery.message.body.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < most && bytes as u64 <= MAX_RECEIVED => {
                batch.push(delivery)
            }
            _ => {
                bytes = delivery.message.body.len();
                batches.push(vec![delivery]);
            }
        }
    }
    batches
}

fn failed(feeds: &Feeds, queue: &QueueName, error: &QueueError) -> Look {
    match error {
        // It may be made again.
        QueueError::Unknown(_) => Look::In(LOOK),
        // The host says so itself, and ends.
        QueueError::Write(WriteError::Broken(_)) => Look::In(LOOK),
        // The host says so itself, once.
        QueueError::Write(WriteError::Full) => Look::In(PAUSE),
        _ => {
            let message = format!("the queue {queue} cannot be read now: {error}");
            feeds.telemetry.log.host(Level::Warn, &message);
            Look::In(PAUSE)
        }
    }
}

/// Settles until it is done: a disk that is full may have room again.
///
/// # Errors
/// If a queue is gone to which something is sent, or the store is broken.
pub(super) async fn settle(
    queues: &dyn QueueStore,
    unsettled: &Unsettled,
    settlements: Vec<(Receipt, Settlement)>,
    sends: Vec<(QueueName, NewMessage)>,
) -> Result<Vec<Settled>, QueueError> {
    let mut waits = None;
    loop {
        match queues.settle(settlements.clone(), sends.clone()).await {
            Err(QueueError::Write(WriteError::Full)) => {
                waits.get_or_insert_with(|| Waits::on(unsettled));
                sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Lambda's back-off for what is no fault of the event: a second, doubled each time, up to
/// five minutes.
pub(super) fn back_off(releases: u32) -> Duration {
    let seconds = 1_u64 << releases.min(9);
    later(Duration::from_secs(seconds.min(300)))
}

/// Up to a fifth longer, so that what failed together does not come back together.
pub(super) fn later(delay: Duration) -> Duration {
    let mut random = [0];
    // Without randomness it comes back together.
    let _ = getrandom::fill(&mut random);
    delay + delay * u32::from(random[0]) / 1280
}
