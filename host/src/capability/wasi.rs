//! The part of WASI 0.2 and 0.3 that every guest may import: what a standard library
//! links in, and nothing that reaches out of the sandbox. Files are in
//! [`super::files`], sockets in [`super::sockets`].

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, random};
use wasmtime_wasi::p3;
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiView as _};
use wasmtime_wasi_io::bindings::wasi::io;

use super::console::{Console, Pipe};
use super::sockets::{self, Reach};
use super::stdio::{Output, Stdio, Stream};
use crate::function::FunctionSpec;
use crate::runtime::State;

/// What one call for random bytes may ask for: it runs on the core's thread,
/// and this much takes well under a millisecond. Standard libraries ask for 16
/// to 256.
const MAX_RANDOM: u64 = 64 << 10;

/// `wasi:io` works on the table of resources alone.
struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let l = linker;
    io::error::add_to_linker::<State, Io>(l, |state| &mut state.table)?;
    io::poll::add_to_linker::<State, Io>(l, |state| &mut state.table)?;
    io::streams::add_to_linker::<State, Io>(l, |state| &mut state.table)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    random::random::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    // The same of WASI 0.3.
    p3::cli::add_to_linker(l)?;
    p3::clocks::add_to_linker(l)?;
    p3::random::add_to_linker(l)
}

/// The context of one instance. A program has its console.
pub(crate) fn context(
    spec: &FunctionSpec,
    reach: &Arc<Reach>,
    output: &Arc<Output>,
    console: Option<&Arc<Console>>,
) -> WasiCtx {
    let mut context = WasiCtx::builder();
    sockets::allow(&mut context, reach);
    context
        .envs(&spec.environment)
        .stderr(Stdio::new(output, Stream::Stderr))
        .max_random_size(MAX_RANDOM);
    match console {
        Some(console) => context
            .arg(spec.name.as_str())
            .args(&spec.arguments)
            .stdin(Pipe(Arc::clone(console)))
            .stdout(Pipe(Arc::clone(console))),
        None => context.stdout(Stdio::new(output, Stream::Stdout)),
    };
    context.build()
}
