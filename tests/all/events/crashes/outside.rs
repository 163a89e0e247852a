//! A consumer beyond the host, which lives on when the host is killed; and fires that were
//! missed by more than a minute.

use std::time::{Duration, Instant};

use dunlin_tests::{PATIENCE, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::super::{Scene, at, meanwhile};

const URL: &str = "http://h/1/q";

fn manifest() -> &'static str {
    "[queue.q]\nvisibility-timeout = \"60s\"\n"
}

fn killed(mut scene: Scene) {
    scene.host.signal(Signal::KILL);
    scene.host.wait_for_exit(PATIENCE);
}

/// Receives what there is, hidden for so long.
fn received(scene: &Scene, seconds: u64) -> Vec<Value> {
    let request = json!({
        "QueueUrl": URL,
        "MaxNumberOfMessages": 10,
        "VisibilityTimeout": seconds,
        "AttributeNames": ["All"],
    });
    let answer = scene.ask("ReceiveMessage", &request);
    answer["Messages"].as_array().cloned().unwrap_or_default()
}

#[test]
fn receipt_handles_and_visibility_outlive_the_host() {
    let state = tempfile::tempdir().unwrap();
    let scene = Scene::over(state.path(), manifest());
    scene.send_all("q", &["a", "b", "c"]);
    let held = received(&scene, 600);
    assert_eq!(held.len(), 3);
    killed(scene);

    // Nobody else gets them, and their handles settle them.
    let scene = Scene::over(state.path(), manifest());
    assert_eq!(received(&scene, 1), Vec::<Value>::new());
    let handle =
        |message: &Value| json!({ "QueueUrl": URL, "ReceiptHandle": message["ReceiptHandle"] });
    scene.ask("DeleteMessage", &handle(&held[0]));
    assert_eq!(scene.depth("q"), 2);
    let mut hide = handle(&held[1]);
    hide["VisibilityTimeout"] = 6.into();
    let changed = Instant::now();
    scene.ask("ChangeMessageVisibility", &hide);
    killed(scene);

    // That one comes when its new time is over, and not before, whatever is killed meanwhile.
    let scene = Scene::over(state.path(), manifest());
    let again = eventually("it comes again", || {
        let again = received(&scene, 600);
        (!again.is_empty()).then_some(again)
    });
    assert!(changed.elapsed() >= Duration::from_secs(6));
    assert_eq!(again.len(), 1);
    assert_eq!(again[0]["MessageId"], held[1]["MessageId"]);
    assert_eq!(again[0]["Attributes"]["ApproximateReceiveCount"], "2");
    // Its old handle is used up.
    scene.ask("DeleteMessage", &handle(&held[1]));
    assert_eq!(scene.depth("q"), 2);
    killed(scene);

    let scene = Scene::over(state.path(), manifest());
    scene.ask("DeleteMessage", &handle(&again[0]));
    scene.ask("DeleteMessage", &handle(&held[2]));
    assert_eq!(scene.depth("q"), 0);
}

#[test]
#[ignore = "the host is down for more than a minute: belongs to the full form"]
fn fires_that_are_missed_by_more_than_a_minute_are_treated_by_their_policy() {
    let state = tempfile::tempdir().unwrap();
    // The components are compiled, so that the next host comes up in no time.
    drop(Scene::over(state.path(), ""));
    let soon = at(5);
    let schedules: String = ["skip", "once", "2"]
        .iter()
        .map(|policy| {
            let missed = match policy.parse::<u32>() {
                Ok(most) => most.to_string(),
                Err(_) => format!("{policy:?}"),
            };
            format!(
                "[[function.consumer.schedule]]\nname = \"p{policy}\"\nwhen = \"{soon}\"\n\
                 missed = {missed}\n"
            )
        })
        .collect();
    let scene = Scene::over(state.path(), &schedules);
    assert!(scene.lines("tick").is_empty());
    killed(scene);
    std::thread::sleep(Duration::from_secs(5 + 62));
    // Each that comes does so once, however often the host is killed.
    let scene = Scene::over(state.path(), &schedules);
    scene.line("tick schedule=ponce ");
    scene.line("tick schedule=p2 ");
    scene.is_drained("@async:consumer");
    scene.says("tick schedule=pskip ", 0);
    killed(scene);
    let scene = Scene::over(state.path(), &schedules);
    meanwhile();
    assert!(scene.lines("tick").is_empty());
}
