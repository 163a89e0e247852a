//! What changes how much a scratch directory holds. Each blocks: not for a core.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use cap_primitives::fs::{DirOptions, create_dir, hard_link, open_dir, remove_dir, remove_file};
use rustix::fs::{AtFlags, FileType, Stat, fstat, statat};
use rustix::io::Errno;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use super::super::open::Request;
use super::output::Mode;
use super::{Hold, INODE, Ledger, NAME, Scratch, cost, cost_of};

/// A name in the directory that it is or will be in.
pub(in super::super) struct Place<'p> {
    directory: Arc<File>,
    /// May end in `/`, which only a directory's does.
    name: &'p str,
}

impl<'p> Place<'p> {
    /// Where this path leads, below this directory. The last part is not looked at.
    fn find(base: &Arc<File>, path: &'p str) -> Result<Self, ErrorCode> {
        let trimmed = path.trim_end_matches('/');
        let begin = trimmed.rfind('/').map_or(0, |slash| slash + 1);
        let (parent, name) = path.split_at(begin);
        match &trimmed[begin..] {
            "" if path.is_empty() => return Err(ErrorCode::NoEntry),
            "" => return Err(ErrorCode::NotPermitted),
            "." | ".." => return Err(ErrorCode::Invalid),
            _ => {}
        }
        let directory = match parent {
            "" => Arc::clone(base),
            parent => Arc::new(open_dir(base, Path::new(parent))?),
        };
        Ok(Self { directory, name })
    }

    fn path(&self) -> &'p Path {
        Path::new(self.name)
    }

    fn stat(&self) -> Result<Stat, Errno> {
        let name = self.name.trim_end_matches('/');
        statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// What a directory counts.
fn directory(file: &File) -> io::Result<u64> {
    Ok(cost_of(&fstat(file)?))
}

impl Scratch {
    /// Changes names in one or two directories, which may grow or shrink by that. `more` is
    /// what they need beside.
    fn change<T>(
        &self,
        more: u64,
        places: &[&Place<'_>],
        change: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, ErrorCode> {
        let mut directories: Vec<(u64, &File)> = Vec::with_capacity(2);
        for place in places {
            let inode = fstat(&place.directory).map_err(io::Error::from)?.st_ino;
            if directories.iter().all(|(seen, _)| *seen != inode) {
                directories.push((inode, &place.directory));
            }
        }
        let sum = || -> io::Result<u64> { directories.iter().map(|(_, it)| directory(it)).sum() };
        let before = sum()?;
        let taken = more + NAME;
        self.take(taken)?;
        let changed = change();
        let made = if changed.is_ok() { more } else { 0 };
        self.correct(before, taken, sum().unwrap_or(before) + made);
        Ok(changed?)
    }

    pub(in super::super) fn create_directory(
        &self,
        base: &Arc<File>,
        path: &str,
    ) -> Result<(), ErrorCode> {
        let _ledger = self.begin();
        let at = Place::find(base, path)?;
        self.change(INODE, &[&at], || {
            create_dir(&at.directory, at.path(), &DirOptions::new())
        })
    }

    pub(in super::super) fn symlink(
        &self,
        target: &str,
        base: &Arc<File>,
        path: &str,
    ) -> Result<(), ErrorCode> {
        let _ledger = self.begin();
        let at = Place::find(base, path)?;
        self.change(INODE, &[&at], || {
            cap_primitives::fs::symlink(Path::new(target), &at.directory, at.path())
        })
    }

    pub(in super::super) fn link(
        &self,
        from: (&Arc<File>, &str),
        to: (&Arc<File>, &str),
    ) -> Result<(), ErrorCode> {
        let _ledger = self.begin();
        let from = Place::find(from.0, from.1)?;
        let to = Place::find(to.0, to.1)?;
        self.change(0, &[&to], || {
            hard_link(&from.directory, from.path(), &to.directory, to.path())
        })
    }

    pub(in super::super) fn rename(
        &self,
        from: (&Arc<File>, &str),
        to: (&Arc<File>, &str),
    ) -> Result<(), ErrorCode> {
        let mut ledger = self.begin();
        let from = Place::find(from.0, from.1)?;
        let to = Place::find(to.0, to.1)?;
        let moved = from.stat().map_err(io::Error::from)?;
        let replaced = to.stat().ok();
        self.change(0, &[&from, &to], || {
            cap_primitives::fs::rename(&from.directory, from.path(), &to.directory, to.path())
        })?;
        // Two names of one file stay as they are.
        if let Some(replaced) = replaced.filter(|found| found.st_ino != moved.st_ino) {
            self.unnamed(&mut ledger, &replaced);
        }
        Ok(())
    }

    pub(in super::super) fn remove_file(
        &self,
        base: &Arc<File>,
        path: &str,
    ) -> Result<(), ErrorCode> {
        self.remove(base, path, |at| remove_file(&at.directory, at.path()))
    }

    pub(in super::super) fn remove_directory(
        &self,
        base: &Arc<File>,
        path: &str,
    ) -> Result<(), ErrorCode> {
        self.remove(base, path, |at| remove_dir(&at.directory, at.path()))
    }

    fn remove(
        &self,
        base: &Arc<File>,
        path: &str,
        remove: impl FnOnce(&Place<'_>) -> io::Result<()>,
    ) -> Result<(), ErrorCode> {
        let mut ledger = self.begin();
        let at = Place::find(base, path)?;
        let found = at.stat().map_err(io::Error::from)?;
        let before = directory(&at.directory)?;
        remove(&at)?;
        self.correct(before, 0, directory(&at.directory).unwrap_or(before));
        self.unnamed(&mut ledger, &found);
        Ok(())
    }

    /// Something lost a name: the last, or one of several.
    fn unnamed(&self, ledger: &mut Ledger, found: &Stat) {
        let is_directory = FileType::from_raw_mode(found.st_mode).is_dir();
        if is_directory || found.st_nlink <= 1 {
            self.removed(ledger, found);
        }
    }

    /// Opens what is there, or makes a file. Answers also whether it is a directory.
    pub(in super::super) fn open(
        self: &Arc<Self>,
        base: &Arc<File>,
        request: &Request,
    ) -> Result<(File, bool, Hold), ErrorCode> {
        let mut ledger = self.begin();
        let (file, is_directory) = match request.look(base)? {
            Some(found) => {
                let opened = request.open_found(base)?;
                if request.truncates() && found.is_file() {
                    let after = cost(opened.0.metadata()?.len());
                    self.correct(cost(found.len()), 0, after);
                    ledger.resized(opened.0.metadata()?.ino(), after);
                }
                opened
            }
            None if request.creates() => {
                let at = Place::find(base, request.path())?;
                let made = self.change(INODE, &[&at], || request.create(&at.directory, at.path()));
                (made?, false)
            }
            None => return Err(ErrorCode::NoEntry),
        };
        let hold = self.hold(&mut ledger, &file)?;
        Ok((file, is_directory, hold))
    }

    pub(in super::super) fn set_size(&self, file: &File, size: u64) -> Result<(), ErrorCode> {
        let mut ledger = self.begin();
        let metadata = file.metadata()?;
        let before = cost(metadata.len());
        let taken = cost(size).saturating_sub(before);
        self.take(taken)?;
        let done = file.set_len(size);
        let after = file.metadata().map_or(before + taken, |it| cost(it.len()));
        self.correct(before, taken, after);
        ledger.resized(metadata.ino(), after);
        Ok(done?)
    }

    /// Writes all of it, or as much as the disk takes; answers how much that was, and why it
    /// was not more. Beyond the quota it writes nothing.
    pub(in super::super) fn write(
        &self,
        file: &File,
        bytes: &[u8],
        mode: Mode,
    ) -> (usize, io::Result<()>) {
        let mut ledger = self.begin();
        let mut written = 0;
        let done = self.write_some(&mut ledger, file, bytes, mode, &mut written);
        (written, done)
    }

    fn write_some(
        &self,
        ledger: &mut Ledger,
        file: &File,
        bytes: &[u8],
        mode: Mode,
        written: &mut usize,
    ) -> io::Result<()> {
        let metadata = file.metadata()?;
        let size = metadata.len();
        let begin = match mode {
            Mode::At(offset) => offset,
            // Nobody else writes meanwhile.
            Mode::Append => size,
        };
        let end = begin.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        let before = cost(size);
        let taken = cost(end).saturating_sub(before);
        if !self.account.take(taken) {
            return Err(Errno::NOSPC.into());
        }
        let done = loop {
            let rest = &bytes[*written..];
            if rest.is_empty() {
                break Ok(());
            }
            match file.write_at(rest, begin + *written as u64) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => *written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let after = file.metadata().map_or(before + taken, |it| cost(it.len()));
        self.correct(before, taken, after);
        ledger.resized(metadata.ino(), after);
        done
    }
}
