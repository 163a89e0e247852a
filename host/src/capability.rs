//! What a guest may import. One file per capability.
//!
//! Everything else is refused at deploy, with the import's name.

pub(crate) mod config;
pub(crate) mod console;
pub(crate) mod context;
pub(crate) mod files;
pub(crate) mod frozen;
pub(crate) mod key_value;
pub(crate) mod logging;
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
        imports: {
            "dunlin:event/context.attempt": store,
            "dunlin:event/context.client-address": store,
            "dunlin:event/context.client-context": store,
            "dunlin:event/context.deadline": store,
            "dunlin:event/context.function-name": store,
            "dunlin:event/context.function-version": store,
            "dunlin:event/context.invoked-as": store,
            "dunlin:event/context.log-group": store,
            "dunlin:event/context.log-stream": store,
            "dunlin:event/context.memory-limit": store,
            "dunlin:event/context.remaining-fuel": store,
            "dunlin:event/context.remaining-time": store,
            "dunlin:event/context.request-id": store,
            "dunlin:event/context.retry-after": store,
            "dunlin:event/context.route": store,
            "dunlin:event/context.route-parameters": store,
            "dunlin:event/context.secret": store,
            "dunlin:event/context.traceparent": store,
        },
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
const PROVIDED: &[Provided] = &[
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
    Provided {
        version: "0.2.0-draft",
        interfaces: KEY_VALUE,
    },
    Provided {
        version: "0.2.0-draft2",
        interfaces: KEY_VALUE,
    },
    Provided {
        version: "0.2.0-rc.1",
        interfaces: &["wasi:config/store"],
    },
    Provided {
        version: "0.2.0-draft-2024-09-27",
        interfaces: &["wasi:config/store"],
    },
    Provided {
        version: "0.1.0-draft",
        interfaces: &["wasi:logging/logging"],
    },
];

const KEY_VALUE: &[&str] = &[
    "wasi:keyvalue/atomics",
    "wasi:keyvalue/batch",
    "wasi:keyvalue/store",
];

/// Interfaces of one line of versions.
struct Provided {
    /// Their version; with a dot at the end, what their versions begin with.
    version: &'static str,
    interfaces: &'static [&'static str],
}

/// Whether a guest may import this, a name as `package/interface@version`.
pub(crate) fn is_provided(import: &str) -> bool {
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    PROVIDED.iter().any(|provided| {
        let is_line = provided.version.ends_with('.');
        let is_it = match is_line {
            true => version.starts_with(provided.version),
            false => version == provided.version,
        };
        is_it && provided.interfaces.contains(&interface)
    })
}

/// Provides all of it.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasi::add_to_linker(linker)?;
    files::add_to_linker(linker)?;
    outbound::add_to_linker(linker)?;
    key_value::add_to_linker(linker)?;
    config::add_to_linker(linker)?;
    logging::add_to_linker(linker)?;
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
