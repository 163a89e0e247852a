//! The scratch directory of an instance: made when the guest first uses it, gone with the
//! instance, and never larger than its quota.
//!
//! The instance alone works in it, and only through the operations here, one at a time. So
//! what it holds is known before and after each, exactly:
//!
//! - A file counts its size, also where it has holes, rounded up to blocks of 4 KiB; a
//!   directory what its names take. Each counts 16 KiB at least, also a symbolic link: a
//!   file system has about one inode for so many bytes.
//! - What was removed counts until nothing has it open.
//! - Room is taken before anything is written, and what was not needed is given back.
//!
//! Nothing is synchronised with the disk: it is not there after a crash.

mod account;
mod empty;
mod operations;
mod output;
mod space;

use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rustc_hash::FxHashMap;
use rustix::fs::Stat;
use wasmtime_wasi::filesystem::Dir;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::runtime::spawn_blocking;

use account::Account;
pub(super) use output::{Mode, Output};
pub(crate) use space::Space;

/// What everything that has an inode counts at least: `mke2fs` makes one inode for so many
/// bytes (`inode_ratio`), so that scratch uses up no more of the inodes than of the space.
const INODE: u64 = 16 << 10;
/// File systems give out space in such pieces.
const BLOCK: u64 = 4 << 10;
/// What a directory may grow by for one name more: ext4 splits a block or two.
const NAME: u64 = 16 << 10;

/// What something counts that says it has so many bytes.
fn cost(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK)
        .unwrap_or(u64::MAX)
        .max(INODE)
}

fn cost_of(found: &Stat) -> u64 {
    let is_directory = rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir();
    let size = u64::try_from(found.st_size).unwrap_or(0);
    let blocks = u64::try_from(found.st_blocks).unwrap_or(0);
    // A file with holes counts them; what has no holes may have blocks for its names.
    cost(if is_directory {
        size.max(blocks.saturating_mul(512))
    } else {
        size
    })
}

/// What a function may have of scratch.
pub(super) struct Allowance {
    space: Arc<Space>,
    /// For each instance.
    quota: u64,
    /// For all of them together.
    account: Arc<Account>,
}

impl Allowance {
    /// All instances of a function have half of what the host has, so that no function
    /// leaves nothing to the others; one instance has its quota in any case.
    pub(super) fn new(space: &Arc<Space>, quota: u64) -> Self {
        let whole = space.account();
        Self {
            quota,
            account: whole.part(quota.max(whole.limit() / 2)),
            space: Arc::clone(space),
        }
    }

    /// What stands for the directory until it is made.
    pub(super) fn nowhere(&self) -> &Dir {
        self.space.nowhere()
    }

    /// Makes a directory, once those of the last run are gone.
    pub(super) async fn make(&self) -> Result<Arc<Scratch>, ErrorCode> {
        if !self.space.is_clear().await {
            return Err(ErrorCode::Io);
        }
        let account = self.account.part(self.quota);
        let space = Arc::clone(&self.space);
        spawn_blocking(move || {
            if !account.take(INODE) {
                return Err(ErrorCode::InsufficientSpace);
            }
            match space.make() {
                Ok((name, root)) => Ok(Arc::new(Scratch {
                    name,
                    root: Arc::new(root),
                    ledger: Mutex::default(),
                    closed: Mutex::default(),
                    account,
                    space,
                })),
                Err(error) => {
                    account.give_back(INODE);
                    Err(error.into())
                }
            }
        })
        .await
    }
}

/// The scratch directory of one instance.
pub(super) struct Scratch {
    name: String,
    root: Arc<File>,
    /// Held during each operation, on threads that may wait.
    ledger: Mutex<Ledger>,
    /// What one descriptor less has open. Never held for long.
    closed: Mutex<Vec<(u64, u64)>>,
    account: Arc<Account>,
    space: Arc<Space>,
}

/// What is open, by inode.
#[derive(Default)]
struct Ledger {
    open: FxHashMap<u64, Opened>,
    next: u64,
}

struct Opened {
    /// Tells it from others that had the inode before, or get it later.
    number: u64,
    descriptors: u32,
    /// What it counts, if it has no name any more.
    removed: Option<u64>,
}

/// One descriptor's part in keeping an inode.
pub(super) struct Hold {
    scratch: Arc<Scratch>,
    inode: u64,
    number: u64,
}

impl Hold {
    pub(super) fn scratch(&self) -> &Arc<Scratch> {
        &self.scratch
    }
}

/// Must come after the descriptor was closed. May be dropped on a core.
impl Drop for Hold {
    fn drop(&mut self) {
        let scratch = &self.scratch;
        scratch.closed().push((self.inode, self.number));
        match scratch.ledger.try_lock() {
            Ok(mut ledger) => scratch.settle(&mut ledger),
            Err(TryLockError::Poisoned(ledger)) => scratch.settle(&mut ledger.into_inner()),
            // Whoever has it next does that.
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

impl Scratch {
    pub(super) fn root(&self) -> &Arc<File> {
        &self.root
    }

    fn closed(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation. Blocks while there is another.
    fn begin(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut ledger);
        ledger
    }

    /// Takes note of what was closed.
    fn settle(&self, ledger: &mut Ledger) {
        let closed = std::mem::take(&mut *self.closed());
        for (inode, number) in closed {
            let Entry::Occupied(mut opened) = ledger.open.entry(inode) else {
                continue;
            };
            if opened.get().number != number {
                continue;
            }
            opened.get_mut().descriptors -= 1;
            if opened.get().descriptors == 0 {
                self.account.give_back(opened.remove().removed.unwrap_or(0));
            }
        }
    }

    fn take(&self, bytes: u64) -> Result<(), ErrorCode> {
        if self.account.take(bytes) {
            Ok(())
        } else {
            Err(ErrorCode::InsufficientSpace)
        }
    }

    /// What was there counted `before`, of which `taken` is new, and counts `after`.
    fn correct(&self, before: u64, taken: u64, after: u64) {
        let most = before.saturating_add(taken);
        if after > most {
            self.account.take_anyway(after - most);
        } else {
            self.account.give_back(most - after);
        }
    }

    /// Counts a descriptor.
    fn hold(self: &Arc<Self>, ledger: &mut Ledger, file: &File) -> io::Result<Hold> {
        let inode = file.metadata()?.ino();
        self.named(ledger, inode);
        ledger.next += 1;
        let opened = ledger.open.entry(inode).or_insert(Opened {
            number: ledger.next,
            descriptors: 0,
            removed: None,
        });
        opened.descriptors += 1;
        Ok(Hold {
            scratch: Arc::clone(self),
            inode,
            number: opened.number,
        })
    }

    /// This inode has a name. If what had it before has none, that was closed, and who
    /// closed it has not come to say so.
    fn named(&self, ledger: &mut Ledger, inode: u64) {
        if let Entry::Occupied(opened) = ledger.open.entry(inode)
            && let Some(removed) = opened.get().removed
        {
            opened.remove();
            self.account.give_back(removed);
        }
    }

    /// Something lost its last name: it counts as long as it is open.
    fn removed(&self, ledger: &mut Ledger, found: &Stat) {
        self.named(ledger, found.st_ino);
        match ledger.open.get_mut(&found.st_ino) {
            Some(opened) => opened.removed = Some(cost_of(found)),
            None => self.account.give_back(cost_of(found)),
        }
    }
}

impl Ledger {
    /// A file that may have no name any more has another size.
    fn resized(&mut self, inode: u64, cost: u64) {
        if let Some(opened) = self.open.get_mut(&inode)
            && let Some(removed) = &mut opened.removed
        {
            *removed = cost;
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.space.leave(name, Arc::clone(&self.account));
    }
}

#[cfg(test)]
mod tests;
