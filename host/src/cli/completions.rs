//! `dunlin completions`

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit};

/// Print shell completions.
///
/// For bash: `dunlin completions bash > ~/.local/share/bash-completion/completions/dunlin`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    pub shell: Shell,
}

/// Prints the completions.
///
/// # Errors
/// If stdout cannot be written.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    super::print(&generate(args.shell))?;
    Ok(Exit::Ok)
}

pub(super) fn generate(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dunlin", &mut script);
    script
}
