//! Compilation, off the data path: in a process of its own, in bounded time and memory. A
//! snapshot is taken in such a process as well.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wasmtime::Engine;

use super::lifecycle::INIT_TIMEOUT;
use super::snapshot::{self, Order, Taken};

/// Lambda's limit for a function's code is 50 MB zipped; a component may be
/// five times that.
pub const MAX_COMPONENT: u64 = 250 << 20;

/// CPU time of the compiler, all its threads together: however busy the machine is, this
/// counts what the component costs. Compiling takes about a second per MiB; twice that for
/// the largest is where something is wrong.
pub(super) const COMPILE_CPU_TIME: Duration = Duration::from_secs(600);
/// Wall time, for a compiler that stands still. One that has half a core gets all of its
/// CPU time.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(1200);
/// Address space of the compiler process.
pub(super) const COMPILE_MEMORY: u64 = 8 << 30;

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
    /// What its `init` leaves cannot be kept.
    #[error("what its `init` leaves cannot be kept: {0}")]
    Untrue(String),
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
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io {
            action,
            path,
            error,
        }
    }
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

/// Where a process of ours finds what it works on, and leaves what it made: names that
/// nobody else uses meanwhile.
pub(super) struct Bench {
    /// What the names begin with.
    pub(super) path: PathBuf,
}

impl Bench {
    /// Lets a process make a file of a component. Answers what it says, and what is in
    /// the file; nothing is left of either.
    fn with_files<T>(
        &self,
        component: &[u8],
        run: impl FnOnce(&Path, &Path) -> Result<T, CompileError>,
    ) -> Result<(T, Result<Vec<u8>, CompileError>), CompileError> {
        let [input, output] = ["wasm.tmp", "out.tmp"].map(|end| self.path.with_extension(end));
        let remove = || {
            let _ = std::fs::remove_file(&input);
            let _ = std::fs::remove_file(&output);
        };
        // A crash may have left them.
        remove();
        let written = create(&input).and_then(|mut file| file.write_all(component));
        let result = written
            .map_err(CompileError::io("cannot write", &input))
            .and_then(|()| run(&input, &output));
        let bytes = std::fs::read(&output).map_err(CompileError::io("cannot read", &output));
        remove();
        result.map(|result| (result, bytes))
    }
}

impl Compiler {
    /// Makes machine code of a component.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        component: &[u8],
        bench: &Bench,
        cancelled: &CancellationToken,
    ) -> Result<Vec<u8>, CompileError> {
        match self {
            Self::InProcess => engine
                .precompile_component(component)
                .map_err(|error| CompileError::Invalid(format!("{error:#}"))),
            Self::Process(program) => {
                let compile = |input: &Path, output: &Path| {
                    run_compiler(program, input, output, COMPILE_TIMEOUT, cancelled)
                };
                let ((), bytes) = bench.with_files(component, compile)?;
                bytes
            }
        }
    }

    /// Makes of a component one that has the state that its `init` leaves.
    pub(super) fn snapshot(
        &self,
        order: &Order,
        component: &[u8],
        bench: &Bench,
        cancelled: &CancellationToken,
    ) -> Result<Taken, CompileError> {
        match self {
            Self::InProcess => snapshot::take(order, component).map_err(CompileError::Init),
            Self::Process(program) => {
                let order = order.to_json();
                let take = |input: &Path, output: &Path| {
                    run_snapshot(program, input, output, &order, cancelled)
                };
                match bench.with_files(component, take)? {
                    (Some(why), _) => Ok(Taken::Untrue(why)),
                    (None, bytes) => bytes.map(Taken::Kept),
                }
            }
        }
    }
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
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(1), _) => Err(CompileError::Invalid(said)),
        (_, Some(libc::SIGXCPU)) => Err(CompileError::Exceeded(format!(
            "took more than {} s of CPU time",
            COMPILE_CPU_TIME.as_secs()
        ))),
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
    bound_this_process(COMPILE_MEMORY, COMPILE_CPU_TIME);
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

/// Holds this process to so much address space, and so much time on the cores.
pub(super) fn bound_this_process(memory: u64, time: Duration) {
    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
    // A host that is killed leaves no process of these behind.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let bound = |resource, current, maximum| {
        let [current, maximum] = [current, maximum].map(Some);
        let _ = setrlimit(resource, Rlimit { current, maximum });
    };
    bound(Resource::As, memory, memory);
    // At the first of them comes SIGXCPU, which tells this end from others.
    let seconds = time.as_secs();
    bound(Resource::Cpu, seconds, seconds + 10);
    bound(Resource::Core, 0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (
                // What the kernel sends at the limit.
                "ulimit -c 0; kill -XCPU $$",
                "the compiler took more than 600 s of CPU time; ",
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
}
