//! The tables of `queue.db`, and what walks over them as a whole.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Statement, ToSql, params};
use uuid::Uuid;

use super::delivery::Weighed;
use super::rows::Counts;
use super::sending::refresh_lane;
use crate::queue::Sent;
use crate::store::{Moment, OpenError};

/// `held` of a message that this host received for itself.
pub(super) const HELD_BY_HOST: i64 = 2;
/// `held` of a message that a host held when it ended, and nobody since.
pub(super) const LEFT_BY_HOST: i64 = 3;
/// The version of the tables here.
const VERSION: i64 = 2;

/// Keeps a copy of a database whose tables are older, before they are brought up to date:
/// `queue.db.v1` beside `queue.db`. One that is there already was made by a start that did
/// not come to its end, from the same tables.
pub(super) fn keep_older(path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError {
        path: path.to_owned(),
        error,
    };
    if !path.exists() {
        return Ok(());
    }
    let connection = Connection::open(path).map_err(failed)?;
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed)?;
    let copy = path.with_added_extension(format!("v{version}"));
    if version == 0 || version >= VERSION || copy.exists() {
        return Ok(());
    }
    // Whole, or not under its name.
    let part = copy.with_added_extension("part");
    let _ = std::fs::remove_file(&part);
    crate::store::back_up(path, &part)
        .map_err(|error| failed(rusqlite::Error::ToSqlConversionFailure(error.into())))?;
    std::fs::rename(&part, &copy)
        .map_err(|error| failed(rusqlite::Error::ToSqlConversionFailure(error.into())))
}

/// Makes the tables, or brings older ones up to date.
pub(super) fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        // A newer host wrote it, and its rules are not known here.
        return Err(rusqlite::Error::ToSqlConversionFailure(
            format!(
                "it was written by a newer version of Dunlin (tables {version}, here {VERSION})"
            )
            .into(),
        ));
    }
    if version == 0 {
        connection.execute_batch(TABLES)?;
    }
    if version < 2 {
        connection.execute_batch(SECOND)?;
    }
    if version < VERSION {
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(())
}

/// What the second version adds: the length of the chain that a message stands in, the age
/// of the store when it was sent, how often it was given back unworked, and marks.
const SECOND: &str = "
ALTER TABLE message ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN born INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN releases INTEGER NOT NULL DEFAULT 0;
UPDATE message SET born = coalesce((SELECT age_ms FROM timeline), 0);
CREATE TABLE mark (
    name TEXT PRIMARY KEY,
    stands_for TEXT NOT NULL,
    begun INTEGER NOT NULL,
    at INTEGER NOT NULL,
    skipped INTEGER NOT NULL DEFAULT 0,
    sent INTEGER
) WITHOUT ROWID;
";

/// Sequence numbers are never used again (`AUTOINCREMENT`): receipts name them.
const TABLES: &str = "
CREATE TABLE queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    owner INTEGER NOT NULL,
    created INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    messages INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE message (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL,
    visible INTEGER NOT NULL,
    receives INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    round INTEGER NOT NULL DEFAULT 0,
    first_received INTEGER,
    sent INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    size INTEGER NOT NULL,
    id BLOB NOT NULL,
    grp TEXT,
    deduplication TEXT,
    source TEXT,
    reason TEXT,
    attributes TEXT,
    body BLOB NOT NULL
);
CREATE INDEX message_next ON message (queue, visible, sequence, held);
CREATE INDEX message_expires ON message (queue, expires);
CREATE INDEX message_group ON message (queue, grp, sequence) WHERE grp IS NOT NULL;
CREATE INDEX message_flight ON message (queue, grp, visible) WHERE grp IS NOT NULL AND held != 0;
CREATE INDEX message_host ON message (sequence) WHERE held = 2;
CREATE TABLE lane (
    queue INTEGER NOT NULL,
    grp TEXT NOT NULL,
    visible INTEGER NOT NULL,
    PRIMARY KEY (queue, grp)
) WITHOUT ROWID;
CREATE INDEX lane_next ON lane (queue, visible, grp);
CREATE TABLE seen (
    queue INTEGER NOT NULL,
    key TEXT NOT NULL,
    expires INTEGER NOT NULL,
    id BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (queue, key)
) WITHOUT ROWID;
CREATE INDEX seen_expires ON seen (expires);
CREATE TABLE secret (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
";

/// The key of the receipts: made with the file, so that receipts hold as long as it does.
pub(super) fn receipt_key(connection: &Connection) -> rusqlite::Result<[u8; 32]> {
    let found = connection
        .query_row(
            "SELECT value FROM secret WHERE name = 'receipts'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(key) = found {
        return Ok(key);
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection.execute("INSERT INTO secret VALUES ('receipts', ?1)", [key])?;
    Ok(key)
}

/// Gives back what the host held when it ended, and drops what is left of queues that are
/// gone.
pub(super) fn give_back(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare("SELECT DISTINCT queue, grp FROM message WHERE held = 2 AND grp IS NOT NULL")?;
    let groups = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let groups: rusqlite::Result<Vec<(i64, String)>> = groups.collect();
    connection.execute(
        "UPDATE message SET visible = 0, held = ?1 WHERE held = 2",
        [LEFT_BY_HOST],
    )?;
    for (queue, group) in groups? {
        refresh_lane(connection, queue, &group)?;
    }
    connection.execute_batch(
        "
         DELETE FROM message WHERE queue NOT IN (SELECT id FROM queue);
         DELETE FROM lane WHERE queue NOT IN (SELECT id FROM queue);
         DELETE FROM seen WHERE queue NOT IN (SELECT id FROM queue);",
    )
}

/// Drops up to so many messages of a queue, none later than `last`. Answers how many.
pub(super) fn drop_rows(
    connection: &Connection,
    queue: i64,
    last: i64,
    most: u64,
) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, size, grp FROM message
         WHERE queue = ?1 AND sequence <= ?2 ORDER BY visible, sequence LIMIT ?3",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    drop_all(
        connection,
        queue,
        &mut statement,
        params![queue, last, most],
    )
}

/// Messages that are dropped for their age with one operation on their queue, so that a
/// queue that nobody reads shrinks all the same.
const SWEPT: i64 = 16;

/// Drops a few messages that are too old. Answers how many.
pub(super) fn sweep(connection: &Connection, at: Moment, queue: i64) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, size, grp FROM message
         WHERE queue = ?1 AND expires <= ?2 ORDER BY expires LIMIT ?3",
    )?;
    drop_all(
        connection,
        queue,
        &mut statement,
        params![queue, at.age, SWEPT],
    )
}

/// Drops the messages that a statement finds.
fn drop_all(
    connection: &Connection,
    queue: i64,
    statement: &mut Statement<'_>,
    parameters: &[&dyn ToSql],
) -> rusqlite::Result<u64> {
    let rows = statement.query_map(parameters, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    let rows: rusqlite::Result<Vec<(i64, i64, Option<String>)>> = rows.collect();
    let mut groups = BTreeSet::new();
    let mut dropped = 0;
    let mut counts = Counts::default();
    for (sequence, size, group) in rows? {
        super::delivery::remove(connection, queue, Weighed { sequence, size }, &mut counts)?;
        groups.extend(group);
        dropped += 1;
    }
    counts.write(connection)?;
    for group in groups {
        refresh_lane(connection, queue, &group)?;
    }
    Ok(dropped)
}

/// The message that was sent with this deduplication id a short while ago.
pub(super) fn seen(
    connection: &Connection,
    queue: i64,
    key: &str,
    now: i64,
) -> rusqlite::Result<Option<Sent>> {
    // A few at a time, so that no send waits for thousands.
    connection
        .prepare_cached(
            "DELETE FROM seen WHERE (queue, key) IN
                 (SELECT queue, key FROM seen WHERE expires <= ?1 ORDER BY expires LIMIT 4)",
        )?
        .execute([now])?;
    connection
        .prepare_cached(
            "SELECT id, sequence FROM seen WHERE queue = ?1 AND key = ?2 AND expires > ?3",
        )?
        .query_row(params![queue, key, now], |row| {
            let id: [u8; 16] = row.get(0)?;
            Ok(Sent {
                id: Uuid::from_bytes(id),
                sequence: row.get::<_, i64>(1)?.unsigned_abs(),
            })
        })
        .optional()
}

/// Notes that it was sent.
pub(super) fn note_seen(
    connection: &Connection,
    queue: i64,
    key: &str,
    expires: i64,
    sent: Sent,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO seen (queue, key, expires, id, sequence)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            queue,
            key,
            expires,
            sent.id.as_bytes().as_slice(),
            sent.sequence.cast_signed()
        ])?;
    Ok(())
}

/// The time of the last commit, in milliseconds since 1970.
pub(super) fn last_commit(connection: &Connection) -> rusqlite::Result<i64> {
    let seen = connection.query_row("SELECT seen_ms FROM timeline", [], |row| row.get(0));
    Ok(seen.optional()?.unwrap_or(0))
}
