//! Opening: files and directories, and nothing that waits or acts when it is opened.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use cap_primitives::fs::{FollowSymlinks, Metadata, OpenOptions, OpenOptionsExt as _, stat};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::{self, Descriptor, Dir};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, OpenFlags, PathFlags,
};
use wasmtime_wasi::runtime::spawn_blocking;
use wasmtime_wasi::{FsPerms, OpenMode};

use super::View;
use super::held::Open;

/// What a guest asks for.
pub(super) struct Request {
    path: String,
    follow: FollowSymlinks,
    options: OpenOptions,
    mode: OpenMode,
    directory: bool,
    create: bool,
    truncate: bool,
}

impl Request {
    /// As POSIX and wasmtime-wasi understand the flags.
    pub(super) fn check(
        parent: &Dir,
        path_flags: PathFlags,
        path: String,
        flags: OpenFlags,
        access: DescriptorFlags,
    ) -> Result<Self, ErrorCode> {
        let synchronised = DescriptorFlags::FILE_INTEGRITY_SYNC
            | DescriptorFlags::DATA_INTEGRITY_SYNC
            | DescriptorFlags::REQUESTED_WRITE_SYNC;
        if access.intersects(synchronised) {
            return Err(ErrorCode::Unsupported);
        }
        let directory = flags.contains(OpenFlags::DIRECTORY);
        if directory && flags != OpenFlags::DIRECTORY {
            return Err(ErrorCode::Invalid);
        }
        let create = flags.contains(OpenFlags::CREATE);
        let truncate = flags.contains(OpenFlags::TRUNCATE);
        let write = access.contains(DescriptorFlags::WRITE);
        // Whoever writes nothing reads, so that the system opens it at all.
        let read = access.contains(DescriptorFlags::READ) || !write;
        let mut mode = OpenMode::empty();
        mode.set(OpenMode::READ, read);
        mode.set(OpenMode::WRITE, write || create || truncate);
        if parent.perms == FsPerms::ReadOnly && mode.contains(OpenMode::WRITE) {
            return Err(ErrorCode::NotPermitted);
        }
        let follow = match path_flags.contains(PathFlags::SYMLINK_FOLLOW) {
            true => FollowSymlinks::Yes,
            false => FollowSymlinks::No,
        };
        let mut options = OpenOptions::new();
        options
            .read(read)
            .write(mode.contains(OpenMode::WRITE))
            .create(create)
            .create_new(create && flags.contains(OpenFlags::EXCLUSIVE))
            .truncate(truncate)
            // Should a pipe take the place of a file that was looked at.
            .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
            ._cap_fs_ext_follow(follow);
        Ok(Self {
            path,
            follow,
            options,
            mode,
            directory,
            create,
            truncate,
        })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether it makes a file where there is none.
    pub(super) fn creates(&self) -> bool {
        self.create
    }

    /// Whether it empties a file.
    pub(super) fn truncates(&self) -> bool {
        self.truncate
    }

    /// Opens it below a directory, and says whether it is one. Blocks.
    fn open(&self, parent: &File) -> Result<(File, bool), ErrorCode> {
        self.look(parent)?;
        self.open_found(parent)
    }

    /// Looks at it first, since opening alone may have an effect: who writes into a pipe
    /// learns that a reader has come and gone, a device may begin to do something. Blocks.
    pub(super) fn look(&self, parent: &File) -> Result<Option<Metadata>, ErrorCode> {
        match stat(parent, Path::new(&self.path), self.follow) {
            Ok(found) if !(found.is_file() || found.is_dir() || found.is_symlink()) => {
                Err(ErrorCode::NotPermitted)
            }
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the file, where nothing has this name. Blocks.
    pub(super) fn create(&self, parent: &File, name: &Path) -> io::Result<File> {
        let mut options = self.options.clone();
        options
            .create_new(true)
            ._cap_fs_ext_follow(FollowSymlinks::No);
        let file = cap_primitives::fs::open(parent, name, &options)?;
        waits(&file)?;
        Ok(file)
    }

    /// Opens what was looked at, and says whether it is a directory. Blocks.
    pub(super) fn open_found(&self, parent: &File) -> Result<(File, bool), ErrorCode> {
        let file = cap_primitives::fs::open(parent, Path::new(&self.path), &self.options)?;
        let opened = file.metadata()?;
        if !(opened.is_file() || opened.is_dir()) {
            return Err(ErrorCode::NotPermitted);
        }
        if self.directory && !opened.is_dir() {
            return Err(ErrorCode::NotDirectory);
        }
        waits(&file)?;
        Ok((file, opened.is_dir()))
    }
}

/// What was opened is a file or a directory: it waits for its disk.
fn waits(file: &File) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    Ok(fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}

impl View<'_> {
    /// Opens a file or a directory.
    pub(super) async fn open(
        &mut self,
        parent: &Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        flags: OpenFlags,
        access: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let scratch = self.scratch(parent).await?;
        let Descriptor::Dir(parent) = self.table.get(parent)? else {
            return Err(ErrorCode::NotDirectory.into());
        };
        let request = Request::check(parent, path_flags, path, flags, access)?;
        let (mode, permissions, parent) = (request.mode, parent.perms, Arc::clone(&parent.dir));
        // Taken along: who is ended while a thread opens the file still has room for it.
        let room = self.mounts.room()?;
        let (descriptor, open) = spawn_blocking(move || {
            let (file, is_directory, hold) = match scratch {
                Some(scratch) => {
                    let (file, is_directory, hold) = scratch.open(&parent, &request)?;
                    (file, is_directory, Some(Arc::new(hold)))
                }
                None => {
                    let (file, is_directory) = request.open(&parent)?;
                    (file, is_directory, None)
                }
            };
            let (descriptor, file) = if is_directory {
                let it = Dir::new(file, permissions, mode, false);
                let file = Arc::clone(&it.dir);
                (Descriptor::Dir(it), file)
            } else {
                let it = filesystem::File::new(file, permissions, mode, false);
                let file = Arc::clone(&it.file);
                (Descriptor::File(it), file)
            };
            Ok::<_, ErrorCode>((descriptor, Open::new(&file, room, hold)))
        })
        .await?;
        let descriptor = self.table.push(descriptor)?;
        self.held.insert(descriptor.rep(), open);
        Ok(descriptor)
    }
}
