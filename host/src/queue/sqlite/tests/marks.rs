//! Marks, and the steps that they take with their messages.

use super::*;

fn mark() -> MarkName {
    MarkName("schedule/f/nightly".to_owned())
}

/// How far the mark has come that stands for this.
async fn at(host: &Restartable, stands_for: &str) -> Mark {
    let marks = vec![(mark(), stands_for.to_owned())];
    host.queues().marks(marks, 100).await.unwrap().remove(0)
}

fn step(from: i64, to: i64) -> Step {
    Step {
        from,
        to,
        send: Some((name("q"), NewMessage::of("tick"))),
        skips: 0,
        alone: false,
        begins: false,
    }
}

async fn take(host: &Restartable, step: Step) -> Stepped {
    host.queues().step(mark(), step).await.unwrap()
}

async fn messages(host: &Restartable) -> u64 {
    host.queues().depth(name("q")).await.unwrap().messages
}

fn skipped(at: i64, skipped: u32) -> Mark {
    Mark {
        begun: 100,
        at,
        skipped,
    }
}

#[tokio::test]
async fn a_step_moves_the_mark_and_sends_once() {
    let mut host = with(QueueSettings::default(), "q").await;
    assert_eq!(at(&host, "a").await, skipped(100, 0));
    let mut waits = host.queues().arrivals(&name("q"));
    assert_eq!(take(&host, step(100, 200)).await, Stepped::Yes);
    assert!(waits.has_changed().unwrap());
    waits.mark_unchanged();
    assert_eq!(take(&host, step(100, 200)).await, Stepped::Stale);
    host.restart();
    assert_eq!(take(&host, step(100, 300)).await, Stepped::Stale);
    assert_eq!(at(&host, "a").await, skipped(200, 0));
    assert_eq!(take(&host, step(200, 300)).await, Stepped::Yes);
    assert_eq!(messages(&host).await, 2);
    let unknown = MarkName("another".to_owned());
    let stepped = host.queues().step(unknown, step(0, 1)).await;
    assert_eq!(stepped, Ok(Stepped::Stale));
}

#[tokio::test]
async fn what_is_skipped_is_counted_until_a_message_is_sent() {
    let mut host = with(QueueSettings::default(), "q").await;
    at(&host, "a").await;
    let skip = |from, to, skips| Step {
        send: None,
        skips,
        ..step(from, to)
    };
    assert_eq!(take(&host, skip(100, 200, 3)).await, Stepped::Yes);
    host.restart();
    assert_eq!(take(&host, skip(200, 300, 4)).await, Stepped::Yes);
    assert_eq!(at(&host, "a").await, skipped(300, 7));
    assert_eq!(messages(&host).await, 0);
    assert_eq!(take(&host, step(300, 400)).await, Stepped::Yes);
    assert_eq!(at(&host, "a").await, skipped(400, 0));
}

#[tokio::test]
async fn a_full_queue_leaves_the_mark_where_it_stands() {
    let narrow = QueueSettings {
        max_messages: 1,
        ..QueueSettings::default()
    };
    let host = with(narrow, "q").await;
    at(&host, "a").await;
    assert_eq!(take(&host, step(100, 200)).await, Stepped::Yes);
    assert_eq!(take(&host, step(200, 300)).await, Stepped::Full);
    assert_eq!(at(&host, "a").await, skipped(200, 0));
    assert_eq!(messages(&host).await, 1);
    let got = received(&host, "q", 1).await;
    settle_all(&host, &got, Settlement::Done).await;
    assert_eq!(take(&host, step(200, 300)).await, Stepped::Yes);
}

#[tokio::test]
async fn a_queue_that_is_gone_leaves_the_mark_where_it_stands() {
    let host = with(QueueSettings::default(), "q").await;
    at(&host, "a").await;
    let gone = Step {
        send: Some((name("none"), NewMessage::of("x"))),
        ..step(100, 200)
    };
    let stepped = host.queues().step(mark(), gone).await;
    assert_eq!(stepped, Err(QueueError::Unknown(name("none"))));
    assert_eq!(at(&host, "a").await, skipped(100, 0));
}

fn alone(from: i64, to: i64) -> Step {
    Step {
        alone: true,
        ..step(from, to)
    }
}

#[tokio::test]
async fn a_step_alone_is_held_until_the_message_before_is_settled() {
    let mut host = with(QueueSettings::default(), "q").await;
    at(&host, "a").await;
    assert_eq!(take(&host, alone(100, 200)).await, Stepped::Yes);
    // While it waits, is in flight, and waits for its next attempt.
    assert_eq!(take(&host, alone(200, 300)).await, Stepped::Held);
    let got = received(&host, "q", 1).await;
    assert_eq!(take(&host, alone(300, 400)).await, Stepped::Held);
    host.restart();
    let retry = Settlement::Retry {
        after: SECOND,
        reason: "failed".into(),
    };
    settle_all(&host, &got, retry).await;
    assert_eq!(take(&host, alone(400, 500)).await, Stepped::Held);
    assert_eq!(at(&host, "a").await, skipped(500, 3));
    host.pass(SECOND);
    let got = received(&host, "q", 1).await;
    settle_all(&host, &got, Settlement::Done).await;
    assert_eq!(take(&host, alone(500, 600)).await, Stepped::Yes);
    assert_eq!(at(&host, "a").await, skipped(600, 0));
    assert_eq!(messages(&host).await, 1);
}

#[tokio::test]
async fn a_step_that_is_not_alone_is_held_by_nothing() {
    let host = with(QueueSettings::default(), "q").await;
    at(&host, "a").await;
    assert_eq!(take(&host, alone(100, 200)).await, Stepped::Yes);
    assert_eq!(take(&host, step(200, 300)).await, Stepped::Yes);
    assert_eq!(messages(&host).await, 2);
}

#[tokio::test]
async fn a_message_that_became_a_dead_letter_holds_nothing() {
    let host = with(QueueSettings::default(), "q").await;
    at(&host, "a").await;
    assert_eq!(take(&host, alone(100, 200)).await, Stepped::Yes);
    let got = received(&host, "q", 1).await;
    let bury = Settlement::Bury {
        queue: name("dead"),
        reason: "no".into(),
        attributes: BTreeMap::new(),
    };
    settle_all(&host, &got, bury).await;
    assert_eq!(take(&host, alone(200, 300)).await, Stepped::Yes);
    // What comes back is one of before: only the latest counts.
    host.queues().redrive(name("dead"), 1).await.unwrap();
    let latest = host.queues().peek(name("q"), 10).await.unwrap();
    let latest = latest.iter().map(|message| message.sequence).max();
    let got = received(&host, "q", 10).await;
    let latest: Vec<Delivery> = got
        .into_iter()
        .filter(|d| Some(d.message.sequence) == latest)
        .collect();
    settle_all(&host, &latest, Settlement::Done).await;
    assert_eq!(take(&host, alone(300, 400)).await, Stepped::Yes);
}

#[tokio::test]
async fn a_mark_that_stands_for_something_else_begins_anew_and_others_go() {
    let mut host = with(QueueSettings::default(), "q").await;
    at(&host, "every hour").await;
    take(&host, step(100, 200)).await;
    let skip = Step {
        send: None,
        skips: 2,
        ..step(200, 300)
    };
    take(&host, skip).await;
    host.restart();
    let marks = |all: &[(MarkName, &str)], begin| {
        let all = all
            .iter()
            .map(|(name, stands_for)| (name.clone(), (*stands_for).to_owned()));
        host.queues().marks(all.collect(), begin)
    };
    let other = MarkName("other".to_owned());
    let both = [(other.clone(), "x"), (mark(), "every hour")];
    let kept = marks(&both, 900).await.unwrap();
    let fresh = |begun| Mark {
        begun,
        at: begun,
        skipped: 0,
    };
    assert_eq!(kept, [fresh(900), skipped(300, 2)], "in their order");
    let changed = marks(&[(mark(), "every day")], 1000).await.unwrap();
    assert_eq!(changed, [fresh(1000)]);
    let again = marks(&both, 2000).await.unwrap();
    assert_eq!(again, [fresh(2000), fresh(2000)], "the other was dropped");
    assert_eq!(marks(&[], 0).await, Ok(Vec::new()));
    assert_eq!(take(&host, step(2000, 2001)).await, Stepped::Stale);
}
