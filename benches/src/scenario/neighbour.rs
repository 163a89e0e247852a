//! A quiet function beside one that floods the host with work that never ends.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Setup, TARGET_HEADER, target_row};
use crate::client::{Closed, Endpoint, OpenSeen, Paced, Watcher};
use crate::manifest::Manifest;
use crate::proc;
use crate::server::Server;
use crate::stats::{Spread, millis, percentile, table};

/// What the neighbour has for itself, and what is left for the flood.
const RESERVED: usize = 200;
pub(super) const FLOOD: usize = 500;
/// The neighbour's connections at half load: fewer than it may have invocations, so that none is
/// turned away.
const CONNECTIONS: usize = 128;
/// Those of a neighbour that computes: enough that it always has work on every core, and few,
/// since its invocations take turns and end together, and CPU is counted when one ends.
const WORKERS: usize = 16;
/// How much longer shares are measured than latencies, for the same reason.
const SHARE_TIMES: u32 = 2;
/// How often the neighbour's quiet throughput is measured before the rounds.
const CALIBRATIONS: usize = 3;
/// How often `/metrics` is asked for.
const METRICS_INTERVAL: Duration = Duration::from_millis(100);
const FLOOD_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_P99: f64 = 3.0;
const MAX_METRICS: Duration = Duration::from_millis(100);
/// How far a share may be from the weight's, in parts of it.
const SHARE_TOLERANCE: f64 = 0.10;

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Pairs of a quiet and a loaded measurement.
    pub rounds: usize,
    /// For how long each.
    pub time: Duration,
}

/// The neighbour under half of its quiet throughput, with and without the flood.
pub(super) struct Paired {
    ratios: Spread,
    quiet: Spread,
    loaded: Spread,
    rate: f64,
    /// Requests beside the flood that had no answer when the run was over.
    unanswered: u64,
    /// The longest that `/metrics` took beside the flood.
    metrics: Duration,
}

/// A host with the spinner and its neighbours, weighted as said: first theirs, then the spinner's.
pub(super) fn start(setup: &Setup, weights: (u32, u32)) -> Result<Server> {
    let (neighbour, spinner) = weights;
    let guests = &setup.guests;
    let reserved = format!("reserved-concurrency = {RESERVED}");
    let neighbour = format!("weight = {neighbour}");
    let manifest = Manifest::new(&[
        &format!("concurrency = {}", RESERVED + FLOOD),
        &format!("memory-reset = \"{}\"", setup.memory_reset),
    ])
    .function(
        "hello",
        &guests.hello,
        &["/hello"],
        &[&reserved, &neighbour],
    )
    .function(
        "spinner",
        &guests.spinner,
        &["/spin", "/random", "/clock"],
        &["timeout = \"1s\"", &format!("weight = {spinner}")],
    );
    start_manifest(setup, &manifest)
}

/// The same, where the neighbour computes as well: for about ten milliseconds per request.
fn start_worker(setup: &Setup, weights: (u32, u32)) -> Result<Server> {
    let (neighbour, spinner) = weights;
    let guests = &setup.guests;
    let manifest = Manifest::new(&[
        &format!("concurrency = {}", RESERVED + FLOOD),
        &format!("memory-reset = \"{}\"", setup.memory_reset),
    ])
    .function(
        "worker",
        &guests.spinner,
        &["/work"],
        &[
            &format!("reserved-concurrency = {RESERVED}"),
            &format!("weight = {neighbour}"),
            // Fifty at once on a part of the cores take their time.
            "timeout = \"30s\"",
        ],
    )
    .function(
        "spinner",
        &guests.spinner,
        &["/spin"],
        &["timeout = \"1s\"", &format!("weight = {spinner}")],
    );
    start_manifest(setup, &manifest)
}

fn start_manifest(setup: &Setup, manifest: &Manifest) -> Result<Server> {
    Server::dunlin(
        &setup.dunlin,
        manifest,
        setup.scratch.path(),
        setup.backtraces,
    )
}

fn running(server: &Server) -> Result<f64> {
    let metrics = server.metrics()?;
    metrics.sum("dunlin_invocations_running", &[("function", "spinner")])
}

fn until(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + FLOOD_TIMEOUT;
    while !reached()? {
        ensure!(Instant::now() < deadline, "{what} within {FLOOD_TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Keeps as many invocations of a path of the spinner in flight as it may have.
pub(super) fn flood(server: &Server, path: &str) -> Result<Closed> {
    let flood = Closed::start(server.endpoint(path), FLOOD);
    // While one ends and the next begins, a few are missing.
    let most = FLOOD as f64 * 0.9;
    until("the flood was not in flight", || {
        Ok(running(server)? >= most)
    })?;
    Ok(flood)
}

/// Ends a flood: all that it saw were deadlines.
pub(super) fn ebb(server: &Server, flood: Closed) -> Result<Vec<Duration>> {
    let seen = flood.stop()?;
    seen.only(&[504])?;
    until("the flood was not gone", || Ok(running(server)? == 0.0))?;
    Ok(seen.latencies)
}

fn half_load(endpoint: &Endpoint, rate: f64, time: Duration) -> Result<OpenSeen> {
    let seen = Paced {
        endpoint: endpoint.clone(),
        rate,
        connections: CONNECTIONS,
        time,
    }
    .run()?;
    ensure!(
        seen.failed == 0,
        "{} of the neighbour's requests failed",
        seen.failed
    );
    Ok(seen)
}

/// Measures the neighbour in pairs; in every other pair the loaded half comes first.
pub(super) fn paired(server: &Server, plan: Plan, path: &str) -> Result<Paired> {
    server.check("/hello")?;
    let hello = server.endpoint("/hello");
    let full: Result<Vec<f64>> = (0..CALIBRATIONS)
        .map(|_| Ok(Closed::run(hello.clone(), CONNECTIONS, plan.time)?.rate()))
        .collect();
    let rate = Spread::of(full?).median / 2.0;

    let quiet = |latencies: &mut Vec<f64>| -> Result<f64> {
        let mut seen = half_load(&hello, rate, plan.time)?;
        let p99 = millis(percentile(&mut seen.latencies, 0.99));
        latencies.push(p99);
        Ok(p99)
    };
    let mut metrics = Duration::ZERO;
    let mut unanswered = 0;
    let mut loaded = |latencies: &mut Vec<f64>| -> Result<f64> {
        let flood = flood(server, path)?;
        let watcher = Watcher::start(server.metrics_endpoint()?, METRICS_INTERVAL);
        let mut seen = half_load(&hello, rate, plan.time)?;
        metrics = metrics.max(watcher.stop()?.into_iter().max().unwrap_or_default());
        ebb(server, flood)?;
        unanswered += seen.unanswered;
        let p99 = millis(percentile(&mut seen.latencies, 0.99));
        latencies.push(p99);
        Ok(p99)
    };
    let (mut all_quiet, mut all_loaded, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let (quiet, loaded) = if round.is_multiple_of(2) {
            let quiet = quiet(&mut all_quiet)?;
            (quiet, loaded(&mut all_loaded)?)
        } else {
            let loaded = loaded(&mut all_loaded)?;
            (quiet(&mut all_quiet)?, loaded)
        };
        eprintln!(
            "{path}, round {} of {}: p99 {quiet:.2} ms quiet, {loaded:.2} ms beside the flood",
            round + 1,
            plan.rounds
        );
        ratios.push(loaded / quiet);
    }
    Ok(Paired {
        ratios: Spread::of(ratios),
        quiet: Spread::of(all_quiet),
        loaded: Spread::of(all_loaded),
        rate,
        unanswered,
        metrics,
    })
}

impl Paired {
    pub(super) fn rows(&self, path: &str) -> Vec<Vec<String>> {
        vec![
            target_row(
                &format!(
                    "neighbour's p99 at half load ({:.0} requests/s) beside {FLOOD} × `{path}`: \
                     {:.2} ms, quiet {:.2} ms; {} unanswered",
                    self.rate, self.loaded.median, self.quiet.median, self.unanswered
                ),
                format!("≤ {MAX_P99} × quiet"),
                format!("{} ×", self.ratios.with_range(2)),
                self.ratios.median <= MAX_P99,
            ),
            target_row(
                &format!("longest answer of `/metrics` beside {FLOOD} × `{path}`"),
                format!("≤ {} ms", MAX_METRICS.as_millis()),
                format!("{:.1} ms", millis(self.metrics)),
                self.metrics <= MAX_METRICS,
            ),
        ]
    }
}

/// What a neighbour got that asked for all.
struct Shared {
    /// Of the CPU that guests used.
    percent: f64,
    /// Answers per second.
    rate: f64,
}

/// The neighbour's part of the CPU that guests used while both asked for all of it.
fn share(
    server: &Server,
    neighbour: &str,
    path: &str,
    connections: usize,
    plan: Plan,
) -> Result<Shared> {
    let cpu = |function: &str| -> Result<f64> {
        let metrics = server.metrics()?;
        let name = "dunlin_invocation_cpu_seconds_total";
        metrics.sum(name, &[("function", function)])
    };
    let flood = flood(server, "/spin")?;
    let load = Closed::start(server.endpoint(path), connections);
    // CPU is counted when an invocation ends: let those end that began alone.
    std::thread::sleep(Duration::from_secs(2));
    let before = (cpu(neighbour)?, cpu("spinner")?);
    std::thread::sleep(plan.time * SHARE_TIMES);
    let after = (cpu(neighbour)?, cpu("spinner")?);
    let seen = load.stop()?;
    seen.only(&[200])?;
    ebb(server, flood)?;
    let (neighbour, spinner) = (after.0 - before.0, after.1 - before.1);
    ensure!(neighbour + spinner > 0.0, "no CPU was counted");
    Ok(Shared {
        percent: neighbour / (neighbour + spinner) * 100.0,
        rate: seen.rate(),
    })
}

fn shares(setup: &Setup, plan: Plan, weights: (u32, u32)) -> Result<Vec<Vec<String>>> {
    let weight = f64::from(weights.0) / f64::from(weights.0 + weights.1);
    let of_rounds = |server: Server,
                     neighbour: &str,
                     path: &str,
                     connections: usize|
     -> Result<(Spread, Spread)> {
        let shares: Result<Vec<Shared>> = (0..plan.rounds.div_ceil(3))
            .map(|_| share(&server, neighbour, path, connections, plan))
            .collect();
        server.stop()?;
        let shares = shares?;
        Ok((
            Spread::of(shares.iter().map(|share| share.percent)),
            Spread::of(shares.iter().map(|share| share.rate)),
        ))
    };
    let (busy, _) = of_rounds(start_worker(setup, weights)?, "worker", "/work", WORKERS)?;
    let (hello, hello_rate) = of_rounds(start(setup, weights)?, "hello", "/hello", RESERVED)?;
    let off = (busy.median / 100.0 - weight).abs() / weight;
    let weights = format!("{} to {}", weights.0, weights.1);
    Ok(vec![
        target_row(
            &format!("CPU share of a neighbour that always has work, weights {weights}"),
            format!(
                "{:.0} % ± {:.0} % of it",
                weight * 100.0,
                SHARE_TOLERANCE * 100.0
            ),
            format!("{} %", busy.with_range(1)),
            off <= SHARE_TOLERANCE,
        ),
        vec![
            format!(
                "the same of hello, which has none while its client gets the answers, {weights}; \
                 {:.0} requests/s",
                hello_rate.median
            ),
            "–".to_owned(),
            format!("{} %", hello.with_range(1)),
            String::new(),
        ],
    ])
}

/// Says at which priority the load was made.
pub(super) fn remark() -> String {
    let ahead = std::thread::spawn(proc::go_first).join().unwrap_or(0);
    format!(
        "The load generator ran beside the host on the same {} cores, {}; latencies count from \
         when a request was due.\n",
        proc::cores(),
        if ahead > 0 {
            format!("at a priority {ahead} steps before it (`nice`)")
        } else {
            "at the same priority, since only root may go first: it waited for cores itself, and \
             that is in the figures"
                .to_owned()
        },
    )
}

/// Runs it and answers its report.
pub fn run(setup: &Setup, plan: Plan) -> Result<String> {
    let server = start(setup, (100, 100))?;
    let mut rows = paired(&server, plan, "/spin")?.rows("/spin");
    server.stop()?;
    rows.extend(shares(setup, plan, (100, 100))?);
    rows.extend(shares(setup, plan, (100, 300))?);
    Ok(format!("{}\n{}", table(&TARGET_HEADER, &rows), remark()))
}
