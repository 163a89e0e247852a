//! The contract of `wit/`, generated: what a function imports, and the handlers
//! that use the synchronous ABI. Those with the asynchronous ABI are in the
//! crate `dunlin-sdk-async`.
//!
//! One world per handler, so that a crate may export any selection of them.

#![allow(missing_docs, reason = "the documentation is in wit/")]
#![allow(unsafe_code, reason = "wit-bindgen's ABI code is unsafe")]
#![allow(unreachable_pub, reason = "generated code does not know who sees it")]

#[cfg(target_arch = "wasm32")]
pub mod imports {
    wit_bindgen::generate!({
        path: "../wit",
        world: "imports",
    });
    pub use dunlin::event::{context, metrics};
}

/// Sending events. By themselves, and not with the other imports: a component
/// imports what it calls, but names all of a world that it imports any of.
#[cfg(target_arch = "wasm32")]
pub mod producer {
    wit_bindgen::generate!({
        path: "../wit",
        // A name of its own: sections of one name are joined, and a component may have
        // this world and the one of the asynchronous ABI.
        inline: "package dunlin:sdk;
            world sync-producer { import dunlin:event/producer@0.1.0; }",
        world: "dunlin:sdk/sync-producer",
        generate_all,
        // The host may make the caller wait, as any other import does.
        async: false,
    });
    pub use dunlin::event::producer::{Error, Outgoing, invoke, send, send_batch};
}

/// Values that last. By themselves, as [`producer`] is.
#[cfg(target_arch = "wasm32")]
pub mod key_value {
    wit_bindgen::generate!({
        path: "../wit/deps/keyvalue-0.2.0-draft2",
        inline: "package dunlin:sdk;
            world sdk-key-value {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }",
        world: "dunlin:sdk/sdk-key-value",
        generate_all,
    });
    pub use wasi::keyvalue::{atomics, batch, store};
}

/// Configuration, by itself.
#[cfg(target_arch = "wasm32")]
pub mod config {
    wit_bindgen::generate!({
        path: "../wit/deps/config-0.2.0-rc.1",
        inline: "package dunlin:sdk;
            world sdk-config { import wasi:config/store@0.2.0-rc.1; }",
        world: "dunlin:sdk/sdk-config",
        generate_all,
    });
    pub use wasi::config::store;
}

pub mod http {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package dunlin:sdk;
            world sync-http { export dunlin:event/http@0.1.0; }",
        world: "dunlin:sdk/sync-http",
        async: false,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk::__private::http",
    });
}

pub mod invoke {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package dunlin:sdk;
            world sync-invoke { export dunlin:event/invoke@0.1.0; }",
        world: "dunlin:sdk/sync-invoke",
        async: false,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk::__private::invoke",
    });
}

pub mod schedule {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package dunlin:sdk;
            world sync-schedule { export dunlin:event/schedule@0.1.0; }",
        world: "dunlin:sdk/sync-schedule",
        async: false,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk::__private::schedule",
        generate_all,
    });
}

pub mod queue {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package dunlin:sdk;
            world sync-queue { export dunlin:event/queue@0.1.0; }",
        world: "dunlin:sdk/sync-queue",
        async: false,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk::__private::queue",
        generate_all,
    });
}

pub mod initialise {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package dunlin:sdk;
            world sync-initialise { export dunlin:event/initialise@0.1.0; }",
        world: "dunlin:sdk/sync-initialise",
        async: false,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk::__private::initialise",
    });
}

pub mod retire {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package dunlin:sdk;
            world sync-retire { export dunlin:event/retire@0.1.0; }",
        world: "dunlin:sdk/sync-retire",
        async: false,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk::__private::retire",
    });
}

/// Requests to others, by WASI's own interface.
#[cfg(target_arch = "wasm32")]
pub mod fetch {
    wit_bindgen::generate!({
        path: "wit",
        world: "dunlin:sdk-fetch/fetch",
        generate_all,
    });
    pub use wasi::http::{outgoing_handler, types};
    pub use wasi::io::{poll, streams};
}
