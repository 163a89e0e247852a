//! The load comparison: CPU per request of the same hello through several servers.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use super::{Setup, TARGET_HEADER, target_row};
use crate::manifest::Manifest;
use crate::proc;
use crate::server::Server;
use crate::stats::{Spread, millis, table};
use crate::wrk::Wrk;

const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(2);
/// From here on `wrk`, which has one thread, is what bounds the throughput.
const WRK_IS_FULL: f64 = 0.95;
/// From here on what else runs on the machine is worth a warning.
const MUCH_ELSE: f64 = 0.10;

/// What `wasmtime serve` is tuned with.
const TUNED: &str = "-Opooling-memory-keep-resident=2097152,pooling-table-keep-resident=524288,\
                     pooling-pagemap-scan=yes";

/// A server that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// hyper alone
    BareHyper,
    /// `wasmtime serve` as it comes
    ServeDefault,
    /// `wasmtime serve`, tuned
    ServeTuned,
    /// fresh, compact guest, memset
    FreshMemset,
    /// fresh, guest with the default stack, pagemap scan
    FreshPagemapDefaultStack,
    /// fresh, compact guest, pagemap scan
    FreshPagemap,
    /// one instance for many requests
    Reuse,
    /// `wasi:http` 0.2, fresh, the component of `wasmtime serve`, pagemap scan
    StandardFresh,
    /// `wasmtime serve` as it comes, with a component of WASI 0.3
    Serve03,
    /// `wasi:http` 0.3, the same component, several requests in an instance
    StandardConcurrent,
    /// fresh, hello with a map of 5 000 made by its `init` at deploy, pagemap scan
    PreparedPagemap,
    /// fresh, the dictionary: 5 000 words indexed by its `init` at deploy, memset
    SnapshotMemset,
    /// fresh, the dictionary: 5 000 words indexed by its `init` at deploy, pagemap scan
    SnapshotPagemap,
}

/// How the comparison is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// For how long each server is loaded in each.
    pub time: Duration,
    /// Who takes part.
    pub contenders: Vec<Contender>,
}

/// What one server did in one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    cpu_micros: f64,
    rate: f64,
    p50: Duration,
    p99: Duration,
    resident: u64,
    /// Cores that the server used, and `wrk`, and everything else.
    server: f64,
    wrk: f64,
    others: f64,
}

impl Contender {
    fn label(self) -> &'static str {
        match self {
            Self::BareHyper => "bare hyper",
            Self::ServeDefault => "`wasmtime serve`, default",
            Self::ServeTuned => "`wasmtime serve`, tuned",
            Self::FreshMemset => "dunlin fresh, compact guest, memset",
            Self::FreshPagemapDefaultStack => "dunlin fresh, 1 MiB stack, pagemap",
            Self::FreshPagemap => "dunlin fresh, compact guest, pagemap",
            Self::Reuse => "dunlin reuse, compact guest, memset",
            Self::StandardFresh => "dunlin `wasi:http` 0.2, fresh, pagemap",
            Self::Serve03 => "`wasmtime serve`, default, WASI 0.3",
            Self::StandardConcurrent => "dunlin `wasi:http` 0.3, concurrent",
            Self::PreparedPagemap => "dunlin fresh, hello from a snapshot, pagemap",
            Self::SnapshotMemset => "dunlin fresh, dictionary from a snapshot, memset",
            Self::SnapshotPagemap => "dunlin fresh, dictionary from a snapshot, pagemap",
        }
    }

    /// What it is asked, and what it has to answer.
    fn question(self) -> (&'static str, &'static str) {
        match self {
            Self::SnapshotMemset | Self::SnapshotPagemap => ("/dictionary/xlii", "xlii: 42\n"),
            _ => ("/hello", "Hello, world!\n"),
        }
    }

    /// At most so many times the CPU of others.
    fn targets(self) -> &'static [(f64, Self)] {
        match self {
            Self::FreshMemset | Self::FreshPagemapDefaultStack => {
                &[(6.0, Self::BareHyper), (0.7, Self::ServeTuned)]
            }
            Self::Reuse => &[(3.0, Self::BareHyper)],
            Self::StandardFresh => &[(0.9, Self::ServeTuned)],
            Self::StandardConcurrent => &[(0.8, Self::Serve03)],
            Self::PreparedPagemap => &[(1.1, Self::FreshPagemap)],
            Self::BareHyper
            | Self::ServeDefault
            | Self::ServeTuned
            | Self::Serve03
            | Self::FreshPagemap
            | Self::SnapshotMemset
            | Self::SnapshotPagemap => &[],
        }
    }

    fn is_dunlin(self) -> bool {
        !matches!(
            self,
            Self::BareHyper | Self::ServeDefault | Self::ServeTuned | Self::Serve03
        )
    }

    fn start(self, setup: &Setup) -> Result<Server> {
        let guests = &setup.guests;
        let serve =
            |component, settings: &[&str]| Server::wasmtime(&setup.wasmtime, component, settings);
        let (reset, guest, lines): (_, _, &[&str]) = match self {
            Self::BareHyper => return Server::bare_hyper(&setup.bare_hyper),
            Self::ServeDefault => return serve(&guests.wasi_http_hello, &[]),
            Self::ServeTuned => return serve(&guests.wasi_http_hello, &[TUNED]),
            Self::Serve03 => return serve(&guests.wasi_http_hello_03, &[]),
            Self::FreshMemset => ("memset", &guests.hello, &[]),
            Self::FreshPagemapDefaultStack => ("pagemap", &guests.hello_default_stack, &[]),
            Self::FreshPagemap => ("pagemap", &guests.hello, &[]),
            Self::Reuse => ("memset", &guests.hello, &["isolation = \"reuse\""]),
            Self::StandardFresh => ("pagemap", &guests.wasi_http_hello, &[]),
            Self::StandardConcurrent => (
                "pagemap",
                &guests.wasi_http_hello_03,
                &["isolation = \"concurrent\""],
            ),
            Self::PreparedPagemap => ("pagemap", &guests.hello_prepared, &[]),
            Self::SnapshotMemset => ("memset", &guests.dictionary, &[]),
            Self::SnapshotPagemap => ("pagemap", &guests.dictionary, &[]),
        };
        let manifest = Manifest::new(&[&format!("memory-reset = \"{reset}\"")]).function(
            "function",
            guest,
            &["/hello", "/dictionary/{word}"],
            lines,
        );
        Server::dunlin(
            &setup.dunlin,
            &manifest,
            setup.scratch.path(),
            setup.backtraces,
        )
    }

    fn measure(self, setup: &Setup, time: Duration) -> Result<Sample> {
        let server = self.start(setup)?;
        let (path, answer) = self.question();
        server.check_for(path, answer)?;
        let wrk = Wrk {
            program: &setup.wrk,
            scratch: setup.scratch.path(),
            connections: CONNECTIONS,
        };
        let warm = wrk.run(&server.url(), &[path], WARM_UP)?;

        let machine = proc::cpu_of_machine()?;
        let own = proc::cpu_of_self()?;
        let cpu = proc::cpu(server.pid())?;
        let seen = wrk.run(&server.url(), &[path], time)?;
        let cpu = proc::cpu(server.pid())? - cpu;
        let own = proc::cpu_of_self()?.saturating_sub(own);
        let machine = proc::cpu_of_machine()?.saturating_sub(machine);

        let resident = proc::memory(server.pid())?.resident;
        let wall = seen.requests as f64 / seen.rate;
        let server_cores = cpu.as_secs_f64() / wall;
        let sample = Sample {
            cpu_micros: cpu.as_secs_f64() * 1e6 / seen.requests as f64,
            rate: seen.rate,
            p50: seen.p50,
            p99: seen.p99,
            resident,
            server: server_cores,
            wrk: seen.busy,
            others: (machine.as_secs_f64() - own.as_secs_f64()) / wall - server_cores - seen.busy,
        };
        if self.is_dunlin() {
            check_counted(server, warm.requests + seen.requests)?;
        }
        Ok(sample)
    }
}

/// Metrics and log were on: both have every request.
fn check_counted(server: Server, requests: u64) -> Result<()> {
    let metrics = server.metrics()?;
    let ok = metrics.sum("dunlin_invocations_total", &[("outcome", "ok")])?;
    let all = metrics.sum("dunlin_invocations_total", &[])?;
    ensure!(
        ok >= requests as f64,
        "the host counted {ok} good invocations of {requests}"
    );
    // `wrk` breaks off what is under way at its end, twice.
    ensure!(
        all - ok <= 2.0 * CONNECTIONS as f64,
        "the host counted {} bad invocations",
        all - ok
    );
    let dropped = metrics.sum("dunlin_log_dropped_total", &[])?;
    ensure!(
        dropped == 0.0,
        "the host dropped {dropped} lines of its log"
    );
    let lines = server.stop()?.lines;
    ensure!(
        lines >= requests,
        "the host logged {lines} lines for {requests} requests"
    );
    Ok(())
}

/// Runs the comparison and answers its report.
pub fn run(setup: &Setup, plan: &Plan) -> Result<String> {
    let count = plan.contenders.len();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); count];
    for round in 0..plan.rounds {
        // Each round begins with another one, so that none always follows the same.
        for step in 0..count {
            let index = (round + step) % count;
            let contender = plan.contenders[index];
            let sample = contender
                .measure(setup, plan.time)
                .with_context(|| format!("{} failed", contender.label()))?;
            eprintln!(
                "round {} of {}: {}: {:.2} µs, {:.0} requests/s",
                round + 1,
                plan.rounds,
                contender.label(),
                sample.cpu_micros,
                sample.rate,
            );
            samples[index].push(sample);
        }
    }
    Ok(report(plan, &samples))
}

/// The ratios to a server, round by round.
fn ratios(plan: &Plan, samples: &[Vec<Sample>], own: usize, to: Contender) -> Option<Spread> {
    let base = plan.contenders.iter().position(|other| *other == to)?;
    let pairs = samples[own].iter().zip(&samples[base]);
    Some(Spread::of(
        pairs.map(|(own, base)| own.cpu_micros / base.cpu_micros),
    ))
}

fn report(plan: &Plan, samples: &[Vec<Sample>]) -> String {
    let mut rows = Vec::new();
    let mut targets = Vec::new();
    for (index, contender) in plan.contenders.iter().enumerate() {
        let of = |figure: fn(&Sample) -> f64| Spread::of(samples[index].iter().map(figure));
        let to_hyper = ratios(plan, samples, index, Contender::BareHyper);
        let to_serve = ratios(plan, samples, index, Contender::ServeTuned);
        let shown = |ratio: Option<Spread>| {
            ratio.map_or_else(|| "–".to_owned(), |ratio| ratio.with_range(2))
        };
        rows.push(vec![
            contender.label().to_owned(),
            of(|sample| sample.cpu_micros).with_range(1),
            shown(to_hyper),
            shown(to_serve),
            format!("{:.0}", of(|sample| sample.rate).median),
            format!("{:.2}", of(|sample| millis(sample.p50)).median),
            format!("{:.2}", of(|sample| millis(sample.p99)).median),
            format!(
                "{:.0}",
                of(|sample| sample.resident as f64).median / f64::from(1 << 20)
            ),
            format!("{:.2}", of(|sample| sample.server).median),
            format!("{:.2}", of(|sample| sample.wrk).median),
        ]);
        for (bound, other) in contender.targets() {
            if let Some(ratio) = ratios(plan, samples, index, *other) {
                targets.push(target_row(
                    contender.label(),
                    format!("≤ {bound} × {}", other.label()),
                    ratio.with_range(2),
                    ratio.median <= *bound,
                ));
            }
        }
    }
    let header = [
        "server",
        "CPU µs/request",
        "× bare hyper",
        "× tuned serve",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
        "server, cores",
        "wrk, cores",
    ];
    format!(
        "{}\n{}\n{}",
        table(&header, &rows),
        table(&TARGET_HEADER, &targets),
        remarks(plan, samples)
    )
}

/// Whether `wrk` held the servers up, and what else ran.
fn remarks(plan: &Plan, samples: &[Vec<Sample>]) -> String {
    let mut text = String::new();
    for (contender, samples) in plan.contenders.iter().zip(samples) {
        let wrk = Spread::of(samples.iter().map(|sample| sample.wrk)).median;
        if wrk >= WRK_IS_FULL {
            text.push_str(&format!(
                "`wrk` was the bottleneck of {}: it used {wrk:.2} of its one core. Its requests/s \
                 and latencies are `wrk`'s; its CPU per request stands.\n",
                contender.label()
            ));
        }
    }
    if text.is_empty() {
        text.push_str("`wrk` was nobody's bottleneck.\n");
    }
    let others = Spread::of(samples.iter().flatten().map(|sample| sample.others));
    text.push_str(&format!(
        "Everything else on the machine used {:.2} cores (at most {:.2}) meanwhile{}.\n",
        others.median,
        others.max,
        if others.max > MUCH_ELSE {
            ": the machine was not quiet, measure again"
        } else {
            ""
        }
    ));
    text
}
