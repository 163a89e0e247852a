//! Marks: how far something has come that sends messages by itself, such as a schedule.
//!
//! A mark and the messages that it stands for lie in the same store: a step and its message
//! are one commit, so that none is sent twice or skipped by a crash.

use super::{NewMessage, QueueName};

/// Names a mark.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MarkName(pub String);

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it was set up, in milliseconds since 1970 by the store's clock.
    pub begun: i64,
    /// What it has come to: whatever the steps say, and first of all `begun`.
    pub at: i64,
}

/// A step of a mark.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where the mark has to stand.
    pub from: i64,
    /// Where it stands then.
    pub to: i64,
    /// What is sent with it.
    pub send: Option<(QueueName, NewMessage)>,
    /// Whether nothing is sent while the message of the step before is not settled.
    pub alone: bool,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// The mark stands where it should, and the message is sent.
    Yes,
    /// The mark stands where it should. Nothing was sent: the message before is still there.
    Held,
    /// The queue is full: nothing was done.
    Full,
    /// The mark stood elsewhere, or is gone: nothing was done.
    Stale,
}
