//! `dunlin man`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, Exit};

/// Print the manual, or write its pages.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write dunlin.1 and a page for each subcommand into this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints dunlin(1), or writes all pages.
///
/// # Errors
/// If it cannot be written.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.out {
        None => super::print(&page()?)?,
        Some(folder) => write(folder)
            .with_context(|| format!("cannot write the manual to {}", folder.display()))?,
    }
    Ok(Exit::Ok)
}

pub(super) fn page() -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    Ok(page)
}

pub(super) fn write(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)
}
