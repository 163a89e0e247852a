//! What is done to buckets, on a connection: writes within a commit, reads past it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    BucketName, Fill, Found, KeyValueError, MAX_BYTES, MAX_PAGE, MAX_PAGE_BYTES, Page, Quota,
    Revision, Swapped,
};
use crate::runtime::Charge;

/// What an operation comes to: what it refuses is no failure of the store.
pub(super) type Done<T> = rusqlite::Result<Result<T, KeyValueError>>;

/// Digits of the longest number, and its sign.
const MAX_DIGITS: i64 = 40;

/// A bucket that is declared, with what it holds.
struct Row {
    id: i64,
    quota: Quota,
    keys: u64,
    bytes: u64,
}

impl Row {
    fn find(connection: &Connection, name: &BucketName) -> Done<Self> {
        let found = connection
            .prepare_cached(
                "SELECT id, max_keys, max_value, max_bytes, keys, bytes FROM bucket
                 WHERE name = ?1 AND declared",
            )?
            .query_row([name.as_str()], |row| {
                let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
                Ok(Self {
                    id: row.get(0)?,
                    quota: Quota {
                        max_keys: number(1)?,
                        max_value: number(2)?,
                        max_bytes: number(3)?,
                    },
                    keys: number(4)?,
                    bytes: number(5)?,
                })
            })
            .optional()?;
        Ok(found.ok_or_else(|| KeyValueError::Unknown(name.clone())))
    }

    /// Why it cannot hold so much.
    fn refusal(&self, name: &BucketName, keys: u64, bytes: u64) -> Option<KeyValueError> {
        let full = |what| Some(KeyValueError::Full(name.clone(), what));
        let Quota {
            max_keys,
            max_bytes,
            ..
        } = self.quota;
        if keys > max_keys && keys > self.keys {
            return full(format!("{max_keys} keys (`max-keys`)"));
        }
        if bytes > max_bytes && bytes > self.bytes {
            return full(format!("{max_bytes} bytes (`max-bytes`)"));
        }
        None
    }
}

/// A key as it is before an operation.
struct Stored {
    id: i64,
    version: i64,
    size: u64,
}

impl Stored {
    /// Does not read the value.
    fn find(connection: &Connection, bucket: i64, key: &str) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(
                "SELECT id, version, length(value) FROM entry WHERE bucket = ?1 AND key = ?2",
            )?
            .query_row(params![bucket, key.as_bytes()], |row| {
                Ok(Self {
                    id: row.get(0)?,
                    version: row.get(1)?,
                    size: row.get::<_, i64>(2)?.unsigned_abs(),
                })
            })
            .optional()
    }

    fn revision(&self) -> Revision {
        Revision {
            entry: self.id,
            version: self.version,
        }
    }
}

/// Of several changes of one key the last, in the place of the first.
fn last_of_each(changes: Vec<(String, Option<Vec<u8>>)>) -> Vec<(String, Option<Vec<u8>>)> {
    // With the standard hasher: guests choose the keys.
    let mut places: HashMap<String, usize> = HashMap::with_capacity(changes.len());
    let mut kept: Vec<(String, Option<Vec<u8>>)> = Vec::with_capacity(changes.len());
    for (key, value) in changes {
        match places.entry(key) {
            Entry::Occupied(place) => kept[*place.get()].1 = value,
            Entry::Vacant(place) => {
                kept.push((place.key().clone(), value));
                place.insert(kept.len() - 1);
            }
        }
    }
    kept
}

/// Sets the values of these keys, and deletes those without one: all or none.
pub(super) fn change(
    connection: &Connection,
    name: &BucketName,
    changes: Vec<(String, Option<Vec<u8>>)>,
) -> Done<()> {
    let row = match Row::find(connection, name)? {
        Ok(row) => row,
        Err(error) => return Ok(Err(error)),
    };
    let changes = last_of_each(changes);
    let mut plan = Vec::with_capacity(changes.len());
    let (mut keys, mut bytes) = (row.keys, row.bytes);
    for (key, value) in changes {
        let before = Stored::find(connection, row.id, &key)?;
        if let Some(before) = &before {
            keys = keys.saturating_sub(1);
            bytes = bytes.saturating_sub(key.len() as u64 + before.size);
        }
        if let Some(value) = &value {
            let (size, most) = (value.len() as u64, row.quota.max_value);
            if size > most {
                let bucket = name.clone();
                return Ok(Err(KeyValueError::TooLarge { bucket, size, most }));
            }
            keys += 1;
            bytes += key.len() as u64 + size;
        }
        plan.push((key, before, value));
    }
    if let Some(refusal) = row.refusal(name, keys, bytes) {
        return Ok(Err(refusal));
    }
    for (key, before, value) in plan {
        match (before, value) {
            (Some(before), Some(value)) => connection
                .prepare_cached("UPDATE entry SET value = ?2, version = version + 1 WHERE id = ?1")?
                .execute(params![before.id, value])?,
            (None, Some(value)) => connection
                .prepare_cached("INSERT INTO entry (bucket, key, value) VALUES (?1, ?2, ?3)")?
                .execute(params![row.id, key.as_bytes(), value])?,
            (Some(before), None) => connection
                .prepare_cached("DELETE FROM entry WHERE id = ?1")?
                .execute([before.id])?,
            (None, None) => continue,
        };
    }
    if (keys, bytes) != (row.keys, row.bytes) {
        connection
            .prepare_cached("UPDATE bucket SET keys = ?2, bytes = ?3 WHERE id = ?1")?
            .execute(params![row.id, keys.cast_signed(), bytes.cast_signed()])?;
    }
    Ok(Ok(()))
}

/// Sets the value of a key if it is still the one of this revision.
pub(super) fn swap(
    connection: &Connection,
    name: &BucketName,
    key: String,
    expected: Option<Revision>,
    value: Vec<u8>,
) -> Done<Swapped> {
    let now = match revision(connection, name, &key)? {
        Ok(now) => now,
        Err(error) => return Ok(Err(error)),
    };
    if now != expected {
        return Ok(Ok(Swapped::No(now)));
    }
    Ok(change(connection, name, vec![(key, Some(value))])?.map(|()| Swapped::Yes))
}

/// Adds to the number that a key has, within these bounds.
pub(super) fn increment(
    connection: &Connection,
    name: &BucketName,
    key: String,
    delta: i128,
    (least, most): (i128, i128),
) -> Done<i128> {
    let row = match Row::find(connection, name)? {
        Ok(row) => row,
        Err(error) => return Ok(Err(error)),
    };
    let number: Option<Option<String>> = connection
        .prepare_cached(
            "SELECT CASE WHEN length(value) <= ?3 THEN CAST(value AS TEXT) END FROM entry
             WHERE bucket = ?1 AND key = ?2",
        )?
        .query_row(params![row.id, key.as_bytes(), MAX_DIGITS], |row| {
            // Bytes that are no text are no number either.
            Ok(row.get_ref(0)?.as_str().ok().map(str::to_owned))
        })
        .optional()?;
    let before = match number {
        None => Some(0),
        Some(text) => text.and_then(|text| text.parse::<i128>().ok()),
    };
    let Some(before) = before else {
        return Ok(Err(KeyValueError::NotANumber));
    };
    let sum = before.saturating_add(delta);
    if !(least..=most).contains(&sum) {
        return Ok(Err(KeyValueError::Overflow(least, most)));
    }
    let value = sum.to_string().into_bytes();
    Ok(change(connection, name, vec![(key, Some(value))])?.map(|()| sum))
}

/// The values of these keys, in their order, each with its revision.
pub(super) fn get(
    connection: &Connection,
    name: &BucketName,
    keys: &[String],
    charge: &mut Charge,
) -> Done<Vec<Found>> {
    let row = match Row::find(connection, name)? {
        Ok(row) => row,
        Err(error) => return Ok(Err(error)),
    };
    let mut statement = connection
        .prepare_cached("SELECT id, version, value FROM entry WHERE bucket = ?1 AND key = ?2")?;
    let mut values = Vec::with_capacity(keys.len());
    let mut left = MAX_BYTES;
    for key in keys {
        let mut rows = statement.query(params![row.id, key.as_bytes()])?;
        let Some(found) = rows.next()? else {
            values.push(None);
            continue;
        };
        let revision = Revision {
            entry: found.get(0)?,
            version: found.get(1)?,
        };
        let value = found.get_ref(2)?.as_blob()?;
        let size = value.len() as u64;
        if size > left {
            let what = format!("the values have more than {MAX_BYTES} bytes; ask for fewer");
            return Ok(Err(KeyValueError::TooMuch(what)));
        }
        left -= size;
        // Before it is copied.
        if !charge.grow(size) {
            return Ok(Err(KeyValueError::NoMemory));
        }
        values.push(Some((value.to_vec(), revision)));
    }
    Ok(Ok(values))
}

/// The revision of a key. None if there is no such key.
pub(super) fn revision(
    connection: &Connection,
    name: &BucketName,
    key: &str,
) -> Done<Option<Revision>> {
    let row = match Row::find(connection, name)? {
        Ok(row) => row,
        Err(error) => return Ok(Err(error)),
    };
    let entry = Stored::find(connection, row.id, key)?;
    Ok(Ok(entry.map(|entry| entry.revision())))
}

/// The keys that come after an entry, as many as make a page.
pub(super) fn list(connection: &Connection, name: &BucketName, after: u64) -> Done<Page> {
    let row = match Row::find(connection, name)? {
        Ok(row) => row,
        Err(error) => return Ok(Err(error)),
    };
    let Ok(after) = i64::try_from(after) else {
        return Ok(Err(KeyValueError::Cursor));
    };
    let mut statement = connection.prepare_cached(
        "SELECT id, key FROM entry INDEXED BY entry_order
         WHERE bucket = ?1 AND id > ?2 ORDER BY id",
    )?;
    let mut rows = statement.query([row.id, after])?;
    let (mut page, mut bytes, mut last) = (Page::default(), 0, after);
    while let Some(found) = rows.next()? {
        let key = found.get_ref(1)?.as_blob()?;
        bytes += key.len();
        let is_full = page.keys.len() >= MAX_PAGE || bytes > MAX_PAGE_BYTES;
        if is_full {
            page.next = Some(last.unsigned_abs());
            break;
        }
        last = found.get(0)?;
        page.keys.push(String::from_utf8_lossy(key).into_owned());
    }
    Ok(Ok(page))
}

/// Closes all buckets but these. One that is empty goes.
pub(super) fn retain(connection: &Connection, buckets: &[BucketName]) -> rusqlite::Result<()> {
    let all = fills(connection, "SELECT name, keys, bytes, declared FROM bucket")?;
    for (fill, declared) in all {
        if buckets.contains(&fill.name) {
            continue;
        }
        let name = fill.name.as_str();
        if fill.keys == 0 {
            connection.execute("DELETE FROM bucket WHERE name = ?1", [name])?;
        } else if declared {
            connection.execute("UPDATE bucket SET declared = 0 WHERE name = ?1", [name])?;
        }
    }
    Ok(())
}

/// Adds these buckets, or changes their limits. Answers the others that have something in
/// them.
pub(super) fn declare(
    connection: &Connection,
    buckets: &[(BucketName, Quota)],
) -> rusqlite::Result<Vec<Fill>> {
    for (name, quota) in buckets {
        let Quota {
            max_keys,
            max_value,
            max_bytes,
        } = *quota;
        // What is as it was is not written: a start without changes waits for no disk.
        connection.execute(
            "INSERT INTO bucket (name, max_keys, max_value, max_bytes, declared)
             VALUES (?1, ?2, ?3, ?4, 1)
             ON CONFLICT (name) DO UPDATE SET max_keys = excluded.max_keys,
                 max_value = excluded.max_value, max_bytes = excluded.max_bytes, declared = 1
             WHERE max_keys != excluded.max_keys OR max_value != excluded.max_value
                 OR max_bytes != excluded.max_bytes OR NOT declared",
            params![
                name.as_str(),
                max_keys.cast_signed(),
                max_value.cast_signed(),
                max_bytes.cast_signed()
            ],
        )?;
    }
    let is_declared = |name: &BucketName| buckets.iter().any(|(bucket, _)| bucket == name);
    let text = "SELECT name, keys, bytes, declared FROM bucket WHERE keys > 0";
    let others = fills(connection, text)?.into_iter().map(|(fill, _)| fill);
    Ok(others.filter(|fill| !is_declared(&fill.name)).collect())
}

/// The fullest buckets, up to so many.
pub(super) fn overview(connection: &Connection, most: usize) -> rusqlite::Result<Vec<Fill>> {
    let text = format!(
        "SELECT name, keys, bytes, declared FROM bucket ORDER BY bytes DESC, name LIMIT {most}"
    );
    let fills = fills(connection, &text)?;
    Ok(fills.into_iter().map(|(fill, _)| fill).collect())
}

fn fills(connection: &Connection, text: &str) -> rusqlite::Result<Vec<(Fill, bool)>> {
    let mut statement = connection.prepare_cached(text)?;
    let fills = statement.query_map([], |row| {
        let name: String = row.get(0)?;
        let name = BucketName::new(&name)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let fill = Fill {
            name,
            keys: number(1)?,
            bytes: number(2)?,
        };
        Ok((fill, row.get(3)?))
    })?;
    fills.collect()
}
