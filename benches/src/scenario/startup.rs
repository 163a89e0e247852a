//! From the start of the process to its first answer, and what it holds of memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Setup, TARGET_HEADER, target_row};
use crate::build::variant;
use crate::client;
use crate::manifest::Manifest;
use crate::proc;
use crate::server::Server;
use crate::stats::{Spread, millis, table};
use crate::wrk::Wrk;

const FUNCTIONS: usize = 10;
/// How long the host is left alone before its idle memory is read.
const SETTLE: Duration = Duration::from_secs(3);
const MAX_START: Duration = Duration::from_millis(100);
const MAX_IDLE: u64 = 60 << 20;
const MAX_LOADED: u64 = 120 << 20;
const CONNECTIONS: usize = 32;

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Starts that are measured, after one that fills the cache.
    pub runs: usize,
    /// For how long the host is loaded before its memory is read.
    pub load: Duration,
}

/// Ten components that differ: the four examples, and hello with other bytes. And the paths that
/// answer a plain GET.
fn manifest(setup: &Setup) -> Result<(Manifest, Vec<String>)> {
    let guests = &setup.guests;
    let mut manifest = Manifest::new(&[&format!("memory-reset = \"{}\"", setup.memory_reset)]);
    let mut paths = Vec::new();
    for (component, path) in &guests.examples {
        let name = path.trim_start_matches('/');
        manifest = manifest.function(name, component, &[path], &["memory = \"256MiB\""]);
        // The thumbnail wants a picture.
        if *path != "/thumbnail" {
            paths.push((*path).to_owned());
        }
    }
    for number in 0..FUNCTIONS - guests.examples.len() {
        let component = variant(&guests.hello, number, setup.scratch.path())?;
        let path = format!("/hello-{number}");
        let name = format!("hello-{number}");
        manifest = manifest.function(&name, &component, &[&path], &[]);
        paths.push(path);
    }
    Ok((manifest, paths))
}

fn start(setup: &Setup, manifest: &Manifest) -> Result<(Server, Duration, Duration)> {
    let server = Server::dunlin(
        &setup.dunlin,
        manifest,
        setup.scratch.path(),
        setup.backtraces,
    )?;
    let listening = server.started.elapsed();
    let answer = client::get(&server.endpoint("/hello-0"))?;
    let answered = server.started.elapsed();
    ensure!(
        answer.status == 200,
        "the first answer is {}",
        answer.status
    );
    Ok((server, listening, answered))
}

/// Runs it and answers its report.
pub fn run(setup: &Setup, plan: Plan) -> Result<String> {
    let (manifest, paths) = manifest(setup)?;
    // Fills the cache.
    start(setup, &manifest)?.0.stop()?;
    let mut listening = Vec::new();
    let mut answered = Vec::new();
    for _ in 0..plan.runs {
        let (server, listens, answers) = start(setup, &manifest)?;
        listening.push(millis(listens));
        answered.push(millis(answers));
        server.stop()?;
    }
    let answered = Spread::of(answered);

    let (server, ..) = start(setup, &manifest)?;
    std::thread::sleep(SETTLE);
    let idle = proc::memory(server.pid())?.resident;
    let wrk = Wrk {
        program: &setup.wrk,
        scratch: setup.scratch.path(),
        connections: CONNECTIONS,
    };
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let began = Instant::now();
    let seen = wrk.run(&server.url(), &paths, plan.load)?;
    let loaded_for = began.elapsed();
    let loaded = proc::memory(server.pid())?;
    server.stop()?;

    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let rows = [
        target_row(
            &format!(
                "start of the process to the first 200, {FUNCTIONS} functions, warm cache, {} runs",
                plan.runs
            ),
            format!("≤ {} ms", MAX_START.as_millis()),
            format!("{} ms", answered.with_range(1)),
            answered.median <= millis(MAX_START),
        ),
        target_row(
            &format!("resident, idle, {FUNCTIONS} functions"),
            format!("≤ {}", mib(MAX_IDLE)),
            mib(idle),
            idle <= MAX_IDLE,
        ),
        target_row(
            &format!("resident after {:.0} s of load", loaded_for.as_secs_f64()),
            format!("≤ {}", mib(MAX_LOADED)),
            format!("{} (peak {})", mib(loaded.resident), mib(loaded.peak)),
            loaded.resident <= MAX_LOADED,
        ),
    ];
    Ok(format!(
        "{}\nIt listened after {} ms. The load was {:.0} requests/s over {} of the functions.\n",
        table(&TARGET_HEADER, &rows),
        Spread::of(listening).with_range(1),
        seen.rate,
        paths.len(),
    ))
}
