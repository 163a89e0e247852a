//! What the load comparison is made of. `docs/benchmarks.md` says how it measures and why.

pub mod build;
pub mod client;
pub mod disk;
pub mod manifest;
pub mod proc;
pub mod prometheus;
pub mod scenario;
pub mod server;
pub mod stats;
pub mod wrk;
