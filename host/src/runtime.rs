//! The engine room: compiles, links, keeps instances ready and runs them under
//! their limits. Knows wasmtime; knows nothing of triggers.

mod budget;
mod compile;
mod cores;
mod engine;
mod error;
mod handlers;
mod inspect;
mod instance;
mod slice;
mod state;
mod turns;
mod version;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

pub use budget::{Budget, Charge};
pub use compile::{CompileError, Compiler, Digest, MAX_COMPONENT, compile_component};
pub(crate) use cores::elsewhere;
pub use cores::{Cores, Load};
pub use engine::{MemoryReset, PagemapUnsafe};
pub use error::{ComponentError, StartError};
pub use inspect::{Inspected, inspect};
pub(crate) use instance::timed_out;
pub use instance::{Instance, Unavailable};
pub use slice::ask_for as ask_for_slice;
pub(crate) use slice::go_behind;
pub use state::{Common, State};
pub use turns::Share;
pub(crate) use turns::charged;
pub use version::{Lease, Version};

use crate::capability;
use crate::capability::files::{Mounts, Space};
pub use crate::capability::own_addresses::OwnAddresses;
use crate::capability::sockets::Reach;
use crate::function::FunctionSpec;
use crate::invocation::Outbox;
use crate::telemetry::{Level, Telemetry};
use handlers::Exports;
use version::{INSTANTIATE_TIMEOUT, Loaded};

/// Exports that have no effect yet.
const NOT_CALLED: [&str; 2] = ["dunlin:event/initialise@0.1.0", "dunlin:event/retire@0.1.0"];

/// How the runtime is set up.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Instances at once: host-wide concurrency, ready ones, and a reserve for
    /// versions that drain.
    pub slots: u32,
    /// Ready instances over all functions, at most.
    pub ready: u32,
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
    /// The prefix of functions' ARNs: `arn:aws:lambda:REGION:ACCOUNT:function:`.
    pub arn_prefix: String,
}

/// What all versions share.
pub(crate) struct Shared {
    budget: Arc<Budget>,
    loaded: Loaded,
    cores: usize,
    /// Instances that wait, over all versions, and how many may.
    waiting: AtomicUsize,
    ready: usize,
}

impl Shared {
    /// Drops ready instances, so that somebody with work may have their slots
    /// and memory. Answers whether there were any.
    fn reclaim(&self) -> bool {
        self.loaded
            .each()
            .iter()
            .map(|version| version.clear())
            .sum::<usize>()
            > 0
    }
}

/// The engine room.
pub struct Runtime {
    engine: Engine,
    linker: Linker<State>,
    cache: Arc<compile::Cache>,
    shared: Arc<Shared>,
    telemetry: Telemetry,
    outbox: Arc<dyn Outbox>,
    arn_prefix: String,
    memory_reset: MemoryReset,
    /// The state directory: no guest's.
    state: PathBuf,
    scratch: Arc<Space>,
    own_addresses: Arc<OwnAddresses>,
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
    ) -> Result<Self, StartError> {
        let RuntimeOptions {
            slots,
            ready,
            max_memory,
            scratch_budget,
            memory_reset,
            memory_budget,
            cores,
            state,
            compiler,
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
            loaded: Loaded::default(),
            cores: cores.max(1),
            waiting: AtomicUsize::new(0),
            ready: ready as usize,
        });
        let weak = Arc::downgrade(&shared);
        budget.on_full(Box::new(move || {
            weak.upgrade().is_some_and(|shared| shared.reclaim())
        }));
        let cache = Arc::new(compile::Cache::open(&state, compiler)?);
        let scratch =
            Space::open(&state, scratch_budget, &telemetry).map_err(StartError::Scratch)?;
        Ok(Self {
            cache,
            ticker: engine::Ticker::start(engine.clone())?,
            engine,
            linker,
            shared,
            telemetry,
            outbox,
            arn_prefix,
            memory_reset,
            state,
            scratch,
            own_addresses: Arc::default(),
        })
    }

    /// The host-wide memory budget.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    /// The addresses that this host serves: to be told, so that no guest reaches them.
    #[must_use]
    pub fn own_addresses(&self) -> &OwnAddresses {
        &self.own_addresses
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

    /// Loads a version: reads, compiles or takes from the cache, links, checks
    /// the handlers, instantiates once and fills the pool. Whoever drops this ends
    /// the compiler, too.
    ///
    /// # Errors
    /// All that is wrong with the component.
    pub async fn load(
        &self,
        spec: FunctionSpec,
        component: &Path,
        version: &str,
        share: Arc<Share>,
    ) -> Result<Arc<Version>, Vec<ComponentError>> {
        let (digest, code) = self.compiled(&spec, component).await?;
        let (state, scratch) = (self.state.clone(), Arc::clone(&self.scratch));
        let of = spec.clone();
        let mounts = tokio::task::spawn_blocking(move || Mounts::open(&of, &state, &scratch))
            .await
            .expect("opening directories does not panic")
            .map_err(|error| {
                vec![ComponentError::Mount {
                    what: error.to_string(),
                    remedy: error.remedy(),
                }]
            })?;
        self.link(spec, digest, code, version, share, mounts)
            .await
            .map_err(|error| vec![error])
    }

    async fn compiled(
        &self,
        spec: &FunctionSpec,
        component: &Path,
    ) -> Result<(Digest, Component), Vec<ComponentError>> {
        let spec = spec.clone();
        let (engine, cache) = (self.engine.clone(), Arc::clone(&self.cache));
        let component = component.to_owned();
        let wanted = CancellationToken::new();
        let cancelled = wanted.clone();
        let _unless_dropped = wanted.drop_guard();
        tokio::task::spawn_blocking(move || {
            let inspected = inspect(&component)?;
            let unhandled = inspected.unhandled(&spec);
            if !unhandled.is_empty() {
                return Err(unhandled.into_iter().map(|(_, error)| error).collect());
            }
            let bytes = inspected.bytes;
            let digest = Digest::of(&bytes);
            let code = cache
                .get(&engine, &digest, &bytes, &cancelled)
                .map_err(|error| vec![ComponentError::Compile(error)])?;
            Ok((digest, code))
        })
        .await
        .expect("compiling does not panic")
    }

    async fn link(
        &self,
        spec: FunctionSpec,
        digest: Digest,
        code: Component,
        version: &str,
        share: Arc<Share>,
        mounts: Mounts,
    ) -> Result<Arc<Version>, ComponentError> {
        let pre = self
            .linker
            .instantiate_pre(&code)
            .map_err(|error| ComponentError::Link(format!("{error:#}")))?;
        let exports = Exports::of(&code)?;
        let common = Arc::new(Common {
            version: version.to_owned(),
            clock: Arc::clone(self.ticker.clock()),
            arn: format!("{}{}", self.arn_prefix, spec.name),
            share,
            metrics: self.telemetry.metrics.function(&spec.name),
            telemetry: self.telemetry.clone(),
            outbox: Arc::clone(&self.outbox),
            mounts,
            reach: Reach::new(&spec.sockets, &self.own_addresses),
            spec,
        });
        let version = Arc::new(Version::new(
            common,
            digest,
            pre,
            exports,
            Arc::clone(&self.shared),
        ));

        let mut cpu = std::time::Duration::ZERO;
        let broken = |unavailable: Unavailable| {
            ComponentError::Instantiate(match unavailable {
                Unavailable::Full(message) => format!("it cannot be instantiated now: {message}"),
                Unavailable::Broken(failure) => failure.message,
                Unavailable::TooSlow => format!(
                    "it did not instantiate within {} seconds",
                    INSTANTIATE_TIMEOUT.as_secs()
                ),
            })
        };
        let deadline = Instant::now() + INSTANTIATE_TIMEOUT;
        let first = version
            .instantiate(deadline, &mut cpu)
            .await
            .map_err(broken)?;
        first
            .handlers
            .check(exports, first.store())
            .map_err(|(handler, message)| ComponentError::WrongType(handler, message))?;
        drop(first);
        match version.fill().await {
            // A full house keeps fewer ready; what is there still serves.
            Ok(()) | Err(Unavailable::Full(_)) => {}
            Err(unavailable) => return Err(broken(unavailable)),
        }
        self.shared.loaded.add(&version);
        Ok(version)
    }

    /// The host ends: drops the instances that wait, and has scratch directories emptied
    /// as far as that goes in a second. Blocks.
    pub fn end(&self) {
        for version in self.shared.loaded.each() {
            version.retire();
        }
        self.scratch.end();
    }

    /// Deletes machine code that nobody needs any more. To be called when all
    /// versions are loaded: those are in use.
    pub fn prune(&self) {
        self.cache.prune(&self.engine);
    }

    /// What looks after the pools: drops reused instances that nobody asked for
    /// in a while, and makes up for what was taken from a pool without an event.
    /// To be called now and then, and after a deployment.
    pub fn keeper(&self, cores: &Arc<Cores>) -> impl Fn() + Send + Sync + 'static {
        let (shared, cores) = (Arc::clone(&self.shared), Arc::clone(cores));
        move || {
            for version in shared.loaded.each() {
                version.reap();
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
