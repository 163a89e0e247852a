//! The host as a whole: builds the parts once, binds, serves, swaps what is
//! deployed, and drains in order.

mod buckets;
mod disk;
mod machine;
mod queues;
mod state_dir;
mod triggers;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

pub use machine::{default_memory_budget, raise_file_limit};
pub use state_dir::{StateDir, StateDirError};

use crate::api::credentials::{Credentials, CredentialsError};
use crate::api::guard::Guard;
use crate::api::lambda::Lambda;
use crate::api::operator::Operator;
use crate::api::schedules::Schedules;
use crate::api::server::{self, Admin};
use crate::api::sqs::Sqs;
use crate::config::{Config, DEFAULT_READY_MEMORY_PERCENT, Problem, Problems, Signatures};
use crate::dispatch::{Admission, Catalogue, Dispatcher, Function};
use crate::egress::{self, Roots, SystemResolver};
use crate::function::{Destination, FunctionName, FunctionSpec};
use crate::invocation::Handler;
use crate::key_value::{self, Buckets};
use crate::queue::sqlite::{self, SqliteQueues};
use crate::queue::{QueueError, QueueStore};
use crate::runtime::{
    Compiler, ComponentError, Cores, Init, Inspected, Runtime, RuntimeOptions, Share, StartError,
    Version, inspect,
};
use crate::store::{Clock, Disks, OpenError, SystemClock, WriteError};
use crate::telemetry::{Level, Log, Metrics, Telemetry};
use crate::trigger::asynchronous::{Deliveries, HostOutbox, Intake, Surroundings};
use crate::trigger::feed::Feeds;
use crate::trigger::http::{self, Draining, HttpTrigger, Limits, Listener, Routes, Target};
use crate::trigger::schedule::{Scheduler, Timetable};
use triggers::Triggers;

/// Slots beside those for concurrency and ready instances: for versions that
/// drain while their successors fill their pools.
const DRAIN_SLOTS: u32 = 64;
/// Once time is up, how long connections get to send their 503.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How often versions are looked after that are awake: how many instances they keep, and
/// whether they rest.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Functions that are loaded at once, for each core.
const LOADED_AT_ONCE: usize = 4;
/// The version that the manifest's functions run as.
const LATEST: &str = "$LATEST";

/// Why the host does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The manifest's functions cannot be deployed.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// The runtime cannot be set up.
    #[error(transparent)]
    Runtime(#[from] StartError),
    /// The admin key cannot be had.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// An address cannot be bound.
    #[error(
        "cannot listen on {address} ({key}): {error}; choose another address, or end what uses it"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The key and the option that set it.
        key: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The queues or the buckets cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The manifest's buckets cannot be declared.
    #[error("the buckets of the manifest: {0}")]
    Buckets(#[from] WriteError),
    /// The manifest's queues cannot be declared.
    #[error("the queues of the manifest: {0}")]
    Queue(#[from] QueueError),
    /// A thread or runtime cannot be started.
    #[error("cannot start")]
    Io(#[from] std::io::Error),
    /// The metrics cannot be registered: a mistake in the program.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
}

/// The addresses that are served.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The HTTP trigger.
    pub http: SocketAddr,
    /// The Lambda API.
    pub admin: SocketAddr,
    /// Health and metrics.
    pub metrics: SocketAddr,
}

/// A host that serves.
pub struct App {
    parts: Parts,
    addresses: Addresses,
    operator: Operator,
    trigger: Arc<HttpTrigger>,
    draining: watch::Sender<Draining>,
    api_draining: watch::Sender<bool>,
    http: JoinHandle<()>,
    api: Vec<JoinHandle<()>>,
    cores: Arc<Cores>,
    /// Direct invocations that run, whether their clients wait or not.
    direct: TaskTracker,
    /// Invocations that nobody waits for.
    background: TaskTracker,
    triggers: Triggers,
    keeper: JoinHandle<()>,
    queues: Arc<SqliteQueues>,
    buckets: Arc<Buckets>,
    /// Wakes it before its time.
    look_after: Arc<Notify>,
    deployed: Deployed,
    drain_timeout: Duration,
}

/// What a deployment needs.
struct Parts {
    runtime: Arc<Runtime>,
    dispatcher: Arc<Dispatcher>,
    telemetry: Telemetry,
    concurrency: u32,
    cores: usize,
}

/// What is deployed now.
struct Deployed {
    admission: Admission,
    functions: Vec<(FunctionSpec, Arc<Version>)>,
}

impl App {
    /// Loads the functions, binds the addresses, and serves. Must be called in
    /// a runtime of its own: the cores have theirs.
    ///
    /// # Errors
    /// If anything is wrong; then nothing was served.
    pub async fn start(
        config: &Config,
        state: &StateDir,
        compiler: Compiler,
        log: Log,
    ) -> Result<Self, AppError> {
        let host = &config.host;
        let telemetry = Telemetry {
            log,
            metrics: Arc::new(Metrics::new()?),
            log_invocations: host.log.invocations,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let identity = &host.identity;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let database = state.path().join(sqlite::FILE_NAME);
        let (queues, _) = SqliteQueues::open(&database, Arc::clone(&clock))?;
        telemetry.metrics.show_store(queues.metrics())?;
        let queues = Arc::new(queues);
        let database = state.path().join(key_value::FILE_NAME);
        let (buckets, _) = Buckets::open(&database, Arc::clone(&clock), Handle::current())?;
        telemetry.metrics.show_store(buckets.metrics())?;
        let buckets = Arc::new(buckets);
        let store = Arc::clone(&queues) as Arc<dyn QueueStore>;
        let dispatcher = Arc::new(Dispatcher::new(telemetry.clone()));
        let outbox = HostOutbox::new(Arc::clone(&dispatcher), Arc::clone(&store));
        let budget = host.runtime.memory_budget;
        let budget = budget.map_or_else(default_memory_budget, |budget| budget.0);
        let ready_memory = host.runtime.ready_memory.map_or_else(
            || budget / 100 * DEFAULT_READY_MEMORY_PERCENT,
            |memory| memory.0,
        );
        let egress = Arc::new(egress::Shared::new(
            Arc::new(SystemResolver::new(Handle::current())),
            Roots::new(host.egress.roots.clone()),
            host.egress.connections as usize,
            telemetry.log.clone(),
        ));
        let runtime = Runtime::start(
            RuntimeOptions {
                slots: host.admission.concurrency + host.runtime.ready + DRAIN_SLOTS,
                ready: host.runtime.ready,
                ready_per_function: host.runtime.ready_per_function,
                ready_memory,
                mapped: host.runtime.mapped,
                rest_after: host.runtime.rest_after,
                max_memory: host.runtime.max_memory.0,
                scratch_budget: host.runtime.scratch_budget.0,
                memory_reset: host.runtime.memory_reset,
                memory_budget: budget,
                cores,
                state: state.path().to_owned(),
                compiler,
                blocking: Handle::current(),
                buckets: Arc::clone(&buckets),
                arn_prefix: format!(
                    "arn:aws:lambda:{}:{}:function:",
                    identity.region, identity.account
                ),
            },
            telemetry.clone(),
            Arc::new(outbox),
            Arc::clone(&egress),
        )?;
        let keys = vec![Credentials::load_or_create(state.path())?];
        let parts = Parts {
            runtime: Arc::new(runtime),
            dispatcher,
            telemetry,
            cores,
            concurrency: host.admission.concurrency,
        };

        let configured = [host.http.listen, host.admin.listen];
        let configured = configured.into_iter().chain(host.metrics.listen);
        parts.runtime.own_addresses().set(configured);
        let versions = parts.load(config, &[]).await?;
        parts.runtime.prune();
        if config.functions.iter().any(|spec| spec.scratch.is_some()) {
            parts.runtime.check_scratch();
        }
        let admission = Admission::new(
            parts.concurrency,
            host.admission.wait,
            versions.iter().map(|(spec, _)| spec),
        );

        queues::declare(&*queues, config, &parts.telemetry).await?;
        buckets::declare(&buckets, config, &parts.telemetry).await?;

        // All is well: only now anything listens.
        let http_socket = bind(host.http.listen, "host.http, --http")?;
        let admin_socket = bind(host.admin.listen, "host.admin, --admin")?;
        let metrics_socket = host
            .metrics
            .listen
            .map(|address| bind(address, "host.metrics, --metrics"))
            .transpose()?;
        let addresses = Addresses {
            http: http_socket.local_addr()?,
            admin: admin_socket.local_addr()?,
            metrics: metrics_socket
                .as_ref()
                .unwrap_or(&admin_socket)
                .local_addr()?,
        };

        // Before any function serves.
        egress.listens_on(vec![addresses.http, addresses.admin, addresses.metrics]);
        let bound = [addresses.http, addresses.admin, addresses.metrics];
        parts.runtime.own_addresses().set(bound);

        let cores = Arc::new(Cores::start(cores)?);
        let (draining, drained) = watch::channel(Draining::No);
        let limits = Limits {
            header_timeout: host.http.header_timeout,
            body_timeout: host.http.body_timeout,
            idle_timeout: host.http.idle_timeout,
            min_rate: host.http.min_rate.0,
            max_connections: host.http.max_connections as usize,
            max_header_bytes: host.http.max_header_bytes.as_usize(),
            max_headers: host.http.max_headers as usize,
        };
        let trigger = HttpTrigger::new(
            Arc::clone(&parts.dispatcher),
            parts.telemetry.clone(),
            Arc::clone(parts.runtime.budget()),
            limits,
            drained,
        );
        let deployed = Deployed {
            admission,
            functions: versions,
        };
        parts.deploy(&deployed, &trigger)?;

        let around = Surroundings {
            dispatcher: Arc::clone(&parts.dispatcher),
            queues: Arc::clone(&store),
            budget: Arc::clone(parts.runtime.budget()),
            blocking: Handle::current(),
            telemetry: parts.telemetry.clone(),
            account: identity.account.as_str().into(),
            region: identity.region.as_str().into(),
        };
        let feeds = Feeds {
            queues: Arc::clone(&store),
            cores: Arc::clone(&cores),
            running: TaskTracker::new(),
            telemetry: parts.telemetry.clone(),
        };
        let background = feeds.running.clone();
        let timetable = Timetable::default();
        let scheduler = Scheduler {
            queues: Arc::clone(&store),
            clock: Arc::clone(&clock),
            telemetry: parts.telemetry.clone(),
            timetable: timetable.clone(),
        };
        let deliveries = Deliveries {
            around: around.clone(),
            egress: Arc::clone(&egress),
            running: feeds.running.clone(),
        };
        let mut triggers = Triggers::new(
            feeds,
            deliveries,
            around,
            queues.receipt_key().clone(),
            scheduler,
        );
        triggers.follow(config).await?;

        let disks = Disks::of([queues.disk(), buckets.disk()]);
        let operator = Operator::new(
            parts.telemetry.clone(),
            Arc::clone(parts.runtime.budget()),
            Arc::clone(&store),
            Arc::clone(&buckets),
            disks.clone(),
        );
        let telling = disk::tell(disks, Arc::clone(&buckets), parts.telemetry.clone());
        tokio::spawn(telling);
        let (api_draining, api_drained) = watch::channel(false);
        let lambda = Lambda::new(
            Arc::clone(&parts.dispatcher),
            Arc::clone(&cores),
            Arc::clone(parts.runtime.budget()),
            Intake::new(Arc::clone(&store)),
            parts.telemetry.clone(),
            identity.account.clone(),
            identity.region.clone(),
        );
        let direct = lambda.running().clone();
        let admin = Arc::new(Admin {
            guard: Guard::new(addresses.admin, &[])
                .expect("an address without further names is a guard"),
            keys,
            signatures: host.admin.signatures,
            lambda,
            sqs: Sqs::new(
                store,
                queues.receipt_key().clone(),
                identity.account.clone(),
                identity.region.clone(),
                Schedules { timetable, clock },
                api_drained.clone(),
            ),
            operator: metrics_socket.is_none().then(|| operator.clone()),
            room: Admin::room(),
        });
        if host.admin.signatures == Signatures::Waived {
            parts.telemetry.log.host(
                Level::Warn,
                "the admin address takes unsigned requests (--insecure-admin)",
            );
        }
        let http = tokio::spawn(
            Listener::new(http_socket)?.serve(Arc::clone(&trigger), Arc::clone(&cores)),
        );
        let mut api = vec![tokio::spawn(server::serve(
            TcpListener::from_std(admin_socket)?,
            api_drained.clone(),
            server::admin(admin),
        ))];
        if let Some(socket) = metrics_socket {
            let listener = TcpListener::from_std(socket)?;
            api.push(tokio::spawn(server::serve(
                listener,
                api_drained,
                server::metrics(operator.clone()),
            )));
        }
        let look_after = parts.runtime.calls_keeper();
        let keeper = tokio::spawn({
            let keep = Arc::new(parts.runtime.keeper(&cores));
            let look_after = Arc::clone(&look_after);
            async move {
                loop {
                    let _ = timeout(KEEP_INTERVAL, look_after.notified()).await;
                    let keep = Arc::clone(&keep);
                    // It may panic; the next time is another one.
                    let _ = tokio::task::spawn_blocking(move || keep()).await;
                }
            }
        });
        let reset = parts.runtime.memory_reset().as_str();
        let message = format!(
            "ready: memory-reset is {reset}, the memory budget {} bytes",
            parts.runtime.budget().limit()
        );
        parts.telemetry.log.host(Level::Info, &message);
        operator.set_ready(true);
        Ok(Self {
            parts,
            addresses,
            operator,
            trigger,
            draining,
            api_draining,
            http,
            api,
            cores,
            direct,
            background,
            triggers,
            keeper,
            queues,
            buckets,
            look_after,
            deployed,
            drain_timeout: host.drain_timeout,
        })
    }

    /// The addresses that are served.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until the disk of the queues or of the buckets has failed, and says how. Nothing
    /// is accepted any more then: the host is to end.
    pub fn broken(&self) -> impl Future<Output = String> + use<> {
        let (queues, buckets) = (Arc::clone(&self.queues), Arc::clone(&self.buckets));
        let log = self.parts.telemetry.log.clone();
        async move {
            let why = tokio::select! {
                why = queues.broken() => why,
                why = buckets.broken() => why,
            };
            log.host(Level::Error, &format!("{why}: the host ends"));
            why
        }
    }

    /// The functions that are deployed.
    pub fn functions(&self) -> impl Iterator<Item = &FunctionSpec> {
        self.deployed.functions.iter().map(|(spec, _)| spec)
    }

    /// Functions whose `init` runs in each instance, and why.
    pub fn initialised_late(&self) -> impl Iterator<Item = (&FunctionName, &str)> {
        let functions = self.deployed.functions.iter();
        functions.filter_map(|(spec, version)| match &version.common.lifecycle.init {
            Init::EachInstance(why) => Some((&spec.name, why.as_str())),
            Init::None | Init::Kept => None,
        })
    }

    /// Puts other functions in force. What is the same goes on as it is; what
    /// runs ends on what it began with.
    ///
    /// # Errors
    /// If one cannot be deployed: then all stays as it was.
    pub async fn swap(&mut self, config: &Config) -> Result<(), AppError> {
        let versions = self.parts.load(config, &self.deployed.functions).await?;
        queues::declare(&*self.queues, config, &self.parts.telemetry).await?;
        buckets::declare(&self.buckets, config, &self.parts.telemetry).await?;
        let admission = self.deployed.admission.again(
            self.parts.concurrency,
            versions.iter().map(|(spec, _)| spec),
        );
        let deployed = Deployed {
            admission,
            functions: versions,
        };
        self.parts.deploy(&deployed, &self.trigger)?;
        self.deployed = deployed;
        self.triggers.follow(config).await?;
        // What was retired has left room for those that stay.
        self.look_after.notify_one();
        Ok(())
    }

    /// Ends in order: not ready, no new connections, what runs ends; after the
    /// drain timeout what still runs gets 503. Answers whether all ended by
    /// itself.
    pub async fn drain(self) -> bool {
        let Self {
            parts,
            operator,
            trigger,
            draining,
            api_draining,
            mut http,
            mut api,
            cores,
            direct,
            background,
            triggers,
            keeper,
            deployed,
            drain_timeout,
            ..
        } = self;
        operator.set_ready(false);
        parts.telemetry.log.host(Level::Info, "draining");
        trigger.close();
        // No new direct invocations either; the API goes on to answer.
        direct.close();
        draining.send_replace(Draining::Yes);
        let deadline = Instant::now() + drain_timeout;
        // What waits in queues waits for the next start.
        background.close();
        let mut in_time = timeout_at(deadline, triggers.stop()).await.is_ok();
        in_time &= timeout_at(deadline, &mut http).await.is_ok();
        // Last: until here health and metrics show the drain. Direct
        // invocations have the rest of the time.
        api_draining.send_replace(true);
        for server in &mut api {
            in_time &= timeout_at(deadline, server).await.is_ok();
        }
        // Those whose clients are gone, too: they were accepted.
        in_time &= timeout_at(deadline, direct.wait()).await.is_ok();
        in_time &= timeout_at(deadline, trigger.wait()).await.is_ok();
        in_time &= timeout_at(deadline, background.wait()).await.is_ok();
        if !in_time {
            let message = "the drain timeout has passed: what still runs is ended";
            parts.telemetry.log.host(Level::Warn, message);
            draining.send_replace(Draining::Expired);
            let last = Instant::now() + LAST_ANSWERS;
            if !http.is_finished() {
                let _ = timeout_at(last, &mut http).await;
            }
            http.abort();
            api.iter().for_each(JoinHandle::abort);
        }
        // Reused instances end by their `shutdown`, while there is time.
        for (_, version) in &deployed.functions {
            version.retire();
        }
        let _ = timeout_at(deadline, parts.runtime.ended()).await;
        // What is left on the cores ends here, and is recorded as cancelled.
        tokio::task::block_in_place(|| {
            cores.stop();
            parts.runtime.end();
        });
        keeper.abort();
        parts.telemetry.log.host(Level::Info, "drained");
        in_time
    }
}

impl Parts {
    /// Loads what is not loaded yet, and finds every problem. Several at once: most of it
    /// is to wait for the disk.
    async fn load(
        &self,
        config: &Config,
        before: &[(FunctionSpec, Arc<Version>)],
    ) -> Result<Vec<(FunctionSpec, Arc<Version>)>, Problems> {
        let before: HashMap<&FunctionName, _> = before
            .iter()
            .map(|(spec, old)| (&spec.name, (spec, old)))
            .collect();
        let mut loaded = BTreeMap::new();
        let mut problems = BTreeMap::new();
        let mut loading = JoinSet::new();
        let mut specs = config.functions.iter().enumerate();
        loop {
            while loading.len() < self.cores * LOADED_AT_ONCE
                && let Some((index, spec)) = specs.next()
            {
                let Some(path) = spec.component.file() else {
                    let place = &config.places[&spec.name];
                    let problem = place.problem("it is not built", "run `dunlin build`");
                    problems.insert(index, vec![problem]);
                    continue;
                };
                let old = before.get(&spec.name).map(|(old, version)| {
                    let same = *old == spec;
                    (same, old.weight, Arc::clone(version))
                });
                let inspected = config.inspected.get(path).map(Arc::clone);
                let (runtime, cores) = (Arc::clone(&self.runtime), self.cores);
                let (spec, path) = (spec.clone(), path.to_owned());
                loading.spawn(async move {
                    (
                        index,
                        load_one(&runtime, spec, path, inspected, old, cores).await,
                    )
                });
            }
            match loading.join_next().await {
                Some(Ok((index, Ok(version)))) => {
                    loaded.insert(index, (config.functions[index].clone(), version));
                }
                Some(Ok((index, Err(errors)))) => {
                    let place = &config.places[&config.functions[index].name];
                    let problem =
                        |error: &ComponentError| place.problem(error.to_string(), error.remedy());
                    problems.insert(index, errors.iter().map(problem).collect());
                }
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                None => break,
            }
        }
        let versions: Vec<_> = loaded.into_values().collect();
        let mut problems: Vec<Problem> = problems.into_values().flatten().collect();
        problems.extend(deaf(config, &versions));
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let is_new = |(spec, version): &&(FunctionSpec, Arc<Version>)| {
            let old = before.get(&spec.name);
            old.is_none_or(|(_, old)| !Arc::ptr_eq(old, version))
        };
        let new = versions.iter().filter(is_new).map(|(_, version)| version);
        let deployed = versions.iter().map(|(_, version)| version);
        self.runtime.expect_events(deployed, new).await;
        Ok(versions)
    }

    fn deploy(&self, deployed: &Deployed, trigger: &HttpTrigger) -> Result<(), Problems> {
        let mut catalogue = Catalogue::default();
        let mut routes = Vec::new();
        for (spec, version) in &deployed.functions {
            catalogue.insert(Function {
                version: Arc::clone(version),
                lane: deployed.admission.lane(&spec.name),
            });
            let function = catalogue.get(&spec.name).expect("it was just put in");
            routes.extend(spec.routes.iter().map(|route| {
                let target = Target {
                    function: Arc::clone(function),
                    pattern: route.path.as_str().into(),
                };
                (route.clone(), target)
            }));
        }
        let routes = Routes::new(routes).map_err(|conflict| {
            Problems(vec![Problem {
                at: None,
                key: "http".into(),
                value: None,
                what: conflict.to_string(),
                remedy: "change one of them".into(),
            }])
        })?;
        // Routes hold their functions: whichever of the two is newer for a
        // moment, each request runs on one of them.
        trigger.route(routes);
        self.dispatcher.deploy(catalogue);
        Ok(())
    }
}

/// Loads the version of a function, if it is not the old one: that with whether its
/// configuration is the same, and its weight.
async fn load_one(
    runtime: &Runtime,
    spec: FunctionSpec,
    path: PathBuf,
    inspected: Option<Arc<Inspected>>,
    old: Option<(bool, u32, Arc<Version>)>,
    cores: usize,
) -> Result<Arc<Version>, Vec<ComponentError>> {
    // It was built since, or has changed since it was looked at.
    let look = move || match inspected.filter(|inspected| inspected.is_current()) {
        Some(inspected) => Ok(inspected),
        None => inspect(&path).map(Arc::new),
    };
    let inspected = tokio::task::spawn_blocking(look)
        .await
        .expect("inspecting does not panic")?;
    if let Some((true, _, version)) = &old
        && version.digest() == inspected.digest()
    {
        return Ok(Arc::clone(version));
    }
    let share = match old {
        Some((_, weight, version)) if weight == spec.weight => Arc::clone(&version.common.share),
        _ => Share::new(spec.weight, cores),
    };
    runtime.load(spec, &inspected, LATEST, share).await
}

/// Functions that others are to invoke, and that cannot be.
fn deaf(config: &Config, versions: &[(FunctionSpec, Arc<Version>)]) -> Vec<Problem> {
    let by_name: HashMap<&FunctionName, &Arc<Version>> = versions
        .iter()
        .map(|(spec, version)| (&spec.name, version))
        .collect();
    let cannot = |name: &FunctionName| {
        let found = by_name.get(name);
        found.is_some_and(|version| !version.handles(Handler::Invoke))
    };
    let mut problems = Vec::new();
    for spec in &config.functions {
        let destinations = [&spec.events.on_success, &spec.events.on_failure];
        let destinations = destinations.into_iter().flatten();
        let destinations = destinations.filter_map(|destination| match destination {
            Destination::Function(name) => Some(name),
            Destination::Queue(_) | Destination::Http(_) => None,
        });
        for name in destinations
            .chain(&spec.invokes)
            .filter(|name| cannot(name))
        {
            let what = format!(
                "it sends events to the function `{name}`, which exports no `{}`",
                Handler::Invoke.name()
            );
            problems.push(config.places[&spec.name].problem(what, "name another function"));
        }
    }
    problems
}

fn bind(address: SocketAddr, key: &'static str) -> Result<std::net::TcpListener, AppError> {
    http::bind(address).map_err(|error| AppError::Bind {
        address,
        key,
        error,
    })
}
