//! The state directory: one per host, locked while it runs.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A state directory that is ours. The lock ends with the process, however it
/// ends.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made or read.
    #[error("state directory {}: {error}; make it writable, or choose another with --state", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another host runs in it.
    #[error("state directory {}: another host (process {holder}) uses it; end that one, or choose another with --state", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Its process id.
        holder: String,
    },
    /// It is somebody else's.
    #[error("state directory {}: it belongs to user {owner}, and this host runs as user {user}; it holds keys and machine code, so run `chown` on it or choose another with --state", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs the host.
        user: u32,
    },
    /// Others can read it.
    #[error("state directory {}: others can enter it (mode {mode:03o}), and it holds keys and machine code; run `chmod 700` on it", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl StateDir {
    /// Makes it if need be, and locks it.
    ///
    /// # Errors
    /// If it is not ours alone.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let io = |error| StateDirError::Io {
            path: path.to_owned(),
            error,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io)?;
        let metadata = std::fs::metadata(path).map_err(io)?;
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return Err(StateDirError::Foreign {
                path: path.to_owned(),
                owner,
                user,
            });
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateDirError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                return Err(StateDirError::Locked {
                    path: path.to_owned(),
                    holder: holder.trim().to_owned(),
                });
            }
            Err(error) => return Err(io(error.into())),
        }
        lock.set_len(0).map_err(io)?;
        writeln!(lock, "{}", std::process::id()).map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_host_is_refused_and_named_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = StateDir::open(&path).unwrap();
        let Err(StateDirError::Locked { holder, .. }) = StateDir::open(&path) else {
            panic!("it was not refused")
        };
        assert_eq!(holder, std::process::id().to_string());
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            StateDir::open(&path),
            Err(StateDirError::Open { mode: 0o755, .. })
        ));
    }
}
