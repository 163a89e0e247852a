//! `dunlin backup`

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Exit;
use crate::queue::sqlite::FILE_NAME;
use crate::store::back_up;

/// Copy the queues of a host to a new file.
///
/// The host may run: it is not held up, and the copy has all that was acknowledged before it
/// began. To restore it, stop the host, put the copy in the place of `queue.db` in the state
/// directory, and remove `queue.db-wal` and `queue.db-shm` there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The copy: a file that is not there yet
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Folder of the host's state
    #[arg(long, value_name = "DIR", env = "DUNLIN_STATE", default_value = super::STATE_DIR)]
    pub state: PathBuf,
}

/// Copies, and says how large the copy is.
///
/// # Errors
/// If there is nothing to copy, or the copy cannot be written.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let Args { file, state } = args;
    let database = state.join(FILE_NAME);
    if !state.is_dir() {
        anyhow::bail!(
            "there is no folder {}; name the host's state directory with --state",
            state.display()
        );
    }
    if !database.is_file() {
        anyhow::bail!(
            "there is no {FILE_NAME} in {}; name the state directory of a host that has run \
             with --state",
            state.display()
        );
    }
    if file.symlink_metadata().is_ok() {
        anyhow::bail!("{} is there already; name a new file", file.display());
    }
    let bytes = copy(&database, file)?;
    super::print(format!("{}: {bytes} bytes\n", file.display()).as_bytes())?;
    Ok(Exit::Ok)
}

/// Copies beside the file first: under its name there is a whole copy or none, also if this
/// is killed.
fn copy(database: &Path, file: &Path) -> anyhow::Result<u64> {
    let part = file.with_added_extension("part");
    back_up(database, &part)?;
    let moved = || {
        std::fs::rename(&part, file)?;
        let folder = std::path::absolute(file)?;
        File::open(folder.parent().unwrap_or(&folder))?.sync_all()?;
        file.metadata()
    };
    let metadata = moved().with_context(|| format!("cannot write {}", file.display()))?;
    Ok(metadata.len())
}
