use std::fmt;

/// Why an operation on a bucket was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KeyValueError {
    /// The bucket is gone: it is no longer in the manifest.
    NoSuchStore,
    /// The function was not granted this bucket, or may only read it.
    AccessDenied,
    /// Anything else, in words: over a limit, no number, no room on the disk.
    Other(String),
}

impl fmt::Display for KeyValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchStore => f.write_str("the bucket is no longer there"),
            Self::AccessDenied => f.write_str(
                "the bucket was not granted; name it in the manifest as \
                 `[[function.NAME.key-value]]`, with the access that is needed",
            ),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for KeyValueError {}
