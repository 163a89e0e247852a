//! From a message that may be received to what became of it.

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{COLUMNS, Counts, Queue, Stored, json, millis};
use super::sending::{insert, refresh_lane};
use super::{CHUNK, Done, schema};
use crate::queue::cut_reason;
use crate::queue::message::{Attributes, size_of};
use crate::queue::{
    Delivery, Held, MAX_RECEIVED, NewMessage, QueueError, QueueName, Receipt, Settled, Settlement,
};
use crate::store::Moment;

/// Messages that may be received now, in order, beside so many bytes that are received
/// already.
fn candidates(
    connection: &Connection,
    now: i64,
    queue: &Queue,
    most: usize,
    received: u64,
) -> rusqlite::Result<Found> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    if !queue.name.is_fifo() {
        let text = format!(
            "SELECT {COLUMNS} FROM message WHERE queue = ?1 AND visible <= ?2
             ORDER BY visible, sequence LIMIT ?3"
        );
        let mut statement = connection.prepare_cached(&text)?;
        let mut found = Found::beside(received);
        for row in statement.query_map([queue.id, now, most], Stored::of)? {
            if !found.take(row?) {
                break;
            }
        }
        return Ok(found);
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
    let mut found = Found::beside(received);
    for group in lanes? {
        let left = most - i64::try_from(found.rows.len()).unwrap_or(most);
        if left <= 0 || found.is_full {
            break;
        }
        let before = found.rows.len();
        let rows = statement.query_map(params![queue.id, group, left], Stored::of)?;
        for row in rows {
            let stored = row?;
            // One that waits holds up those behind it.
            if stored.message.visible > now || !found.take(stored) {
                break;
            }
        }
        if found.rows.len() == before && !found.is_full {
            // Due without a message that is: it must not stand before the others again.
            refresh_lane(connection, queue.id, &group)?;
        }
    }
    Ok(found)
}

/// Rows that fit together into one receive.
struct Found {
    rows: Vec<Stored>,
    bytes: u64,
    is_full: bool,
}

impl Found {
    fn beside(bytes: u64) -> Self {
        Self {
            rows: Vec::new(),
            bytes,
            is_full: false,
        }
    }

    /// Takes one more, if there is room for it: the first always has it.
    fn take(&mut self, stored: Stored) -> bool {
        let bytes = self.bytes + stored.size.unsigned_abs();
        self.is_full = bytes > MAX_RECEIVED && self.bytes > 0;
        if !self.is_full {
            self.bytes = bytes;
            self.rows.push(stored);
        }
        !self.is_full
    }
}

/// Also answers where dead letters went that were found on the way.
pub(super) fn receive(
    connection: &Connection,
    at: Moment,
    name: &QueueName,
    most: usize,
    visibility: Option<Duration>,
    held: Held,
) -> Done<(Vec<Delivery>, Option<QueueName>)> {
    let now = at.now;
    let Some(queue) = Queue::find(connection, name)? else {
        return Ok(Err(QueueError::Unknown(name.clone())));
    };
    let visible = now.saturating_add(millis(visibility.unwrap_or(queue.settings.visibility)));
    let mut received = Vec::new();
    let mut bytes = 0;
    let mut counts = Counts::default();
    let mut buried = false;
    let mut walked = 0;
    // Those that have expired or failed too often make room for others.
    while received.len() < most && walked < CHUNK {
        let found = candidates(connection, now, &queue, most - received.len(), bytes)?;
        if found.rows.is_empty() {
            break;
        }
        let is_full = found.is_full;
        let mut groups = Vec::new();
        for mut stored in found.rows {
            walked += 1;
            groups.extend(stored.message.group.clone());
            if stored.expires <= at.age {
                remove(connection, queue.id, stored.weighed(), &mut counts)?;
                continue;
            }
            let receives = stored.message.receives;
            if let Some(redrive) = &queue.settings.redrive
                && receives >= redrive.max_receives
            {
                let reason = format!("it was received {receives} times and not settled");
                buried |= bury(
                    connection,
                    at,
                    &queue,
                    stored.weighed(),
                    &reason,
                    &mut counts,
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
            bytes += stored.size.unsigned_abs();
            received.push(Delivery {
                receipt: Receipt {
                    queue: queue.id,
                    sequence: stored.sequence(),
                    round: stored.round + 1,
                },
                age: Duration::from_millis((at.age - stored.born).max(0).unsigned_abs()),
                is_suspect: stored.held == schema::LEFT_BY_HOST,
                message: stored.message,
            });
        }
        groups.dedup();
        for group in groups {
            refresh_lane(connection, queue.id, &group)?;
        }
        // With a visibility of zero the same would be found again.
        if (is_full || visible <= now) && !received.is_empty() {
            break;
        }
    }
    counts.write(connection)?;
    let redrive = queue.settings.redrive.as_ref().filter(|_| buried);
    Ok(Ok((
        received,
        redrive.map(|redrive| redrive.target.clone()),
    )))
}

/// What becomes of a message's holder: with none, the receipt is used up.
pub(super) const GIVEN_BACK: &str = "held = 0, round = round + 1";
pub(super) const RELEASED: &str = "held = 0, round = round + 1, releases = releases + 1";
pub(super) const STILL_HELD: &str = "held = held";

/// As it stands in the column `held`; 0 is nobody.
pub(super) fn held_as(held: Held) -> i64 {
    match held {
        Held::Outside => 1,
        Held::Host => schema::HELD_BY_HOST,
    }
}

/// A message's row, and what it counts.
#[derive(Clone, Copy)]
pub(super) struct Weighed {
    pub(super) sequence: i64,
    pub(super) size: i64,
}

pub(super) fn remove(
    connection: &Connection,
    queue: i64,
    message: Weighed,
    counts: &mut Counts,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM message WHERE sequence = ?1")?
        .execute([message.sequence])?;
    counts.add(queue, -1, -message.size);
    Ok(())
}

/// Moves a message to the dead-letter queue, which takes it also if it is full: else it
/// would be lost. Answers whether there is one.
pub(super) fn bury(
    connection: &Connection,
    at: Moment,
    queue: &Queue,
    message: Weighed,
    reason: &str,
    counts: &mut Counts,
) -> rusqlite::Result<bool> {
    let Some(redrive) = &queue.settings.redrive else {
        return Ok(false);
    };
    let Some(target) = Queue::find(connection, &redrive.target)? else {
        return Ok(false);
    };
    move_to(connection, at, queue, &target, message, reason, counts)?;
    Ok(true)
}

/// Gives a message other attributes. Answers what it counts with them.
fn relabel(
    connection: &Connection,
    queue: &Queue,
    message: Weighed,
    attributes: &Attributes,
    counts: &mut Counts,
) -> rusqlite::Result<Weighed> {
    let Weighed { sequence, size } = message;
    let new: i64 = connection
        .prepare_cached(
            "UPDATE message SET attributes = ?2, size = length(body) + ?3 WHERE sequence = ?1
             RETURNING size",
        )?
        .query_row(
            params![
                sequence,
                json(attributes)?,
                i64::try_from(size_of(attributes)).unwrap_or(i64::MAX),
            ],
            |row| row.get(0),
        )?;
    counts.add(queue.id, 0, new - size);
    Ok(Weighed {
        sequence,
        size: new,
    })
}

fn move_to(
    connection: &Connection,
    at: Moment,
    queue: &Queue,
    target: &Queue,
    message: Weighed,
    reason: &str,
    counts: &mut Counts,
) -> rusqlite::Result<()> {
    let Weighed { sequence, size } = message;
    let now = at.now;
    let group: Option<String> = connection
        .prepare_cached(
            "UPDATE message SET queue = ?2, visible = ?3, expires = ?4, receives = 0,
                 first_received = NULL, held = 0, round = round + 1, releases = 0, source = ?5,
                 reason = ?6
             WHERE sequence = ?1 RETURNING grp",
        )?
        .query_row(
            params![
                sequence,
                target.id,
                now,
                target.expires(at),
                queue.name.as_str(),
                cut_reason(reason),
            ],
            |row| row.get(0),
        )?;
    counts.add(queue.id, -1, -size);
    counts.add(target.id, 1, size);
    if let Some(group) = group {
        refresh_lane(connection, queue.id, &group)?;
        refresh_lane(connection, target.id, &group)?;
    }
    schema::sweep(connection, at, target.id)?;
    Ok(())
}

/// Also answers the queues in which messages may have become visible.
pub(super) fn settle(
    connection: &Connection,
    at: Moment,
    settlements: Vec<(Receipt, Settlement)>,
    sends: Vec<(QueueName, NewMessage)>,
) -> Done<(Vec<Settled>, BTreeSet<QueueName>)> {
    // Looked at before anything is written: all of it is done, or nothing. What the host
    // sends of its own counts against no limit of a queue: it would be lost.
    let targets = settlements
        .iter()
        .filter_map(|(_, settlement)| match settlement {
            Settlement::Bury { queue, .. } => Some(queue),
            _ => None,
        });
    for name in targets.chain(sends.iter().map(|(name, _)| name)) {
        if Queue::find(connection, name)?.is_none() {
            return Ok(Err(QueueError::Unknown(name.clone())));
        }
    }
    let mut effects = Effects::default();
    let mut settled = Vec::with_capacity(settlements.len());
    for (receipt, settlement) in settlements {
        settled.push(settle_one(
            connection,
            at,
            receipt,
            settlement,
            &mut effects,
        )?);
    }
    let Effects {
        mut touched,
        mut counts,
        queue: _,
    } = effects;
    // What was settled otherwise meanwhile has no result of this time.
    let is_void = !settled.is_empty() && settled.iter().all(|it| *it == Settled::Stale);
    for (name, message) in sends.into_iter().filter(|_| !is_void) {
        if let Some(queue) = Queue::find(connection, &name)? {
            insert(connection, at, &queue, message, &mut counts)?;
            // A queue that nobody reads shrinks all the same.
            schema::sweep(connection, at, queue.id)?;
            touched.insert(name);
        }
    }
    counts.write(connection)?;
    Ok(Ok((settled, touched)))
}

/// What settlements bring about beside what becomes of their messages.
#[derive(Default)]
struct Effects {
    /// Queues in which messages may have become visible.
    touched: BTreeSet<QueueName>,
    counts: Counts,
    /// That of the last message: most often the next one's too. Its counts are those from
    /// before.
    queue: Option<Queue>,
}

/// What is looked at of a message to settle it.
struct Settleable {
    queue: i64,
    receives: u32,
    visible: i64,
    size: i64,
    group: Option<String>,
    round: i64,
    held: i64,
}

impl Settleable {
    fn find(connection: &Connection, sequence: i64) -> rusqlite::Result<Option<Self>> {
        let text = "SELECT queue, receives, visible, size, grp, round, held FROM message
                    WHERE sequence = ?1";
        let mut statement = connection.prepare_cached(text)?;
        let found = statement.query_row([sequence], |row| {
            Ok(Self {
                queue: row.get(0)?,
                receives: row.get(1)?,
                visible: row.get(2)?,
                size: row.get(3)?,
                group: row.get(4)?,
                round: row.get(5)?,
                held: row.get(6)?,
            })
        });
        found.optional()
    }
}

fn settle_one(
    connection: &Connection,
    at: Moment,
    receipt: Receipt,
    settlement: Settlement,
    effects: &mut Effects,
) -> rusqlite::Result<Settled> {
    let Effects {
        touched,
        counts,
        queue,
    } = effects;
    let now = at.now;
    let Some(found) = Settleable::find(connection, receipt.sequence)? else {
        return Ok(Settled::Stale);
    };
    let Settleable {
        queue: id,
        receives,
        visible,
        size,
        group,
        round,
        held,
    } = found;
    if id != receipt.queue || round != receipt.round {
        return Ok(Settled::Stale);
    }
    // What is visible again may be received any moment: in a FIFO queue its group goes on
    // with it, and what is not hidden cannot stay so. The host itself may be late, on a disk
    // that was full: nothing of the group came since, or this message would have been first.
    let is_over = visible <= now;
    if is_over && group.is_some() && held != schema::HELD_BY_HOST {
        return Ok(Settled::Expired);
    }
    if is_over && matches!(settlement, Settlement::Hide(_)) {
        return Ok(Settled::Stale);
    }
    if queue.as_ref().is_none_or(|queue| queue.id != id) {
        *queue = Queue::get(connection, id)?;
    }
    let Some(queue) = queue else {
        return Ok(Settled::Stale);
    };
    let message = Weighed {
        sequence: receipt.sequence,
        size,
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
    if matches!(
        settlement,
        Settlement::Retry { .. } | Settlement::Reject { .. }
    ) {
        let target = queue.settings.redrive.iter();
        touched.extend(target.map(|redrive| redrive.target.clone()));
    }
    let settled = match settlement {
        Settlement::Done => {
            remove(connection, id, message, counts)?;
            Settled::Yes
        }
        Settlement::Hide(after) => hide(after, receives, STILL_HELD)?,
        Settlement::Release(after) => hide(after, receives.saturating_sub(1), RELEASED)?,
        Settlement::Retry { after, reason } => {
            let spent = queue
                .settings
                .redrive
                .as_ref()
                .is_some_and(|r| receives >= r.max_receives);
            if spent && bury(connection, at, queue, message, &reason, counts)? {
                Settled::Yes
            } else {
                hide(after, receives, GIVEN_BACK)?
            }
        }
        Settlement::Reject { reason, otherwise } => {
            if bury(connection, at, queue, message, &reason, counts)? {
                Settled::Yes
            } else if let Some(otherwise) = otherwise
                && let Some(target) = Queue::find(connection, &otherwise)?
                && target.id != id
            {
                move_to(connection, at, queue, &target, message, &reason, counts)?;
                touched.insert(otherwise);
                Settled::Yes
            } else {
                remove(connection, id, message, counts)?;
                Settled::Dropped
            }
        }
        Settlement::Bury {
            queue: target,
            reason,
            attributes,
        } => {
            touched.insert(target.clone());
            let Some(target) = Queue::find(connection, &target)? else {
                return Ok(Settled::Stale);
            };
            let message = relabel(connection, queue, message, &attributes, counts)?;
            move_to(connection, at, queue, &target, message, &reason, counts)?;
            Settled::Yes
        }
    };
    if let Some(group) = group {
        refresh_lane(connection, id, &group)?;
    }
    Ok(settled)
}
