use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;
use uuid::Uuid;

use super::rows::millis;
use super::*;
use crate::queue::Redrive;

mod buried;
mod fifo_model;
mod marks;
mod migration;
mod model;
mod names;
mod overview;
mod sizes;
mod time;

/// A clock that a test sets.
#[derive(Default)]
pub(super) struct Set {
    wall: AtomicI64,
    monotonic: AtomicI64,
}

impl Clock for Set {
    fn wall(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// Queues in a folder of their own, which can be opened anew.
pub(super) struct Restartable {
    folder: TempDir,
    pub(super) clock: Arc<Set>,
    open: Option<(SqliteQueues, JoinHandle<()>)>,
}

/// A time like today's, in milliseconds since 1970.
pub(super) const START: i64 = 1_700_000_000_000;

impl Restartable {
    pub(super) fn new() -> Self {
        let mut fresh = Self {
            folder: TempDir::new().unwrap(),
            clock: Arc::default(),
            open: None,
        };
        fresh.clock.wall.store(START, Ordering::SeqCst);
        fresh.restart();
        fresh
    }

    pub(super) fn queues(&self) -> &SqliteQueues {
        &self.open.as_ref().unwrap().0
    }

    /// Ends the store and opens it anew.
    pub(super) fn restart(&mut self) {
        self.restart_after(Duration::ZERO);
    }

    /// Ends the store, and opens it anew after this time.
    pub(super) fn restart_after(&mut self, time: Duration) {
        if let Some((queues, thread)) = self.open.take() {
            drop(queues);
            thread.join().unwrap();
        }
        self.pass(time);
        let path = self.folder.path().join("queue.db");
        self.open = Some(SqliteQueues::open(&path, self.clock.clone()).unwrap());
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.wall.load(Ordering::SeqCst)
    }

    pub(super) fn pass(&self, time: Duration) {
        self.clock.wall.fetch_add(millis(time), Ordering::SeqCst);
        self.clock
            .monotonic
            .fetch_add(millis(time), Ordering::SeqCst);
    }
}

pub(super) fn name(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub(super) fn dead_after(max_receives: u32, target: &str) -> QueueSettings {
    QueueSettings {
        redrive: Some(Redrive {
            target: name(target),
            max_receives,
        }),
        ..QueueSettings::default()
    }
}

pub(super) fn rejected(reason: &str) -> Settlement {
    Settlement::Reject {
        reason: reason.to_owned(),
        otherwise: None,
    }
}

const SECOND: Duration = Duration::from_secs(1);

async fn with(settings: QueueSettings, queue: &str) -> Restartable {
    let host = Restartable::new();
    let dead = if queue.ends_with(".fifo") {
        "dead.fifo"
    } else {
        "dead"
    };
    // The one that is named before it is there.
    let all = vec![
        (name(queue), settings),
        (name(dead), QueueSettings::default()),
    ];
    host.queues().put(all, Owner::Manifest).await.unwrap();
    host
}

async fn sent(host: &Restartable, queue: &str, bodies: &[&'static str]) -> Vec<Sent> {
    let messages = bodies.iter().map(|body| NewMessage::of(*body)).collect();
    let sent = host.queues().send(name(queue), messages).await.unwrap();
    sent.into_iter().map(Result::unwrap).collect()
}

async fn received(host: &Restartable, queue: &str, most: usize) -> Vec<Delivery> {
    let receive = host
        .queues()
        .receive(name(queue), most, None, Held::Outside);
    receive.await.unwrap()
}

fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
    let bodies = deliveries
        .iter()
        .map(|d| std::str::from_utf8(&d.message.body).unwrap());
    bodies.collect()
}

async fn settle_all(
    host: &Restartable,
    deliveries: &[Delivery],
    settlement: Settlement,
) -> Vec<Settled> {
    let all = deliveries.iter().map(|d| (d.receipt, settlement.clone()));
    host.queues()
        .settle(all.collect(), Vec::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_message_is_hidden_while_it_is_received_and_comes_back_if_it_is_not_settled() {
    let host = with(QueueSettings::default(), "q").await;
    let ids = sent(&host, "q", &["a", "b"]).await;
    assert!(ids[0].sequence < ids[1].sequence);
    let first = received(&host, "q", 1).await;
    assert_eq!(bodies(&first), ["a"]);
    assert_eq!(first[0].message.id, ids[0].id);
    assert_eq!(first[0].message.receives, 1);
    assert_eq!(bodies(&received(&host, "q", 10).await), ["b"]);
    assert!(received(&host, "q", 10).await.is_empty());
    let depth = host.queues().depth(name("q")).await.unwrap();
    assert_eq!((depth.messages, depth.bytes, depth.in_flight), (2, 2, 2));

    assert_eq!(
        settle_all(&host, &first, Settlement::Done).await,
        [Settled::Yes]
    );
    assert_eq!(
        settle_all(&host, &first, Settlement::Done).await,
        [Settled::Stale]
    );
    host.pass(Duration::from_secs(31));
    let again = received(&host, "q", 10).await;
    assert_eq!((bodies(&again), again[0].message.receives), (vec!["b"], 2));
    assert_eq!(again[0].message.first_received, Some(START));
}

#[tokio::test]
async fn an_earlier_receipt_settles_nothing() {
    let host = with(QueueSettings::default(), "q").await;
    sent(&host, "q", &["a"]).await;
    let early = received(&host, "q", 1).await;
    host.pass(Duration::from_secs(31));
    let late = received(&host, "q", 1).await;
    for settlement in [Settlement::Done, Settlement::Hide(SECOND), rejected("x")] {
        assert_eq!(
            settle_all(&host, &early, settlement).await,
            [Settled::Stale]
        );
    }
    assert_eq!(
        settle_all(&host, &late, Settlement::Done).await,
        [Settled::Yes]
    );
}

#[tokio::test]
async fn what_the_host_held_comes_back_with_the_next_start_and_what_others_hold_stays() {
    let mut host = with(QueueSettings::default(), "q").await;
    sent(&host, "q", &["mine", "theirs", "waits"]).await;
    let mine = host.queues().receive(name("q"), 1, None, Held::Host);
    assert_eq!(bodies(&mine.await.unwrap()), ["mine"]);
    let theirs = received(&host, "q", 1).await;
    host.restart();
    let back = received(&host, "q", 10).await;
    assert_eq!(bodies(&back), ["mine", "waits"]);
    // What only waited is charged nothing.
    assert_eq!((back[0].message.receives, back[1].message.receives), (2, 1));
    // And only the other may be to blame for the end.
    assert_eq!((back[0].is_suspect, back[1].is_suspect), (true, false));
    assert_eq!(
        settle_all(&host, &theirs, Settlement::Done).await,
        [Settled::Yes]
    );
}

#[tokio::test]
async fn a_message_that_is_received_too_often_becomes_a_dead_letter() {
    let host = with(dead_after(2, "dead"), "q").await;
    let ids = sent(&host, "q", &["poison"]).await;
    for _ in 0..2 {
        let got = received(&host, "q", 1).await;
        settle_all(&host, &got, Settlement::Release(Duration::ZERO)).await;
        // That one did not count.
        assert_eq!(bodies(&received(&host, "q", 1).await), ["poison"]);
        host.pass(Duration::from_secs(31));
    }
    sent(&host, "q", &["fine"]).await;
    assert_eq!(bodies(&received(&host, "q", 10).await), ["fine"]);
    let letters = host.queues().peek(name("dead"), 10).await.unwrap();
    assert_eq!((letters[0].id, letters[0].receives), (ids[0].id, 0));
    let dead = letters[0].dead.clone().unwrap();
    assert_eq!(dead.source, name("q"));
    assert_eq!(dead.reason, "it was received 2 times and not settled");
    // And back.
    assert_eq!(host.queues().redrive(name("dead"), 100).await, Ok(1));
    assert_eq!(host.queues().redrive(name("dead"), 100).await, Ok(0));
    let back = received(&host, "q", 10).await;
    assert_eq!(
        (back[0].message.id, &back[0].message.dead),
        (ids[0].id, &None)
    );
}

#[tokio::test]
async fn a_retry_comes_back_in_time_and_the_last_one_goes_to_the_dead_letters() {
    let host = with(dead_after(2, "dead"), "q").await;
    sent(&host, "q", &["a"]).await;
    let retry = |reason: &str| Settlement::Retry {
        after: Duration::from_mins(1),
        reason: reason.to_owned(),
    };
    settle_all(&host, &received(&host, "q", 1).await, retry("first")).await;
    let next = host.queues().next(name("q")).await.unwrap();
    assert_eq!(next, Some(Duration::from_secs(60)));
    host.pass(Duration::from_secs(59));
    assert!(received(&host, "q", 1).await.is_empty());
    host.pass(SECOND);
    settle_all(&host, &received(&host, "q", 1).await, retry("second")).await;
    let letters = host.queues().peek(name("dead"), 10).await.unwrap();
    assert_eq!(letters[0].dead.clone().unwrap().reason, "second");
    assert_eq!(host.queues().next(name("q")).await, Ok(None));
}

#[tokio::test]
async fn a_rejected_message_without_a_dead_letter_queue_is_dropped_and_says_so() {
    let host = with(QueueSettings::default(), "q").await;
    sent(&host, "q", &["a"]).await;
    let got = received(&host, "q", 1).await;
    assert_eq!(
        settle_all(&host, &got, rejected("no")).await,
        [Settled::Dropped]
    );
    assert_eq!(
        host.queues().depth(name("q")).await.unwrap(),
        Depth::default()
    );
}

#[tokio::test]
async fn hiding_longer_and_showing_at_once() {
    let host = with(QueueSettings::default(), "q").await;
    sent(&host, "q", &["a"]).await;
    let got = received(&host, "q", 1).await;
    settle_all(&host, &got, Settlement::Hide(Duration::from_mins(5))).await;
    host.pass(Duration::from_secs(299));
    assert!(received(&host, "q", 1).await.is_empty());
    assert_eq!(
        settle_all(&host, &got, Settlement::Hide(Duration::ZERO)).await,
        [Settled::Yes]
    );
    assert_eq!(received(&host, "q", 1).await[0].message.receives, 2);
}

#[tokio::test]
async fn delays_retention_and_limits() {
    let settings = QueueSettings {
        delay: Duration::from_secs(5),
        retention: Duration::from_mins(2),
        max_messages: 3,
        max_bytes: 2000,
        max_message: 1024,
        ..QueueSettings::default()
    };
    let host = with(settings, "q").await;
    sent(&host, "q", &["later"]).await;
    let now = NewMessage {
        delay: Some(Duration::ZERO),
        ..NewMessage::of("now")
    };
    host.queues().send(name("q"), vec![now]).await.unwrap();
    assert_eq!(bodies(&received(&host, "q", 10).await), ["now"]);
    let depth = host.queues().depth(name("q")).await.unwrap();
    assert_eq!((depth.in_flight, depth.delayed), (1, 1));
    let send = async |size: usize| {
        let message = NewMessage::of(vec![0; size]);
        let sent = host.queues().send(name("q"), vec![message]).await;
        sent.unwrap().remove(0)
    };
    assert!(matches!(
        send(1025).await,
        Err(QueueError::TooLarge { size: 1025, .. })
    ));
    send(1024).await.unwrap();
    assert!(matches!(send(1).await, Err(QueueError::Full(_, what)) if what == "3 messages"));
    host.pass(Duration::from_mins(2));
    assert!(
        received(&host, "q", 10).await.is_empty(),
        "they are too old"
    );
    send(1000).await.unwrap();
    assert!(matches!(send(1001).await, Err(QueueError::Full(_, what)) if what == "2000 bytes"));
    let unknown = host.queues().send(name("none"), Vec::new()).await;
    assert_eq!(unknown, Err(QueueError::Unknown(name("none"))));
}

#[tokio::test]
async fn a_settlement_and_what_it_sends_are_one() {
    let host = with(QueueSettings::default(), "q").await;
    sent(&host, "q", &["a"]).await;
    let got = received(&host, "q", 1).await;
    let settle = |to: &str| {
        let done = vec![(got[0].receipt, Settlement::Done)];
        host.queues()
            .settle(done, vec![(name(to), NewMessage::of("result"))])
    };
    assert_eq!(settle("none").await, Err(QueueError::Unknown(name("none"))));
    assert_eq!(host.queues().depth(name("q")).await.unwrap().in_flight, 1);
    assert_eq!(settle("dead").await, Ok(vec![Settled::Yes]));
    assert_eq!(bodies(&received(&host, "dead", 10).await), ["result"]);
}

#[tokio::test]
async fn purging_and_deleting() {
    let host = with(dead_after(3, "dead"), "q").await;
    let many = (0..2500).map(|_| NewMessage::of("x")).collect();
    host.queues().send(name("q"), many).await.unwrap();
    received(&host, "q", 10).await;
    assert_eq!(host.queues().purge(name("q")).await, Ok(2500));
    assert_eq!(host.queues().depth(name("q")).await, Ok(Depth::default()));
    sent(&host, "q", &["after"]).await;
    let in_use = host.queues().delete(name("dead")).await;
    assert!(matches!(in_use, Err(QueueError::InUse(_, why)) if why.contains("`q`")));
    host.queues().delete(name("q")).await.unwrap();
    assert_eq!(
        host.queues().purge(name("q")).await,
        Err(QueueError::Unknown(name("q")))
    );
    host.queues().delete(name("dead")).await.unwrap();
    assert_eq!(host.queues().list().await, Ok(Vec::new()));
}

#[tokio::test]
async fn settings_change_and_are_checked() {
    let host = with(QueueSettings::default(), "q").await;
    let put = |settings| host.queues().put(vec![(name("q"), settings)], Owner::Api);
    put(dead_after(3, "dead")).await.unwrap();
    let unknown = put(dead_after(3, "none")).await;
    assert_eq!(unknown, Err(QueueError::Unknown(name("none"))));
    let refused = put(dead_after(0, "dead")).await;
    assert!(matches!(refused, Err(QueueError::Refused(why)) if why.contains("max-receives")));
    let all = host.queues().list().await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((&all[1].name, all[1].owner), (&name("q"), Owner::Api));
    assert_eq!(all[1].settings, dead_after(3, "dead"));
}

#[tokio::test]
async fn settings_that_change_hold_for_the_next_message() {
    let limited = |max_messages| QueueSettings {
        max_messages,
        ..QueueSettings::default()
    };
    let host = with(limited(1), "q").await;
    let send = async || {
        let sent = host.queues().send(name("q"), vec![NewMessage::of("a")]);
        sent.await.unwrap().remove(0)
    };
    send().await.unwrap();
    assert!(matches!(send().await, Err(QueueError::Full(..))));
    let raised = vec![(name("q"), limited(2))];
    host.queues().put(raised, Owner::Api).await.unwrap();
    send().await.unwrap();
    assert!(matches!(send().await, Err(QueueError::Full(..))));
}

#[tokio::test]
async fn a_batch_of_settlements_counts_each_message() {
    let host = with(dead_after(1, "dead"), "q").await;
    sent(&host, "q", &["a", "bb", "ccc", "dddd"]).await;
    let all = received(&host, "q", 10).await;
    let reason = || "as asked".to_owned();
    let how = [
        Settlement::Done,
        rejected(&reason()),
        Settlement::Release(Duration::ZERO),
        Settlement::Retry {
            after: Duration::ZERO,
            reason: reason(),
        },
    ];
    let settlements = all.iter().map(|delivery| delivery.receipt).zip(how);
    let settled = host.queues().settle(settlements.collect(), Vec::new());
    assert_eq!(settled.await, Ok(vec![Settled::Yes; 4]));
    let depth = async |queue| {
        let depth = host.queues().depth(name(queue)).await.unwrap();
        (depth.messages, depth.bytes)
    };
    assert_eq!(depth("q").await, (1, 3));
    assert_eq!(depth("dead").await, (2, 6));
}

fn fifo(group: &str, body: &'static str, deduplication: &str) -> NewMessage {
    NewMessage {
        group: Some(group.to_owned()),
        deduplication: Some(deduplication.to_owned()),
        ..NewMessage::of(body)
    }
}

#[tokio::test]
async fn groups_come_in_order_and_wait_for_what_is_in_flight() {
    let host = with(QueueSettings::default(), "q.fifo").await;
    let all = vec![
        fifo("a", "a1", "1"),
        fifo("a", "a2", "2"),
        fifo("b", "b1", "3"),
        fifo("a", "a3", "4"),
    ];
    host.queues().send(name("q.fifo"), all).await.unwrap();
    let first = received(&host, "q.fifo", 1).await;
    assert_eq!(bodies(&first), ["a1"]);
    let other = received(&host, "q.fifo", 10).await;
    assert_eq!(bodies(&other), ["b1"], "the other group does not wait");
    // It failed: those behind it wait for it.
    let retry = Settlement::Retry {
        after: Duration::from_secs(10),
        reason: "later".into(),
    };
    settle_all(&host, &first, retry).await;
    assert!(received(&host, "q.fifo", 10).await.is_empty());
    host.pass(Duration::from_secs(10));
    let again = received(&host, "q.fifo", 2).await;
    assert_eq!(bodies(&again), ["a1", "a2"]);
    settle_all(&host, &again[..1], Settlement::Done).await;
    assert!(
        received(&host, "q.fifo", 10).await.is_empty(),
        "a2 is in flight"
    );
    settle_all(&host, &again[1..], Settlement::Done).await;
    assert_eq!(bodies(&received(&host, "q.fifo", 10).await), ["a3"]);
}

#[tokio::test]
async fn a_dead_letter_of_a_group_makes_way_for_the_next() {
    let host = with(dead_after(1, "dead.fifo"), "q.fifo").await;
    let all = vec![fifo("a", "a1", "1"), fifo("a", "a2", "2")];
    host.queues().send(name("q.fifo"), all).await.unwrap();
    let first = received(&host, "q.fifo", 1).await;
    assert_eq!(
        settle_all(&host, &first, rejected("bad")).await,
        [Settled::Yes]
    );
    assert_eq!(bodies(&received(&host, "q.fifo", 1).await), ["a2"]);
    host.pass(Duration::from_secs(31));
    assert!(received(&host, "q.fifo", 1).await.is_empty());
    assert_eq!(
        bodies(&received(&host, "dead.fifo", 10).await),
        ["a1", "a2"]
    );
}

#[tokio::test]
async fn duplicates_are_taken_for_the_same_for_five_minutes() {
    let mut host = with(
        QueueSettings {
            content_deduplication: true,
            ..QueueSettings::default()
        },
        "q.fifo",
    )
    .await;
    let by_content = || NewMessage {
        deduplication: None,
        ..fifo("a", "same", "")
    };
    let send = async |host: &Restartable, message| {
        host.queues()
            .send(name("q.fifo"), vec![message])
            .await
            .unwrap()
            .remove(0)
            .unwrap()
    };
    let first = send(&host, by_content()).await;
    assert_eq!(send(&host, by_content()).await, first);
    host.restart();
    host.pass(Duration::from_secs(299));
    assert_eq!(send(&host, by_content()).await, first, "over a restart too");
    assert_ne!(send(&host, fifo("a", "same", "other")).await, first);
    host.pass(SECOND);
    assert_ne!(send(&host, by_content()).await, first);
    assert_eq!(
        host.queues().depth(name("q.fifo")).await.unwrap().messages,
        3
    );
}

#[tokio::test]
async fn what_a_fifo_queue_needs_is_asked_for() {
    let host = with(QueueSettings::default(), "q.fifo").await;
    let delayed = NewMessage {
        delay: Some(SECOND),
        ..fifo("a", "x", "1")
    };
    let bare = NewMessage {
        deduplication: None,
        ..fifo("a", "x", "1")
    };
    for (message, what) in [
        (NewMessage::of("x"), "give the message a group"),
        (delayed, "no delay"),
        (bare, "deduplication id"),
    ] {
        let sent = host.queues().send(name("q.fifo"), vec![message]).await;
        let refused = sent.unwrap().remove(0);
        assert!(
            matches!(&refused, Err(QueueError::Refused(why)) if why.contains(what)),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn who_waits_hears_of_what_becomes_visible() {
    let host = with(dead_after(1, "dead"), "q").await;
    let mut waits = host.queues().arrivals(&name("q"));
    let mut other = host.queues().arrivals(&name("dead"));
    sent(&host, "q", &["a"]).await;
    waits.changed().await.unwrap();
    assert!(!other.has_changed().unwrap());
    let got = received(&host, "q", 1).await;
    settle_all(&host, &got, rejected("no")).await;
    other.changed().await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_learned_late_makes_no_message_old() {
    let host = with(QueueSettings::default(), "q").await;
    host.clock.wall.store(1000, Ordering::SeqCst);
    sent(&host, "q", &["from 1970, as far as the host knew"]).await;
    let years = 56 * 365 * 24 * 3600 * 1000;
    host.clock.wall.fetch_add(START + years, Ordering::SeqCst);
    assert_eq!(received(&host, "q", 10).await.len(), 1);
}

#[tokio::test]
async fn a_queue_that_nobody_reads_shrinks_all_the_same() {
    let settings = QueueSettings {
        retention: Duration::from_mins(1),
        max_messages: 3,
        ..QueueSettings::default()
    };
    let host = with(settings, "q").await;
    sent(&host, "q", &["a", "b", "c"]).await;
    host.pass(Duration::from_mins(1));
    sent(&host, "q", &["d"]).await;
    assert_eq!(host.queues().depth(name("q")).await.unwrap().messages, 1);
}

#[tokio::test]
async fn a_purge_leaves_no_group_behind() {
    let host = with(QueueSettings::default(), "q.fifo").await;
    let send = async |body: &'static str, id: &str| {
        let sent = host
            .queues()
            .send(name("q.fifo"), vec![fifo("g", body, id)]);
        sent.await.unwrap().remove(0).unwrap();
    };
    send("1", "1").await;
    let hidden = Some(Duration::from_hours(12));
    let got = host
        .queues()
        .receive(name("q.fifo"), 1, hidden, Held::Outside);
    assert_eq!(got.await.unwrap().len(), 1);
    host.queues().purge(name("q.fifo")).await.unwrap();
    send("2", "2").await;
    assert_eq!(bodies(&received(&host, "q.fifo", 1).await), ["2"]);
}

#[tokio::test]
async fn a_receipt_of_an_earlier_life_settles_nothing() {
    let host = with(dead_after(1, "dead"), "q").await;
    sent(&host, "q", &["a"]).await;
    let first = received(&host, "q", 1).await;
    host.pass(Duration::from_secs(31));
    assert!(
        received(&host, "q", 1).await.is_empty(),
        "it is a dead letter"
    );
    host.queues().redrive(name("dead"), 1).await.unwrap();
    let second = received(&host, "q", 1).await;
    assert_eq!(second[0].message.receives, 1, "as the first time");
    assert_eq!(
        settle_all(&host, &first, Settlement::Done).await,
        [Settled::Stale]
    );
    assert_eq!(
        settle_all(&host, &second, Settlement::Done).await,
        [Settled::Yes]
    );
}

#[tokio::test]
async fn looking_at_large_messages_stops_at_a_few_mib() {
    let settings = QueueSettings {
        max_message: 1 << 20,
        ..QueueSettings::default()
    };
    let host = with(settings, "q").await;
    let large = || NewMessage::of(vec![b'x'; 1 << 20]);
    let sent = host
        .queues()
        .send(name("q"), (0..8).map(|_| large()).collect());
    sent.await.unwrap();
    let peeked = host.queues().peek(name("q"), 100).await.unwrap();
    assert_eq!(peeked.len(), 4);
}

#[tokio::test]
async fn a_rejected_message_goes_elsewhere_if_its_queue_names_no_dead_letters() {
    let host = with(QueueSettings::default(), "q").await;
    let queues = vec![(name("elsewhere"), QueueSettings::default())];
    host.queues().put(queues, Owner::Host).await.unwrap();
    host.queues()
        .send(name("q"), vec![NewMessage::of("x")])
        .await
        .unwrap();
    let got = received(&host, "q", 10).await;
    let reject = Settlement::Reject {
        reason: "x".repeat(5000),
        otherwise: Some(name("elsewhere")),
    };
    assert_eq!(settle_all(&host, &got, reject).await, [Settled::Yes]);
    let letters = host.queues().peek(name("elsewhere"), 10).await.unwrap();
    let dead = letters[0].dead.clone().unwrap();
    assert_eq!(dead.source, name("q"));
    // A guest may have said it: what is kept has a bound.
    assert_eq!(dead.reason.len(), 1024);
}

#[tokio::test]
async fn the_host_may_be_late_with_what_it_holds_of_a_group_and_nobody_else() {
    let host = with(QueueSettings::default(), "q.fifo").await;
    let message = |id: &str| NewMessage {
        group: Some("g".into()),
        deduplication: Some(id.into()),
        ..NewMessage::of(id.to_owned())
    };
    for held in [Held::Host, Held::Outside] {
        let id = format!("{held:?}");
        host.queues()
            .send(name("q.fifo"), vec![message(&id)])
            .await
            .unwrap();
        let got = host
            .queues()
            .receive(name("q.fifo"), 1, None, held)
            .await
            .unwrap();
        host.pass(Duration::from_secs(31));
        let settled = settle_all(&host, &got, Settlement::Done).await;
        let expected = match held {
            Held::Host => Settled::Yes,
            Held::Outside => Settled::Expired,
        };
        assert_eq!(settled, [expected]);
    }
}

#[tokio::test]
async fn what_was_settled_otherwise_sends_nothing() {
    let host = with(QueueSettings::default(), "q").await;
    host.queues()
        .send(name("q"), vec![NewMessage::of("x")])
        .await
        .unwrap();
    let got = received(&host, "q", 10).await;
    settle_all(&host, &got, Settlement::Done).await;
    let settlements = vec![(got[0].receipt, Settlement::Done)];
    let sends = vec![(name("q"), NewMessage::of("record"))];
    let settled = host.queues().settle(settlements, sends).await.unwrap();
    assert_eq!(settled, [Settled::Stale]);
    assert_eq!(host.queues().depth(name("q")).await.unwrap().messages, 0);
}

#[tokio::test]
async fn who_waits_hears_of_dead_letters_that_a_receive_found() {
    let host = with(dead_after(1, "dead"), "q").await;
    host.queues()
        .send(name("q"), vec![NewMessage::of("x")])
        .await
        .unwrap();
    received(&host, "q", 10).await;
    host.pass(Duration::from_secs(31));
    let arrivals = host.queues().arrivals(&name("dead"));
    assert!(received(&host, "q", 10).await.is_empty());
    assert!(arrivals.has_changed().unwrap());
}
