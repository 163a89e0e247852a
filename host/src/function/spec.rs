//! A function's configuration, checked.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::events::{AsyncPolicy, QueueMapping, Schedule};
use super::{ByteSize, Egress, FunctionName, Grant, Mount, Peer};
use crate::queue::QueueName;

/// Lambda's `MemorySize` default.
pub const DEFAULT_MEMORY: ByteSize = ByteSize::mib(128);
/// Lambda's `Timeout` default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
/// Lambda's limit for a synchronous payload, request and response alike.
pub const DEFAULT_PAYLOAD: ByteSize = ByteSize::mib(6);
/// What one invocation may write to stdout and stderr together: enough for a
/// long stack trace, little enough that a flood costs nobody.
pub const DEFAULT_LOG_BYTES: ByteSize = ByteSize::kib(64);
/// The share of the cores of a function that names none.
pub const DEFAULT_WEIGHT: u32 = 100;

/// From the least that a component runs in to what 32-bit memory can address.
pub const MEMORY_RANGE: RangeInclusive<ByteSize> = ByteSize::mib(1)..=ByteSize::mib(4096);
/// Up to Lambda's longest `Timeout`.
pub const TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_mins(15);
/// All arguments together, in bytes: as much as the environment.
pub const MAX_ARGUMENTS: ByteSize = ByteSize::kib(4);
/// A payload that is streamed: 1 GiB is five times Lambda's.
pub const STREAM_RANGE: RangeInclusive<ByteSize> = ByteSize::kib(1)..=ByteSize::mib(1024);
/// A payload is held in memory as a whole: 64 MiB is ten times Lambda's.
pub const PAYLOAD_RANGE: RangeInclusive<ByteSize> = ByteSize::kib(1)..=ByteSize::mib(64);
/// 0 drops all that is written.
pub const LOG_RANGE: RangeInclusive<ByteSize> = ByteSize(0)..=ByteSize::mib(16);
/// What one function may keep ready: Lambda's default concurrency of an account.
pub const PROVISIONED_RANGE: RangeInclusive<u32> = 0..=1000;
/// Two decades up and down from the default.
pub const WEIGHT_RANGE: RangeInclusive<u32> = 1..=10_000;
/// Less holds no file worth the name, more is above Lambda's `EphemeralStorage`.
pub const SCRATCH_RANGE: RangeInclusive<ByteSize> = ByteSize::mib(1)..=ByteSize::mib(10 << 10);
/// Where a guest finds its scratch directory: Lambda's place, and every library's.
pub const SCRATCH_PATH: &str = "/tmp";
/// Lambda's limit for all environment variables together, names and values.
pub const MAX_ENVIRONMENT: ByteSize = ByteSize::kib(4);
/// All values of `config` together, names and values: each `get-all` carries them.
pub const MAX_CONFIG: ByteSize = ByteSize::kib(64);
/// The longest value of a secret: AWS Secrets Manager's limit.
pub const MAX_SECRET: ByteSize = ByteSize::kib(64);

/// The rate from which the default budget of fuel follows: more than any core
/// of today executes, so that the deadline comes first for a busy guest, and
/// fixed, so that the same work has the same budget on every box.
pub const FUEL_PER_SECOND: u64 = 20_000_000_000;

/// How a function's instances are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Isolation {
    /// A fresh sandbox for each invocation.
    #[default]
    Fresh,
    /// One invocation after another in the same instance, as AWS Lambda does.
    Reuse,
    /// Several at once in the same instance, for `wasi:http/handler` of WASI 0.3. Fuel,
    /// memory and faults are the instance's: what ends one ends all.
    Concurrent,
}

/// The budget of computation of one invocation. A unit is about one
/// WebAssembly instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fuel {
    /// From the timeout, by [`FUEL_PER_SECOND`].
    #[default]
    FromTimeout,
    /// Exactly so much.
    Units(u64),
    /// None: the deadline alone ends the guest.
    Unlimited,
}

/// What one invocation may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories and tables of the instance together.
    pub memory: ByteSize,
    /// Wall time of the handler, host calls included.
    pub timeout: Duration,
    /// Computation.
    pub fuel: Fuel,
    /// The largest request body or payload.
    pub request: ByteSize,
    /// The largest response: body and headers together.
    pub response: ByteSize,
    /// What may be written to stdout and stderr together.
    pub log: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: DEFAULT_MEMORY,
            timeout: DEFAULT_TIMEOUT,
            fuel: Fuel::default(),
            request: DEFAULT_PAYLOAD,
            response: DEFAULT_PAYLOAD,
            log: DEFAULT_LOG_BYTES,
        }
    }
}

impl Limits {
    /// The units of fuel an invocation gets.
    #[must_use]
    pub fn fuel_units(&self) -> u64 {
        match self.fuel {
            Fuel::Units(units) => units,
            Fuel::Unlimited => u64::MAX,
            Fuel::FromTimeout => {
                let units = self.timeout.as_secs_f64() * FUEL_PER_SECOND as f64;
                (units as u64).max(1)
            }
        }
    }
}

/// Which requests a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteMethod {
    /// Every method.
    Any,
    /// This one, in upper case.
    Only(String),
}

/// An HTTP trigger: which requests become events for the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The `Host` it answers to, without port, in lower case. None: every host.
    pub host: Option<String>,
    /// The methods.
    pub method: RouteMethod,
    /// The path pattern, in matchit's syntax: `/users/{id}`, `/files/{*rest}`.
    pub path: String,
}

/// A secret: the name the guest asks for, and its value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The declared name.
    pub name: String,
    /// The value. Never printed.
    pub value: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("value", &"…")
            .finish()
    }
}

/// Where a function's component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentSource {
    /// A `.wasm` file.
    File(PathBuf),
    /// A cargo package.
    Package {
        /// Its folder.
        folder: PathBuf,
        /// The component that was built from it, once it is.
        built: Option<PathBuf>,
    },
}

impl ComponentSource {
    /// The `.wasm` file. None before the package is built.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(file),
            Self::Package { built, .. } => built.as_deref(),
        }
    }

    /// The folder of the cargo package, if there is one to build.
    #[must_use]
    pub fn package(&self) -> Option<&Path> {
        match self {
            Self::File(_) => None,
            Self::Package { folder, .. } => Some(folder),
        }
    }
}

/// A function as it shall be deployed: the checked form of its manifest entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSpec {
    /// Its name.
    pub name: FunctionName,
    /// Where its component comes from.
    pub component: ComponentSource,
    /// What one invocation may take.
    pub limits: Limits,
    /// How instances are used.
    pub isolation: Isolation,
    /// Concurrency set aside for the function, which is also the most it gets.
    /// None: it shares what nobody reserved.
    pub reserved_concurrency: Option<u32>,
    /// Ready instances kept, always. None: it follows from what the function gets.
    pub provisioned: Option<u32>,
    /// Its share of the cores when they are contended, relative to the others'.
    pub weight: u32,
    /// Arguments, after the function's name.
    pub arguments: Vec<String>,
    /// Environment variables: name and value, sorted by name.
    pub environment: Vec<(String, String)>,
    /// What `wasi:config` answers: name and value, sorted by name.
    pub config: Vec<(String, String)>,
    /// Secrets, sorted by name.
    pub secrets: Vec<Secret>,
    /// Directories of the host.
    pub mounts: Vec<Mount>,
    /// Buckets, by the names under which it opens them.
    pub buckets: Vec<Grant>,
    /// What it may reach by HTTP.
    pub egress: Egress,
    /// What an instance's scratch directory may hold. None: it has none.
    pub scratch: Option<ByteSize>,
    /// Whom it may reach with sockets.
    pub sockets: Vec<Peer>,
    /// HTTP triggers.
    pub routes: Vec<Route>,
    /// How asynchronous events are handled.
    pub events: AsyncPolicy,
    /// Queues that feed it.
    pub queues: Vec<QueueMapping>,
    /// Schedules that fire it.
    pub schedules: Vec<Schedule>,
    /// Queues that it may send to.
    pub sends_to: Vec<QueueName>,
    /// Functions that it may invoke.
    pub invokes: Vec<FunctionName>,
}

impl FunctionSpec {
    /// A function of which nothing else is said.
    #[must_use]
    pub fn new(name: FunctionName, component: ComponentSource) -> Self {
        Self {
            name,
            component,
            limits: Limits::default(),
            isolation: Isolation::default(),
            reserved_concurrency: None,
            provisioned: None,
            weight: DEFAULT_WEIGHT,
            arguments: Vec::new(),
            environment: Vec::new(),
            config: Vec::new(),
            secrets: Vec::new(),
            mounts: Vec::new(),
            buckets: Vec::new(),
            egress: Egress::default(),
            scratch: None,
            sockets: Vec::new(),
            routes: Vec::new(),
            events: AsyncPolicy::default(),
            queues: Vec::new(),
            schedules: Vec::new(),
            sends_to: Vec::new(),
            invokes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_of_fuel_follows_from_the_timeout_unless_it_is_given() {
        assert_eq!(Limits::default().fuel, Fuel::FromTimeout);
        let units = |fuel, timeout| {
            let limits = Limits {
                fuel,
                timeout,
                ..Limits::default()
            };
            limits.fuel_units()
        };
        let auto = |timeout| units(Fuel::FromTimeout, timeout);
        assert_eq!(auto(*TIMEOUT_RANGE.start()), 20_000_000);
        assert_eq!(auto(Duration::from_millis(1500)), 30_000_000_000);
        assert_eq!(auto(*TIMEOUT_RANGE.end()), 18_000_000_000_000);
        assert_eq!(units(Fuel::Units(7), *TIMEOUT_RANGE.end()), 7);
        assert_eq!(units(Fuel::Unlimited, *TIMEOUT_RANGE.start()), u64::MAX);
    }
}
