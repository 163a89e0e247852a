//! The host as a whole: builds the parts once, binds, serves, swaps what is
//! deployed, and drains in order.

mod buckets;
mod deployment;
mod disk;
mod machine;
mod queues;
mod state_dir;
mod triggers;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
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
use crate::config::{Config, DEFAULT_READY_MEMORY_PERCENT, Problems, Signatures};
use crate::dispatch::{Admission, Dispatcher};
use crate::egress::{self, Roots, SystemResolver};
use crate::function::{FunctionName, FunctionSpec};
use crate::key_value::{self, Buckets};
use crate::queue::sqlite::{self, SqliteQueues};
use crate::queue::{QueueError, QueueStore};
use crate::runtime::{Compiler, Cores, Init, RESERVE_SLOTS, Runtime, RuntimeOptions, StartError};
use crate::store::{Clock, Disks, OpenError, SystemClock, WriteError};
use crate::telemetry::{Level, Log, Metrics, Telemetry};
use crate::trigger::asynchronous::{Deliveries, HostOutbox, Intake, Surroundings};
use crate::trigger::feed::Feeds;
use crate::trigger::http::{self, Draining, HttpTrigger, Limits, Listener};
use crate::trigger::schedule::{Scheduler, Timetable};
use deployment::{Deployed, Parts};
use triggers::Triggers;

/// Once time is up, how long connections get to send their 503.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How often versions are looked after that are awake: how many instances they keep, and
/// whether they rest.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

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

/// What becomes of queues and buckets that are not in the manifest any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Nothing runs yet: they go if they are empty.
    Go,
    /// What runs may use them to its end: they stay until the next start.
    Stay,
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
            Roots::new(host.egress.roots.clone(), Handle::current()),
            host.egress.connections as usize,
            telemetry.log.clone(),
        ));
        let runtime = Runtime::start(
            RuntimeOptions {
                slots: host.admission.concurrency + host.runtime.ready + RESERVE_SLOTS,
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
        egress.own_addresses().set(configured);
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

        queues::declare(&*queues, config, Others::Go, &parts.telemetry).await?;
        buckets::declare(&buckets, config, Others::Go, &parts.telemetry).await?;

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
        let bound = [addresses.http, addresses.admin, addresses.metrics];
        egress.own_addresses().set(bound);

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
    /// If one cannot be deployed: then all functions stay as they were.
    pub async fn swap(&mut self, config: &Config) -> Result<(), AppError> {
        let versions = self.parts.load(config, &self.deployed.functions).await?;
        let telemetry = &self.parts.telemetry;
        queues::declare(&*self.queues, config, Others::Stay, telemetry).await?;
        buckets::declare(&self.buckets, config, Others::Stay, telemetry).await?;
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

fn bind(address: SocketAddr, key: &'static str) -> Result<std::net::TcpListener, AppError> {
    http::bind(address).map_err(|error| AppError::Bind {
        address,
        key,
        error,
    })
}
