//! What is counted from when: by the store's clock, or by the time that it was open.

use super::*;

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_message_ages_while_the_store_is_open_whatever_the_wall_clock_says() {
    let mut host = with(QueueSettings::default(), "q").await;
    sent(&host, "q", &["a"]).await;
    host.pass(Duration::from_secs(10));
    let age = async |host: &Restartable| {
        let got = received(host, "q", 1).await;
        settle_all(host, &got, Settlement::Release(Duration::ZERO)).await;
        got[0].age
    };
    assert_eq!(age(&host).await, Duration::from_secs(10));
    // A year ahead, and back to 1970.
    let year = 365 * millis(24 * HOUR);
    host.clock.wall.fetch_add(year, Ordering::SeqCst);
    assert_eq!(age(&host).await, Duration::from_secs(10));
    host.clock.wall.store(0, Ordering::SeqCst);
    host.pass(SECOND);
    assert_eq!(age(&host).await, Duration::from_secs(11));
    // While it is closed nothing ages.
    host.restart_after(HOUR);
    assert_eq!(age(&host).await, Duration::from_secs(11));
    host.pass(SECOND);
    assert_eq!(age(&host).await, Duration::from_secs(12));
}

#[tokio::test]
async fn a_message_is_kept_for_the_time_that_the_store_is_open() {
    let settings = QueueSettings {
        retention: Duration::from_mins(1),
        ..QueueSettings::default()
    };
    let mut host = with(settings, "q").await;
    sent(&host, "q", &["a", "b"]).await;
    host.restart_after(24 * HOUR);
    assert_eq!(bodies(&received(&host, "q", 1).await), ["a"]);
    host.pass(Duration::from_mins(1));
    assert!(received(&host, "q", 10).await.is_empty());
}

#[tokio::test]
async fn releases_are_counted_and_other_ends_are_not() {
    let host = with(QueueSettings::default(), "q").await;
    sent(&host, "q", &["a"]).await;
    let retry = Settlement::Retry {
        after: Duration::ZERO,
        reason: "failed".into(),
    };
    let hide = Settlement::Hide(Duration::ZERO);
    let release = Settlement::Release(Duration::ZERO);
    for (settlement, receives, releases) in [
        (release.clone(), 1, 0),
        (retry, 1, 1),
        (hide, 2, 1),
        (release, 3, 1),
        (Settlement::Done, 3, 2),
    ] {
        let got = received(&host, "q", 1).await;
        let message = &got[0].message;
        assert_eq!(
            (message.receives, message.releases),
            (receives, releases),
            "before {settlement:?}"
        );
        settle_all(&host, &got, settlement).await;
    }
}

#[tokio::test]
async fn the_next_message_comes_by_the_stores_clock_when_the_wall_clock_was_set_back() {
    let mut host = with(QueueSettings::default(), "q").await;
    assert_eq!(host.queues().next(name("q")).await, Ok(None));
    let later = NewMessage {
        delay: Some(Duration::from_mins(1)),
        ..NewMessage::of("later")
    };
    host.queues().send(name("q"), vec![later]).await.unwrap();
    host.clock.wall.fetch_sub(millis(HOUR), Ordering::SeqCst);
    let next = async |host: &Restartable| host.queues().next(name("q")).await.unwrap();
    assert_eq!(next(&host).await, Some(Duration::from_mins(1)));
    host.pass(Duration::from_secs(20));
    assert_eq!(next(&host).await, Some(Duration::from_secs(40)));
    // What has passed is known after a restart as far as a commit has seen it.
    sent(&host, "dead", &["a commit"]).await;
    host.restart_after(HOUR);
    assert_eq!(next(&host).await, Some(Duration::from_secs(40)));
    host.pass(Duration::from_secs(40));
    assert_eq!(next(&host).await, Some(Duration::ZERO));
    assert_eq!(bodies(&received(&host, "q", 1).await), ["later"]);
    let unknown = host.queues().next(name("none")).await;
    assert_eq!(unknown, Err(QueueError::Unknown(name("none"))));
}

#[tokio::test]
async fn the_next_of_a_fifo_queue_is_that_of_its_groups() {
    let host = with(QueueSettings::default(), "q.fifo").await;
    let all = vec![fifo("a", "a1", "1"), fifo("a", "a2", "2")];
    host.queues().send(name("q.fifo"), all).await.unwrap();
    let next = async || host.queues().next(name("q.fifo")).await.unwrap();
    assert_eq!(next().await, Some(Duration::ZERO));
    let got = received(&host, "q.fifo", 1).await;
    assert_eq!(
        next().await,
        Some(Duration::from_secs(30)),
        "a2 waits for a1"
    );
    settle_all(&host, &got, Settlement::Done).await;
    assert_eq!(next().await, Some(Duration::ZERO));
}

#[tokio::test]
async fn who_may_be_received_is_counted_up_to_a_bound() {
    let host = with(QueueSettings::default(), "q").await;
    let waiting = async |most| host.queues().waiting(name("q"), most).await.unwrap();
    assert_eq!(waiting(10).await, 0);
    sent(&host, "q", &["a", "b", "c", "d"]).await;
    let delayed = NewMessage {
        delay: Some(SECOND),
        ..NewMessage::of("e")
    };
    host.queues().send(name("q"), vec![delayed]).await.unwrap();
    assert_eq!(
        (waiting(10).await, waiting(3).await, waiting(0).await),
        (4, 3, 0)
    );
    received(&host, "q", 1).await;
    assert_eq!(waiting(10).await, 3, "one is in flight");
    host.pass(SECOND);
    assert_eq!(waiting(10).await, 4);
    host.pass(Duration::from_secs(30));
    assert_eq!(waiting(10).await, 5);
    let unknown = host.queues().waiting(name("none"), 1).await;
    assert_eq!(unknown, Err(QueueError::Unknown(name("none"))));
}

#[tokio::test]
async fn a_group_that_is_in_flight_is_not_counted() {
    let host = with(QueueSettings::default(), "q.fifo").await;
    let all = [("a", "1"), ("a", "2"), ("b", "3")];
    let all = all.map(|(group, id)| fifo(group, "x", id));
    host.queues()
        .send(name("q.fifo"), all.into())
        .await
        .unwrap();
    let waiting = async || host.queues().waiting(name("q.fifo"), 10).await.unwrap();
    assert_eq!(waiting().await, 3);
    received(&host, "q.fifo", 1).await;
    assert_eq!(waiting().await, 1, "only the other group's");
}
