//! A disk that fails: nothing is acknowledged any more, the host says so and ends, and what
//! was acknowledged is there after the next start.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use dunlin_tests::{Fault, Faults, PATIENCE, Times};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::{Scene, try_ask};

const SENDERS: usize = 4;
const MANY: &str = "[queue.many]\nmax-messages = 100000\n";

/// Sends until the host is gone; answers what was acknowledged. Nothing is that was sent
/// after the fault.
fn send_until_it_ends(scene: &Scene, faults: &Faults, size: usize) -> BTreeSet<String> {
    let acknowledged = Mutex::new(BTreeSet::new());
    let count = AtomicU64::new(0);
    let ended = AtomicBool::new(false);
    let deadline = Instant::now() + PATIENCE;
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    assert!(Instant::now() < deadline, "the host goes on");
                    let is_after = faults.has_struck();
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    let body = format!("{number} {}", "x".repeat(size));
                    let request = json!({ "QueueUrl": "http://h/1/many", "MessageBody": body });
                    let Some(answer) = try_ask(&scene.host.admin, "SendMessage", &request) else {
                        ended.store(true, Ordering::SeqCst);
                        return;
                    };
                    if answer.status == 200 {
                        assert!(!is_after, "acknowledged after the disk had failed");
                        acknowledged.lock().unwrap().insert(number.to_string());
                    } else {
                        assert_eq!(answer.status, 500, "{}", answer.text());
                    }
                }
            });
        }
    });
    acknowledged.into_inner().unwrap()
}

/// The bodies that lie in `many`, without what fills them.
fn lying(scene: &Scene) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let request = json!({ "QueueUrl": "http://h/1/many", "MaxNumberOfMessages": 10 });
    loop {
        let received = scene.ask("ReceiveMessage", &request);
        let Some(messages) = received["Messages"].as_array() else {
            return all;
        };
        all.extend(messages.iter().map(|message: &Value| {
            let body = message["Body"].as_str().unwrap();
            body.split(' ').next().unwrap().to_owned()
        }));
    }
}

/// Lets the disk fail once while messages are sent, and looks at what becomes of it.
#[track_caller]
fn ends_the_host(fault: Fault, files: &str, size: usize) {
    let (faults, state) = (Faults::default(), tempfile::tempdir().unwrap());
    let mut scene = Scene::on(&faults, state.path(), MANY);
    scene.send("many", "before");
    faults.begin(fault, Errno::IO, files, Times::Once);
    let acknowledged = send_until_it_ends(&scene, &faults, size);
    assert!(faults.has_struck());
    let status = scene.host.wait_for_exit(PATIENCE);
    assert_eq!(status.code(), Some(1), "{status}");
    says_what_is_wrong(&scene.host.stderr().join("\n"), state.path());
    // So does the log.
    scene.host.wait_for_log(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "error" && message.contains("queue.db: disk I/O error in ")
    });

    let scene = Scene::over(state.path(), MANY);
    let there = lying(&scene);
    assert!(there.contains("before"));
    let lost: Vec<&String> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
    scene.host.stop();
}

#[track_caller]
fn says_what_is_wrong(stderr: &str, state: &Path) {
    let file = state.join("state/queue.db");
    assert!(stderr.contains(file.to_str().unwrap()), "{stderr}");
    assert!(stderr.contains("disk I/O error"), "{stderr}");
    assert!(stderr.contains("repair it, and start"), "{stderr}");
}

#[test]
fn an_fsync_that_fails_once_ends_the_host() {
    ends_the_host(Fault::Sync, "*/queue.db-wal", 10);
}

#[test]
fn a_write_that_fails_ends_the_host() {
    ends_the_host(Fault::Write, "*/queue.db-wal", 10);
}

#[test]
fn an_error_when_the_log_is_moved_into_the_database_ends_the_host() {
    ends_the_host(Fault::Sync, "*/queue.db", 50_000);
    ends_the_host(Fault::Write, "*/queue.db", 50_000);
}

#[test]
fn on_a_disk_that_fails_the_host_does_not_start() {
    for (fault, error, says) in [
        (Fault::Sync, Errno::IO, "disk I/O error"),
        (Fault::Write, Errno::IO, "disk I/O error"),
        (Fault::Write, Errno::NOSPC, "database or disk is full"),
    ] {
        let (faults, state) = (Faults::default(), tempfile::tempdir().unwrap());
        faults.begin(fault, error, "*/queue.db*", Times::Always);
        let host = faults.under(Scene::builder(state.path(), ""));
        let failure = host.start_expecting_failure();
        assert_eq!(failure.code, 1, "{failure:?}");
        let stderr = failure.stderr;
        let file = state.path().join("state/queue.db");
        assert!(stderr.contains(file.to_str().unwrap()), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
        assert!(stderr.contains("see that the disk has room"), "{stderr}");
        // What it began stands in no way.
        faults.end();
        let scene = Scene::over(state.path(), "");
        scene.send("out", "x");
        scene.host.stop();
    }
}
