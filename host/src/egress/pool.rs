//! The connections of one function.
//!
//! Who needs a connection first waits for a ticket, of which there are as many as there may
//! be connections: whoever came first gets the next one. With it, one that rests is taken, or
//! one is opened, for which another that rests is closed if there are too many, and for which
//! there must be room on the host ([`Room`]). A connection of HTTP/1.1 serves one request at a
//! time, which holds the ticket until its answer is read, and rests between. One of HTTP/2
//! holds a ticket for itself, and serves all requests for its host at once, which need none.

mod lease;
mod room;
mod tasks;
mod usage;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use tokio::runtime::{Handle, Id};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep_until, timeout_at};

use super::connect::Opened;
use super::{Error, Outgoing};
use crate::function::egress::Target;
pub(super) use lease::{Lease, Unsent};
pub(super) use room::Room;
use room::{Entry, Open};
use tasks::Tasks;
use usage::{Usage, Using};

/// How long a connection rests: less than the 60 s after which most servers and load
/// balancers close theirs.
pub(super) const REST: Duration = Duration::from_secs(30);
/// How long a connection may take to be ready for another request, once its answer is read:
/// the rest of a request's body may still be on its way. It breaks off then.
const SETTLE: Duration = Duration::from_secs(5);
/// The head of an answer, and what is read at once: as much as the host takes of a request.
const MAX_HEAD: usize = 64 << 10;
/// hyper's default, and Apache's.
const MAX_HEADERS: usize = 100;
/// What one answer of HTTP/2 may send before it is read.
const STREAM_WINDOW: u32 = 64 << 10;
/// What all answers of a connection may: thirty-two that nobody reads stop the others.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// What is kept of a request's body for a stream that takes no more.
const SEND_BUFFER: usize = 64 << 10;
/// An HTTP/2 connection that says nothing for so long is asked whether it is there, and has
/// as long to answer.
const PING: Duration = Duration::from_secs(20);

/// Connections, by whom they lead to.
pub(super) struct Pool {
    state: Mutex<State>,
    tickets: Arc<Semaphore>,
    /// How many tickets there are.
    most: usize,
    room: Arc<Room>,
    /// There is a connection that several may use, or one that nobody uses any more.
    changed: Notify,
    gauge: IntGauge,
}

#[derive(Default)]
struct State {
    resting: HashMap<Target, Vec<Resting>>,
    shared: HashMap<Target, Shared>,
    /// Connections that are open, or about to be.
    open: usize,
}

/// A connection of HTTP/1.1 that rests.
struct Resting {
    connection: Http1,
    since: Instant,
}

/// A connection of HTTP/1.1.
struct Http1 {
    id: u64,
    /// The runtime that drives it.
    home: Id,
    sender: http1::SendRequest<Outgoing>,
    usage: Arc<Usage>,
}

/// A connection of HTTP/2.
#[derive(Clone)]
struct Shared {
    id: u64,
    sender: http2::SendRequest<Outgoing>,
    usage: Arc<Usage>,
}

/// Room for a connection, for as long as this lives.
pub(super) struct Slot {
    /// Of a connection of HTTP/1.1, its request has it.
    ticket: Option<OwnedSemaphorePermit>,
    /// There once there is room on the host.
    room: Option<OwnedSemaphorePermit>,
    /// Of the function, whose next version has it too: the pool may be gone before.
    gauge: IntGauge,
    pool: Weak<Pool>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.room.is_some() {
            self.gauge.dec();
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.state().open -= 1;
        }
    }
}

/// What there is for who needs a connection.
pub(super) enum Found {
    /// One that was used before.
    Connection(Lease),
    /// Room to open one.
    Room(Slot),
}

impl Pool {
    pub(super) fn new(connections: usize, room: Arc<Room>, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            tickets: Arc::new(Semaphore::new(connections)),
            most: connections,
            room,
            changed: Notify::new(),
            gauge,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the target, or room for one. `fresh` wants none that was used before.
    pub(super) async fn find(
        self: &Arc<Self>,
        target: &Target,
        fresh: bool,
        by: Instant,
    ) -> Result<Found, Error> {
        // One place in the queue, however often it looks in between.
        let mut ticket = pin!(Arc::clone(&self.tickets).acquire_owned());
        let ticket = loop {
            // From before the look: what comes right after it is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if !fresh && let Some(lease) = self.take_shared(target) {
                return Ok(Found::Connection(lease));
            }
            tokio::select! {
                biased;
                ticket = &mut ticket => break ticket.expect("it is never closed"),
                () = async {
                    // Somebody else needs its ticket.
                    self.close_unused();
                    changed.await;
                } => {}
                () = sleep_until(by.into()) => return Err(Error::Limit),
            }
        };
        if !fresh {
            // It may have come while we waited.
            if let Some(lease) = self.take_shared(target) {
                return Ok(Found::Connection(lease));
            }
            if let Some(connection) = self.take_resting(target) {
                let lease = Lease::own(self, target, connection, ticket, true);
                return Ok(Found::Connection(lease));
            }
        }
        let mut slot = self.slot(ticket);
        let give_way = || self.close_oldest() || self.close_unused();
        let room = timeout_at(by.into(), self.room.take(give_way)).await;
        slot.room = Some(room.map_err(|_| Error::Limit)?);
        slot.gauge.inc();
        Ok(Found::Room(slot))
    }

    /// Room among the function's own connections, for which one that rests is closed if there
    /// are as many as there may be.
    fn slot(self: &Arc<Self>, ticket: OwnedSemaphorePermit) -> Slot {
        let open = {
            let mut state = self.state();
            state.open += 1;
            state.open
        };
        if open > self.most {
            self.close_oldest();
        }
        Slot {
            ticket: Some(ticket),
            room: None,
            gauge: self.gauge.clone(),
            pool: Arc::downgrade(self),
        }
    }

    /// A connection of HTTP/2.
    fn take_shared(self: &Arc<Self>, target: &Target) -> Option<Lease> {
        let mut state = self.state();
        let shared = state.shared.get(target)?;
        if shared.sender.is_closed() {
            state.shared.remove(target);
            return None;
        }
        let shared = shared.clone();
        drop(state);
        Some(Lease::shared(self, target, shared, true))
    }

    /// A connection of HTTP/1.1 that rests; one of this core first.
    fn take_resting(&self, target: &Target) -> Option<Http1> {
        let mut state = self.state();
        let resting = state.resting.get_mut(target)?;
        // Those that are closed already go: their drivers look after the rest.
        let closed = |it: &Resting| it.connection.sender.is_closed();
        resting.retain(|it| !closed(it) && it.since.elapsed() < REST);
        let home = Handle::try_current().ok().map(|handle| handle.id());
        let near = resting
            .iter()
            .rposition(|it| Some(it.connection.home) == home);
        let index = near.or_else(|| resting.len().checked_sub(1));
        let taken = index.map(|index| resting.remove(index));
        if resting.is_empty() {
            state.resting.remove(target);
        }
        taken.map(|it| it.connection)
    }

    /// Closes the connection of HTTP/1.1 that has rested longest, whoever it leads to.
    /// Whether there is one.
    fn close_oldest(&self) -> bool {
        let mut state = self.state();
        let oldest = state
            .resting
            .iter()
            .filter_map(|(target, all)| Some((target, all.first()?.since)))
            .min_by_key(|(_, since)| *since);
        let Some((target, _)) = oldest else {
            return false;
        };
        let target = target.clone();
        let all = state.resting.get_mut(&target).expect("it was just there");
        all.remove(0);
        if all.is_empty() {
            state.resting.remove(&target);
        }
        true
    }

    /// Closes a connection of HTTP/2 that nobody uses. Whether there is one.
    fn close_unused(&self) -> bool {
        let mut state = self.state();
        let unused = state.shared.iter().find(|(_, it)| it.usage.is_resting());
        let Some((target, _)) = unused else {
            return false;
        };
        let target = target.clone();
        state.shared.remove(&target);
        true
    }

    /// Nobody uses a connection of HTTP/2 any more: somebody else may need its ticket, or its
    /// room.
    fn rests_unused(&self) {
        self.changed.notify_waiters();
        if self.room.is_short() {
            self.close_unused();
        }
    }

    /// Speaks HTTP on a connection that was opened, and drives it on this core.
    pub(super) async fn begin(
        self: &Arc<Self>,
        target: &Target,
        opened: Opened,
        slot: Slot,
        by: Instant,
    ) -> Result<Lease, Error> {
        let begin = self.begin_in_any_time(target, opened, slot);
        let begun = timeout_at(by.into(), begin).await;
        begun.map_err(|_| Error::ConnectTimeout)?
    }

    async fn begin_in_any_time(
        self: &Arc<Self>,
        target: &Target,
        opened: Opened,
        mut slot: Slot,
    ) -> Result<Lease, Error> {
        let Opened { stream, is_http2 } = opened;
        let ticket = match is_http2 {
            true => None,
            false => slot.ticket.take(),
        };
        let io = TokioIo::new(stream);
        let told = match is_http2 {
            true => Arc::downgrade(self),
            false => Weak::new(),
        };
        let usage = Usage::new(told);
        let entry = self.room.enter(Open {
            usage: Arc::clone(&usage),
            pool: Arc::downgrade(self),
            target: target.clone(),
        });
        let id = entry.id();
        let (tasks, starter) = is_http2.then(Tasks::new).unzip();
        let driver = Driver {
            target: target.clone(),
            entry,
            usage: Arc::clone(&usage),
            pool: Arc::downgrade(self),
            tasks,
            slot,
        };
        if let Some(starter) = starter {
            let (sender, connection) = http2::Builder::new(starter)
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(MAX_HEAD as u32)
                .max_send_buf_size(SEND_BUFFER)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .handshake(io)
                .await?;
            let shared = Shared { id, sender, usage };
            let lease = Lease::shared(self, target, shared.clone(), false);
            // Several may have been opened at once: the first is kept.
            let mut state = self.state();
            let first = state
                .shared
                .get(target)
                .is_none_or(|it| it.sender.is_closed());
            if first {
                state.shared.insert(target.clone(), shared);
            }
            drop(state);
            tokio::spawn(driver.drive(connection));
            if first {
                self.changed.notify_waiters();
            }
            return Ok(lease);
        }
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake(io)
            .await?;
        let home = Handle::current().id();
        let lease = {
            let using = Using::of(&usage);
            tokio::spawn(driver.drive(connection));
            sender.ready().await?;
            drop(using);
            let connection = Http1 {
                id,
                home,
                sender,
                usage,
            };
            let ticket = ticket.expect("room for a connection has a ticket");
            Lease::own(self, target, connection, ticket, false)
        };
        Ok(lease)
    }

    fn rests(&self, target: Target, connection: Http1) {
        let since = Instant::now();
        let id = connection.id;
        let resting = Resting { connection, since };
        self.state()
            .resting
            .entry(target.clone())
            .or_default()
            .push(resting);
        // Only now: who begins to wait after this look finds it.
        if self.room.is_short() {
            self.forget(&target, id);
        }
    }

    /// Nobody gets this connection any more; if nobody has it, it closes. Whether it was there
    /// to get.
    fn forget(&self, target: &Target, id: u64) -> bool {
        let mut state = self.state();
        if state.shared.get(target).is_some_and(|it| it.id == id) {
            state.shared.remove(target);
            return true;
        }
        let Some(resting) = state.resting.get_mut(target) else {
            return false;
        };
        let before = resting.len();
        resting.retain(|it| it.connection.id != id);
        let was_there = resting.len() < before;
        if resting.is_empty() {
            state.resting.remove(target);
        }
        was_there
    }
}

/// What a connection's driver knows of it.
struct Driver {
    target: Target,
    entry: Entry,
    usage: Arc<Usage>,
    pool: Weak<Pool>,
    /// Of a connection of HTTP/2.
    tasks: Option<Tasks>,
    slot: Slot,
}

impl Driver {
    /// Drives a connection until it ends, or has rested long enough.
    async fn drive(self, connection: impl Future<Output = hyper::Result<()>>) {
        let Self {
            target,
            entry,
            usage,
            pool,
            tasks,
            slot,
        } = self;
        until_it_ends(connection, &usage).await;
        if let Some(pool) = pool.upgrade() {
            pool.forget(&target, entry.id());
        }
        drop(entry);
        if let Some(tasks) = tasks {
            tasks.end().await;
        }
        // Not before it is closed.
        drop(slot);
    }
}

async fn until_it_ends(connection: impl Future<Output = hyper::Result<()>>, usage: &Usage) {
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            // Who has a request on it is told by it what went wrong.
            _ = &mut connection => return,
            () = usage.ended.notified() => return,
            () = sleep_until(usage.ends().into()) => {
                if usage.is_resting() && usage.ends() <= Instant::now() {
                    return;
                }
            }
        }
    }
}
