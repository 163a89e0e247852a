//! What is measured, one file per scenario.

pub mod density;
pub mod events;
pub mod greedy;
pub mod languages;
pub mod load;
pub mod neighbour;
pub mod startup;
pub mod stream;

use std::path::PathBuf;

use tempfile::TempDir;

use crate::build::Guests;

/// What all scenarios need.
pub struct Setup {
    /// The host.
    pub dunlin: PathBuf,
    /// The bare server.
    pub bare_hyper: PathBuf,
    /// The wasmtime CLI.
    pub wasmtime: PathBuf,
    /// `wrk`.
    pub wrk: PathBuf,
    /// What is served.
    pub guests: Guests,
    /// Manifests, scripts and the host's state.
    pub scratch: TempDir,
    /// How the host resets memory, where the scenario does not say: a value of `memory-reset`.
    pub memory_reset: String,
    /// Whether the host runs with `RUST_BACKTRACE=1`.
    pub backtraces: bool,
}

/// A result towards its target.
pub(crate) fn target_row(
    what: &str,
    target: String,
    measured: String,
    reached: bool,
) -> Vec<String> {
    vec![
        what.to_owned(),
        target,
        measured,
        crate::stats::verdict(reached).to_owned(),
    ]
}

pub(crate) const TARGET_HEADER: [&str; 4] = ["what", "target", "measured", ""];
