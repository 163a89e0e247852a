//! The operator's configuration: the manifest `dunlin.toml` and the command line.
//!
//! The manifest is read as a tree that knows its lines ([`document`]), and checked into
//! [`Config`], which is split by subsystem so that each sees its part only. Every problem
//! is found and reported at once ([`Problems`]), before anything listens.
//!
//! - The command line wins over the manifest, the manifest over the defaults here.
//! - A key that is unknown is refused, so that none is ignored.
//! - The process environment is read in `main` and comes in as [`Variables`].
//! - The value of a secret is in no message and no `Debug`.
//!
//! Not here: what a component must be (the runtime says), and building one (`builder`).

mod document;
mod egress;
mod events;
mod function;
mod host;
mod key_value;
mod mounts;
mod problem;
mod queue;
mod routes;
mod sockets;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

pub use host::{InvalidAddress, parse_address};
pub use problem::{Place, Problem, Problems};
pub use values::Values;

use crate::function::egress::{Rule, Scheme};
use crate::function::{Access, ByteSize, FunctionName, FunctionSpec, Peer};
use crate::key_value::{BucketName, Quota};
use crate::queue::{QueueName, QueueSettings};
use crate::runtime::{Inspected, MemoryReset};
use crate::telemetry::LogInvocations;

/// The manifest's file name, where only its folder is given.
pub const MANIFEST: &str = "dunlin.toml";

/// What serves by default is reachable from the machine itself only.
pub const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3000);
/// One above the HTTP trigger's.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3001);
/// Lambda's default for an account in a region.
pub const DEFAULT_CONCURRENCY: u32 = 1000;
/// Long enough to ride out a burst, short enough that nobody notices the wait.
pub const DEFAULT_ADMISSION_WAIT: Duration = Duration::from_millis(100);
/// All that a 32-bit guest can address: no ceiling but the budget.
pub const DEFAULT_MAX_MEMORY: ByteSize = ByteSize::mib(4096);
/// For all scratch directories together: two of Lambda's default size (`EphemeralStorage`).
pub const DEFAULT_SCRATCH_BUDGET: ByteSize = ByteSize::mib(1024);
/// Two for each of a hundred functions.
pub const DEFAULT_READY: u32 = 200;
/// Where an instance takes a while to make, so many events may come at once; and a few such
/// functions still leave others room in [`DEFAULT_READY`].
pub const DEFAULT_READY_PER_FUNCTION: u32 = 32;
/// The part of the memory budget that ready instances may hold: they give way to work, but
/// that takes time.
pub const DEFAULT_READY_MEMORY_PERCENT: u64 = 25;
/// Some 250 KiB and two file descriptors each: 64 MiB, and half of the 1024 descriptors of
/// a host that may not raise its limit.
pub const DEFAULT_MAPPED: u32 = 256;
/// As long as AWS Lambda keeps an idle environment at least, by what its users see.
pub const DEFAULT_REST_AFTER: Duration = Duration::from_mins(5);
/// Kubernetes kills after 30 s, systemd after 90 s, unless told otherwise.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Headers come in one packet or two: who needs longer holds a connection for nothing.
pub const DEFAULT_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// 6 MiB in 30 s is 1.6 Mbit/s, a poor mobile uplink.
pub const DEFAULT_BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// nginx's `keepalive_timeout`, and more than the 60 s after which load balancers close.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Less than the slowest mobile network of today (EDGE, some 100 kbit/s), and enough
/// that a few thousand clients which read on purpose slowly need a line of their own.
pub const DEFAULT_MIN_RATE: ByteSize = ByteSize::kib(8);
/// More than a box is asked to hold; a flood ends in refusals, not out of memory.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 10_000;
/// Twice what nginx takes (`large_client_header_buffers`).
pub const DEFAULT_MAX_HEADER_BYTES: ByteSize = ByteSize::kib(64);
/// hyper's default for HTTP/1.1, and Apache's (`LimitRequestFields`).
pub const DEFAULT_MAX_HEADERS: u32 = 100;
/// As many as Lambda's default concurrency of an account.
pub const DEFAULT_EGRESS_CONNECTIONS: u32 = 1000;
/// The account that AWS uses in its own examples.
pub const DEFAULT_ACCOUNT: &str = "123456789012";
/// A box is no AWS region, and its ARNs say so.
pub const DEFAULT_REGION: &str = "edge-1";

/// A key of the manifest for each function.
pub type Places = BTreeMap<FunctionName, Place>;

/// The checked configuration.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// The settings of the host.
    pub host: HostConfig,
    /// The functions, in the order of the manifest.
    pub functions: Vec<FunctionSpec>,
    /// The queues, in the order of the manifest.
    pub queues: Vec<(QueueName, QueueSettings)>,
    /// The buckets, in the order of the manifest.
    pub buckets: Vec<(BucketName, Quota)>,
    /// Where the component of each function is named.
    pub places: Places,
    /// What the components that are built already say of themselves, by their files.
    pub inspected: BTreeMap<PathBuf, Arc<Inspected>>,
    /// The files that values of environment variables and secrets were read from.
    pub value_files: Vec<PathBuf>,
}

/// The settings of the host, by subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// The HTTP trigger.
    pub http: HttpConfig,
    /// The Lambda API.
    pub admin: AdminConfig,
    /// Health and metrics.
    pub metrics: MetricsConfig,
    /// What may run at once.
    pub admission: AdmissionConfig,
    /// Engine, pool and instances.
    pub runtime: RuntimeConfig,
    /// Log lines.
    pub log: LogConfig,
    /// What ARNs say.
    pub identity: Identity,
    /// What functions may reach by HTTP.
    pub egress: EgressConfig,
    /// Directories that functions may mount, by name.
    pub mounts: BTreeMap<String, Mountable>,
    /// Whom functions may list as their `sockets`.
    pub sockets: Vec<Peer>,
    /// How long events in flight may take to end after a signal. 0–15 min.
    pub drain_timeout: Duration,
}

/// The HTTP trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Its address; port 0 picks a free one.
    pub listen: SocketAddr,
    /// From the first byte of a request (or the accept) to the end of its headers.
    pub header_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// What a client must read of its answer per second at least, measured over the
    /// idle timeout. 0 to 1 MiB; with 0 it must read something.
    pub min_rate: ByteSize,
    /// Connections at once.
    pub max_connections: u32,
    /// All header lines of a request together.
    pub max_header_bytes: ByteSize,
    /// Header lines of a request.
    pub max_headers: u32,
}

/// The Lambda API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Its address, on loopback; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Whether requests must be signed.
    pub signatures: Signatures,
}

/// Whether requests to the Lambda API must be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Signatures {
    /// Each by the key in the state directory.
    #[default]
    Required,
    /// None: `--insecure-admin`.
    Waived,
}

/// Health and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MetricsConfig {
    /// An address of their own. None: they are served on the admin address.
    pub listen: Option<SocketAddr>,
}

/// What may run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// Invocations at once, host-wide. 1–10 000.
    pub concurrency: u32,
    /// How long an event waits for admission before it is throttled. 0–30 s.
    pub wait: Duration,
}

/// Engine, pool and instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// For all instances and buffered bodies together. None: the host's own choice, from
    /// the machine's memory or its cgroup.
    pub memory_budget: Option<ByteSize>,
    /// The most that a function may ask for as its `memory`.
    pub max_memory: ByteSize,
    /// For the scratch directories of all instances together. 0–16 TiB.
    pub scratch_budget: ByteSize,
    /// Ready instances over all functions. 0–10 000.
    pub ready: u32,
    /// Ready instances of a function that does not say how many it keeps. 0–1000.
    pub ready_per_function: u32,
    /// What ready instances may hold of the budget together. None: a quarter of it.
    pub ready_memory: Option<ByteSize>,
    /// Components whose machine code stays mapped. 1–10 000.
    pub mapped: u32,
    /// After so long without an event a function rests. 1 s–24 h.
    pub rest_after: Duration,
    /// How the memory of an instance is cleaned for the next.
    pub memory_reset: MemoryReset,
}

/// Log lines.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// Which invocations get a line of their own.
    pub invocations: LogInvocations,
}

/// What functions may reach by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressConfig {
    /// What a function's `egress` may list. Every public address by default.
    pub ceiling: Vec<Rule>,
    /// Connections of all functions together. 1000 by default.
    pub connections: u32,
    /// Roots of trust beside the system's.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            ceiling: vec![Rule::anywhere(Scheme::Http), Rule::anywhere(Scheme::Https)],
            connections: DEFAULT_EGRESS_CONNECTIONS,
            roots: Vec::new(),
        }
    }
}

/// A directory that functions may mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mountable {
    /// Where it is.
    pub path: PathBuf,
    /// The most that a function may do there.
    pub access: Access,
}

/// What ARNs say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Twelve digits.
    pub account: String,
    /// Lower case, digits and `-`.
    pub region: String,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            http: HttpConfig::default(),
            admin: AdminConfig::default(),
            metrics: MetricsConfig::default(),
            admission: AdmissionConfig::default(),
            runtime: RuntimeConfig::default(),
            log: LogConfig::default(),
            identity: Identity::default(),
            egress: EgressConfig::default(),
            mounts: BTreeMap::new(),
            sockets: Vec::new(),
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: DEFAULT_HTTP,
            header_timeout: DEFAULT_HEADER_TIMEOUT,
            body_timeout: DEFAULT_BODY_TIMEOUT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            min_rate: DEFAULT_MIN_RATE,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_header_bytes: DEFAULT_MAX_HEADER_BYTES,
            max_headers: DEFAULT_MAX_HEADERS,
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: DEFAULT_ADMIN,
            signatures: Signatures::default(),
        }
    }
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            concurrency: DEFAULT_CONCURRENCY,
            wait: DEFAULT_ADMISSION_WAIT,
        }
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            memory_budget: None,
            max_memory: DEFAULT_MAX_MEMORY,
            scratch_budget: DEFAULT_SCRATCH_BUDGET,
            ready: DEFAULT_READY,
            ready_per_function: DEFAULT_READY_PER_FUNCTION,
            ready_memory: None,
            mapped: DEFAULT_MAPPED,
            rest_after: DEFAULT_REST_AFTER,
            memory_reset: MemoryReset::default(),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            account: DEFAULT_ACCOUNT.to_owned(),
            region: DEFAULT_REGION.to_owned(),
        }
    }
}

/// What the command line says about the host; it wins over the manifest.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--http`
    pub http: Option<SocketAddr>,
    /// `--admin`
    pub admin: Option<SocketAddr>,
    /// `--metrics`
    pub metrics: Option<SocketAddr>,
    /// `--drain-timeout`
    pub drain_timeout: Option<Duration>,
    /// `--insecure-admin` waives them.
    pub signatures: Signatures,
}

/// The environment of the process, as `main` read it: `std::env::vars_os().collect()`.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.0.get(name.as_ref()).map(OsString::as_os_str)
    }

    /// The names of all variables.
    pub fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.0.keys().map(OsString::as_os_str)
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let owned = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self(owned.collect())
    }
}

/// The names only: values may be secrets.
impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a manifest is read with.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The command line.
    pub overrides: &'a Overrides,
    /// The environment of the process.
    pub variables: &'a Variables,
    /// Whether what only the machine that serves has is looked at.
    pub values: Values,
}

impl Config {
    /// Reads and checks a manifest, and the files that it names.
    ///
    /// # Errors
    /// If it cannot be read or anything in it is wrong: all problems at once.
    pub fn load(manifest: &Path, sources: Sources<'_>) -> Result<Self, Problems> {
        let text = read(manifest)?;
        Self::parse(manifest, &text, sources)
    }

    /// Checks the text of a manifest. Paths in it count from the manifest's folder.
    ///
    /// # Errors
    /// If anything is wrong: all problems at once.
    pub fn parse(manifest: &Path, text: &str, sources: Sources<'_>) -> Result<Self, Problems> {
        let report = document::Report::new(manifest, text);
        let folder = manifest.parent().unwrap_or(Path::new(""));
        let config = match document::parse(&report, text) {
            Some(tree) => check(&document::Section::root(&report, &tree), folder, sources),
            None => Self::default(),
        };
        report.finish().map(|()| config)
    }
}

/// The manifest that a path means: itself, or `dunlin.toml` in the folder.
#[must_use]
pub fn manifest_path(path: &Path) -> PathBuf {
    if path == Path::new(".") {
        // Messages then say `dunlin.toml:3`, not `./dunlin.toml:3`.
        return PathBuf::from(MANIFEST);
    }
    if path.is_dir() {
        return path.join(MANIFEST);
    }
    path.to_owned()
}

fn check(root: &document::Section<'_>, folder: &Path, sources: Sources<'_>) -> Config {
    let host = host::read(&root.table("host"), folder, sources);
    let read = function::read_all(root, &host, folder, sources);
    let mut queues = queue::read_all(root);
    let buckets = key_value::read_all(root);
    read.references
        .check(&read.functions, &mut queues, &buckets);
    root.unknown();
    Config {
        host,
        functions: read.functions,
        queues,
        buckets,
        places: read.places,
        inspected: read.inspected,
        value_files: read.value_files,
    }
}

fn read(manifest: &Path) -> Result<String, Problems> {
    let problem = |line: usize, what: String, remedy: &str| {
        Problems(vec![Problem {
            at: Some((manifest.to_owned(), line)),
            key: "manifest".to_owned(),
            value: None,
            what,
            remedy: remedy.to_owned(),
        }])
    };
    let bytes = std::fs::read(manifest).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => problem(
            1,
            "no such file".to_owned(),
            "name the manifest or its folder, or make one with `dunlin new`",
        ),
        _ => problem(1, format!("cannot be read: {error}"), "make it readable"),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        problem(line, "not UTF-8".to_owned(), "save it as UTF-8")
    })
}
