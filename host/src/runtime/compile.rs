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
const COMPILE_CPU_TIME: Duration = Duration::from_secs(600);
/// CPU time of the process that takes a snapshot: `init` may compute all of its time.
pub(super) const SNAPSHOT_CPU_TIME: Duration = COMPILE_CPU_TIME.saturating_add(INIT_TIMEOUT);
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
    /// The compiler process was ended or broke down.
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
                let limit = COMPILE_TIMEOUT + INIT_TIMEOUT;
                let take = |input: &Path, output: &Path| {
                    run_snapshot(program, input, output, &order, limit, cancelled)
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
    match run_child(&mut command, &[], limit, cancelled)? {
        Ended::Exited(0, _) => Ok(()),
        Ended::Exited(1, said) => Err(CompileError::Invalid(said)),
        ended => Err(CompileError::Exceeded(ended.how(limit, COMPILE_CPU_TIME))),
    }
}

/// Answers why there is no snapshot, if there is none. What the process breaks down over
/// is such a reason: `init` itself is held to bounds of its own, and fails by them.
fn run_snapshot(
    program: &Path,
    input: &Path,
    output: &Path,
    order: &[u8],
    limit: Duration,
    cancelled: &CancellationToken,
) -> Result<Option<String>, CompileError> {
    let mut command = Command::new(program);
    command.arg("snapshot-component").arg(input).arg(output);
    match run_child(&mut command, order, limit, cancelled)? {
        Ended::Exited(0, _) => Ok(None),
        Ended::Exited(1, said) => Err(CompileError::Init(said)),
        Ended::Exited(snapshot::NO_SNAPSHOT, said) => Ok(Some(said)),
        ended => Ok(Some(format!(
            "the process that takes its state {}",
            ended.how(limit, SNAPSHOT_CPU_TIME)
        ))),
    }
}

/// How a process of ours came to its end.
enum Ended {
    /// By itself, with this code; and what it said on stderr.
    Exited(u8, String),
    /// By a signal.
    Killed(ExitStatus),
    /// It was ended when its time was over.
    TooSlow,
}

impl Ended {
    /// In words, for one that had so much time, and so much on the cores.
    fn how(&self, limit: Duration, cpu: Duration) -> String {
        match self {
            Self::TooSlow => format!("took longer than {} s", limit.as_secs()),
            Self::Killed(status) if status.signal() == Some(libc::SIGXCPU) => {
                format!("took more than {} s of CPU time", cpu.as_secs())
            }
            Self::Killed(status) => format!("ended with {status}"),
            Self::Exited(code, _) => format!("ended with exit status: {code}"),
        }
    }
}

/// Runs a process of ours to its end.
fn run_child(
    command: &mut Command,
    stdin: &[u8],
    limit: Duration,
    cancelled: &CancellationToken,
) -> Result<Ended, CompileError> {
    let program = PathBuf::from(command.get_program());
    let mut child = command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(CompileError::io("cannot start", &program))?;
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
            .map_err(CompileError::io("cannot wait for", &program))?
        {
            Some(status) => break status,
            None if cancelled.is_cancelled() => {
                end(&mut child);
                return Err(CompileError::Cancelled);
            }
            None if began.elapsed() > limit => {
                end(&mut child);
                return Ok(Ended::TooSlow);
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let said = said.join().unwrap_or_default();
    Ok(match status.code().map(u8::try_from) {
        Some(Ok(code)) => Ended::Exited(code, said),
        _ => Ended::Killed(status),
    })
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
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// The bound of what these processes do.
    const LIMIT: Duration = Duration::from_secs(2);

    /// Runs a program that is this script.
    fn with_script<T>(script: &str, run: impl FnOnce(&Path) -> T) -> T {
        use std::os::unix::fs::PermissionsExt as _;
        // A process of another test that began while it is written would hold it open, and
        // what is open for writing is not run.
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        run(&program)
    }

    fn compiler(script: &str, cancelled: &CancellationToken) -> CompileError {
        let none = Path::new("none");
        with_script(script, |program| {
            run_compiler(program, none, none, LIMIT, cancelled).unwrap_err()
        })
    }

    #[test]
    fn a_snapshot_that_breaks_off_is_none_and_no_failure_of_init() {
        let (none, wanted) = (Path::new("none"), CancellationToken::new());
        let snapshot = |script: &str| {
            with_script(script, |program| {
                run_snapshot(program, none, none, b"{}", LIMIT, &wanted)
            })
        };
        for (script, why) in [
            ("exit 3", ""),
            ("echo of this >&2; exit 3", "of this"),
            (
                "exec sleep 100",
                "the process that takes its state took longer than 2 s",
            ),
            (
                // As where memory is used up.
                "ulimit -c 0; kill -ABRT $$",
                "the process that takes its state ended with signal: 6 (SIGABRT)",
            ),
            (
                "ulimit -c 0; kill -XCPU $$",
                "the process that takes its state took more than 610 s of CPU time",
            ),
            (
                "exit 101",
                "the process that takes its state ended with exit status: 101",
            ),
        ] {
            let taken = snapshot(script);
            assert!(
                matches!(&taken, Ok(Some(said)) if said == why),
                "{script}: {taken:?}"
            );
        }
        assert!(matches!(snapshot("exit 0"), Ok(None)));
        let failed = snapshot("echo no words >&2; exit 1");
        assert!(
            matches!(&failed, Err(CompileError::Init(said)) if said == "no words"),
            "{failed:?}"
        );
        wanted.cancel();
        let cancelled = snapshot("exec sleep 100");
        assert!(
            matches!(cancelled, Err(CompileError::Cancelled)),
            "{cancelled:?}"
        );
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
