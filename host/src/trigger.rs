//! Triggers: what turns something outside into events for functions. Each
//! knows its protocol and how to settle; none knows wasmtime.

pub mod asynchronous;
pub mod feed;
pub mod http;
pub mod queue;
pub mod schedule;

mod text;
