//! The machine code of components: mapped while it is in use, resting on the disk else.
//!
//! Functions with the same component share its code, unless it is in the state that `init`
//! left for one of them: that code is named by the snapshot. What nobody used for a while is
//! unmapped, and so is what was used least recently when more than a bound are mapped; the
//! next event maps it again, on its path, and nothing is compiled there. Events that come
//! together map it once.
//!
//! To unmap code interrupts all cores, so the keeper does it, never a core: whoever uses
//! code holds it by an [`Arc`], and the one that the keeper holds is the last to go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;
use wasmtime::component::{InstancePre, Linker};

use super::cache::{Cache, MapError, Mapping, Note};
use super::handlers::Exports;
use super::identity::Identity;
use super::inspect::Inspected;
use super::instance::Unavailable;
use super::snapshot::Order;
use super::state::State;
use super::turns::{self, Share};
use super::{CompileError, ComponentError, Digest};
use crate::invocation::Failure;
use crate::telemetry::{Level, Telemetry};

/// Code up to this size is mapped on the core, where it is known already: that takes some
/// 0.2 ms. What is larger, or has to be verified first, is mapped by another thread.
const MAPPED_ON_CORE: u64 = 1 << 20;
/// How long after lost code could not be compiled again another attempt is made, in
/// milliseconds.
const MEND_AGAIN: u64 = 10_000;

/// Code that can run.
pub(super) struct Mapped {
    pub(super) pre: InstancePre<State>,
    pub(super) exports: Exports,
}

/// The machine code of one component, or of a snapshot of it.
pub(super) struct Code {
    /// The component's digest, or what names the snapshot.
    key: Digest,
    /// Of the component.
    digest: Digest,
    /// How the snapshot is taken, if it is one.
    order: Option<Box<Order>>,
    /// In the cache.
    name: String,
    /// The component's file as it was deployed last.
    source: Mutex<Arc<Inspected>>,
    mapped: ArcSwapOption<Mapped>,
    /// Held by who maps it, until that is done, whoever still waits for it. How its file
    /// is known again.
    known: Arc<tokio::sync::Mutex<Option<Identity>>>,
    /// What was found when it was checked.
    note: Mutex<Option<Note>>,
    /// When it was last used, in milliseconds since the host started.
    used: AtomicU64,
    mending: AtomicBool,
    /// When lost code may be compiled again, in the same milliseconds.
    mend_after: AtomicU64,
    codes: Arc<Codes>,
}

/// How code is looked after.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// How many components stay mapped at most, but for those in use.
    pub(super) most: usize,
    /// Those that were not used for so long rest.
    pub(super) rest_after: Duration,
}

/// All machine code.
pub(super) struct Codes {
    pub(super) engine: Engine,
    pub(super) linker: Linker<State>,
    pub(super) cache: Arc<Cache>,
    /// Where what takes long is done.
    pub(super) blocking: Handle,
    pub(super) telemetry: Telemetry,
    pub(super) rule: Rule,
    /// Wakes the keeper before its time.
    pub(super) look_after: Arc<Notify>,
    /// Ends compilers when the host ends.
    pub(super) ended: CancellationToken,
    began: Instant,
    all: Mutex<HashMap<Digest, Weak<Code>>>,
    /// Those that are mapped, and perhaps some that were.
    mapped: Mutex<HashMap<Digest, Weak<Code>>>,
    /// Unmapped once nobody uses them any more.
    parting: Mutex<Vec<Arc<Mapped>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Codes {
    pub(super) fn new(
        engine: Engine,
        linker: Linker<State>,
        cache: Cache,
        blocking: Handle,
        telemetry: Telemetry,
        rule: Rule,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine,
            linker,
            cache: Arc::new(cache),
            blocking,
            telemetry,
            rule,
            look_after: Arc::default(),
            ended: CancellationToken::new(),
            began: Instant::now(),
            all: Mutex::default(),
            mapped: Mutex::default(),
            parting: Mutex::default(),
        })
    }

    /// The code of a component, or of the snapshot that is ordered of it: the same one for
    /// all who deploy it.
    pub(super) fn of(
        self: &Arc<Self>,
        inspected: &Arc<Inspected>,
        order: Option<&Order>,
    ) -> Arc<Code> {
        let digest = inspected.digest();
        let key = order.map_or_else(|| digest.clone(), |order| order.digest(digest));
        let mut all = lock(&self.all);
        if let Some(code) = all.get(&key).and_then(Weak::upgrade) {
            *lock(&code.source) = Arc::clone(inspected);
            return code;
        }
        let code = Arc::new(Code {
            name: Cache::name(&self.engine, &key),
            key: key.clone(),
            digest: digest.clone(),
            order: order.cloned().map(Box::new),
            source: Mutex::new(Arc::clone(inspected)),
            mapped: ArcSwapOption::empty(),
            known: Arc::default(),
            note: Mutex::default(),
            used: AtomicU64::new(self.now()),
            mending: AtomicBool::new(false),
            mend_after: AtomicU64::new(0),
            codes: Arc::clone(self),
        });
        self.telemetry.metrics.code.resting.inc();
        all.insert(key, Arc::downgrade(&code));
        code
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How many are mapped.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.telemetry.metrics.code.mapped.get()).unwrap_or(0)
    }

    /// How many are mapped beyond the bound.
    pub(super) fn excess(&self) -> usize {
        self.count().saturating_sub(self.rule.most)
    }

    /// Links code and finds its handlers.
    fn link(&self, mapping: &Mapping) -> Result<Mapped, ComponentError> {
        let pre = self
            .linker
            .instantiate_pre(&mapping.component)
            .map_err(|error| ComponentError::Link(format!("{error:#}")))?;
        let exports = Exports::of(&mapping.component)?;
        Ok(Mapped { pre, exports })
    }

    /// Maps what was checked before.
    fn map_again(
        &self,
        name: &str,
        known: Option<&Identity>,
    ) -> Result<(Mapped, Option<Identity>), MapError> {
        let mapping = self.cache.map(&self.engine, name, known)?;
        let linked = self.link(&mapping);
        let mapped = linked.map_err(|error| MapError::Refused(error.to_string()))?;
        Ok((mapped, mapping.identity))
    }

    /// Lets rest what was not used for long, and what is more than the bound: whatever is
    /// not in use. Takes its time: never to be called on a core.
    pub(super) fn rest(&self) {
        self.let_rest(usize::MAX);
    }

    /// As [`Self::rest`], but for what is more than the bound only those that were not used
    /// for the longest time. What waits may hold them: it gives way before what was used
    /// since.
    pub(super) fn rest_oldest(&self) {
        self.let_rest(self.excess());
    }

    /// Of what is more than the bound, the so many that were not used for longest may rest.
    fn let_rest(&self, oldest: usize) {
        let now = self.now();
        let rest_after = u64::try_from(self.rule.rest_after.as_millis()).unwrap_or(u64::MAX);
        let idle = |code: &Code| now.saturating_sub(code.used.load(Ordering::Relaxed));
        let mut mapped: Vec<Arc<Code>> = {
            let mut mapped = lock(&self.mapped);
            mapped.retain(|_, code| code.upgrade().is_some_and(|code| code.is_mapped()));
            mapped.values().filter_map(Weak::upgrade).collect()
        };
        mapped.sort_by_key(|code| std::cmp::Reverse(idle(code)));
        let mut excess = mapped.len().saturating_sub(self.rule.most);
        for (index, code) in mapped.iter().enumerate() {
            let is_too_much = excess > 0 && index < oldest;
            if (is_too_much || idle(code) >= rest_after) && code.rest() {
                excess = excess.saturating_sub(1);
            }
        }
        drop(mapped);
        let parted: Vec<Arc<Mapped>> = {
            let mut parting = lock(&self.parting);
            parting
                .extract_if(.., |mapped| Arc::strong_count(mapped) == 1)
                .collect()
        };
        drop(parted);
    }

    fn part(&self, mapped: Arc<Mapped>) {
        let metrics = &self.telemetry.metrics.code;
        metrics.mapped.dec();
        metrics.resting.inc();
        lock(&self.parting).push(mapped);
    }
}

impl Code {
    /// Which component it is.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    fn is_mapped(&self) -> bool {
        self.mapped.load().is_some()
    }

    /// It is in use.
    pub(super) fn touch(&self) {
        self.used.store(self.codes.now(), Ordering::Relaxed);
    }

    /// The code, if it is mapped.
    pub(super) fn mapped(&self) -> Option<Arc<Mapped>> {
        self.mapped.load_full()
    }

    /// Maps it, if nobody does, adding the time it takes on the core to `cpu`, which its
    /// function is charged for. Whoever drops this leaves it being mapped, for the next
    /// event.
    ///
    /// # Errors
    /// If there is no room for it, or it is lost; then it is compiled again meanwhile.
    pub(super) async fn come_back(
        self: &Arc<Self>,
        share: &Arc<Share>,
        cpu: &mut Duration,
    ) -> Result<Arc<Mapped>, Unavailable> {
        let mut known = Arc::clone(&self.known).lock_owned().await;
        if let Some(mapped) = self.mapped() {
            return Ok(mapped);
        }
        let codes = &self.codes;
        let is_quick = known.is_some_and(|it| it.size <= MAPPED_ON_CORE);
        // Who maps faster than the keeper unmaps lends a hand.
        if is_quick && codes.count() < 2 * codes.rule.most {
            let map = || codes.map_again(&self.name, known.as_ref());
            let (found, took) = turns::charged(share, map);
            *cpu += took;
            return self.found(&mut known, found);
        }
        let code = Arc::clone(self);
        let map = move || {
            let codes = &code.codes;
            if codes.count() >= 2 * codes.rule.most {
                codes.rest();
            }
            let found = codes.map_again(&code.name, known.as_ref());
            code.found(&mut known, found)
        };
        let task = codes.blocking.spawn_blocking(map).await;
        task.map_err(|_| host_error("the host ends while its machine code is mapped"))?
    }

    /// What came of mapping it again.
    fn found(
        self: &Arc<Self>,
        known: &mut Option<Identity>,
        found: Result<(Mapped, Option<Identity>), MapError>,
    ) -> Result<Arc<Mapped>, Unavailable> {
        let codes = &self.codes;
        match found {
            Ok((mapped, identity)) => {
                *known = identity;
                Ok(self.put(mapped))
            }
            Err(MapError::NoRoom(error)) => {
                codes.look_after.notify_one();
                Err(Unavailable::Full(format!(
                    "its machine code cannot be mapped now: {error}"
                )))
            }
            Err(error @ (MapError::Missing | MapError::Changed)) => {
                *known = None;
                let file = codes.cache.code_file(&self.name);
                self.mend(&error);
                Err(host_error(&format!(
                    "its machine code in {} cannot be used, {error}; it is compiled again, and \
                     serves when that is done",
                    file.display()
                )))
            }
            Err(MapError::Refused(why)) => {
                // The system may be out of maps.
                codes.look_after.notify_one();
                Err(host_error(&format!(
                    "its machine code cannot be loaded: {why}"
                )))
            }
        }
    }

    /// It is mapped from now on.
    fn put(self: &Arc<Self>, mapped: Mapped) -> Arc<Mapped> {
        let mapped = Arc::new(mapped);
        self.touch();
        let codes = &self.codes;
        if let Some(before) = self.mapped.swap(Some(Arc::clone(&mapped))) {
            codes.part(before);
        }
        lock(&codes.mapped).insert(self.key.clone(), Arc::downgrade(self));
        let metrics = &codes.telemetry.metrics.code;
        metrics.mapped.inc();
        metrics.resting.dec();
        metrics.mappings.inc();
        if codes.excess() > 0 {
            codes.look_after.notify_one();
        }
        mapped
    }

    /// Unmaps it if nobody uses it; answers whether it rests. Who is about to use it
    /// keeps it mapped as long as that takes.
    fn rest(&self) -> bool {
        let in_use = self
            .mapped()
            // One here, and one in its place.
            .is_some_and(|mapped| Arc::strong_count(&mapped) > 2);
        if in_use {
            return false;
        }
        if let Some(mapped) = self.mapped.swap(None) {
            self.codes.part(mapped);
        }
        true
    }

    /// What was found when it was checked, now or by an earlier start. Reads files.
    pub(super) fn note(&self) -> Option<Note> {
        let mut note = lock(&self.note);
        if note.is_none() {
            *note = self.codes.cache.note(&self.name, &self.name);
        }
        note.clone()
    }

    /// What was found of it as one function uses it, which has this key. Reads files.
    pub(super) fn note_for(&self, function: &Digest) -> Option<Note> {
        let name = Cache::name(&self.codes.engine, function);
        self.codes.cache.note(&name, &self.name)
    }

    /// Notes what was found: of whoever has this code, or of the function with this key.
    pub(super) async fn checked(self: &Arc<Self>, function: Option<Digest>, found: Note) {
        let code = Arc::clone(self);
        let write = move || {
            let cache = &code.codes.cache;
            if let Some(function) = function {
                let name = Cache::name(&code.codes.engine, &function);
                cache.write_note(&name, &code.name, &found);
            } else {
                cache.write_note(&code.name, &code.name, &found);
                *lock(&code.note) = Some(found);
            }
        };
        // If that fails, it is checked again.
        let _ = self.codes.blocking.spawn_blocking(write).await;
    }

    /// Maps it, from the cache or the compiler. Not on the path of an event.
    pub(super) async fn compile(self: &Arc<Self>) -> Result<Arc<Mapped>, ComponentError> {
        let mut known = Arc::clone(&self.known).lock_owned().await;
        if let Some(mapped) = self.mapped() {
            return Ok(mapped);
        }
        let wanted = CancellationToken::new();
        let cancelled = wanted.clone();
        let _unless_dropped = wanted.drop_guard();
        let code = Arc::clone(self);
        let compile = move || {
            let mapping = code.build(&cancelled)?;
            let mapped = code.codes.link(&mapping)?;
            *known = mapping.identity;
            Ok(code.put(mapped))
        };
        let task = self.codes.blocking.spawn_blocking(compile).await;
        task.expect("compiling does not panic")
    }

    fn build(&self, cancelled: &CancellationToken) -> Result<Mapping, ComponentError> {
        let codes = &self.codes;
        let source = Arc::clone(&lock(&self.source));
        let component = source.read()?;
        let order = self.order.as_deref();
        let mapping = codes
            .cache
            .get(&codes.engine, &self.key, &component, order, cancelled);
        mapping.map_err(|error| match error {
            CompileError::Init(what) => ComponentError::Init(what),
            error => ComponentError::Compile(error),
        })
    }

    /// Compiles again what was lost, off the path of events.
    fn mend(self: &Arc<Self>, why: &MapError) {
        let codes = &self.codes;
        let now = codes.now();
        if now < self.mend_after.load(Ordering::Relaxed)
            || self.mending.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let why = why.to_string();
        let code = Arc::clone(self);
        codes.blocking.spawn_blocking(move || {
            code.build_again(&why);
            code.mending.store(false, Ordering::Release);
        });
    }

    fn build_again(&self, why: &str) {
        let codes = &self.codes;
        // An event may have failed just before it came back.
        if codes.cache.map(&codes.engine, &self.name, None).is_ok() {
            return;
        }
        let file = codes.cache.code_file(&self.name).display().to_string();
        let log = &codes.telemetry.log;
        log.host(
            Level::Error,
            &format!("the machine code in {file} cannot be used, {why}: it is compiled again"),
        );
        // Nothing stays mapped: the next event does that.
        match self.build(&codes.ended) {
            Ok(_) => log.host(Level::Info, &format!("the machine code in {file} is back")),
            Err(error) => {
                let again = codes.now() + MEND_AGAIN;
                self.mend_after.store(again, Ordering::Relaxed);
                let source = lock(&self.source).file().to_owned();
                let message = format!(
                    "{} cannot be compiled again: {error}; {}",
                    source.display(),
                    error.remedy()
                );
                log.host(Level::Error, &message);
            }
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(mapped) = self.mapped.swap(None) {
            self.codes.part(mapped);
        }
        self.codes.telemetry.metrics.code.resting.dec();
        let mut all = lock(&self.codes.all);
        // Another may have come in its place already.
        if all.get(&self.key).is_some_and(|it| it.strong_count() == 0) {
            all.remove(&self.key);
        }
    }
}

fn host_error(message: &str) -> Unavailable {
    Unavailable::Broken(Failure::host(message))
}

#[cfg(test)]
mod tests {
    use super::super::compile::Compiler;
    use super::super::{engine, inspect};
    use super::*;
    use crate::telemetry::{Log, LogInvocations, Metrics};

    const DEADLINE: Duration = Duration::from_secs(30);

    /// The code of a program that does nothing. Whatever nobody uses rests at each pass.
    fn code(folder: &std::path::Path) -> Arc<Code> {
        let engine = engine::compiling_engine().unwrap();
        let cache = Cache::open(folder, Compiler::InProcess).unwrap();
        let telemetry = Telemetry {
            log: Log::start(std::io::sink()).unwrap().0,
            metrics: Arc::new(Metrics::new().unwrap()),
            log_invocations: LogInvocations::All,
        };
        let rule = Rule {
            most: 10,
            rest_after: Duration::ZERO,
        };
        let linker = Linker::new(&engine);
        let blocking = Handle::current();
        let codes = Codes::new(engine, linker, cache, blocking, telemetry, rule);
        let program = wat::parse_str(
            r#"(component
                 (core module $module (func (export "run") (result i32) (i32.const 0)))
                 (core instance $core (instantiate $module))
                 (func $run (result (result)) (canon lift (core func $core "run")))
                 (instance $exported (export "run" (func $run)))
                 (export "wasi:cli/run@0.2.0" (instance $exported)))"#,
        );
        let file = folder.join("program.wasm");
        std::fs::write(&file, program.unwrap()).unwrap();
        codes.of(&Arc::new(inspect(&file).unwrap()), None)
    }

    fn mappings(code: &Code) -> u64 {
        code.codes.telemetry.metrics.code.mappings.get()
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_mapped_all_the_same_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let code = code(folder.path());
        code.compile().await.unwrap();
        code.codes.rest();
        assert!(!code.is_mapped());
        // As after a start: the file has to be verified.
        *code.known.lock().await = None;
        let before = mappings(&code);
        let share = Share::new(100, 1);
        for _ in 0..8 {
            let mut cpu = Duration::ZERO;
            // A client that goes at once.
            let back = code.come_back(&share, &mut cpu);
            let _ = tokio::time::timeout(Duration::ZERO, back).await;
        }
        let deadline = Instant::now() + DEADLINE;
        while !code.is_mapped() {
            assert!(Instant::now() < deadline, "nobody has kept it");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut cpu = Duration::ZERO;
        code.come_back(&share, &mut cpu).await.unwrap();
        assert_eq!(mappings(&code), before + 1);
    }

    #[tokio::test]
    async fn what_rests_and_comes_back_is_counted_once_among_the_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let code = code(folder.path());
        code.compile().await.unwrap();
        let share = Share::new(100, 1);
        for _ in 0..2 {
            code.codes.rest();
            assert!(!code.is_mapped());
            let mut cpu = Duration::ZERO;
            code.come_back(&share, &mut cpu).await.unwrap();
        }
        assert_eq!(lock(&code.codes.mapped).len(), 1);
        assert_eq!(code.codes.count(), 1);
    }
}
