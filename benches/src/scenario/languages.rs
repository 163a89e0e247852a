//! Functions in other languages: how large they are, how long it takes until they serve, and what
//! a request takes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use dunlin_tests::Language;

use super::Setup;
use crate::build;
use crate::client::{Kept, Request};
use crate::manifest::Manifest;
use crate::proc;
use crate::server::Server;
use crate::stats::{Spread, millis, percentile, table};

/// How long the host is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two requests, so that the next instance is ready again.
const PAUSE: Duration = Duration::from_millis(20);

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Starts of each kind, for each function.
    pub runs: usize,
    /// Requests of each kind, for each function.
    pub requests: usize,
}

/// A function, and a request that it answers with 200.
struct Candidate {
    name: &'static str,
    component: PathBuf,
    /// The manifest, with what follows the line of the component between its two parts.
    manifest: (String, String),
    request: &'static str,
    /// What the answer has in it.
    expected: &'static str,
}

/// How instances are had.
#[derive(Clone, Copy)]
enum Instances {
    /// Made before their requests come, each for one.
    Ready,
    /// Made when their requests have come.
    OnDemand,
    /// One for all requests.
    Reused,
}

impl Instances {
    fn keys(self) -> &'static str {
        match self {
            Self::Ready => "",
            Self::OnDemand => "provisioned = 0",
            Self::Reused => "isolation = \"reuse\"",
        }
    }
}

fn candidates(setup: &Setup) -> Result<Vec<Candidate>> {
    let mut all = vec![candidate(
        "Rust: `hello`",
        &setup.guests.hello,
        format!(
            "[function.hello]\ncomponent = {:?}\n\n[[function.hello.http]]\npath = \"/hello\"\n",
            setup.guests.hello
        ),
        "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n",
        "Hello, world!",
    )?];
    for language in Language::ALL {
        let component = language
            .build(&build::target_dir())
            .map_err(|e| anyhow!(e))?;
        let manifest = language.manifest(&component).map_err(|e| anyhow!(e))?;
        let (name, request, expected) = match language {
            Language::C => (
                "C: `c-iban`",
                "GET /iban?number=GB82WEST12345698765432 HTTP/1.1\r\nhost: a\r\n\r\n",
                "\"valid\":true",
            ),
            Language::JavaScript => (
                "JavaScript, StarlingMonkey: `javascript-webhook`",
                PUSH,
                PUSHED,
            ),
            Language::QuickJs => ("JavaScript, QuickJS: `javascript-webhook`", PUSH, PUSHED),
            Language::Python => (
                "Python: `python-statistics`",
                "POST /statistics?column=price HTTP/1.1\r\nhost: a\r\ncontent-length: 29\r\n\r\n\
                 thing,price\nkite,42\nboat,8.5\n",
                "\"mean\": 25.25",
            ),
        };
        all.push(candidate(name, &component, manifest, request, expected)?);
    }
    Ok(all)
}

/// A webhook with one commit.
const PUSH: &str = "POST /webhook HTTP/1.1\r\nhost: a\r\nx-github-event: push\r\n\
    content-length: 143\r\n\r\n\
    {\"ref\":\"refs/heads/main\",\"repository\":{\"full_name\":\"ada/kites\"},\
    \"pusher\":{\"name\":\"ada\"},\"commits\":[{\"id\":\"0123456789\",\"message\":\"Fix a kite\"}]}";
const PUSHED: &str = "ada pushed 1 commit to main of ada/kites";

fn candidate(
    name: &'static str,
    component: &Path,
    manifest: String,
    request: &'static str,
    expected: &'static str,
) -> Result<Candidate> {
    let line = format!("component = {component:?}\n");
    let (before, after) = manifest
        .split_once(&line)
        .with_context(|| format!("the manifest of {name} has no line `{line}`"))?;
    Ok(Candidate {
        name,
        component: component.to_owned(),
        manifest: (format!("{before}{line}"), after.to_owned()),
        request,
        expected,
    })
}

impl Candidate {
    fn start(&self, setup: &Setup, folder: &Path, instances: Instances) -> Result<Server> {
        let (before, after) = &self.manifest;
        let manifest = Manifest::new(&[&format!("memory-reset = \"{}\"", setup.memory_reset)])
            .with(&format!("{before}{}\n{after}", instances.keys()));
        Server::dunlin(&setup.dunlin, &manifest, folder, setup.backtraces)
    }

    /// Asks once, and answers how long that took, from the request to the whole answer.
    fn ask(&self, kept: &mut Kept, server: &Server) -> Result<Duration> {
        let request = Request {
            address: server.http,
            bytes: self.request.as_bytes().to_vec(),
        };
        let began = Instant::now();
        let answer = kept.ask(&request.bytes)?;
        let took = began.elapsed();
        let body = String::from_utf8_lossy(&answer.body);
        ensure!(
            answer.status == 200 && body.contains(self.expected),
            "{} answered {}: {body}",
            self.name,
            answer.status
        );
        Ok(took)
    }

    /// What requests take, one after another, the first of the host left out.
    fn requests(
        &self,
        setup: &Setup,
        folder: &Path,
        instances: Instances,
        count: usize,
    ) -> Result<Vec<Duration>> {
        let server = self.start(setup, folder, instances)?;
        let mut kept = Kept::open(server.http)?;
        self.ask(&mut kept, &server)?;
        let mut took = Vec::new();
        for _ in 0..count {
            std::thread::sleep(PAUSE);
            took.push(self.ask(&mut kept, &server)?);
        }
        server.stop()?;
        Ok(took)
    }

    fn measure(&self, setup: &Setup, plan: Plan) -> Result<Measured> {
        eprintln!("{}", self.name);
        let mut cold = Vec::new();
        let mut cached = Vec::new();
        let mut first = Vec::new();
        let mut code = 0;
        let mut resident = 0;
        let mut memory = 0.0;
        for run in 0..plan.runs {
            let state = tempfile::tempdir_in(setup.scratch.path())?;
            let server = self.start(setup, state.path(), Instances::Ready)?;
            cold.push(millis(server.started_in));
            server.stop()?;
            code = machine_code(&state.path().join("state/compiled"))?;

            let server = self.start(setup, state.path(), Instances::Ready)?;
            cached.push(millis(server.started_in));
            if run == 0 {
                std::thread::sleep(SETTLE);
                resident = proc::memory(server.pid())?.resident;
            }
            first.push(millis(self.ask(&mut Kept::open(server.http)?, &server)?));
            let metrics = server.metrics()?;
            memory = metrics.sum("dunlin_invocation_memory_bytes_sum", &[])?;
            server.stop()?;
        }
        let state = tempfile::tempdir_in(setup.scratch.path())?;
        let requests = |instances| self.requests(setup, state.path(), instances, plan.requests);
        Ok(Measured {
            component: std::fs::metadata(&self.component)?.len(),
            code,
            memory,
            resident,
            cold: Spread::of(cold),
            cached: Spread::of(cached),
            first: Spread::of(first),
            ready: requests(Instances::Ready)?,
            on_demand: requests(Instances::OnDemand)?,
            reused: requests(Instances::Reused)?,
        })
    }
}

/// Of one function.
struct Measured {
    component: u64,
    code: u64,
    /// What its one invocation had of memory.
    memory: f64,
    /// The whole host, idle, with this function alone.
    resident: u64,
    cold: Spread,
    cached: Spread,
    first: Spread,
    ready: Vec<Duration>,
    on_demand: Vec<Duration>,
    reused: Vec<Duration>,
}

/// The bytes of machine code in a cache.
fn machine_code(cache: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(cache)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|end| end == "cwasm") {
            bytes += entry.metadata()?.len();
        }
    }
    ensure!(bytes > 0, "{} has no machine code", cache.display());
    Ok(bytes)
}

fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1e6 => format!("{:.0} KB", bytes / 1e3),
        bytes => format!("{:.1} MB", bytes / 1e6),
    }
}

/// The median, and the 99th percentile.
fn latency(mut took: Vec<Duration>) -> String {
    format!(
        "{:.2} ({:.2})",
        millis(percentile(&mut took, 0.5)),
        millis(percentile(&mut took, 0.99))
    )
}

/// Runs it and answers its report.
pub fn run(setup: &Setup, plan: Plan) -> Result<String> {
    let mut sizes = Vec::new();
    let mut times = Vec::new();
    for candidate in candidates(setup)? {
        let seen = candidate.measure(setup, plan)?;
        sizes.push(vec![
            candidate.name.to_owned(),
            size(seen.component as f64),
            size(seen.code as f64),
            size(seen.memory),
            size(seen.resident as f64),
        ]);
        times.push(vec![
            candidate.name.to_owned(),
            seen.cold.with_range(0),
            seen.cached.with_range(1),
            seen.first.with_range(2),
            latency(seen.ready),
            latency(seen.on_demand),
            latency(seen.reused),
        ]);
    }
    let sizes = table(
        &[
            "function",
            "component",
            "machine code",
            "memory of an invocation",
            "host, idle",
        ],
        &sizes,
    );
    let times = table(
        &[
            "function",
            "start, nothing compiled",
            "start, from the cache",
            "first answer",
            "ready instance",
            "made on demand",
            "reused",
        ],
        &times,
    );
    Ok(format!(
        "{sizes}\nMilliseconds. {} starts of each kind: median, least and most, from the process to \
         the line that says where it listens. First answer: of the host after its start, ready \
         instances waiting. The last three: {} requests one after another, median and 99th \
         percentile; what an instance takes to make is the difference of the first two of them.\n\n\
         {times}",
        plan.runs, plan.requests
    ))
}
