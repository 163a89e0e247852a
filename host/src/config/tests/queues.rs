//! `[queue.NAME]`.

use super::*;

#[test]
fn every_key_of_a_queue_counts() {
    let config = Folder::new().ok(r#"
        [queue.orders]
        visibility-timeout = "5m"
        delay = "1s"
        retention = "1h"
        max-message = "64KiB"
        max-messages = 100
        max-bytes = "1MiB"
        dead-letter-queue = "orders-dead"
        max-receives = 3

        [queue.orders-dead]

        [queue."steps.fifo"]
        content-based-deduplication = "on"
    "#);
    let queue = |name: &str| QueueName::new(name).unwrap();
    let orders = QueueSettings {
        visibility: Duration::from_mins(5),
        delay: Duration::from_secs(1),
        retention: Duration::from_hours(1),
        max_message: 64 << 10,
        max_messages: 100,
        max_bytes: 1 << 20,
        redrive: Some(crate::queue::Redrive {
            target: queue("orders-dead"),
            max_receives: 3,
        }),
        content_deduplication: false,
    };
    let steps = QueueSettings {
        content_deduplication: true,
        ..QueueSettings::default()
    };
    assert_eq!(
        config.queues,
        [
            (queue("orders"), orders),
            (queue("orders-dead"), QueueSettings::default()),
            (queue("steps.fifo"), steps),
        ]
    );
}

#[test]
fn problems_of_queues_are_named() {
    let folder = Folder::new();
    for (text, expected) in [
        (
            "[queue.\"a b\"]",
            "1: queue.\"a b\": cannot name a queue; use 1 to 80 letters, digits, `-` and `_`, and \
             `.fifo` at the end for a FIFO queue",
        ),
        (
            "[queue.a]\ndead-letter-queue = \"b\"",
            "2: queue.a.dead-letter-queue: \"b\": no queue of that name; declare it as `[queue.b]`",
        ),
        (
            "[queue.a]\nmax-receives = 3",
            "2: queue.a.max-receives: 3: there is no `dead-letter-queue` for what was received so \
             often; name one, or leave this out",
        ),
        (
            "[queue.a]\ndead-letter-queue = \"a\"",
            "2: queue.a.dead-letter-queue: \"a\": `a` cannot be its dead-letter queue: name another \
             queue, FIFO as this one or not; choose another value",
        ),
        (
            "[queue.a]\ncontent-based-deduplication = \"on\"",
            "2: queue.a.content-based-deduplication: \"on\": only a FIFO queue removes duplicates; \
             choose another value",
        ),
    ] {
        assert_eq!(
            folder.problems(text),
            [format!("dunlin.toml:{expected}")],
            "{text}"
        );
    }
    let found = folder.problems("[queue.a]\ndelay = \"16m\"\nvisibilty = \"1s\"");
    assert_eq!(found.len(), 2, "{found:?}");
}
