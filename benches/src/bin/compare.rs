//! The load comparison against peers, and the host's other promises that a load can test.
//! `docs/benchmarks.md` says how to run it and how to read it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum as _};
use dunlin_benches::build;
use dunlin_benches::proc;
use dunlin_benches::scenario::load::Contender;
use dunlin_benches::scenario::{
    Setup, density, events, greedy, languages, load, neighbour, startup, stream,
};

/// Measure the host against its peers and its promises; the report goes to stdout, in Markdown
#[derive(Debug, Parser)]
struct Cli {
    /// The host; by default the one of this build
    #[arg(long, global = true, value_name = "PROGRAM")]
    dunlin: Option<PathBuf>,

    /// The wasmtime CLI
    #[arg(
        long,
        global = true,
        value_name = "PROGRAM",
        default_value = "wasmtime"
    )]
    wasmtime: PathBuf,

    /// The load generator
    #[arg(long, global = true, value_name = "PROGRAM", default_value = "wrk")]
    wrk: PathBuf,

    /// Take programs and guests as they were built before
    #[arg(long, global = true)]
    no_build: bool,

    /// Run the host with RUST_BACKTRACE=1, which must not matter
    #[arg(long, global = true)]
    backtraces: bool,

    /// How the host resets memory, where the scenario leaves it open
    #[arg(long, global = true, default_value = "auto", value_parser = ["auto", "memset", "pagemap"])]
    memory_reset: String,

    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// CPU per request of the same hello through several servers
    Load {
        /// Rounds, in each of which every server is loaded once
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds per server and round, after a warm-up
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Only these servers
        #[arg(long, value_delimiter = ',')]
        servers: Vec<Contender>,
    },
    /// Start of the process to the first answer, and resident memory
    Startup {
        /// Starts that are measured
        #[arg(long, default_value_t = 11)]
        runs: usize,
        /// Seconds of load before the memory is read
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Thousands of functions: memory while they rest, and first requests to them
    Density {
        /// Functions that are deployed
        #[arg(long, default_value_t = 5000)]
        functions: usize,
        /// Components that they have; each is compiled once
        #[arg(long, default_value_t = 200)]
        components: usize,
        /// First requests to each component that has rested
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// A function beside one that spins in 500 invocations
    Neighbour(Paired),
    /// Deadlines of guests that loop over calls of the host, and their neighbours
    Greedy(Paired),
    /// A large body through a function that answers with it
    Stream {
        /// Rounds, in each of which host and reference are measured once
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// MiB that go through
        #[arg(long, default_value_t = 100)]
        mebibytes: u64,
    },
    /// Durable events: queues against the bare disk, deep backlogs, idle triggers
    Events {
        /// Rounds, in each of which the host is measured beside its reference
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds per measurement
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Only these parts
        #[arg(long, value_delimiter = ',')]
        parts: Vec<events::Part>,
    },
    /// Functions in other languages: sizes, starts, and what a request takes
    Languages {
        /// Starts of each kind, for each function
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Requests of each kind, for each function
        #[arg(long, default_value_t = 200)]
        requests: usize,
    },
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Paired {
    /// Pairs of a quiet and a loaded measurement
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Seconds per measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

impl From<Paired> for neighbour::Plan {
    fn from(paired: Paired) -> Self {
        Self {
            rounds: paired.rounds,
            time: Duration::from_secs(paired.seconds),
        }
    }
}

fn version_of(program: &std::path::Path) -> String {
    Command::new(program)
        .arg("--version")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// What was measured, for the head of the report.
fn head(setup: &Setup) -> String {
    let revision = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(build::root())
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    format!(
        "{}; revision {revision}; {}; {}{}\n",
        proc::machine(),
        version_of(&setup.dunlin),
        version_of(&setup.wasmtime),
        if setup.backtraces {
            "; the host with RUST_BACKTRACE=1"
        } else {
            ""
        }
    )
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let Cli {
        dunlin,
        wasmtime,
        wrk,
        no_build,
        backtraces,
        memory_reset,
        scenario,
    } = cli;
    if !no_build {
        build::programs()?;
    }
    let setup = Setup {
        dunlin: match dunlin {
            Some(dunlin) => dunlin,
            None => build::program("dunlin")?,
        },
        bare_hyper: build::program("bare-hyper")?,
        wasmtime,
        wrk,
        guests: build::guests(!no_build)?,
        scratch: tempfile::tempdir().context("cannot make a folder for the host's state")?,
        memory_reset,
        backtraces,
    };
    let head = head(&setup);
    let report = match scenario {
        Scenario::Load {
            rounds,
            seconds,
            servers,
        } => {
            let contenders = if servers.is_empty() {
                Contender::value_variants().to_vec()
            } else {
                servers
            };
            let plan = load::Plan {
                rounds,
                time: Duration::from_secs(seconds),
                contenders,
            };
            load::run(&setup, &plan)?
        }
        Scenario::Startup { runs, seconds } => startup::run(
            &setup,
            startup::Plan {
                runs,
                load: Duration::from_secs(seconds),
            },
        )?,
        Scenario::Density {
            functions,
            components,
            rounds,
        } => density::run(
            &setup,
            density::Plan {
                functions,
                components,
                rounds,
            },
        )?,
        Scenario::Neighbour(paired) => neighbour::run(&setup, paired.into())?,
        Scenario::Greedy(paired) => greedy::run(&setup, paired.into())?,
        Scenario::Stream { rounds, mebibytes } => {
            let bytes = mebibytes << 20;
            stream::run(&setup, stream::Plan { rounds, bytes })?
        }
        Scenario::Events {
            rounds,
            seconds,
            parts,
        } => events::run(
            &setup,
            &events::Plan {
                rounds,
                time: Duration::from_secs(seconds),
                parts: match parts.is_empty() {
                    true => events::Part::value_variants().to_vec(),
                    false => parts,
                },
            },
        )?,
        Scenario::Languages { runs, requests } => {
            languages::run(&setup, languages::Plan { runs, requests })?
        }
    };
    print_report(&format!("{head}\n{report}"))
}

fn print_report(report: &str) -> Result<()> {
    use std::io::Write as _;
    std::io::stdout()
        .write_all(report.as_bytes())
        .context("cannot print the report")
}
