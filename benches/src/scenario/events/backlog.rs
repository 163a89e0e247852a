//! A million messages that wait, against a thousand: what a send and a receive cost, what the
//! host holds of memory, and how soon it is back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::{Setup, target_row};
use super::host::{Home, QUEUE};
use super::{BODY, Plan};
use crate::client::{Queue, Request};
use crate::proc;
use crate::stats::{Spread, millis, percentile};

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
const MOST: f64 = 1.5;
const MAX_START: Duration = Duration::from_secs(2);

/// The medians of a send, and of a receive of ten with their deletion. As many are sent as are
/// received.
fn measure(
    queue: &mut Queue<'_>,
    request: &Request,
    time: Duration,
) -> Result<(Duration, Duration)> {
    let (mut sends, mut receives) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < time {
        for _ in 0..10 {
            let asked = Instant::now();
            queue.repeat(request)?;
            sends.push(asked.elapsed());
        }
        let asked = Instant::now();
        let received = queue.receive_and_delete()?;
        receives.push(asked.elapsed());
        ensure!(received == 10, "received {received} messages of many");
    }
    Ok((percentile(&mut sends, 0.5), percentile(&mut receives, 0.5)))
}

pub(super) fn run(setup: &Setup, plan: &Plan) -> Result<Vec<Vec<String>>> {
    let (shallow, deep) = (Home::new(setup)?, Home::new(setup)?);
    shallow.fill(FEW)?;
    deep.fill(MANY)?;
    eprintln!("  filled");
    let small = shallow.start(setup)?;
    let mut starts = Vec::new();
    for _ in 0..plan.rounds {
        let server = deep.start(setup)?;
        starts.push(millis(server.started.elapsed()));
        server.stop()?;
    }
    let large = deep.start(setup)?;
    let (few, many) = (shallow.client(&small)?, deep.client(&large)?);
    let (mut sends, mut receives) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let measure = |client: &crate::client::SqsClient| {
            let request = client.send_message(QUEUE, BODY)?;
            let mut queue = client.queue(QUEUE)?;
            proc::first(|| measure(&mut queue, &request, plan.time))
        };
        let (many, few) = super::paired(round, || measure(&many), || measure(&few))?;
        eprintln!("  many {many:?}, few {few:?}");
        sends.push((millis(many.0), millis(few.0)));
        receives.push((millis(many.1), millis(few.1)));
    }
    let (few, many) = (proc::memory(small.pid())?, proc::memory(large.pid())?);
    small.stop()?;
    large.stop()?;

    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let row = |what: &str, pairs: &[(f64, f64)]| {
        let ratio = Spread::of(pairs.iter().map(|(many, few)| many / few));
        let many = Spread::of(pairs.iter().map(|(many, _)| *many)).median;
        let few = Spread::of(pairs.iter().map(|(_, few)| *few)).median;
        target_row(
            &format!("{what} with {MANY} messages waiting, against {FEW}"),
            format!("≤ {MOST} ×"),
            format!("{} ×: {many:.2} ms, {few:.2} ms", ratio.with_range(2)),
            ratio.median <= MOST,
        )
    };
    let start = Spread::of(starts);
    Ok(vec![
        row("median of a send", &sends),
        row("median of a receive of ten and their deletion", &receives),
        target_row(
            &format!("start of the process until it listens, {MANY} messages waiting"),
            format!("≤ {} ms", MAX_START.as_millis()),
            format!("{} ms", start.with_range(0)),
            start.median <= millis(MAX_START),
        ),
        vec![
            format!("resident with {MANY} messages waiting"),
            "–".to_owned(),
            format!("{}, with {FEW} {}", mib(many.resident), mib(few.resident)),
            String::new(),
        ],
    ])
}
