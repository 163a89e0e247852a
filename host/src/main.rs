//! The `dunlin` program: arguments → configuration → run → exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use dunlin::cli::{self, Cli, Command, Exit};
use dunlin::config::Variables;
use mimalloc::MiMalloc;

/// Threads of their own for the cores, with short-lived allocations that mostly stay on
/// one: glibc's allocator costs a request more.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // What compiles components and takes their snapshots is this program in a process of
    // its own; these are no commands for people.
    if let [_, command, input, output] = args.as_slice() {
        let [input, output] = [input, output].map(Path::new);
        if command == "compile-component" {
            return compile_component(input, output);
        }
        if command == "snapshot-component" {
            return snapshot_component(input, output);
        }
    }
    let variables: Variables = std::env::vars_os().collect();
    match cli::parse(args) {
        Ok(cli) => run(cli, &variables).into(),
        Err(exit) => exit.into(),
    }
}

fn compile_component(input: &Path, output: &Path) -> ExitCode {
    match dunlin::runtime::compile_component(input, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn snapshot_component(input: &Path, output: &Path) -> ExitCode {
    match dunlin::runtime::snapshot_component(input, output) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(reason)) => {
            eprintln!("{reason}");
            ExitCode::from(dunlin::runtime::NO_SNAPSHOT)
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, variables: &Variables) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return cli::fail(&anyhow::Error::new(error).context("cannot start the runtime"));
        }
    };
    let result = runtime.block_on(async {
        match &cli.command {
            Command::Up(args) => cli::up::run(args, variables).await,
            Command::New(args) => cli::new::run(args),
            Command::Build(args) => cli::build::run(args, variables).await,
            Command::Invoke(args) => cli::invoke::run(args).await,
            Command::Queue(args) => cli::queue::run(args).await,
            Command::Schedule(args) => cli::schedule::run(args).await,
            Command::Backup(args) => cli::backup::run(args),
            Command::Check(args) => cli::check::run(args, variables),
            Command::Completions(args) => cli::completions::run(args),
            Command::Man(args) => cli::man::run(args),
        }
    });
    // Tasks that are left (a cargo that a signal cut off) end with the runtime.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| cli::fail(&error))
}
