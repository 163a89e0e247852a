//! The table `[host]`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::document::{Field, Section};
use super::{
    AdminConfig, AdmissionConfig, HostConfig, HttpConfig, Identity, LogConfig, MetricsConfig,
    Overrides, RuntimeConfig, Sources, egress, mounts, sockets,
};
use crate::function::{ByteSize, MEMORY_RANGE, PROVISIONED_RANGE};
use crate::runtime::MemoryReset;
use crate::telemetry::LogInvocations;

/// Each has a slot in the pool and up to a `memory` of address space.
pub(super) const CONCURRENCY_RANGE: RangeInclusive<u32> = 1..=10_000;
/// A client that waits longer than 30 s has given up.
const ADMISSION_WAIT_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30);
/// One small instance up to more than any box has.
const MEMORY_BUDGET_RANGE: RangeInclusive<ByteSize> = ByteSize::mib(1)..=ByteSize::mib(16 << 20);
/// None at all up to more than any box has.
const SCRATCH_BUDGET_RANGE: RangeInclusive<ByteSize> = ByteSize(0)..=ByteSize::mib(16 << 20);
/// As many as there are invocations at most.
const READY_RANGE: RangeInclusive<u32> = 0..=10_000;
/// As `provisioned` of one function.
const READY_PER_FUNCTION_RANGE: RangeInclusive<u32> = PROVISIONED_RANGE;
/// Up to the largest budget; 0 keeps none ready.
const READY_MEMORY_RANGE: RangeInclusive<ByteSize> = ByteSize(0)..=ByteSize::mib(16 << 20);
/// Each takes up to five of the 65 530 memory maps that Linux gives a process by default.
const MAPPED_RANGE: RangeInclusive<u32> = 1..=10_000;
/// The keeper looks once a second; a day is as good as always.
const REST_AFTER_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(24);
/// Up to the longest timeout of a function.
const DRAIN_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(15);
/// 0 would mean "at once" to some and "never" to others.
const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_mins(15);
/// Above that a client on a common line would be too slow.
const MIN_RATE_RANGE: RangeInclusive<ByteSize> = ByteSize(0)..=ByteSize::mib(1);
/// Linux gives a process about so many file descriptors at most (`fs.nr_open`).
const CONNECTIONS_RANGE: RangeInclusive<u32> = 1..=1_000_000;
/// hyper reads into 8 KiB at least; above 1 MiB nothing but an attack arrives.
const HEADER_BYTES_RANGE: RangeInclusive<ByteSize> = ByteSize::kib(8)..=ByteSize::mib(1);
const HEADERS_RANGE: RangeInclusive<u32> = 1..=1000;

const ADMIN_LOOPBACK: &str = "the Lambda API is served on loopback only, since it has no TLS yet";
const ADMIN_LOOPBACK_REMEDY: &str =
    "use 127.0.0.1 or [::1], and reach it from elsewhere through an SSH tunnel";

/// Reads `[host]` and merges the command line into it.
pub(super) fn read(section: &Section<'_>, folder: &Path, sources: Sources<'_>) -> HostConfig {
    let overrides = sources.overrides;
    let default = HostConfig::default();
    let drain_timeout = section.duration("drain-timeout", default.drain_timeout, DRAIN_RANGE);
    let addresses = Addresses::read(section, overrides, &default);
    let host = HostConfig {
        http: http(section, addresses.http.value, default.http),
        admin: AdminConfig {
            listen: addresses.admin.value,
            signatures: overrides.signatures,
        },
        metrics: MetricsConfig {
            listen: addresses.metrics.as_ref().map(|metrics| metrics.value),
        },
        admission: admission(section, &default.admission),
        runtime: runtime(section, &default.runtime),
        log: LogConfig {
            invocations: section.choice(
                "log-invocations",
                default.log.invocations,
                &[
                    ("all", LogInvocations::All),
                    ("failures", LogInvocations::Failures),
                ],
            ),
        },
        identity: identity(section, default.identity),
        egress: egress::of_host(section, folder, sources.values),
        mounts: mounts::mountable(section, folder, sources.values),
        sockets: sockets::ceiling(section),
        drain_timeout: overrides.drain_timeout.unwrap_or(drain_timeout),
    };
    if let Some(drain) = overrides.drain_timeout
        && !DRAIN_RANGE.contains(&drain)
    {
        let report = section.report();
        let value = format!("{drain:?}");
        report.add_flag("--drain-timeout", value, "too large", "allowed is 0 to 15m");
    }
    section.unknown();
    host
}

fn http(section: &Section<'_>, listen: SocketAddr, default: HttpConfig) -> HttpConfig {
    let timeout = |name, default| section.duration(name, default, TIMEOUT_RANGE);
    HttpConfig {
        listen,
        header_timeout: timeout("header-timeout", default.header_timeout),
        body_timeout: timeout("body-timeout", default.body_timeout),
        idle_timeout: timeout("idle-timeout", default.idle_timeout),
        min_rate: section.size("min-rate", default.min_rate, MIN_RATE_RANGE),
        max_connections: section.number(
            "max-connections",
            default.max_connections,
            CONNECTIONS_RANGE,
        ),
        max_header_bytes: section.size(
            "max-header-bytes",
            default.max_header_bytes,
            HEADER_BYTES_RANGE,
        ),
        max_headers: section.number("max-headers", default.max_headers, HEADERS_RANGE),
    }
}

fn admission(section: &Section<'_>, default: &AdmissionConfig) -> AdmissionConfig {
    AdmissionConfig {
        concurrency: section.number("concurrency", default.concurrency, CONCURRENCY_RANGE),
        wait: section.duration("admission-wait", default.wait, ADMISSION_WAIT_RANGE),
    }
}

fn runtime(section: &Section<'_>, default: &RuntimeConfig) -> RuntimeConfig {
    RuntimeConfig {
        memory_budget: section
            .get("memory-budget")
            .and_then(|field| field.size(MEMORY_BUDGET_RANGE)),
        max_memory: section.size("max-memory", default.max_memory, MEMORY_RANGE),
        scratch_budget: section.size(
            "scratch-budget",
            default.scratch_budget,
            SCRATCH_BUDGET_RANGE,
        ),
        ready: section.number("ready", default.ready, READY_RANGE),
        ready_per_function: section.number(
            "ready-per-function",
            default.ready_per_function,
            READY_PER_FUNCTION_RANGE,
        ),
        ready_memory: section
            .get("ready-memory")
            .and_then(|field| field.size(READY_MEMORY_RANGE)),
        mapped: section.number("mapped", default.mapped, MAPPED_RANGE),
        rest_after: section.duration("rest-after", default.rest_after, REST_AFTER_RANGE),
        memory_reset: section.choice(
            "memory-reset",
            default.memory_reset,
            &[
                ("auto", MemoryReset::Auto),
                ("memset", MemoryReset::Memset),
                ("pagemap", MemoryReset::Pagemap),
            ],
        ),
    }
}

fn identity(section: &Section<'_>, default: Identity) -> Identity {
    let twelve_digits =
        |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    let region = |text: &str| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=32).contains(&text.len()) && text.bytes().all(allowed)
    };
    Identity {
        account: word(
            section,
            "account",
            default.account,
            twelve_digits,
            "write 12 digits, as in an ARN",
        ),
        region: word(
            section,
            "region",
            default.region,
            region,
            "write 1 to 32 lower-case letters, digits and `-`",
        ),
    }
}

fn word(
    section: &Section<'_>,
    name: &'static str,
    default: String,
    is_valid: impl Fn(&str) -> bool,
    remedy: &str,
) -> String {
    let Some(field) = section.get(name) else {
        return default;
    };
    match field.string(&default) {
        Some(text) if is_valid(text) => text.to_owned(),
        Some(_) => {
            field.problem(format!("no {name}"), remedy);
            default
        }
        None => default,
    }
}

/// An address that counts, and where it comes from.
struct Address<'a> {
    value: SocketAddr,
    flag: Option<&'static str>,
    field: Option<Field<'a>>,
}

impl Address<'_> {
    fn problem(&self, section: &Section<'_>, name: &str, what: &str, remedy: &str) {
        match (self.flag, &self.field) {
            (Some(flag), _) => {
                section
                    .report()
                    .add_flag(flag, self.value.to_string(), what, remedy);
            }
            (None, Some(field)) => field.problem(what, remedy),
            // The default, in the way of what the operator chose.
            (None, None) => {
                let value = Some(self.value.to_string());
                section
                    .report()
                    .add(section.at(), section.key(name), value, what, remedy);
            }
        }
    }

    fn meets(&self, other: &Self) -> bool {
        let (a, b) = (self.value, other.value);
        let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        // Port 0 is another one each time.
        a.port() == b.port() && a.port() != 0 && same_ip
    }
}

struct Addresses<'a> {
    http: Address<'a>,
    admin: Address<'a>,
    metrics: Option<Address<'a>>,
}

impl<'a> Addresses<'a> {
    fn read(section: &Section<'a>, overrides: &Overrides, default: &HostConfig) -> Self {
        let pick = |name, flag, over: Option<SocketAddr>| {
            let field = section.get(name);
            let written = field.as_ref().and_then(address);
            if name == "admin"
                && let Some(field) = &field
                && written.is_some_and(|address| !address.ip().is_loopback())
            {
                field.problem(ADMIN_LOOPBACK, ADMIN_LOOPBACK_REMEDY);
            }
            (over.or(written), over.map(|_| flag), field)
        };
        let (http, flag, field) = pick("http", "--http", overrides.http);
        let http = Address {
            value: http.unwrap_or(default.http.listen),
            flag,
            field,
        };
        let (admin, flag, field) = pick("admin", "--admin", overrides.admin);
        let admin = Address {
            value: admin.unwrap_or(default.admin.listen),
            flag,
            field,
        };
        let (metrics, flag, field) = pick("metrics", "--metrics", overrides.metrics);
        let metrics = metrics.map(|value| Address { value, flag, field });
        let addresses = Self {
            http,
            admin,
            metrics,
        };
        addresses.check(section);
        addresses
    }

    fn check(&self, section: &Section<'_>) {
        let Self {
            http,
            admin,
            metrics,
        } = self;
        if admin.flag.is_some() && !admin.value.ip().is_loopback() {
            admin.problem(section, "admin", ADMIN_LOOPBACK, ADMIN_LOOPBACK_REMEDY);
        }
        let other_port = "give each a port of its own";
        if admin.meets(http) {
            admin.problem(section, "admin", "the address of `http` too", other_port);
        }
        let Some(metrics) = metrics else { return };
        if metrics.meets(http) {
            metrics.problem(section, "metrics", "the address of `http` too", other_port);
        }
        if metrics.meets(admin) {
            let remedy = "leave `metrics` out to serve both there, or give it another port";
            metrics.problem(section, "metrics", "the address of `admin` too", remedy);
        }
    }
}

fn address(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.string("127.0.0.1:3000")?;
    match parse_address(text) {
        Ok(address) => Some(address),
        Err(InvalidAddress) => {
            field.problem(
                "no address",
                "write an IP address and a port, such as `127.0.0.1:3000` or `[::1]:3000`",
            );
            None
        }
    }
}

/// A text that is no IP address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no address: write an IP address and a port, such as `127.0.0.1:3000` or `[::1]:3000`")]
pub struct InvalidAddress;

/// Reads `IP:PORT`; `localhost` is `127.0.0.1`. No other name is looked up: the answer
/// could change between the check and the bind.
///
/// # Errors
/// If it is anything else.
pub fn parse_address(text: &str) -> Result<SocketAddr, InvalidAddress> {
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|_| InvalidAddress)?;
        return Ok(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port));
    }
    text.parse().map_err(|_| InvalidAddress)
}
