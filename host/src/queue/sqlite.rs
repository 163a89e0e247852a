//! The queue of a single machine: SQLite, in `queue.db` of the state directory.
//!
//! Each operation is one piece of a commit ([`crate::store`]). A message is a row, and moves
//! from queue to queue by one column, so it is never in two and never in none. `visible`
//! says from when on it may be received, whether it is delayed, hidden or waits for a
//! retry: one index answers who is next.
//!
//! In FIFO queues the groups are what is received: each has a row in `lane` that says from
//! when on its first message may come, which is when nothing of the group is in flight.

mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use super::message::{Attributes, Dead};
use super::receipt::ReceiptKey;
use super::{
    Answer, Delivery, Depth, Held, Message, NewMessage, Owner, QueueError, QueueInfo, QueueName,
    QueueSettings, QueueStore, Receipt, Sent, Settled, Settlement,
};
use crate::hex::hex;
use crate::store::{Clock, Moment, OpenError, Writer};

/// SQS: for so long a message with the same deduplication id is taken for the same.
const DEDUPLICATION: Duration = Duration::from_mins(5);
/// Queues at most: what a client could fill the disk with otherwise.
const MAX_QUEUES: i64 = 10_000;
/// Rows of one operation that walks over many: others wait for no more than these.
const CHUNK: u64 = 1000;

/// What an operation comes to: what it refuses is no failure of the store.
type Done<T> = rusqlite::Result<Result<T, QueueError>>;

/// The queues of this machine.
pub struct SqliteQueues {
    writer: Writer,
    reader: Arc<Mutex<Connection>>,
    key: ReceiptKey,
    clock: Arc<dyn Clock>,
    /// Who waits for messages, by queue.
    waiting: Mutex<BTreeMap<QueueName, watch::Sender<()>>>,
}

impl SqliteQueues {
    /// Opens the queues, and gives back what the host held when it ended. Also answers the
    /// writer's thread, which ends when this is dropped and all is written.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<(Self, JoinHandle<()>), OpenError> {
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
            waiting: Mutex::default(),
        };
        Ok((queues, thread))
    }

    /// What signs the receipts.
    #[must_use]
    pub fn receipt_key(&self) -> &ReceiptKey {
        &self.key
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<QueueName, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who waits for messages of these queues.
    fn arrived<'a>(&self, queues: impl IntoIterator<Item = &'a QueueName>) {
        let waiting = self.waiting();
        for queue in queues {
            if let Some(arrivals) = waiting.get(queue) {
                arrivals.send_replace(());
            }
        }
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
        let looked = tokio::task::spawn_blocking(move || {
            look(&reader.lock().unwrap_or_else(PoisonError::into_inner))
        });
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
            self.in_pieces(u64::MAX, move |connection, at, room| {
                schema::drop_rows(connection, at.now, id, i64::MAX, room).map(Ok)
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

    fn list(&self) -> Answer<'_, Vec<QueueInfo>> {
        Box::pin(self.read(list))
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
        let mut waiting = self.waiting();
        // Those that nobody waits for any more go when others come.
        waiting.retain(|_, arrivals| arrivals.receiver_count() > 0);
        let arrivals = waiting.entry(queue.clone()).or_default();
        arrivals.subscribe()
    }

    fn receive(
        &self,
        queue: QueueName,
        most: usize,
        visibility: Option<Duration>,
        held: Held,
    ) -> Answer<'_, Vec<Delivery>> {
        Box::pin(
            self.write(move |connection, at| {
                receive(connection, at, &queue, most, visibility, held)
            }),
        )
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
            self.in_pieces(u64::MAX, move |connection, at, room| {
                schema::drop_rows(connection, at.now, id, last, room).map(Ok)
            })
            .await
        })
    }

    fn redrive(&self, dead_letters: QueueName, most: u64) -> Answer<'_, u64> {
        Box::pin(async move {
            let redriven = self.in_pieces(most, move |connection, at, room| {
                redrive(connection, at, &dead_letters, room)
            });
            let redriven = redriven.await?;
            let all: Vec<QueueName> = self.waiting().keys().cloned().collect();
            self.arrived(&all);
            Ok(redriven)
        })
    }

    fn depth(&self, queue: QueueName) -> Answer<'_, Depth> {
        let wall = self.clock.wall();
        Box::pin(self.read(move |connection| depth(connection, &queue, wall)))
    }

    fn next(&self, queue: QueueName) -> Answer<'_, Option<i64>> {
        Box::pin(self.read(move |connection| next(connection, &queue)))
    }
}

/// A queue's row.
struct Queue {
    id: i64,
    name: QueueName,
    settings: QueueSettings,
    messages: u64,
    bytes: u64,
}

impl Queue {
    fn find(connection: &Connection, name: &QueueName) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(
                "SELECT id, name, settings, messages, bytes FROM queue WHERE name = ?1",
            )?
            .query_row([name.as_str()], Self::of)
            .optional()
    }

    fn get(connection: &Connection, id: i64) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached("SELECT id, name, settings, messages, bytes FROM queue WHERE id = ?1")?
            .query_row([id], Self::of)
            .optional()
    }

    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: name_at(row, 1)?,
            settings: json_at(row, 2)?,
            messages: row.get::<_, i64>(3)?.unsigned_abs(),
            bytes: row.get::<_, i64>(4)?.unsigned_abs(),
        })
    }

    /// Counts messages that came or went.
    fn count(&self, connection: &Connection, messages: i64, bytes: i64) -> rusqlite::Result<()> {
        count(connection, self.id, messages, bytes)
    }

    /// The limit that one more message of this size would exceed.
    fn has_no_room(&self, size: u64) -> Option<String> {
        let settings = &self.settings;
        if self.messages >= settings.max_messages {
            Some(format!("{} messages", settings.max_messages))
        } else if self.bytes + size > settings.max_bytes {
            Some(format!("{} bytes", settings.max_bytes))
        } else {
            None
        }
    }

    /// The age of the store at which a message that comes now is dropped.
    fn expires(&self, at: Moment) -> i64 {
        at.age.saturating_add(millis(self.settings.retention))
    }
}

fn count(connection: &Connection, queue: i64, messages: i64, bytes: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE queue SET messages = messages + ?2, bytes = bytes + ?3 WHERE id = ?1",
        )?
        .execute([queue, messages, bytes])?;
    Ok(())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

fn name_at(row: &Row<'_>, column: usize) -> rusqlite::Result<QueueName> {
    let name = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| unreadable(column, error))?;
    QueueName::new(name).map_err(|error| unreadable(column, error))
}

fn json_at<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| unreadable(column, error))?;
    serde_json::from_str(text).map_err(|error| unreadable(column, error))
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn put(
    connection: &Connection,
    at: Moment,
    queues: &[(QueueName, QueueSettings)],
    owner: Owner,
) -> Done<()> {
    for (name, settings) in queues {
        if let Some((key, problem)) = settings.problem(name) {
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

fn list(connection: &Connection) -> Done<Vec<QueueInfo>> {
    all(connection).map(Ok)
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<QueueInfo>> {
    let text = "SELECT name, settings, owner, created, modified FROM queue ORDER BY name";
    let mut statement = connection.prepare_cached(text)?;
    let infos = statement.query_map([], |row| {
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
    })?;
    infos.collect()
}

/// What is wrong with a message for a queue.
fn refusal(queue: &Queue, message: &NewMessage) -> Option<String> {
    let (size, most) = (message.size(), queue.settings.max_message);
    if size > most {
        return Some(format!(
            "the message has {size} bytes with its attributes, and the queue `{}` takes {most} at most",
            queue.name
        ));
    }
    if !queue.name.is_fifo() {
        return None;
    }
    if message.group.is_none() {
        return Some(format!(
            "the queue `{}` is FIFO: give the message a group",
            queue.name
        ));
    }
    if message.delay.is_some() {
        return Some(format!(
            "the queue `{}` is FIFO: its messages have no delay of their own",
            queue.name
        ));
    }
    if message.deduplication.is_none() && !queue.settings.content_deduplication {
        return Some(format!(
            "the queue `{}` is FIFO: give the message a deduplication id, or let the queue take \
             the digest of its content",
            queue.name
        ));
    }
    None
}

fn send(
    connection: &Connection,
    at: Moment,
    name: &QueueName,
    messages: Vec<NewMessage>,
) -> Done<Vec<Result<Sent, QueueError>>> {
    let Some(mut queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    if schema::sweep(connection, at, queue.id)? > 0 {
        queue = Queue::find(connection, name)?.unwrap_or(queue);
    }
    let mut sent = Vec::with_capacity(messages.len());
    for message in messages {
        if let Some(refusal) = refusal(&queue, &message) {
            sent.push(Err(QueueError::Refused(refusal)));
            continue;
        }
        let size = message.size();
        if let Some(full) = queue.has_no_room(size) {
            sent.push(Err(QueueError::Full(name.clone(), full)));
            continue;
        }
        sent.push(Ok(insert(connection, at, &queue, message)?));
        queue.messages += 1;
        queue.bytes += size;
    }
    Ok(Ok(sent))
}

fn insert(
    connection: &Connection,
    at: Moment,
    queue: &Queue,
    message: NewMessage,
) -> rusqlite::Result<Sent> {
    let now = at.now;
    let is_fifo = queue.name.is_fifo();
    let size = i64::try_from(message.size()).unwrap_or(i64::MAX);
    let deduplication = message
        .deduplication
        .filter(|_| is_fifo)
        .or_else(|| is_fifo.then(|| hex(&Sha256::digest(&message.body))));
    if let Some(key) = &deduplication
        && let Some(before) = schema::seen(connection, queue.id, key, now)?
    {
        return Ok(before);
    }
    let group = message.group.filter(|_| is_fifo);
    let id = Uuid::new_v4();
    let delay = message.delay.unwrap_or(queue.settings.delay);
    let attributes = match message.attributes.is_empty() {
        true => None,
        false => Some(json(&message.attributes)?),
    };
    connection
        .prepare_cached(
            "INSERT INTO message (queue, id, body, attributes, size, sent, expires, visible, grp,
                 deduplication)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            queue.id,
            id.as_bytes().as_slice(),
            message.body.as_ref(),
            attributes,
            size,
            now,
            queue.expires(at),
            now.saturating_add(millis(delay)),
            group,
            deduplication,
        ])?;
    let sequence = connection.last_insert_rowid();
    let sent = Sent {
        id,
        sequence: sequence.unsigned_abs(),
    };
    queue.count(connection, 1, size)?;
    if let Some(group) = &group {
        refresh_lane(connection, now, queue.id, group)?;
    }
    if let Some(key) = &deduplication {
        schema::note_seen(connection, queue.id, key, now + millis(DEDUPLICATION), sent)?;
    }
    Ok(sent)
}

/// Says from when on the first message of a group may be received.
fn refresh_lane(
    connection: &Connection,
    now: i64,
    queue: i64,
    group: &str,
) -> rusqlite::Result<()> {
    let head: Option<i64> = connection
        .prepare_cached(
            "SELECT visible FROM message WHERE queue = ?1 AND grp = ?2 ORDER BY sequence LIMIT 1",
        )?
        .query_row(params![queue, group], |row| row.get(0))
        .optional()?;
    let Some(head) = head else {
        connection
            .prepare_cached("DELETE FROM lane WHERE queue = ?1 AND grp = ?2")?
            .execute(params![queue, group])?;
        return Ok(());
    };
    let in_flight: Option<i64> = connection
        .prepare_cached(
            "SELECT max(visible) FROM message
             WHERE queue = ?1 AND grp = ?2 AND grp IS NOT NULL AND held != 0 AND visible > ?3",
        )?
        .query_row(params![queue, group, now], |row| row.get(0))?;
    connection
        .prepare_cached(
            "INSERT INTO lane (queue, grp, visible) VALUES (?1, ?2, ?3)
             ON CONFLICT (queue, grp) DO UPDATE SET visible = excluded.visible",
        )?
        .execute(params![queue, group, head.max(in_flight.unwrap_or(head))])?;
    Ok(())
}

/// What is read of a message's row.
const COLUMNS: &str = "sequence, id, body, attributes, sent, visible, receives, first_received, \
                       grp, deduplication, source, reason, size, expires, round";

/// A message's row.
struct Stored {
    message: Message,
    size: i64,
    expires: i64,
    /// Counts receives, and never goes back: receipts name it.
    round: i64,
}

impl Stored {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let id: Vec<u8> = row.get(1)?;
        let attributes = match row.get_ref(3)? {
            rusqlite::types::ValueRef::Null => Attributes::new(),
            _ => json_at(row, 3)?,
        };
        let dead = match row.get_ref(10)? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(Dead {
                source: name_at(row, 10)?,
                reason: row.get::<_, Option<String>>(11)?.unwrap_or_default(),
            }),
        };
        let message = Message {
            id: Uuid::from_slice(&id).map_err(|error| unreadable(1, error))?,
            sequence: row.get::<_, i64>(0)?.unsigned_abs(),
            body: Bytes::from(row.get::<_, Vec<u8>>(2)?),
            attributes,
            sent: row.get(4)?,
            visible: row.get(5)?,
            receives: row.get(6)?,
            first_received: row.get(7)?,
            group: row.get(8)?,
            deduplication: row.get(9)?,
            dead,
        };
        Ok(Self {
            message,
            size: row.get(12)?,
            expires: row.get(13)?,
            round: row.get(14)?,
        })
    }

    fn sequence(&self) -> i64 {
        self.message.sequence.cast_signed()
    }
}

/// Messages that may be received now, in order.
fn candidates(
    connection: &Connection,
    now: i64,
    queue: &Queue,
    most: usize,
) -> rusqlite::Result<Vec<Stored>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    if !queue.name.is_fifo() {
        let text = format!(
            "SELECT {COLUMNS} FROM message WHERE queue = ?1 AND visible <= ?2
             ORDER BY visible, sequence LIMIT ?3"
        );
        let mut statement = connection.prepare_cached(&text)?;
        return statement
            .query_map([queue.id, now, most], Stored::of)?
            .collect();
    }
    let mut lanes = connection.prepare_cached(
        "SELECT grp FROM lane WHERE queue = ?1 AND visible <= ?2 ORDER BY visible, grp LIMIT ?3",
    )?;
    let lanes: rusqlite::Result<Vec<String>> = lanes
        .query_map([queue.id, now, most], |row| row.get(0))?
        .collect();
    let text = format!(
        "SELECT {COLUMNS} FROM message WHERE queue = ?1 AND grp = ?2 ORDER BY sequence LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&text)?;
    let mut found = Vec::new();
    for group in lanes? {
        let left = most - i64::try_from(found.len()).unwrap_or(most);
        if left <= 0 {
            break;
        }
        let before = found.len();
        let rows = statement.query_map(params![queue.id, group, left], Stored::of)?;
        for row in rows {
            let stored = row?;
            // One that waits holds up those behind it.
            if stored.message.visible > now {
                break;
            }
            found.push(stored);
        }
        if found.len() == before {
            // Due without a message that is: it must not stand before the others again.
            refresh_lane(connection, now, queue.id, &group)?;
        }
    }
    Ok(found)
}

fn receive(
    connection: &Connection,
    at: Moment,
    name: &QueueName,
    most: usize,
    visibility: Option<Duration>,
    held: Held,
) -> Done<Vec<Delivery>> {
    let now = at.now;
    let Some(queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    let visible = now.saturating_add(millis(visibility.unwrap_or(queue.settings.visibility)));
    let mut received = Vec::new();
    let mut walked = 0;
    // Those that have expired or failed too often make room for others.
    while received.len() < most && walked < CHUNK {
        let found = candidates(connection, now, &queue, most - received.len())?;
        if found.is_empty() {
            break;
        }
        let mut groups = Vec::new();
        for mut stored in found {
            walked += 1;
            groups.extend(stored.message.group.clone());
            if stored.expires <= at.age {
                remove(connection, queue.id, stored.sequence(), stored.size)?;
                continue;
            }
            let receives = stored.message.receives;
            if let Some(redrive) = &queue.settings.redrive
                && receives >= redrive.max_receives
            {
                let reason = format!("it was received {receives} times and not settled");
                bury(
                    connection,
                    at,
                    &queue,
                    stored.sequence(),
                    stored.size,
                    &reason,
                )?;
                continue;
            }
            stored.message.receives += 1;
            stored.message.visible = visible;
            stored.message.first_received.get_or_insert(now);
            connection
                .prepare_cached(
                    "UPDATE message SET visible = ?2, receives = ?3, first_received = ?4, held = ?5,
                         round = ?6
                     WHERE sequence = ?1",
                )?
                .execute(params![
                    stored.sequence(),
                    visible,
                    stored.message.receives,
                    stored.message.first_received,
                    held_as(held),
                    stored.round + 1,
                ])?;
            received.push(Delivery {
                receipt: Receipt {
                    queue: queue.id,
                    sequence: stored.sequence(),
                    round: stored.round + 1,
                },
                message: stored.message,
            });
        }
        groups.dedup();
        for group in groups {
            refresh_lane(connection, now, queue.id, &group)?;
        }
        // With a visibility of zero the same would be found again.
        if visible <= now && !received.is_empty() {
            break;
        }
    }
    Ok(Ok(received))
}

/// What becomes of a message's holder: with none, the receipt is used up.
const GIVEN_BACK: &str = "held = 0, round = round + 1";
const STILL_HELD: &str = "held = held";

/// As it stands in the column `held`; 0 is nobody.
fn held_as(held: Held) -> i64 {
    match held {
        Held::Outside => 1,
        Held::Host => schema::HELD_BY_HOST,
    }
}

fn remove(connection: &Connection, queue: i64, sequence: i64, size: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM message WHERE sequence = ?1")?
        .execute([sequence])?;
    count(connection, queue, -1, -size)
}

/// Moves a message to the dead-letter queue, which takes it also if it is full: else it
/// would be lost. Answers whether there is one.
fn bury(
    connection: &Connection,
    at: Moment,
    queue: &Queue,
    sequence: i64,
    size: i64,
    reason: &str,
) -> rusqlite::Result<bool> {
    let now = at.now;
    let Some(redrive) = &queue.settings.redrive else {
        return Ok(false);
    };
    let Some(target) = Queue::find(connection, &redrive.target)? else {
        return Ok(false);
    };
    let group: Option<String> = connection
        .prepare_cached(
            "UPDATE message SET queue = ?2, visible = ?3, expires = ?4, receives = 0,
                 first_received = NULL, held = 0, round = round + 1, source = ?5, reason = ?6
             WHERE sequence = ?1 RETURNING grp",
        )?
        .query_row(
            params![
                sequence,
                target.id,
                now,
                target.expires(at),
                queue.name.as_str(),
                reason
            ],
            |row| row.get(0),
        )?;
    queue.count(connection, -1, -size)?;
    target.count(connection, 1, size)?;
    if let Some(group) = group {
        refresh_lane(connection, now, queue.id, &group)?;
        refresh_lane(connection, now, target.id, &group)?;
    }
    schema::sweep(connection, at, target.id)?;
    Ok(true)
}

/// Also answers the queues in which messages may have become visible.
fn settle(
    connection: &Connection,
    at: Moment,
    settlements: Vec<(Receipt, Settlement)>,
    sends: Vec<(QueueName, NewMessage)>,
) -> Done<(Vec<Settled>, BTreeSet<QueueName>)> {
    // Looked at before anything is written: all of it is done, or nothing.
    for (name, message) in &sends {
        let Some(queue) = Queue::find(connection, name)? else {
            return Ok(Err(QueueError::Unknown(name.clone())));
        };
        if let Some(refusal) = refusal(&queue, message) {
            return Ok(Err(QueueError::Refused(refusal)));
        }
    }
    let mut touched = BTreeSet::new();
    let mut settled = Vec::with_capacity(settlements.len());
    for (receipt, settlement) in settlements {
        settled.push(settle_one(
            connection,
            at,
            receipt,
            settlement,
            &mut touched,
        )?);
    }
    for (name, message) in sends {
        if let Some(queue) = Queue::find(connection, &name)? {
            insert(connection, at, &queue, message)?;
            touched.insert(name);
        }
    }
    Ok(Ok((settled, touched)))
}

fn settle_one(
    connection: &Connection,
    at: Moment,
    receipt: Receipt,
    settlement: Settlement,
    touched: &mut BTreeSet<QueueName>,
) -> rusqlite::Result<Settled> {
    let now = at.now;
    let found: Option<(i64, u32, i64, i64, Option<String>, i64)> = connection
        .prepare_cached(
            "SELECT queue, receives, visible, size, grp, round FROM message WHERE sequence = ?1",
        )?
        .query_row([receipt.sequence], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
            ))
        })
        .optional()?;
    let Some((id, receives, visible, size, group, round)) = found else {
        return Ok(Settled::Stale);
    };
    if id != receipt.queue || round != receipt.round {
        return Ok(Settled::Stale);
    }
    // What is visible again may be received any moment: in a FIFO queue others of its group
    // may have come meanwhile, and what is not hidden cannot stay so.
    let is_over = visible <= now;
    if is_over && group.is_some() {
        return Ok(Settled::Expired);
    }
    if is_over && matches!(settlement, Settlement::Hide(_)) {
        return Ok(Settled::Stale);
    }
    let Some(queue) = Queue::get(connection, id)? else {
        return Ok(Settled::Stale);
    };
    let hide = |after: Duration, receives: u32, held: &str| {
        let text =
            format!("UPDATE message SET visible = ?2, receives = ?3, {held} WHERE sequence = ?1");
        connection.prepare_cached(&text)?.execute(params![
            receipt.sequence,
            now.saturating_add(millis(after)),
            receives
        ])?;
        Ok::<_, rusqlite::Error>(Settled::Yes)
    };
    // What is done makes nothing visible, but the next of its group.
    if group.is_some() || settlement != Settlement::Done {
        touched.insert(queue.name.clone());
    }
    if matches!(settlement, Settlement::Retry { .. } | Settlement::Reject(_)) {
        let target = queue.settings.redrive.iter();
        touched.extend(target.map(|redrive| redrive.target.clone()));
    }
    let settled = match settlement {
        Settlement::Done => {
            remove(connection, id, receipt.sequence, size)?;
            Settled::Yes
        }
        Settlement::Hide(after) => hide(after, receives, STILL_HELD)?,
        Settlement::Release(after) => hide(after, receives.saturating_sub(1), GIVEN_BACK)?,
        Settlement::Retry { after, reason } => {
            let spent = queue
                .settings
                .redrive
                .as_ref()
                .is_some_and(|r| receives >= r.max_receives);
            if spent && bury(connection, at, &queue, receipt.sequence, size, &reason)? {
                Settled::Yes
            } else {
                hide(after, receives, GIVEN_BACK)?
            }
        }
        Settlement::Reject(reason) => {
            if bury(connection, at, &queue, receipt.sequence, size, &reason)? {
                Settled::Yes
            } else {
                remove(connection, id, receipt.sequence, size)?;
                Settled::Dropped
            }
        }
    };
    if let Some(group) = group {
        refresh_lane(connection, now, id, &group)?;
    }
    Ok(settled)
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
    let messages: rusqlite::Result<Vec<Message>> =
        rows.map(|row| row.map(|stored| stored.message)).collect();
    messages.map(Ok)
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
    for (sequence, size, group, source) in letters? {
        let Some(source) = Queue::get(connection, source)? else {
            continue;
        };
        connection
            .prepare_cached(
                "UPDATE message SET queue = ?2, visible = ?3, expires = ?4, receives = 0,
                     first_received = NULL, held = 0, round = round + 1, source = NULL, reason = NULL
                 WHERE sequence = ?1",
            )?
            .execute([sequence, source.id, now, source.expires(at)])?;
        queue.count(connection, -1, -size)?;
        source.count(connection, 1, size)?;
        if let Some(group) = group {
            refresh_lane(connection, now, queue.id, &group)?;
            refresh_lane(connection, now, source.id, &group)?;
        }
        moved += 1;
    }
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
    let oldest = connection
        .prepare_cached(
            "SELECT sent FROM message WHERE queue = ?1 ORDER BY visible, sequence LIMIT 1",
        )?
        .query_row([queue.id], |row| row.get(0))
        .optional()?;
    Ok(Ok(Depth {
        messages: queue.messages,
        bytes: queue.bytes,
        in_flight: in_flight.unsigned_abs(),
        delayed: delayed.unsigned_abs(),
        oldest,
    }))
}

fn next(connection: &Connection, name: &QueueName) -> Done<Option<i64>> {
    let Some(queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    let text = if queue.name.is_fifo() {
        "SELECT min(visible) FROM lane WHERE queue = ?1"
    } else {
        "SELECT min(visible) FROM message WHERE queue = ?1"
    };
    let next = connection
        .prepare_cached(text)?
        .query_row([queue.id], |row| row.get(0))?;
    Ok(Ok(next))
}

#[cfg(test)]
mod tests;
