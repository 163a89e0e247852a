//! The log that commits go to before they go to the database (SQLite's WAL).
//!
//! SQLite would move it into the database by itself, and keep to itself what fails there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::is_full;

/// Pages of the log after which it is moved into the database: SQLite's own number.
const CHECKPOINT_PAGES: i32 = 1000;

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
        let moved = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE);
        let is_whole = match moved {
            Ok((pages, moved)) => pages == moved,
            Err(error) if passes(&error) => false,
            Err(error) => return Err(error),
        };
        // What could not be moved now is not tried with each commit.
        self.most = match is_whole {
            true => CHECKPOINT_PAGES,
            false => pages.saturating_add(CHECKPOINT_PAGES),
        };
        Ok(())
    }
}

/// Whether moving the log may succeed later: the database has no room to grow, or somebody
/// reads it.
fn passes(error: &rusqlite::Error) -> bool {
    is_full(error) || error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}
