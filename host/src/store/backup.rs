//! Copies of a database that are whole, whatever is written meanwhile.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The copy cannot be written.
    #[error("cannot write {}: {error}; name a new file in a folder that has room", path.display())]
    Target {
        /// The copy.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// There is no room for the copy.
    #[error("the disk has no room for {}; make some, or name a file on another disk", path.display())]
    Full {
        /// The copy.
        path: PathBuf,
    },
    /// The database cannot be read, or the copy is not sound.
    #[error("cannot copy {}: {error}", path.display())]
    Source {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        error: rusqlite::Error,
    },
}

/// Copies a database as it is at this moment into a new file, which only its owner can
/// read, and returns when the disk has it. Who writes the database meanwhile is not held up.
///
/// # Errors
/// If the file is there already, or cannot be written, or the copy is not sound.
pub fn back_up(database: &Path, to: &Path) -> Result<(), BackupError> {
    let target = |error| BackupError::Target {
        path: to.to_owned(),
        error,
    };
    // To SQLite some names that are not absolute are no files, such as `:memory:`.
    let to = &std::path::absolute(to).map_err(target)?;
    let mut options = OpenOptions::new();
    // SQLite takes an empty file for its target, and so nobody else ever sees the content.
    options.write(true).create_new(true).mode(0o600);
    options.open(to).map_err(target)?;
    let copied = copy(database, to);
    if copied.is_err() {
        let _ = std::fs::remove_file(to);
    }
    copied.map_err(|error| failure(database, to, error))?;
    let folder = to.parent().unwrap_or(to);
    let synced = File::open(to).and_then(|file| file.sync_all());
    synced
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(target)
}

pub(super) fn failure(database: &Path, to: &Path, error: rusqlite::Error) -> BackupError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => BackupError::Full {
            path: to.to_owned(),
        },
        _ => BackupError::Source {
            path: database.to_owned(),
            error,
        },
    }
}

fn copy(database: &Path, to: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(database, flags)?;
    source.busy_timeout(std::time::Duration::from_secs(10))?;
    let name = to
        .to_str()
        .ok_or_else(|| rusqlite::Error::InvalidPath(to.to_owned()))?;
    source.execute("VACUUM INTO ?1", [name])?;
    let copy = Connection::open_with_flags(to, flags)?;
    let found: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        problem => Err(rusqlite::Error::ToSqlConversionFailure(
            format!("the copy is not sound: {problem}").into(),
        )),
    }
}
