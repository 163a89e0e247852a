//! Thousands of functions on one host: how soon it serves, what it holds while they rest, and
//! how long the first request to one of them takes.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Setup, TARGET_HEADER, target_row};
use crate::build::variant;
use crate::client::{Kept, Request};
use crate::manifest::Manifest;
use crate::proc;
use crate::server::Server;
use crate::stats::{millis, percentile, table};

/// How long the host is left alone before its idle memory is read, or code is to rest that is
/// more than may be mapped.
const SETTLE: Duration = Duration::from_secs(3);
/// For 5000 functions.
const MAX_IDLE: u64 = 200 << 20;
const MAX_FIRST: Duration = Duration::from_millis(1);
/// Between two requests: what the host does after one is not in the way of the next.
const PAUSE: Duration = Duration::from_millis(2);

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Functions that are deployed.
    pub functions: usize,
    /// Components that they have, each as many of them: each is compiled once.
    pub components: usize,
    /// First requests to each component that has rested.
    pub rounds: usize,
}

/// Latencies of requests to functions that rested, and of those right after them.
#[derive(Default)]
struct Pairs {
    first: Vec<Duration>,
    warm: Vec<Duration>,
}

impl Pairs {
    /// Asks the first function of each of these components twice.
    fn ask(&mut self, server: &Server, components: Range<usize>) -> Result<()> {
        let mut connection = Kept::open(server.http)?;
        for component in components {
            let request = Request::from(server.endpoint(&path(component))).bytes;
            let mut ask = || -> Result<Duration> {
                let began = Instant::now();
                let answer = connection.ask(&request)?;
                let took = began.elapsed();
                ensure!(answer.status == 200, "a request got {}", answer.status);
                Ok(took)
            };
            self.first.push(ask()?);
            // The second finds the code mapped, and makes its instance as the first did.
            self.warm.push(ask()?);
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Latencies at p50 and p99, first and warm.
    fn figures(&mut self) -> [[Duration; 2]; 2] {
        [&mut self.first, &mut self.warm]
            .map(|latencies| [0.5, 0.99].map(|part| percentile(latencies, part)))
    }
}

fn path(function: usize) -> String {
    format!("/f{function}")
}

/// Function N has the component N modulo their number.
fn manifest(setup: &Setup, plan: Plan, lines: &[&str]) -> Result<Manifest> {
    let reset = format!("memory-reset = \"{}\"", setup.memory_reset);
    let host: Vec<&str> = [reset.as_str()].iter().chain(lines).copied().collect();
    let components = (0..plan.components)
        .map(|number| variant(&setup.guests.hello, number, setup.scratch.path()))
        .collect::<Result<Vec<_>>>()?;
    let mut manifest = Manifest::new(&host);
    for function in 0..plan.functions {
        let component = &components[function % components.len()];
        let path = path(function);
        manifest = manifest.function(&path[1..], component, &[&path], &[]);
    }
    Ok(manifest)
}

fn start(setup: &Setup, manifest: &Manifest) -> Result<(Server, Duration)> {
    let server = Server::dunlin(
        &setup.dunlin,
        manifest,
        setup.scratch.path(),
        setup.backtraces,
    )?;
    let listening = server.started.elapsed();
    Ok((server, listening))
}

/// How often code was mapped since the host started, and how much of it is.
fn mappings(server: &Server) -> Result<(f64, f64)> {
    let metrics = server.metrics()?;
    Ok((
        metrics.sum("dunlin_code_mappings_total", &[])?,
        metrics.sum("dunlin_code_mapped", &[])?,
    ))
}

/// Runs it and answers its report.
pub fn run(setup: &Setup, plan: Plan) -> Result<String> {
    ensure!(
        (4..=plan.functions).contains(&plan.components),
        "there must be from 4 components to as many as functions"
    );
    // Fills the cache, some components at a time: a server has two minutes to start.
    let by_default = manifest(setup, plan, &[])?;
    for count in (0..plan.components).step_by(100).skip(1) {
        let part = Plan {
            functions: count,
            components: count,
            ..plan
        };
        start(setup, &manifest(setup, part, &[])?)?.0.stop()?;
    }
    start(setup, &by_default)?.0.stop()?;

    // As it is deployed: idle, and the first requests in the life of the process, which verify
    // the code as well.
    let (server, listening) = start(setup, &by_default)?;
    std::thread::sleep(SETTLE);
    let idle = proc::memory(server.pid())?.resident;
    let mut new = Pairs::default();
    new.ask(&server, 0..plan.components)?;
    let (mapped, _) = mappings(&server)?;
    ensure!(
        mapped >= plan.components as f64,
        "the functions did not rest before: {mapped} mappings"
    );
    let touched = proc::memory(server.pid())?.resident;
    server.stop()?;

    // Of components of which half may be mapped, the half that was not asked last rests, once
    // the host has looked after them.
    let middle = plan.components / 2;
    let half = format!("mapped = {middle}");
    let (server, _) = start(setup, &manifest(setup, plan, &[&half])?)?;
    Pairs::default().ask(&server, 0..plan.components)?;
    std::thread::sleep(SETTLE);
    // The kernel shows a change of what was compiled just now only after a while: by now it was
    // not.
    let mut resting = Pairs::default();
    let (before, _) = mappings(&server)?;
    for _ in 0..plan.rounds {
        for half in [0..middle, middle..plan.components] {
            resting.ask(&server, half)?;
            std::thread::sleep(SETTLE);
        }
    }
    let (after, mapped) = mappings(&server)?;
    let (again, asked) = (after - before, resting.first.len());
    ensure!(
        again >= asked as f64 * 0.9,
        "of {asked} first requests only {again} found their function at rest"
    );
    server.stop()?;

    Ok(report(
        plan,
        listening,
        [idle, touched],
        new.figures(),
        resting.figures(),
        mapped,
    ))
}

fn report(
    plan: Plan,
    listening: Duration,
    [idle, touched]: [u64; 2],
    new: [[Duration; 2]; 2],
    resting: [[Duration; 2]; 2],
    mapped: f64,
) -> String {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let Plan {
        functions,
        components,
        ..
    } = plan;
    let latency = |what: &str, [first, warm]: [[Duration; 2]; 2]| {
        let above = first[1].saturating_sub(warm[1]);
        target_row(
            &format!("p99 of a first request {what}, above that of the next"),
            format!("≤ {} ms", MAX_FIRST.as_millis()),
            format!(
                "{:.2} ms ({:.2} and {:.2} ms; p50 {:.2} and {:.2} ms)",
                millis(above),
                millis(first[1]),
                millis(warm[1]),
                millis(first[0]),
                millis(warm[0]),
            ),
            above <= MAX_FIRST,
        )
    };
    let rows = [
        target_row(
            &format!("resident, idle, {functions} functions of {components} components"),
            format!("≤ {}", mib(MAX_IDLE)),
            mib(idle),
            idle <= MAX_IDLE,
        ),
        latency("since the host started", new),
        latency("after a rest", resting),
    ];
    format!(
        "{}\nIt listened {:.0} ms after its start. When each component had had a request it held \
         {}. At the end of the rests {mapped:.0} components were mapped.\n",
        table(&TARGET_HEADER, &rows),
        millis(listening),
        mib(touched),
    )
}
