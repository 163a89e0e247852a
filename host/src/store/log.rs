//! The log that commits go to before they go to the database (SQLite's WAL).
//!
//! SQLite would move it into the database by itself, and keep to itself what fails there.
//!
//! It begins anew when all of it was moved and nobody reads it any more. Where there is
//! always somebody who reads that comes about by luck, and the log would grow until the disk
//! is full. So one that has become large is moved while the writer waits: who begins to read
//! then reads the state that is being moved, and those before them read for milliseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::is_full;

/// Pages of the log after which it is moved into the database: SQLite's own number.
const CHECKPOINT_PAGES: i32 = 1000;
/// Pages of a log that is large, some 64 MiB.
const LARGE: i32 = 16 * CHECKPOINT_PAGES;
/// How long the writer waits then for those who read. A backup may read for minutes: while
/// there is one, the log grows, and it is tried again after as many pages.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the writer waits otherwise, should another process have the database: what
/// rusqlite sets.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The log of a connection.
pub(super) struct Log {
    /// Its pages after the last commit.
    pages: Arc<AtomicI32>,
    /// So many of them are moved.
    most: i32,
}

impl Log {
    /// Moves what is left of it, and takes over from SQLite.
    ///
    /// A host that ended when an fsync failed may have left pages that the disk does not
    /// have but the kernel does: they are written again, before anything counts on them.
    pub(super) fn of(connection: &mut Connection) -> rusqlite::Result<Self> {
        if let Err(error) = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)
            && !passes(&error)
        {
            return Err(error);
        }
        let pages = Arc::new(AtomicI32::new(0));
        let counted = Arc::clone(&pages);
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            counted.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            pages,
            most: CHECKPOINT_PAGES,
        })
    }

    /// Moves it into the database, once there is enough of it.
    pub(super) fn tend(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.most {
            return Ok(());
        }
        let (moved, step) = match pages < LARGE {
            true => {
                let mode = CheckpointMode::PASSIVE;
                (
                    connection.wal_checkpoint_v2(None::<&str>, mode),
                    CHECKPOINT_PAGES,
                )
            }
            false => (begin_anew(connection)?, LARGE),
        };
        let is_whole = match moved {
            Ok((pages, moved)) => pages == moved,
            Err(error) if passes(&error) => false,
            Err(error) => return Err(error),
        };
        if is_whole {
            // The next commit says what it adds to.
            self.pages.store(0, Ordering::Relaxed);
            self.most = CHECKPOINT_PAGES;
        } else {
            // What could not be moved now is not tried with each commit.
            self.most = pages.saturating_add(step);
        }
        Ok(())
    }
}

/// Moves all of it and gives its space back to the disk, if those who read it are done soon.
fn begin_anew(connection: &Connection) -> rusqlite::Result<rusqlite::Result<(i32, i32)>> {
    connection.busy_timeout(PATIENCE)?;
    let moved = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE);
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(moved)
}

/// Whether moving the log may succeed later: the database has no room to grow, or somebody
/// reads it.
fn passes(error: &rusqlite::Error) -> bool {
    is_full(error) || error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}
