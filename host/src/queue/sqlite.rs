//! The queue of a single machine: SQLite, in `queue.db` of the state directory.
//!
//! Each operation is one piece of a commit ([`crate::store`]). A message is a row, and moves
//! from queue to queue by one column, so it is never in two and never in none. `visible`
//! says from when on it may be received, whether it is delayed, hidden or waits for a
//! retry: one index answers who is next.
//!
//! In FIFO queues the groups are what is received: each has a row in `lane` that says from
//! when on its first message may come, which is when nothing of the group is in flight.

mod delivery;
mod marks;
mod overview;
mod rows;
mod schema;
mod sending;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::receipt::ReceiptKey;
use super::{
    Answer, Delivery, Depth, Glance, Held, Mark, MarkName, Message, NewMessage, Owner, QueueError,
    QueueInfo, QueueName, QueueSettings, QueueStore, Receipt, Sent, Settled, Settlement, Step,
    Stepped,
};
use crate::store::{Clock, Disk, Moment, OpenError, StoreMetrics, Writer};
use delivery::{receive, settle};
use rows::{COLUMNS, Counts, Queue, Stored, json, json_at, name_at};
use sending::{refresh_lane, send};

/// The file in the state directory.
pub const FILE_NAME: &str = "queue.db";

/// Queues at most: what a client could fill the disk with otherwise.
const MAX_QUEUES: i64 = 10_000;
/// Rows of one operation that walks over many: others wait for no more than these.
const CHUNK: u64 = 1000;

/// Bytes of messages that are looked at in one go.
const MAX_PEEKED: i64 = 4 << 20;

/// What an operation comes to: what it refuses is no failure of the store.
type Done<T> = rusqlite::Result<Result<T, QueueError>>;

/// The queues of this machine.
pub struct SqliteQueues {
    writer: Writer,
    reader: Arc<Mutex<Connection>>,
    key: ReceiptKey,
    clock: Arc<dyn Clock>,
    /// Where look-ups wait for the disk: never on a core's few threads, which files may hold.
    blocking: Handle,
    /// Who waits for messages, by queue.
    waiters: Mutex<BTreeMap<QueueName, watch::Sender<()>>>,
}

impl SqliteQueues {
    /// Opens the queues, and gives back what the host held when it ended. Also answers the
    /// writer's thread, which ends when this is dropped and all is written.
    ///
    /// # Errors
    /// If the file cannot be opened.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<(Self, JoinHandle<()>), OpenError> {
        schema::keep_older(path)?;
        let mut key = [0; 32];
        let (writer, thread) = Writer::open(path, Arc::clone(&clock), |connection| {
            schema::migrate(connection)?;
            key = schema::receipt_key(connection)?;
            schema::give_back(connection)
        })?;
        let queues = Self {
            reader: Arc::new(Mutex::new(writer.reader()?)),
            writer,
            key: ReceiptKey::new(key),
            clock,
            blocking: Handle::current(),
            waiters: Mutex::default(),
        };
        Ok((queues, thread))
    }

    /// What signs the receipts.
    #[must_use]
    pub fn receipt_key(&self) -> &ReceiptKey {
        &self.key
    }

    fn waiters(&self) -> MutexGuard<'_, BTreeMap<QueueName, watch::Sender<()>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who waits for messages of these queues.
    fn arrived<'a>(&self, queues: impl IntoIterator<Item = &'a QueueName>) {
        let waiters = self.waiters();
        for queue in queues {
            if let Some(arrivals) = waiters.get(queue) {
                arrivals.send_replace(());
            }
        }
    }

    /// What is counted of the store.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        self.writer.metrics()
    }

    /// How the disk is, and when that changes.
    #[must_use]
    pub fn disk(&self) -> watch::Receiver<Disk> {
        self.writer.disk()
    }

    /// Waits until the disk has failed, and says how.
    pub async fn broken(&self) -> String {
        self.writer.broken().await
    }

    async fn write<T: Send + 'static>(
        &self,
        operate: impl FnOnce(&Connection, Moment) -> Done<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.writer.write(operate).await?
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let reader = Arc::clone(&self.reader);
        let looked = self
            .blocking
            .spawn_blocking(move || look(&reader.lock().unwrap_or_else(PoisonError::into_inner)));
        let broken = |error: String| QueueError::Write(crate::store::WriteError::Broken(error));
        let looked = looked.await.map_err(|error| broken(error.to_string()))?;
        looked.map_err(|error| broken(error.to_string()))?
    }

    /// Walks over many rows, a piece at a time.
    async fn in_pieces(
        &self,
        most: u64,
        piece: impl Fn(&Connection, Moment, u64) -> Done<u64> + Clone + Send + 'static,
    ) -> Result<u64, QueueError> {
        let mut all = 0;
        while all < most {
            let (piece, room) = (piece.clone(), CHUNK.min(most - all));
            let done = self
                .write(move |connection, at| piece(connection, at, room))
                .await?;
            all += done;
            if done < room {
                break;
            }
        }
        Ok(all)
    }
}

impl QueueStore for SqliteQueues {
    fn put(&self, queues: Vec<(QueueName, QueueSettings)>, owner: Owner) -> Answer<'_, ()> {
        Box::pin(self.write(move |connection, at| put(connection, at, &queues, owner)))
    }

    fn delete(&self, name: QueueName) -> Answer<'_, ()> {
        Box::pin(async move {
            let id = self
                .write(move |connection, _| delete(connection, &name))
                .await?;
            // Nobody sees them any more; should the host end here, the next start goes on.
            self.in_pieces(u64::MAX, move |connection, _, room| {
                schema::drop_rows(connection, id, i64::MAX, room).map(Ok)
            })
            .await?;
            Ok(())
        })
    }

    fn delete_if_empty(&self, name: QueueName) -> Answer<'_, bool> {
        Box::pin(self.write(move |connection, _| {
            // In the operation that deletes it: nothing can come in between.
            let Some(queue) = Queue::find(connection, &name)? else {
                return Ok(Err(QueueError::Unknown(name)));
            };
            if queue.messages > 0 {
                return Ok(Ok(false));
            }
            Ok(delete(connection, &name)?.map(|_| true))
        }))
    }

    fn info(&self, name: QueueName) -> Answer<'_, QueueInfo> {
        Box::pin(self.read(move |connection| info(connection, name)))
    }

    fn list(&self) -> Answer<'_, Vec<QueueInfo>> {
        Box::pin(self.read(|connection| all(connection).map(Ok)))
    }

    fn send(
        &self,
        queue: QueueName,
        messages: Vec<NewMessage>,
    ) -> Answer<'_, Vec<Result<Sent, QueueError>>> {
        Box::pin(async move {
            let name = queue.clone();
            let sent = self
                .write(move |connection, at| send(connection, at, &name, messages))
                .await?;
            self.arrived([&queue]);
            Ok(sent)
        })
    }

    fn arrivals(&self, queue: &QueueName) -> watch::Receiver<()> {
        let mut waiters = self.waiters();
        // Those that nobody waits for any more go when others come.
        waiters.retain(|_, arrivals| arrivals.receiver_count() > 0);
        let arrivals = waiters.entry(queue.clone()).or_default();
        arrivals.subscribe()
    }

    fn receive(
        &self,
        queue: QueueName,
        most: usize,
        visibility: Option<Duration>,
        held: Held,
    ) -> Answer<'_, Vec<Delivery>> {
        Box::pin(async move {
            let (received, dead_letters) = self
                .write(move |connection, at| {
                    receive(connection, at, &queue, most, visibility, held)
                })
                .await?;
            self.arrived(&dead_letters);
            Ok(received)
        })
    }

    fn settle(
        &self,
        settlements: Vec<(Receipt, Settlement)>,
        sends: Vec<(QueueName, NewMessage)>,
    ) -> Answer<'_, Vec<Settled>> {
        Box::pin(async move {
            let (settled, touched) = self
                .write(move |connection, at| settle(connection, at, settlements, sends))
                .await?;
            self.arrived(&touched);
            Ok(settled)
        })
    }

    fn peek(&self, queue: QueueName, most: usize) -> Answer<'_, Vec<Message>> {
        Box::pin(self.read(move |connection| peek(connection, &queue, most)))
    }

    fn purge(&self, queue: QueueName) -> Answer<'_, u64> {
        Box::pin(async move {
            let (id, last) = self
                .write(move |connection, _| {
                    let Some(queue) = Queue::find(connection, &queue)? else {
                        return Ok(Err(QueueError::Unknown(queue)));
                    };
                    let last = "SELECT coalesce(max(sequence), 0) FROM message";
                    let last: i64 = connection.query_row(last, [], |row| row.get(0))?;
                    Ok(Ok((queue.id, last)))
                })
                .await?;
            self.in_pieces(u64::MAX, move |connection, _, room| {
                schema::drop_rows(connection, id, last, room).map(Ok)
            })
            .await
        })
    }

    fn redrive(&self, dead_letters: QueueName, most: u64) -> Answer<'_, u64> {
        Box::pin(async move {
            // Those that are there now: what fails again meanwhile waits for the next time.
            let most = most.min(self.depth(dead_letters.clone()).await?.messages);
            let redriven = self.in_pieces(most, move |connection, at, room| {
                redrive(connection, at, &dead_letters, room)
            });
            let redriven = redriven.await?;
            let all: Vec<QueueName> = self.waiters().keys().cloned().collect();
            self.arrived(&all);
            Ok(redriven)
        })
    }

    fn depth(&self, queue: QueueName) -> Answer<'_, Depth> {
        let wall = self.clock.wall();
        Box::pin(self.read(move |connection| depth(connection, &queue, wall)))
    }

    fn overview(&self, most: usize) -> Answer<'_, Vec<Glance>> {
        // Not that of the last commit: a queue that nobody touches ages too.
        let age = self.writer.age();
        Box::pin(self.read(move |connection| overview::overview(connection, age, most).map(Ok)))
    }

    fn failure(&self) -> Option<String> {
        self.writer.failure()
    }

    fn next(&self, queue: QueueName) -> Answer<'_, Option<Duration>> {
        Box::pin(self.write(move |connection, at| next(connection, at, &queue)))
    }

    fn waiting(&self, queue: QueueName, most: usize) -> Answer<'_, usize> {
        Box::pin(self.write(move |connection, at| waiting(connection, at, &queue, most)))
    }

    fn marks(&self, marks: Vec<(MarkName, String)>, begin: i64) -> Answer<'_, Vec<Mark>> {
        Box::pin(self.write(move |connection, _| marks::keep(connection, begin, &marks).map(Ok)))
    }

    fn step(&self, mark: MarkName, step: Step) -> Answer<'_, Stepped> {
        Box::pin(async move {
            let target = step.send.as_ref().map(|(queue, _)| queue.clone());
            let stepped = self
                .write(move |connection, at| marks::step(connection, at, &mark, step))
                .await?;
            self.arrived(&target);
            Ok(stepped)
        })
    }
}

fn put(
    connection: &Connection,
    at: Moment,
    queues: &[(QueueName, QueueSettings)],
    owner: Owner,
) -> Done<()> {
    for (name, settings) in queues {
        if let Some((key, problem)) = settings.problem(name)
            && !name.is_internal()
        {
            let what = format!("`{key}` of the queue `{name}`: {problem}");
            return Ok(Err(QueueError::Refused(what)));
        }
        if let Some(redrive) = &settings.redrive
            && !queues.iter().any(|(other, _)| *other == redrive.target)
            && Queue::find(connection, &redrive.target)?.is_none()
        {
            return Ok(Err(QueueError::Unknown(redrive.target.clone())));
        }
    }
    let mut count: i64 =
        connection.query_row("SELECT count(*) FROM queue", [], |row| row.get(0))?;
    for (name, _) in queues {
        count += i64::from(Queue::find(connection, name)?.is_none());
    }
    if count > MAX_QUEUES {
        let what = format!("there would be {count} queues, and there may be {MAX_QUEUES}");
        return Ok(Err(QueueError::Refused(what)));
    }
    for (name, settings) in queues {
        // What is as it was is not written: a start without changes waits for no disk.
        connection.execute(
            "INSERT INTO queue (name, settings, owner, created, modified)
             VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (name) DO UPDATE SET settings = excluded.settings,
                 owner = excluded.owner, modified = excluded.modified
             WHERE settings != excluded.settings OR owner != excluded.owner",
            params![name.as_str(), json(settings)?, owner as i64, at.now],
        )?;
    }
    Ok(Ok(()))
}

fn delete(connection: &Connection, name: &QueueName) -> Done<i64> {
    let Some(queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    let sources: Vec<String> = all(connection)?
        .into_iter()
        .filter(|info| {
            info.settings
                .redrive
                .as_ref()
                .is_some_and(|r| r.target == *name)
        })
        .map(|info| format!("`{}`", info.name))
        .collect();
    if !sources.is_empty() {
        let why = format!("it has the dead letters of {}", sources.join(", "));
        return Ok(Err(QueueError::InUse(name.clone(), why)));
    }
    connection.execute("DELETE FROM queue WHERE id = ?1", [queue.id])?;
    Ok(Ok(queue.id))
}

fn info(connection: &Connection, name: QueueName) -> Done<QueueInfo> {
    let info = connection
        .prepare_cached(&format!("SELECT {INFO} FROM queue WHERE name = ?1"))?
        .query_row([name.as_str()], info_of)
        .optional()?;
    Ok(info.ok_or(QueueError::Unknown(name)))
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<QueueInfo>> {
    let text = format!("SELECT {INFO} FROM queue ORDER BY name");
    let mut statement = connection.prepare_cached(&text)?;
    statement.query_map([], info_of)?.collect()
}

/// What is read of a queue for who asks about it.
const INFO: &str = "name, settings, owner, created, modified";

fn info_of(row: &Row<'_>) -> rusqlite::Result<QueueInfo> {
    Ok(QueueInfo {
        name: name_at(row, 0)?,
        settings: json_at(row, 1)?,
        owner: match row.get::<_, i64>(2)? {
            0 => Owner::Manifest,
            1 => Owner::Api,
            _ => Owner::Host,
        },
        created: row.get(3)?,
        modified: row.get(4)?,
    })
}

fn peek(connection: &Connection, name: &QueueName, most: usize) -> Done<Vec<Message>> {
    let Some(queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    let text = format!(
        "SELECT {COLUMNS} FROM message WHERE queue = ?1 ORDER BY visible, sequence LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&text)?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = statement.query_map([queue.id, most], Stored::of)?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    for row in rows {
        let stored = row?;
        bytes += stored.size;
        // The first is shown however large it is.
        if bytes > MAX_PEEKED && !messages.is_empty() {
            break;
        }
        messages.push(stored.message);
    }
    Ok(Ok(messages))
}

fn redrive(connection: &Connection, at: Moment, name: &QueueName, most: u64) -> Done<u64> {
    let now = at.now;
    let Some(queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    let mut statement = connection.prepare_cached(
        "SELECT m.sequence, m.size, m.grp, q.id FROM message m JOIN queue q ON q.name = m.source
         WHERE m.queue = ?1 AND m.source IS NOT NULL AND (m.held = 0 OR m.visible <= ?2)
         ORDER BY m.visible, m.sequence LIMIT ?3",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = statement.query_map([queue.id, now, most], |row| {
        let (sequence, size): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (group, source): (Option<String>, i64) = (row.get(2)?, row.get(3)?);
        Ok((sequence, size, group, source))
    })?;
    let letters: rusqlite::Result<Vec<_>> = rows.collect();
    let mut moved = 0;
    let mut counts = Counts::default();
    for (sequence, size, group, source) in letters? {
        let Some(source) = Queue::get(connection, source)? else {
            continue;
        };
        connection
            .prepare_cached(
                "UPDATE message SET queue = ?2, visible = ?3, expires = ?4, receives = 0,
                     first_received = NULL, held = 0, round = round + 1, source = NULL, reason = NULL,
                     born = ?5, depth = 0, releases = 0
                 WHERE sequence = ?1",
            )?
            .execute([sequence, source.id, now, source.expires(at), at.age])?;
        counts.add(queue.id, -1, -size);
        counts.add(source.id, 1, size);
        if let Some(group) = group {
            refresh_lane(connection, queue.id, &group)?;
            refresh_lane(connection, source.id, &group)?;
        }
        moved += 1;
    }
    counts.write(connection)?;
    Ok(Ok(moved))
}

fn depth(connection: &Connection, name: &QueueName, wall: i64) -> Done<Depth> {
    let Some(queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    // As a receive would see it.
    let now = schema::last_commit(connection)?.max(wall);
    let hidden = |text: &str| -> rusqlite::Result<i64> {
        connection
            .prepare_cached(text)?
            .query_row([queue.id, now], |row| row.get(0))
    };
    let in_flight =
        hidden("SELECT count(*) FROM message WHERE queue = ?1 AND visible > ?2 AND held != 0")?;
    let delayed =
        hidden("SELECT count(*) FROM message WHERE queue = ?1 AND visible > ?2 AND held = 0")?;
    Ok(Ok(Depth {
        messages: queue.messages,
        bytes: queue.bytes,
        in_flight: in_flight.unsigned_abs(),
        delayed: delayed.unsigned_abs(),
    }))
}

fn next(connection: &Connection, at: Moment, name: &QueueName) -> Done<Option<Duration>> {
    let Some(queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    let text = if queue.name.is_fifo() {
        "SELECT min(visible) FROM lane WHERE queue = ?1"
    } else {
        "SELECT min(visible) FROM message WHERE queue = ?1"
    };
    let next: Option<i64> = connection
        .prepare_cached(text)?
        .query_row([queue.id], |row| row.get(0))?;
    let left = |next: i64| Duration::from_millis(next.saturating_sub(at.now).max(0).unsigned_abs());
    Ok(Ok(next.map(left)))
}

fn waiting(connection: &Connection, at: Moment, name: &QueueName, most: usize) -> Done<usize> {
    let Some(queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    let text = if queue.name.is_fifo() {
        "SELECT count(*) FROM (SELECT 1 FROM lane l JOIN message m ON m.queue = l.queue AND
             m.grp = l.grp WHERE l.queue = ?1 AND l.visible <= ?2 AND m.visible <= ?2 LIMIT ?3)"
    } else {
        "SELECT count(*) FROM (SELECT 1 FROM message WHERE queue = ?1 AND visible <= ?2 LIMIT ?3)"
    };
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let waiting: i64 = connection
        .prepare_cached(text)?
        .query_row([queue.id, at.now, most], |row| row.get(0))?;
    Ok(Ok(usize::try_from(waiting).unwrap_or(0)))
}

#[cfg(test)]
mod tests;
