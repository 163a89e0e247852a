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
    /// Where it was set up.
    pub begun: i64,
    /// What it has come to: whatever the steps say, and first of all `begun`.
    pub at: i64,
    /// Steps since the last message that had none.
    pub skipped: u32,
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
    /// Steps up to it that have no message. They are counted until one has.
    pub skips: u32,
    /// Whether it is skipped while the message of a step before is not settled.
    pub alone: bool,
    /// Whether the mark is set up anew where it stands then.
    pub begins: bool,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// The mark stands where it should, and the message is sent.
    Yes,
    /// The mark stands where it should. The message before is still there: nothing was sent,
    /// and this one is skipped too.
    Held,
    /// The queue is full: nothing was done.
    Full,
    /// The mark stood elsewhere, or is gone: nothing was done.
    Stale,
}
