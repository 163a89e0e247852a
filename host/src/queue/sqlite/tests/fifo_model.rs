//! FIFO queues against a plain list in memory, under generated operations, steps of the
//! clock and restarts.
//!
//! The list knows no lanes: when a group may come it works out anew each time, from the
//! group's messages.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::model::{How, how, see_time, settlement};
use super::*;

const QUEUE: &str = "q.fifo";
const DEAD: &str = "dead.fifo";
const MAX_RECEIVES: u32 = 3;
const VISIBILITY: i64 = 30_000;
const RETENTION: i64 = 120_000;
const DUPLICATES: i64 = 300_000;
const GROUPS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Operation {
    /// Messages by their group and deduplication id.
    Send(Vec<(usize, u8)>),
    Receive {
        most: usize,
        by_host: bool,
        dead: bool,
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

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let messages = prop::collection::vec((0..GROUPS.len(), 0_u8..30), 1..5);
    let seconds = prop_oneof![6 => 0_u64..40, 1 => 100_u64..320];
    let operation = prop_oneof![
        6 => messages.prop_map(Operation::Send),
        7 => (1_usize..6, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(most, by_host, dead)| Operation::Receive { most, by_host, dead }),
        8 => (any::<usize>(), how()).prop_map(|(which, how)| Operation::Settle { which, how }),
        5 => seconds.prop_map(Operation::Pass),
        1 => (1_i64..100_000).prop_map(Operation::SetBack),
        1 => Just(Operation::Restart),
        2 => (1_u64..5).prop_map(Operation::Redrive),
        1 => Just(Operation::Purge),
    ];
    prop::collection::vec(operation, 1..60)
}

/// A message of the model.
#[derive(Clone, Debug)]
struct Row {
    group: usize,
    dead: bool,
    visible: i64,
    receives: u32,
    releases: u32,
    round: i64,
    held: Option<Held>,
    expires: i64,
}

#[derive(Default)]
struct Model {
    now: i64,
    /// What has passed, whatever the clock says.
    age: i64,
    delay: i64,
    rows: BTreeMap<u64, Row>,
    /// Until when a deduplication id stands for which message.
    seen: BTreeMap<u8, (i64, Sent)>,
}

impl Model {
    /// When each group may come next: when its first message is visible, and no other of it
    /// is in flight any more.
    fn due(&self, dead: bool) -> BTreeMap<usize, i64> {
        let mut due = BTreeMap::new();
        for row in self.rows.values().filter(|row| row.dead == dead) {
            let at = due.entry(row.group).or_insert(row.visible);
            if row.held.is_some() {
                *at = row.visible.max(*at);
            }
        }
        due
    }

    /// Those that may be received, in order: what is visible of each group that may come, up
    /// to the first that is not.
    fn candidates(&self, dead: bool, most: usize) -> Vec<u64> {
        let due = self.due(dead).into_iter();
        let mut groups: Vec<(i64, usize)> = due
            .filter(|(_, at)| *at <= self.now)
            .map(|(group, at)| (at, group))
            .collect();
        groups.sort_unstable();
        let candidates = groups.into_iter().flat_map(|(_, group)| {
            let rows = self.rows.iter();
            rows.filter(move |(_, row)| row.dead == dead && row.group == group)
                .take_while(|(_, row)| row.visible <= self.now)
                .map(|(sequence, _)| *sequence)
        });
        candidates.take(most).collect()
    }

    fn bury(&mut self, sequence: u64) {
        let (visible, expires) = (self.now, self.age + RETENTION);
        let row = self.rows.get_mut(&sequence).unwrap();
        *row = Row {
            group: row.group,
            dead: true,
            visible,
            receives: 0,
            releases: 0,
            round: row.round + 1,
            held: None,
            expires,
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

    fn receive(&mut self, most: usize, held: Held, dead: bool) -> Vec<u64> {
        let mut received = Vec::new();
        while received.len() < most {
            let candidates = self.candidates(dead, most - received.len());
            if candidates.is_empty() {
                break;
            }
            for sequence in candidates {
                let row = self.rows.get_mut(&sequence).unwrap();
                if row.expires <= self.age {
                    self.rows.remove(&sequence);
                } else if !dead && row.receives >= MAX_RECEIVES {
                    self.bury(sequence);
                } else {
                    row.receives += 1;
                    row.round += 1;
                    row.visible = self.now + VISIBILITY;
                    row.held = Some(held);
                    received.push(sequence);
                }
            }
        }
        received
    }

    fn settle(&mut self, receipt: Receipt, dead: bool, how: How) -> Settled {
        let now = self.now;
        let sequence = receipt.sequence.cast_unsigned();
        let Some(row) = self.rows.get_mut(&sequence) else {
            return Settled::Stale;
        };
        if row.dead != dead || row.round != receipt.round {
            return Settled::Stale;
        }
        if row.visible <= now {
            // The host itself may be late.
            if row.held != Some(Held::Host) {
                return Settled::Expired;
            }
            if matches!(how, How::Hide(_)) {
                return Settled::Stale;
            }
        }
        let after = |seconds: u64| now + seconds.cast_signed() * 1000;
        match how {
            How::Done => {
                self.rows.remove(&sequence);
            }
            How::Hide(seconds) => row.visible = after(seconds),
            How::Release(seconds) => {
                row.receives -= 1;
                row.releases += 1;
                row.round += 1;
                row.visible = after(seconds);
                row.held = None;
            }
            How::Retry(seconds) if dead || row.receives < MAX_RECEIVES => {
                row.round += 1;
                row.visible = after(seconds);
                row.held = None;
            }
            How::Reject if dead => {
                self.rows.remove(&sequence);
                return Settled::Dropped;
            }
            How::Retry(_) | How::Reject => self.bury(sequence),
        }
        Settled::Yes
    }

    /// What may be said of each receive without a model: none of the group was in flight, and
    /// none that stays behind was sent earlier.
    fn assert_in_order(&self, before: &BTreeMap<u64, Row>, dead: bool, received: &[u64]) {
        let set: BTreeSet<u64> = received.iter().copied().collect();
        for sequence in received {
            let group = before[sequence].group;
            let others = before.iter().filter(|(other, row)| {
                row.dead == dead && row.group == group && !set.contains(*other)
            });
            for (other, row) in others {
                let in_flight = row.held.is_some() && row.visible > self.now;
                assert!(!in_flight, "{sequence} came while {other} is in flight");
                let stays = self.rows.get(other).is_some_and(|row| row.dead == dead);
                assert!(!stays || other > sequence, "{sequence} came before {other}");
            }
        }
        for pair in received.windows(2) {
            let same = before[&pair[0]].group == before[&pair[1]].group;
            assert!(!same || pair[0] < pair[1], "{received:?}");
        }
    }
}

async fn compare(operations: Vec<Operation>, delay: u64) {
    let settings = |settings: QueueSettings| QueueSettings {
        retention: Duration::from_millis(RETENTION.unsigned_abs()),
        delay: Duration::from_secs(delay),
        ..settings
    };
    let mut host = Restartable::new();
    let queues = vec![
        (name(DEAD), settings(QueueSettings::default())),
        (name(QUEUE), settings(dead_after(MAX_RECEIVES, DEAD))),
    ];
    host.queues().put(queues, Owner::Manifest).await.unwrap();
    let mut model = Model {
        now: START,
        delay: delay.cast_signed() * 1000,
        ..Model::default()
    };
    let mut receipts: Vec<(Receipt, bool)> = Vec::new();
    for (number, operation) in operations.into_iter().enumerate() {
        match operation.clone() {
            Operation::Send(messages) => {
                let all = messages
                    .iter()
                    .map(|(group, id)| fifo(GROUPS[*group], "x", &id.to_string()));
                model.sweep(false);
                let sent = host.queues().send(name(QUEUE), all.collect());
                let last = model.seen.values().map(|(_, sent)| sent.sequence).max();
                let mut last = last.unwrap_or(0);
                for ((group, id), sent) in messages.into_iter().zip(sent.await.unwrap()) {
                    let sent = sent.unwrap();
                    let before = model.seen.get(&id);
                    if let Some((_, before)) = before.filter(|(until, _)| *until > model.now) {
                        assert_eq!(sent, *before, "a duplicate: {operation:?}");
                        continue;
                    }
                    assert!(sent.sequence > last, "{operation:?}");
                    last = sent.sequence;
                    model.seen.insert(id, (model.now + DUPLICATES, sent));
                    let row = Row {
                        group,
                        dead: false,
                        visible: model.now + model.delay,
                        receives: 0,
                        releases: 0,
                        round: 0,
                        held: None,
                        expires: model.age + RETENTION,
                    };
                    model.rows.insert(sent.sequence, row);
                }
            }
            Operation::Receive {
                most,
                by_host,
                dead,
            } => {
                let held = if by_host { Held::Host } else { Held::Outside };
                let queue = name(if dead { DEAD } else { QUEUE });
                let got = host.queues().receive(queue, most, None, held);
                let got = got.await.unwrap();
                let sequences: Vec<u64> = got.iter().map(|d| d.message.sequence).collect();
                let before = model.rows.clone();
                assert_eq!(sequences, model.receive(most, held, dead), "{operation:?}");
                model.assert_in_order(&before, dead, &sequences);
                receipts.extend(got.iter().map(|delivery| (delivery.receipt, dead)));
            }
            Operation::Settle { which, how } => {
                if let Some((receipt, dead)) = receipts.get(which % receipts.len().max(1)).copied()
                {
                    let all = vec![(receipt, settlement(how))];
                    let settled = host.queues().settle(all, Vec::new()).await.unwrap();
                    let expected = model.settle(receipt, dead, how);
                    assert_eq!(settled, [expected], "{operation:?}");
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
                let rows = model.rows.values_mut();
                for row in rows.filter(|row| row.held == Some(Held::Host)) {
                    (row.visible, row.held) = (0, None);
                }
            }
            Operation::Redrive(most) => {
                let moved = host.queues().redrive(name(DEAD), most).await.unwrap();
                let now = model.now;
                let mut letters: Vec<(i64, u64)> = model
                    .rows
                    .iter()
                    .filter(|(_, row)| row.dead && (row.held.is_none() || row.visible <= now))
                    .map(|(sequence, row)| (row.visible, *sequence))
                    .collect();
                letters.sort_unstable();
                letters.truncate(most as usize);
                assert_eq!(moved, letters.len() as u64, "{operation:?}");
                for (_, sequence) in letters {
                    let row = model.rows.get_mut(&sequence).unwrap();
                    *row = Row {
                        group: row.group,
                        dead: false,
                        visible: now,
                        receives: 0,
                        releases: 0,
                        round: row.round + 1,
                        held: None,
                        expires: model.age + RETENTION,
                    };
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
            agree(&host, &model, queue, dead, &operation).await;
        }
    }
}

/// A message, as far as it can be seen from outside.
type Seen = (String, i64, u32, u32);

async fn agree(host: &Restartable, model: &Model, queue: &str, dead: bool, after: &Operation) {
    let lying = host.queues().peek(name(queue), 10_000).await.unwrap();
    let lying = lying.into_iter().map(|message| {
        let group = message.group.unwrap_or_default();
        let seen = (group, message.visible, message.receives, message.releases);
        (message.sequence, seen)
    });
    let rows = model.rows.iter().filter(|(_, row)| row.dead == dead);
    let expected = rows.map(|(sequence, row)| {
        let group = GROUPS[row.group].to_owned();
        (*sequence, (group, row.visible, row.receives, row.releases))
    });
    let expected: BTreeMap<u64, Seen> = expected.collect();
    assert_eq!(
        lying.collect::<BTreeMap<u64, Seen>>(),
        expected,
        "{queue} after {after:?}"
    );
    let depth = host.queues().depth(name(queue)).await.unwrap();
    assert_eq!(depth.messages, expected.len() as u64, "{queue}");
    assert_eq!(depth.bytes, expected.len() as u64, "{queue}");
    // The lanes are what the messages make of them, and none is left over.
    let next = model.due(dead).into_values().min();
    let next = next.map(|at| Duration::from_millis((at - model.now).max(0).unsigned_abs()));
    let said = host.queues().next(name(queue)).await;
    assert_eq!(said, Ok(next), "{queue} after {after:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        // Failures are printed; a file of them would be nobody's to keep.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_fifo_queue_does_what_a_plain_list_of_groups_does(
        operations in operations(),
        delay in prop_oneof![3 => Just(0_u64), 1 => Just(5)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(compare(operations, delay));
    }
}
