//! What a guest may import. One file per capability.
//!
//! Everything else is refused at deploy, with the import's name.

pub(crate) mod context;
pub(crate) mod files;
pub(crate) mod metrics;
pub(crate) mod producer;
pub(crate) mod stdio;
pub(crate) mod wasi;

use wasmtime::component::{HasSelf, Linker};

use crate::runtime::State;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "dunlin:event/imports",
        imports: { "dunlin:event/context.remaining-fuel": store },
    });
}

mod producer_bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "dunlin:event/producer-function",
        with: { "dunlin:event/types": super::bindings::dunlin::event::types },
    });
}

/// The interfaces that are there, as `package/interface` without a version.
pub(crate) const PROVIDED: [&str; 24] = [
    "dunlin:event/types",
    "dunlin:event/context",
    "dunlin:event/metrics",
    "dunlin:event/producer",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Provides all of it.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasi::add_to_linker(linker)?;
    files::add_to_linker(linker)?;
    bindings::dunlin::event::types::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    bindings::dunlin::event::context::add_to_linker::<State, HasSelf<State>>(linker, |state| {
        state
    })?;
    bindings::dunlin::event::metrics::add_to_linker::<State, HasSelf<State>>(linker, |state| {
        state
    })?;
    producer_bindings::dunlin::event::producer::add_to_linker::<State, HasSelf<State>>(
        linker,
        |state| state,
    )
}
