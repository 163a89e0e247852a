//! Signals to a host that compiles and does not serve yet.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use dunlin_tests::{PATIENCE, dunlin, eventually, guest, within};
use rustix::process::{Pid, Signal, kill_process};

/// What runs in a process of its own before a host serves.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// The compiler.
    Compile,
    /// A function's `init`, which never ends.
    Snapshot,
}

impl Work {
    fn command(self) -> &'static [u8] {
        match self {
            Self::Compile => b"compile-component",
            Self::Snapshot => b"snapshot-component",
        }
    }

    fn manifest(self) -> String {
        let of = |name: &str| format!("[function.{name}]\ncomponent = {:?}\n", guest(name));
        match self {
            Self::Compile => of("probe"),
            Self::Snapshot => {
                of("prepared") + "environment = { PREPARE = \"spin\" }\nfuel = \"off\"\n"
            }
        }
    }
}

/// A host whose compiler has been stopped in the middle of its work, so that it would
/// never end by itself.
struct Compiling {
    host: Child,
    compiler: Pid,
    _folder: tempfile::TempDir,
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw.try_into().unwrap()).unwrap()
}

/// The process of that host that does this, if it runs.
fn worker_of(host: u32, work: Work) -> Option<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{host}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let children = std::fs::read_to_string(thread.path().join("children")).ok()?;
        let child: u32 = children.split_whitespace().next()?.parse().ok()?;
        let command = std::fs::read(format!("/proc/{child}/cmdline")).ok()?;
        let compiles = command
            .split(|byte| *byte == 0)
            .any(|arg| arg == work.command());
        compiles.then(|| pid(child))
    })
}

/// Whether it has begun with the work itself: it has used some hundredths of a second.
fn works(process: Pid) -> Option<()> {
    let stat = format!("/proc/{}/stat", process.as_raw_nonzero());
    let stat = std::fs::read_to_string(stat).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: u64 = fields.split(' ').nth(11)?.parse().ok()?;
    (ticks >= 2).then_some(())
}

fn is_gone(process: Pid) -> Option<()> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    // One that nobody has waited for is a zombie.
    match stat {
        Ok(stat) => stat.contains(") Z ").then_some(()),
        Err(_) => Some(()),
    }
}

fn at(work: Work) -> Compiling {
    let folder = tempfile::tempdir().unwrap();
    let manifest = work.manifest();
    let write = |name: &Path, text: &str| std::fs::write(name, text).unwrap();
    write(&folder.path().join("dunlin.toml"), &manifest);
    let host = Command::new(dunlin())
        .args(["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let compiler = eventually("the compiler", || worker_of(host.id(), work));
    eventually("its work", || works(compiler));
    kill_process(compiler, Signal::STOP).unwrap();
    Compiling {
        host,
        compiler,
        _folder: folder,
    }
}

impl Compiling {
    fn signalled(mut self, signal: Signal) -> (ExitStatus, Pid) {
        kill_process(pid(self.host.id()), signal).unwrap();
        let status = within(PATIENCE, "the host's end", || self.host.try_wait().unwrap());
        (status, self.compiler)
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        let _ = self.host.kill();
        let _ = self.host.wait();
        let _ = kill_process(self.compiler, Signal::KILL);
    }
}

#[test]
fn a_signal_ends_a_host_that_compiles_and_its_compiler() {
    for signal in [Signal::TERM, Signal::INT] {
        for work in [Work::Compile, Work::Snapshot] {
            let (status, worker) = at(work).signalled(signal);
            assert_eq!(status.code(), Some(0), "{work:?}: {status}");
            within(Duration::from_secs(1), "the worker's end", || {
                is_gone(worker)
            });
        }
    }
}

#[test]
fn compiler_and_init_have_bounds_of_the_system() {
    // 8 GiB and 10 minutes; for `init` four times the function's memory and 10 seconds
    // more. It is told of the end 10 seconds before.
    bounded(Work::Compile, "8589934592", ["600", "610"]);
    bounded(Work::Snapshot, "9126805504", ["610", "620"]);
}

#[track_caller]
fn bounded(work: Work, memory: &str, cpu: [&str; 2]) {
    let compiling = at(work);
    let limits = format!("/proc/{}/limits", compiling.compiler.as_raw_nonzero());
    let limits = std::fs::read_to_string(limits).unwrap();
    let of = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let values = line[name.len()..].split_whitespace();
        values.take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of("Max address space"), [memory, memory]);
    assert_eq!(of("Max cpu time"), cpu);
    assert_eq!(of("Max core file size"), ["0", "0"]);
}

/// A package whose build lasts until nobody waits for it any more.
fn endless(folder: &Path) {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    std::fs::create_dir(folder.join("src")).unwrap();
    write(
        "Cargo.toml",
        "[package]\nname = \"endless\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [workspace]\n",
    );
    write("src/lib.rs", "");
    write(
        "build.rs",
        r#"use std::os::unix::process::parent_id;
fn main() {
    std::fs::write("building", parent_id().to_string()).unwrap();
    let cargo = parent_id();
    for _ in 0..1200 {
        if parent_id() != cargo {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
"#,
    );
    write("dunlin.toml", "[function.endless]\nsource = \".\"\n");
}

#[test]
fn a_signal_ends_a_host_that_builds_and_its_cargo() {
    let folder = tempfile::tempdir().unwrap();
    endless(folder.path());
    let mut host = Command::new(dunlin())
        .args(["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let cargo = eventually("the build", || {
        let text = std::fs::read_to_string(folder.path().join("building")).ok()?;
        Some(pid(text.parse().ok()?))
    });
    kill_process(pid(host.id()), Signal::TERM).unwrap();
    let status = within(PATIENCE, "the host's end", || host.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{status}");
    eventually("cargo's end", || is_gone(cargo));
}

#[test]
fn a_host_that_is_killed_leaves_no_process_behind() {
    for work in [Work::Compile, Work::Snapshot] {
        let (_, worker) = at(work).signalled(Signal::KILL);
        eventually("the worker's end", || is_gone(worker));
    }
}
