//! Dunlin: a serverless function host for edge boxes.
//!
//! `ARCHITECTURE.md` at the root of the repository has the picture and the map.

pub mod api;
pub mod app;
pub mod builder;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod egress;
pub mod function;
pub mod invocation;
pub mod key_value;
pub mod queue;
pub mod runtime;
pub mod store;
pub mod telemetry;
pub mod trigger;

mod body;
mod capability;
mod hex;
mod sqs;
