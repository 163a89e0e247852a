//! The interface: what is done here, and what is left to wasmtime-wasi.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime_wasi::FsPerms;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, ErrorCode, Host, HostDescriptor, HostDirectoryEntryStream,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};
use wasmtime_wasi::runtime::spawn_blocking;

use super::View;
use super::held::{Counted, Open};
use super::listing::Listing;
use super::scratch::{Mode, Output, Scratch};

/// The longest path, and target of a link, in bytes: Linux takes none of more (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// Refuses what is too long before it waits for a thread: nobody charges it.
fn check(paths: &[&str]) -> Result<(), ErrorCode> {
    match paths.iter().all(|path| path.len() <= MAX_PATH) {
        true => Ok(()),
        false => Err(ErrorCode::NameTooLong),
    }
}

/// A listing's number in the table, as a type of ours: theirs holds all entries at once.
fn listing(stream: &Resource<types::DirectoryEntryStream>) -> Resource<Listing> {
    Resource::new_own(stream.rep())
}

/// Works in a scratch directory, on a thread for files.
async fn there<T: Send + 'static>(
    scratch: Arc<Scratch>,
    work: impl FnOnce(&Scratch) -> Result<T, ErrorCode> + Send + 'static,
) -> FsResult<T> {
    Ok(spawn_blocking(move || work(&scratch)).await?)
}

impl View<'_> {
    /// Room for a stream of this file.
    fn stream(&self, fd: &Resource<types::Descriptor>) -> FsResult<Open> {
        match self.table.get(fd)? {
            Descriptor::File(file) => {
                let hold = self.held.hold(fd.rep()).cloned();
                Ok(Open::new(&file.file, self.room_with_buffer()?, hold))
            }
            Descriptor::Dir(_) => Err(ErrorCode::IsDirectory.into()),
        }
    }

    /// A file of the scratch directory, if it is one.
    fn scratch_file(
        &self,
        fd: &Resource<types::Descriptor>,
    ) -> FsResult<Option<(Arc<Scratch>, Arc<File>)>> {
        let Some(hold) = self.held.hold(fd.rep()) else {
            return Ok(None);
        };
        match self.table.get(fd)? {
            Descriptor::File(file) => {
                Ok(Some((Arc::clone(hold.scratch()), Arc::clone(&file.file))))
            }
            // As wasmtime-wasi says it.
            Descriptor::Dir(_) => Err(ErrorCode::BadDescriptor.into()),
        }
    }

    /// A directory of the scratch directory or this itself, if it is one.
    async fn scratch_directory(
        &mut self,
        fd: &Resource<types::Descriptor>,
    ) -> FsResult<Option<(Arc<Scratch>, Arc<File>)>> {
        let Some(scratch) = self.scratch(fd).await? else {
            return Ok(None);
        };
        match self.table.get(fd)? {
            Descriptor::Dir(directory) => Ok(Some((scratch, Arc::clone(&directory.dir)))),
            Descriptor::File(_) => Err(ErrorCode::NotDirectory.into()),
        }
    }

    /// Two of them. What is there stays there: else nobody would know what it holds.
    async fn scratch_directories(
        &mut self,
        one: &Resource<types::Descriptor>,
        other: &Resource<types::Descriptor>,
    ) -> FsResult<Option<(Arc<Scratch>, Arc<File>, Arc<File>)>> {
        let one = self.scratch_directory(one).await?;
        let other = self.scratch_directory(other).await?;
        match (one, other) {
            (Some((scratch, one)), Some((_, other))) => Ok(Some((scratch, one, other))),
            (None, None) => Ok(None),
            _ => Err(ErrorCode::CrossDevice.into()),
        }
    }

    /// A stream into a file of the scratch directory, if it is one.
    fn scratch_output(
        &mut self,
        fd: &Resource<types::Descriptor>,
        mode: Mode,
    ) -> FsResult<Option<Resource<DynOutputStream>>> {
        let Some(hold) = self.held.hold(fd.rep()) else {
            return Ok(None);
        };
        let Descriptor::File(file) = self.table.get(fd)? else {
            return Err(ErrorCode::BadDescriptor.into());
        };
        let stream: DynOutputStream = Box::new(Output::new(&file.file, hold, mode));
        Ok(Some(self.table.push(stream)?))
    }

    fn counted_output(
        &mut self,
        stream: Resource<DynOutputStream>,
        open: Open,
    ) -> FsResult<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(Counted {
            stream: self.table.delete(stream)?,
            _open: open,
        });
        Ok(self.table.push(stream)?)
    }
}

impl Host for View<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.wasi().convert_error_code(error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.wasi().filesystem_error_code(error)
    }
}

impl HostDirectoryEntryStream for View<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<types::DirectoryEntryStream>,
    ) -> FsResult<Option<types::DirectoryEntry>> {
        Ok(self.table.get_mut(&listing(&stream))?.next().await?)
    }

    fn drop(&mut self, stream: Resource<types::DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table.delete(listing(&stream))?;
        Ok(())
    }
}

impl HostDescriptor for View<'_> {
    async fn open_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        path_flags: types::PathFlags,
        path: String,
        open_flags: types::OpenFlags,
        flags: types::DescriptorFlags,
    ) -> FsResult<Resource<types::Descriptor>> {
        check(&[&path])?;
        self.open(&fd, path_flags, path, open_flags, flags).await
    }

    fn drop(&mut self, fd: Resource<types::Descriptor>) -> wasmtime::Result<()> {
        let number = fd.rep();
        self.table.delete(fd)?;
        self.held.remove(number);
        Ok(())
    }

    async fn set_times_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        path_flags: types::PathFlags,
        path: String,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        check(&[&path])?;
        if !path_flags.contains(types::PathFlags::SYMLINK_FOLLOW) {
            self.scratch(&fd).await?;
            let mut wasi = self.wasi();
            return wasi
                .set_times_at(fd, path_flags, path, accessed, modified)
                .await;
        }
        // Theirs opens whatever the path leads to.
        let (nothing, read) = (types::OpenFlags::empty(), types::DescriptorFlags::READ);
        let file = self.open(&fd, path_flags, path, nothing, read).await?;
        let same = Resource::new_borrow(file.rep());
        let set = self.wasi().set_times(same, accessed, modified).await;
        HostDescriptor::drop(self, file).map_err(FsError::trap)?;
        set
    }

    async fn read_directory(
        &mut self,
        fd: Resource<types::Descriptor>,
    ) -> FsResult<Resource<types::DirectoryEntryStream>> {
        self.scratch(&fd).await?;
        let Descriptor::Dir(directory) = self.table.get(&fd)? else {
            return Err(ErrorCode::NotDirectory.into());
        };
        let directory = Arc::clone(&directory.dir);
        let hold = self.held.hold(fd.rep()).cloned();
        let listing = Listing::begin(directory, self.room_with_buffer()?, hold).await?;
        Ok(Resource::new_own(self.table.push(listing)?.rep()))
    }

    fn read_via_stream(
        &mut self,
        fd: Resource<types::Descriptor>,
        offset: types::Filesize,
    ) -> FsResult<Resource<DynInputStream>> {
        let open = self.stream(&fd)?;
        let stream = self.wasi().read_via_stream(fd, offset)?;
        let stream: DynInputStream = Box::new(Counted {
            stream: self.table.delete(stream)?,
            _open: open,
        });
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        fd: Resource<types::Descriptor>,
        offset: types::Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        let open = self.stream(&fd)?;
        if let Some(stream) = self.scratch_output(&fd, Mode::At(offset))? {
            return self.counted_output(stream, open);
        }
        let stream = self.wasi().write_via_stream(fd, offset)?;
        self.counted_output(stream, open)
    }

    fn append_via_stream(
        &mut self,
        fd: Resource<types::Descriptor>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let open = self.stream(&fd)?;
        if let Some(stream) = self.scratch_output(&fd, Mode::Append)? {
            return self.counted_output(stream, open);
        }
        let stream = self.wasi().append_via_stream(fd)?;
        self.counted_output(stream, open)
    }

    // From here on theirs, but for what changes a scratch directory, and writing: nothing of
    // it opens a file, or keeps anything.

    async fn is_same_object(
        &mut self,
        one: Resource<types::Descriptor>,
        other: Resource<types::Descriptor>,
    ) -> wasmtime::Result<bool> {
        for fd in [&one, &other] {
            // The same, where it cannot be made.
            if let Err(error) = self.scratch(fd).await {
                error.downcast()?;
            }
        }
        self.wasi().is_same_object(one, other).await
    }

    async fn advise(
        &mut self,
        fd: Resource<types::Descriptor>,
        offset: types::Filesize,
        len: types::Filesize,
        advice: types::Advice,
    ) -> FsResult<()> {
        self.wasi().advise(fd, offset, len, advice).await
    }

    async fn sync_data(&mut self, fd: Resource<types::Descriptor>) -> FsResult<()> {
        if self.scratch(&fd).await?.is_some() {
            return Ok(());
        }
        self.wasi().sync_data(fd).await
    }

    async fn get_flags(
        &mut self,
        fd: Resource<types::Descriptor>,
    ) -> FsResult<types::DescriptorFlags> {
        self.wasi().get_flags(fd).await
    }

    async fn get_type(
        &mut self,
        fd: Resource<types::Descriptor>,
    ) -> FsResult<types::DescriptorType> {
        self.wasi().get_type(fd).await
    }

    async fn set_size(
        &mut self,
        fd: Resource<types::Descriptor>,
        size: types::Filesize,
    ) -> FsResult<()> {
        if let Some((scratch, file)) = self.scratch_file(&fd)? {
            return there(scratch, move |it| it.set_size(&file, size)).await;
        }
        self.wasi().set_size(fd, size).await
    }

    async fn set_times(
        &mut self,
        fd: Resource<types::Descriptor>,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        self.scratch(&fd).await?;
        self.wasi().set_times(fd, accessed, modified).await
    }

    async fn read(
        &mut self,
        fd: Resource<types::Descriptor>,
        len: types::Filesize,
        offset: types::Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        self.wasi().read(fd, len, offset).await
    }

    async fn write(
        &mut self,
        fd: Resource<types::Descriptor>,
        bytes: Vec<u8>,
        offset: types::Filesize,
    ) -> FsResult<types::Filesize> {
        // Charged also while it waits for a thread, and nobody for it any more. So theirs
        // does not write it: there it would go alone.
        let bytes = self.budget.hold(bytes.into());
        let bytes = bytes.ok_or(ErrorCode::InsufficientMemory)?;
        if let Some((scratch, file)) = self.scratch_file(&fd)? {
            let write = move |it: &Scratch| match it.write(&file, &bytes, Mode::At(offset)) {
                (0, Err(error)) => Err(error.into()),
                (written, _) => Ok(written as u64),
            };
            return there(scratch, write).await;
        }
        let file = match self.table.get(&fd)? {
            Descriptor::File(file) if file.perms == FsPerms::ReadOnly => {
                return Err(ErrorCode::NotPermitted.into());
            }
            Descriptor::File(file) => Arc::clone(&file.file),
            Descriptor::Dir(_) => return Err(ErrorCode::BadDescriptor.into()),
        };
        let written = spawn_blocking(move || file.write_at(&bytes, offset)).await?;
        Ok(written as u64)
    }

    async fn sync(&mut self, fd: Resource<types::Descriptor>) -> FsResult<()> {
        if self.scratch(&fd).await?.is_some() {
            return Ok(());
        }
        self.wasi().sync(fd).await
    }

    async fn create_directory_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        path: String,
    ) -> FsResult<()> {
        check(&[&path])?;
        if let Some((scratch, base)) = self.scratch_directory(&fd).await? {
            let make = move |it: &Scratch| it.create_directory(&base, &path);
            return there(scratch, make).await;
        }
        self.wasi().create_directory_at(fd, path).await
    }

    async fn stat(&mut self, fd: Resource<types::Descriptor>) -> FsResult<types::DescriptorStat> {
        self.scratch(&fd).await?;
        self.wasi().stat(fd).await
    }

    async fn stat_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::DescriptorStat> {
        check(&[&path])?;
        self.scratch(&fd).await?;
        self.wasi().stat_at(fd, flags, path).await
    }

    async fn link_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        flags: types::PathFlags,
        path: String,
        to: Resource<types::Descriptor>,
        to_path: String,
    ) -> FsResult<()> {
        check(&[&path, &to_path])?;
        if let Some((scratch, from, to)) = self.scratch_directories(&fd, &to).await? {
            if flags.contains(types::PathFlags::SYMLINK_FOLLOW) {
                return Err(ErrorCode::Invalid.into());
            }
            let link = move |it: &Scratch| it.link((&from, &path), (&to, &to_path));
            return there(scratch, link).await;
        }
        self.wasi().link_at(fd, flags, path, to, to_path).await
    }

    async fn readlink_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        path: String,
    ) -> FsResult<String> {
        check(&[&path])?;
        self.scratch(&fd).await?;
        self.wasi().readlink_at(fd, path).await
    }

    async fn remove_directory_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        path: String,
    ) -> FsResult<()> {
        check(&[&path])?;
        if let Some((scratch, base)) = self.scratch_directory(&fd).await? {
            let remove = move |it: &Scratch| it.remove_directory(&base, &path);
            return there(scratch, remove).await;
        }
        self.wasi().remove_directory_at(fd, path).await
    }

    async fn rename_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        path: String,
        to: Resource<types::Descriptor>,
        to_path: String,
    ) -> FsResult<()> {
        check(&[&path, &to_path])?;
        if let Some((scratch, from, to)) = self.scratch_directories(&fd, &to).await? {
            let rename = move |it: &Scratch| it.rename((&from, &path), (&to, &to_path));
            return there(scratch, rename).await;
        }
        self.wasi().rename_at(fd, path, to, to_path).await
    }

    async fn symlink_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        target: String,
        path: String,
    ) -> FsResult<()> {
        check(&[&target, &path])?;
        if let Some((scratch, base)) = self.scratch_directory(&fd).await? {
            let link = move |it: &Scratch| it.symlink(&target, &base, &path);
            return there(scratch, link).await;
        }
        self.wasi().symlink_at(fd, target, path).await
    }

    async fn unlink_file_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        path: String,
    ) -> FsResult<()> {
        check(&[&path])?;
        if let Some((scratch, base)) = self.scratch_directory(&fd).await? {
            let remove = move |it: &Scratch| it.remove_file(&base, &path);
            return there(scratch, remove).await;
        }
        self.wasi().unlink_file_at(fd, path).await
    }

    async fn metadata_hash(
        &mut self,
        fd: Resource<types::Descriptor>,
    ) -> FsResult<types::MetadataHashValue> {
        self.scratch(&fd).await?;
        self.wasi().metadata_hash(fd).await
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Resource<types::Descriptor>,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::MetadataHashValue> {
        check(&[&path])?;
        self.scratch(&fd).await?;
        self.wasi().metadata_hash_at(fd, flags, path).await
    }
}
