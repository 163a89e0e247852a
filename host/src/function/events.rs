//! What brings a function its events beside HTTP, and what becomes of those that fail.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use super::egress::Endpoint;
use super::pattern::Filter;
use super::schedule::{Expression, Zone};
use super::{ByteSize, FunctionName};
use crate::queue::QueueName;

/// Where events go that fail, if nothing else is said: a queue that the host keeps.
pub const DEAD_LETTERS: &str = "dead-letters";
/// The same for messages of FIFO queues.
pub const DEAD_LETTERS_FIFO: &str = "dead-letters.fifo";

/// Lambda's two retries.
pub const DEFAULT_ATTEMPTS: u32 = 3;
/// How often an event may be tried.
pub const ATTEMPTS_RANGE: RangeInclusive<u32> = 1..=10;
/// Lambda's default and longest `MaximumEventAgeInSeconds`.
pub const DEFAULT_EVENT_AGE: Duration = Duration::from_hours(6);
/// How old an event may become.
pub const EVENT_AGE_RANGE: RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(14 * 24);
/// Lambda's first delay; the second is twice as long.
pub const DEFAULT_RETRY_DELAY: Duration = Duration::from_mins(1);
/// The first delay before another attempt.
pub const RETRY_DELAY_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_hours(1);
/// Lambda's first limit for an asynchronous payload.
pub const DEFAULT_EVENT: ByteSize = ByteSize::kib(256);
/// Up to Lambda's limit of today.
pub const EVENT_RANGE: RangeInclusive<ByteSize> = ByteSize::kib(1)..=ByteSize::mib(1);
/// How many events of a function may wait.
pub const DEFAULT_BACKLOG: u32 = 100_000;
/// What `backlog` may be.
pub const BACKLOG_RANGE: RangeInclusive<u32> = 1..=10_000_000;

/// SQS's default for Lambda.
pub const DEFAULT_BATCH: u32 = 10;
/// Lambda's largest batch of a standard queue.
pub const BATCH_RANGE: RangeInclusive<u32> = 1..=10_000;
/// Lambda's largest batch of a FIFO queue.
pub const MAX_FIFO_BATCH: u32 = 10;
/// Lambda's longest batching window.
pub const WINDOW_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(5);
/// Batches of one mapping at once.
pub const BATCHES_RANGE: RangeInclusive<u32> = 1..=10_000;
/// How long a fire may be put off so that not all come at once.
pub const JITTER_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);
/// Missed fires that are made up for at most.
pub const CATCH_UP_RANGE: RangeInclusive<u32> = 1..=1000;
/// How many may be triggers of one function.
pub const MAX_TRIGGERS: usize = 1000;

/// How events are handled that nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsyncPolicy {
    /// How often an event is tried. 3 by default, 1–10.
    pub max_attempts: u32,
    /// How old an event may become, by the time that the host runs. 6 h by default, 1 min –
    /// 14 days.
    pub max_age: Duration,
    /// How long after its first failure an event is tried again; twice as long after each
    /// that follows. 1 min by default.
    pub retry_delay: Duration,
    /// The largest payload. 256 KiB by default, up to 1 MiB.
    pub event_limit: ByteSize,
    /// How many events may wait. 100 000 by default.
    pub backlog: u32,
    /// Where failed events go. None: to `dead-letters`, unless there is an `on_failure`.
    pub dead_letters: Option<QueueName>,
    /// Where the record of a success goes.
    pub on_success: Option<Destination>,
    /// Where the record of a failure goes.
    pub on_failure: Option<Destination>,
}

impl Default for AsyncPolicy {
    fn default() -> Self {
        Self {
            max_attempts: DEFAULT_ATTEMPTS,
            max_age: DEFAULT_EVENT_AGE,
            retry_delay: DEFAULT_RETRY_DELAY,
            event_limit: DEFAULT_EVENT,
            backlog: DEFAULT_BACKLOG,
            dead_letters: None,
            on_success: None,
            on_failure: None,
        }
    }
}

/// Where the record of an outcome goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A queue.
    Queue(QueueName),
    /// Another function, which gets it as an event.
    Function(FunctionName),
    /// A server, to which it is posted.
    Http(Box<Endpoint>),
}

impl AsyncPolicy {
    /// Whether records are posted to a server.
    #[must_use]
    pub fn posts(&self) -> bool {
        let mut both = self.on_success.iter().chain(&self.on_failure);
        both.any(|destination| matches!(destination, Destination::Http(_)))
    }
}

/// An event source mapping: a queue feeds the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueMapping {
    /// The queue.
    pub queue: QueueName,
    /// Whether it is read, or paused.
    pub enabled: bool,
    /// Messages of a batch at most. 10 by default; 10 000, of a FIFO queue 10 at most.
    pub batch_size: u32,
    /// How long messages wait for others of their batch. None by default, 5 min at most.
    pub batch_window: Duration,
    /// Batches at once. None: as many as the function's concurrency allows.
    pub max_concurrency: Option<u32>,
    /// Which messages the function gets; the others are done without it.
    pub filter: Filter,
    /// Whether an answer of `invoke` says which messages failed
    /// (`ReportBatchItemFailures`). The `queue` handler always does.
    pub report_failures: bool,
}

/// What happens when a fire is due and the event of the last one is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Overlap {
    /// Both run.
    #[default]
    Allow,
    /// The new one is skipped, and counts as missed.
    Skip,
}

/// What happens to fires that were due while the host did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Missed {
    /// They do not come any more.
    Skip,
    /// The last of them comes.
    #[default]
    Once,
    /// The last so many of them come, in order.
    UpTo(u32),
}

impl Missed {
    /// How many come.
    #[must_use]
    pub fn most(self) -> usize {
        match self {
            Self::Skip => 0,
            Self::Once => 1,
            Self::UpTo(most) => most as usize,
        }
    }
}

/// A schedule that fires the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its name, unique within the function.
    pub name: String,
    /// When it fires.
    pub when: Expression,
    /// Where its clock hangs.
    pub zone: Zone,
    /// What the function gets. None: nothing, or EventBridge's own event.
    pub payload: Option<Bytes>,
    /// Whether it fires, or is paused.
    pub enabled: bool,
    /// See [`Overlap`].
    pub overlap: Overlap,
    /// See [`Missed`].
    pub missed: Missed,
    /// Each fire comes later by a part of this, the same part whenever it is computed.
    pub jitter: Duration,
}
