//! Marks as rows.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::Done;
use super::rows::{Counts, Queue};
use super::sending::insert;
use crate::queue::{Mark, MarkName, QueueError, Step, Stepped};
use crate::store::Moment;

pub(super) fn keep(
    connection: &Connection,
    begin: i64,
    marks: &[(MarkName, String)],
) -> rusqlite::Result<Vec<Mark>> {
    let names: BTreeSet<&str> = marks.iter().map(|(name, _)| name.0.as_str()).collect();
    let mut statement = connection.prepare_cached("SELECT name FROM mark")?;
    let there: rusqlite::Result<Vec<String>> = statement.query_map([], |row| row.get(0))?.collect();
    for gone in there?.iter().filter(|name| !names.contains(name.as_str())) {
        connection
            .prepare_cached("DELETE FROM mark WHERE name = ?1")?
            .execute([gone])?;
    }
    let kept = marks.iter().map(|(name, stands_for)| {
        connection
            .prepare_cached(
                "INSERT INTO mark (name, stands_for, begun, at) VALUES (?1, ?2, ?3, ?3)
                 ON CONFLICT (name) DO UPDATE SET stands_for = excluded.stands_for,
                     begun = excluded.begun, at = excluded.at, skipped = 0
                 WHERE stands_for != excluded.stands_for",
            )?
            .execute(params![name.0, stands_for, begin])?;
        connection
            .prepare_cached("SELECT begun, at, skipped FROM mark WHERE name = ?1")?
            .query_row([&name.0], |row| {
                Ok(Mark {
                    begun: row.get(0)?,
                    at: row.get(1)?,
                    skipped: row.get(2)?,
                })
            })
    });
    kept.collect()
}

pub(super) fn step(
    connection: &Connection,
    at: Moment,
    name: &MarkName,
    step: Step,
) -> Done<Stepped> {
    let found: Option<(i64, Option<i64>)> = connection
        .prepare_cached("SELECT at, sent FROM mark WHERE name = ?1")?
        .query_row([&name.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((_, before)) = found.filter(|(stands, _)| *stands == step.from) else {
        return Ok(Ok(Stepped::Stale));
    };
    let mut sent = before;
    let mut stepped = Stepped::Yes;
    // None: the count begins anew.
    let mut skips = Some(step.skips).filter(|_| !step.begins);
    if let Some((target, message)) = step.send {
        let Some(queue) = Queue::find(connection, &target)? else {
            return Ok(Err(QueueError::Unknown(target)));
        };
        if step.alone && is_there(connection, &queue, before)? {
            stepped = Stepped::Held;
            skips = Some(step.skips.saturating_add(1));
        } else if queue.has_no_room(message.size()).is_some() {
            return Ok(Ok(Stepped::Full));
        } else {
            let mut counts = Counts::default();
            let message = insert(connection, at, &queue, message, &mut counts)?;
            counts.write(connection)?;
            sent = Some(message.sequence.cast_signed());
            skips = None;
        }
    }
    connection
        .prepare_cached(
            "UPDATE mark SET at = ?2, sent = ?3, skipped = coalesce(skipped + ?4, 0),
                 begun = iif(?5, ?2, begun)
             WHERE name = ?1",
        )?
        .execute(params![name.0, step.to, sent, skips, step.begins])?;
    Ok(Ok(stepped))
}

/// Whether a message is still in the queue that it was sent to.
fn is_there(
    connection: &Connection,
    queue: &Queue,
    sequence: Option<i64>,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM message WHERE sequence = ?1 AND queue = ?2")?
        .exists(params![sequence, queue.id])
}
