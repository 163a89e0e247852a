//! Many senders at once, through the API, against bare commits.

use anyhow::{Result, ensure};

use super::super::{Setup, target_row};
use super::host::{Home, QUEUE};
use super::{BODY, Plan, SENDERS, paired, reference};
use crate::client::Closed;
use crate::proc;
use crate::stats::{Spread, millis, percentile};

const LEAST: f64 = 0.5;

struct Sent {
    rate: f64,
    cpu_micros: f64,
    p50: f64,
}

fn send(setup: &Setup, plan: &Plan) -> Result<Sent> {
    let home = Home::new(setup)?;
    let server = home.start(setup)?;
    let client = home.client(&server)?;
    let request = client.send_message(QUEUE, BODY)?;
    let cpu = proc::cpu(server.pid())?;
    let mut seen = Closed::run(request, SENDERS, plan.time)?;
    let cpu = proc::cpu(server.pid())? - cpu;
    seen.only(&[200])?;
    let count = seen.latencies.len();
    let waiting = client.queue(QUEUE)?.waiting()?;
    ensure!(
        waiting >= count as u64,
        "the host took {count} messages and has {waiting}"
    );
    server.stop()?;
    Ok(Sent {
        rate: seen.rate(),
        cpu_micros: cpu.as_secs_f64() * 1e6 / count as f64,
        p50: millis(percentile(&mut seen.latencies, 0.5)),
    })
}

pub(super) fn run(setup: &Setup, plan: &Plan) -> Result<Vec<Vec<String>>> {
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let (sent, rows) = paired(round, || send(setup, plan), || reference(setup, plan))?;
        eprintln!("  {:.0} messages/s, {rows:.0} rows/s", sent.rate);
        rounds.push((sent, rows));
    }
    let ratio = Spread::of(rounds.iter().map(|(sent, rows)| sent.rate / rows));
    let median = |figure: fn(&(Sent, f64)) -> f64| Spread::of(rounds.iter().map(figure)).median;
    Ok(vec![target_row(
        &format!("sends, {SENDERS} senders, against bare commits of {SENDERS} rows"),
        format!("≥ {LEAST} ×"),
        format!(
            "{} ×: {:.0} messages/s, {:.1} µs CPU each, p50 {:.2} ms; {:.0} rows/s",
            ratio.with_range(2),
            median(|(sent, _)| sent.rate),
            median(|(sent, _)| sent.cpu_micros),
            median(|(sent, _)| sent.p50),
            median(|(_, rows)| *rows),
        ),
        ratio.median >= LEAST,
    )])
}
