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
//!   [`WriteError::Broken`] to everything from then on, and the host is to end. What failed
//!   is never tried again: an fsync that succeeds after one that failed says nothing.
//! - So the writer moves the log into the database itself (a checkpoint): SQLite would keep
//!   to itself what fails there.

mod backup;
mod clock;
mod disks;
mod log;
mod metrics;

use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, ffi};
use tokio::sync::{mpsc, oneshot, watch};

pub use backup::{BackupError, back_up};
pub use clock::{Age, Clock, Moment, SystemClock, Timeline};
pub use disks::Disks;
use log::Log;
pub use metrics::StoreMetrics;

/// Operations that wait for the writer; who comes then waits to get in.
const WAITING: usize = 4096;
/// Operations of one commit at most, and how long it may take to apply them: the
/// first should not wait for many others.
const MAX_OPERATIONS: usize = 512;
const MAX_APPLYING: Duration = Duration::from_millis(5);
/// The part of a commit's time that may be spent on making it larger: an eighth.
const GATHERING: u32 = 8;
/// Between two looks meanwhile; the system makes it somewhat longer.
const NAP: Duration = Duration::from_micros(50);
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

/// How the disk of a database is, as far as it was asked to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// It writes.
    #[default]
    Sound,
    /// It has no room: what is to be written is refused, until something can be written.
    Full,
    /// It failed: nothing is written any more.
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
    disk: watch::Receiver<Disk>,
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
        let mut connection = Connection::open(path).map_err(failed)?;
        let timeline = prepare(&connection, clock, migrate).map_err(failed)?;
        let (requests, waiting) = mpsc::channel(WAITING);
        let (say, disk) = watch::channel(Disk::Sound);
        let path: Arc<Path> = path.into();
        let log = Log::of(&mut connection).map_err(failed)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let (age, metrics) = (timeline.age(), StoreMetrics::new(&name));
        let store = Store {
            connection,
            path: Arc::clone(&path),
            log,
            say,
            metrics: metrics.clone(),
            last: Cell::default(),
        };
        let thread = std::thread::Builder::new()
            .name("dunlin-store".into())
            .spawn(move || store.run(timeline, waiting))
            .map_err(|error| failed(rusqlite::Error::ToSqlConversionFailure(error.into())))?;
        let writer = Self {
            requests,
            disk,
            path,
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
            configure(&connection)?;
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
        match &*self.disk.borrow() {
            Disk::Broken(why) => WriteError::Broken(why.clone()),
            Disk::Sound | Disk::Full => WriteError::Broken("the host ends".to_owned()),
        }
    }

    /// How the disk is, and when that changes.
    #[must_use]
    pub fn disk(&self) -> watch::Receiver<Disk> {
        self.disk.clone()
    }

    /// How long it has been open, over all its life, in milliseconds.
    #[must_use]
    pub fn age(&self) -> i64 {
        self.age.now()
    }

    /// Writes the least there is: on a disk that was full it shows whether that has passed.
    ///
    /// # Errors
    /// If nothing was written.
    pub async fn probe(&self) -> Result<(), WriteError> {
        let touch = "INSERT INTO timeline (one, seen_ms, age_ms) VALUES (1, ?1, ?2)
             ON CONFLICT (one) DO UPDATE SET seen_ms = excluded.seen_ms";
        self.write(move |connection, at| connection.execute(touch, [at.now, at.age]).map(drop))
            .await
    }

    /// What is counted of its commits.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// How the disk has failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        match &*self.disk.borrow() {
            Disk::Broken(why) => Some(why.clone()),
            Disk::Sound | Disk::Full => None,
        }
    }

    /// Waits until the disk has failed, and says how. A host that hears of it ends.
    pub async fn broken(&self) -> String {
        let mut disk = self.disk.clone();
        loop {
            if let Disk::Broken(why) = &*disk.borrow_and_update() {
                return why.clone();
            }
            if disk.changed().await.is_err() {
                // The writer has ended in order.
                return std::future::pending().await;
            }
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

/// What writers and readers have in common.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // Else SQLite prepares many statements anew for each value that is bound, to see whether
    // another plan would suit it: there are no statistics here that could say so.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
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
    configure(connection)?;
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

/// Whether something was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrote {
    Something,
    Nothing,
}

/// What the writer's thread has.
struct Store {
    connection: Connection,
    path: Arc<Path>,
    log: Log,
    say: watch::Sender<Disk>,
    metrics: StoreMetrics,
    last: Cell<Last>,
}

/// The last commit that had something for the disk.
#[derive(Clone, Copy, Default)]
struct Last {
    /// Operations in it.
    answered: usize,
    /// How long it took.
    took: Duration,
}

impl Store {
    fn run(mut self, mut timeline: Timeline, mut waiting: mpsc::Receiver<Box<dyn Request>>) {
        self.connection.set_prepared_statement_cache_capacity(128);
        let mut batch = Vec::new();
        while let Some(first) = waiting.blocking_recv() {
            batch.push(first);
            let written = catch_unwind(AssertUnwindSafe(|| {
                self.write(timeline.now(), &mut batch, &mut waiting)
            }));
            let outcome = written.unwrap_or_else(|_| Err(self.broken("an operation panicked")));
            if outcome.is_err() && !self.connection.is_autocommit() {
                // What it cannot undo is undone when the file is next opened.
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            // Said before anybody is answered.
            match &outcome {
                Ok(Wrote::Something) => self.is(Disk::Sound),
                Ok(Wrote::Nothing) => {}
                Err(WriteError::Full) => self.is(Disk::Full),
                Err(WriteError::Broken(why)) => {
                    self.is(Disk::Broken(why.clone()));
                    end(&mut waiting, &mut batch);
                }
            }
            if outcome.is_ok() {
                self.metrics.operations.inc_by(batch.len() as u64);
            }
            let outcome = outcome.map(|_| ());
            for request in batch.drain(..) {
                request.answer(outcome.clone());
            }
            // What was answered is safe in the log.
            if outcome.is_ok()
                && let Err(error) = self.log.tend(&self.connection)
            {
                let error = self.broken(&describe(&error));
                if let WriteError::Broken(why) = &error {
                    self.is(Disk::Broken(why.clone()));
                }
                end(&mut waiting, &mut batch);
                for request in batch.drain(..) {
                    request.answer(Err(error.clone()));
                }
            }
        }
        if matches!(&*self.say.borrow(), Disk::Broken(_)) {
            // The next start does it, from what the disk has.
            let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            let _ = self.connection.set_db_config(keep, true);
        }
    }

    fn is(&self, disk: Disk) {
        self.say.send_if_modified(|before| {
            let changes = *before != disk;
            *before = disk;
            changes
        });
    }

    fn broken(&self, why: &str) -> WriteError {
        WriteError::Broken(format!("the database {}: {why}", self.path.display()))
    }

    /// A full disk is told from all else: it passes.
    fn classify(&self, error: &rusqlite::Error) -> WriteError {
        match is_full(error) {
            true => WriteError::Full,
            false => self.broken(&describe(error)),
        }
    }

    /// Waits a little for one more operation. Who was answered by the last commit is about to
    /// come again, and would else wait for two: so where several come at once, a part of the
    /// time that a commit takes is spent on a larger one. Who is alone never waits.
    fn gather(
        &self,
        waiting: &mut mpsc::Receiver<Box<dyn Request>>,
        began: Instant,
    ) -> Option<Box<dyn Request>> {
        let last = self.last.get();
        if last.answered < 2 {
            return None;
        }
        // A disk that once took a second is no reason to wait for long.
        let window = (last.took / GATHERING).min(MAX_APPLYING);
        // Nobody comes any more, most likely.
        let quiet = Instant::now() + (window / 4).max(NAP);
        loop {
            let now = Instant::now();
            if now >= quiet || now.duration_since(began) + NAP > window {
                return None;
            }
            std::thread::sleep(NAP);
            if let Ok(request) = waiting.try_recv() {
                return Some(request);
            }
        }
    }

    /// Writes what waits, as one.
    fn write(
        &self,
        at: Moment,
        batch: &mut Vec<Box<dyn Request>>,
        waiting: &mut mpsc::Receiver<Box<dyn Request>>,
    ) -> Result<Wrote, WriteError> {
        let connection = &self.connection;
        let began = Instant::now();
        self.execute("BEGIN IMMEDIATE")?;
        let before = connection.total_changes();
        loop {
            let request = batch.last_mut().expect("one came");
            let applied = request.apply(connection, at);
            applied.map_err(|error| self.classify(&error))?;
            if batch.len() >= MAX_OPERATIONS || began.elapsed() >= MAX_APPLYING {
                break;
            }
            match waiting
                .try_recv()
                .ok()
                .or_else(|| self.gather(waiting, began))
            {
                Some(request) => batch.push(request),
                None => break,
            }
        }
        if connection.total_changes() == before {
            // Nothing for the disk: who finds a queue empty waits for no fsync.
            self.execute("COMMIT")?;
            return Ok(Wrote::Nothing);
        }
        connection
            .prepare_cached(
                "INSERT INTO timeline (one, seen_ms, age_ms) VALUES (1, ?1, ?2)
                 ON CONFLICT (one) DO UPDATE SET seen_ms = excluded.seen_ms,
                     age_ms = excluded.age_ms",
            )
            .and_then(|mut statement| statement.execute([at.now, at.age]))
            .map_err(|error| self.classify(&error))?;
        let applied = Instant::now();
        self.execute("COMMIT")?;
        let took = applied.elapsed();
        self.metrics.commit.observe(took.as_secs_f64());
        self.last.set(Last {
            answered: batch.len(),
            took,
        });
        Ok(Wrote::Something)
    }

    fn execute(&self, statement: &str) -> Result<(), WriteError> {
        self.connection
            .prepare_cached(statement)
            .and_then(|mut statement| statement.execute([]))
            .map(|_| ())
            .map_err(|error| self.classify(&error))
    }
}

/// Takes what still waits: it will be answered, and nothing comes after it.
fn end(waiting: &mut mpsc::Receiver<Box<dyn Request>>, batch: &mut Vec<Box<dyn Request>>) {
    waiting.close();
    while let Some(request) = waiting.blocking_recv() {
        batch.push(request);
    }
}

/// What SQLite says, and in which call.
fn describe(error: &rusqlite::Error) -> String {
    let call = match error.sqlite_error().map(|error| error.extended_code) {
        Some(ffi::SQLITE_IOERR_FSYNC) => " in fsync",
        Some(ffi::SQLITE_IOERR_WRITE) => " in write",
        Some(ffi::SQLITE_IOERR_READ) => " in read",
        _ => "",
    };
    format!("{error}{call}")
}

/// Also if only the index of the log cannot grow.
fn is_full(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || extended == Some(ffi::SQLITE_IOERR_SHMSIZE)
}

#[cfg(test)]
mod tests;
