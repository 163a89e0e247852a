//! The rows of queues and messages, and how their columns are read.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row};
use uuid::Uuid;

use super::delivery::Weighed;
use crate::queue::message::{Attributes, Dead};
use crate::queue::{Message, QueueName, QueueSettings};
use crate::store::Moment;

/// A queue's row.
pub(super) struct Queue {
    pub(super) id: i64,
    pub(super) name: QueueName,
    pub(super) settings: Arc<QueueSettings>,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Queue {
    pub(super) fn find(
        connection: &Connection,
        name: &QueueName,
    ) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(
                "SELECT id, name, settings, messages, bytes FROM queue WHERE name = ?1",
            )?
            .query_row([name.as_str()], Self::of)
            .optional()
    }

    pub(super) fn get(connection: &Connection, id: i64) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached("SELECT id, name, settings, messages, bytes FROM queue WHERE id = ?1")?
            .query_row([id], Self::of)
            .optional()
    }

    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let id = row.get(0)?;
        Ok(Self {
            id,
            name: name_at(row, 1)?,
            settings: settings_at(row, 2, id)?,
            messages: row.get::<_, i64>(3)?.unsigned_abs(),
            bytes: row.get::<_, i64>(4)?.unsigned_abs(),
        })
    }

    /// The limit that one more message of this size would exceed.
    pub(super) fn has_no_room(&self, size: u64) -> Option<String> {
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
    pub(super) fn expires(&self, at: Moment) -> i64 {
        at.age.saturating_add(millis(self.settings.retention))
    }
}

/// What an operation adds to the counts of queues: written once, at its end.
#[derive(Default)]
#[must_use]
pub(super) struct Counts(BTreeMap<i64, (i64, i64)>);

impl Counts {
    /// Counts messages that came or went.
    pub(super) fn add(&mut self, queue: i64, messages: i64, bytes: i64) {
        let count = self.0.entry(queue).or_default();
        count.0 += messages;
        count.1 += bytes;
    }

    pub(super) fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        for (queue, (messages, bytes)) in self.0 {
            connection
                .prepare_cached(
                    "UPDATE queue SET messages = messages + ?2, bytes = bytes + ?3 WHERE id = ?1",
                )?
                .execute([queue, messages, bytes])?;
        }
        Ok(())
    }
}

/// Queues whose settings are remembered at once.
const REMEMBERED: usize = 1024;

thread_local! {
    /// Settings as this thread last read them, with their text: it is the same almost
    /// always, and takes longer to parse than a message to write.
    static SETTINGS: RefCell<HashMap<i64, (String, Arc<QueueSettings>)>> = RefCell::default();
}

fn settings_at(row: &Row<'_>, column: usize, queue: i64) -> rusqlite::Result<Arc<QueueSettings>> {
    let text = row.get_ref(column)?.as_str();
    let text = text.map_err(|error| unreadable(column, error))?;
    SETTINGS.with_borrow_mut(|remembered| {
        if let Some((same, settings)) = remembered.get(&queue)
            && same == text
        {
            return Ok(Arc::clone(settings));
        }
        let settings: Arc<QueueSettings> = Arc::new(json_at(row, column)?);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(queue, (text.to_owned(), Arc::clone(&settings)));
        Ok(settings)
    })
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

pub(super) fn name_at(row: &Row<'_>, column: usize) -> rusqlite::Result<QueueName> {
    let name = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| unreadable(column, error))?;
    QueueName::stored(name).map_err(|error| unreadable(column, error))
}

pub(super) fn json_at<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| unreadable(column, error))?;
    serde_json::from_str(text).map_err(|error| unreadable(column, error))
}

pub(super) fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// What is read of a message's row.
pub(super) const COLUMNS: &str = "sequence, id, body, attributes, sent, visible, receives, first_received, \
                       grp, deduplication, source, reason, size, expires, round, depth, born, releases, \
                       held";

/// A message's row.
pub(super) struct Stored {
    pub(super) message: Message,
    pub(super) size: i64,
    pub(super) expires: i64,
    /// Counts receives, and never goes back: receipts name it.
    pub(super) round: i64,
    /// The age of the store when it was sent.
    pub(super) born: i64,
    /// Who holds it, or left it.
    pub(super) held: i64,
}

impl Stored {
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
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
            depth: row.get(15)?,
            releases: row.get(17)?,
        };
        Ok(Self {
            message,
            size: row.get(12)?,
            expires: row.get(13)?,
            round: row.get(14)?,
            born: row.get(16)?,
            held: row.get(18)?,
        })
    }

    pub(super) fn sequence(&self) -> i64 {
        self.message.sequence.cast_signed()
    }

    pub(super) fn weighed(&self) -> Weighed {
        Weighed {
            sequence: self.sequence(),
            size: self.size,
        }
    }
}
