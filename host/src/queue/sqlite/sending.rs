//! How messages come into a queue: what refuses them, which are duplicates, and when the
//! first of a group may be received.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::rows::{Counts, Queue, json, millis};
use super::{Done, schema};
use crate::hex::hex;
use crate::queue::{NewMessage, QueueError, QueueName, Sent};
use crate::store::Moment;

/// SQS: for so long a message with the same deduplication id is taken for the same.
const DEDUPLICATION: Duration = Duration::from_mins(5);
/// What is wrong with a message for a queue.
fn refusal(queue: &Queue, message: &NewMessage) -> Option<QueueError> {
    let (size, most) = (message.size(), queue.settings.max_message);
    // What the host keeps for itself has its limit elsewhere.
    if size > most && !queue.name.is_internal() {
        let queue = queue.name.clone();
        return Some(QueueError::TooLarge { queue, size, most });
    }
    fifo_refusal(queue, message).map(QueueError::Refused)
}

/// What a message lacks for a FIFO queue.
fn fifo_refusal(queue: &Queue, message: &NewMessage) -> Option<String> {
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

pub(super) fn send(
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
    let mut counts = Counts::default();
    for message in messages {
        if let Some(refusal) = refusal(&queue, &message) {
            sent.push(Err(refusal));
            continue;
        }
        // A duplicate takes no room.
        let key = deduplication(&queue, &message);
        if let Some(before) = duplicate(connection, at, &queue, key.as_deref())? {
            sent.push(Ok(before));
            continue;
        }
        let size = message.size();
        if let Some(full) = queue.has_no_room(size) {
            sent.push(Err(QueueError::Full(name.clone(), full)));
            continue;
        }
        sent.push(Ok(add(connection, at, &queue, message, key, &mut counts)?));
        queue.messages += 1;
        queue.bytes += size;
    }
    counts.write(connection)?;
    Ok(Ok(sent))
}

/// What tells a duplicate of a message, in a FIFO queue.
fn deduplication(queue: &Queue, message: &NewMessage) -> Option<String> {
    let is_fifo = queue.name.is_fifo();
    is_fifo.then(|| match &message.deduplication {
        Some(id) => id.clone(),
        None => hex(&Sha256::digest(&message.body)),
    })
}

/// What was sent a short while ago and is the same.
fn duplicate(
    connection: &Connection,
    at: Moment,
    queue: &Queue,
    deduplication: Option<&str>,
) -> rusqlite::Result<Option<Sent>> {
    match deduplication {
        Some(key) => schema::seen(connection, queue.id, key, at.now),
        None => Ok(None),
    }
}

/// Adds a message, whether there is room or not, unless it is a duplicate.
pub(super) fn insert(
    connection: &Connection,
    at: Moment,
    queue: &Queue,
    message: NewMessage,
    counts: &mut Counts,
) -> rusqlite::Result<Sent> {
    let key = deduplication(queue, &message);
    match duplicate(connection, at, queue, key.as_deref())? {
        Some(before) => Ok(before),
        None => add(connection, at, queue, message, key, counts),
    }
}

fn add(
    connection: &Connection,
    at: Moment,
    queue: &Queue,
    message: NewMessage,
    deduplication: Option<String>,
    counts: &mut Counts,
) -> rusqlite::Result<Sent> {
    let now = at.now;
    let size = i64::try_from(message.size()).unwrap_or(i64::MAX);
    let group = message.group.filter(|_| queue.name.is_fifo());
    let id = message.id.unwrap_or_else(Uuid::new_v4);
    let delay = message.delay.unwrap_or(queue.settings.delay);
    let attributes = match message.attributes.is_empty() {
        true => None,
        false => Some(json(&message.attributes)?),
    };
    connection
        .prepare_cached(
            "INSERT INTO message (queue, id, body, attributes, size, sent, expires, visible, grp,
                 deduplication, depth, born)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
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
            message.depth,
            at.age,
        ])?;
    let sequence = connection.last_insert_rowid();
    let sent = Sent {
        id,
        sequence: sequence.unsigned_abs(),
    };
    counts.add(queue.id, 1, size);
    if let Some(group) = &group {
        refresh_lane(connection, queue.id, group)?;
    }
    if let Some(key) = &deduplication {
        schema::note_seen(connection, queue.id, key, now + millis(DEDUPLICATION), sent)?;
    }
    Ok(sent)
}

/// Says from when on the first message of a group may be received: from when it is visible,
/// and so are all that are held. That follows from the messages alone, whenever it is said.
pub(super) fn refresh_lane(
    connection: &Connection,
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
    let held: Option<i64> = connection
        .prepare_cached(
            "SELECT max(visible) FROM message
             WHERE queue = ?1 AND grp = ?2 AND grp IS NOT NULL AND held != 0",
        )?
        .query_row(params![queue, group], |row| row.get(0))?;
    connection
        .prepare_cached(
            "INSERT INTO lane (queue, grp, visible) VALUES (?1, ?2, ?3)
             ON CONFLICT (queue, grp) DO UPDATE SET visible = excluded.visible",
        )?
        .execute(params![queue, group, head.max(held.unwrap_or(head))])?;
    Ok(())
}
