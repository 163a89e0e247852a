//! The harness: the real binary on ports of its own, real guests, and clients
//! that see every byte.
//!
//! A test reads as a sentence:
//!
//! ```no_run
//! use dunlin_tests::{Host, example};
//!
//! let host = Host::builder().function("hello", &example("hello"), "timeout = \"1s\"").start();
//! assert_eq!(host.get("/hello").status, 200);
//! host.wait_for_log(|line| line["outcome"] == "ok");
//! host.stop();
//! ```
//!
//! - [`Host::builder`]: the manifest, arguments and environment; [`Builder::start`]
//!   or [`Builder::start_expecting_failure`].
//! - [`guest`] and [`example`]: components, built once per run; [`wat_component`]:
//!   one written by hand; [`Language`]: the examples that are not in Rust.
//! - [`Faults`]: a disk that is full or fails.
//! - [`Client`]: whole requests; [`Connection`]: bytes.
//! - [`eventually`]: waits for a state. Nothing here waits for luck, and nothing
//!   waits longer than [`PATIENCE`].
//!
//! A test that fails prints the manifest, stderr and the end of the log.

mod build;
mod client;
mod faults;
mod host;
mod languages;
mod metrics;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use build::{dunlin, example, guest, target_dir, wat_component};
pub use client::{Client, Connection, Response};
pub use faults::{Fault, Faults, Times};
pub use host::{Builder, Failure, Host};
pub use languages::Language;
pub use metrics::Metrics;

/// How long anything may take: far more than it does on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the crate is a folder of the repository")
        .to_owned()
}

/// Waits until a state holds, asking every few milliseconds; `what` names it.
///
/// # Panics
/// If it does not hold within [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, state: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, state)
}

/// As [`eventually`], with another deadline.
///
/// # Panics
/// If it does not hold in time.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = state() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
