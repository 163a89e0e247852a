//! SQLite for what must survive: one thread writes each database, and many writes
//! share a commit.
//!
//! A commit waits for the disk, some milliseconds, whether it holds one operation or
//! five hundred. So the writer takes what has come meanwhile, applies it in one
//! transaction, commits, and only then answers: an acknowledgement means that the disk
//! has it (`journal_mode = WAL`, `synchronous = FULL`).
//!
//! - An operation looks before it writes: what it refuses is part of its result.
//! - A full disk fails the operations of that commit with [`WriteError::Full`]; the next
//!   ones are tried again.
//! - After any other failure of the disk nobody knows what it holds: the writer answers
//!   [`WriteError::Broken`] to everything from then on, and the host is to end.

mod backup;
mod clock;
mod metrics;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};
use tokio::sync::{mpsc, oneshot, watch};

pub use backup::{BackupError, back_up};
pub use clock::{Age, Clock, Moment, SystemClock, Timeline};
pub use metrics::StoreMetrics;

/// Operations that wait for the writer; who comes then waits to get in.
const WAITING: usize = 4096;
/// Operations of one commit at most, and how long it may take to apply them: the
/// first should not wait for many others.
const MAX_OPERATIONS: usize = 512;
const MAX_APPLYING: Duration = Duration::from_millis(5);
/// Pages that a connection keeps in memory, in KiB.
const CACHE_KIB: i64 = 16 << 10;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the database {}: {error}; see that the disk has room and is sound, or choose another --state", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What SQLite said.
    pub error: rusqlite::Error,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The disk has no room. It may have again.
    #[error("the disk is full")]
    Full,
    /// The disk failed, or the host ends: nothing is written any more.
    #[error("the store is broken: {0}")]
    Broken(String),
}

/// An operation and who waits for it.
trait Request: Send {
    /// Does it, in a transaction, at the moment of the commit.
    fn apply(&mut self, connection: &Connection, at: Moment) -> rusqlite::Result<()>;
    /// Answers, once the disk has it or has not.
    fn answer(self: Box<Self>, outcome: Result<(), WriteError>);
}

struct Write<T, F> {
    operate: Option<F>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, WriteError>>,
}

impl<T, F> Request for Write<T, F>
where
    T: Send,
    F: FnOnce(&Connection, Moment) -> rusqlite::Result<T> + Send,
{
    fn apply(&mut self, connection: &Connection, at: Moment) -> rusqlite::Result<()> {
        let operate = self.operate.take().expect("it is applied once");
        self.result = Some(operate(connection, at)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), WriteError>) {
        let Self { result, reply, .. } = *self;
        let result = outcome.map(|()| result.expect("what is committed was applied"));
        // Nobody may be left to hear of it.
        let _ = reply.send(result);
    }
}

/// A database that this process writes. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    requests: mpsc::Sender<Box<dyn Request>>,
    broken: watch::Receiver<Option<String>>,
    path: Arc<Path>,
    age: Age,
    metrics: StoreMetrics,
}

impl Writer {
    /// Opens a database, brings its schema up to date, and starts its thread. Also
    /// answers the thread, which ends when all writers are gone and what they asked
    /// for is done.
    ///
    /// `migrate` gets the connection in a transaction.
    ///
    /// # Errors
    /// If the file cannot be opened or is none of ours.
    pub fn open(
        path: &Path,
        clock: Arc<dyn Clock>,
        migrate: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        let failed = |error| OpenError {
            path: path.to_owned(),
            error,
        };
        private(path)
            .map_err(|error| failed(rusqlite::Error::ToSqlConversionFailure(error.into())))?;
        let connection = Connection::open(path).map_err(failed)?;
        let timeline = prepare(&connection, clock, migrate).map_err(failed)?;
        let (requests, waiting) = mpsc::channel(WAITING);
        let (say_broken, broken) = watch::channel(None);
        let (age, metrics) = (timeline.age(), StoreMetrics::new());
        let counted = metrics.clone();
        let thread = std::thread::Builder::new()
            .name("dunlin-store".into())
            .spawn(move || run(&connection, timeline, waiting, &say_broken, &counted))
            .map_err(|error| failed(rusqlite::Error::ToSqlConversionFailure(error.into())))?;
        let writer = Self {
            requests,
            broken,
            path: path.into(),
            age,
            metrics,
        };
        Ok((writer, thread))
    }

    /// A connection that only reads, for who lists and counts.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn reader(&self) -> Result<Connection, OpenError> {
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            Ok(connection)
        };
        open().map_err(|error| OpenError {
            path: self.path.to_path_buf(),
            error,
        })
    }

    /// Applies an operation and waits until the disk has it. `operate` gets the moment
    /// of the commit.
    ///
    /// An operation that was handed over is done, also if this is dropped.
    ///
    /// # Errors
    /// If nothing was written.
    pub async fn write<T, F>(&self, operate: F) -> Result<T, WriteError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, Moment) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = Box::new(Write {
            operate: Some(operate),
            result: None,
            reply,
        });
        if self.requests.send(request).await.is_err() {
            return Err(self.ended());
        }
        answer.await.unwrap_or_else(|_| Err(self.ended()))
    }

    fn ended(&self) -> WriteError {
        let reason = self.failure();
        WriteError::Broken(reason.unwrap_or_else(|| "the host ends".to_owned()))
    }

    /// How long it has been open, over all its life, in milliseconds.
    #[must_use]
    pub fn age(&self) -> i64 {
        self.age.now()
    }

    /// What is counted of its commits.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// How the disk has failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.broken.borrow().clone()
    }

    /// Waits until the disk has failed, and says how. A host that hears of it ends.
    pub async fn broken(&self) -> String {
        let mut broken = self.broken.clone();
        match broken.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The writer has ended in order.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Makes the file, if it is not there, so that nobody else can read it. SQLite gives those
/// beside it the same mode.
fn private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.open(path).map(drop)
}

fn prepare(
    connection: &Connection,
    clock: Arc<dyn Clock>,
    migrate: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<Timeline> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        // Readers would hold up the writer, and a reader of another process might find half
        // of a commit.
        let problem = format!(
            "it cannot have a write-ahead log there (its journal mode stays `{mode}`): put it on a \
             local file system"
        );
        return Err(rusqlite::Error::ToSqlConversionFailure(problem.into()));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS timeline (one INTEGER PRIMARY KEY CHECK (one = 1),
             seen_ms INTEGER NOT NULL, age_ms INTEGER NOT NULL)",
    )?;
    migrate(connection)?;
    let seen = connection
        .query_row("SELECT seen_ms, age_ms FROM timeline", [], |row| {
            Ok(Moment {
                now: row.get(0)?,
                age: row.get(1)?,
            })
        })
        .optional()?
        .unwrap_or(Moment { now: 0, age: 0 });
    connection.execute_batch("COMMIT")?;
    Ok(Timeline::new(clock, seen))
}

fn run(
    connection: &Connection,
    mut timeline: Timeline,
    mut waiting: mpsc::Receiver<Box<dyn Request>>,
    say_broken: &watch::Sender<Option<String>>,
    metrics: &StoreMetrics,
) {
    connection.set_prepared_statement_cache_capacity(128);
    let mut batch = Vec::new();
    while let Some(first) = waiting.blocking_recv() {
        batch.push(first);
        let written = catch_unwind(AssertUnwindSafe(|| {
            write(
                connection,
                timeline.now(),
                &mut batch,
                &mut waiting,
                metrics,
            )
        }));
        let outcome =
            written.unwrap_or_else(|_| Err(WriteError::Broken("an operation panicked".to_owned())));
        if outcome.is_err() && !connection.is_autocommit() {
            // What it cannot undo is undone when the file is next opened.
            let _ = connection.execute_batch("ROLLBACK");
        }
        if let Err(WriteError::Broken(reason)) = &outcome {
            // Said before anybody is answered.
            say_broken.send_replace(Some(reason.clone()));
            waiting.close();
            while let Some(request) = waiting.blocking_recv() {
                batch.push(request);
            }
        }
        if outcome.is_ok() {
            metrics.operations.inc_by(batch.len() as u64);
        }
        for request in batch.drain(..) {
            request.answer(outcome.clone());
        }
    }
}

/// Writes what waits, as one.
fn write(
    connection: &Connection,
    at: Moment,
    batch: &mut Vec<Box<dyn Request>>,
    waiting: &mut mpsc::Receiver<Box<dyn Request>>,
    metrics: &StoreMetrics,
) -> Result<(), WriteError> {
    let began = Instant::now();
    execute(connection, "BEGIN IMMEDIATE")?;
    let before = connection.total_changes();
    loop {
        let request = batch.last_mut().expect("one came");
        let applied = request.apply(connection, at);
        applied.map_err(|error| classify(&error))?;
        if batch.len() >= MAX_OPERATIONS || began.elapsed() >= MAX_APPLYING {
            break;
        }
        match waiting.try_recv() {
            Ok(request) => batch.push(request),
            Err(_) => break,
        }
    }
    if connection.total_changes() == before {
        // Nothing for the disk: who finds a queue empty waits for no fsync.
        return execute(connection, "COMMIT");
    }
    connection
        .prepare_cached(
            "INSERT INTO timeline (one, seen_ms, age_ms) VALUES (1, ?1, ?2)
             ON CONFLICT (one) DO UPDATE SET seen_ms = excluded.seen_ms,
                 age_ms = excluded.age_ms",
        )
        .and_then(|mut statement| statement.execute([at.now, at.age]))
        .map_err(|error| classify(&error))?;
    let applied = Instant::now();
    execute(connection, "COMMIT")?;
    metrics.commit.observe(applied.elapsed().as_secs_f64());
    Ok(())
}

fn execute(connection: &Connection, statement: &str) -> Result<(), WriteError> {
    connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.execute([]))
        .map(|_| ())
        .map_err(|error| classify(&error))
}

/// The index of the WAL cannot grow.
const IOERR_SHMSIZE: i32 = 10 | (19 << 8);

/// A full disk is told from all else: it passes.
fn classify(error: &rusqlite::Error) -> WriteError {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => WriteError::Full,
        _ if extended == Some(IOERR_SHMSIZE) => WriteError::Full,
        _ => WriteError::Broken(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
