//! Values that last: buckets of values by key, which the host keeps on its disk.
//!
//! A function opens the buckets that its manifest grants it (`[[function.NAME.key-value]]`),
//! by their names there. Others may have been granted the same bucket.
//!
//! ```
//! use dunlin_sdk::{Error, Request, Response, key_value};
//!
//! #[dunlin_sdk::http]
//! fn handle(request: Request) -> Result<Response, Error> {
//!     let visits = key_value::open("visits")?;
//!     let count = visits.increment(request.path(), 1)?;
//!     Ok(Response::text(format!("seen {count} times\n")))
//! }
//! ```
//!
//! - What was set is on the disk when the call returns. That takes an fsync, which many
//!   writers share; reading takes none.
//! - Each call is done as a whole or not at all, whatever runs beside it, the batches
//!   included.
//! - A key is any text of up to 1024 bytes, also the empty one. A bucket has a limit for its
//!   keys, for each value and for all of its bytes, which the operator sets. What goes over
//!   one is refused with [`KeyValueError::Other`] and changes nothing.
//! - A batch has 1000 keys and 4 MiB at most.
//!
//! The interface is `wasi:keyvalue@0.2.0-draft2`. In tests on the build machine there is no
//! host: each thread, and so each test, has buckets of its own in memory, of any name and
//! without limits but those of keys and batches.

mod error;
#[cfg(target_arch = "wasm32")]
mod host;
#[cfg(not(target_arch = "wasm32"))]
mod memory;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(not(target_arch = "wasm32"))]
use self::memory as host;

pub use error::KeyValueError;

/// How often [`Bucket::update`] tries before it gives up.
const MAX_ATTEMPTS: u32 = 100;

/// Opens a bucket that was granted.
///
/// # Errors
///
/// [`KeyValueError::AccessDenied`] if there is none of that name for this function.
pub fn open(name: &str) -> Result<Bucket, KeyValueError> {
    host::Bucket::open(name).map(Bucket)
}

/// A bucket. See the [module](self).
pub struct Bucket(host::Bucket);

impl Bucket {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// The host cannot read it.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.0.get(key)
    }

    /// The value of a key, as a text. What is no UTF-8 is an error.
    ///
    /// # Errors
    ///
    /// The host cannot read it, or it is no text.
    pub fn get_text(&self, key: &str) -> Result<Option<String>, KeyValueError> {
        let text = self.get(key)?.map(String::from_utf8).transpose();
        text.map_err(|_| KeyValueError::Other(format!("the value of {key:?} is no text")))
    }

    /// The value of a key, read from JSON.
    ///
    /// # Errors
    ///
    /// The host cannot read it, or it is not the JSON of such a value.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, KeyValueError> {
        let value = self.get(key)?;
        let parsed = value
            .map(|value| serde_json::from_slice(&value))
            .transpose();
        parsed.map_err(|error| {
            KeyValueError::Other(format!("the value of {key:?} is not as expected: {error}"))
        })
    }

    /// Sets the value of a key: text or bytes.
    ///
    /// # Errors
    ///
    /// It goes over a limit, or cannot be written. Nothing has changed then.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), KeyValueError> {
        self.0.set(key, value.as_ref())
    }

    /// Sets the value of a key to the JSON of a value.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set), or it cannot be JSON.
    pub fn set_json<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
    ) -> Result<(), KeyValueError> {
        let json = serde_json::to_vec(value)
            .map_err(|error| KeyValueError::Other(format!("not JSON: {error}")))?;
        self.set(key, json)
    }

    /// Deletes a key. Without the key it does nothing.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn delete(&self, key: &str) -> Result<(), KeyValueError> {
        self.0.delete(key)
    }

    /// Whether there is such a key.
    ///
    /// # Errors
    ///
    /// The host cannot read it.
    pub fn exists(&self, key: &str) -> Result<bool, KeyValueError> {
        self.0.exists(key)
    }

    /// All keys, in the order in which they were first set. They are asked for a page at a
    /// time: a key that is there all the while comes exactly once.
    pub fn keys(&self) -> Keys<'_> {
        Keys {
            bucket: self,
            page: Vec::new().into_iter(),
            next: Next::First,
        }
    }

    /// Adds to the number that is the value of a key, written in decimal digits, 0 without
    /// the key, and answers the sum.
    ///
    /// # Errors
    ///
    /// The value is no number, the sum is none, or it cannot be written.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, KeyValueError> {
        self.0.increment(key, delta)
    }

    /// The values of several keys as they were at one moment, in the order of the keys.
    ///
    /// # Errors
    ///
    /// There are too many, or the host cannot read them.
    pub fn get_many<K: AsRef<str>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Vec<u8>>>, KeyValueError> {
        let keys: Vec<String> = owned(keys);
        self.0.get_many(&keys)
    }

    /// Sets the values of several keys, as one.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set), or there are too many.
    pub fn set_many<K: Into<String>, V: Into<Vec<u8>>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), KeyValueError> {
        let entries = entries.into_iter();
        let entries: Vec<(String, Vec<u8>)> = entries
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        self.0.set_many(&entries)
    }

    /// Deletes several keys, as one. Those that are not there are skipped.
    ///
    /// # Errors
    ///
    /// There are too many, or it cannot be written.
    pub fn delete_many<K: AsRef<str>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<(), KeyValueError> {
        let keys: Vec<String> = owned(keys);
        self.0.delete_many(&keys)
    }

    /// Begins a compare-and-swap: what is swapped in later replaces the value only if nobody
    /// has written the key in between. [`update`](Self::update) does the rest of it, too.
    ///
    /// # Errors
    ///
    /// The host cannot read it.
    pub fn compare(&self, key: &str) -> Result<Compare, KeyValueError> {
        self.0.compare(key).map(Compare)
    }

    /// Makes a new value of the one that a key has, and tries again if somebody else has
    /// written it meanwhile, up to a hundred times. Answers the new value.
    ///
    /// ```
    /// # use dunlin_sdk::key_value;
    /// let bucket = key_value::open("carts")?;
    /// let cart = bucket.update("ada", |cart| {
    ///     let mut cart = cart.unwrap_or_default();
    ///     cart.extend(b"tea\n");
    ///     Ok(cart)
    /// })?;
    /// assert_eq!(cart, b"tea\n");
    /// # Ok::<(), dunlin_sdk::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the change, which is left at that; as [`set`](Self::set); or somebody else
    /// was always faster.
    pub fn update(
        &self,
        key: &str,
        mut change: impl FnMut(Option<Vec<u8>>) -> Result<Vec<u8>, KeyValueError>,
    ) -> Result<Vec<u8>, KeyValueError> {
        let mut compare = self.compare(key)?;
        for _ in 0..MAX_ATTEMPTS {
            let value = change(compare.current()?)?;
            match compare.swap(&value)? {
                Swapped::Yes => return Ok(value),
                Swapped::Changed(again) => compare = again,
            }
        }
        let what = format!("{key:?} was changed by others {MAX_ATTEMPTS} times in a row");
        Err(KeyValueError::Other(what))
    }
}

fn owned<K: AsRef<str>>(keys: impl IntoIterator<Item = K>) -> Vec<String> {
    let keys = keys.into_iter();
    keys.map(|key| key.as_ref().to_owned()).collect()
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

/// A compare-and-swap that was begun.
pub struct Compare(host::Compare);

impl Compare {
    /// The value that there is now, which is what the swap compares with from now on.
    ///
    /// # Errors
    ///
    /// The host cannot read it.
    pub fn current(&self) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.0.current()
    }

    /// Sets the value if nobody has written the key since this was begun, or since the last
    /// call of [`current`](Self::current). Writing the same value and deleting count, too.
    ///
    /// # Errors
    ///
    /// As [`Bucket::set`].
    pub fn swap(self, value: impl AsRef<[u8]>) -> Result<Swapped, KeyValueError> {
        Ok(match self.0.swap(value.as_ref())? {
            Ok(()) => Swapped::Yes,
            Err(again) => Swapped::Changed(Compare(again)),
        })
    }
}

impl fmt::Debug for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compare").finish_non_exhaustive()
    }
}

/// What became of a compare-and-swap.
#[must_use = "the value may not have been set"]
#[derive(Debug)]
pub enum Swapped {
    /// The value is the new one.
    Yes,
    /// Somebody else has written the key, and nothing was set. With this it can be tried
    /// again.
    Changed(Compare),
}

/// The keys of a bucket.
#[derive(Debug)]
pub struct Keys<'b> {
    bucket: &'b Bucket,
    page: std::vec::IntoIter<String>,
    next: Next,
}

/// What is to be asked for when a page is used up.
#[derive(Debug)]
enum Next {
    First,
    At(String),
    Nothing,
}

impl Iterator for Keys<'_> {
    type Item = Result<String, KeyValueError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.page.next() {
                return Some(Ok(key));
            }
            let cursor = match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::First => None,
                Next::At(cursor) => Some(cursor),
                Next::Nothing => return None,
            };
            match self.bucket.0.list_keys(cursor.as_deref()) {
                Ok((keys, cursor)) => {
                    self.page = keys.into_iter();
                    self.next = cursor.map_or(Next::Nothing, Next::At);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
