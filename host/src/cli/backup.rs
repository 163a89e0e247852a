//! `dunlin backup`

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Exit;
use crate::key_value;
use crate::queue::sqlite;
use crate::store::back_up;

/// What is copied: each file is whole for itself, the later ones some moments younger.
const FILES: [&str; 2] = [sqlite::FILE_NAME, key_value::FILE_NAME];

/// Copy the queues and the buckets of a host to a new folder.
///
/// The host may run: it is not held up, and the copies have all that was acknowledged before
/// this began. To restore them, stop the host, put `queue.db` and `values.db` in the place of
/// those in the state directory, and remove the files there that end with `-wal` and `-shm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The copy: a folder that is not there yet
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,

    /// Folder of the host's state
    #[arg(long, value_name = "DIR", env = "DUNLIN_STATE", default_value = super::STATE_DIR)]
    pub state: PathBuf,
}

/// Copies, and says how large the copies are.
///
/// # Errors
/// If there is nothing to copy, or a copy cannot be written.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let Args { folder, state } = args;
    if !state.is_dir() {
        anyhow::bail!(
            "there is no folder {}; name the host's state directory with --state",
            state.display()
        );
    }
    if !state.join(sqlite::FILE_NAME).is_file() {
        anyhow::bail!(
            "there is no {} in {}; name the state directory of a host that has run with --state",
            sqlite::FILE_NAME,
            state.display()
        );
    }
    if folder.symlink_metadata().is_ok() {
        anyhow::bail!("{} is there already; name a new folder", folder.display());
    }
    let sizes = copy(state, folder)?;
    for (name, bytes) in sizes {
        let line = format!("{}: {bytes} bytes\n", folder.join(name).display());
        super::print(line.as_bytes())?;
    }
    Ok(Exit::Ok)
}

/// Copies beside the folder first: under its name there are whole copies or none, also if
/// this is killed.
fn copy(state: &Path, folder: &Path) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let part = folder.with_added_extension("part");
    let cannot = || {
        format!(
            "cannot write {}; name a new folder where there is room",
            part.display()
        )
    };
    let mut builder = DirBuilder::new();
    match builder.mode(0o700).create(&part) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => anyhow::bail!(
            "{} is there, from a copy that was cut short or is still running; remove it if none \
             runs",
            part.display()
        ),
        made => made.with_context(cannot)?,
    }
    let copied = copy_into(state, &part);
    if copied.is_err() {
        let _ = std::fs::remove_dir_all(&part);
    }
    let sizes = copied?;
    let moved = || {
        std::fs::rename(&part, folder)?;
        let folder = std::path::absolute(folder)?;
        File::open(folder.parent().unwrap_or(&folder))?.sync_all()
    };
    moved().with_context(|| format!("cannot write {}", folder.display()))?;
    Ok(sizes)
}

fn copy_into(state: &Path, part: &Path) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let mut sizes = Vec::new();
    for name in FILES {
        let database = state.join(name);
        // A host that was made before there were buckets has none.
        if database.is_file() {
            back_up(&database, &part.join(name))?;
            sizes.push((name, part.join(name).metadata()?.len()));
        }
    }
    Ok(sizes)
}
