//! What was acknowledged is never lost, whatever is killed; and what a reload makes of the
//! queues.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dunlin_tests::{Client, Host, PATIENCE, eventually};
use rustix::process::Signal;
use serde_json::json;

use crate::events::ask;
use crate::http::box_with;

fn started(state: &Path, manifest: &str) -> Host {
    box_with(manifest)
        .args(["--insecure-admin", "--state", state.to_str().unwrap()])
        .start()
}

const ROUNDS: u64 = 12;
const SENDERS: u64 = 8;
const RECEIVERS: usize = 4;
/// Longer than anybody takes to settle what was received.
const CRASHES: &str = r#"
[queue.q]
visibility-timeout = "6s"
"#;

/// What the clients know, outside of the host.
#[derive(Default)]
struct Known {
    acknowledged: Mutex<BTreeSet<String>>,
    received: Mutex<BTreeMap<String, u32>>,
    settled: Mutex<BTreeSet<String>>,
    sent: AtomicU64,
}

impl Known {
    fn send(&self, client: &Client, ended: &AtomicBool) {
        while !ended.load(Ordering::SeqCst) {
            let body = format!("m{}", self.sent.fetch_add(1, Ordering::SeqCst));
            let request = json!({ "QueueUrl": "http://h/1/q", "MessageBody": body });
            if ask(client, "SendMessage", &request).is_some() {
                self.acknowledged.lock().unwrap().insert(body);
            }
        }
    }

    /// Receives once and settles what came. Answers whether something did.
    fn receive(&self, client: &Client) -> bool {
        let request = json!({ "QueueUrl": "http://h/1/q", "MaxNumberOfMessages": 10 });
        let Some(answer) = ask(client, "ReceiveMessage", &request) else {
            return false;
        };
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        for message in &messages {
            let body = message["Body"].as_str().unwrap().to_owned();
            assert!(
                !self.settled.lock().unwrap().contains(&body),
                "{body} came again after its end was acknowledged"
            );
            *self
                .received
                .lock()
                .unwrap()
                .entry(body.clone())
                .or_default() += 1;
            let request =
                json!({ "QueueUrl": "http://h/1/q", "ReceiptHandle": message["ReceiptHandle"] });
            if ask(client, "DeleteMessage", &request).is_some() {
                self.settled.lock().unwrap().insert(body);
            }
        }
        !messages.is_empty()
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_however_often_the_host_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let known = Known::default();
    for round in 0..ROUNDS {
        let mut host = started(&state, CRASHES);
        let (client, ended) = (&host.admin, AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| known.send(client, &ended));
            }
            for _ in 0..RECEIVERS {
                scope.spawn(|| {
                    while !ended.load(Ordering::SeqCst) {
                        known.receive(client);
                    }
                });
            }
            // At no moment in particular.
            std::thread::sleep(Duration::from_millis(150 + round * 37 % 200));
            host.signal(Signal::KILL);
            ended.store(true, Ordering::SeqCst);
        });
        host.wait_for_exit(PATIENCE);
    }

    let host = started(&state, CRASHES);
    let acknowledged = known.acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    let deadline = Instant::now() + PATIENCE;
    let missing = || {
        let received = known.received.lock().unwrap();
        acknowledged
            .iter()
            .filter(|body| !received.contains_key(*body))
            .count()
    };
    while missing() > 0 && Instant::now() < deadline {
        if !known.receive(&host.admin) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    assert_eq!(
        missing(),
        0,
        "of {} acknowledged messages are lost",
        acknowledged.len()
    );
    // Nothing else lies there but what was never acknowledged, or settled without an answer.
    eventually("the queue is empty", || {
        known.receive(&host.admin);
        let request = json!({ "QueueUrl": "http://h/1/q", "AttributeNames": ["All"] });
        let found = ask(&host.admin, "GetQueueAttributes", &request).unwrap();
        let count = |name: &str| found["Attributes"][name].as_str().unwrap() == "0";
        (count("ApproximateNumberOfMessages") && count("ApproximateNumberOfMessagesNotVisible"))
            .then_some(())
    });
    let received = known.received.lock().unwrap();
    let twice = received.values().filter(|times| **times > 1).count();
    println!(
        "{} acknowledged, {twice} received more than once",
        acknowledged.len()
    );
    host.stop();
}

#[test]
fn a_queue_that_is_no_longer_declared_goes_if_it_is_empty_and_stays_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let names = |host: &Host| {
        let answer = ask(&host.admin, "ListQueues", &json!({})).unwrap();
        let urls = answer["QueueUrls"].as_array().cloned().unwrap_or_default();
        urls.iter()
            .map(|url| url.as_str().unwrap().rsplit('/').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let host = started(
        &state,
        "[queue.empty]\ndead-letter-queue = \"dead\"\n[queue.dead]\n[queue.full]\n",
    );
    let request = json!({ "QueueUrl": "http://h/1/full", "MessageBody": "x" });
    ask(&host.admin, "SendMessage", &request).unwrap();
    let request = json!({ "QueueName": "of-a-client" });
    ask(&host.admin, "CreateQueue", &request).unwrap();
    assert_eq!(names(&host), ["dead", "empty", "full", "of-a-client"]);
    host.stop();
    let host = started(&state, "");
    assert_eq!(names(&host), ["full", "of-a-client"]);
    host.wait_for_log(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message
            .starts_with("the queue full is no longer in the manifest and stays: messages in it: 1")
    });
    host.stop();
}
