//! What an invocation costs inside the host, without HTTP.
//!
//! Everything runs on a core of the host, as guests do, so that turns are counted. Loading is done
//! before; every answer is checked.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use dunlin::dispatch::{Admission, Dispatcher, Function};
use dunlin::function::{
    ByteSize, ComponentSource, DEFAULT_WEIGHT, FunctionName, FunctionSpec, Isolation,
};
use dunlin::invocation::{Answer, Call, Event, HttpRequest, NoOutbox, Trigger, Usage};
use dunlin::key_value::{self, Buckets};
use dunlin::runtime::{
    Compiler, Cores, MemoryReset, Runtime, RuntimeOptions, Share, Version, inspect,
};
use dunlin::store::SystemClock;
use dunlin::telemetry::{Log, LogInvocations, LogWriter, Metrics, Telemetry};
use dunlin_benches::build;
use dunlin_benches::stats::percentile;
use mimalloc::MiMalloc;

/// The host's own.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// As many slots as the host has by default.
const SLOTS: u32 = 1000;
/// Instances that may wait for the next call.
const READY: u32 = 16;
/// Pairs of calls behind one figure of the difference: a single one may come out below zero.
const PAIRS: u64 = 1000;
const WAIT: Duration = Duration::from_secs(1);

/// A host without its doors.
struct Host {
    runtime: Runtime,
    telemetry: Telemetry,
    /// One: the benchmarks run on it.
    cores: Cores,
    setup: tokio::runtime::Runtime,
    _log: LogWriter,
    _state: tempfile::TempDir,
}

impl Host {
    fn start(memory_reset: MemoryReset) -> Self {
        let state = tempfile::tempdir().expect("there is room for a folder");
        let (log, writer) = Log::start(std::io::sink()).expect("a thread can be started");
        let telemetry = Telemetry {
            log,
            metrics: Arc::new(Metrics::new().expect("the metrics are sound")),
            log_invocations: LogInvocations::All,
        };
        let setup = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let path = state.path().join(key_value::FILE_NAME);
        let clock = Arc::new(SystemClock::default());
        let (buckets, _) = Buckets::open(&path, clock, setup.handle().clone())
            .expect("there is room for a database");
        let options = RuntimeOptions {
            slots: SLOTS,
            ready: READY,
            ready_per_function: 0,
            ready_memory: ByteSize::mib(1024).0,
            mapped: READY,
            rest_after: Duration::from_secs(3600),
            max_memory: ByteSize::mib(128).0,
            scratch_budget: 0,
            memory_reset,
            memory_budget: ByteSize::mib(1024).0,
            cores: 1,
            state: state.path().to_owned(),
            compiler: Compiler::InProcess,
            blocking: setup.handle().clone(),
            buckets: Arc::new(buckets),
            arn_prefix: "arn:aws:lambda:edge-1:123456789012:function:".into(),
        };
        let nowhere = Arc::new(dunlin::egress::Shared::nowhere(telemetry.log.clone()));
        Self {
            runtime: Runtime::start(options, telemetry.clone(), Arc::new(NoOutbox), nowhere)
                .expect("the runtime starts"),
            telemetry,
            cores: Cores::start(1).expect("a core starts"),
            setup,
            _log: writer,
            _state: state,
        }
    }

    /// Loads hello, with nothing kept ready: refilling would run beside what is measured.
    fn load(&self, isolation: Isolation) -> Arc<Version> {
        let component = hello();
        let spec = FunctionSpec {
            isolation,
            provisioned: Some(0),
            ..FunctionSpec::new(
                FunctionName::new("hello").expect("letters name a function"),
                ComponentSource::File(component.clone()),
            )
        };
        let share = Share::new(DEFAULT_WEIGHT, 1);
        let inspected = Arc::new(inspect(&component).expect("hello is a component"));
        let load = self.runtime.load(spec, &inspected, "$LATEST", share);
        self.setup.block_on(load).expect("hello loads")
    }

    /// Runs a piece of work on the core and answers what it measured.
    fn on_core<F>(&self, work: F) -> Duration
    where
        F: Future<Output = Duration> + Send + 'static,
    {
        let (send, receive) = std::sync::mpsc::channel();
        self.cores.spawn(move |load| async move {
            let _load = load;
            let _ = send.send(work.await);
        });
        receive.recv().expect("the work ends")
    }
}

/// Built by `cargo build --profile guest --target wasm32-wasip2 --package hello`.
fn hello() -> PathBuf {
    build::compact_hello().expect("hello is built: docs/benchmarks.md says how")
}

fn event() -> Event {
    Event::Http(Box::new(HttpRequest {
        method: http::Method::GET,
        target: http::uri::PathAndQuery::from_static("/hello"),
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
    }))
}

fn check(answer: &Answer) {
    let Answer::Http(answer) = answer else {
        panic!("an HTTP handler answers HTTP");
    };
    assert_eq!(answer.status, http::StatusCode::OK);
    assert_eq!(&answer.body[..], b"Hello, world!\n");
}

/// Leases, calls and gives back, without the dispatcher.
async fn direct(version: &Arc<Version>) {
    let mut usage = Usage::default();
    let mut lease = version
        .lease(deadline(), &mut usage.cpu)
        .await
        .expect("there is room for an instance");
    let (answer, sound) = lease
        .instance()
        .call(
            event(),
            Box::new(Call::new(Trigger::Http)),
            deadline(),
            &mut usage,
        )
        .await;
    check(&answer.expect("hello answers"));
    version.give_back(lease, sound, &mut usage.cpu);
}

/// The same through the dispatcher: admission, record, log line and metrics.
async fn invoke(dispatcher: &Dispatcher, function: &Function) {
    let ended = dispatcher
        .invoke(function, event(), Call::new(Trigger::Http), Ok)
        .await;
    check(&ended.result.expect("hello answers"));
}

/// Far off: nothing here is to meet it.
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn instantiate(criterion: &mut Criterion) {
    for (name, reset) in [
        ("memset", MemoryReset::Memset),
        ("pagemap", MemoryReset::Pagemap),
    ] {
        if reset.resolve().is_err() {
            eprintln!("instantiate/{name}: this machine cannot do it safely");
            continue;
        }
        let host = Host::start(reset);
        let version = host.load(Isolation::Fresh);
        criterion.bench_function(&format!("instantiate/{name}"), |bencher| {
            bencher.iter_custom(|count| {
                let version = Arc::clone(&version);
                host.on_core(async move {
                    let began = Instant::now();
                    for _ in 0..count {
                        let mut cpu = Duration::ZERO;
                        let instance = version.instantiate(deadline(), &mut cpu).await;
                        drop(black_box(instance.expect("there is room")));
                    }
                    began.elapsed()
                })
            });
        });
        criterion.bench_function(&format!("instantiate+call/{name}"), |bencher| {
            bencher.iter_custom(|count| {
                let version = Arc::clone(&version);
                host.on_core(async move {
                    let began = Instant::now();
                    for _ in 0..count {
                        direct(&version).await;
                    }
                    began.elapsed()
                })
            });
        });
    }
}

fn reuse(criterion: &mut Criterion) {
    let host = Host::start(MemoryReset::Memset);
    let version = host.load(Isolation::Reuse);
    criterion.bench_function("call/reuse", |bencher| {
        bencher.iter_custom(|count| {
            let version = Arc::clone(&version);
            host.on_core(async move {
                let began = Instant::now();
                for _ in 0..count {
                    direct(&version).await;
                }
                began.elapsed()
            })
        });
    });
}

fn dispatch(criterion: &mut Criterion) {
    let host = Host::start(MemoryReset::Memset);
    let version = host.load(Isolation::Reuse);
    let dispatcher = Arc::new(Dispatcher::new(host.telemetry.clone()));
    let lane = Admission::new(SLOTS, WAIT, std::iter::empty()).lane(&version.common.spec.name);
    let function = Arc::new(Function {
        version: Arc::clone(&version),
        lane,
    });
    // Call by call in turn, so that what slows one slows the other.
    let mut group = criterion.benchmark_group("dispatch");
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    group.bench_function("overhead", |bencher| {
        bencher.iter_custom(|count| {
            let version = Arc::clone(&version);
            let (dispatcher, function) = (Arc::clone(&dispatcher), Arc::clone(&function));
            host.on_core(async move {
                let (mut through, mut past) = (Vec::new(), Vec::new());
                for _ in 0..PAIRS * count {
                    let began = Instant::now();
                    invoke(&dispatcher, &function).await;
                    let between = Instant::now();
                    direct(&version).await;
                    past.push(between.elapsed());
                    through.push(between - began);
                }
                // Medians: whatever else ran on the core for a while is in neither.
                let difference =
                    percentile(&mut through, 0.5).saturating_sub(percentile(&mut past, 0.5));
                difference * u32::try_from(count).unwrap_or(u32::MAX)
            })
        });
    });
}

criterion_group!(benches, instantiate, reuse, dispatch);
criterion_main!(benches);
