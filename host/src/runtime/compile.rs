//! Compilation, off the data path: in a process of its own, in bounded time
//! and memory, once per component and engine.
//!
//! The product is machine code that the host trusts, so it is kept in a
//! directory that only this user reads (0700, files 0400), each file with a MAC
//! under a key that is kept elsewhere. It is verified once per process and
//! mapped through the very descriptor that was verified.

use std::fs::{File, FileTimes, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::lifecycle::INIT_TIMEOUT;
use super::snapshot::{self, Order, Taken};
use crate::hex::hex;

/// Lambda's limit for a function's code is 50 MB zipped; a component may be
/// five times that.
pub const MAX_COMPONENT: u64 = 250 << 20;

/// Compiling takes about a second per MiB on a slow box; ten times that for the
/// largest is where something is wrong.
pub(super) const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);
/// Address space of the compiler process.
pub(super) const COMPILE_MEMORY: u64 = 8 << 30;

/// The SHA-256 of a component, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha(&Sha256::digest(bytes))
    }

    pub(super) fn from_sha(sha: &[u8]) -> Self {
        Self(hex(sha))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Machine code that no start asked for in this time is deleted: thirty days, so
/// that a rollback a few versions later is still quick.
const KEEP: Duration = Duration::from_secs(30 * DAY.as_secs());
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no machine code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A file of the cache cannot be read or written.
    #[error("{action} {path}: {error}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The compiler refuses the component.
    #[error("it does not compile: {0}")]
    Invalid(String),
    /// Its `init` failed while the snapshot was taken.
    #[error("{0}")]
    Init(String),
    /// The compiler process was ended or ended itself.
    #[error("the compiler {0}; a component that takes this much to compile is refused")]
    Exceeded(String),
    /// Nobody waits for it any more.
    #[error("it was no longer wanted while it was compiled")]
    Cancelled,
    /// What the compiler wrote does not load.
    #[error("it cannot be loaded: {0}")]
    Load(String),
}

impl CompileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io {
            action,
            path,
            error,
        }
    }
}

/// A component whose `init` was run.
pub(super) enum Initialised {
    /// Its instances begin with the state of `init`.
    Kept(Component),
    /// They do not, for this reason.
    Untrue(String),
}

/// Who compiles, and who takes snapshots.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// A process of this program, started as `PROGRAM compile-component IN OUT` or
    /// `PROGRAM snapshot-component IN OUT`.
    Process(PathBuf),
    /// This process: for programs that embed the host and trust what they load.
    InProcess,
}

/// The cache of machine code.
pub(crate) struct Cache {
    directory: PathBuf,
    key: Vec<u8>,
    compiler: Compiler,
}

impl Cache {
    /// Opens the cache in the state directory, making it if need be.
    pub(crate) fn open(state: &Path, compiler: Compiler) -> Result<Self, CompileError> {
        let directory = state.join("compiled");
        match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(CompileError::io("cannot create", &directory))?,
        }
        let key_file = state.join("compiled.key");
        let key = match std::fs::read(&key_file) {
            Ok(key) if key.len() == 32 => key,
            // Without its key nothing in the cache can be trusted: a new key
            // makes it all compile again.
            _ => {
                let mut key = uuid::Uuid::new_v4().into_bytes().to_vec();
                key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
                key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
                // Three times 122 random bits, as 256.
                let key = Sha256::digest(&key).to_vec();
                write_file(&key_file, &key, 0o600)?;
                key
            }
        };
        Ok(Self {
            directory,
            key,
            compiler,
        })
    }

    /// The machine code of a component, from the cache or the compiler, whose process
    /// ends when it is cancelled.
    pub(crate) fn get(
        &self,
        engine: &Engine,
        digest: &Digest,
        component: &[u8],
        cancelled: &CancellationToken,
    ) -> Result<Component, CompileError> {
        let name = format!("{}-{}", digest.as_str(), compatibility(engine));
        match self.find(engine, &name) {
            Some(found) => Ok(found),
            None => self.make(engine, &name, component, cancelled),
        }
    }

    /// The machine code of a component in the state that its `init` leaves, from the
    /// cache, or from the process that takes the snapshot and the compiler. That there is
    /// none is kept, too.
    pub(super) fn initialised(
        &self,
        engine: &Engine,
        order: &Order,
        digest: &Digest,
        component: &[u8],
        cancelled: &CancellationToken,
    ) -> Result<Initialised, CompileError> {
        let digest = order.digest(digest);
        let name = format!("{}-{}", digest.as_str(), compatibility(engine));
        if let Some(found) = self.find(engine, &name) {
            return Ok(Initialised::Kept(found));
        }
        // Nothing to trust: whoever changed it would make `init` run in each instance.
        let reason = self.directory.join(format!("{name}.reason"));
        if let Ok(why) = std::fs::read_to_string(&reason) {
            note_use(&[&reason]);
            return Ok(Initialised::Untrue(why));
        }
        match self.snapshot(&name, order, component, cancelled)? {
            Taken::Kept(kept) => {
                let made = self.make(engine, &name, &kept, cancelled)?;
                Ok(Initialised::Kept(made))
            }
            Taken::Untrue(why) => {
                write_file(&reason, why.as_bytes(), 0o400)?;
                Ok(Initialised::Untrue(why))
            }
        }
    }

    fn files(&self, name: &str) -> [PathBuf; 2] {
        [".cwasm", ".mac"].map(|ending| self.directory.join(format!("{name}{ending}")))
    }

    /// What the cache has.
    fn find(&self, engine: &Engine, name: &str) -> Option<Component> {
        let [code, mac] = self.files(name);
        let found = self.load(engine, name, &code, &mac)?.ok()?;
        note_use(&[&code, &mac]);
        Some(found)
    }

    /// Compiles it and puts it into the cache.
    fn make(
        &self,
        engine: &Engine,
        name: &str,
        component: &[u8],
        cancelled: &CancellationToken,
    ) -> Result<Component, CompileError> {
        let [code, mac] = self.files(name);
        let bytes = self.compile(engine, name, component, cancelled)?;
        write_file(&mac, &self.mac(name, &bytes).finalize().into_bytes(), 0o400)?;
        write_file(&code, &bytes, 0o400)?;
        match self.load(engine, name, &code, &mac) {
            Some(loaded) => loaded.map_err(CompileError::Load),
            None => Err(CompileError::Load(
                "what was just compiled is not what was read back; look at the disk".into(),
            )),
        }
    }

    /// Deletes what no engine of this kind can use, what nobody used in a long
    /// time, and what a crash left half written.
    pub(crate) fn prune(&self, engine: &Engine) {
        let suffix = format!("-{}", compatibility(engine));
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let kept = [".cwasm", ".mac", ".reason"]
                .iter()
                .filter_map(|ending| name.strip_suffix(ending))
                .any(|stem| stem.ends_with(&suffix));
            if !kept || !was_used(&path, KEEP) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn mac(&self, name: &str, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(name.as_bytes());
        mac.update(bytes);
        mac
    }

    /// What the cache has, if it is whole and ours.
    fn load(
        &self,
        engine: &Engine,
        name: &str,
        code: &Path,
        mac: &Path,
    ) -> Option<Result<Component, String>> {
        let expected = std::fs::read(mac).ok()?;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(code)
            .ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        self.mac(name, &bytes).verify_slice(&expected).ok()?;
        Some(map(engine, &file))
    }

    fn compile(
        &self,
        engine: &Engine,
        name: &str,
        component: &[u8],
        cancelled: &CancellationToken,
    ) -> Result<Vec<u8>, CompileError> {
        match &self.compiler {
            Compiler::InProcess => engine
                .precompile_component(component)
                .map_err(|error| CompileError::Invalid(format!("{error:#}"))),
            Compiler::Process(program) => {
                let compile = |input: &Path, output: &Path| {
                    run_compiler(program, input, output, COMPILE_TIMEOUT, cancelled)
                };
                let ((), bytes) = self.with_files(name, component, compile)?;
                bytes
            }
        }
    }

    fn snapshot(
        &self,
        name: &str,
        order: &Order,
        component: &[u8],
        cancelled: &CancellationToken,
    ) -> Result<Taken, CompileError> {
        match &self.compiler {
            Compiler::InProcess => snapshot::take(order, component).map_err(CompileError::Init),
            Compiler::Process(program) => {
                let order = order.to_json();
                let take = |input: &Path, output: &Path| {
                    run_snapshot(program, input, output, &order, cancelled)
                };
                match self.with_files(name, component, take)? {
                    (Some(why), _) => Ok(Taken::Untrue(why)),
                    (None, bytes) => bytes.map(Taken::Kept),
                }
            }
        }
    }

    /// Lets a process make a file of a component. Answers what it says, and what is in
    /// the file; nothing is left of either.
    fn with_files<T>(
        &self,
        name: &str,
        component: &[u8],
        run: impl FnOnce(&Path, &Path) -> Result<T, CompileError>,
    ) -> Result<(T, Result<Vec<u8>, CompileError>), CompileError> {
        let input = self.directory.join(format!("{name}.wasm.tmp"));
        let output = self.directory.join(format!("{name}.out.tmp"));
        let _ = std::fs::remove_file(&output);
        write_file(&input, component, 0o600)?;
        let result = run(&input, &output);
        let _ = std::fs::remove_file(&input);
        let bytes = std::fs::read(&output).map_err(CompileError::io("cannot read", &output));
        let _ = std::fs::remove_file(&output);
        result.map(|result| (result, bytes))
    }
}

/// Notes that files of the cache were of use, once a day. If that fails, they are
/// compiled again in a month.
fn note_use(files: &[&Path]) {
    let times = FileTimes::new().set_modified(SystemTime::now());
    for file in files.iter().filter(|file| !was_used(file, DAY)) {
        let _ = File::open(file).and_then(|file| file.set_times(times));
    }
}

/// Whether a file of the cache was of use in this time. So is one of the future:
/// the machine's clock may have been set back.
fn was_used(file: &Path, within: Duration) -> bool {
    let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| at.elapsed().unwrap_or_default() < within)
}

/// Maps machine code through an open descriptor.
#[allow(
    unsafe_code,
    reason = "machine code is trusted by nature; the caller has verified its MAC"
)]
fn map(engine: &Engine, file: &File) -> Result<Component, String> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the file's content was written by this program's compiler: its
    // MAC was verified on this descriptor.
    unsafe { Component::deserialize_file(engine, path) }.map_err(|error| format!("{error:#}"))
}

/// Writes a file so that it is whole or not there: a crash leaves the old one.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CompileError> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(CompileError::io("cannot write", path))
}

/// Names the engine's settings, version and processor features: what was
/// compiled under one name runs under that name only.
fn compatibility(engine: &Engine) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sha = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut sha);
    hex(&sha.0.finalize()[..16])
}

fn run_compiler(
    program: &Path,
    input: &Path,
    output: &Path,
    limit: Duration,
    cancelled: &CancellationToken,
) -> Result<(), CompileError> {
    let mut command = Command::new(program);
    command.arg("compile-component").arg(input).arg(output);
    let (status, said) = run_child(&mut command, &[], limit, cancelled)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(CompileError::Invalid(said)),
        _ => Err(CompileError::Exceeded(format!("ended with {status}"))),
    }
}

/// Answers why there is no snapshot, if there is none.
fn run_snapshot(
    program: &Path,
    input: &Path,
    output: &Path,
    order: &[u8],
    cancelled: &CancellationToken,
) -> Result<Option<String>, CompileError> {
    let mut command = Command::new(program);
    command.arg("snapshot-component").arg(input).arg(output);
    let limit = COMPILE_TIMEOUT + INIT_TIMEOUT;
    let (status, said) = run_child(&mut command, order, limit, cancelled)?;
    match status.code() {
        Some(0) => Ok(None),
        Some(1) => Err(CompileError::Init(said)),
        Some(code) if code == i32::from(snapshot::NO_SNAPSHOT) => Ok(Some(said)),
        _ => Err(CompileError::Exceeded(format!("ended with {status}"))),
    }
}

/// Runs a process of ours to its end. Answers what it said on stderr.
fn run_child(
    command: &mut Command,
    stdin: &[u8],
    limit: Duration,
    cancelled: &CancellationToken,
) -> Result<(ExitStatus, String), CompileError> {
    let program = PathBuf::from(command.get_program());
    let mut child = command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(CompileError::io("cannot start the compiler", &program))?;
    // A few KiB, which a pipe takes at once. If nobody reads them, the status says more.
    if let Some(mut pipe) = child.stdin.take() {
        let _ = pipe.write_all(stdin);
    }
    let mut stderr = child.stderr.take().expect("it is piped");
    // Read beside the wait: a compiler that fills the pipe must not stand still.
    let said = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = (&mut stderr).take(16 << 10).read_to_end(&mut text);
        let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let began = Instant::now();
    let status = loop {
        match child
            .try_wait()
            .map_err(CompileError::io("cannot wait for the compiler", &program))?
        {
            Some(status) => break status,
            None if cancelled.is_cancelled() => {
                end(&mut child);
                return Err(CompileError::Cancelled);
            }
            None if began.elapsed() > limit => {
                end(&mut child);
                return Err(CompileError::Exceeded(format!(
                    "took longer than {} s",
                    limit.as_secs()
                )));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    Ok((status, said.join().unwrap_or_default()))
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The compiler process: compiles one file into another, within its bounds.
///
/// # Errors
/// A text for the parent to show.
pub fn compile_component(input: &Path, output: &Path) -> Result<(), String> {
    // Both cores may work on it.
    bound_this_process(COMPILE_MEMORY, COMPILE_TIMEOUT);
    let bytes = std::fs::read(input).map_err(|error| error.to_string())?;
    let engine = super::engine::compiling_engine().map_err(|error| format!("{error:#}"))?;
    let code = engine
        .precompile_component(&bytes)
        .map_err(|error| format!("{error:#}"))?;
    let written = create(output).and_then(|mut file| file.write_all(&code));
    written.map_err(|error| error.to_string())
}

/// A file for what a process of ours makes.
pub(super) fn create(file: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
}

/// Holds this process to so much address space, and so much time on each of two cores.
pub(super) fn bound_this_process(memory: u64, time: Duration) {
    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
    // A host that is killed leaves no process of these behind.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let bound = |resource, limit| {
        let _ = setrlimit(
            resource,
            Rlimit {
                current: Some(limit),
                maximum: Some(limit),
            },
        );
    };
    bound(Resource::As, memory);
    bound(Resource::Cpu, time.as_secs() * 2);
    bound(Resource::Core, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_used_for_long_and_what_no_engine_can_use_is_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), Compiler::InProcess).unwrap();
        let engine = super::super::engine::compiling_engine().unwrap();
        // A component without anything, and one with a custom section.
        let used = b"\0asm\x0d\0\x01\0".to_vec();
        let unused = [used.as_slice(), b"\0\x03\x01a\0"].concat();
        let code = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            let wanted = CancellationToken::new();
            cache.get(&engine, &digest, bytes, &wanted).unwrap();
            let name = format!("{}-{}", digest.as_str(), compatibility(&engine));
            cache.directory.join(format!("{name}.cwasm"))
        };
        let (used_code, unused_code) = (code(&used), code(&unused));
        let long_ago = FileTimes::new().set_modified(SystemTime::now() - KEEP * 2);
        for file in [&used_code, &unused_code] {
            File::open(file).unwrap().set_times(long_ago).unwrap();
        }
        let other = cache.directory.join("0123-4567.cwasm");
        std::fs::write(&other, "of another engine").unwrap();
        // From the cache.
        code(&used);
        cache.prune(&engine);
        assert!(used_code.exists());
        assert!(!unused_code.exists());
        assert!(!other.exists());
    }

    /// A compiler that is this script, with a bound of two seconds.
    fn compiler(script: &str, cancelled: &CancellationToken) -> CompileError {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("compiler");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let none = Path::new("none");
        run_compiler(&program, none, none, Duration::from_secs(2), cancelled).unwrap_err()
    }

    #[test]
    fn a_compiler_that_takes_too_long_or_breaks_down_is_told_from_one_that_refuses() {
        let wanted = CancellationToken::new();
        for (script, expected) in [
            ("exec sleep 100", "the compiler took longer than 2 s; "),
            (
                "kill -9 $$",
                "the compiler ended with signal: 9 (SIGKILL); ",
            ),
            ("echo too odd >&2; exit 1", "it does not compile: too odd"),
        ] {
            let error = compiler(script, &wanted).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        wanted.cancel();
        let error = compiler("exec sleep 100", &wanted);
        assert!(matches!(error, CompileError::Cancelled), "{error}");
    }

    #[test]
    fn what_was_compiled_for_another_engine_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), Compiler::InProcess).unwrap();
        let ours = super::super::engine::compiling_engine().unwrap();
        let theirs = Engine::new(&wasmtime::Config::new()).unwrap();
        assert_ne!(compatibility(&ours), compatibility(&theirs));
        let component = b"\0asm\x0d\0\x01\0";
        let wanted = CancellationToken::new();
        let digest = Digest::of(component);
        let files = |engine: &Engine| {
            [".cwasm", ".mac"].map(|ending| {
                let name = format!("{}-{}{ending}", digest.as_str(), compatibility(engine));
                cache.directory.join(name)
            })
        };
        cache.get(&theirs, &digest, component, &wanted).unwrap();
        assert!(!files(&ours)[0].exists());
        // Not under our name either, which the MAC is about as well.
        for (from, to) in files(&theirs).iter().zip(files(&ours)) {
            std::fs::copy(from, to).unwrap();
        }
        cache.get(&ours, &digest, component, &wanted).unwrap();
        let [own, other] = [&ours, &theirs].map(|engine| std::fs::read(&files(engine)[0]).unwrap());
        assert_ne!(own, other, "it is compiled again");
        assert_eq!(own, ours.precompile_component(component).unwrap());
    }
}
