//! All queues at a glance, without counting messages.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};

use super::rows::name_at;
use crate::queue::Glance;

const QUEUES: &str =
    "SELECT id, name, messages, bytes FROM queue ORDER BY messages DESC, name LIMIT ?1";
/// One step in an index, however many messages there are.
pub(super) const OLDEST: &str =
    "SELECT born FROM message WHERE queue = ?1 ORDER BY expires LIMIT 1";

/// The queues with the most messages, up to so many, as they look at this age of the store.
pub(super) fn overview(
    connection: &Connection,
    age: i64,
    most: usize,
) -> rusqlite::Result<Vec<Glance>> {
    let mut queues = connection.prepare_cached(QUEUES)?;
    let mut oldest = connection.prepare_cached(OLDEST)?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let glances = queues.query_map([most], |row| {
        let id: i64 = row.get(0)?;
        let born: Option<i64> = oldest.query_row([id], |row| row.get(0)).optional()?;
        Ok(Glance {
            name: name_at(row, 1)?,
            messages: row.get::<_, i64>(2)?.unsigned_abs(),
            bytes: row.get::<_, i64>(3)?.unsigned_abs(),
            oldest: born.map_or(Duration::ZERO, |born| {
                Duration::from_millis((age - born).max(0).unsigned_abs())
            }),
        })
    })?;
    glances.collect()
}
