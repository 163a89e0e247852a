//! Which file it is that was looked at: so that one that was verified need not be read
//! again.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How coarse the kernel's clock for files may be: it ticks every 1 to 10 ms, and a
/// second on the oldest file systems.
const TICK: Duration = Duration::from_secs(2);

/// A file and its state. Whatever writes to the file, cuts it or puts another in its
/// place changes this: the kernel sets the time of the change by itself, and no call
/// sets it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// The length in bytes.
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// Of the file with this metadata.
    #[must_use]
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change from now on would show. One within the tick of the last change
    /// would not.
    pub(super) fn shows_changes(&self) -> bool {
        let (seconds, nanos) = self.changed;
        let at = u64::try_from(seconds).map(Duration::from_secs);
        let at = at.unwrap_or_default() + Duration::from_nanos(nanos.unsigned_abs());
        // A clock that was set back: then nobody knows.
        SystemTime::now()
            .duration_since(UNIX_EPOCH + at)
            .is_ok_and(|age| age > TICK)
    }
}

/// As it stands in notes.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            device,
            inode,
            size,
            modified,
            changed,
        } = self;
        write!(
            f,
            "{device}:{inode}:{size}:{}.{}:{}.{}",
            modified.0, modified.1, changed.0, changed.1
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_done_to_a_file_shows_whatever_its_times_are_set_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        std::fs::write(&path, "abc").unwrap();
        let identity = || Identity::of(&std::fs::metadata(&path).unwrap());
        let before = identity();
        assert!(!before.shows_changes(), "it was written just now");
        assert_eq!(before, identity());
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        // The kernel's clock goes on in ticks.
        std::thread::sleep(Duration::from_millis(50));

        let mut file = File::options().write(true).open(&path).unwrap();
        file.write_all(b"xyz").unwrap();
        file.set_times(FileTimes::new().set_modified(modified))
            .unwrap();
        let after = identity();
        assert_eq!((before.size, before.modified), (after.size, after.modified));
        assert_ne!(before, after, "the time of the change");

        let other = folder.path().join("other");
        std::fs::write(&other, "xyz").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(after, identity());
    }
}
