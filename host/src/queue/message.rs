//! Messages: as they are sent, as they lie there, as they are received.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{QueueName, Receipt};

/// The value of an attribute, with its type as the sender wrote it: `String`, `Number` or
/// `Binary`, with a label of its own after a dot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// The type.
    #[serde(rename = "t")]
    pub kind: String,
    /// The value: text, or the bytes of a `Binary`.
    #[serde(rename = "v", with = "stored")]
    pub value: Vec<u8>,
}

mod stored;

/// By name.
pub type Attributes = BTreeMap<String, Attribute>;

/// A message to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// What it says.
    pub body: Bytes,
    /// What it carries beside.
    pub attributes: Attributes,
    /// How long it is hidden; the queue's own if none is given. Not in a FIFO queue.
    pub delay: Option<Duration>,
    /// FIFO queues: messages of one group come in order, one after another.
    pub group: Option<String>,
    /// FIFO queues: a message with the same is taken for the same within five minutes.
    pub deduplication: Option<String>,
    /// How many invocations stand before it in a chain of functions that send events to
    /// each other.
    pub depth: u32,
    /// Its id, where it is to have a certain one.
    pub id: Option<Uuid>,
}

impl NewMessage {
    /// Of this body, and nothing else.
    #[must_use]
    pub fn of(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// What counts against the queue's limits, in bytes: names, types and values of the
    /// attributes too.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.body.len() + size_of(&self.attributes)) as u64
    }
}

/// What is kept of a reason, in bytes: it lies beside the limits of a queue, and who gives it
/// may be a guest.
pub const MAX_REASON: usize = 1 << 10;

/// As much of a text as is kept of a reason.
#[must_use]
pub fn cut_reason(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_REASON)]
}

/// What attributes count against a queue's limits, in bytes.
pub(super) fn size_of(attributes: &Attributes) -> usize {
    let sizes = attributes.iter();
    let sizes = sizes.map(|(name, a)| name.len() + a.kind.len() + a.value.len());
    sizes.sum()
}

/// A message that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id, which it keeps wherever it goes.
    pub id: Uuid,
    /// Its place among all messages: later ones have greater numbers.
    pub sequence: u64,
}

/// A message that lies in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// See [`Sent::id`].
    pub id: Uuid,
    /// See [`Sent::sequence`].
    pub sequence: u64,
    /// What it says.
    pub body: Bytes,
    /// What it carries beside.
    pub attributes: Attributes,
    /// When it was sent, in milliseconds since 1970.
    pub sent: i64,
    /// From when on it may be received, in milliseconds since 1970.
    pub visible: i64,
    /// How often it was received.
    pub receives: u32,
    /// When that was first, in milliseconds since 1970.
    pub first_received: Option<i64>,
    /// FIFO: its group.
    pub group: Option<String>,
    /// FIFO: its deduplication id.
    pub deduplication: Option<String>,
    /// Where it failed, if it is a dead letter.
    pub dead: Option<Dead>,
    /// See [`NewMessage::depth`].
    pub depth: u32,
    /// How often it was received and given back without having been worked on.
    pub releases: u32,
}

/// Why a message is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The queue that it comes from.
    pub source: QueueName,
    /// What was wrong.
    pub reason: String,
}

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What was received; this receive is counted.
    pub message: Message,
    /// What settles it.
    pub receipt: Receipt,
    /// How long ago it was sent, by the time that the store was open since: whatever the
    /// wall clock was set to meanwhile.
    pub age: Duration,
    /// Whether the host ended without a word while it held this message: it, or one that was
    /// handled beside it, may be to blame.
    pub is_suspect: bool,
}

/// Who holds what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A client beyond this process: its receipts hold over a restart of the host.
    Outside,
    /// The host itself: what it holds comes back at once when it starts anew.
    Host,
}
