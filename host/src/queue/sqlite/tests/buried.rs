//! Dead letters that go to a certain queue, with attributes of their own.

use super::*;
use crate::queue::message::{Attribute, Attributes};

fn attributes(all: &[(&str, &str)]) -> Attributes {
    let all = all.iter().map(|(name, value)| {
        let attribute = Attribute {
            kind: "String".to_owned(),
            value: value.as_bytes().to_vec(),
        };
        ((*name).to_owned(), attribute)
    });
    all.collect()
}

fn bury(to: &str, with: &[(&str, &str)]) -> Settlement {
    Settlement::Bury {
        queue: name(to),
        reason: "it broke".to_owned(),
        attributes: attributes(with),
    }
}

async fn send(host: &Restartable, queue: &str, message: NewMessage) -> Sent {
    let sent = host.queues().send(name(queue), vec![message]).await;
    sent.unwrap().remove(0).unwrap()
}

async fn depth(host: &Restartable, queue: &str) -> Depth {
    host.queues().depth(name(queue)).await.unwrap()
}

/// A message that was given back twice and is received, ten seconds after it was sent.
async fn troubled(host: &Restartable) -> Vec<Delivery> {
    let message = NewMessage {
        id: Some(Uuid::from_u128(7)),
        depth: 5,
        attributes: attributes(&[("old", "0123456789")]),
        ..NewMessage::of("body")
    };
    assert_eq!(send(host, "q", message).await.id, Uuid::from_u128(7));
    for _ in 0..2 {
        let got = received(host, "q", 1).await;
        settle_all(host, &got, Settlement::Release(Duration::ZERO)).await;
    }
    host.pass(Duration::from_secs(10));
    received(host, "q", 1).await
}

#[tokio::test]
async fn what_is_buried_has_its_new_attributes_and_counts_with_them() {
    let mut host = with(QueueSettings::default(), "q").await;
    let got = troubled(&host).await;
    let (message, age) = (&got[0].message, got[0].age);
    assert_eq!((message.releases, message.depth), (2, 5));
    assert_eq!(age, Duration::from_secs(10));
    assert_eq!(depth(&host, "q").await.bytes, 4 + 3 + 6 + 10);

    let buried = settle_all(&host, &got, bury("dead", &[("new", "1")])).await;
    assert_eq!(buried, [Settled::Yes]);
    assert_eq!(depth(&host, "q").await, Depth::default());
    let expected = Depth {
        messages: 1,
        bytes: 4 + 3 + 6 + 1,
        ..Depth::default()
    };
    assert_eq!(depth(&host, "dead").await, expected);

    host.restart();
    assert_eq!(depth(&host, "dead").await, expected);
    let letter = host
        .queues()
        .peek(name("dead"), 10)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(letter.id, Uuid::from_u128(7), "it keeps its id");
    assert_eq!(letter.attributes, attributes(&[("new", "1")]));
    assert_eq!((letter.receives, letter.releases), (0, 0));
    let dead = letter.dead.unwrap();
    assert_eq!((dead.source, dead.reason.as_str()), (name("q"), "it broke"));
    assert_eq!(
        settle_all(&host, &got, Settlement::Done).await,
        [Settled::Stale],
        "its receipt is used up"
    );
}

#[tokio::test]
async fn what_was_buried_comes_back_as_if_it_had_just_been_sent() {
    let host = with(QueueSettings::default(), "q").await;
    let got = troubled(&host).await;
    settle_all(&host, &got, bury("dead", &[("new", "1")])).await;
    host.pass(Duration::from_hours(1));
    assert_eq!(host.queues().redrive(name("dead"), 10).await, Ok(1));
    assert_eq!(depth(&host, "dead").await, Depth::default());
    let back = depth(&host, "q").await;
    assert_eq!((back.messages, back.bytes), (1, 4 + 3 + 6 + 1));
    host.pass(SECOND);
    let back = received(&host, "q", 10).await.remove(0);
    assert_eq!(back.age, SECOND);
    let Message {
        id,
        attributes: carried,
        dead,
        depth,
        releases,
        receives,
        ..
    } = back.message;
    assert_eq!((id, dead), (Uuid::from_u128(7), None));
    assert_eq!((depth, releases, receives), (0, 0, 1));
    assert_eq!(carried, attributes(&[("new", "1")]));
}

#[tokio::test]
async fn what_is_buried_may_carry_nothing() {
    let host = with(QueueSettings::default(), "q").await;
    let got = troubled(&host).await;
    settle_all(&host, &got, bury("dead", &[])).await;
    assert_eq!(depth(&host, "dead").await.bytes, 4);
    let letters = host.queues().peek(name("dead"), 10).await.unwrap();
    assert!(letters[0].attributes.is_empty());
}

#[tokio::test]
async fn nothing_is_buried_in_a_queue_that_is_not_there() {
    let host = with(QueueSettings::default(), "q").await;
    let got = troubled(&host).await;
    let before = depth(&host, "q").await;
    let all = vec![(got[0].receipt, bury("none", &[]))];
    let refused = host.queues().settle(all, Vec::new()).await;
    assert_eq!(refused, Err(QueueError::Unknown(name("none"))));
    assert_eq!(depth(&host, "q").await, before);
    assert_eq!(
        settle_all(&host, &got, Settlement::Done).await,
        [Settled::Yes],
        "its receipt still holds"
    );
}

#[tokio::test]
async fn an_earlier_receipt_buries_nothing_and_changes_no_attribute() {
    let host = with(QueueSettings::default(), "q").await;
    let early = troubled(&host).await;
    host.pass(Duration::from_secs(31));
    let late = received(&host, "q", 1).await;
    let before = depth(&host, "q").await;
    assert_eq!(
        settle_all(&host, &early, bury("dead", &[])).await,
        [Settled::Stale]
    );
    assert_eq!(depth(&host, "q").await, before);
    let lying = host.queues().peek(name("q"), 1).await.unwrap();
    assert_eq!(lying[0].attributes, late[0].message.attributes);
}

#[tokio::test]
async fn a_full_queue_takes_what_is_buried_and_who_waits_for_it_hears() {
    let host = with(QueueSettings::default(), "q").await;
    let narrow = QueueSettings {
        max_messages: 1,
        ..QueueSettings::default()
    };
    let put = host
        .queues()
        .put(vec![(name("dead"), narrow)], Owner::Manifest);
    put.await.unwrap();
    sent(&host, "dead", &["full"]).await;
    let mut waits = host.queues().arrivals(&name("dead"));
    let got = troubled(&host).await;
    assert_eq!(
        settle_all(&host, &got, bury("dead", &[])).await,
        [Settled::Yes]
    );
    assert!(waits.has_changed().unwrap());
    waits.changed().await.unwrap();
    assert_eq!(bodies(&received(&host, "dead", 10).await), ["full", "body"]);
}

#[tokio::test]
async fn a_group_goes_on_when_its_first_is_buried() {
    let host = with(QueueSettings::default(), "q.fifo").await;
    for (body, id) in [("a1", "1"), ("a2", "2")] {
        send(&host, "q.fifo", fifo("a", body, id)).await;
    }
    let first = received(&host, "q.fifo", 1).await;
    settle_all(&host, &first, bury("dead.fifo", &[("k", "v")])).await;
    assert_eq!(bodies(&received(&host, "dead.fifo", 10).await), ["a1"]);
    assert_eq!(bodies(&received(&host, "q.fifo", 10).await), ["a2"]);
}

#[tokio::test]
async fn a_message_keeps_the_id_that_it_was_given() {
    let mut host = with(dead_after(1, "dead"), "q").await;
    let id = Uuid::from_u128(0x1234);
    let message = || NewMessage {
        id: Some(id),
        ..NewMessage::of("x")
    };
    let sent = send(&host, "q", message()).await;
    assert_eq!(sent.id, id);
    // Whoever gives ids sees to it that they differ: the store keeps both apart.
    let other = send(&host, "q", message()).await;
    assert_ne!(sent.sequence, other.sequence);
    host.restart();
    let got = received(&host, "q", 1).await;
    assert_eq!(
        (got[0].message.id, got[0].message.sequence),
        (id, sent.sequence)
    );
    settle_all(&host, &got, rejected("no")).await;
    assert_eq!(received(&host, "dead", 1).await[0].message.id, id);
    // In a settlement, too.
    let got = received(&host, "q", 1).await;
    let done = vec![(got[0].receipt, Settlement::Done)];
    let settle = host.queues().settle(done, vec![(name("q"), message())]);
    settle.await.unwrap();
    assert_eq!(received(&host, "q", 1).await[0].message.id, id);
}
