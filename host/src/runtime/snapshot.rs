//! Snapshots: `init` runs once, at deploy, and the state that it leaves becomes the
//! state that every instance begins with. Wizer writes it back into the component,
//! which is then compiled as any other.
//!
//! It is done in a process of its own, as compiling is (`compile`), and under the
//! function's limits. A snapshot is taken only where it is true: what `init` may ask
//! meanwhile is in [`crate::capability::frozen`], and it may open no handle of the
//! component model at all, since Wizer keeps memories and globals alone. Where `init`
//! does more, or Wizer does not take the component, there is no snapshot, and `init`
//! runs in each instance.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmtime::component::{Component, Instance, Lift, Linker, WasmList};
use wasmtime::{Engine, Store, Trap};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use super::budget::{Budget, MAX_MEMORIES, MemoryLimiter, Need};
use super::compile::{self, COMPILE_MEMORY, MAX_COMPONENT, SNAPSHOT_CPU_TIME};
use super::digest::Digest;
use super::engine;
use super::lifecycle::{self, INIT_TIMEOUT};
use crate::capability::frozen::{self, Called, Facts, Frozen};
use crate::function::{ByteSize, Fuel, FunctionSpec, Limits};

/// What is counted into the name of a snapshot, so that a change of how they are taken
/// makes new ones. With it goes Wizer's version.
const FORMAT: &str = "dunlin snapshot 2, wizer 48.0.8";
/// What reading a memory takes of it: the page that Wizer's accessor grows it by, for
/// each of the memories that an instance may have.
const READING: u64 = (MAX_MEMORIES as u64) * (64 << 10);
/// How the process says that there is no snapshot.
pub const NO_SNAPSHOT: u8 = 3;

/// What decides what a snapshot is, beside the component and the engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    function: String,
    version: String,
    arn: String,
    /// In bytes.
    memory: u64,
    /// Units of an invocation.
    fuel: u64,
    /// Of a program, its name first: as its instances have them.
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A component with the state of `init`.
    Kept(Vec<u8>),
    /// There is none, for this reason.
    Untrue(String),
}

impl Order {
    pub(super) fn new(spec: &FunctionSpec, version: &str, arn: &str, is_command: bool) -> Self {
        let mut arguments = Vec::new();
        if is_command {
            arguments.push(spec.name.to_string());
            arguments.extend_from_slice(&spec.arguments);
        }
        Self {
            arguments,
            function: spec.name.to_string(),
            version: version.to_owned(),
            arn: arn.to_owned(),
            memory: spec.limits.memory.0,
            fuel: spec.limits.fuel_units(),
            environment: spec.environment.clone(),
        }
    }

    /// Names the snapshot of a component by all that decides it.
    pub(super) fn digest(&self, component: &Digest) -> Digest {
        let mut sha = Sha256::new();
        let mut add = |part: &[u8]| {
            sha.update((part.len() as u64).to_le_bytes());
            sha.update(part);
        };
        let Self {
            function,
            version,
            arn,
            memory,
            fuel,
            arguments,
            environment,
        } = self;
        add(FORMAT.as_bytes());
        for text in [component.as_str(), function, version, arn] {
            add(text.as_bytes());
        }
        add(&memory.to_le_bytes());
        add(&fuel.to_le_bytes());
        add(&(arguments.len() as u64).to_le_bytes());
        for argument in arguments {
            add(argument.as_bytes());
        }
        for (name, value) in environment {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        Digest::from_sha(&sha.finalize())
    }

    /// Names what is found of a component whose `init` runs in each instance: that may
    /// follow from all of the function's configuration.
    pub(super) fn digest_of_late(&self, component: &Digest, spec: &FunctionSpec) -> Digest {
        let named = self.digest(component);
        Digest::of(format!("late {} {spec:?}", named.as_str()).as_bytes())
    }

    /// For the process that takes the snapshot.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// What `init` finds.
    fn frozen(&self) -> Frozen {
        let facts = Facts {
            name: self.function.clone(),
            version: self.version.clone(),
            arn: self.arn.clone(),
            memory: self.memory,
        };
        let limiter = MemoryLimiter::new(self.memory, &Budget::new(u64::MAX), Need::Work);
        Frozen::new(limiter, facts, &self.arguments, &self.environment)
    }

    fn limits(&self) -> Limits {
        Limits {
            memory: ByteSize(self.memory),
            fuel: Fuel::Units(self.fuel),
            ..Limits::default()
        }
    }
}

/// Runs `init` and takes the snapshot, in this process and on this thread.
///
/// # Errors
/// If `init` failed: then the function is not to be deployed.
pub(super) fn take(order: &Order, component: &[u8]) -> Result<Taken, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| error.to_string())?;
    // Wizer checks some of what it counts on by assertions.
    let taken = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(run(order, component, MAX_COMPONENT))
    }));
    taken.unwrap_or_else(|_| Ok(Taken::Untrue("Wizer broke down over the component".into())))
}

/// Why Wizer would not take a component, as far as its form tells.
pub(super) fn obstacle(component: &[u8]) -> Option<String> {
    let instrument = || wizer().instrument_component(component).map(drop);
    match catch_unwind(instrument) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(not_taken(&error)),
        Err(_) => Some("Wizer broke down over the component".into()),
    }
}

fn not_taken(error: &wasmtime::Error) -> String {
    format!("Wizer does not take the component: {error:#}")
}

fn wizer() -> Wizer {
    let mut wizer = Wizer::new();
    // What it would remove by name is none of ours.
    wizer.keep_init_func(true);
    wizer
}

/// As [`take`], for a component of so many bytes at most.
async fn run(order: &Order, component: &[u8], most: u64) -> Result<Taken, String> {
    let wizer = wizer();
    let (context, instrumented) = match wizer.instrument_component(component) {
        Ok(instrumented) => instrumented,
        Err(error) => return Ok(Taken::Untrue(not_taken(&error))),
    };
    let engine = engine::snapshot_engine().map_err(|error| format!("{error:#}"))?;
    // What is wrong with the component itself is for those to say who compile and link it.
    let code = match Component::new(&engine, &instrumented) {
        Ok(code) => code,
        Err(error) => return Ok(Taken::Untrue(not_taken(&error))),
    };
    lifecycle::check(&code).map_err(|error| error.to_string())?;
    let (mut store, instance) = match initialise(order, &engine, &code).await? {
        Initialised::Done(store, instance) => (store, instance),
        Initialised::Untrue(why) => return Ok(Taken::Untrue(why)),
    };

    // What follows is ours.
    store.data_mut().limiter.allow(READING);
    store.set_fuel(u64::MAX).expect("the engine counts fuel");
    store.set_epoch_deadline(u64::MAX / 2);
    store.set_hostcall_fuel(usize::MAX);
    let mut reader = Reader {
        store,
        instance,
        memories: HashMap::new(),
        found: 0,
        most,
        failed: None,
    };
    let kept = wizer.snapshot_component(&context, &mut reader).await;
    if let Some(why) = reader.failed {
        return Ok(Taken::Untrue(why));
    }
    match kept {
        Ok(kept) if kept.len() as u64 > most => Ok(Taken::Untrue(format!(
            "its state makes a component of {} bytes, more than {most}",
            kept.len()
        ))),
        Ok(kept) => Ok(Taken::Kept(kept)),
        Err(error) => Ok(Taken::Untrue(not_taken(&error))),
    }
}

enum Initialised {
    Done(Store<Frozen>, Instance),
    Untrue(String),
}

/// Instantiates it and calls `init`, under the function's limits.
async fn initialise(
    order: &Order,
    engine: &Engine,
    code: &Component,
) -> Result<Initialised, String> {
    let mut linker = Linker::new(engine);
    if let Err(error) = frozen::add_to_linker(&mut linker, code) {
        return Ok(Initialised::Untrue(not_taken(&error)));
    }
    let limits = order.limits();
    let mut store = Store::new(engine, order.frozen());
    store.limiter(|frozen| &mut frozen.limiter);
    // wasmtime's own, for the thread of the call.
    store.set_max_component_handles(1);
    store
        .set_fuel(lifecycle::init_fuel(order.fuel))
        .expect("the engine counts fuel");
    store.set_epoch_deadline(1);
    let _alarm = Alarm::set(engine);

    let instance = match linker.instantiate_async(&mut store, code).await {
        Ok(instance) => instance,
        Err(error) => {
            let denied = store.data().limiter.denied();
            return match untrue(&error) {
                Some(why) => Ok(Initialised::Untrue(why)),
                None if error.is::<Trap>() || denied.is_some() => {
                    Err(format!("it does not instantiate: {error:#}"))
                }
                None => Ok(Initialised::Untrue(not_taken(&error))),
            };
        }
    };
    let init = lifecycle::init(&instance, &mut store).expect("its type was checked");
    match init.call_async(&mut store, ()).await {
        Ok((Ok(()),)) => Ok(Initialised::Done(store, instance)),
        Ok((Err(message),)) => Err(lifecycle::init_refused(message).message),
        Err(error) => match untrue(&error) {
            Some(why) => Ok(Initialised::Untrue(why)),
            None => {
                let denied = store.data().limiter.denied();
                Err(lifecycle::init_broke(&error, denied, &limits).message)
            }
        },
    }
}

/// Whether it ended because what it wants cannot be kept.
fn untrue(error: &wasmtime::Error) -> Option<String> {
    if let Some(called) = error.downcast_ref::<Called>() {
        return Some(called.to_string());
    }
    // wasmtime has no type for it; a test fails when its text changes.
    let text = error.root_cause().to_string();
    text.contains("store handle limit exceeded")
        .then(|| "it made a handle, and a handle of one instance is none of another".into())
}

/// Advances the epoch when the time of `init` is over, unless it is dropped before.
struct Alarm {
    /// Dropped with it: that calls the alarm off.
    _off: std::sync::mpsc::Sender<()>,
}

impl Alarm {
    fn set(engine: &Engine) -> Self {
        let (off, called_off) = channel();
        let engine = engine.clone();
        std::thread::spawn(move || {
            if called_off.recv_timeout(INIT_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        });
        Self { _off: off }
    }
}

/// Reads the state of an instance, through what Wizer has added to it.
struct Reader {
    store: Store<Frozen>,
    instance: Instance,
    /// By accessor. Each read grows the memory, so each is read once.
    memories: HashMap<String, Vec<u8>>,
    /// How many bytes in them are not zero, and how many may be.
    found: u64,
    most: u64,
    /// Why the snapshot is none.
    failed: Option<String>,
}

impl Reader {
    async fn read<R: Lift + 'static>(&mut self, interface: &str, name: &str) -> Option<R> {
        let (store, instance) = (&mut self.store, &self.instance);
        let read = async {
            let interface = instance.get_export_index(&mut *store, None, interface)?;
            let index = instance.get_export_index(&mut *store, Some(&interface), name)?;
            let accessor = instance.get_typed_func::<(), (R,)>(&mut *store, index);
            let (value,) = accessor.ok()?.call_async(&mut *store, ()).await.ok()?;
            Some(value)
        };
        read.await
    }

    /// A number, whose bits are what counts.
    async fn number<R: Lift + Default + 'static>(&mut self, interface: &str, name: &str) -> R {
        let read = self.read(interface, name).await;
        read.unwrap_or_else(|| {
            self.failed = Some("Wizer cannot read its globals".into());
            R::default()
        })
    }
}

impl ComponentInstanceState for Reader {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        func: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        if !self.memories.contains_key(func) {
            let list: Option<WasmList<u8>> = self.read(instance, func).await;
            let found = list.map(|list| list.as_le_slice(&self.store));
            let bytes = match found {
                None => {
                    Err("its memory cannot grow by the page that Wizer reads it through".into())
                }
                Some(bytes) => {
                    // Wizer notes where each run of them is, which may take far more than
                    // they do themselves.
                    self.found += bytes.iter().filter(|byte| **byte != 0).count() as u64;
                    match self.found <= self.most {
                        true => Ok(bytes.to_vec()),
                        false => Err(format!(
                            "its state has more than {} bytes that are not zero",
                            self.most
                        )),
                    }
                }
            };
            let bytes = bytes.unwrap_or_else(|why| {
                self.failed = Some(why);
                Vec::new()
            });
            self.memories.insert(func.to_owned(), bytes);
        }
        contents(&self.memories[func]);
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.number(instance, func).await
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.number(instance, func).await
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.number::<f32>(instance, func).await.to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.number::<f64>(instance, func).await.to_bits()
    }
}

/// The process that takes a snapshot of one file into another, within its bounds. The
/// order comes on stdin: environment variables are not for the list of processes. Answers
/// why there is no snapshot, if there is none.
///
/// # Errors
/// A text for the parent to show, if `init` failed.
pub fn snapshot_component(input: &Path, output: &Path) -> Result<Option<String>, String> {
    let mut order = Vec::new();
    std::io::stdin()
        .read_to_end(&mut order)
        .map_err(|error| error.to_string())?;
    let order: Order = serde_json::from_slice(&order).map_err(|error| error.to_string())?;
    // Its memory may be moved while it grows, is copied once, and then written out.
    compile::bound_this_process(
        COMPILE_MEMORY.saturating_add(order.memory.saturating_mul(4)),
        SNAPSHOT_CPU_TIME,
    );
    // What it breaks down over is no more than a reason.
    std::panic::set_hook(Box::new(|_| {}));
    let component = std::fs::read(input).map_err(|error| error.to_string())?;
    match take(&order, &component)? {
        Taken::Untrue(why) => Ok(Some(why)),
        Taken::Kept(kept) => {
            let written = compile::create(output).and_then(|mut file| file.write_all(&kept));
            written.map(|()| None).map_err(|error| error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::{ComponentSource, FunctionName};

    fn order(change: impl FnOnce(&mut FunctionSpec)) -> Order {
        let name = FunctionName::new("words").unwrap();
        let mut spec = FunctionSpec::new(name, ComponentSource::File("words.wasm".into()));
        spec.environment = vec![("A".into(), "b".into())];
        change(&mut spec);
        let arn = format!("arn:{}", spec.name);
        Order::new(&spec, "$LATEST", &arn, false)
    }

    #[test]
    fn what_decides_a_snapshot_names_it_and_nothing_else_does() {
        let component = Digest::of(b"a component");
        let first = order(|_| {}).digest(&component);
        type Change = fn(&mut FunctionSpec);
        let others: [Change; 6] = [
            |spec| spec.name = FunctionName::new("other").unwrap(),
            |spec| spec.limits.memory = ByteSize::mib(64),
            |spec| spec.limits.fuel = Fuel::Units(7),
            |spec| spec.environment[0].1 = "c".into(),
            // The same letters, in other places.
            |spec| spec.environment = vec![("Ab".into(), String::new())],
            |spec| spec.environment.clear(),
        ];
        for (index, other) in others.into_iter().enumerate() {
            assert_ne!(order(other).digest(&component), first, "{index}");
        }
        assert_ne!(order(|_| {}).digest(&Digest::of(b"another")), first);
        let same = order(|spec| {
            spec.provisioned = Some(7);
            spec.limits.log = ByteSize(0);
        });
        assert_eq!(same.digest(&component), first);
    }

    /// The order for a program with these arguments, or what is none.
    fn order_with(arguments: &[&str], environment: &[(&str, &str)], is_command: bool) -> Order {
        let name = FunctionName::new("words").unwrap();
        let mut spec = FunctionSpec::new(name, ComponentSource::File("words.wasm".into()));
        spec.arguments = arguments.iter().map(ToString::to_string).collect();
        let text = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        spec.environment = environment.iter().map(text).collect();
        Order::new(&spec, "$LATEST", "arn", is_command)
    }

    #[test]
    fn the_arguments_of_a_program_name_its_snapshot() {
        let component = Digest::of(b"a component");
        let digest = |arguments: &[&str], environment: &[(&str, &str)], is_command| {
            order_with(arguments, environment, is_command).digest(&component)
        };
        let first = digest(&["a", "b"], &[], true);
        assert_eq!(digest(&["a", "b"], &[], true), first);
        for other in [&["a"] as &[&str], &["ab"], &["b", "a"], &[]] {
            assert_ne!(digest(other, &[], true), first, "{other:?}");
        }
        // The same words, in other places.
        assert_ne!(digest(&[], &[("a", "b")], true), first);
        // What is no program gets none.
        assert_eq!(digest(&["a"], &[], false), digest(&["b"], &[], false));
    }

    #[test]
    fn init_is_told_what_the_instances_of_a_program_are_told() {
        use wasmtime_wasi::cli::WasiCliView as _;
        use wasmtime_wasi::p2::bindings::cli::environment::Host as _;
        let order = order_with(&["--all", "x"], &[("A", "b")], true);
        let mut frozen = order.frozen();
        let arguments = frozen.cli().get_arguments().unwrap();
        assert_eq!(arguments, ["words", "--all", "x"], "its name is the first");
        let environment = frozen.cli().get_environment().unwrap();
        assert_eq!(environment, [("A".to_owned(), "b".to_owned())]);
        let other = order_with(&["--all"], &[], false);
        let arguments = other.frozen().cli().get_arguments().unwrap();
        assert_eq!(arguments, [""; 0]);
    }

    #[test]
    fn the_version_of_wizer_is_part_of_the_name() {
        let lock = include_str!("../../../Cargo.lock");
        let (_, wizer) = lock
            .split_once("name = \"wasmtime-wizer\"\nversion = \"")
            .unwrap();
        let (version, _) = wizer.split_once('"').unwrap();
        assert!(FORMAT.ends_with(&format!("wizer {version}")), "{version}");
    }

    /// A component whose `init` changes a global and some bytes.
    fn component() -> Vec<u8> {
        wat::parse_str(
            r#"(component
                 (core module $module
                   (global $runs (mut i32) (i32.const 0))
                   (memory (export "memory") 1)
                   (func (export "init") (result i32)
                     (global.set $runs (i32.const 77))
                     (i32.store (i32.const 64) (i32.const 0x6c6c6577))
                     (memory.fill (i32.const 4096) (i32.const 7) (i32.const 1996))
                     (i32.const 0)))
                 (core instance $core (instantiate $module))
                 (alias core export $core "memory" (core memory $memory))
                 (alias core export $core "init" (core func $core-init))
                 (type $outcome (result (error string)))
                 (func $init (result $outcome)
                   (canon lift (core func $core-init) (memory $memory)))
                 (instance $exported (export "init" (func $init)))
                 (export "dunlin:event/initialise@0.1.0" (instance $exported)))"#,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_state_of_more_bytes_than_a_component_may_have_is_not_kept() {
        let (order, component) = (order(|_| {}), component());
        let taken = |most| run(&order, &component, most);
        let Ok(Taken::Untrue(why)) = taken(1999).await else {
            panic!("it is kept");
        };
        assert_eq!(why, "its state has more than 1999 bytes that are not zero");
        // As many they are; the component has more than its state.
        let Ok(Taken::Untrue(why)) = taken(2000).await else {
            panic!("it is kept");
        };
        assert!(why.starts_with("its state makes a component of "), "{why}");
        let taken = taken(MAX_COMPONENT).await;
        assert!(matches!(taken, Ok(Taken::Kept(_))), "{taken:?}");
    }

    #[test]
    fn a_snapshot_can_be_taken_within_a_process_that_has_a_runtime() {
        let component = component();
        let host = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let taken = host.block_on(async {
            let take = move || take(&order(|_| {}), &component);
            tokio::task::spawn_blocking(take).await.unwrap()
        });
        let Ok(Taken::Kept(kept)) = taken else {
            panic!("{taken:?}");
        };
        assert!(kept.windows(4).any(|window| window == b"well"));
    }
}
