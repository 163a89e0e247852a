//! Hostile guests: each ends with the right status, outcome, log line and
//! count, disturbs no neighbour, and leaves nothing behind.

mod answers;
mod computing;
mod deploy;
mod handles;
mod isolation;
mod logging;
mod memory;
mod traps;

use dunlin_tests::{Builder, Host, guest};

/// The guest `hostile` with these keys.
fn hostile(keys: &str) -> Builder {
    Host::builder().function("hostile", &guest("hostile"), keys)
}
