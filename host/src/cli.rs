//! The command line: one file for each subcommand.
//!
//! The shape is declared here for clap; completions and the man page come from the same
//! declaration. Only these modules print. A subcommand answers with an [`Exit`] or an
//! error, and [`fail`] is the one place that turns an error into text and exit code.

pub mod backup;
pub mod build;
pub mod check;
pub mod client;
pub mod completions;
pub mod invoke;
pub mod man;
pub mod new;
pub mod queue;
pub mod schedule;
#[cfg(test)]
mod tests;
pub mod up;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Problems;

/// The folder of the host's state, beside the manifest, unless `--state` says otherwise.
pub const STATE_DIR: &str = ".dunlin";

const AFTER_HELP: &str = "\
Exit codes:
  0   it worked
  1   it failed
  2   `invoke`: the function failed
  64  the command line or the manifest is wrong

An option wins over its environment variable, that over the manifest, and the manifest over
the default.";

/// A serverless function host for edge boxes.
///
/// It runs functions, which are WASI components, each invocation in a sandbox of its own.
/// The manifest `dunlin.toml` says which functions there are, and what they may take.
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, after_long_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    // Without comments of their own, so that the help is that of each `Args`.
    Up(up::Args),
    New(new::Args),
    Build(build::Args),
    Invoke(invoke::Args),
    Check(check::Args),
    Queue(queue::Args),
    Schedule(schedule::Args),
    Backup(backup::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it worked.
    Ok,
    /// 1: it failed.
    Failed,
    /// 2: `invoke` reached the function, and the function failed.
    FunctionFailed,
    /// 64: the command line or the manifest is wrong (`EX_USAGE` of sysexits).
    Usage,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::FunctionFailed => 2,
            Self::Usage => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Reads the command line, program name first, and the variables that stand in for
/// options.
///
/// # Errors
/// If the program is to end now: help, version or a message is printed.
pub fn parse<I>(args: I) -> Result<Cli, Exit>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    Cli::try_parse_from(args).map_err(|error| {
        // Help for somebody who is gone is no failure.
        let _ = error.print();
        // clap's own 2 is taken by `invoke`.
        if error.use_stderr() {
            Exit::Usage
        } else {
            Exit::Ok
        }
    })
}

/// Prints an error with its causes to stderr, and says how to exit: problems of the
/// manifest a line each, anything else as `error: …`.
pub fn fail(error: &anyhow::Error) -> Exit {
    let mut stderr = io::stderr().lock();
    // Nobody reads stderr: the exit code is left.
    let (_, exit) = match error.downcast_ref::<Problems>() {
        Some(problems) => (writeln!(stderr, "{problems}"), Exit::Usage),
        None => (writeln!(stderr, "error: {error:#}"), Exit::Failed),
    };
    exit
}

/// That there is no snapshot of a function's `init`: a line.
fn init_note(function: &str, why: &str) -> String {
    format!(
        "note: function.{function}: its `init` runs in each instance, not once at deploy: {why}\n"
    )
}

/// Writes to stdout. That nobody reads any further (`dunlin man | head`) is no failure.
fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
