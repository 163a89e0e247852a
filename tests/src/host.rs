//! The real binary, started and ended by a test.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, Response};
use crate::metrics::Metrics;
use crate::{PATIENCE, build, within};

/// How much of the log a test that fails prints.
const PRINTED_LINES: usize = 60;

/// How a host is started.
#[derive(Debug, Default)]
pub struct Builder {
    manifest: String,
    files: Vec<(String, Vec<u8>)>,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    folder: Option<PathBuf>,
    starter: Vec<String>,
}

/// How a host that did not start ended.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The exit code.
    pub code: i32,
    /// What it said.
    pub stderr: String,
    /// What it logged.
    pub stdout: String,
}

/// A host that serves. Dropped without [`Host::stop`] it is killed.
#[derive(Debug)]
pub struct Host {
    child: Child,
    /// Where HTTP is served.
    pub http: Client,
    /// Where the API is served.
    pub admin: Client,
    /// Where health and metrics are served.
    pub metrics: Client,
    folder: TempDir,
    manifest: PathBuf,
    log: Arc<Lines<(String, Value)>>,
    stderr: Arc<Lines<String>>,
}

/// Lines that a thread reads.
#[derive(Debug)]
struct Lines<T> {
    lines: Mutex<(Vec<T>, Closed)>,
    more: Condvar,
}

/// Whether all lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    No,
    Yes,
}

impl<T: Clone + Send + 'static> Lines<T> {
    fn read(from: impl Read + Send + 'static, parse: fn(&str) -> T) -> Arc<Self> {
        let lines = Arc::new(Self {
            lines: Mutex::new((Vec::new(), Closed::No)),
            more: Condvar::new(),
        });
        let shared = Arc::clone(&lines);
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line);
                shared.lock().0.push(parse(text.trim_end_matches('\n')));
                shared.more.notify_all();
                line.clear();
            }
            shared.lock().1 = Closed::Yes;
            shared.more.notify_all();
        });
        lines
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<T>, Closed)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<T> {
        self.lock().0.clone()
    }

    /// The first that fits, now or until the deadline.
    fn wait(&self, deadline: Instant, fits: impl Fn(&T) -> bool) -> Option<T> {
        let mut seen = 0;
        let mut lines = self.lock();
        loop {
            if let Some(line) = lines.0[seen..].iter().find(|line| fits(line)) {
                return Some(line.clone());
            }
            seen = lines.0.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.1 == Closed::Yes {
                return None;
            }
            lines = self
                .more
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Builder {
    /// Appends to the manifest. Component paths may be absolute; other paths
    /// count from the folder of [`Self::file`].
    #[must_use]
    pub fn manifest(mut self, text: impl AsRef<str>) -> Self {
        self.manifest += text.as_ref();
        self.manifest.push('\n');
        self
    }

    /// Adds lines to the table `[host]`, whether the manifest has one yet or not.
    #[must_use]
    pub fn host(mut self, lines: &str) -> Self {
        const TABLE: &str = "[host]\n";
        match self.manifest.find(TABLE) {
            Some(at) => self
                .manifest
                .insert_str(at + TABLE.len(), &format!("{lines}\n")),
            None => self.manifest.insert_str(0, &format!("{TABLE}{lines}\n")),
        }
        self
    }

    /// Appends a function with a component, further keys of its table as TOML,
    /// and the routes `/NAME` and `/NAME/{*rest}` for every method.
    #[must_use]
    pub fn function(self, name: &str, component: &Path, keys: &str) -> Self {
        let component = component.display();
        self.manifest(format!(
            "[function.{name}]\ncomponent = {component:?}\n{keys}\n\
             [[function.{name}.http]]\npath = \"/{name}\"\n\
             [[function.{name}.http]]\npath = \"/{name}/{{*rest}}\"\n",
            component = component.to_string()
        ))
    }

    /// Serves a manifest that exists instead of one written by the test. The
    /// state directory is still the test's own.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Writes a file beside the manifest.
    #[must_use]
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), contents.into()));
        self
    }

    /// Adds arguments to `dunlin up`; they win over the harness's own.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the host's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets another program start it, that gets the host's command line after these words
    /// and becomes the host.
    #[must_use]
    pub fn started_by<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.starter = words.into_iter().map(Into::into).collect();
        self
    }

    fn spawn(&self) -> (TempDir, PathBuf, Child) {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let manifest = match &self.folder {
            Some(folder) => folder.join("dunlin.toml"),
            None => {
                let path = folder.path().join("dunlin.toml");
                std::fs::write(&path, &self.manifest).expect("the folder is writable");
                path
            }
        };
        for (name, contents) in &self.files {
            std::fs::write(folder.path().join(name), contents).expect("the folder is writable");
        }
        let mut command = match self.starter.split_first() {
            None => Command::new(build::dunlin()),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(build::dunlin());
                command
            }
        };
        command.arg("up").arg(&manifest).args(&self.args);
        // What a test gives itself must not be given twice.
        let state = folder.path().join("state").display().to_string();
        let own = [
            ("--http", "127.0.0.1:0"),
            ("--admin", "127.0.0.1:0"),
            ("--state", &state),
        ];
        for (flag, value) in own {
            if !self.args.iter().any(|arg| arg == flag) {
                command.args([flag, value]);
            }
        }
        command
            .current_dir(folder.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in [
            "DUNLIN_HTTP",
            "DUNLIN_ADMIN",
            "DUNLIN_METRICS",
            "DUNLIN_STATE",
        ] {
            if !self.environment.iter().any(|(own, _)| own == name) {
                command.env_remove(name);
            }
        }
        let child = command.spawn().expect("the binary runs");
        (folder, manifest, child)
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Host {
        self.try_start().unwrap_or_else(|failure| {
            panic!(
                "the host does not start, exit {}: {}",
                failure.code, failure.stderr
            )
        })
    }

    /// Starts it, and waits until it listens or has ended: for what some
    /// machines cannot do.
    ///
    /// # Errors
    /// If it does not start.
    ///
    /// # Panics
    /// If it does neither in time.
    #[track_caller]
    pub fn try_start(self) -> Result<Host, Failure> {
        let (folder, manifest, mut child) = self.spawn();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let log = Lines::read(stdout, |line| {
            let parsed = serde_json::from_str(line);
            let value = parsed.unwrap_or_else(|_| serde_json::json!({ "raw": line }));
            (line.to_owned(), value)
        });
        let stderr = Lines::read(stderr, str::to_owned);
        // With `source` it builds first: that takes what it takes.
        let deadline = Instant::now() + 10 * PATIENCE;
        let first = stderr.wait(deadline, |_| true);
        let Some([http, admin, metrics]) = first.as_deref().and_then(addresses) else {
            return Err(ended(child, &log, &stderr, |(text, _)| text.clone()));
        };
        Ok(Host {
            child,
            http: Client::new(http),
            admin: Client::new(admin),
            metrics: Client::new(metrics),
            folder,
            manifest,
            log,
            stderr,
        })
    }

    /// Starts it, and waits until it has ended.
    ///
    /// # Panics
    /// If it serves, or does not end.
    #[must_use]
    #[track_caller]
    pub fn start_expecting_failure(self) -> Failure {
        match self.try_start() {
            Ok(host) => panic!("the host should have refused to start: {:?}", host.stderr()),
            Err(failure) => failure,
        }
    }
}

/// What a host that does not serve said, when it has ended.
#[track_caller]
fn ended<T: Clone + Send + 'static>(
    mut child: Child,
    stdout: &Lines<T>,
    stderr: &Lines<String>,
    text: fn(&T) -> String,
) -> Failure {
    let status = wait(&mut child, PATIENCE);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    // All that it said is read when the pipes are closed.
    let deadline = Instant::now() + PATIENCE;
    stdout.wait(deadline, |_| false);
    stderr.wait(deadline, |_| false);
    let stderr = stderr.all().join("\n");
    let Some(status) = status else {
        panic!("the host neither listens nor ends: {stderr}");
    };
    Failure {
        code: status.code().unwrap_or(-1),
        stderr,
        stdout: stdout.all().iter().map(text).collect::<Vec<_>>().join("\n"),
    }
}

fn addresses(line: &str) -> Option<[SocketAddr; 3]> {
    let rest = line.strip_prefix("listening ")?;
    let find = |key: &str| {
        rest.split(' ')
            .find_map(|part| part.strip_prefix(key)?.strip_prefix("=http://"))
            .and_then(|address| address.parse().ok())
    };
    Some([find("http")?, find("admin")?, find("metrics")?])
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Host {
    /// How one is started.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The folder with the manifest and [`Builder::file`]s.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The id of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a GET to the HTTP trigger.
    #[must_use]
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.http.get(target)
    }

    /// Sends a POST to the HTTP trigger.
    #[must_use]
    #[track_caller]
    pub fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.http.post(target, body)
    }

    /// What was logged until now. A line that is no JSON is `{"raw": …}`.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        let lines = self.log.lock();
        lines.0.iter().map(|(_, value)| value.clone()).collect()
    }

    /// What was logged until now, as it stands on stdout.
    #[must_use]
    pub fn log_text(&self) -> String {
        let lines = self.log.lock();
        let texts: Vec<&str> = lines.0.iter().map(|(text, _)| text.as_str()).collect();
        texts.join("\n")
    }

    /// The lines that it said on stderr until now.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.all()
    }

    /// The first log line that fits, now or soon.
    ///
    /// # Panics
    /// If none comes.
    #[track_caller]
    pub fn wait_for_log(&self, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_log_within(PATIENCE, fits)
    }

    /// As [`Self::wait_for_log`], with another deadline.
    ///
    /// # Panics
    /// If none comes.
    #[track_caller]
    pub fn wait_for_log_within(&self, limit: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        self.log
            .wait(Instant::now() + limit, |(_, value)| fits(value))
            .unwrap_or_else(|| panic!("no such line in the log within {limit:?}"))
            .1
    }

    /// The record of an invocation.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn record(&self, request_id: &str) -> Value {
        self.wait_for_log(|line| line["kind"] == "invocation" && line["request_id"] == request_id)
    }

    /// The lines that the guest wrote in one invocation, which is over.
    ///
    /// # Panics
    /// If the invocation is not over.
    #[must_use]
    #[track_caller]
    pub fn guest_log(&self, request_id: &str) -> Vec<Value> {
        // A guest stays on the core that it began on, so its lines come before
        // its record.
        self.record(request_id);
        self.log()
            .into_iter()
            .filter(|line| line["kind"] == "log" && line["request_id"] == request_id)
            .collect()
    }

    /// A scrape.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn scrape(&self) -> Metrics {
        let response = self.metrics.get("/metrics");
        assert_eq!(response.status, 200, "{response:?}");
        Metrics::parse(response.text())
    }

    /// The sum of the series that have these labels: see [`Metrics::get`].
    #[must_use]
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.scrape().get(name, labels)
    }

    /// Waits until a metric has a value.
    ///
    /// # Panics
    /// If it does not get it.
    #[track_caller]
    pub fn wait_for_metric(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        fits: impl Fn(f64) -> bool,
    ) -> f64 {
        let mut last = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(name, labels);
            if let Some(value) = value.filter(|value| fits(*value)) {
                return value;
            }
            if value.is_some() {
                last = value;
            }
            assert!(Instant::now() < deadline, "{name}{labels:?} stays {last:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// If the process has ended.
    #[must_use]
    #[track_caller]
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the process lives");
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok())
            .expect("a live process has resident memory");
        kib * 1024
    }

    /// Processor time that it has used.
    ///
    /// # Panics
    /// If the process has ended.
    #[must_use]
    #[track_caller]
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .expect("the process lives");
        // From the third field on: the second is the name, in parentheses.
        let (_, fields) = stat.rsplit_once(") ").expect("a process has a name");
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        // The kernel shows hundredths, whatever it counts in.
        Duration::from_millis(ticks * 10)
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process has ended.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("process ids are small");
        let pid = Pid::from_raw(pid).expect("a child's id is not 0");
        kill_process(pid, signal).expect("the child is not waited for yet");
    }

    /// Waits for the process to end by itself, after a signal of the test's.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        wait(&mut self.child, limit)
            .unwrap_or_else(|| panic!("the host did not end within {limit:?}"))
    }

    /// Ends it by SIGTERM, as a supervisor does, and answers its log.
    ///
    /// # Panics
    /// If it does not end in time with the exit code 0.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Value> {
        self.signal(Signal::TERM);
        let status = self.wait_for_exit(PATIENCE);
        assert_eq!(status.code(), Some(0), "{status}");
        self.log.wait(Instant::now() + PATIENCE, |_| false);
        self.log()
    }

    /// Waits until nothing runs, and nothing waits for admission.
    ///
    /// # Panics
    /// If something goes on.
    #[track_caller]
    pub fn wait_until_quiet(&self) {
        within(PATIENCE, "no invocation runs", || {
            let metrics = self.scrape();
            let running = metrics
                .get("dunlin_invocations_running", &[])
                .unwrap_or(0.0);
            let waiting = metrics.get("dunlin_admission_waiting", &[]).unwrap_or(0.0);
            (running == 0.0 && waiting == 0.0).then_some(())
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Only this child, by its handle; after `stop` it is gone.
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprint!("{}", self.report(ended));
        }
    }
}

impl Host {
    fn report(&self, ended: Option<ExitStatus>) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "---- the host ({})",
            match ended {
                Some(status) => format!("had ended: {status}"),
                None => "was alive".to_owned(),
            }
        );
        let manifest = std::fs::read_to_string(&self.manifest).unwrap_or_default();
        let _ = writeln!(out, "---- manifest\n{manifest}---- stderr");
        for line in self.stderr() {
            let _ = writeln!(out, "{line}");
        }
        let log = self.log();
        let skipped = log.len().saturating_sub(PRINTED_LINES);
        let _ = writeln!(out, "---- log, without its first {skipped} lines");
        for line in &log[skipped..] {
            let text: String = line.to_string().chars().take(500).collect();
            let _ = writeln!(out, "{text}");
        }
        out
    }
}
