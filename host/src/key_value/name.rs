//! Names of buckets.

use std::fmt;
use std::sync::Arc;

/// The name of a bucket: 1 to 64 letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(Arc<str>);

/// What cannot name a bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot name a bucket: use 1 to 64 letters, digits, `-` and `_`", .0.escape_debug())]
pub struct InvalidBucketName(String);

/// The longest name.
const MAX_LENGTH: usize = 64;

impl BucketName {
    /// Checks a name.
    ///
    /// # Errors
    /// If it cannot name a bucket.
    pub fn new(name: &str) -> Result<Self, InvalidBucketName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > MAX_LENGTH || !name.bytes().all(allowed) {
            return Err(InvalidBucketName(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
