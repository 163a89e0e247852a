//! The handler interfaces of `dunlin:event`, lifted with the asynchronous ABI.
//!
//! They serve `dunlin-sdk` alone, for handlers that are an `async fn`. Those
//! that are a plain `fn` use the synchronous ABI, whose bindings are in
//! `dunlin-sdk` itself. This is a crate of its own because wit-bindgen names
//! the macros it exports after the interface, and a crate can hold only one
//! macro of a name.

#![allow(unsafe_code, reason = "wit-bindgen's ABI code is unsafe")]

/// HTTP requests.
pub mod http {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package dunlin:sdk-async;
            world async-http { export dunlin:event/http@0.1.0; }",
        world: "dunlin:sdk-async/async-http",
        async: true,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk_async::http",
    });
}

/// Direct invocations.
pub mod invoke {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package dunlin:sdk-async;
            world async-invoke { export dunlin:event/invoke@0.1.0; }",
        world: "dunlin:sdk-async/async-invoke",
        async: true,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk_async::invoke",
    });
}

/// Schedules.
pub mod schedule {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package dunlin:sdk-async;
            world async-schedule { export dunlin:event/schedule@0.1.0; }",
        world: "dunlin:sdk-async/async-schedule",
        async: true,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk_async::schedule",
        generate_all,
    });
}

/// Batches of messages.
pub mod queue {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package dunlin:sdk-async;
            world async-queue { export dunlin:event/queue@0.1.0; }",
        world: "dunlin:sdk-async/async-queue",
        async: true,
        pub_export_macro: true,
        default_bindings_module: "dunlin_sdk_async::queue",
        generate_all,
    });
}

/// Sending events.
#[cfg(target_arch = "wasm32")]
pub mod producer {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package dunlin:sdk-async;
            world async-producer { import dunlin:event/producer@0.1.0; }",
        world: "dunlin:sdk-async/async-producer",
        generate_all,
        async: true,
    });
    pub use dunlin::event::producer::{Error, Outgoing, invoke, send, send_batch};
}
