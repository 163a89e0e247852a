//! Schedules of the real binary. What they do over gaps and clocks that are set is tested
//! with a clock of the test's own, beside them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{SOON, Scene, at, meanwhile};

/// A state in which the components are compiled: a host over it starts soon, also on a busy
/// machine.
fn compiled() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    drop(Scene::over(state.path(), ""));
    state
}

fn schedule(function: &str, name: &str, when: &str, more: &str) -> String {
    format!("[[function.{function}.schedule]]\nname = \"{name}\"\nwhen = \"{when}\"\n{more}\n")
}

fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

#[test]
fn a_fire_comes_when_it_is_due_with_its_payload() {
    let state = compiled();
    let when = at(SOON);
    let scene = Scene::over(
        state.path(),
        &format!(
            "{}{}{}",
            schedule(
                "consumer",
                "once",
                &when,
                "payload = \"log from the schedule\""
            ),
            schedule("lambda", "bare", &when, ""),
            schedule("lambda", "given", &when, "payload = '{\"do\":\"ok\"}'"),
        ),
    );
    let line = scene.line("tick schedule=once ");
    let field = |name: &str| {
        let from = line.find(&format!(" {name}=")).unwrap() + name.len() + 2;
        line[from..].split(' ').next().unwrap().to_owned()
    };
    let scheduled: u64 = field("scheduled").parse().unwrap();
    assert!(scheduled <= millis() && millis() - scheduled < 60_000);
    assert_eq!(scheduled % 1000, 0);
    assert!(field("id").starts_with("once@20"), "{line}");
    assert_eq!(field("missed"), "0");
    scene.line("from the schedule");

    // EventBridge's event, unless the schedule gives one.
    let payloads = || -> Vec<Value> {
        let lines = scene.lines("invoked");
        lines
            .iter()
            .map(|line| serde_json::from_str(&line[line.find("payload=").unwrap() + 8..]).unwrap())
            .collect()
    };
    scene.steps("lambda", "done", 2.0);
    scene.says("invoked", 2);
    let (bare, given): (Vec<Value>, Vec<Value>) = payloads()
        .into_iter()
        .partition(|event| event["source"] == "aws.events");
    assert_eq!(given, [serde_json::json!({ "do": "ok" })]);
    assert_eq!(bare[0]["detail-type"], "Scheduled Event");
    assert_eq!(
        bare[0]["resources"][0],
        "arn:aws:events:edge-1:123456789012:rule/bare"
    );
    // Once only.
    meanwhile();
    scene.says("tick", 1);
}

#[test]
fn a_fire_that_fails_is_tried_again_and_ends_with_the_dead_letters() {
    let state = compiled();
    let scene = Scene::over(
        state.path(),
        &format!(
            "[function.other]\ncomponent = \"{{consumer}}\"\n\
         [function.other.async]\nretry-delay = \"10ms\"\n{}{}",
            schedule("other", "bad", &at(SOON), "payload = \"retry\""),
            schedule("other", "worse", &at(SOON), "payload = \"reject never\""),
        ),
    );
    let dead = scene.lying("dead-letters", 2);
    let reasons: Vec<&str> = dead
        .iter()
        .map(|it| it["reason"].as_str().unwrap())
        .collect();
    assert!(
        reasons.iter().any(|reason| reason.contains("never")),
        "{reasons:?}"
    );
    scene.says("tick schedule=bad ", 3);
    scene.says("tick schedule=worse ", 1);
}

#[test]
fn a_fire_that_was_due_while_the_host_was_down_is_treated_by_its_policy() {
    let state = compiled();
    let when = at(SOON);
    let manifest = format!(
        "{}{}",
        schedule("consumer", "once", &when, "missed = \"once\""),
        schedule("consumer", "skip", &when, "missed = \"skip\""),
    );
    let scene = Scene::over(state.path(), &manifest);
    assert!(scene.lines("tick").is_empty());
    drop(scene);
    // Late, but not so late that it counts as missed.
    std::thread::sleep(Duration::from_secs(SOON.unsigned_abs()));
    let scene = Scene::over(state.path(), &manifest);
    scene.line("tick schedule=once ");
    scene.line("tick schedule=skip ");
    scene.is_drained("@async:consumer");
    drop(scene);
    // And what was sent is not sent again.
    let scene = Scene::over(state.path(), &manifest);
    meanwhile();
    assert!(scene.lines("tick").is_empty());
}
