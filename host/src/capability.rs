//! What a guest may import. One file per capability.
//!
//! Everything else is refused at deploy, with the import's name.

pub(crate) mod context;
pub(crate) mod files;
pub(crate) mod metrics;
pub(crate) mod outbound;
pub(crate) mod own_addresses;
pub(crate) mod producer;
pub(crate) mod sockets;
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
const PROVIDED: [Provided; 3] = [
    Provided {
        // The contract's versions are counted apart from WASI's.
        version: "0.1.0",
        interfaces: &[
            "dunlin:event/types",
            "dunlin:event/context",
            "dunlin:event/metrics",
            "dunlin:event/producer",
        ],
    },
    Provided {
        version: "0.2.",
        interfaces: &[
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
            "wasi:http/outgoing-handler",
            "wasi:http/types",
            "wasi:io/error",
            "wasi:io/poll",
            "wasi:io/streams",
            "wasi:random/insecure",
            "wasi:random/insecure-seed",
            "wasi:random/random",
            "wasi:sockets/instance-network",
            "wasi:sockets/ip-name-lookup",
            "wasi:sockets/network",
            "wasi:sockets/tcp",
            "wasi:sockets/tcp-create-socket",
            "wasi:sockets/udp",
            "wasi:sockets/udp-create-socket",
        ],
    },
    Provided {
        version: "0.3.",
        interfaces: &[
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
            "wasi:cli/types",
            "wasi:clocks/monotonic-clock",
            "wasi:clocks/system-clock",
            "wasi:clocks/types",
            "wasi:http/client",
            "wasi:http/types",
            "wasi:random/insecure",
            "wasi:random/insecure-seed",
            "wasi:random/random",
        ],
    },
];

/// Interfaces of one line of versions.
struct Provided {
    /// What their versions begin with.
    version: &'static str,
    interfaces: &'static [&'static str],
}

/// Whether a guest may import this, a name as `package/interface@version`.
pub(crate) fn is_provided(import: &str) -> bool {
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    PROVIDED.iter().any(|provided| {
        version.starts_with(provided.version) && provided.interfaces.contains(&interface)
    })
}

/// Provides all of it.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasi::add_to_linker(linker)?;
    files::add_to_linker(linker)?;
    outbound::add_to_linker(linker)?;
    sockets::add_to_linker(linker)?;
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
