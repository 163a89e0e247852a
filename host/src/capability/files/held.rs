//! What instances have open: counted, charged, and closed away from the cores.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, FsResult, InputStream, OutputStream, Pollable, StreamError,
    StreamResult,
};

use super::scratch::{Hold, Scratch};
use super::{Mounts, View};
use crate::runtime::Charge;

/// What a stream or a listing may keep in the host's memory: wasmtime-wasi reads and
/// writes so much at once.
const BUFFER: u64 = 64 << 10;

/// The files and directories that one instance has open, by their number in its table.
#[derive(Default)]
pub(crate) struct Held {
    open: FxHashMap<u32, Open>,
    /// Numbers of the scratch directory itself.
    tops: FxHashSet<u32>,
    /// Once the guest has used it.
    scratch: Option<Arc<Scratch>>,
}

impl Held {
    pub(super) fn insert(&mut self, number: u32, open: Open) {
        self.open.insert(number, open);
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.open.remove(&number);
        self.tops.remove(&number);
    }

    /// The scratch directory got this number.
    pub(super) fn insert_top(&mut self, number: u32) {
        self.tops.insert(number);
    }

    fn is_top(&self, number: u32) -> bool {
        self.tops.contains(&number)
    }

    /// What keeps a file or directory of the scratch directory.
    pub(super) fn hold(&self, number: u32) -> Option<&Arc<Hold>> {
        self.open.get(&number)?.hold.as_ref()
    }

    /// The scratch directory, if it is there yet.
    pub(super) fn scratch(&self) -> Option<&Arc<Scratch>> {
        self.scratch.as_ref()
    }
}

/// Room for one thing that is open.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
    _charge: Option<Charge>,
}

impl Mounts {
    fn permit(&self) -> Result<OwnedSemaphorePermit, ErrorCode> {
        let permit = Arc::clone(&self.room).try_acquire_owned();
        permit.map_err(|_| ErrorCode::Quota)
    }

    /// Room for a file or a directory.
    pub(super) fn room(&self) -> Result<Room, ErrorCode> {
        Ok(Room {
            _permit: self.permit()?,
            _charge: None,
        })
    }
}

impl View<'_> {
    /// The scratch directory, if this lies in it or is it. It is made here when it is first
    /// used.
    pub(super) async fn scratch(
        &mut self,
        fd: &Resource<Descriptor>,
    ) -> FsResult<Option<Arc<Scratch>>> {
        let number = fd.rep();
        if let Some(hold) = self.held.hold(number) {
            return Ok(Some(Arc::clone(hold.scratch())));
        }
        let (true, Some(allowance)) = (self.held.is_top(number), &self.mounts.scratch) else {
            return Ok(None);
        };
        let scratch = match &self.held.scratch {
            Some(scratch) => Arc::clone(scratch),
            None => {
                let made = allowance.make().await?;
                self.held.scratch = Some(Arc::clone(&made));
                made
            }
        };
        if let Descriptor::Dir(top) = self.table.get_mut(fd)? {
            top.dir = Arc::clone(scratch.root());
        }
        Ok(Some(scratch))
    }

    /// Room for something with a buffer.
    pub(super) fn room_with_buffer(&self) -> Result<Room, ErrorCode> {
        let permit = self.mounts.permit()?;
        let mut charge = self.budget.charge();
        if !charge.grow(BUFFER) {
            return Err(ErrorCode::InsufficientMemory);
        }
        Ok(Room {
            _permit: permit,
            _charge: Some(charge),
        })
    }
}

/// An open file. Whoever has it last closes it on a thread for files: what was removed
/// meanwhile is freed then, which takes long if it was large.
pub(super) struct Open {
    /// There until it is dropped.
    file: Option<Arc<File>>,
    room: Option<Room>,
    /// Of the scratch directory's.
    hold: Option<Arc<Hold>>,
}

impl Open {
    pub(super) fn new(file: &Arc<File>, room: Room, hold: Option<Arc<Hold>>) -> Self {
        Self {
            file: Some(Arc::clone(file)),
            room: Some(room),
            hold,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let (room, hold) = (self.room.take(), self.hold.take());
        let Some(file) = self.file.take().and_then(Arc::into_inner) else {
            return;
        };
        // A host that ends has no such thread left.
        if let Ok(here) = tokio::runtime::Handle::try_current() {
            here.spawn_blocking(move || {
                drop(file);
                drop(hold);
                drop(room);
            });
        }
    }
}

/// A stream of a file that is held as long as the stream. The order counts: the stream's
/// own hold goes first, so that the last is ours.
pub(super) struct Counted<S> {
    pub(super) stream: S,
    pub(super) _open: Open,
}

#[async_trait]
impl<S: Pollable> Pollable for Counted<S> {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl InputStream for Counted<DynInputStream> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.stream.read(size)
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.stream.blocking_read(size).await
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}

#[async_trait]
impl OutputStream for Counted<DynOutputStream> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        // What `check_write` allows, and what is charged.
        if bytes.len() as u64 > BUFFER {
            return Err(StreamError::trap(
                "more was written than `check-write` allowed",
            ));
        }
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.stream.check_write()
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.stream.blocking_write_and_flush(bytes).await
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}
