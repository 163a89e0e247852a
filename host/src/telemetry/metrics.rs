//! The host's metrics, in Prometheus' form. `docs/metrics.md` lists them.
//!
//! Handles are resolved once per function, so that counting costs an atomic
//! addition. Labels are closed sets and the names of functions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::Log;
use crate::function::FunctionName;
use crate::invocation::{OutcomeKind, Trigger, Usage};
use crate::store::StoreMetrics;

mod guest;
mod key_value;
mod queues;

pub use guest::{Dropped, GuestMetrics, GuestValue};
pub use key_value::{KeyValueOperation, KeyValueOutcome, render_buckets};
pub use queues::render_queues;

/// From a quarter of a millisecond, where a warm handler ends, to Lambda's
/// longest timeout.
const DURATION_BUCKETS: [f64; 15] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0,
    900.0,
];

/// From a compact guest (two pages) to the largest memory.
const MEMORY_BUCKETS: [f64; 9] = [
    131_072.0,
    1_048_576.0,
    2_097_152.0,
    8_388_608.0,
    33_554_432.0,
    134_217_728.0,
    536_870_912.0,
    1_073_741_824.0,
    4_294_967_296.0,
];

/// So many functions have their series from their deployment on. On a host with more, those
/// of the others begin with their first event: what rests takes no memory, and no room in a
/// scrape.
const BEGIN_AT_ONCE: usize = 256;

/// Everything the host counts.
pub struct Metrics {
    registry: Registry,
    families: Arc<Families>,
    functions: Mutex<HashMap<FunctionName, Arc<FunctionMetrics>>>,
    /// What HTTP counts.
    pub http: HttpMetrics,
    /// What is counted of machine code.
    pub code: CodeMetrics,
    /// Events that wait for admission.
    pub admission_waiting: IntGauge,
    /// Whether the disk of the queues is full.
    pub disk_full: IntGauge,
    /// What scratch directories hold, in bytes.
    pub scratch_used: IntGauge,
    /// What they may hold, in bytes.
    pub scratch_budget: IntGauge,
    memory_budget: IntGauge,
    memory_used: IntGauge,
    log_dropped: IntCounter,
}

/// What happens to events that nobody waits for. A closed set: it is a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventStep {
    /// It is durable.
    Accepted,
    /// It was handled.
    Done,
    /// It failed and is tried again.
    Retried,
    /// It could not run, and waits for better times.
    Released,
    /// It is given up, and lies with the dead letters or at its destination.
    Dead,
    /// A filter kept it from the function.
    Filtered,
}

impl EventStep {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Done,
        Self::Retried,
        Self::Released,
        Self::Dead,
        Self::Filtered,
    ];

    /// As it stands in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Done => "done",
            Self::Retried => "retried",
            Self::Released => "released",
            Self::Dead => "dead",
            Self::Filtered => "filtered",
        }
    }
}

/// What is counted for one function. Its series are made when they are first needed:
/// they take some 50 KiB, and of thousands of functions most rest.
pub struct FunctionMetrics {
    name: FunctionName,
    families: Arc<Families>,
    series: OnceLock<Box<FunctionSeries>>,
    /// The function's own metrics.
    pub guest: GuestMetrics,
}

/// The handles of one function.
pub struct FunctionSeries {
    outcomes: [[OnceLock<IntCounter>; OutcomeKind::ALL.len()]; Trigger::ALL.len()],
    duration: Histogram,
    cpu: Counter,
    fuel: IntCounter,
    memory: Histogram,
    /// Leases served by an instance that was ready.
    pub from_ready: IntCounter,
    /// Leases that had to instantiate on the event's path.
    pub on_demand: IntCounter,
    /// Leases served by an instance that had run before (`reuse`).
    pub reused: IntCounter,
    /// Invocations that run.
    pub running: IntGauge,
    /// Instances that wait.
    pub ready: IntGauge,
    /// Instances that shall wait.
    pub wanted: IntGauge,
    /// Points of guest metrics that did not fit.
    pub guest_dropped: IntCounter,
    /// Invocations whose log output was cut off.
    pub log_truncated: IntCounter,
}

/// The families with a series for each function.
struct Families {
    invocations: IntCounterVec,
    duration: HistogramVec,
    cpu: CounterVec,
    fuel: IntCounterVec,
    memory: HistogramVec,
    leases: IntCounterVec,
    events: IntCounterVec,
    key_value: IntCounterVec,
    deliveries: IntCounterVec,
    egress: IntCounterVec,
    egress_connections: IntGaugeVec,
    running: IntGaugeVec,
    ready: IntGaugeVec,
    wanted: IntGaugeVec,
    guest_dropped: IntCounterVec,
    guest_log_truncated: IntCounterVec,
}

/// What is counted of machine code.
pub struct CodeMetrics {
    /// Components whose machine code is mapped.
    pub mapped: IntGauge,
    /// Components whose machine code rests on the disk.
    pub resting: IntGauge,
    /// How often machine code was mapped.
    pub mappings: IntCounter,
}

/// What the HTTP trigger counts.
pub struct HttpMetrics {
    /// Connections that are open.
    pub connections: IntGauge,
    /// Connections that were accepted.
    pub accepted: IntCounter,
    responses: IntCounterVec,
    /// Responses per status class, 1xx to 5xx.
    classes: [IntCounter; 5],
    /// Connections closed by a timeout, by which.
    pub timeouts: IntCounterVec,
}

impl HttpMetrics {
    /// Counts an answer.
    pub fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.classes[class - 1].inc();
    }
}

fn counter_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histogram_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(options, &["function"])?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    registered(registry, IntGauge::new(name, help)?)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    registered(registry, IntCounter::new(name, help)?)
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// If two metrics have the same name: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let responses = counter_vec(
            r,
            "dunlin_http_responses_total",
            "HTTP responses, by status class.",
            &["class"],
        )?;
        let classes =
            ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| responses.with_label_values(&[class]));
        let families = Families {
            invocations: counter_vec(
                r,
                "dunlin_invocations_total",
                "Invocations that ended, by how.",
                &["function", "trigger", "outcome"],
            )?,
            duration: histogram_vec(
                r,
                "dunlin_invocation_duration_seconds",
                "Wall time from lease to outcome.",
                &DURATION_BUCKETS,
            )?,
            cpu: registered(
                r,
                CounterVec::new(
                    Opts::new(
                        "dunlin_invocation_cpu_seconds_total",
                        "Time that a function held a core: handlers with their host calls, and making and ending its instances.",
                    ),
                    &["function"],
                )?,
            )?,
            fuel: counter_vec(
                r,
                "dunlin_invocation_fuel_total",
                "Fuel that invocations used.",
                &["function"],
            )?,
            memory: histogram_vec(
                r,
                "dunlin_invocation_memory_bytes",
                "The most that an invocation's memories and tables were together.",
                &MEMORY_BUCKETS,
            )?,
            leases: counter_vec(
                r,
                "dunlin_leases_total",
                "Instances leased, by where they came from: ready, on_demand or reused.",
                &["function", "source"],
            )?,
            events: counter_vec(
                r,
                "dunlin_events_total",
                "Events that nobody waits for, by what happened to them: accepted, done, retried, released, dead or filtered.",
                &["function", "step"],
            )?,
            key_value: counter_vec(
                r,
                "dunlin_key_value_operations_total",
                "Operations of functions on buckets, by how they ended: ok, conflict, refused or failed.",
                &["function", "operation", "outcome"],
            )?,
            running: gauge_vec(
                r,
                "dunlin_invocations_running",
                "Invocations that run.",
                &["function"],
            )?,
            ready: gauge_vec(
                r,
                "dunlin_instances_ready",
                "Instances that wait for an event.",
                &["function"],
            )?,
            wanted: gauge_vec(
                r,
                "dunlin_instances_wanted",
                "Instances that shall wait for an event.",
                &["function"],
            )?,
            deliveries: counter_vec(
                r,
                "dunlin_deliveries_total",
                "Attempts to post records of outcomes to HTTP endpoints, by how they ended: delivered, retried or dead.",
                &["function", "result"],
            )?,
            egress: counter_vec(
                r,
                "dunlin_egress_requests_total",
                "Requests that functions sent by HTTP, by how they ended.",
                &["function", "result"],
            )?,
            egress_connections: gauge_vec(
                r,
                "dunlin_egress_connections",
                "Connections that are open for what functions send by HTTP.",
                &["function"],
            )?,
            guest_dropped: counter_vec(
                r,
                "dunlin_guest_metrics_dropped_total",
                "Points of guest metrics that had a bad name or value or were one series too many.",
                &["function"],
            )?,
            guest_log_truncated: counter_vec(
                r,
                "dunlin_guest_log_truncated_total",
                "Invocations whose output went over the log limit.",
                &["function"],
            )?,
        };
        Ok(Self {
            families: Arc::new(families),
            functions: Mutex::default(),
            http: HttpMetrics {
                connections: gauge(
                    r,
                    "dunlin_http_connections",
                    "HTTP connections that are open.",
                )?,
                accepted: counter(
                    r,
                    "dunlin_http_accepted_total",
                    "HTTP connections that were accepted.",
                )?,
                timeouts: counter_vec(
                    r,
                    "dunlin_http_timeouts_total",
                    "HTTP connections closed by a timeout: header, body, idle or answer.",
                    &["timeout"],
                )?,
                responses,
                classes,
            },
            code: CodeMetrics {
                mapped: gauge(
                    r,
                    "dunlin_code_mapped",
                    "Components whose machine code is mapped.",
                )?,
                resting: gauge(
                    r,
                    "dunlin_code_resting",
                    "Components whose machine code rests on the disk.",
                )?,
                mappings: counter(
                    r,
                    "dunlin_code_mappings_total",
                    "How often the machine code of a component was mapped.",
                )?,
            },
            admission_waiting: gauge(
                r,
                "dunlin_admission_waiting",
                "Events that wait for admission.",
            )?,
            disk_full: gauge(
                r,
                "dunlin_disk_full",
                "1 while the disk of the state directory has no room.",
            )?,
            scratch_used: gauge(
                r,
                "dunlin_scratch_used_bytes",
                "What scratch directories hold.",
            )?,
            scratch_budget: gauge(
                r,
                "dunlin_scratch_budget_bytes",
                "What they may hold together.",
            )?,
            memory_budget: gauge(
                r,
                "dunlin_memory_budget_bytes",
                "The host-wide budget for guests' memory.",
            )?,
            memory_used: gauge(
                r,
                "dunlin_memory_used_bytes",
                "What guests and buffered bodies hold of the budget.",
            )?,
            log_dropped: counter(
                r,
                "dunlin_log_dropped_total",
                "Log lines dropped because the output was too slow.",
            )?,
            registry,
        })
    }

    /// What is counted for one function; the same for each of its versions.
    #[must_use]
    pub fn function(&self, name: &FunctionName) -> Arc<FunctionMetrics> {
        let mut functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let begins = functions.len() < BEGIN_AT_ONCE;
        let metrics = functions.entry(name.clone()).or_insert_with(|| {
            let metrics = FunctionMetrics {
                name: name.clone(),
                families: Arc::clone(&self.families),
                series: OnceLock::new(),
                guest: GuestMetrics::default(),
            };
            if begins {
                let _ = metrics.series();
            }
            Arc::new(metrics)
        });
        Arc::clone(metrics)
    }

    /// Shows what a store counts, too.
    ///
    /// # Errors
    /// If there is another store with the same names.
    pub fn show_store(&self, store: &StoreMetrics) -> prometheus::Result<()> {
        let mut collectors = store.collectors().into_iter();
        collectors.try_for_each(|collector| self.registry.register(collector))
    }

    /// Everything in Prometheus' text form.
    ///
    /// # Errors
    /// If a metric cannot be encoded: a mistake in this module.
    pub fn render(
        &self,
        log: &Log,
        memory_used: u64,
        memory_budget: u64,
    ) -> prometheus::Result<Vec<u8>> {
        self.memory_used
            .set(i64::try_from(memory_used).unwrap_or(i64::MAX));
        self.memory_budget
            .set(i64::try_from(memory_budget).unwrap_or(i64::MAX));
        let seen = self.log_dropped.get();
        self.log_dropped.inc_by(log.dropped().saturating_sub(seen));
        let mut out = Vec::with_capacity(16 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        let functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut sorted: Vec<_> = functions.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        guest::render(
            &mut out,
            sorted
                .into_iter()
                .map(|(name, handles)| (name.as_str(), &handles.guest)),
        );
        Ok(out)
    }

    /// The names of all metrics, for the test that compares them to the docs.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let _ = self.function(&FunctionName::new("x").expect("a valid name"));
        self.http.timeouts.with_label_values(&["idle"]).inc_by(0);
        let families = &self.families;
        families.egress.with_label_values(&["x", "ok"]).inc_by(0);
        families.egress_connections.with_label_values(&["x"]).set(0);
        families
            .deliveries
            .with_label_values(&["x", "dead"])
            .inc_by(0);
        let _ = &self.http.responses;
        self.families
            .key_value
            .with_label_values(&["x", "get", "ok"])
            .inc_by(0);
        let mut names: Vec<String> = self
            .registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        names.extend(guest::FAMILIES.iter().map(|name| (*name).to_owned()));
        let gauges = queues::FAMILIES.iter().chain(&key_value::FAMILIES);
        names.extend(gauges.map(|(name, _)| (*name).to_owned()));
        names.sort();
        names
    }
}

impl std::ops::Deref for FunctionMetrics {
    type Target = FunctionSeries;

    fn deref(&self) -> &FunctionSeries {
        self.series()
    }
}

impl FunctionMetrics {
    /// Those that most functions need begin at zero, so that a first event is an increase.
    fn series(&self) -> &FunctionSeries {
        self.series.get_or_init(|| {
            let f = self.name.as_str();
            let families = &*self.families;
            let series = FunctionSeries {
                outcomes: Default::default(),
                duration: families.duration.with_label_values(&[f]),
                cpu: families.cpu.with_label_values(&[f]),
                fuel: families.fuel.with_label_values(&[f]),
                memory: families.memory.with_label_values(&[f]),
                from_ready: families.leases.with_label_values(&[f, "ready"]),
                on_demand: families.leases.with_label_values(&[f, "on_demand"]),
                reused: families.leases.with_label_values(&[f, "reused"]),
                running: families.running.with_label_values(&[f]),
                ready: families.ready.with_label_values(&[f]),
                wanted: families.wanted.with_label_values(&[f]),
                guest_dropped: families.guest_dropped.with_label_values(&[f]),
                log_truncated: families.guest_log_truncated.with_label_values(&[f]),
            };
            for trigger in [Trigger::Http, Trigger::Invoke] {
                for kind in OutcomeKind::ALL {
                    self.outcome(&series, trigger, kind);
                }
            }
            for step in EventStep::ALL {
                self.events(step, 0);
            }
            Box::new(series)
        })
    }

    /// Counts time on the core that is in no record: an instance was made ready, or
    /// an invocation was broken off on another core.
    pub fn spent(&self, cpu: std::time::Duration) {
        self.cpu.inc_by(cpu.as_secs_f64());
    }

    /// Made when it is first needed: a function has few of all that there could be.
    fn outcome<'s>(
        &self,
        series: &'s FunctionSeries,
        trigger: Trigger,
        kind: OutcomeKind,
    ) -> &'s IntCounter {
        series.outcomes[trigger as usize][kind as usize].get_or_init(|| {
            let labels = [self.name.as_str(), trigger.as_str(), kind.as_str()];
            self.families.invocations.with_label_values(&labels)
        })
    }

    /// Counts events that were accepted, or of which it was said what becomes of them.
    pub fn events(&self, step: EventStep, count: u64) {
        self.families
            .events
            .with_label_values(&[self.name.as_str(), step.as_str()])
            .inc_by(count);
    }

    /// Counts an operation on a bucket.
    pub fn key_value(&self, operation: KeyValueOperation, outcome: KeyValueOutcome) {
        let labels = [self.name.as_str(), operation.as_str(), outcome.as_str()];
        self.families.key_value.with_label_values(&labels).inc();
    }

    /// Counts a request that the function sent, by how it ended: a word of a closed set.
    pub(crate) fn egress(&self, result: &'static str) {
        let labels = [self.name.as_str(), result];
        self.families.egress.with_label_values(&labels).inc();
    }

    /// Connections that are open for what it sends by HTTP.
    pub(crate) fn egress_connections(&self) -> IntGauge {
        let labels = [self.name.as_str()];
        self.families.egress_connections.with_label_values(&labels)
    }

    /// Counts an attempt to post a record: `delivered`, `retried` or `dead`.
    pub(crate) fn delivery(&self, result: &'static str) {
        let labels = [self.name.as_str(), result];
        self.families.deliveries.with_label_values(&labels).inc();
    }

    /// Those of a function that may send any begin at zero.
    pub(crate) fn begin_egress(&self, results: &[&'static str]) {
        for result in results {
            let labels = [self.name.as_str(), *result];
            self.families.egress.with_label_values(&labels).inc_by(0);
        }
    }

    /// Counts an invocation that ended. `ran` is its duration from the lease;
    /// absent if it never ran.
    pub fn ended(
        &self,
        trigger: Trigger,
        kind: OutcomeKind,
        ran: Option<std::time::Duration>,
        usage: &Usage,
    ) {
        self.outcome(self.series(), trigger, kind).inc();
        if let Some(duration) = ran {
            self.duration.observe(duration.as_secs_f64());
            self.cpu.inc_by(usage.cpu.as_secs_f64());
            self.fuel.inc_by(usage.fuel);
            self.memory.observe(usage.memory as f64);
        }
    }
}
