//! What the operator sees: metrics, logs, and the record of each invocation.

mod line;
mod log;
mod metrics;
mod record;

pub use line::Line;
pub use log::{Level, Log, LogWriter};
pub use metrics::{
    Dropped, EventStep, FunctionMetrics, GuestMetrics, GuestValue, HttpMetrics, KeyValueOperation,
    KeyValueOutcome, Metrics, render_buckets, render_queues,
};
pub use record::{Ended, LogInvocations, Record, Telemetry};
