//! What was answered is on the disk: over kills, on a full disk, in a back-up.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dunlin_tests::{Fault, Faults, PATIENCE, Times};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{done, over, refused, request};

/// Kills: enough to meet a commit at different moments, few enough for each run.
const ROUNDS: u64 = 8;
const WRITERS: u64 = 8;

#[test]
fn what_was_acknowledged_is_there_whenever_the_host_is_killed() {
    let state = tempfile::tempdir().unwrap();
    // For each key the last number that was acknowledged, and how often it was counted up.
    let acknowledged: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let (counted, tried) = (AtomicU64::new(0), AtomicU64::new(0));
    for round in 0..ROUNDS {
        let mut host = over(state.path(), "").start();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (acknowledged, ended, client) = (&acknowledged, &ended, &host.http);
                let (counted, tried) = (&counted, &tried);
                scope.spawn(move || {
                    for number in 1.. {
                        let number = round * 1_000_000 + number;
                        let key = format!("{writer}-{}", number % 10);
                        let steps =
                            json!([["set", key, number.to_string()], ["increment", "n", 1],]);
                        tried.fetch_add(1, Ordering::SeqCst);
                        let body = request(2, "b", steps);
                        let answer = client.try_request("POST", "/values", &[], body.as_bytes());
                        let Ok(answer) = answer else { break };
                        if answer.status != 200 {
                            break;
                        }
                        let seen = answer.json();
                        assert!(seen[0].get("ok").is_some(), "{seen}");
                        acknowledged.lock().unwrap().insert(key, number);
                        counted.fetch_add(1, Ordering::SeqCst);
                        if ended.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(60 + 37 * round));
            host.signal(Signal::KILL);
            ended.store(true, Ordering::SeqCst);
        });
        host.wait_for_exit(PATIENCE);

        let host = over(state.path(), "").start();
        let acknowledged = acknowledged.lock().unwrap();
        assert!(!acknowledged.is_empty(), "round {round} wrote something");
        let keys: Vec<&String> = acknowledged.keys().collect();
        let found = done(&host, json!([["get-many", keys]]));
        for (pair, (key, least)) in found[0].as_array().unwrap().iter().zip(&*acknowledged) {
            let value = pair[1].as_str().map(|value| value.parse::<u64>().unwrap());
            assert!(value >= Some(*least), "{key}: {value:?} after {least}");
        }
        let sum = done(&host, json!([["get", "n"]]))[0].clone();
        let sum: u64 = sum.as_str().unwrap().parse().unwrap();
        let (counted, tried) = (counted.load(Ordering::SeqCst), tried.load(Ordering::SeqCst));
        assert!(
            (counted..=tried).contains(&sum),
            "{counted} <= {sum} <= {tried}"
        );
        host.stop();
    }
}

#[test]
fn on_a_full_disk_writes_are_refused_reads_go_on_and_all_does_when_there_is_room() {
    let (faults, state) = (Faults::default(), tempfile::tempdir().unwrap());
    let host = faults.under(over(state.path(), "")).start();
    done(&host, json!([["set", "k", "before"], ["set", "n", "1"]]));
    faults.begin(Fault::Write, Errno::NOSPC, "*/values.db*", Times::Always);
    for step in [
        json!(["set", "k", "x"]),
        json!(["set-many", [["k", "x"], ["new", "x"]]]),
        json!(["delete", "k"]),
        json!(["increment", "n", 1]),
        json!(["swap", "k", "x"]),
    ] {
        assert_eq!(refused(&host, step), "the disk is full");
    }
    let seen = done(&host, json!([["get", "k"], ["get", "n"], ["keys", null]]));
    let keys = json!({ "keys": ["k", "n"], "cursor": null });
    assert_eq!(seen, [json!("before"), json!("1"), keys]);
    let health = host.admin.get("/health");
    assert_eq!(health.status, 200);
    assert!(health.text().contains("the disk is full"));
    host.wait_for_log(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "error" && message.starts_with("the disk is full: ")
    });
    let labels = [("function", "values"), ("outcome", "failed")];
    let failed = host.metric("dunlin_key_value_operations_total", &labels);
    assert_eq!(failed, Some(5.0));
    faults.end();
    // Nobody writes, and it is found out all the same.
    host.wait_for_metric("dunlin_disk_full", &[], |it| it == 0.0);
    assert_eq!(host.admin.get("/health").text(), "ok\n");
    done(&host, json!([["set", "k", "after"], ["increment", "n", 1]]));
    host.stop();
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged_and_the_host_ends() {
    let (faults, state) = (Faults::default(), tempfile::tempdir().unwrap());
    let mut host = faults.under(over(state.path(), "")).start();
    done(&host, json!([["set", "k", "before"]]));
    faults.begin(Fault::Sync, Errno::IO, "*/values.db*", Times::Once);
    let body = request(2, "b", json!([["set", "k", "lost?"]]));
    let answer = host
        .http
        .try_request("POST", "/values", &[], body.as_bytes());
    if let Ok(answer) = answer {
        let seen = answer.text();
        assert!(!seen.contains("\"ok\""), "{seen}");
    }
    assert!(!host.wait_for_exit(PATIENCE).success());
    let said = host.stderr().join("\n") + &host.log_text();
    assert!(said.contains("values.db"), "{said}");

    let host = over(state.path(), "").start();
    let value = done(&host, json!([["get", "k"]]));
    // Nobody knows whether it was written, but half of it was not.
    assert!(
        value == [json!("before")] || value == [json!("lost?")],
        "{value:?}"
    );
    host.stop();
}

#[test]
fn a_back_up_has_all_that_was_set_before_and_can_be_started_with() {
    let folder = tempfile::tempdir().unwrap();
    let host = over(folder.path(), "").start();
    let entries: Vec<Value> = (0..100).map(|key| json!([key.to_string(), 2000])).collect();
    done(&host, json!([["set-many", entries], ["increment", "n", 7]]));
    let output = Command::new(dunlin_tests::dunlin())
        .current_dir(folder.path())
        .args(["backup", "copy", "--state", "state"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("copy/values.db: "), "{said}");
    done(&host, json!([["increment", "n", 1], ["delete", "0"]]));
    host.stop();

    let other = tempfile::tempdir().unwrap();
    fs::rename(folder.path().join("copy"), other.path().join("state")).unwrap();
    let host = over(other.path(), "").start();
    let seen = done(&host, json!([["get", "n"], ["get", "0"], ["get", "99"]]));
    assert_eq!(seen, [json!("7"), json!(2000), json!(2000)]);
    host.stop();
}
