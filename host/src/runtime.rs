//! The engine room: compiles, links, keeps instances ready and runs them under
//! their limits. Knows wasmtime; knows nothing of triggers.

mod awake;
mod budget;
mod cache;
mod code;
mod command;
mod compile;
mod concurrent;
mod cores;
mod demand;
mod digest;
mod ending;
mod engine;
mod error;
mod handlers;
mod identity;
mod inspect;
mod instance;
mod lifecycle;
mod setback;
mod slice;
mod snapshot;
mod state;
mod streaming;
mod turns;
mod version;

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;
use wasmtime::component::Linker;

pub(crate) use budget::MemoryLimiter;
pub use budget::{Budget, Charge};
pub use compile::{CompileError, Compiler, MAX_COMPONENT, compile_component};
pub(crate) use cores::elsewhere;
pub use cores::{Cores, Load};
pub use digest::Digest;
pub use engine::{MemoryReset, PagemapUnsafe};
pub use error::{ComponentError, StartError};
pub use inspect::{Inspected, Inspections, inspect, inspect_all};
pub(crate) use instance::timed_out;
pub use instance::{Instance, Unavailable};
pub use lifecycle::{Init, Lifecycle};
pub use slice::ask_for as ask_for_slice;
pub(crate) use slice::go_behind;
pub use snapshot::{NO_SNAPSHOT, snapshot_component};
pub use state::{Common, State};
pub use turns::Share;
pub(crate) use turns::charged;
pub use version::{Lease, Version};

use crate::capability;
use crate::capability::files::{Mounts, Space};
use crate::capability::sockets::Reach;
use crate::egress::{self, Client};
use crate::function::FunctionSpec;
use crate::invocation::{Door, Handler, Outbox};
use crate::key_value::Buckets;
use crate::telemetry::{Level, Telemetry};
use awake::Awake;
use cache::{Cache, Note};
use code::{Code, Codes, Rule};
use demand::{Bounds, FIRST};
use ending::Ending;
use snapshot::Order;
use version::INSTANTIATE_TIMEOUT;

/// Versions that are loaded or made ready at once, for each core.
pub const LOADED_AT_ONCE: usize = 4;
/// Slots beside those for concurrency and ready instances: for versions that drain while
/// their successors fill their pools, and for instances that end.
pub const RESERVE_SLOTS: u32 = 64;

/// How the runtime is set up.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Instances at once: host-wide concurrency, ready ones, and a reserve for
    /// versions that drain.
    pub slots: u32,
    /// Ready instances over all functions, at most.
    pub ready: u32,
    /// Ready instances of one version that does not say how many it keeps, at most.
    pub ready_per_function: u32,
    /// What ready instances may hold of the memory budget, in bytes.
    pub ready_memory: u64,
    /// Components whose machine code stays mapped, at most, but for those in use.
    pub mapped: u32,
    /// After so long without an event a version keeps nothing ready, and its machine
    /// code is unmapped.
    pub rest_after: Duration,
    /// The largest memory of a function, in bytes.
    pub max_memory: u64,
    /// What the scratch directories of all instances may hold together, in bytes.
    pub scratch_budget: u64,
    /// How memory is made new.
    pub memory_reset: MemoryReset,
    /// The host-wide budget in bytes.
    pub memory_budget: u64,
    /// How many cores run guests.
    pub cores: usize,
    /// The state directory; the cache lives in it.
    pub state: PathBuf,
    /// Who compiles.
    pub compiler: Compiler,
    /// Where files are read and compilers are waited for.
    pub blocking: Handle,
    /// The buckets of functions.
    pub buckets: Arc<Buckets>,
    /// The prefix of functions' ARNs: `arn:aws:lambda:REGION:ACCOUNT:function:`.
    pub arn_prefix: String,
}

/// What all versions share.
pub(crate) struct Shared {
    budget: Arc<Budget>,
    awake: Awake,
    cores: usize,
    /// Instances that wait, over all versions, and what they hold, in bytes.
    waiting: AtomicUsize,
    held: AtomicU64,
    /// How many may wait, and what they may hold.
    ready: usize,
    ready_memory: u64,
    ending: Ending,
}

/// The code that a version begins with.
struct Prepared {
    code: Arc<Code>,
    /// What became of `init`. `Kept` is yet to be seen if nothing was found before.
    init: Init,
    /// What was found of it before.
    note: Option<Note>,
    /// Names what is found if its `init` runs in each instance.
    late: Option<Digest>,
}

impl Prepared {
    /// What is known of a function's code by earlier starts. Reads files.
    fn find(
        codes: &Arc<Codes>,
        spec: &FunctionSpec,
        inspected: &Arc<Inspected>,
        order: Option<&Order>,
    ) -> Self {
        let code = codes.of(inspected, order);
        let note = code.note();
        let Some(order) = order else {
            return Self {
                code,
                init: Init::None,
                note,
                late: None,
            };
        };
        let late = order.digest_of_late(inspected.digest(), spec);
        if note.is_none() {
            let plain = codes.of(inspected, None);
            if let Some(note) = plain.note_for(&late) {
                return Self {
                    code: plain,
                    init: note.init.clone(),
                    note: Some(note),
                    late: Some(late),
                };
            }
        }
        Self {
            code,
            init: Init::Kept,
            note,
            late: Some(late),
        }
    }

    /// Whether it was found to be right for such a function.
    fn is_checked(&self, spec: &FunctionSpec) -> bool {
        let limits = &spec.limits;
        self.note.as_ref().is_some_and(|note| {
            note.init == self.init
                && note.memory <= limits.memory.0
                && note.fuel <= limits.fuel_units()
        })
    }
}

impl Shared {
    /// Whether another instance may wait.
    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < self.ready
            && self.held.load(Ordering::Relaxed) < self.ready_memory
    }

    /// Drops ready instances, so that somebody with work may have their slots
    /// and memory. Answers whether there were any.
    fn reclaim(&self) -> bool {
        self.awake
            .each()
            .iter()
            .map(|version| version.clear())
            .sum::<usize>()
            > 0
    }
}

/// The engine room.
pub struct Runtime {
    codes: Arc<Codes>,
    /// Ends its compilers.
    _ended: DropGuard,
    shared: Arc<Shared>,
    bounds: Bounds,
    telemetry: Telemetry,
    outbox: Arc<dyn Outbox>,
    buckets: Arc<Buckets>,
    egress: Arc<egress::Shared>,
    arn_prefix: String,
    memory_reset: MemoryReset,
    /// The state directory: no guest's.
    state: PathBuf,
    scratch: Arc<Space>,
    ticker: engine::Ticker,
}

impl Runtime {
    /// Sets it up.
    ///
    /// # Errors
    /// If this machine cannot do what is asked for.
    pub fn start(
        options: RuntimeOptions,
        telemetry: Telemetry,
        outbox: Arc<dyn Outbox>,
        egress: Arc<egress::Shared>,
    ) -> Result<Self, StartError> {
        let RuntimeOptions {
            slots,
            ready,
            ready_per_function,
            ready_memory,
            mapped,
            rest_after,
            max_memory,
            scratch_budget,
            memory_reset,
            memory_budget,
            cores,
            state,
            compiler,
            blocking,
            buckets,
            arn_prefix,
        } = options;
        let memory_reset = memory_reset.resolve()?;
        let broken = |error: wasmtime::Error| StartError::Engine {
            slots,
            message: format!("{error:#}"),
        };
        let engine = engine::running_engine(slots, max_memory, memory_reset).map_err(broken)?;
        let mut linker = Linker::new(&engine);
        capability::add_to_linker(&mut linker).map_err(broken)?;
        let budget = Budget::new(memory_budget);
        let shared = Arc::new(Shared {
            budget: Arc::clone(&budget),
            awake: Awake::default(),
            cores: cores.max(1),
            waiting: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            ready: ready as usize,
            ready_memory,
            ending: Ending::default(),
        });
        let weak = Arc::downgrade(&shared);
        budget.on_full(Box::new(move || {
            weak.upgrade().is_some_and(|shared| shared.reclaim())
        }));
        let cache = Cache::open(&state, compiler)?;
        let ticker = engine::Ticker::start(engine.clone())?;
        let rule = Rule {
            most: mapped as usize,
            rest_after,
        };
        let codes = Codes::new(engine, linker, cache, blocking, telemetry.clone(), rule);
        let scratch =
            Space::open(&state, scratch_budget, &telemetry).map_err(StartError::Scratch)?;
        Ok(Self {
            _ended: codes.ended.clone().drop_guard(),
            codes,
            ticker,
            shared,
            bounds: Bounds {
                most: ready_per_function as usize,
                rest_after,
            },
            telemetry,
            outbox,
            buckets,
            egress,
            arn_prefix,
            memory_reset,
            state,
            scratch,
        })
    }

    /// The host-wide memory budget.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    /// Says so if the disk has less room than scratch directories may take.
    pub fn check_scratch(&self) {
        let Ok(free) = self.scratch.free() else {
            return;
        };
        let budget = self.scratch.budget();
        if free < budget {
            let line = format!(
                "functions may fill the disk of the state directory: {free} bytes are free, \
                 and `scratch-budget` is {budget}"
            );
            self.telemetry.log.host(Level::Warn, &line);
        }
    }

    /// How memory is made new on this machine.
    #[must_use]
    pub fn memory_reset(&self) -> MemoryReset {
        self.memory_reset
    }

    /// Loads a version of a component that was inspected. One that this program has
    /// checked before rests: nothing of it is mapped, and nothing instantiated. Else its
    /// `init` is run and that state kept, it is compiled or taken from the cache, linked,
    /// instantiated once, and its handlers are checked. What its configuration wants ready
    /// is made ready, as far as that goes now: what was right once is deployed. Whoever
    /// drops this ends the compiler, too.
    ///
    /// # Errors
    /// All that is wrong with the component.
    pub async fn load(
        &self,
        spec: FunctionSpec,
        inspected: &Arc<Inspected>,
        version: &str,
        share: Arc<Share>,
    ) -> Result<Arc<Version>, Vec<ComponentError>> {
        let misfits = inspected.misfits(&spec);
        if !misfits.is_empty() {
            return Err(misfits.into_iter().map(|(_, error)| error).collect());
        }
        let arn = format!("{}{}", self.arn_prefix, spec.name);
        let invoke = inspected.doors().of_handler(Handler::Invoke);
        let is_command = invoke.is_some_and(Door::is_command);
        let order = inspected
            .initialises()
            .then(|| Order::new(&spec, version, &arn, is_command));
        let (mounts, mut prepared) = self.look_up(&spec, inspected, order).await?;
        let is_checked = prepared.is_checked(&spec);
        if !is_checked {
            let compiled = self.prepare(inspected, &mut prepared).await;
            compiled.map_err(|error| vec![error])?;
        }
        let Prepared {
            code, init, late, ..
        } = prepared;
        if let Init::EachInstance(why) = &init {
            let message = format!(
                "function {}: its `init` runs in each instance: {why}",
                spec.name
            );
            self.telemetry.log.host(Level::Info, &message);
        }
        let common = Arc::new(Common {
            version: version.to_owned(),
            clock: Arc::clone(self.ticker.clock()),
            arn,
            share,
            metrics: self.telemetry.metrics.function(&spec.name),
            telemetry: self.telemetry.clone(),
            outbox: Arc::clone(&self.outbox),
            is_command,
            buckets: Arc::clone(&self.buckets),
            mounts,
            lifecycle: Lifecycle::new(init, inspected.retires(), spec.isolation),
            client: Arc::new(Client::new(
                spec.name.clone(),
                spec.egress.clone(),
                Arc::clone(&self.egress),
                self.telemetry.metrics.function(&spec.name),
            )),
            reach: Reach::new(&spec.sockets, self.egress.own_addresses()),
            spec,
        });
        let version = Arc::new(Version::new(
            common,
            Arc::clone(&code),
            inspected.doors(),
            Arc::clone(&self.shared),
        ));
        if !is_checked {
            let note = check(&version).await.map_err(|error| vec![error])?;
            if let Some(note) = note {
                let function = late.filter(|_| version.common.lifecycle.runs_init());
                code.checked(function, note).await;
            }
        }
        if version.common.spec.provisioned.is_some()
            && let Some(refill) = begin_to_keep(&version)
        {
            refill.await;
        }
        Ok(version)
    }

    /// What the disk says of a version: its directories, and what is known of its code.
    async fn look_up(
        &self,
        spec: &FunctionSpec,
        inspected: &Arc<Inspected>,
        order: Option<Order>,
    ) -> Result<(Mounts, Prepared), Vec<ComponentError>> {
        let (spec, state) = (spec.clone(), self.state.clone());
        let (codes, inspected) = (Arc::clone(&self.codes), Arc::clone(inspected));
        let scratch = Arc::clone(&self.scratch);
        let look_up = move || {
            let prepared = Prepared::find(&codes, &spec, &inspected, order.as_ref());
            (Mounts::open(&spec, &state, &scratch), prepared)
        };
        let (mounts, prepared) = self
            .codes
            .blocking
            .spawn_blocking(look_up)
            .await
            .expect("opening directories does not panic");
        let mounts = mounts.map_err(|error| {
            vec![ComponentError::Mount {
                what: error.to_string(),
                remedy: error.remedy(),
            }]
        })?;
        Ok((mounts, prepared))
    }

    /// Compiles the code of a version: with the state that its `init` leaves, or else
    /// without. Checks what it exports beside its handlers.
    async fn prepare(
        &self,
        inspected: &Arc<Inspected>,
        prepared: &mut Prepared,
    ) -> Result<(), ComponentError> {
        let mapped = match prepared.code.compile().await {
            Err(ComponentError::Compile(CompileError::Untrue(why))) => {
                prepared.code = self.codes.of(inspected, None);
                prepared.init = Init::EachInstance(why);
                prepared.code.compile().await?
            }
            compiled => compiled?,
        };
        lifecycle::check(mapped.pre.component())
    }

    /// Makes instances ready of versions that were just loaded, of whom nobody knows yet
    /// what they will get, and that do not say how many they want: as many of each as all
    /// can have that are deployed, two at most. On a host with more functions than there
    /// is room for ready instances, they begin at rest. What takes long, such as an `init`
    /// that waits for others, is left to the keeper.
    pub async fn expect_events<'v>(
        &self,
        deployed: impl Iterator<Item = &'v Arc<Version>> + Clone,
        new: impl Iterator<Item = &'v Arc<Version>>,
    ) {
        let said = |version: &Arc<Version>| version.common.spec.provisioned;
        let promised: usize = deployed
            .clone()
            .filter_map(said)
            .map(|it| it as usize)
            .sum();
        let others = deployed.filter(|version| said(version).is_none()).count();
        let room = self.shared.ready.saturating_sub(promised);
        let each = (room / others.max(1)).min(FIRST).min(self.bounds.most);
        if each == 0 {
            return;
        }
        let begin = |version: &Arc<Version>| {
            version.begin_with(each);
            begin_to_keep(version)
        };
        let new = new.filter(|version| said(version).is_none());
        let refills: Vec<_> = new.filter_map(begin).collect();
        let mut refills = refills.into_iter();
        let mut under_way = JoinSet::new();
        let all = async {
            loop {
                while under_way.len() < self.shared.cores * LOADED_AT_ONCE
                    && let Some(refill) = refills.next()
                {
                    under_way.spawn(refill);
                }
                if under_way.join_next().await.is_none() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(INSTANTIATE_TIMEOUT, all).await;
    }

    /// Waits until the instances that end have ended.
    pub async fn ended(&self) {
        self.shared.ending.wait().await;
    }

    /// The host ends: drops the instances that wait, and has scratch directories emptied
    /// as far as that goes in a second. Blocks.
    pub fn end(&self) {
        for version in self.shared.awake.each() {
            version.retire();
        }
        self.scratch.end();
    }

    /// Deletes machine code that nobody needs any more. To be called when all
    /// versions are loaded: those are in use.
    pub fn prune(&self) {
        self.codes.cache.prune(&self.codes.engine);
    }

    /// Whoever waits for this calls the keeper before its time.
    #[must_use]
    pub fn calls_keeper(&self) -> Arc<Notify> {
        Arc::clone(&self.codes.look_after)
    }

    /// What looks after the versions that are awake: it drops instances that nobody asked
    /// for in a while, decides how many are kept, makes up for what was taken from a pool
    /// without an event, and lets rest what is not in use. To be called about once a
    /// second, and when it is called for; it takes some milliseconds, on a thread that is
    /// no core.
    pub fn keeper(&self, cores: &Arc<Cores>) -> impl Fn() + Send + Sync + 'static {
        let (shared, codes) = (Arc::clone(&self.shared), Arc::clone(&self.codes));
        let (cores, bounds) = (Arc::clone(cores), self.bounds);
        let last = Mutex::new(Instant::now());
        shared.ending.on(&cores);
        move || {
            let passed = {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::replace(&mut *last, Instant::now()).elapsed()
            };
            shared
                .awake
                .retain(|version| version.look_after(passed, bounds));
            codes.rest_oldest();
            let excess = codes.excess();
            if excess > 0 {
                give_way(&shared.awake, excess);
                codes.rest();
            }
            for version in shared.awake.each() {
                if let Some(refill) = version.begin_refill() {
                    cores.spawn(|load| async move {
                        let _load = load;
                        refill.await;
                    });
                }
            }
        }
    }
}

/// The keeper looks after the pool of a version from now on. Answers what fills it before.
fn begin_to_keep(version: &Arc<Version>) -> Option<impl Future<Output = ()> + use<>> {
    let refill = version.begin_refill();
    version.watch_over();
    refill
}

/// Of more components than may be mapped, those give way that had no event for the
/// longest time: what waits of them holds their code.
fn give_way(awake: &Awake, excess: usize) {
    let mut idle: Vec<_> = awake
        .each()
        .into_iter()
        .filter_map(|version| Some((version.idle()?, version)))
        .filter(|(idle, version)| *idle > Duration::ZERO && version.keeps_any())
        .collect();
    idle.sort_by_key(|(idle, _)| std::cmp::Reverse(*idle));
    for (_, version) in idle.into_iter().take(excess) {
        version.make_room();
    }
}

/// Instantiates a version once and checks its handlers. Answers what that found, if it
/// holds for whoever else has the same component.
async fn check(version: &Version) -> Result<Option<Note>, ComponentError> {
    let (mut cpu, deadline) = (Duration::ZERO, Instant::now() + INSTANTIATE_TIMEOUT);
    let first = version.instantiate(deadline, &mut cpu).await;
    let first = first.map_err(|unavailable| broken(version, unavailable))?;
    let note = first.start();
    let code = first.code.as_ref().expect("an instance has its code");
    first
        .handlers
        .check(code.exports, first.store())
        .map_err(|(handler, message)| ComponentError::WrongType(handler, message))?;
    Ok(note)
}

fn broken(version: &Version, unavailable: Unavailable) -> ComponentError {
    ComponentError::Instantiate(match unavailable {
        Unavailable::Full(message) => format!("it cannot be instantiated now: {message}"),
        Unavailable::Broken(failure) if version.common.lifecycle.runs_init() => {
            return ComponentError::Init(failure.message);
        }
        Unavailable::Broken(failure) => failure.message,
        Unavailable::TooSlow => format!(
            "it did not instantiate within {} seconds",
            INSTANTIATE_TIMEOUT.as_secs()
        ),
    })
}
