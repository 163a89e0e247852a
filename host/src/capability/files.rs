//! `wasi:filesystem`: the directories that a function mounts, its scratch directory
//! ([`scratch`]), and nothing else.
//!
//! Each directory is opened once, when the function is deployed; all paths of guests
//! are resolved below that handle (`openat2` with `RESOLVE_BENEATH`, through
//! cap-primitives, what cap-std is made of). A path or a symbolic link that leads out
//! is refused. The path of the directory itself is never followed again.
//!
//! wasmtime-wasi does most of the work, on threads for that ([`host`] says what it is not
//! trusted with):
//!
//! - Only files and directories are opened: the open of a pipe waits for its other end,
//!   and a thread that waits cannot be ended.
//! - A directory is read a piece at a time, not as a whole into the host's memory.
//! - What is open is counted, and buffers are charged to the memory budget ([`held`]).
//! - What is open is closed where it may take its time, not on a core.

mod held;
mod host;
mod listing;
mod open;
mod scratch;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

use cap_primitives::ambient_authority;
use cap_primitives::fs::open_ambient_dir;
use tokio::sync::Semaphore;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, Dir, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::{FsPerms, OpenMode};

pub(crate) use held::Held;
pub(crate) use scratch::Space;

use crate::function::{Access, FunctionSpec, Mount, SCRATCH_PATH};
use crate::runtime::{Budget, State};
use scratch::Allowance;

/// What all instances of a function together may have open: files, directories, streams
/// and listings. A function has at most a thousand instances, and few files in each.
pub(crate) const MAX_OPEN: usize = 2048;

/// The directories of a function, open.
pub(crate) struct Mounts {
    /// Each with its path for the guest.
    directories: Vec<(Dir, String)>,
    /// What is left of [`MAX_OPEN`].
    room: Arc<Semaphore>,
    /// What it may have of scratch.
    scratch: Option<Allowance>,
}

/// Why a directory is not mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// The system does not open it.
    #[error("cannot open {path}, which it mounts as `{to}`: {error}")]
    CannotOpen {
        path: String,
        to: String,
        error: io::Error,
    },
    /// The host's keys would be the guest's.
    #[error(
        "{path}, which it mounts as `{to}`, and the state directory {state} lie within each other"
    )]
    State {
        path: String,
        to: String,
        state: String,
    },
}

impl MountError {
    /// What to do.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::CannotOpen { .. } => "let the host's user open it",
            Self::State { .. } => "mount another directory, or move the state by `--state`",
        }
    }
}

impl Mounts {
    /// Opens what this function mounts. Blocks: not for a core.
    pub(crate) fn open(
        spec: &FunctionSpec,
        state: &Path,
        space: &Arc<Space>,
    ) -> Result<Self, MountError> {
        let directories = spec.mounts.iter().map(|mount| open(mount, state));
        let scratch = spec.scratch.map(|quota| Allowance::new(space, quota.0));
        Ok(Self {
            directories: directories.collect::<Result<_, _>>()?,
            room: Arc::new(Semaphore::new(MAX_OPEN)),
            scratch,
        })
    }
}

fn open(mount: &Mount, state: &Path) -> Result<(Dir, String), MountError> {
    let (permissions, mode) = match mount.access {
        Access::ReadOnly => (FsPerms::ReadOnly, OpenMode::READ),
        Access::ReadWrite => (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE),
    };
    // As it is named in messages.
    let (path, to) = (mount.path.display().to_string(), mount.to.clone());
    let opened = mount.path.canonicalize().and_then(|real| {
        let directory = open_ambient_dir(&real, ambient_authority())?;
        Ok((directory, real, state.canonicalize()?))
    });
    match opened {
        Err(error) => Err(MountError::CannotOpen { path, to, error }),
        Ok((_, real, state)) if real.starts_with(&state) || state.starts_with(&real) => {
            let (path, state) = (real.display().to_string(), state.display().to_string());
            Err(MountError::State { path, to, state })
        }
        Ok((directory, ..)) => Ok((Dir::new(directory, permissions, mode, false), to)),
    }
}

/// What the interface works on. Made for each call, from references alone.
struct View<'a> {
    table: &'a mut ResourceTable,
    mounts: &'a Mounts,
    held: &'a mut Held,
    budget: &'a Arc<Budget>,
    /// wasmtime-wasi's own settings: the directories are not in them.
    context: WasiFilesystemCtx,
}

impl View<'_> {
    /// What wasmtime-wasi works on.
    fn wasi(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView {
            ctx: &mut self.context,
            table: self.table,
        }
    }
}

struct Files;

impl HasData for Files {
    type Data<'a> = View<'a>;
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<State, Files>(linker, view)?;
    types::add_to_linker::<State, Files>(linker, view)
}

fn view(state: &mut State) -> View<'_> {
    View {
        table: &mut state.table,
        mounts: &state.common.mounts,
        held: &mut state.held,
        budget: state.limiter.budget(),
        context: WasiFilesystemCtx::default(),
    }
}

impl preopens::Host for View<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let mut all = Vec::with_capacity(self.mounts.directories.len() + 1);
        for (directory, to) in &self.mounts.directories {
            let directory = Descriptor::Dir(directory.clone());
            all.push((self.table.push(directory)?, to.clone()));
        }
        if let Some(allowance) = &self.mounts.scratch {
            let mut top = allowance.nowhere().clone();
            if let Some(scratch) = self.held.scratch() {
                top.dir = Arc::clone(scratch.root());
            }
            let top = self.table.push(Descriptor::Dir(top))?;
            self.held.insert_top(top.rep());
            all.push((top, SCRATCH_PATH.to_owned()));
        }
        Ok(all)
    }
}
