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

/// The interfaces that are there, as `package/interface`.
const PROVIDED: &[Provided] = &[
    Provided {
        // The contract's versions are counted apart from WASI's.
        versions: &["0.1.0"],
        interfaces: &[
            "dunlin:event/types",
            "dunlin:event/context",
            "dunlin:event/metrics",
            "dunlin:event/producer",
        ],
    },
    Provided {
        versions: &["0.2.", "0.3."],
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
            "wasi:http/types",
            "wasi:random/insecure",
            "wasi:random/insecure-seed",
            "wasi:random/random",
        ],
    },
    Provided {
        versions: &["0.2."],
        interfaces: &[
            "wasi:clocks/wall-clock",
            "wasi:filesystem/preopens",
            "wasi:filesystem/types",
            "wasi:http/outgoing-handler",
            "wasi:io/error",
            "wasi:io/poll",
            "wasi:io/streams",
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
        versions: &["0.3."],
        interfaces: &[
            "wasi:cli/types",
            "wasi:clocks/system-clock",
            "wasi:clocks/types",
            "wasi:http/client",
        ],
    },
    Provided {
        versions: &["0.2.0-draft", "0.2.0-draft2"],
        interfaces: &[
            "wasi:keyvalue/atomics",
            "wasi:keyvalue/batch",
            "wasi:keyvalue/store",
        ],
    },
    Provided {
        versions: &["0.2.0-rc.1", "0.2.0-draft-2024-09-27"],
        interfaces: &["wasi:config/store"],
    },
    Provided {
        versions: &["0.1.0-draft"],
        interfaces: &["wasi:logging/logging"],
    },
];

/// Interfaces that are there in the same versions.
struct Provided {
    /// Their versions; with a dot at the end, all that begin so and were published.
    versions: &'static [&'static str],
    interfaces: &'static [&'static str],
}

/// Whether a guest may import this, a name as `package/interface@version`.
pub(crate) fn is_provided(import: &str) -> bool {
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    let is = |provided: &&str| match version.strip_prefix(provided) {
        // What came before a version was published is another interface.
        Some(patch) if provided.ends_with('.') => {
            !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit())
        }
        Some(rest) => rest.is_empty(),
        None => false,
    };
    PROVIDED
        .iter()
        .filter(|provided| provided.interfaces.contains(&interface))
        .any(|provided| provided.versions.iter().any(is))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_there_in_their_versions_and_in_no_others() {
        for import in [
            "dunlin:event/context@0.1.0",
            "wasi:cli/exit@0.2.12",
            "wasi:cli/exit@0.3.2",
            "wasi:io/poll@0.2.0",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:keyvalue/store@0.2.0-draft2",
            "wasi:config/store@0.2.0-rc.1",
        ] {
            assert!(is_provided(import), "{import}");
        }
        for import in [
            "dunlin:event/context@0.1.1",
            "dunlin:event/context",
            "wasi:cli/exit@0.2.",
            "wasi:cli/exit@0.20.0",
            "wasi:http/types@0.2.0-rc-2023-12-05",
            "wasi:io/poll@0.3.0",
            "wasi:keyvalue/store@0.2.0",
            "wasi:keyvalue/store@0.2.0-draft3",
            "wasi:sockets/tcp@0.3.0",
        ] {
            assert!(!is_provided(import), "{import}");
        }
    }
}
