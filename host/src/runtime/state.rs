//! What belongs to one instance: the data of its store.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::budget::{Budget, MemoryLimiter, Need};
use super::engine::Clock;
use super::turns::{Seat, Share};
use crate::capability::files::{Held, Mounts};
use crate::capability::outbound::Http;
use crate::capability::sockets::{Reach, Sockets};
use crate::capability::{self, stdio::Output};
use crate::function::FunctionSpec;
use crate::invocation::{Call, Outbox};
use crate::telemetry::{FunctionMetrics, Telemetry};

/// Handles a guest may hold at once, and the host's side of them. Far above
/// what a buffered handler needs, far below what a host would feel.
pub(crate) const MAX_HANDLES: usize = 4096;

/// What all instances of a version have in common.
pub struct Common {
    /// The function's configuration.
    pub spec: FunctionSpec,
    /// The version: a number or `$LATEST`.
    pub version: String,
    /// The function's name as an ARN, without qualifier.
    pub arn: String,
    /// What makes its guests yield.
    pub(crate) clock: Arc<Clock>,
    /// Its share of the cores.
    pub share: Arc<Share>,
    /// Takes what it sends.
    pub outbox: Arc<dyn Outbox>,
    /// Where its log lines and records go.
    pub telemetry: Telemetry,
    /// What is counted for it.
    pub metrics: Arc<FunctionMetrics>,
    /// The directories that it mounts, open.
    pub(crate) mounts: Mounts,
    /// Whom it may reach with sockets.
    pub(crate) reach: Arc<Reach>,
}

/// The invocation an instance works on.
pub(crate) struct Current {
    pub(crate) call: Call,
    pub(crate) deadline: Instant,
}

impl Current {
    /// The deadline on the wall clock, in milliseconds since 1970.
    pub(crate) fn deadline_unix(&self) -> u64 {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from((now + left).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The data of one store.
pub struct State {
    pub(crate) common: Arc<Common>,
    pub(crate) limiter: MemoryLimiter,
    /// When whatever runs now must have ended.
    pub(crate) deadline: Instant,
    /// Where it waits for its turns.
    pub(crate) seat: Arc<Seat>,
    pub(crate) current: Option<Current>,
    /// Calls that send something and are under way.
    pub(crate) posting: Arc<AtomicUsize>,
    pub(crate) table: ResourceTable,
    /// After the table: what is open is to be closed here.
    pub(crate) held: Held,
    /// After the table, too: their room is free when they are closed.
    pub(crate) sockets: Sockets,
    /// Made when the guest first asks for something of WASI: most handlers
    /// never do.
    wasi: Option<Box<WasiCtx>>,
    pub(crate) http: Http,
    pub(crate) output: Option<Arc<Output>>,
    /// Names the instance in the log stream.
    pub(crate) log_stream: Option<String>,
}

impl State {
    pub(crate) fn new(
        common: &Arc<Common>,
        budget: &Arc<Budget>,
        need: Need,
        deadline: Instant,
        seat: &Arc<Seat>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self {
            limiter: MemoryLimiter::new(common.spec.limits.memory.0, budget, need),
            common: Arc::clone(common),
            deadline,
            seat: Arc::clone(seat),
            current: None,
            posting: Arc::default(),
            table,
            held: Held::default(),
            sockets: Sockets::default(),
            wasi: None,
            http: Http::new(),
            output: None,
            log_stream: None,
        }
    }

    /// An invocation begins.
    pub(crate) fn begin(&mut self, current: Current) {
        self.deadline = current.deadline;
        self.limiter.begin();
        if let Some(output) = &self.output {
            output.begin(Some(&current.call));
        }
        self.current = Some(current);
    }

    /// It ended. Answers when another attempt makes sense, if the guest said so.
    pub(crate) fn end(&mut self) -> Option<Duration> {
        if let Some(output) = &self.output {
            output.end();
        }
        self.current.take()?.call.retry_after
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Self {
            common,
            current,
            table,
            wasi,
            output,
            ..
        } = self;
        let ctx = wasi.get_or_insert_with(|| {
            let made = Output::new(Arc::clone(common));
            made.begin(current.as_ref().map(|current| &current.call));
            *output = Some(Arc::clone(&made));
            Box::new(capability::wasi::context(
                &common.spec,
                &common.reach,
                &made,
            ))
        });
        WasiCtxView { ctx, table }
    }
}
