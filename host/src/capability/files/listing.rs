//! Listing a directory, a piece at a time: it may be larger than the host's memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use cap_primitives::fs::{DirEntry, FileType, FileTypeExt as _, ReadDir, read_base_dir};
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};
use wasmtime_wasi::runtime::spawn_blocking;

use super::held::Room;
use super::scratch::Hold;

/// Entries that are read at once. A name has up to 255 bytes.
const PIECE: usize = 128;

/// A directory that is being listed.
pub(super) struct Listing {
    /// What was read and not asked for yet.
    next: VecDeque<Result<DirectoryEntry, ErrorCode>>,
    /// What was not read yet. None at the end, and while it is read.
    rest: Option<ReadDir>,
    /// Of the scratch directory's.
    _hold: Option<Arc<Hold>>,
    _room: Room,
}

impl Listing {
    pub(super) async fn begin(
        directory: Arc<File>,
        room: Room,
        hold: Option<Arc<Hold>>,
    ) -> io::Result<Self> {
        let rest = spawn_blocking(move || read_base_dir(&directory)).await?;
        Ok(Self {
            next: VecDeque::new(),
            rest: Some(rest),
            _hold: hold,
            _room: room,
        })
    }

    /// The next entry. None at the end.
    pub(super) async fn next(&mut self) -> Result<Option<DirectoryEntry>, ErrorCode> {
        if self.next.is_empty()
            && let Some(mut rest) = self.rest.take()
        {
            let (piece, rest) = spawn_blocking(move || {
                let mut piece = VecDeque::new();
                while piece.len() < PIECE {
                    let Some(found) = rest.next() else {
                        return (piece, None);
                    };
                    piece.extend(found.map_err(ErrorCode::from).and_then(entry).transpose());
                }
                (piece, Some(rest))
            })
            .await;
            (self.next, self.rest) = (piece, rest);
        }
        self.next.pop_front().transpose()
    }
}

/// As the guest sees it. None if it has gone meanwhile.
fn entry(entry: DirEntry) -> Result<Option<DirectoryEntry>, ErrorCode> {
    let mut found = entry.file_type()?;
    if found == FileType::unknown() {
        // Some file systems do not say.
        match entry.metadata() {
            Ok(metadata) => found = metadata.file_type(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let name = entry.file_name().into_string();
    Ok(Some(DirectoryEntry {
        type_: kind(found),
        name: name.map_err(|_| ErrorCode::IllegalByteSequence)?,
    }))
}

fn kind(found: FileType) -> DescriptorType {
    if found.is_file() {
        DescriptorType::RegularFile
    } else if found.is_dir() {
        DescriptorType::Directory
    } else if found.is_symlink() {
        DescriptorType::SymbolicLink
    } else if found.is_fifo() {
        DescriptorType::Fifo
    } else if found.is_socket() {
        DescriptorType::Socket
    } else if found.is_block_device() {
        DescriptorType::BlockDevice
    } else if found.is_char_device() {
        DescriptorType::CharacterDevice
    } else {
        DescriptorType::Unknown
    }
}
