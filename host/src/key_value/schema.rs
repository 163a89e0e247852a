//! The tables of `values.db`.

use rusqlite::Connection;

/// The version of the tables here.
const VERSION: i64 = 1;

/// Keys are blobs: a text would end at a NUL for some of SQLite's functions.
///
/// Numbers of entries are never used again (`AUTOINCREMENT`): cursors and revisions name
/// them. The second index has them too, as every index does, and so says what comes next in
/// the order of listings.
const TABLES: &str = "
CREATE TABLE bucket (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    max_keys INTEGER NOT NULL,
    max_value INTEGER NOT NULL,
    max_bytes INTEGER NOT NULL,
    declared INTEGER NOT NULL,
    keys INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    version INTEGER NOT NULL DEFAULT 0,
    value BLOB NOT NULL
);
CREATE UNIQUE INDEX entry_key ON entry (bucket, key);
CREATE INDEX entry_order ON entry (bucket);
";

/// Makes the tables.
pub(super) fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        // A newer host wrote it, and its rules are not known here.
        let what = format!(
            "it was written by a newer version of Dunlin (tables {version}, here {VERSION})"
        );
        return Err(rusqlite::Error::ToSqlConversionFailure(what.into()));
    }
    if version == 0 {
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(())
}
