//! All queues at a glance.

use super::*;

async fn overview(host: &Restartable, most: usize) -> Vec<Glance> {
    host.queues().overview(most).await.unwrap()
}

fn glance(queue: &QueueName, messages: u64, bytes: u64, oldest: u64) -> Glance {
    Glance {
        name: queue.clone(),
        messages,
        bytes,
        oldest: Duration::from_secs(oldest),
    }
}

#[tokio::test]
async fn each_queue_shows_its_messages_bytes_and_the_age_of_the_oldest() {
    let mut host = with(QueueSettings::default(), "q").await;
    let own = QueueName::internal("async", "f");
    let settings = vec![(own.clone(), QueueSettings::default())];
    host.queues().put(settings, Owner::Host).await.unwrap();
    sent(&host, "q", &["old"]).await;
    host.pass(Duration::from_secs(10));
    sent(&host, "q", &["younger"]).await;
    let event = host.queues().send(own.clone(), vec![NewMessage::of("e")]);
    event.await.unwrap();
    // It ages without a commit, and also while it is in flight.
    received(&host, "q", 1).await;
    host.pass(Duration::from_secs(5));
    let expected = [
        glance(&name("q"), 2, 10, 15),
        glance(&own, 1, 1, 5),
        glance(&name("dead"), 0, 0, 0),
    ];
    assert_eq!(overview(&host, 10).await, expected);
    // What no commit has seen is not known after a restart; nor does a closed store age.
    sent(&host, "dead", &["x"]).await;
    host.restart_after(Duration::from_hours(1));
    assert_eq!(overview(&host, 1).await, [glance(&name("q"), 2, 10, 15)]);
}

#[tokio::test]
async fn a_dead_letter_is_as_old_as_its_message() {
    let host = with(dead_after(1, "dead"), "q").await;
    sent(&host, "q", &["a"]).await;
    host.pass(Duration::from_secs(7));
    let got = received(&host, "q", 1).await;
    settle_all(&host, &got, rejected("no")).await;
    assert_eq!(overview(&host, 1).await, [glance(&name("dead"), 1, 1, 7)]);
}

#[tokio::test]
async fn of_many_queues_those_with_the_most_messages_are_shown() {
    let host = with(QueueSettings::default(), "a").await;
    let more = ["b", "c", "d"].map(|text| (name(text), QueueSettings::default()));
    host.queues().put(more.into(), Owner::Api).await.unwrap();
    sent(&host, "c", &["1", "2"]).await;
    sent(&host, "b", &["1"]).await;
    let shown = overview(&host, 3).await;
    let names: Vec<&str> = shown.iter().map(|glance| glance.name.as_str()).collect();
    assert_eq!(names, ["c", "b", "a"]);
}

#[test]
fn the_oldest_is_found_without_walking_over_messages() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch("CREATE TABLE timeline (age_ms INTEGER)")
        .unwrap();
    schema::migrate(&connection).unwrap();
    let mut plan = connection
        .prepare(&format!(
            "EXPLAIN QUERY PLAN {}",
            super::super::overview::OLDEST
        ))
        .unwrap();
    let steps = plan.query_map([1], |row| row.get(3)).unwrap();
    let steps: Vec<String> = steps.map(Result::unwrap).collect();
    assert_eq!(
        steps,
        ["SEARCH message USING INDEX message_expires (queue=?)"]
    );
}

#[tokio::test]
async fn a_store_that_has_failed_says_so() {
    let host = with(QueueSettings::default(), "q").await;
    assert_eq!(host.queues().failure(), None);
    let path = host.folder.path().join("queue.db");
    let other = Connection::open(path).unwrap();
    other.execute_batch("DROP TABLE message").unwrap();
    let send = host.queues().send(name("q"), vec![NewMessage::of("x")]);
    let error = send.await.unwrap_err().to_string();
    assert!(error.starts_with("the store is broken"), "{error}");
    let why = host.queues().failure().unwrap();
    assert!(why.contains("message"), "{why}");
    assert_eq!(host.queues().broken().await, why);
}
