//! What a connection is doing, for the one timer that watches it.
//!
//! The connection's parts note what happens; the timer looks now and then. So
//! a request sets no timer of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

/// How often a half-closed connection is looked at for a reset.
pub(super) const HALF_CLOSED_LOOK: Duration = Duration::from_millis(50);

/// A write of HTTP/2 up to this size says nothing of an answer: a ping, or what
/// acknowledges one, has 17 bytes (RFC 9113 section 6.7), and few go together.
const MAX_CONTROL_BYTES: usize = 64;

/// Nothing is under way.
const IDLE: u8 = 0;
/// The head of a request has begun to arrive.
const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;

/// Shared by the parts of one connection. They all run on one thread; the
/// atomics only say so to the compiler.
pub(super) struct Activity {
    origin: Instant,
    phase: AtomicU8,
    /// When the phase began, in milliseconds since `origin`.
    since: AtomicU64,
    running: AtomicU32,
    /// Whether bytes that arrive while idle begin a request. Not so in HTTP/2,
    /// where they may be a ping.
    bytes_begin_head: bool,
    /// The answer was sent before the request's body had arrived.
    pub(super) body_unread: AtomicBool,
    /// The drain has taken too long: what runs is answered with 503.
    pub(super) expired: CancellationToken,
    /// The client sends no more, while it may still wait for its answer.
    half_closed: AtomicBool,
    /// An answer is on its way and not all of it is written.
    writing: AtomicBool,
    /// Answers of HTTP/2 whose bodies wait for the client's flow control.
    unsent: Arc<AtomicU32>,
    /// The request under way has arrived whole.
    whole: AtomicBool,
    /// The client speaks HTTP/1.0.
    no_interim: AtomicBool,
    /// The timer does not know of it yet.
    half_closed_now: AtomicBool,
}

/// The body of an answer that is not sent.
struct Unsent {
    body: Bytes,
    unsent: Arc<AtomicU32>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.unsent.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the timer should do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again after this long.
    Wait(Duration),
    /// The head of a request took too long.
    HeaderTimeout,
    /// Nothing came for too long.
    IdleTimeout,
}

impl Activity {
    pub(super) fn new(bytes_begin_head: bool) -> Self {
        Self {
            origin: Instant::now(),
            phase: AtomicU8::new(if bytes_begin_head { HEAD } else { IDLE }),
            since: AtomicU64::new(0),
            running: AtomicU32::new(0),
            bytes_begin_head,
            body_unread: AtomicBool::new(false),
            expired: CancellationToken::new(),
            half_closed: AtomicBool::new(false),
            half_closed_now: AtomicBool::new(false),
            writing: AtomicBool::new(false),
            unsent: Arc::default(),
            whole: AtomicBool::new(false),
            no_interim: AtomicBool::new(false),
        }
    }

    fn enter(&self, phase: u8) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(now, Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// Bytes arrived.
    pub(super) fn bytes(&self) {
        if self.bytes_begin_head && self.phase.load(Ordering::Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    /// A request's head is whole.
    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.whole.store(false, Ordering::Relaxed);
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// It has its answer.
    pub(super) fn end(&self) {
        if self.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.enter(IDLE);
        }
    }

    /// The request under way is of HTTP/1.0, whose clients know no interim
    /// responses.
    pub(super) fn no_interim_responses(&self) {
        self.no_interim.store(true, Ordering::Relaxed);
    }

    /// Whether the client knows interim responses.
    pub(super) fn takes_interim_responses(&self) -> bool {
        !self.no_interim.load(Ordering::Relaxed)
    }

    /// The client has shut down its sending side.
    pub(super) fn half_closed(&self) {
        self.half_closed.store(true, Ordering::Relaxed);
        self.half_closed_now.store(true, Ordering::Relaxed);
    }

    /// Whether that has happened since the last time somebody asked.
    pub(super) fn half_closed_now(&self) -> bool {
        // A look before the write: this runs on each poll.
        self.half_closed_now.load(Ordering::Relaxed)
            && self.half_closed_now.swap(false, Ordering::Relaxed)
    }

    /// The body of the request under way has arrived.
    pub(super) fn whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// Whether a request is being answered and nothing more of it is to come.
    pub(super) fn awaits_answer(&self) -> bool {
        // In HTTP/2 the end of the stream is the end of the connection.
        self.bytes_begin_head && self.busy() && self.whole.load(Ordering::Relaxed)
    }

    /// Whether a request is being answered.
    pub(super) fn busy(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == BUSY
    }

    /// Bytes of an answer were taken by the socket: a client that reads is not
    /// idle.
    pub(super) fn wrote(&self, bytes: usize) {
        self.writing.store(true, Ordering::Relaxed);
        // In HTTP/2 it may be our own ping, for a client that reads nothing.
        let answers = self.bytes_begin_head
            || (bytes > MAX_CONTROL_BYTES && self.unsent.load(Ordering::Relaxed) > 0);
        if answers && self.phase.load(Ordering::Relaxed) == IDLE {
            self.enter(IDLE);
        }
    }

    /// All that was to be written is.
    pub(super) fn flushed(&self) {
        self.writing.store(false, Ordering::Relaxed);
    }

    /// Whether an answer is half written.
    pub(super) fn writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }

    /// The body of an answer, counted until all of it is handed to the socket.
    /// Over HTTP/1.1 `writing` says the same.
    pub(super) fn until_sent(&self, body: Bytes) -> Bytes {
        if self.bytes_begin_head || body.is_empty() {
            return body;
        }
        self.unsent.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Unsent {
            body,
            unsent: Arc::clone(&self.unsent),
        })
    }

    /// Whether nothing is under way.
    pub(super) fn idle(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == IDLE
            && !self.writing()
            && self.unsent.load(Ordering::Relaxed) == 0
    }

    /// What the timer should do now.
    pub(super) fn verdict(&self, header_timeout: Duration, idle_timeout: Duration) -> Verdict {
        let elapsed = self
            .origin
            .elapsed()
            .saturating_sub(Duration::from_millis(self.since.load(Ordering::Relaxed)));
        let (limit, verdict) = match self.phase.load(Ordering::Relaxed) {
            HEAD => (header_timeout, Verdict::HeaderTimeout),
            IDLE => (idle_timeout, Verdict::IdleTimeout),
            _ if self.half_closed.load(Ordering::Relaxed) => {
                return Verdict::Wait(HALF_CLOSED_LOOK);
            }
            _ => return Verdict::Wait(header_timeout.min(idle_timeout)),
        };
        match limit.checked_sub(elapsed) {
            None | Some(Duration::ZERO) => verdict,
            // An idle connection may begin a head right after this look.
            Some(left) => Verdict::Wait(left.min(header_timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_http2_an_answer_goes_on_by_its_bytes_and_not_by_pings() {
        const IDLE_TIMEOUT: Duration = Duration::from_millis(200);
        let verdict = |activity: &Activity| activity.verdict(IDLE_TIMEOUT, IDLE_TIMEOUT);
        let activity = Activity::new(false);
        let answer = activity.until_sent(Bytes::from_static(b"answer"));
        activity.flushed();
        assert!(!activity.idle(), "it waits to be sent");
        std::thread::sleep(IDLE_TIMEOUT * 2);
        activity.wrote(17);
        assert_eq!(verdict(&activity), Verdict::IdleTimeout);
        activity.wrote(1000);
        assert!(matches!(verdict(&activity), Verdict::Wait(_)));
        drop(answer);
        activity.flushed();
        assert!(activity.idle());
    }
}
