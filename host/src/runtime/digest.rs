//! What a component is known by.

use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// The SHA-256 of a component, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha(&Sha256::digest(bytes))
    }

    pub(super) fn from_sha(sha: &[u8]) -> Self {
        Self(hex(sha))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
