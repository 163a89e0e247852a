//! Values that last: buckets of values by key, in `values.db` of the state directory.
//!
//! What was set is on the disk when its answer comes, and an operation is done as a whole
//! or not at all, whatever runs beside it: each is one piece of a commit
//! ([`crate::store`]), and there is one writer. Reads go past the writer, on threads of
//! their own, and see all that was answered.
//!
//! The file is apart from `queue.db`, with a writer of its own: a function that writes
//! values as fast as it can holds up nobody's events, and the values may be large. The
//! price is that both are synced where both are written.
//!
//! - A bucket is there if the manifest declares it, and has its limits ([`Quota`]). A write
//!   that would leave it above one of them and larger than it was is refused.
//! - Keys are any text of up to [`MAX_KEY`] bytes, told apart byte by byte.
//! - Pages of keys are in the order in which the keys were made. Who walks over them meets
//!   each key that is there all the while exactly once.
//!
//! Knows nothing of functions or of HTTP.

mod buckets;
mod name;
mod operations;
mod schema;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

pub use buckets::{Buckets, Held};
pub use name::{BucketName, InvalidBucketName};

use crate::store::WriteError;

/// The file in the state directory.
pub const FILE_NAME: &str = "values.db";
/// The longest key in bytes: that of a DynamoDB sort key.
pub const MAX_KEY: usize = 1024;
/// Keys of one operation at most: others wait for it.
pub const MAX_BATCH: usize = 1000;
/// Bytes of keys and values of one operation at most, in either direction.
pub const MAX_BYTES: u64 = 4 << 20;
/// Keys of a page, and bytes of them.
const MAX_PAGE: usize = 1000;
const MAX_PAGE_BYTES: usize = 128 << 10;

/// What `max-keys` may be.
pub const KEYS_RANGE: RangeInclusive<u32> = 1..=100_000_000;
/// What `max-value` may be: one operation carries no more.
pub const VALUE_RANGE: RangeInclusive<u64> = 1..=MAX_BYTES;
/// What `max-bytes` may be.
pub const BYTES_RANGE: RangeInclusive<u64> = 1024..=1 << 40;

/// What a bucket may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Keys at most. 100 000 by default.
    pub max_keys: u64,
    /// Bytes of one value. 1 B – 4 MiB, 1 MiB by default.
    pub max_value: u64,
    /// Bytes of all keys and values together. 256 MiB by default.
    pub max_bytes: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            max_keys: 100_000,
            max_value: 1 << 20,
            max_bytes: 256 << 20,
        }
    }
}

/// Why an operation was not done. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// There is none of that name any more.
    #[error("no bucket `{0}`; declare it in the manifest")]
    Unknown(BucketName),
    /// A key that is too long.
    #[error("the key has {0} bytes, and a key has {MAX_KEY} at most")]
    KeyTooLong(usize),
    /// A value that is larger than the bucket takes.
    #[error(
        "the value has {size} bytes, and the bucket `{bucket}` takes {most} at most (`max-value`)"
    )]
    TooLarge {
        /// The bucket.
        bucket: BucketName,
        /// What the value has.
        size: u64,
        /// What a value may have.
        most: u64,
    },
    /// It holds as much as it may.
    #[error("the bucket `{0}` is full: it may hold {1}; delete something, or raise that")]
    Full(BucketName, String),
    /// Too many keys or bytes in one operation.
    #[error("{0}")]
    TooMuch(String),
    /// The value is not one that can be counted up.
    #[error("the value is no whole number in decimal digits, so nothing can be added to it")]
    NotANumber,
    /// The sum is none of its kind.
    #[error("the sum would be outside of {0} to {1}")]
    Overflow(i128, i128),
    /// A cursor that was not made here.
    #[error("no cursor of this bucket: begin without one")]
    Cursor,
    /// The host's memory is used up.
    #[error("the host has no memory for it now; try again later")]
    NoMemory,
    /// The disk has no room, or the store is broken.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The disk does not read.
    #[error("it cannot be read: {0}")]
    Read(String),
}

impl KeyValueError {
    /// Whether it is for the host to mend, not for who asked.
    #[must_use]
    pub fn is_the_hosts(&self) -> bool {
        matches!(self, Self::NoMemory | Self::Write(_) | Self::Read(_))
    }
}

/// What tells a value from all that a key had before and will have: for compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The row of the key. No other gets its number, also when it is gone.
    entry: i64,
    /// How often it was written.
    version: i64,
}

/// The value of a key with its revision. None without the key.
pub type Found = Option<(Vec<u8>, Revision)>;

/// Keys of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub keys: Vec<String>,
    /// Where the next page begins. None at the end.
    pub next: Option<u64>,
}

/// What became of a compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The value is the new one.
    Yes,
    /// It was not what was expected, and stays: this is its revision, none without the key.
    No(Option<Revision>),
}

/// A bucket at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Its name.
    pub name: BucketName,
    /// Keys in it.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}
