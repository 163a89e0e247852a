//! From a queue through an invocation to its settlement: while senders fill the queue, and when
//! there is a backlog and no sender.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::{Setup, target_row};
use super::host::{Home, QUEUE};
use super::{BODY, Plan, SENDERS, paired, reference};
use crate::client::Closed;
use crate::proc;
use crate::server::Server;
use crate::stats::Spread;

const LEAST: f64 = 0.2;
const BACKLOG: usize = 50_000;
const WARM_UP: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
struct Drained {
    rate: f64,
    cpu_micros: f64,
    /// Sends per second meanwhile.
    sends: f64,
}

fn settled(server: &Server) -> Result<f64> {
    let metrics = server.metrics()?;
    for step in ["retried", "released", "dead"] {
        let count = metrics.sum("dunlin_events_total", &[("step", step)]);
        ensure!(count.is_err() || count? == 0.0, "messages were {step}");
    }
    // Before the first there is no such series.
    let labels = [("function", "sink"), ("step", "done")];
    Ok(metrics.sum("dunlin_events_total", &labels).unwrap_or(0.0))
}

fn beside_senders(setup: &Setup, plan: &Plan) -> Result<Drained> {
    let home = Home::with_consumer(setup)?;
    let server = home.start(setup)?;
    let request = home.client(&server)?.send_message(QUEUE, BODY)?;
    let senders = Closed::start(request, SENDERS);
    std::thread::sleep(WARM_UP);
    let (began, before, cpu) = (Instant::now(), settled(&server)?, proc::cpu(server.pid())?);
    std::thread::sleep(plan.time);
    let (time, cpu) = (began.elapsed(), proc::cpu(server.pid())? - cpu);
    let count = settled(&server)? - before;
    let seen = senders.stop()?;
    seen.only(&[200])?;
    server.stop()?;
    Ok(Drained {
        rate: count / time.as_secs_f64(),
        cpu_micros: cpu.as_secs_f64() * 1e6 / count,
        sends: seen.rate(),
    })
}

fn of_backlog(setup: &Setup) -> Result<Drained> {
    let home = Home::with_consumer(setup)?;
    home.fill(BACKLOG)?;
    let server = home.start(setup)?;
    let (began, before, cpu) = (Instant::now(), settled(&server)?, proc::cpu(server.pid())?);
    while settled(&server)? < BACKLOG as f64 {
        ensure!(began.elapsed() < TIMEOUT, "the backlog does not drain");
        std::thread::sleep(LOOK);
    }
    let (time, cpu) = (began.elapsed(), proc::cpu(server.pid())? - cpu);
    let count = BACKLOG as f64 - before;
    server.stop()?;
    Ok(Drained {
        rate: count / time.as_secs_f64(),
        cpu_micros: cpu.as_secs_f64() * 1e6 / count,
        sends: 0.0,
    })
}

pub(super) fn run(setup: &Setup, plan: &Plan) -> Result<Vec<Vec<String>>> {
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let host = || Ok((beside_senders(setup, plan)?, of_backlog(setup)?));
        let ((beside, backlog), rows) = paired(round, host, || reference(setup, plan))?;
        eprintln!(
            "  beside {:.0} sends/s {:.0}/s, backlog {:.0}/s, {rows:.0} rows/s",
            beside.sends, beside.rate, backlog.rate
        );
        rounds.push((beside, backlog, rows));
    }
    let row = |what: &str, which: fn(&(Drained, Drained, f64)) -> Drained| {
        let ratio = Spread::of(rounds.iter().map(|round| which(round).rate / round.2));
        let median = |figure: fn(Drained) -> f64| {
            Spread::of(rounds.iter().map(|round| figure(which(round)))).median
        };
        let sends = match median(|drained| drained.sends) {
            0.0 => String::new(),
            sends => format!(", {sends:.0} sends/s"),
        };
        target_row(
            what,
            format!("≥ {LEAST} ×"),
            format!(
                "{} ×: {:.0} messages/s, {:.1} µs CPU each{sends}",
                ratio.with_range(2),
                median(|drained| drained.rate),
                median(|drained| drained.cpu_micros),
            ),
            ratio.median >= LEAST,
        )
    };
    let beside =
        format!("settled while {SENDERS} senders fill the queue, against the same commits");
    let backlog = format!("settled from a backlog of {BACKLOG}, against the same commits");
    Ok(vec![
        row(&beside, |round| round.0),
        row(&backlog, |round| round.1),
    ])
}
