//! The durable queue: what is accepted here is delivered at least once, until it is done
//! or lies in a dead-letter queue with its reason.
//!
//! Queues hold messages; a **receive** hides a message for its visibility timeout and
//! counts, durably, before anybody works on it; a **settlement** says what became of it.
//! So a crash loses nothing, charges no attempt to what only waited, and a message that
//! kills the host reaches its dead-letter queue.
//!
//! [`QueueStore`] has the semantics, which another engine can serve too; [`sqlite`] is the
//! one of a single machine. Knows nothing of HTTP, of functions or of SQS.

pub mod mark;
pub mod message;
pub mod name;
pub mod receipt;
pub mod settings;
pub mod sqlite;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use mark::{Mark, MarkName, Step, Stepped};
pub use message::{Attributes, Delivery, Held, Message, NewMessage, Sent, cut_reason};
pub use name::{InvalidQueueName, QueueName};
pub use receipt::{InvalidReceipt, Receipt, ReceiptKey};
pub use settings::{Owner, QueueSettings, Redrive};

use tokio::sync::watch;

use crate::store::WriteError;

/// Bytes of bodies and attributes that one receive brings at most, beside a first message:
/// Lambda's limit of a payload.
pub const MAX_RECEIVED: u64 = 6 << 20;

/// What a store answers, once it is durable.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, QueueError>> + Send + 'a>>;

/// Why a queue did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// There is none of that name.
    #[error("no queue `{0}`; create it, or declare it in the manifest")]
    Unknown(QueueName),
    /// Other queues send their dead letters to it, or functions read it.
    #[error("the queue `{0}` is in use: {1}")]
    InUse(QueueName, String),
    /// It holds as many messages or bytes as it may.
    #[error("the queue `{0}` is full ({1}); let it drain, or raise its limit")]
    Full(QueueName, String),
    /// A message that is larger than it takes.
    #[error(
        "the message has {size} bytes with its attributes, and the queue `{queue}` takes {most} at most"
    )]
    TooLarge {
        /// The queue.
        queue: QueueName,
        /// What the message has.
        size: u64,
        /// What a message may have.
        most: u64,
    },
    /// A message that it cannot take.
    #[error("{0}")]
    Refused(String),
    /// The disk has no room, or the store is broken.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What became of a message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is done: it goes.
    Done,
    /// It stays received, and comes back after this time from now on: at once with zero.
    Hide(Duration),
    /// It failed: it comes back after this time, or goes to the dead-letter queue with this
    /// reason if it was received as often as it may be.
    Retry {
        /// When it comes back.
        after: Duration,
        /// What was wrong.
        reason: String,
    },
    /// Nobody worked on it: it comes back after this time, as if it had not been received.
    Release(Duration),
    /// It goes to the dead-letter queue now, with this reason.
    Reject {
        /// What was wrong.
        reason: String,
        /// Where it goes if its queue names none. None, or gone: it is dropped, and the answer
        /// says so.
        otherwise: Option<QueueName>,
    },
    /// It goes to this queue now as a dead letter, with this reason and with these
    /// attributes in the place of its own.
    Bury {
        /// Where it goes, full or not.
        queue: QueueName,
        /// What was wrong.
        reason: String,
        /// What it carries from then on.
        attributes: Attributes,
    },
}

/// What a settlement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// What it says.
    Yes,
    /// The message was rejected, and dropped since its queue has no dead-letter queue.
    Dropped,
    /// It was received again since, or is gone: nothing was done.
    Stale,
    /// FIFO: its visibility timeout is over, so others of its group may have come: nothing
    /// was done.
    Expired,
}

/// How many messages a queue has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// All of them.
    pub messages: u64,
    /// Bytes of bodies and attributes.
    pub bytes: u64,
    /// Those that were received and are not settled.
    pub in_flight: u64,
    /// Those that were never received and wait for their time.
    pub delayed: u64,
}

/// A queue at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Its name.
    pub name: QueueName,
    /// All of its messages.
    pub messages: u64,
    /// Bytes of bodies and attributes.
    pub bytes: u64,
    /// How long ago the message was sent that is to be dropped first for its age, as
    /// [`Delivery::age`]. Zero without messages.
    pub oldest: Duration,
}

/// A queue with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its name.
    pub name: QueueName,
    /// Its settings.
    pub settings: QueueSettings,
    /// Who declared it.
    pub owner: Owner,
    /// When it was made and last changed, in milliseconds since 1970.
    pub created: i64,
    /// See `created`.
    pub modified: i64,
}

/// The semantics of the durable queue. Every answer comes when it is durable.
pub trait QueueStore: Send + Sync {
    /// Makes queues, or changes the settings of those that are there; all or none.
    fn put(&self, queues: Vec<(QueueName, QueueSettings)>, owner: Owner) -> Answer<'_, ()>;

    /// Deletes a queue with all its messages.
    fn delete(&self, name: QueueName) -> Answer<'_, ()>;

    /// Deletes a queue if it has no messages. Answers whether it did.
    fn delete_if_empty(&self, name: QueueName) -> Answer<'_, bool>;

    /// A queue.
    fn info(&self, name: QueueName) -> Answer<'_, QueueInfo>;

    /// All queues, by name.
    fn list(&self) -> Answer<'_, Vec<QueueInfo>>;

    /// Sends messages, each on its own: one that cannot be taken says why.
    fn send(
        &self,
        queue: QueueName,
        messages: Vec<NewMessage>,
    ) -> Answer<'_, Vec<Result<Sent, QueueError>>>;

    /// Changes whenever messages of a queue may have become visible earlier than they were
    /// to be: for who waits for some.
    fn arrivals(&self, queue: &QueueName) -> watch::Receiver<()>;

    /// Receives up to so many messages that are visible, of [`MAX_RECEIVED`] together, and
    /// hides them for a time: the queue's own if none is given. Answers at once, also with
    /// none.
    fn receive(
        &self,
        queue: QueueName,
        most: usize,
        visibility: Option<Duration>,
        held: Held,
    ) -> Answer<'_, Vec<Delivery>>;

    /// Says what became of messages and sends others, as one: a message is done and its
    /// result is sent, or neither. What is sent so is taken also by a queue that is full.
    fn settle(
        &self,
        settlements: Vec<(Receipt, Settlement)>,
        sends: Vec<(QueueName, NewMessage)>,
    ) -> Answer<'_, Vec<Settled>>;

    /// Looks at messages, those first that come next, a few MiB at most. Receives none.
    fn peek(&self, queue: QueueName, most: usize) -> Answer<'_, Vec<Message>>;

    /// Drops all messages of a queue, those in flight too. Answers how many.
    fn purge(&self, queue: QueueName) -> Answer<'_, u64>;

    /// Sends up to so many dead letters back to the queues they came from. Answers how
    /// many.
    fn redrive(&self, dead_letters: QueueName, most: u64) -> Answer<'_, u64>;

    /// How many messages it has.
    fn depth(&self, queue: QueueName) -> Answer<'_, Depth>;

    /// The queues with the most messages, up to so many. Counts nothing, and holds up nobody
    /// who sends or receives.
    fn overview(&self, most: usize) -> Answer<'_, Vec<Glance>>;

    /// How the store has failed, if it has: then it takes nothing any more.
    fn failure(&self) -> Option<String>;

    /// In how long the next message is visible: zero if one is.
    fn next(&self, queue: QueueName) -> Answer<'_, Option<Duration>>;

    /// How many messages may be received now, counted up to so many.
    fn waiting(&self, queue: QueueName, most: usize) -> Answer<'_, usize>;

    /// Keeps these marks and drops all others. One that is new, or that stood for something
    /// else before, begins at `begin`. Answers how far they have come, in their order.
    fn marks(&self, marks: Vec<(MarkName, String)>, begin: i64) -> Answer<'_, Vec<Mark>>;

    /// Takes a mark a step on and sends a message, as one.
    fn step(&self, mark: MarkName, step: Step) -> Answer<'_, Stepped>;
}
