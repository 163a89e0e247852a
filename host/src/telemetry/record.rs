//! The record of an invocation: its metrics and its log line, written in one
//! place, when its outcome becomes known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{FunctionMetrics, Level, Log, Metrics};
use crate::function::FunctionName;
use crate::invocation::{Failure, OutcomeKind, RequestId, Trigger, Usage};

/// Which invocations get a log line of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogInvocations {
    /// Each one, as AWS Lambda's `REPORT` line.
    #[default]
    All,
    /// Those that did not end well.
    Failures,
}

/// Where records go. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    /// The log.
    pub log: Log,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Which invocations get a line.
    pub log_invocations: LogInvocations,
}

/// What a guest may say of its failure in the log: it counts against no other
/// limit there.
const MAX_MESSAGE: usize = 4096;
const MAX_ERROR_TYPE: usize = 256;

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// An invocation that is over and recorded.
#[derive(Debug)]
pub struct Ended<T> {
    /// How.
    pub result: Result<T, Failure>,
    /// What it took.
    pub usage: Usage,
}

/// An invocation under way. Dropped before it is finished, it counts as
/// cancelled.
pub struct Record<'a> {
    telemetry: &'a Telemetry,
    metrics: &'a FunctionMetrics,
    function: &'a FunctionName,
    version: &'a str,
    trigger: Trigger,
    request_id: RequestId,
    attempt: u32,
    accepted: Instant,
    leased: Option<Instant>,
    /// What it took so far.
    pub usage: Usage,
    finished: bool,
}

impl<'a> Record<'a> {
    /// Begins a record when the event is accepted.
    #[must_use]
    pub fn begin(
        telemetry: &'a Telemetry,
        metrics: &'a FunctionMetrics,
        function: &'a FunctionName,
        version: &'a str,
        call: &crate::invocation::Call,
    ) -> Self {
        Self {
            telemetry,
            metrics,
            function,
            version,
            trigger: call.trigger,
            request_id: call.request_id,
            attempt: call.attempt,
            accepted: Instant::now(),
            leased: None,
            usage: Usage::default(),
            finished: false,
        }
    }

    /// From now on it runs.
    pub fn leased(&mut self) {
        self.leased = Some(Instant::now());
        self.metrics.running.inc();
    }

    /// Writes the record of an invocation that ended well.
    pub fn ok<T>(mut self, answer: T) -> Ended<T> {
        self.finish(OutcomeKind::Ok, None);
        Ended {
            result: Ok(answer),
            usage: self.usage,
        }
    }

    /// Writes the record of one that did not.
    pub fn failed<T>(mut self, failure: Failure) -> Ended<T> {
        self.finish(failure.kind, Some(&failure));
        Ended {
            result: Err(failure),
            usage: self.usage,
        }
    }

    fn finish(&mut self, kind: OutcomeKind, failure: Option<&Failure>) {
        self.finished = true;
        let ran = self.leased.map(|at| at.elapsed());
        if ran.is_some() {
            self.metrics.running.dec();
        }
        self.metrics.ended(self.trigger, kind, ran, &self.usage);
        if kind == OutcomeKind::Ok && self.telemetry.log_invocations == LogInvocations::Failures {
            return;
        }
        let level = match kind {
            OutcomeKind::Ok | OutcomeKind::Cancelled => Level::Info,
            OutcomeKind::HostError => Level::Error,
            _ => Level::Warn,
        };
        let waited = match self.leased {
            Some(at) => at - self.accepted,
            None => self.accepted.elapsed(),
        };
        self.telemetry.log.line(level, |line| {
            line.str("kind", "invocation")
                .str("function", self.function.as_str())
                .str("version", self.version);
            self.request_id.with_str(|id| {
                line.str("request_id", id);
            });
            line.str("trigger", self.trigger.as_str())
                .str("outcome", kind.as_str())
                .millis("duration_ms", ran.unwrap_or(Duration::ZERO))
                .millis("waited_ms", waited)
                .millis("cpu_ms", self.usage.cpu)
                .u64("fuel", self.usage.fuel)
                .u64("memory_bytes", self.usage.memory);
            if self.attempt > 1 {
                line.u64("attempt", u64::from(self.attempt));
            }
            if let Some(failure) = failure {
                line.str("error_type", cut(&failure.error_type, MAX_ERROR_TYPE))
                    .str("message", cut(&failure.message, MAX_MESSAGE));
            }
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.finish(OutcomeKind::Cancelled, None);
        }
    }
}
