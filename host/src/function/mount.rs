//! A directory of the host that a function may use.

use std::path::PathBuf;

/// What may be done in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Access {
    /// Look and read.
    #[default]
    ReadOnly,
    /// Also create, write, rename and remove.
    ReadWrite,
}

impl Access {
    /// As the manifest says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        }
    }
}

/// A directory, and where the guest finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The operator's name for it.
    pub from: String,
    /// Where it is on the host.
    pub path: PathBuf,
    /// Where it is for the guest: an absolute path without `.` and `..`.
    pub to: String,
    /// What the guest may do there.
    pub access: Access,
}
