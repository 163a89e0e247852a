//! A client that real people have: boto3, from PyPI, in an environment that the
//! test makes and keeps in the folder for builds.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin_tests::{Host, repository, target_dir};

use crate::http::up;

/// An exact version, so
/// that a new one does not change what the test says.
const BOTO3: &str = "boto3==1.44.5";

/// Python with boto3.
fn python() -> PathBuf {
    let folder = target_dir().join("tmp").join("boto3");
    std::fs::create_dir_all(&folder).unwrap();
    let python = folder.join("venv/bin/python");
    // Another run of the tests may be making it.
    let lock = File::create(folder.join("lock")).unwrap();
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => lock.lock().unwrap(),
        Err(TryLockError::Error(error)) => panic!("{error}"),
    }
    let has_it = |python: &Path| {
        let script = format!(
            "import boto3; assert boto3.__version__ == {:?}",
            BOTO3.trim_start_matches("boto3==")
        );
        let output = Command::new(python).args(["-c", &script]).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !has_it(&python) {
        let made = run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder.join("venv")));
        made.unwrap_or_else(|error| {
            panic!("python3 with its module venv is needed (python3-venv): {error}")
        });
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            BOTO3,
        ];
        let installed = run(Command::new(&python).args(pip));
        installed.unwrap_or_else(|error| panic!("pip cannot install {BOTO3}: {error}"));
    }
    python
}

/// What a program says that succeeds.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!(
            "{}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        )),
    }
}

#[track_caller]
fn script(host: &Host, name: &str) {
    let result = run(Command::new(python())
        .arg(repository().join("tests/all/admin").join(name))
        .arg(format!("http://{}", host.admin.address()))
        .env_clear()
        // As the host's documentation tells its users.
        .env(
            "AWS_SHARED_CREDENTIALS_FILE",
            host.state().join("admin.key"),
        )
        .env("AWS_DEFAULT_REGION", "edge-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", host.folder()));
    let said = result.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(said.trim(), "ok");
}

#[test]
fn boto3_invokes_and_knows_the_errors() {
    let host = up(r#"
[host]
admission-wait = "0"

[function.probe]
component = "{probe}"
timeout = "1s"
memory = "16MiB"

[function.one]
component = "{probe}"
timeout = "10s"
reserved-concurrency = 1
"#);
    script(&host, "invoke.py");
}

#[test]
fn boto3_feeds_and_reads_queues() {
    let mut host = up(QUEUES);
    script(&host, "queues.py");
    // What it left, with its receipts, is there after the host was killed.
    let state = host.folder().join("kept");
    std::fs::create_dir(&state).unwrap();
    for name in ["admin.key", "queue.db", "queue.db-wal"] {
        assert!(host.state().join(name).is_file(), "{name}");
    }
    host.signal(rustix::process::Signal::KILL);
    host.wait_for_exit(dunlin_tests::PATIENCE);
    for entry in std::fs::read_dir(host.state()).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), state.join(entry.file_name())).unwrap();
        }
    }
    rustix::fs::chmod(&state, rustix::fs::Mode::RWXU).unwrap();
    let again = crate::http::box_with(QUEUES)
        .args(["--state", state.to_str().unwrap()])
        .start();
    let result = run(Command::new(python())
        .arg(repository().join("tests/all/admin/queues_again.py"))
        .arg(format!("http://{}", again.admin.address()))
        .arg(host.folder().join("receipt"))
        .env_clear()
        .env("AWS_SHARED_CREDENTIALS_FILE", state.join("admin.key"))
        .env("AWS_DEFAULT_REGION", "edge-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", host.folder()));
    let said = result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(said.trim(), "ok");
}

#[test]
fn boto3_sends_events_and_sees_what_becomes_of_them() {
    let host = up(EVENTS);
    script(&host, "events.py");
    // Each message of the batch was tried as often as it had to be.
    let log = host.log();
    let times = |body: &str| {
        let ends = format!(" body={body}");
        let lines = log.iter().filter_map(|line| line["message"].as_str());
        let lines = lines.filter(|line| line.starts_with("record ") && line.ends_with(&ends));
        lines.count()
    };
    assert_eq!(["good", "fail", "größe"].map(times), [1, 2, 1]);
}

/// A function with destinations and a queue, and one whose backlog is soon full.
pub(super) const EVENTS: &str = r#"
[function.worker]
component = "{lambda-consumer}"
timeout = "1s"

[function.worker.async]
retry-delay = "10ms"
max-attempts = 2
on-success = { queue = "good" }
on-failure = { queue = "bad" }

[queue.good]
[queue.bad]

[function.narrow]
component = "{lambda-consumer}"
reserved-concurrency = 1

[function.narrow.async]
backlog = 2

[[function.worker.queue]]
name = "jobs"
report-batch-item-failures = "on"

[queue.jobs]
visibility-timeout = "1s"
dead-letter-queue = "jobs-dead"
max-receives = 2

[queue.jobs-dead]
"#;

/// A queue with dead letters, a FIFO queue, and one that is soon full.
const QUEUES: &str = r#"
[queue.orders]
dead-letter-queue = "orders-dead"
max-receives = 2

[queue.orders-dead]

[queue."steps.fifo"]

[queue.small]
max-messages = 2
"#;
