//! A bucket that a function may use.

use super::Access;
use crate::key_value::BucketName;

/// A bucket, and how the guest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What the guest opens. Any text.
    pub name: String,
    /// What it gets.
    pub bucket: BucketName,
    /// What it may do there.
    pub access: Access,
}
