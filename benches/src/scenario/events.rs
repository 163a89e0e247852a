//! Durable events: what queues cost beside the bare disk, with a deep backlog, and idle.

mod backlog;
mod enqueue;
mod host;
mod idle;
mod settled;
mod single;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use super::{Setup, TARGET_HEADER};
use crate::disk;
use crate::stats::table;

/// The body of a message: 256 bytes.
const BODY: &str = concat!(
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
);
/// Senders at once, and rows of the reference's transactions.
const SENDERS: usize = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Many senders at once
    Enqueue,
    /// One sender alone
    Single,
    /// Sent, invoked, settled
    Settled,
    /// A million messages that wait
    Backlog,
    /// Triggers without events
    Idle,
}

/// How it is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds, in each of which the host is measured beside its reference.
    pub rounds: usize,
    /// For how long each.
    pub time: Duration,
    /// What is measured.
    pub parts: Vec<Part>,
}

/// Runs it and answers its report.
pub fn run(setup: &Setup, plan: &Plan) -> Result<String> {
    disk::check(setup.scratch.path())?;
    let mut rows = Vec::new();
    for part in &plan.parts {
        eprintln!("{part:?}");
        rows.extend(match part {
            Part::Enqueue => enqueue::run(setup, plan)?,
            Part::Single => single::run(setup, plan)?,
            Part::Settled => settled::run(setup, plan)?,
            Part::Backlog => backlog::run(setup, plan)?,
            Part::Idle => idle::run(setup)?,
        });
    }
    Ok(table(&TARGET_HEADER, &rows))
}

/// The rate at which the disk takes batches of messages without the host.
fn reference(setup: &Setup, plan: &Plan) -> Result<f64> {
    disk::commits(setup.scratch.path(), SENDERS as u32, BODY, plan.time)
}

/// The host and its reference, each first in every other round.
fn paired<A, B>(
    round: usize,
    host: impl FnOnce() -> Result<A>,
    reference: impl FnOnce() -> Result<B>,
) -> Result<(A, B)> {
    if round.is_multiple_of(2) {
        let host = host()?;
        Ok((host, reference()?))
    } else {
        let reference = reference()?;
        Ok((host()?, reference))
    }
}
