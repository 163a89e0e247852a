//! The scratch directories of all instances: where they are, what they may hold together,
//! and who empties them.
//!
//! They lie in `scratch/` of the state directory, one for each instance that has used its
//! own, under a number that is never used again. A thread of its own, behind the cores,
//! empties those whose instance has ended; until a directory is gone, what was in it counts.
//! What a crash left goes first: nobody gets a directory before.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, fstatvfs, mkdirat, openat};
use rustix::io::Errno;
use tokio::sync::watch;
use wasmtime_wasi::filesystem::Dir;
use wasmtime_wasi::{FsPerms, OpenMode};

use super::account::Account;
use super::empty;
use crate::runtime::go_behind;
use crate::telemetry::{Level, Telemetry};

/// The directory of all of them, in the state directory.
const FOLDER: &str = "scratch";
/// How long a host that ends waits for what is still to be emptied. The rest goes at the
/// next start.
const END: Duration = Duration::from_secs(1);

/// Between two attempts at what could not be emptied. Most of what stands in the way passes,
/// such as a host without descriptors.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether what was there at the start is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Clearing,
    Clear,
    Failed,
}

/// A directory that nobody uses any more.
struct Left {
    /// What of it is there still.
    names: Vec<String>,
    account: Arc<Account>,
}

impl Left {
    /// Empties and removes it, and gives back what it holds.
    fn empty(&mut self, root: &File) -> Result<(), Errno> {
        empty::remove_all(root, &mut self.names)?;
        self.account.give_back(u64::MAX);
        Ok(())
    }
}

/// The scratch directories of all instances.
pub(crate) struct Space {
    root: File,
    /// What guests get until theirs is made: a directory without a name, in which nothing
    /// is found and nothing can be made.
    nowhere: Dir,
    account: Arc<Account>,
    next: AtomicU64,
    start: watch::Receiver<Start>,
    /// None when the host ends.
    left: Mutex<Option<Sender<Left>>>,
    ended: Mutex<Receiver<()>>,
}

impl Space {
    /// Opens it in this state directory, for so many bytes, and has what is there removed.
    pub(crate) fn open(state: &Path, budget: u64, telemetry: &Telemetry) -> io::Result<Arc<Self>> {
        let path = state.join(FOLDER);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let root = empty::open(&path)?;
        let (sender, start) = watch::channel(Start::Clearing);
        let (left, to_empty) = channel();
        let (end, ended) = channel();
        let metrics = &telemetry.metrics;
        metrics
            .scratch_budget
            .set(i64::try_from(budget).unwrap_or(i64::MAX));
        let space = Self {
            nowhere: Dir::new(
                nowhere(&root)?,
                FsPerms::ReadWrite,
                OpenMode::READ | OpenMode::WRITE,
                false,
            ),
            account: Account::new(budget, metrics.scratch_used.clone()),
            next: AtomicU64::new(0),
            start,
            left: Mutex::new(Some(left)),
            ended: Mutex::new(ended),
            root: root.try_clone()?,
        };
        let telemetry = telemetry.clone();
        let emptier = move || {
            go_behind();
            serve(&root, &sender, &to_empty, &telemetry);
            // Nobody may wait for it.
            let _ = end.send(());
        };
        std::thread::Builder::new()
            .name("dunlin-scratch".to_owned())
            .spawn(emptier)?;
        Ok(Arc::new(space))
    }

    /// What stands for a directory until it is made.
    pub(super) fn nowhere(&self) -> &Dir {
        &self.nowhere
    }

    /// For all of them.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What all of them may hold, in bytes.
    pub(crate) fn budget(&self) -> u64 {
        self.account.limit()
    }

    /// What is free on its disk, in bytes.
    pub(crate) fn free(&self) -> io::Result<u64> {
        let found = fstatvfs(&self.root)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Waits until what was there at the start is gone. False: it could not be removed so
    /// far.
    pub(super) async fn is_clear(&self) -> bool {
        let mut start = self.start.clone();
        let done = start.wait_for(|start| *start != Start::Clearing).await;
        done.is_ok_and(|start| *start == Start::Clear)
    }

    /// Makes a directory. Blocks.
    pub(super) fn make(&self) -> io::Result<(String, File)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("of-{number}");
        mkdirat(&self.root, &*name, Mode::RWXU)?;
        Ok((name.clone(), at(&self.root, &name)?))
    }

    /// Has a directory emptied and removed, and what it holds given back then.
    pub(super) fn leave(&self, name: String, account: Arc<Account>) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = &*left {
            // A thread that has gone has said so; the next start removes it.
            let names = vec![name];
            let _ = left.send(Left { names, account });
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.end();
    }
}

impl Space {
    /// The host ends: nothing is taken any more, and what was left is emptied as far as
    /// that goes in a second. Blocks.
    pub(crate) fn end(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(END);
    }
}

fn at(root: &File, name: &str) -> io::Result<File> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(root, name, flags, Mode::empty())?.into())
}

fn nowhere(root: &File) -> io::Result<File> {
    const NAME: &str = "nowhere";
    match mkdirat(root, NAME, Mode::RWXU) {
        // From before a crash.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let opened = at(root, NAME)?;
    empty::remove(root, NAME)?;
    Ok(opened)
}

/// Empties, first what was there, then what is left. What fails is tried again until the
/// host ends.
fn serve(root: &File, start: &watch::Sender<Start>, left: &Receiver<Left>, telemetry: &Telemetry) {
    let failed = |what: &str, error: Errno| {
        let line = format!("scratch: {what} cannot be emptied, and is tried again: {error}");
        telemetry.log.host(Level::Error, &line);
    };
    while let Err(error) = empty::clear(root) {
        if start.send_replace(Start::Failed) == Start::Clearing {
            failed("what the last run left", error);
        }
        // Until it is gone nobody gets a directory, and so none is left here.
        if let Err(RecvTimeoutError::Disconnected) = left.recv_timeout(AGAIN) {
            return;
        }
    }
    start.send_replace(Start::Clear);
    // What failed goes on to count: it is on the disk.
    let (mut again, mut tried) = (Vec::<Left>::new(), Instant::now());
    loop {
        if !again.is_empty() && tried.elapsed() >= AGAIN {
            again.retain_mut(|left| left.empty(root).is_err());
            tried = Instant::now();
        }
        let next = match again.is_empty() {
            true => left.recv().map_err(RecvTimeoutError::from),
            false => left.recv_timeout(AGAIN),
        };
        match next {
            Ok(mut left) => {
                if let Err(error) = left.empty(root) {
                    // More that fail meanwhile fail for the same reason, most likely.
                    if again.is_empty() {
                        failed("what an instance left", error);
                        tried = Instant::now();
                    }
                    again.push(left);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
