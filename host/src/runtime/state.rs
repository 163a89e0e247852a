//! What belongs to one instance: the data of its store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime::component::{GuestTaskId, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::budget::{Budget, Charge, MemoryLimiter, Need};
use super::engine::Clock;
use super::lifecycle::Lifecycle;
use super::turns::{Seat, Share};
use crate::capability::console::Console;
use crate::capability::files::{Held, Mounts};
use crate::capability::outbound::Http;
use crate::capability::sockets::{Reach, Sockets};
use crate::capability::{self, stdio::Output};
use crate::egress::Client;
use crate::function::FunctionSpec;
use crate::invocation::{Call, Outbox};
use crate::key_value::Buckets;
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
    /// It is a program: its event is on stdin, its answer on stdout.
    pub(crate) is_command: bool,
    /// Where its buckets are.
    pub(crate) buckets: Arc<Buckets>,
    /// The directories that it mounts, open.
    pub(crate) mounts: Mounts,
    /// What is called beside its handlers.
    pub lifecycle: Lifecycle,
    /// Sends its requests to others.
    pub(crate) client: Arc<Client>,
    /// Whom it may reach with sockets.
    pub(crate) reach: Arc<Reach>,
}

/// The invocation an instance works on.
pub(crate) struct Current {
    pub(crate) call: Box<Call>,
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
    /// The other invocations, if it serves several at once, by the tasks that run them.
    others: HashMap<GuestTaskId, Current>,
    /// The task of the current one then.
    task: Option<GuestTaskId>,
    /// Calls that send something and are under way.
    pub(crate) posting: Arc<AtomicUsize>,
    /// Before the table: no body that ends with its instance is taken for a whole one.
    pub(crate) http: Http,
    pub(crate) table: ResourceTable,
    /// After the table: what is open is to be closed here.
    pub(crate) held: Held,
    /// After the table, too: their room is free when they are closed.
    pub(crate) sockets: Sockets,
    /// Made when the guest first asks for something of WASI: most handlers
    /// never do.
    wasi: Option<Box<WasiCtx>>,
    /// What it reads and writes if it is a program.
    console: Option<Arc<Console>>,
    pub(crate) output: Option<Arc<Output>>,
    /// What the last answer of a bucket holds of the memory budget.
    pub(crate) answer: Option<Charge>,
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
            others: HashMap::new(),
            task: None,
            posting: Arc::default(),
            http: Http::new(&common.client, deadline),
            table,
            held: Held::default(),
            sockets: Sockets::default(),
            wasi: None,
            console: None,
            output: None,
            answer: None,
            log_stream: None,
        }
    }

    /// What it reads and writes as a program.
    pub(crate) fn console(&mut self) -> Arc<Console> {
        let Self {
            console,
            common,
            limiter,
            ..
        } = self;
        let limit = common.spec.limits.response.0;
        Arc::clone(console.get_or_insert_with(|| Console::new(limit, limiter.budget())))
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

    /// The guest runs outside an invocation, until then.
    pub(crate) fn outside_until(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.limiter.begin();
        if let Some(output) = &self.output {
            output.begin(None);
        }
    }

    /// Whether the guest asked for anything of WASI.
    pub(crate) fn asked(&self) -> bool {
        self.wasi.is_some()
    }

    /// Whether it serves several requests at once.
    pub(crate) fn serves_several(&self) -> bool {
        self.task.is_some() || !self.others.is_empty()
    }

    /// One of several invocations begins, run by a task.
    pub(crate) fn join(&mut self, task: GuestTaskId, current: Current) {
        self.others.insert(task, current);
        if let Some(output) = &self.output {
            // Whose lines they are nobody can say.
            output.begin(None);
        }
    }

    /// One of several ended.
    pub(crate) fn part(&mut self, task: GuestTaskId) {
        self.focus(None);
        self.others.remove(&task);
    }

    /// Makes the invocation that a task runs the current one, or none.
    pub(crate) fn focus(&mut self, task: Option<GuestTaskId>) {
        if self.task == task {
            return;
        }
        if let (Some(before), Some(current)) = (self.task.take(), self.current.take()) {
            self.others.insert(before, current);
        }
        if let Some(task) = task {
            self.current = self.others.remove(&task);
            self.task = self.current.is_some().then_some(task);
        }
    }

    /// It ended. Answers when another attempt makes sense, if the guest said so.
    pub(crate) fn end(&mut self) -> Option<Duration> {
        if let Some(output) = &self.output {
            output.end();
        }
        self.answer = None;
        self.current.take()?.call.retry_after
    }
}

impl State {
    /// Where what the guest writes goes: made when it first writes, or may.
    pub(crate) fn output(&mut self) -> &Arc<Output> {
        self.output.get_or_insert_with(|| {
            let made = Output::new(Arc::clone(&self.common));
            made.begin(self.current.as_ref().map(|current| &*current.call));
            made
        })
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            let console = self.common.is_command.then(|| self.console());
            let output = Arc::clone(self.output());
            let common = &self.common;
            let console = console.as_ref();
            let context = capability::wasi::context(&common.spec, &common.reach, &output, console);
            self.wasi = Some(Box::new(context));
        }
        let Self { table, wasi, .. } = self;
        let ctx = wasi.as_mut().expect("it was just made");
        WasiCtxView { ctx, table }
    }
}
