//! The end of an invocation's log, for a caller who asks for it.

use std::sync::{Arc, Mutex, PoisonError};

/// Lambda answers the last 4 KB of the log.
const TAIL_BYTES: usize = 4 << 10;

/// The end of what an invocation logged.
#[derive(Clone, Default)]
pub struct Tail(Arc<Mutex<Vec<u8>>>);

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tail")
    }
}

impl Tail {
    /// Appends a line.
    pub fn line(&self, text: &str) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(text.as_bytes());
        tail.push(b'\n');
        if tail.len() > 2 * TAIL_BYTES {
            let cut = tail.len() - TAIL_BYTES;
            tail.drain(..cut);
        }
    }

    /// The last 4 KiB of it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail[tail.len().saturating_sub(TAIL_BYTES)..].to_vec()
    }
}
