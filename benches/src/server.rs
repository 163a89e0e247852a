//! Starting and stopping servers.
//!
//! What a server writes to its outputs goes into pipes that threads of this process read, as a
//! service manager would: a log that nobody takes would be cheaper than one in earnest.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::client::{self, Endpoint};
use crate::manifest::Manifest;
use crate::prometheus::Metrics;

/// What the bare server and the host say, and what `wasmtime serve` says, when they are ready.
const READY: [&str; 2] = ["listening http=http://", "Serving HTTP on http://"];
/// Compiling takes its time on a slow machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// Variables that change what a server does for each request. Without them all servers are at
/// their best; `--backtraces` puts the first back.
const QUIET: [&str; 3] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RUST_LOG"];

/// What was read from a server's standard output.
#[derive(Debug, Default)]
struct Log {
    lines: AtomicU64,
    /// The lines that end an invocation by its deadline.
    timeouts: Mutex<Vec<Value>>,
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// When its process was started.
    pub started: Instant,
    /// How long it took from then until it said that it listens.
    pub started_in: Duration,
    /// The address it serves HTTP on.
    pub http: SocketAddr,
    /// The address of the host's APIs.
    admin: Option<SocketAddr>,
    /// The address of the host's metrics.
    metrics: Option<SocketAddr>,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
}

/// What a server did in all.
#[derive(Debug)]
pub struct Ended {
    /// Lines that it wrote to standard output.
    pub lines: u64,
}

fn address(line: &str, after: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(after)?;
    rest.split(|c: char| c.is_whitespace() || c == '/')
        .next()?
        .parse()
        .ok()
}

fn read_log(output: impl Read, log: &Log) {
    let mut output = BufReader::with_capacity(1 << 20, output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        log.lines.fetch_add(1, Ordering::Relaxed);
        let is_timeout = line.windows(9).any(|piece| piece == b"\"timeout\"");
        if is_timeout && let Ok(value) = serde_json::from_slice(&line) {
            log.timeouts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(value);
        }
    }
}

impl Server {
    /// Starts one and waits until it listens.
    pub fn start(command: &mut Command) -> Result<Self> {
        for name in QUIET {
            command.env_remove(name);
        }
        Self::start_as_is(command)
    }

    fn start_as_is(command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let log = Arc::new(Log::default());
        let stdout = child.stdout.take().context("there is no stdout")?;
        let stderr = child.stderr.take().context("there is no stderr")?;
        let (said, says) = mpsc::channel();
        let readers = vec![
            std::thread::spawn({
                let log = Arc::clone(&log);
                move || read_log(stdout, &log)
            }),
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    // After the first lines nobody listens.
                    let _ = said.send(line);
                }
            }),
        ];
        let mut server = Self {
            child,
            started,
            started_in: Duration::ZERO,
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: None,
            metrics: None,
            log,
            readers,
        };
        let mut heard = String::new();
        loop {
            let line = match says.recv_timeout(START_TIMEOUT) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{command:?} did not listen in time: {heard}")
                }
                Err(RecvTimeoutError::Disconnected) => bail!("{command:?} ended: {heard}"),
            };
            if let Some(http) = READY.iter().find_map(|ready| address(&line, ready)) {
                server.http = http;
                server.started_in = started.elapsed();
                server.admin = address(&line, "admin=http://");
                server.metrics = address(&line, "metrics=http://");
                return Ok(server);
            }
            heard.push_str(&line);
            heard.push('\n');
        }
    }

    /// Starts the bare server.
    pub fn bare_hyper(program: &Path) -> Result<Self> {
        Self::start(&mut Command::new(program))
    }

    /// Starts `wasmtime serve` with these settings. Rust's standard library imports `wasi:cli`,
    /// which it does not give unless told to.
    pub fn wasmtime(program: &Path, component: &Path, settings: &[&str]) -> Result<Self> {
        Self::start(
            Command::new(program)
                .args(["serve", "-Scli", "--addr=127.0.0.1:0"])
                .args(settings)
                .arg(component),
        )
    }

    /// Starts the host.
    pub fn dunlin(
        program: &Path,
        manifest: &Manifest,
        folder: &Path,
        backtraces: bool,
    ) -> Result<Self> {
        let file = manifest.write(folder, "dunlin")?;
        let mut command = Command::new(program);
        command
            .arg("up")
            .arg(file)
            .args([
                "--no-build",
                "--http=127.0.0.1:0",
                "--admin=127.0.0.1:0",
                "--metrics=127.0.0.1:0",
            ])
            .arg("--state")
            .arg(folder.join("state"));
        if backtraces {
            Self::start_as_is(command.env("RUST_BACKTRACE", "1"))
        } else {
            Self::start(&mut command)
        }
    }

    /// A path on it.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Endpoint {
        Endpoint::new(self.http, path)
    }

    /// Its address as a URL, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The id of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the host's APIs are.
    pub fn admin(&self) -> Result<SocketAddr> {
        self.admin.context("this server has no admin address")
    }

    /// Where the host's metrics are.
    pub fn metrics_endpoint(&self) -> Result<Endpoint> {
        let address = self.metrics.context("this server has no metrics")?;
        Ok(Endpoint::new(address, "/metrics"))
    }

    /// The host's metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(&self.metrics_endpoint()?)
    }

    /// Takes the lines of the log that ended by a deadline so far.
    #[must_use]
    pub fn take_timeouts(&self) -> Vec<Value> {
        std::mem::take(
            &mut self
                .log
                .timeouts
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Checks that it greets.
    pub fn check(&self, path: &str) -> Result<()> {
        self.check_for(path, "Hello, world!\n")
    }

    /// A request to this path is answered with this body.
    pub fn check_for(&self, path: &str, body: &str) -> Result<()> {
        let answer = client::get(&self.endpoint(path))?;
        ensure!(
            answer.status == 200 && answer.body == body.as_bytes(),
            "{path} answered {} and {:?}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        Ok(())
    }

    /// Ends it, and reads its log to the end.
    pub fn stop(mut self) -> Result<Ended> {
        if let Some(pid) = Pid::from_raw(i32::try_from(self.pid())?) {
            kill_process(pid, Signal::TERM).context("the server was gone before its end")?;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            ensure!(
                Instant::now() < deadline,
                "the server did not end in {STOP_TIMEOUT:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Ok(Ended {
            lines: self.log.lines.load(Ordering::Relaxed),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is left of it, whatever went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
