//! `dunlin queue`: what an operator does with queues.

use std::process::Output;

use dunlin_tests::Host;
use serde_json::Value;

use super::{run, stderr, stdout};
use crate::http::up;

const QUEUES: &str = r#"
[queue.orders]
dead-letter-queue = "orders-dead"
max-receives = 1
visibility-timeout = "0"

[queue.orders-dead]

[queue."steps.fifo"]
"#;

fn queue(host: &Host, args: &[&str]) -> Output {
    let url = format!("http://{}", host.admin.address());
    let state = host.state();
    let mut all = vec!["queue"];
    all.extend_from_slice(args);
    all.extend(["--host", &url, "--state", state.to_str().unwrap()]);
    run(host.folder(), &all)
}

#[track_caller]
fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

fn lines(text: &str) -> Vec<Value> {
    let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap());
    parsed.collect()
}

#[test]
fn messages_are_sent_looked_at_sent_back_and_dropped() {
    let host = up(QUEUES);
    std::fs::write(host.folder().join("event.json"), "{\"n\":1}").unwrap();
    let id = said(&queue(&host, &["send", "orders", "--data", "@event.json"]));
    assert_eq!(id.trim().len(), 36, "{id}");
    said(&queue(
        &host,
        &["send", "orders", "--data", "later", "--delay", "10m"],
    ));
    let refused = queue(&host, &["send", "steps.fifo", "--data", "x"]);
    assert!(
        stderr(&refused).contains("give the message a group"),
        "{}",
        stderr(&refused)
    );
    let fifo = [
        "send",
        "steps.fifo",
        "--data",
        "x",
        "--group",
        "g",
        "--deduplication",
        "1",
    ];
    said(&queue(&host, &fifo));

    assert_eq!(
        said(&queue(&host, &["ls"])),
        "dead-letters\t0\t0\t0\ndead-letters.fifo\t0\t0\t0\norders\t1\t0\t1\n\
         orders-dead\t0\t0\t0\nsteps.fifo\t1\t0\t0\n"
    );
    let peeked = lines(&said(&queue(&host, &["peek", "orders", "-n", "1"])));
    assert_eq!(peeked.len(), 1);
    assert_eq!(peeked[0]["body"], "{\"n\":1}");
    assert_eq!(peeked[0]["id"], id.trim());
    assert_eq!(peeked[0]["receives"], 0, "looking is no receive");

    // Received once and shown again at once: the next receive buries it.
    let mut api = crate::admin::Api::of(&host);
    api.key.service = "sqs";
    for expected in [1, 0] {
        let body = br#"{"QueueUrl":"http://h/1/orders"}"#;
        let headers = [("x-amz-target", "AmazonSQS.ReceiveMessage")];
        let answer = api.send("POST", "/", &headers, body).json();
        let count = answer["Messages"].as_array().map_or(0, Vec::len);
        assert_eq!(count, expected, "{answer}");
    }
    let letters = lines(&said(&queue(&host, &["peek", "orders-dead"])));
    assert_eq!(letters[0]["dead_from"], "orders");
    assert_eq!(
        letters[0]["reason"],
        "it was received 1 times and not settled"
    );
    assert_eq!(said(&queue(&host, &["redrive", "orders-dead"])), "1\n");
    assert_eq!(said(&queue(&host, &["redrive", "orders-dead"])), "0\n");
    assert_eq!(said(&queue(&host, &["purge", "orders"])), "2\n");
    assert_eq!(said(&queue(&host, &["peek", "orders"])), "");

    let unknown = queue(&host, &["peek", "none"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("The specified queue does not exist."));
    let wrong = queue(&host, &["peek", "a b"]);
    assert_eq!(wrong.status.code(), Some(64), "{}", stderr(&wrong));
}
