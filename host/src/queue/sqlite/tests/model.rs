//! The queue against a plain list in memory, under generated operations, steps of the clock
//! and restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const QUEUE: &str = "q";
const DEAD: &str = "dead";
const MAX_RECEIVES: u32 = 3;
const VISIBILITY: i64 = 30_000;
const RETENTION: i64 = 120_000;

#[derive(Clone, Debug)]
enum Operation {
    Send {
        count: usize,
        delay: u64,
    },
    Receive {
        most: usize,
        by_host: bool,
    },
    /// Of what was received, the one at this place (modulo their number).
    Settle {
        which: usize,
        how: How,
    },
    Pass(u64),
    SetBack(i64),
    Restart,
    Redrive(u64),
    Purge,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Done,
    Hide(u64),
    Retry(u64),
    Release(u64),
    Reject,
}

pub(super) fn how() -> impl Strategy<Value = How> {
    let seconds = 0_u64..40;
    prop_oneof![
        3 => Just(How::Done),
        1 => seconds.clone().prop_map(How::Hide),
        3 => seconds.clone().prop_map(How::Retry),
        1 => seconds.prop_map(How::Release),
        1 => Just(How::Reject),
    ]
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let seconds = 0_u64..40;
    let operation = prop_oneof![
        6 => (1_usize..4, prop_oneof![Just(0), seconds.clone()])
            .prop_map(|(count, delay)| Operation::Send { count, delay }),
        6 => (1_usize..5, any::<bool>())
            .prop_map(|(most, by_host)| Operation::Receive { most, by_host }),
        8 => (any::<usize>(), how()).prop_map(|(which, how)| Operation::Settle { which, how }),
        5 => seconds.prop_map(Operation::Pass),
        1 => (1_i64..100_000).prop_map(Operation::SetBack),
        1 => Just(Operation::Restart),
        1 => (1_u64..5).prop_map(Operation::Redrive),
        1 => Just(Operation::Purge),
    ];
    prop::collection::vec(operation, 1..60)
}

/// A message of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    visible: i64,
    receives: u32,
    round: i64,
    by_host: bool,
    expires: i64,
    dead: bool,
}

#[derive(Default)]
struct Model {
    now: i64,
    /// What has passed, whatever the clock says.
    age: i64,
    rows: BTreeMap<u64, Row>,
}

impl Model {
    /// Those of the queue that may be received, in order.
    fn visible(&self) -> Vec<u64> {
        let rows = self.rows.iter();
        let mut visible: Vec<(i64, u64)> = rows
            .filter(|(_, row)| !row.dead && row.visible <= self.now)
            .map(|(sequence, row)| (row.visible, *sequence))
            .collect();
        visible.sort_unstable();
        visible.into_iter().map(|(_, sequence)| sequence).collect()
    }

    fn bury(&mut self, sequence: u64) {
        let now = self.now;
        let row = self.rows.get_mut(&sequence).unwrap();
        *row = Row {
            visible: now,
            receives: 0,
            round: row.round + 1,
            by_host: false,
            expires: self.age + RETENTION,
            dead: true,
        };
        self.sweep(true);
    }

    /// What a send, or a dead letter that comes, does to the oldest of its queue.
    fn sweep(&mut self, dead: bool) {
        let rows = self.rows.iter();
        let mut old: Vec<(i64, u64)> = rows
            .filter(|(_, row)| row.dead == dead && row.expires <= self.age)
            .map(|(sequence, row)| (row.expires, *sequence))
            .collect();
        old.sort_unstable();
        for (_, sequence) in old.into_iter().take(16) {
            self.rows.remove(&sequence);
        }
    }

    fn receive(&mut self, most: usize, by_host: bool) -> Vec<u64> {
        let mut received = Vec::new();
        for sequence in self.visible() {
            if received.len() == most {
                break;
            }
            let now = self.now;
            let row = self.rows.get_mut(&sequence).unwrap();
            if row.expires <= self.age {
                self.rows.remove(&sequence);
            } else if row.receives >= MAX_RECEIVES {
                self.bury(sequence);
            } else {
                row.receives += 1;
                row.round += 1;
                row.visible = now + VISIBILITY;
                row.by_host = by_host;
                received.push(sequence);
            }
        }
        received
    }

    fn settle(&mut self, receipt: Receipt, how: How) -> Settled {
        let now = self.now;
        let sequence = receipt.sequence.cast_unsigned();
        let Some(row) = self.rows.get_mut(&sequence) else {
            return Settled::Stale;
        };
        let hide = matches!(how, How::Hide(_));
        if row.dead || row.round != receipt.round || (hide && row.visible <= now) {
            return Settled::Stale;
        }
        let after = |seconds: u64| now + seconds.cast_signed() * 1000;
        match how {
            How::Done => {
                self.rows.remove(&sequence);
            }
            How::Hide(seconds) => row.visible = after(seconds),
            How::Release(seconds) => {
                row.receives -= 1;
                row.round += 1;
                row.visible = after(seconds);
                row.by_host = false;
            }
            How::Retry(seconds) if row.receives < MAX_RECEIVES => {
                row.round += 1;
                row.visible = after(seconds);
                row.by_host = false;
            }
            How::Retry(_) | How::Reject => self.bury(sequence),
        }
        Settled::Yes
    }
}

pub(super) fn settlement(how: How) -> Settlement {
    let seconds = Duration::from_secs;
    match how {
        How::Done => Settlement::Done,
        How::Hide(after) => Settlement::Hide(seconds(after)),
        How::Release(after) => Settlement::Release(seconds(after)),
        How::Reject => rejected("rejected"),
        How::Retry(after) => Settlement::Retry {
            after: seconds(after),
            reason: "failed".to_owned(),
        },
    }
}

async fn compare(operations: Vec<Operation>) {
    let retention = Duration::from_millis(RETENTION.unsigned_abs());
    let settings = |settings: QueueSettings| QueueSettings {
        retention,
        ..settings
    };
    let mut host = Restartable::new();
    let put = async |host: &Restartable, queue: &str, with| {
        let put = host
            .queues()
            .put(vec![(name(queue), settings(with))], Owner::Manifest);
        put.await.unwrap();
    };
    put(&host, DEAD, QueueSettings::default()).await;
    put(&host, QUEUE, dead_after(MAX_RECEIVES, DEAD)).await;
    let mut model = Model {
        now: START,
        ..Model::default()
    };
    let mut receipts: Vec<Receipt> = Vec::new();
    for (number, operation) in operations.into_iter().enumerate() {
        match operation.clone() {
            Operation::Send { count, delay } => {
                let message = NewMessage {
                    delay: Some(Duration::from_secs(delay)),
                    ..NewMessage::of("x")
                };
                model.sweep(false);
                let sent = host.queues().send(name(QUEUE), vec![message; count]);
                for sent in sent.await.unwrap() {
                    let sent = sent.unwrap();
                    let row = Row {
                        visible: model.now + delay.cast_signed() * 1000,
                        receives: 0,
                        round: 0,
                        by_host: false,
                        expires: model.age + RETENTION,
                        dead: false,
                    };
                    assert!(model.rows.insert(sent.sequence, row).is_none());
                }
            }
            Operation::Receive { most, by_host } => {
                let held = if by_host { Held::Host } else { Held::Outside };
                let got = host.queues().receive(name(QUEUE), most, None, held);
                let got = got.await.unwrap();
                let sequences: Vec<u64> = got.iter().map(|d| d.message.sequence).collect();
                assert_eq!(sequences, model.receive(most, by_host), "{operation:?}");
                receipts.extend(got.iter().map(|delivery| delivery.receipt));
            }
            Operation::Settle { which, how } => {
                if let Some(receipt) = receipts.get(which % receipts.len().max(1)).copied() {
                    let all = vec![(receipt, settlement(how))];
                    let settled = host.queues().settle(all, Vec::new()).await.unwrap();
                    assert_eq!(settled, [model.settle(receipt, how)], "{operation:?}");
                }
            }
            Operation::Pass(seconds) => {
                host.pass(Duration::from_secs(seconds));
                model.age += seconds.cast_signed() * 1000;
                // The wall clock's, or what the monotonic clock makes of it.
                let steady = model.now + seconds.cast_signed() * 1000;
                model.now = steady.max(host.now());
            }
            Operation::SetBack(by) => {
                // Time has been seen by a commit, and does not go back.
                see_time(&host, number).await;
                host.clock.wall.fetch_sub(by, Ordering::SeqCst);
            }
            Operation::Restart => {
                // What no commit has seen is not known after it.
                see_time(&host, number).await;
                host.restart();
                let held = model.rows.values_mut().filter(|row| row.by_host);
                held.for_each(|row| {
                    row.visible = 0;
                    row.by_host = false;
                });
            }
            Operation::Redrive(most) => {
                let moved = host.queues().redrive(name(DEAD), most).await.unwrap();
                let mut letters: Vec<(i64, u64)> = model
                    .rows
                    .iter()
                    .filter(|(_, row)| row.dead)
                    .map(|(sequence, row)| (row.visible, *sequence))
                    .collect();
                letters.sort_unstable();
                letters.truncate(most as usize);
                assert_eq!(moved, letters.len() as u64);
                for (_, sequence) in letters {
                    let row = model.rows.get_mut(&sequence).unwrap();
                    row.dead = false;
                    row.round += 1;
                    row.visible = model.now;
                    row.expires = model.age + RETENTION;
                }
            }
            Operation::Purge => {
                let live = model.rows.values().filter(|row| !row.dead).count();
                let purged = host.queues().purge(name(QUEUE)).await.unwrap();
                assert_eq!(purged, live as u64);
                model.rows.retain(|_, row| row.dead);
            }
        }
        for (queue, dead) in [(QUEUE, false), (DEAD, true)] {
            let lying = host.queues().peek(name(queue), 10_000).await.unwrap();
            let lying: BTreeMap<u64, (i64, u32)> = lying
                .iter()
                .map(|message| (message.sequence, (message.visible, message.receives)))
                .collect();
            let rows = model.rows.iter().filter(|(_, row)| row.dead == dead);
            let expected: BTreeMap<u64, (i64, u32)> = rows
                .map(|(sequence, row)| (*sequence, (row.visible, row.receives)))
                .collect();
            assert_eq!(lying, expected, "{queue} after {operation:?}");
            let depth = host.queues().depth(name(queue)).await.unwrap();
            assert_eq!(depth.messages, expected.len() as u64, "{queue}");
        }
    }
}

/// Commits something that changes nothing else.
pub(super) async fn see_time(host: &Restartable, number: usize) {
    let settings = QueueSettings {
        max_messages: number as u64 + 1,
        ..QueueSettings::default()
    };
    let queues = vec![(name("tick"), settings)];
    host.queues().put(queues, Owner::Api).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig {
        // Failures are printed; a file of them would be nobody's to keep.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_queue_does_what_a_plain_list_does(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(compare(operations));
    }
}
