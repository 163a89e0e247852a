//! One sender alone, against a small append that the disk has.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::{Setup, target_row};
use super::host::{Home, QUEUE};
use super::{BODY, Plan, paired};
use crate::disk;
use crate::proc;
use crate::stats::{Spread, percentile};

const MOST: f64 = 2.0;

fn send(setup: &Setup, plan: &Plan) -> Result<(Duration, Duration)> {
    let home = Home::new(setup)?;
    let server = home.start(setup)?;
    let client = home.client(&server)?;
    let request = client.send_message(QUEUE, BODY)?;
    let mut queue = client.queue(QUEUE)?;
    let cpu = proc::cpu(server.pid())?;
    let mut latencies = proc::first(|| {
        let mut latencies = Vec::new();
        let began = Instant::now();
        while began.elapsed() < plan.time {
            let asked = Instant::now();
            queue.repeat(&request)?;
            latencies.push(asked.elapsed());
        }
        anyhow::Ok(latencies)
    })?;
    let cpu = proc::cpu(server.pid())? - cpu;
    server.stop()?;
    let each = cpu / u32::try_from(latencies.len())?;
    Ok((percentile(&mut latencies, 0.5), each))
}

pub(super) fn run(setup: &Setup, plan: &Plan) -> Result<Vec<Vec<String>>> {
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let folder = setup.scratch.path();
        let ((sent, cpu), synced) = paired(
            round,
            || send(setup, plan),
            || disk::sync(folder, plan.time),
        )?;
        eprintln!("  {:.0} µs, sync {:.0} µs", micros(sent), micros(synced));
        rounds.push((micros(sent), micros(cpu), micros(synced)));
    }
    let ratio = Spread::of(rounds.iter().map(|(sent, _, synced)| sent / synced));
    let median = |figure: fn(&(f64, f64, f64)) -> f64| Spread::of(rounds.iter().map(figure)).median;
    Ok(vec![target_row(
        "median of a single send, against an append of 512 bytes and its `fdatasync`",
        format!("≤ {MOST} ×"),
        format!(
            "{} ×: {:.0} µs, {:.1} µs CPU; {:.0} µs",
            ratio.with_range(2),
            median(|(sent, ..)| *sent),
            median(|(_, cpu, _)| *cpu),
            median(|(.., synced)| *synced),
        ),
        ratio.median <= MOST,
    )])
}
