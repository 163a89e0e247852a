//! `dunlin backup`: a copy of the queues that a host can be started with.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use dunlin_tests::{Client, Host, eventually};
use serde_json::{Value, json};

use super::{mode, run, stderr, stdout};
use crate::http::box_with;

const QUEUE: &str = r#"
[queue.q]
visibility-timeout = "10m"
"#;

fn started(state: &Path) -> Host {
    box_with(QUEUE)
        .args(["--insecure-admin", "--state", state.to_str().unwrap()])
        .start()
}

/// An operation on the queue, unsigned.
fn ask(client: &Client, operation: &str, mut body: Value) -> Value {
    body["QueueUrl"] = "http://h/1/q".into();
    let target = format!("AmazonSQS.{operation}");
    let headers = [
        ("x-amz-target", target.as_str()),
        ("content-type", "application/x-amz-json-1.0"),
    ];
    let body = body.to_string();
    let answer = client.request("POST", "/", &headers, body.as_bytes());
    assert_eq!(answer.status, 200, "{operation}: {}", answer.text());
    answer.json()
}

/// The bodies of all messages.
fn bodies(client: &Client) -> BTreeSet<String> {
    let mut bodies = BTreeSet::new();
    loop {
        let answer = ask(
            client,
            "ReceiveMessage",
            json!({ "MaxNumberOfMessages": 10 }),
        );
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        if messages.is_empty() {
            return bodies;
        }
        let texts = messages.iter().map(|message| message["Body"].as_str());
        bodies.extend(texts.map(|body| body.unwrap().to_owned()));
    }
}

/// As the manual says, in the state directory of a host that has ended.
fn restore(copy: &Path, state: &Path) {
    for name in ["queue.db", "values.db"] {
        fs::rename(copy.join(name), state.join(name)).unwrap();
        for gone in ["-wal", "-shm"] {
            let _ = fs::remove_file(state.join(format!("{name}{gone}")));
        }
    }
}

#[test]
fn a_copy_under_load_has_all_that_was_acknowledged_before() {
    let folder = tempfile::tempdir().unwrap();
    let (state, other) = (folder.path().join("state"), folder.path().join("other"));
    let host = started(&state);
    let (acknowledged, ended) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    let acknowledged = &acknowledged;
    let before: BTreeSet<String> = std::thread::scope(|scope| {
        for sender in 0..4 {
            let (client, ended) = (&host.admin, &ended);
            scope.spawn(move || {
                for number in 0.. {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    let body = format!("{sender}-{number}");
                    ask(client, "SendMessage", json!({ "MessageBody": body }));
                    acknowledged.lock().unwrap().insert(body);
                }
            });
        }
        eventually("messages", || {
            (acknowledged.lock().unwrap().len() > 100).then_some(())
        });
        let before = acknowledged.lock().unwrap().clone();
        let args = ["backup", "copy", "--state", state.to_str().unwrap()];
        let output = run(folder.path(), &args);
        ended.store(true, Ordering::SeqCst);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).starts_with("copy/queue.db: "), "{output:?}");
        before
    });
    assert!(
        acknowledged.lock().unwrap().len() > before.len(),
        "under load"
    );
    host.stop();

    let copy = folder.path().join("copy");
    assert_eq!(mode(&copy), 0o700);
    for name in ["queue.db", "values.db"] {
        assert_eq!(mode(&copy.join(name)), 0o600);
    }
    assert!(!folder.path().join("copy.part").exists());
    started(&other).stop();
    restore(&copy, &other);
    let host = started(&other);
    let there = bodies(&host.admin);
    assert!(
        there.is_superset(&before),
        "{} of {}",
        there.len(),
        before.len()
    );
}

#[test]
fn a_host_that_does_not_run_is_copied_too() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let host = started(&state);
    ask(&host.admin, "SendMessage", json!({ "MessageBody": "x" }));
    // Killed: what was acknowledged is in the WAL.
    drop(host);
    let args = ["backup", "copy", "--state", state.to_str().unwrap()];
    let output = run(folder.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // What came later is gone.
    let host = started(&state);
    ask(&host.admin, "SendMessage", json!({ "MessageBody": "y" }));
    host.stop();
    restore(&folder.path().join("copy"), &state);
    let host = started(&state);
    assert_eq!(bodies(&host.admin), BTreeSet::from(["x".to_owned()]));
}

#[test]
fn what_cannot_be_copied_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("broken")).unwrap();
    fs::write(at("broken/queue.db"), [b'x'; 8192]).unwrap();
    fs::write(at("mine"), "mine").unwrap();
    fs::create_dir(at("killed.part")).unwrap();
    for (file, state, parts) in [
        ("copy", "none", ["no folder none", "--state"]),
        ("copy", "empty", ["no queue.db in empty", "--state"]),
        ("copy", "broken", ["broken/queue.db", "not a database"]),
        (
            "mine",
            "broken",
            ["mine is there already", "name a new folder"],
        ),
        ("none/copy", "broken", ["none/copy", "name a new folder"]),
        (
            "killed",
            "broken",
            ["killed.part is there", "remove it if none runs"],
        ),
    ] {
        let output = run(folder.path(), &["backup", file, "--state", state]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: "), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert!(!at("copy").exists() && !at("copy.part").exists());
    assert_eq!(fs::read(at("mine")).unwrap(), b"mine");
}
