//! What one receive brings at most, and what a queue takes.

use super::*;

const MIB: usize = 1 << 20;

fn roomy() -> QueueSettings {
    QueueSettings {
        max_message: MIB as u64,
        ..QueueSettings::default()
    }
}

fn large(size: usize) -> NewMessage {
    NewMessage::of(vec![b'x'; size])
}

async fn send_large(host: &Restartable, queue: &str, groups: &[&str]) {
    let all = groups.iter().enumerate().map(|(number, group)| NewMessage {
        group: Some((*group).to_owned()),
        deduplication: Some(number.to_string()),
        ..large(MIB)
    });
    let sent = host.queues().send(name(queue), all.collect()).await;
    assert!(sent.unwrap().iter().all(Result::is_ok));
}

/// Receives and settles until nothing comes. Answers how many came each time.
async fn drain(host: &Restartable, queue: &str) -> Vec<usize> {
    let mut counts = Vec::new();
    loop {
        let got = received(host, queue, 10).await;
        if got.is_empty() {
            return counts;
        }
        counts.push(got.len());
        settle_all(host, &got, Settlement::Done).await;
    }
}

#[tokio::test]
async fn a_receive_of_large_messages_stops_at_six_mib() {
    let host = with(roomy(), "q").await;
    send_large(&host, "q", &["", "", "", "", "", "", "", ""]).await;
    assert_eq!(drain(&host, "q").await, [6, 2]);
}

#[tokio::test]
async fn groups_of_large_messages_come_in_parts_and_nothing_is_stuck() {
    let host = with(roomy(), "q.fifo").await;
    // Within one group, and where the next group is what does not fit.
    send_large(&host, "q.fifo", &["a"; 8]).await;
    assert_eq!(drain(&host, "q.fifo").await, [6, 2]);
    let groups = ["a", "b", "c", "d", "e", "f", "g", "h"];
    host.pass(Duration::from_mins(6));
    send_large(&host, "q.fifo", &groups).await;
    assert_eq!(drain(&host, "q.fifo").await, [6, 2]);
}

#[tokio::test]
async fn one_that_is_larger_than_all_comes_alone() {
    let host = Restartable::new();
    // Only the host's own queues take such.
    let own = QueueName::internal("async", "f");
    let settings = vec![(own.clone(), QueueSettings::default())];
    host.queues().put(settings, Owner::Host).await.unwrap();
    let all = vec![large(7 * MIB), large(7 * MIB), large(1)];
    let sent = host.queues().send(own.clone(), all).await.unwrap();
    assert!(sent.iter().all(Result::is_ok));
    for expected in [&[7 * MIB][..], &[7 * MIB], &[1]] {
        let got = host.queues().receive(own.clone(), 10, None, Held::Host);
        let got = got.await.unwrap();
        let sizes: Vec<usize> = got.iter().map(|d| d.message.body.len()).collect();
        assert_eq!(sizes, expected);
        settle_all(&host, &got, Settlement::Done).await;
    }
}

#[tokio::test]
async fn dead_letters_and_old_messages_on_the_way_make_no_receive_larger() {
    let settings = QueueSettings {
        max_message: MIB as u64,
        ..dead_after(1, "dead")
    };
    let host = with(settings, "q").await;
    sent(&host, "q", &["1", "2", "3", "4", "5"]).await;
    received(&host, "q", 5).await;
    host.pass(Duration::from_secs(31));
    send_large(&host, "q", &[""; 10]).await;
    // Five go to the dead letters and make room for five more of ten.
    assert_eq!(drain(&host, "q").await, [6, 4]);
    assert_eq!(received(&host, "dead", 10).await.len(), 5);
}

#[tokio::test]
async fn a_duplicate_needs_no_room() {
    let narrow = QueueSettings {
        max_messages: 2,
        ..QueueSettings::default()
    };
    let host = with(narrow, "q.fifo").await;
    let send = async |all: Vec<NewMessage>| host.queues().send(name("q.fifo"), all).await;
    let first = send(vec![fifo("a", "x", "1")]).await.unwrap().remove(0);
    // Within one request, too.
    let all = vec![
        fifo("a", "x", "1"),
        fifo("a", "y", "2"),
        fifo("a", "x", "1"),
    ];
    let sent = send(all).await.unwrap();
    assert_eq!((&sent[0], &sent[2]), (&first, &first));
    assert!(sent[1].is_ok(), "{sent:?}");
    let full = send(vec![fifo("a", "z", "3"), fifo("a", "x", "1")]).await;
    let full = full.unwrap();
    assert!(matches!(&full[0], Err(QueueError::Full(_, what)) if what == "2 messages"));
    assert_eq!(full[1], first, "who sends it again hears that it is there");
}
