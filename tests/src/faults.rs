//! A disk that fails when a test says so, in the real binary.
//!
//! A library between the host and libc (`faults.c`, made here with the C compiler that
//! SQLite is built with, too) fails what is written to some files. It needs no rights.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::io::Errno;
use tempfile::TempDir;

use crate::{Builder, eventually, target_dir};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Writing to a file.
    Write,
    /// Waiting until the disk has what was written.
    Sync,
}

/// How often it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The first time.
    Once,
    /// Until [`Faults::end`].
    Always,
}

/// A disk that can be made to fail. All is well with a new one.
#[derive(Debug)]
pub struct Faults {
    folder: TempDir,
}

impl Default for Faults {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        Self { folder }
    }
}

impl Faults {
    /// The host that is started so writes to this disk.
    #[must_use]
    pub fn under(&self, host: Builder) -> Builder {
        let control = self.control();
        host.env("LD_PRELOAD", library().to_str().expect("a path of ours"))
            .env("DUNLIN_FAULTS", control.to_str().expect("a path of ours"))
    }

    /// From now on this fails, with this error, in files whose path fits the glob.
    ///
    /// # Panics
    /// If it cannot be said.
    pub fn begin(&self, fault: Fault, error: Errno, files: &str, times: Times) {
        let fault = match fault {
            Fault::Write => "write",
            Fault::Sync => "sync",
        };
        let times = match times {
            Times::Once => "once",
            Times::Always => "always",
        };
        let line = format!("{fault} {} {files} {times}", error.raw_os_error());
        // In one piece, since it may be read at any moment.
        let part = self.folder.path().join("part");
        std::fs::write(&part, line).expect("the folder is writable");
        std::fs::rename(&part, self.control()).expect("the folder is writable");
    }

    /// The queues have no room.
    pub fn fill(&self) {
        self.begin(Fault::Write, Errno::NOSPC, "*/queue.db*", Times::Always);
    }

    /// All is well again.
    ///
    /// # Panics
    /// If nothing was begun.
    pub fn end(&self) {
        std::fs::remove_file(self.control()).expect("it was begun");
    }

    /// Whether what was to fail once has failed.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        !self.control().exists()
    }

    /// Waits until it has.
    #[track_caller]
    pub fn strikes(&self) {
        eventually("the disk fails", || self.has_struck().then_some(()));
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("fault")
    }
}

const SOURCE: &str = include_str!("faults.c");

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = target_dir().join("tmp").join("dunlin-tests");
        std::fs::create_dir_all(&folder).expect("the folder for builds is writable");
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(SOURCE);
        let path = folder.join(format!("faults-{hash:016x}.so"));
        if path.exists() {
            return path;
        }
        let own = tempfile::tempdir_in(&folder).expect("the folder is writable");
        let source = own.path().join("faults.c");
        std::fs::write(&source, SOURCE).expect("the folder is writable");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let built = own.path().join("faults.so");
        let output = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&built, &source])
            .arg("-ldl")
            .output();
        let output = output.unwrap_or_else(|error| {
            panic!("the C compiler `{compiler}` is needed, as for SQLite: {error}")
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compiler}: {said}");
        // Other tests may make it, too.
        std::fs::rename(&built, &path).expect("a file replaces one beside it");
        path
    })
}
