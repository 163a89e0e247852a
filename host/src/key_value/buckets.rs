//! The buckets of this machine: who writes them, and who reads.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::operations::{self, Done};
use super::{
    BucketName, Fill, Found, KeyValueError, MAX_BATCH, MAX_BYTES, MAX_KEY, Page, Quota, Revision,
    Swapped, schema,
};
use crate::runtime::Charge;
use crate::store::{Clock, Disk, OpenError, StoreMetrics, WriteError, Writer};

/// Reads at once: more would only wait for the same disk. Who comes then waits in turn.
const READERS: usize = 4;

/// All buckets. Every answer to a write comes when it is durable; who asked may be gone by
/// then, and it is done all the same.
pub struct Buckets {
    writer: Writer,
    readers: Arc<Readers>,
    /// Where reads wait for the disk: never on a core.
    blocking: Handle,
}

/// Connections that read.
struct Readers {
    idle: Mutex<Vec<Connection>>,
    room: Arc<Semaphore>,
}

impl Readers {
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer, and what it holds of the memory budget.
pub struct Held<T> {
    /// The answer.
    pub value: T,
    /// To be kept as long as it.
    pub charge: Charge,
}

impl Buckets {
    /// Opens the buckets. `blocking` is a runtime whose threads may wait for the disk. Also
    /// answers the writer's thread, which ends when this is dropped and all is written.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(
        path: &Path,
        clock: Arc<dyn Clock>,
        blocking: Handle,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        let (writer, thread) = Writer::open(path, clock, schema::migrate)?;
        let buckets = Self {
            writer,
            readers: Arc::new(Readers {
                idle: Mutex::default(),
                room: Arc::new(Semaphore::new(READERS)),
            }),
            blocking,
        };
        Ok((buckets, thread))
    }

    /// What is counted of the store.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        self.writer.metrics()
    }

    /// How the disk is, and when that changes.
    #[must_use]
    pub fn disk(&self) -> watch::Receiver<Disk> {
        self.writer.disk()
    }

    /// Waits until the disk has failed, and says how.
    pub async fn broken(&self) -> String {
        self.writer.broken().await
    }

    /// Looks whether a disk that was full has room again.
    pub async fn probe(&self) {
        // What comes of it is said by the disk itself.
        let _ = self.writer.probe().await;
    }

    /// Closes all buckets but these. One that is empty goes; what is in the others is there
    /// again when they are declared.
    ///
    /// # Errors
    /// If nothing was written.
    pub async fn retain(&self, buckets: Vec<BucketName>) -> Result<(), WriteError> {
        let retain = move |connection: &Connection, _| operations::retain(connection, &buckets);
        self.writer.write(retain).await
    }

    /// Adds these buckets, or changes their limits. Answers the others that have something
    /// in them.
    ///
    /// # Errors
    /// If nothing was written.
    pub async fn declare(
        &self,
        buckets: Vec<(BucketName, Quota)>,
    ) -> Result<Vec<Fill>, WriteError> {
        let declare = move |connection: &Connection, _| operations::declare(connection, &buckets);
        self.writer.write(declare).await
    }

    /// The fullest buckets, up to so many.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub async fn overview(&self, most: usize) -> Result<Vec<Fill>, KeyValueError> {
        self.read(move |connection| operations::overview(connection, most).map(Ok))
            .await
    }

    /// The values of keys in their order, each with its revision, none where there is no such
    /// key. `charge` grows with what is read.
    ///
    /// # Errors
    /// If there is no such bucket, a key is too long, or it is too much in one go.
    pub async fn get(
        &self,
        bucket: BucketName,
        keys: Vec<String>,
        mut charge: Charge,
    ) -> Result<Held<Vec<Found>>, KeyValueError> {
        check_batch(keys.iter().map(|key| (key.as_str(), 0)))?;
        self.read(move |connection| {
            let values = operations::get(connection, &bucket, &keys, &mut charge)?;
            Ok(values.map(|value| Held { value, charge }))
        })
        .await
    }

    /// The revision of a key. None if there is no such key.
    ///
    /// # Errors
    /// If there is no such bucket, or the key is too long.
    pub async fn revision(
        &self,
        bucket: BucketName,
        key: String,
    ) -> Result<Option<Revision>, KeyValueError> {
        check_batch([(key.as_str(), 0)])?;
        self.read(move |connection| operations::revision(connection, &bucket, &key))
            .await
    }

    /// A page of keys: the first with `after` 0, or the one at a cursor.
    ///
    /// # Errors
    /// If there is no such bucket.
    pub async fn list(&self, bucket: BucketName, after: u64) -> Result<Page, KeyValueError> {
        self.read(move |connection| operations::list(connection, &bucket, after))
            .await
    }

    /// Sets the values of keys, and deletes those without one, as one. `charge` is what the
    /// values hold of the memory budget.
    ///
    /// # Errors
    /// If it would be above a limit; or nothing could be written.
    pub async fn change(
        &self,
        bucket: BucketName,
        changes: Vec<(String, Option<Vec<u8>>)>,
        charge: Charge,
    ) -> Result<(), KeyValueError> {
        let sizes = changes.iter().map(|(key, value)| {
            let size = value.as_ref().map_or(0, Vec::len);
            (key.as_str(), size as u64)
        });
        check_batch(sizes)?;
        if changes.is_empty() {
            return Ok(());
        }
        self.write(charge, move |connection| {
            operations::change(connection, &bucket, changes)
        })
        .await
    }

    /// Sets the value of a key if it is still the one of this revision, none if there is to be
    /// no such key.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn swap(
        &self,
        bucket: BucketName,
        key: String,
        expected: Option<Revision>,
        value: Vec<u8>,
        charge: Charge,
    ) -> Result<Swapped, KeyValueError> {
        check_batch([(key.as_str(), value.len() as u64)])?;
        self.write(charge, move |connection| {
            operations::swap(connection, &bucket, key, expected, value)
        })
        .await
    }

    /// Adds to the number that is the value of a key in decimal digits, 0 without the key,
    /// and answers the sum, which must be within `bounds`.
    ///
    /// # Errors
    /// As [`Self::change`], and if there is no number or no sum.
    pub async fn increment(
        &self,
        bucket: BucketName,
        key: String,
        delta: i128,
        bounds: (i128, i128),
        charge: Charge,
    ) -> Result<i128, KeyValueError> {
        check_batch([(key.as_str(), 0)])?;
        self.write(charge, move |connection| {
            operations::increment(connection, &bucket, key, delta, bounds)
        })
        .await
    }

    /// The charge goes with the operation: who asked may be gone before it is done.
    async fn write<T: Send + 'static>(
        &self,
        charge: Charge,
        operate: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Result<T, KeyValueError> {
        let operate = move |connection: &Connection, _| {
            let _charge = charge;
            operate(connection)
        };
        self.writer.write(operate).await?
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Result<T, KeyValueError> {
        let room = Arc::clone(&self.readers.room).acquire_owned().await;
        let room = room.expect("the semaphore is never closed");
        let (readers, writer) = (Arc::clone(&self.readers), self.writer.clone());
        let looked = self.blocking.spawn_blocking(move || {
            let _room = room;
            let idle = readers.idle().pop();
            let connection = idle.map_or_else(|| writer.reader(), Ok);
            let connection = connection.map_err(|error| error.to_string())?;
            // One state of the database for all that is looked at: a batch is seen whole.
            let snapshot = connection.unchecked_transaction();
            let looked = snapshot.and_then(|snapshot| look(&snapshot));
            let looked = looked.map_err(|error| error.to_string())?;
            readers.idle().push(connection);
            Ok(looked)
        });
        let looked: Result<_, String> = looked.await.map_err(|error| error.to_string()).flatten();
        looked.map_err(KeyValueError::Read)?
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets").finish_non_exhaustive()
    }
}

/// What no bucket takes: keys with the sizes of their values.
fn check_batch<'k>(entries: impl IntoIterator<Item = (&'k str, u64)>) -> Result<(), KeyValueError> {
    let (mut count, mut bytes) = (0, 0);
    for (key, size) in entries {
        if key.len() > MAX_KEY {
            return Err(KeyValueError::KeyTooLong(key.len()));
        }
        count += 1;
        bytes += size;
    }
    if count > MAX_BATCH {
        let what = format!("{count} keys at once, more than {MAX_BATCH}; use several calls");
        return Err(KeyValueError::TooMuch(what));
    }
    // One value is measured by its bucket.
    if bytes > MAX_BYTES && count > 1 {
        let what = format!("{bytes} bytes at once, more than {MAX_BYTES}; use several calls");
        return Err(KeyValueError::TooMuch(what));
    }
    Ok(())
}
