//! What a connection is doing, for the one timer that watches it.
//!
//! The connection's parts note what happens; the timer looks now and then. So
//! a request sets no timer of its own.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

/// How often a half-closed connection is looked at for a reset.
pub(super) const HALF_CLOSED_LOOK: Duration = Duration::from_millis(50);

/// Nothing is under way.
const IDLE: u8 = 0;
/// The head of a request has begun to arrive.
const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;

/// Shared by the parts of one connection. They run on one thread, for which the atomics
/// are only there to satisfy the compiler, but for the request's body: a guest may read it
/// on another core, and says from there that it is whole. So `whole` and `body_unread` are
/// hints. The one that comes late costs a client that has half-closed, or whose connection
/// closes, a little time.
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
    unsent: Arc<Unsent>,
    /// Since when the bytes below are counted, as `since`.
    counted_since: AtomicU64,
    /// What the client took while answers were on their way.
    taken: AtomicU64,
    /// The request under way has arrived whole.
    whole: AtomicBool,
    /// The client speaks HTTP/1.0.
    no_interim: AtomicBool,
    /// The head of the answer under way has been handed over.
    answer_begun: AtomicBool,
    /// An answer was broken off before its end.
    pub(super) broken: AtomicBool,
    /// The timer does not know of it yet.
    half_closed_now: AtomicBool,
}

/// How many answers are not sent.
#[derive(Default)]
struct Unsent {
    now: AtomicU32,
    /// The fewest since the count of bytes began: those waited all the while.
    fewest: AtomicU32,
}

impl Unsent {
    fn add(&self) {
        self.now.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self) {
        let left = self.now.fetch_sub(1, Ordering::Relaxed) - 1;
        self.fewest.fetch_min(left, Ordering::Relaxed);
    }
}

/// The body of an answer that is not sent.
struct UnsentBody {
    body: Bytes,
    unsent: Arc<Unsent>,
}

impl AsRef<[u8]> for UnsentBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for UnsentBody {
    fn drop(&mut self) {
        self.unsent.remove();
    }
}

/// Pieces of one answer that HTTP/2 may hold at once. It bounds their bytes itself, but
/// not what it keeps for each beside them.
const MAX_UNSENT_PIECES: u32 = 64;

/// An answer of HTTP/2 that comes in pieces: it is unsent as long as one of them is.
pub(super) struct Pieces {
    unsent: Arc<Unsent>,
    waiting: AtomicU32,
    /// Who has another when there is room.
    next: Mutex<Option<Waker>>,
}

impl Pieces {
    /// Waits until there is room for another.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        if self.waiting.load(Ordering::Relaxed) < MAX_UNSENT_PIECES {
            return Poll::Ready(());
        }
        // They are sent on this very thread: not between these two.
        let next = self.next.lock();
        *next.unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        Poll::Pending
    }
}

/// One of them.
struct UnsentPiece {
    piece: Bytes,
    pieces: Arc<Pieces>,
}

impl AsRef<[u8]> for UnsentPiece {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for UnsentPiece {
    fn drop(&mut self) {
        let pieces = &self.pieces;
        if pieces.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            pieces.unsent.remove();
        }
        let next = pieces.next.lock();
        if let Some(next) = next.unwrap_or_else(PoisonError::into_inner).take() {
            next.wake();
        }
    }
}

/// `counted_since` of a count that begins when the timer next looks.
const FROM_NEXT_LOOK: u64 = u64::MAX;

/// What the timer goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// For the head of a request.
    pub(super) header_timeout: Duration,
    /// Between two requests, and the time in which a client's reading is measured.
    pub(super) idle_timeout: Duration,
    /// Bytes per second that a client must read of each answer at least.
    pub(super) min_rate: u64,
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
    /// The client reads its answer too slowly.
    AnswerTimeout,
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
            counted_since: AtomicU64::new(FROM_NEXT_LOOK),
            taken: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            no_interim: AtomicBool::new(false),
            answer_begun: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }

    /// Milliseconds since `origin`.
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(&self, phase: u8) {
        self.since.store(self.now(), Ordering::Relaxed);
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
        self.answer_begun.store(false, Ordering::Relaxed);
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

    /// The answer to the request under way begins, and comes in pieces.
    pub(super) fn begins_answer(&self) {
        self.answer_begun.store(true, Ordering::Relaxed);
    }

    /// Whether an interim response may be sent now.
    pub(super) fn takes_interim_responses(&self) -> bool {
        !self.no_interim.load(Ordering::Relaxed) && !self.answer_begun.load(Ordering::Relaxed)
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

    /// The socket took bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        if !self.answering() {
            self.count_anew();
        }
        self.writing.store(true, Ordering::Relaxed);
        let taken = self.taken.load(Ordering::Relaxed) + bytes as u64;
        self.taken.store(taken, Ordering::Relaxed);
    }

    fn count_anew(&self) {
        self.counted_since.store(FROM_NEXT_LOOK, Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
    }

    /// All that was to be written is.
    pub(super) fn flushed(&self) {
        if !self.writing() {
            return;
        }
        self.writing.store(false, Ordering::Relaxed);
        // A client that reads is not idle, nor late with its next request.
        let phase = self.phase.load(Ordering::Relaxed);
        if phase != BUSY {
            self.enter(phase);
        }
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
        if !self.answering() {
            self.count_anew();
        }
        self.unsent.add();
        Bytes::from_owner(UnsentBody {
            body,
            unsent: Arc::clone(&self.unsent),
        })
    }

    /// For an answer that comes in pieces. None over HTTP/1.1, where `writing` says all.
    pub(super) fn pieces(&self) -> Option<Arc<Pieces>> {
        (!self.bytes_begin_head).then(|| {
            Arc::new(Pieces {
                unsent: Arc::clone(&self.unsent),
                waiting: AtomicU32::new(0),
                next: Mutex::new(None),
            })
        })
    }

    /// A piece of an answer, counted until it is handed to the socket.
    pub(super) fn until_piece_sent(&self, pieces: &Arc<Pieces>, piece: Bytes) -> Bytes {
        if piece.is_empty() {
            return piece;
        }
        if !self.answering() {
            self.count_anew();
        }
        if pieces.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.unsent.add();
        }
        let pieces = Arc::clone(pieces);
        Bytes::from_owner(UnsentPiece { piece, pieces })
    }

    /// Whether an answer is there and not all of it is sent.
    fn answering(&self) -> bool {
        self.writing() || self.unsent.now.load(Ordering::Relaxed) > 0
    }

    /// Whether nothing is under way.
    pub(super) fn idle(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == IDLE && !self.answering()
    }

    /// Looks how fast the client reads its answers, and begins to count anew when it has
    /// looked at the bytes of one idle timeout. Says how long until the next look, or
    /// nothing if the client reads too slowly: answers hold memory until they are sent,
    /// so it is not enough that something moves now and then.
    fn judge_reading(&self, rules: Rules) -> Option<Duration> {
        let now = self.now();
        let since = self.counted_since.load(Ordering::Relaxed);
        if since != FROM_NEXT_LOOK {
            let elapsed = Duration::from_millis(now.saturating_sub(since));
            if elapsed < rules.idle_timeout {
                return Some(rules.idle_timeout - elapsed);
            }
            let answers = self.unsent.fewest.load(Ordering::Relaxed).max(1);
            let least = rules.min_rate as f64 * elapsed.as_secs_f64() * f64::from(answers);
            if (self.taken.load(Ordering::Relaxed) as f64) < least.max(1.0) {
                return None;
            }
        }
        self.counted_since.store(now, Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
        let unsent = self.unsent.now.load(Ordering::Relaxed);
        self.unsent.fewest.store(unsent, Ordering::Relaxed);
        Some(rules.idle_timeout)
    }

    /// What the timer should do now.
    pub(super) fn verdict(&self, rules: Rules) -> Verdict {
        let phase = self.phase.load(Ordering::Relaxed);
        let look = if self.answering() {
            match self.judge_reading(rules) {
                None => return Verdict::AnswerTimeout,
                Some(left) => left.min(rules.header_timeout),
            }
        } else {
            rules.header_timeout.min(rules.idle_timeout)
        };
        let (limit, verdict) = match phase {
            // The next request may come while this one's answer is read.
            HEAD if !self.answering() => (rules.header_timeout, Verdict::HeaderTimeout),
            IDLE if !self.answering() => (rules.idle_timeout, Verdict::IdleTimeout),
            BUSY if self.half_closed.load(Ordering::Relaxed) => {
                return Verdict::Wait(HALF_CLOSED_LOOK);
            }
            _ => return Verdict::Wait(look),
        };
        let since = self.since.load(Ordering::Relaxed);
        let elapsed = Duration::from_millis(self.now().saturating_sub(since));
        match limit.checked_sub(elapsed) {
            None | Some(Duration::ZERO) => verdict,
            // An idle connection may begin a head right after this look.
            Some(left) => Verdict::Wait(left.min(look)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(200),
        min_rate: 1000,
    };
    /// What is to be read in that time.
    const LEAST: usize = 200;

    /// The timer looks, and again when a count that began then is over.
    fn judged(activity: &Activity, taken: usize) -> Verdict {
        assert!(matches!(activity.verdict(RULES), Verdict::Wait(_)));
        activity.wrote(taken);
        std::thread::sleep(RULES.idle_timeout);
        activity.verdict(RULES)
    }

    #[test]
    fn a_client_that_reads_too_slowly_is_cut_off_whatever_the_protocol() {
        for http1 in [true, false] {
            let activity = Activity::new(http1);
            activity.enter(IDLE);
            let _answer = activity.until_sent(Bytes::from_static(b"answer"));
            activity.wrote(1);
            assert!(!activity.idle());
            // Fast enough, for twice as much as the sleep may be late.
            assert!(matches!(judged(&activity, 3 * LEAST), Verdict::Wait(_)));
            // That was counted once; a ping of HTTP/2 now and then is not reading.
            assert_eq!(judged(&activity, 17), Verdict::AnswerTimeout);
        }
    }

    #[test]
    fn each_of_several_answers_is_to_be_read() {
        let activity = Activity::new(false);
        let answers = [(); 100].map(|()| activity.until_sent(Bytes::from_static(b"answer")));
        assert_eq!(judged(&activity, 3 * LEAST), Verdict::AnswerTimeout);
        drop(answers);
    }

    #[test]
    fn an_answer_in_many_pieces_is_one_answer() {
        let activity = Activity::new(false);
        let pieces = activity.pieces().unwrap();
        let piece = || activity.until_piece_sent(&pieces, Bytes::from_static(b"piece"));
        let held: Vec<Bytes> = (0..20).map(|_| piece()).collect();
        assert!(matches!(judged(&activity, 3 * LEAST), Verdict::Wait(_)));
        assert_eq!(judged(&activity, 17), Verdict::AnswerTimeout);
        drop(held);
        activity.flushed();
        assert!(activity.idle());
    }

    #[test]
    fn only_so_many_pieces_wait_to_be_sent() {
        let activity = Activity::new(false);
        let pieces = activity.pieces().unwrap();
        let context = Context::from_waker(Waker::noop());
        let mut held = Vec::new();
        while pieces.poll_room(&context).is_ready() {
            held.push(activity.until_piece_sent(&pieces, Bytes::from_static(b"x")));
            assert!(held.len() <= 64);
        }
        assert_eq!(held.len(), 64);
        held.pop();
        assert!(pieces.poll_room(&context).is_ready());
    }

    #[test]
    fn answers_that_only_begin_are_not_held_against_the_client() {
        let activity = Activity::new(false);
        let first = activity.until_sent(Bytes::from_static(b"answer"));
        assert!(matches!(activity.verdict(RULES), Verdict::Wait(_)));
        activity.wrote(3 * LEAST);
        std::thread::sleep(RULES.idle_timeout);
        let others = [(); 100].map(|()| activity.until_sent(Bytes::from_static(b"answer")));
        assert!(matches!(activity.verdict(RULES), Verdict::Wait(_)));
        drop((first, others));
    }

    #[test]
    fn a_request_that_begins_while_an_answer_is_read_has_its_time_from_then_on() {
        let activity = Activity::new(true);
        activity.enter(IDLE);
        assert!(matches!(activity.verdict(RULES), Verdict::Wait(_)));
        activity.wrote(100 * LEAST);
        activity.bytes();
        std::thread::sleep(RULES.header_timeout * 2);
        assert!(matches!(activity.verdict(RULES), Verdict::Wait(_)));
        activity.flushed();
        assert!(matches!(activity.verdict(RULES), Verdict::Wait(_)));
        std::thread::sleep(RULES.header_timeout);
        assert_eq!(activity.verdict(RULES), Verdict::HeaderTimeout);
    }

    #[test]
    fn an_answer_that_waits_is_measured_also_while_another_is_made() {
        let activity = Activity::new(false);
        activity.begin();
        let _answer = activity.until_sent(Bytes::from_static(b"answer"));
        assert_eq!(judged(&activity, 17), Verdict::AnswerTimeout);
    }

    #[test]
    fn once_it_is_sent_the_connection_is_idle_from_then_on() {
        let activity = Activity::new(false);
        let answer = activity.until_sent(Bytes::from_static(b"answer"));
        std::thread::sleep(RULES.idle_timeout * 2);
        activity.wrote(6);
        drop(answer);
        activity.flushed();
        assert!(activity.idle());
        assert!(matches!(activity.verdict(RULES), Verdict::Wait(_)));
        std::thread::sleep(RULES.idle_timeout);
        assert_eq!(activity.verdict(RULES), Verdict::IdleTimeout);
    }
}
