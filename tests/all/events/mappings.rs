//! Queues that feed functions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::{Scene, meanwhile};

fn mapped(more: &str) -> Scene {
    Scene::new(&format!(
        r#"
[[function.consumer.queue]]
name = "in"
{more}

[queue.in]
visibility-timeout = "2s"
dead-letter-queue = "dead"
max-receives = 3
"#
    ))
}

#[test]
fn each_message_is_answered_for_itself() {
    let scene = mapped("");
    let ids = scene.send_all(
        "in",
        &[
            "ok",
            "retry 0; ok",
            "reject no such order",
            "twice 2",
            "log hello",
        ],
    );
    // The one that is rejected lies with the dead letters, with its reason and its id.
    // So does the one that is tried again at once, after three receives: as soon, perhaps.
    let all = scene.lying("dead", 2);
    let dead = all.iter().find(|it| it["id"] == ids[2].as_str()).unwrap();
    assert_eq!(dead["reason"], "no such order");
    assert_eq!(dead["dead_from"], "in");
    scene.line(&format!("handled id={} attempt=2 ", ids[3]));
    // `retry` without an end: after three receives it is a dead letter.
    scene.line(&format!("handled id={} attempt=3 ", ids[1]));
    scene.lying("dead", 2);
    scene.is_drained("in");
    scene.says(&format!("handled id={} ", ids[0]), 1);
    scene.says(&format!("handled id={} ", ids[1]), 3);
    scene.says(&format!("handled id={} ", ids[2]), 1);
    scene.line("hello");
    scene.steps("consumer", "done", 3.0);
    scene.steps("consumer", "dead", 2.0);
}

#[test]
fn a_poison_message_becomes_a_dead_letter_and_blocks_nobody() {
    let scene = mapped("batch-size = 1");
    for poison in ["trap", "spin", "exit 3", "alloc 300"] {
        scene.send("in", poison);
    }
    let good: Vec<String> = (0..20).map(|_| scene.send("in", "ok")).collect();
    for id in &good {
        scene.line(&format!("handled id={id} attempt=1 "));
    }
    let dead = scene.lying("dead", 4);
    for letter in &dead {
        assert_eq!(letter["dead_from"], "in", "{letter}");
        assert!(!letter["reason"].as_str().unwrap().is_empty(), "{letter}");
    }
    scene.is_drained("in");
    scene.says("handled", 20 + 4 * 3);
}

#[test]
fn a_message_that_fails_its_whole_batch_costs_the_others_one_attempt() {
    let scene = mapped("");
    let ids = scene.send_all("in", &["ok", "fail-batch", "ok"]);
    let dead = scene.lying("dead", 1).remove(0);
    assert_eq!(dead["id"], ids[1].as_str());
    scene.is_drained("in");
    for id in [&ids[0], &ids[2]] {
        scene.says(&format!("handled id={id} "), 2);
    }
}

#[test]
fn a_batch_waits_for_others_and_is_never_larger_than_asked_for() {
    let scene = mapped("batch-size = 4\nbatch-window = \"2s\"");
    for _ in 0..4 {
        scene.send("in", "ok");
    }
    // Full before its window is over.
    scene.is_drained("in");
    let sizes = |scene: &Scene| -> Vec<String> {
        let lines = scene.lines("handled");
        lines
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap().to_owned())
            .collect()
    };
    scene.says("handled", 4);
    assert_eq!(sizes(&scene), ["batch=4"; 4]);
    // One alone comes when the window is over.
    scene.send("in", "ok");
    scene.is_drained("in");
    scene.says("handled", 5);
    assert_eq!(sizes(&scene)[4..], ["batch=1"]);
}

#[test]
fn no_more_batches_run_at_once_than_allowed() {
    let scene = mapped("batch-size = 1\nmax-concurrency = 1");
    scene.send_all("in", &["sleep 150", "sleep 150", "sleep 150", "sleep 150"]);
    let began = std::time::Instant::now();
    let labels = [("function", "consumer")];
    while scene.depth("in") > 0 {
        let running = scene.host.metric("dunlin_invocations_running", &labels);
        assert!(running.unwrap_or(0.0) <= 1.0);
    }
    assert!(began.elapsed() >= Duration::from_millis(450));
    scene.says("handled", 4);
}

#[test]
fn a_filter_keeps_messages_from_the_function() {
    let scene = mapped(
        r#"filter = ['{ "body": { "kind": ["order"], "total": [{ "numeric": [">", 10] }] } }']"#,
    );
    let wanted = scene.send("in", r#"{"kind":"order","total":12}"#);
    for body in [
        r#"{"kind":"order","total":9}"#,
        r#"{"kind":"offer","total":12}"#,
        "order",
    ] {
        scene.send("in", body);
    }
    scene.line(&format!("handled id={wanted} "));
    scene.is_drained("in");
    scene.steps("consumer", "filtered", 3.0);
    scene.says("handled", 1);
}

#[test]
fn groups_of_a_fifo_queue_keep_their_order_whatever_fails() {
    let scene = Scene::new(
        r#"
[[function.consumer.queue]]
name = "in.fifo"
batch-size = 3

[queue."in.fifo"]
visibility-timeout = "1s"
dead-letter-queue = "dead.fifo"
max-receives = 3
"#,
    );
    // What succeeds says so in a queue: the log of two cores has no order.
    let steps = [
        "ok", "twice 2", "ok", "trap", "ok", "twice 3", "ok", "reject x", "ok",
    ];
    let mut sent: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for group in ["a", "b"] {
        for (index, step) in steps.iter().enumerate() {
            let id = scene.send_more(
                "in.fifo",
                &json!({
                    "MessageBody": format!("{step}; forward out.fifo {group}"),
                    "MessageGroupId": group,
                    "MessageDeduplicationId": format!("{group}{index}"),
                }),
            );
            if *step == "ok" || step.starts_with("twice") {
                sent.entry(group).or_default().push(id);
            }
        }
    }
    scene.is_drained("in.fifo");
    scene.lying("dead.fifo", 4);
    let all = scene.lying("out.fifo", 14);
    for (group, sent) in sent {
        let done: Vec<&str> = all
            .iter()
            .filter(|message| message["group"] == group)
            .map(|message| message["body"].as_str().unwrap())
            .collect();
        assert_eq!(done, sent);
    }
}

#[test]
fn a_paused_mapping_leaves_its_messages_and_goes_on_where_it_was() {
    let state = tempfile::tempdir().unwrap();
    let manifest = |enabled: &str| {
        format!(
            "[[function.consumer.queue]]\nname = \"in\"\nenabled = \"{enabled}\"\n\
             [queue.in]\nvisibility-timeout = \"2s\"\n"
        )
    };
    let scene = Scene::over(state.path(), &manifest("off"));
    let id = scene.send("in", "ok");
    meanwhile();
    assert_eq!(scene.depth("in"), 1);
    drop(scene);
    let scene = Scene::over(state.path(), &manifest("on"));
    scene.line(&format!("handled id={id} attempt=1 "));
    scene.is_drained("in");
}

#[test]
fn a_function_with_invoke_alone_gets_lambdas_batch_and_reports_its_failures() {
    let scene = Scene::new(
        r#"
[[function.lambda.queue]]
name = "in"
report-batch-item-failures = "on"

[queue.in]
visibility-timeout = "1s"
dead-letter-queue = "dead"
max-receives = 2
"#,
    );
    let ids = scene.send_all("in", &["ok", "fail", "ok"]);
    let dead = scene.lying("dead", 1).remove(0);
    assert_eq!(dead["id"], ids[1].as_str());
    scene.is_drained("in");
    for (id, times) in [(&ids[0], 1), (&ids[1], 2), (&ids[2], 1)] {
        scene.says(&format!("record id={id} "), times);
    }
    // Each form that Lambda takes for a failure of all, and each that it takes for success.
    for (answer, fails) in [
        ("\"ok\"", true),
        ("{\"batchItemFailures\":[{\"itemIdentifier\":\"\"}]}", true),
        ("{\"batchItemFailures\":[{\"itemIdentifier\":null}]}", true),
        ("{\"batchItemFailures\":[{\"other\":\"x\"}]}", true),
        ("{\"batchItemFailures\":[{\"itemIdentifier\":\"x\"}]}", true),
        ("null", false),
        ("{}", false),
        ("{\"batchItemFailures\":[]}", false),
        ("{\"batchItemFailures\":null}", false),
    ] {
        let before = scene.step("lambda", "retried");
        let id = scene.send("in", &format!("answer {answer}"));
        if fails {
            scene.steps("lambda", "retried", before + 1.0);
        }
        scene.is_drained("in");
        scene.says(&format!("record id={id} "), if fails { 2 } else { 1 });
    }
}

#[test]
fn without_reports_an_answer_means_that_all_are_done() {
    let scene = Scene::new(
        "[[function.lambda.queue]]\nname = \"in\"\n[queue.in]\nvisibility-timeout = \"1s\"\n",
    );
    scene.send_all("in", &["fail", "answer nonsense"]);
    scene.is_drained("in");
    scene.steps("lambda", "done", 2.0);
}

#[test]
fn functions_send_to_the_queues_that_they_are_given() {
    let scene = mapped("");
    let id = scene.send("in", "forward out");
    let sent = scene.take("out");
    assert_eq!(sent["Body"], id.as_str());
    scene.send("in", "forward dead");
    scene
        .host
        .wait_for_log(|line| line.to_string().contains("is not in its `sends-to`"));
    scene.send("in", "forward out.fifo g d");
    let sent = scene.take("out.fifo");
    assert_eq!(sent["Attributes"]["MessageGroupId"], "g");
}
