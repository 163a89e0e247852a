//! Who feeds the host, and notes what it acknowledged.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::Scope;
use std::time::Duration;

use dunlin_tests::Client;
use serde_json::{Value, json};

use super::depth;
use super::ledger::{Kind, Ledger};
use crate::events::ask;

/// Messages of the crowd that are kept in the host.
pub(super) const CROWD: u64 = 1600;
/// Of each other kind, at most.
const FEW: usize = 60;
/// Messages that are only to wait.
const IDLE: usize = 100;
/// Groups of the FIFO queue.
const GROUPS: usize = 8;
/// Events at once, at most.
const EVENTS: usize = 150;

/// What producers remember from one round to the next.
#[derive(Default)]
pub(super) struct Producers {
    /// FIFO: the message that comes next. It is sent until it is acknowledged.
    step: Mutex<u32>,
    sent: AtomicU32,
}

/// Sends a message; notes it if that is acknowledged. Answers whether the host lives.
fn send(client: &Client, ledger: &Ledger, kind: Kind, queue: &str, body: &str) -> bool {
    let request = json!({ "QueueUrl": format!("http://h/1/{queue}"), "MessageBody": body });
    let Some(sent) = ask(client, "SendMessage", &request) else {
        return false;
    };
    ledger.acknowledged(kind, id(&sent));
    true
}

/// Sends ten messages as one.
fn send_ten(client: &Client, ledger: &Ledger, kind: Kind, queue: &str, body: &str) -> bool {
    let entries: Vec<Value> = (0..10)
        .map(|index| json!({ "Id": index.to_string(), "MessageBody": body }))
        .collect();
    let request = json!({ "QueueUrl": format!("http://h/1/{queue}"), "Entries": entries });
    let Some(sent) = ask(client, "SendMessageBatch", &request) else {
        return false;
    };
    let sent = sent["Successful"].as_array().unwrap();
    assert_eq!(sent.len(), 10);
    for sent in sent {
        ledger.acknowledged(kind, id(sent));
    }
    true
}

fn id(sent: &Value) -> &str {
    sent["MessageId"].as_str().unwrap()
}

impl Producers {
    /// Sends what is to be there before the first kill.
    pub(super) fn fill(&self, client: &Client, ledger: &Ledger) {
        while ledger.open(Kind::Crowd) < CROWD as usize {
            assert!(self.crowd(client, ledger, 1));
        }
        for _ in 0..IDLE / 10 {
            assert!(send_ten(client, ledger, Kind::Idle, "idle", "reject never"));
        }
    }

    /// Sends until the host is killed.
    pub(super) fn run<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        client: &'scope Client,
        ledger: &'env Ledger,
        ended: &'scope AtomicBool,
    ) where
        'env: 'scope,
    {
        type Produce = fn(&Producers, &Client, &Ledger) -> bool;
        let kinds: [(Kind, usize, Produce); 6] = [
            (Kind::Crowd, usize::MAX, |own, client, ledger| {
                // What was handled is known here later than there.
                match depth(client, "crowd") {
                    Some((all, _)) if all >= CROWD => {
                        std::thread::sleep(Duration::from_millis(20));
                        true
                    }
                    Some(_) => {
                        let turn = own.sent.fetch_add(1, Ordering::Relaxed);
                        own.crowd(client, ledger, turn)
                    }
                    None => false,
                }
            }),
            (Kind::Narrow, FEW, |_, client, ledger| {
                send(
                    client,
                    ledger,
                    Kind::Narrow,
                    "narrow",
                    "sleep 40; forward out",
                )
            }),
            (Kind::Chain, FEW, |_, client, ledger| {
                let body = "invoke lambda; sleep 20; forward out";
                send(client, ledger, Kind::Chain, "crowd", body)
            }),
            (Kind::Poison, FEW / 4, |_, client, ledger| {
                send(client, ledger, Kind::Poison, "poison", "trap")
                    && send(client, ledger, Kind::Beside, "poison", "forward out")
            }),
            (Kind::Step, FEW, |own, client, ledger| {
                own.step(client, ledger)
            }),
            (Kind::Event, EVENTS, event),
        ];
        for (kind, most, produce) in kinds {
            scope.spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    if ledger.open(kind) >= most {
                        std::thread::sleep(Duration::from_millis(20));
                    } else if !produce(self, client, ledger) {
                        return;
                    }
                }
            });
        }
    }

    /// Ten of the crowd at once, or one alone.
    fn crowd(&self, client: &Client, ledger: &Ledger, turn: u32) -> bool {
        let body = "sleep 60; forward out; sleep 40";
        match turn % 10 {
            0 => send(client, ledger, Kind::Crowd, "crowd", body),
            _ => send_ten(client, ledger, Kind::Crowd, "crowd", body),
        }
    }

    /// The next message of the FIFO queue: the same until it is acknowledged, so that it is
    /// there once and in its place, whatever the host knew of it when it was killed.
    fn step(&self, client: &Client, ledger: &Ledger) -> bool {
        let mut step = self.step.lock().unwrap();
        let group = format!("g{}", *step as usize % GROUPS);
        let request = json!({
            "QueueUrl": "http://h/1/steps.fifo",
            "MessageBody": format!("sleep 20; forward steps-out.fifo {group} each"),
            "MessageGroupId": group,
            "MessageDeduplicationId": step.to_string(),
        });
        let Some(sent) = ask(client, "SendMessage", &request) else {
            return false;
        };
        ledger.step_acknowledged(&group, id(&sent));
        *step += 1;
        true
    }
}

fn event(_: &Producers, client: &Client, ledger: &Ledger) -> bool {
    let target = "/2015-03-31/functions/lambda/invocations";
    let headers = [("x-amz-invocation-type", "Event")];
    let payload = json!({ "do": "sleep", "ms": 200 }).to_string();
    let Ok(answer) = client.try_request("POST", target, &headers, payload.as_bytes()) else {
        return false;
    };
    assert_eq!(answer.status, 202, "{}", answer.text());
    ledger.acknowledged(Kind::Event, answer.request_id());
    true
}
