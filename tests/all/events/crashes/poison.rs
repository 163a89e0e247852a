//! What kills the host whenever it is handled: the test kills the host when it sees that it is.

use std::path::Path;

use dunlin_tests::{PATIENCE, eventually};
use rustix::process::Signal;
use serde_json::json;

use super::super::{Scene, at};

const MOST: u32 = 3;
/// Before the killer and behind it.
const OTHERS: usize = 9;
/// Its place among them.
const KILLS: usize = 4;
/// Longer than anything here takes.
const KILLER: &str = "log killer; sleep 20000";

fn manifest(batch: u32, more: &str) -> String {
    format!(
        r#"
[function.worker]
component = "{{consumer}}"
timeout = "30s"
sends-to = ["out"]
async = {{ max-attempts = {MOST}, retry-delay = "10ms" }}

[function.patient]
component = "{{lambda-consumer}}"
timeout = "30s"
async = {{ max-attempts = {MOST}, retry-delay = "10ms" }}

[[function.worker.queue]]
name = "in"
batch-size = {batch}
max-concurrency = 1
[queue.in]
dead-letter-queue = "dead"
max-receives = {MOST}

[[function.worker.queue]]
name = "in.fifo"
batch-size = {batch}
[queue."in.fifo"]
dead-letter-queue = "dead.fifo"
max-receives = {MOST}
{more}"#
    )
}

/// Starts the host and kills it as soon as a guest says this, as often as it may be tried.
fn killed_at(state: &Path, manifest: &str, says: impl Fn(u32) -> String) {
    for attempt in 1..=MOST {
        let mut scene = Scene::over(state, manifest);
        scene.line(&says(attempt));
        scene.host.signal(Signal::KILL);
        scene.host.wait_for_exit(PATIENCE);
    }
}

/// Sends the killer among others, and follows it to the dead letters.
fn a_message_kills(batch: u32) -> (Scene, Vec<String>) {
    let state = tempfile::tempdir().unwrap();
    let manifest = manifest(batch, "");
    let mut bodies = vec!["forward out"; OTHERS + 1];
    bodies[KILLS] = KILLER;
    let scene = Scene::over(state.path(), "[queue.in]\n[queue.\"in.fifo\"]\n");
    let ids = scene.send_all("in", &bodies);
    drop(scene);
    killed_at(state.path(), &manifest, |attempt| {
        format!("handled id={} attempt={attempt} ", ids[KILLS])
    });
    // One more restart.
    let scene = Scene::over(state.path(), &manifest);
    let dead = scene.lying("dead", 1).remove(0);
    assert_eq!(dead["id"], ids[KILLS].as_str());
    assert_eq!(dead["reason"], "it was received 3 times and not settled");
    scene.is_drained("in");
    scene.says(&format!("handled id={} ", ids[KILLS]), 0);
    assert_eq!(scene.depth("dead"), 1);
    (scene, ids)
}

#[test]
fn a_message_that_kills_the_host_is_a_dead_letter_and_those_that_wait_are_charged_nothing() {
    let (scene, ids) = a_message_kills(1);
    assert_eq!(scene.depth("out"), OTHERS as u64);
    for id in &ids[KILLS + 1..] {
        scene.line(&format!("handled id={id} attempt=1 "));
    }
}

#[test]
fn a_message_that_kills_the_host_takes_one_attempt_from_those_in_its_batch_and_not_all() {
    let (scene, ids) = a_message_kills(10);
    let out: Vec<String> = (0..scene.depth("out"))
        .map(|_| scene.take("out")["Body"].as_str().unwrap().to_owned())
        .collect();
    for (place, id) in ids.iter().enumerate() {
        // Those before it in its batch were handled twice: once more when it was alone.
        let times = match place {
            KILLS => 0,
            before if before < KILLS => 2,
            _ => 1,
        };
        let handled = out.iter().filter(|handled| *handled == id).count();
        assert_eq!(handled, times, "message {place}");
    }
}

fn a_step_kills(batch: u32, attempt: u32) {
    let state = tempfile::tempdir().unwrap();
    let manifest = manifest(batch, "");
    let scene = Scene::over(state.path(), "[queue.in]\n[queue.\"in.fifo\"]\n");
    let bodies = ["log a", "log b", KILLER, "log c", "log d"];
    let ids: Vec<String> = bodies
        .iter()
        .enumerate()
        .map(|(index, body)| {
            let more = json!({
                "MessageBody": body,
                "MessageGroupId": "g",
                "MessageDeduplicationId": index.to_string(),
            });
            scene.send_more("in.fifo", &more)
        })
        .collect();
    drop(scene);
    killed_at(state.path(), &manifest, |attempt| {
        format!("handled id={} attempt={attempt} ", ids[2])
    });
    let scene = Scene::over(state.path(), &manifest);
    let dead = scene.lying("dead.fifo", 1).remove(0);
    assert_eq!(dead["id"], ids[2].as_str());
    for id in &ids[3..] {
        scene.line(&format!("handled id={id} attempt={attempt} "));
    }
    scene.is_drained("in.fifo");
    assert_eq!(scene.depth("dead.fifo"), 1);
}

#[test]
fn a_step_that_kills_the_host_is_a_dead_letter_and_its_group_goes_on() {
    a_step_kills(1, 1);
}

#[test]
fn a_step_that_kills_the_host_takes_one_attempt_from_those_in_its_batch_and_not_all() {
    a_step_kills(5, 2);
}

#[test]
fn an_event_that_kills_the_host_is_a_dead_letter() {
    let state = tempfile::tempdir().unwrap();
    let manifest = manifest(1, "");
    let scene = Scene::over(state.path(), &manifest);
    let id = scene.event("patient", &json!({ "do": "sleep", "ms": 20_000 }));
    drop(scene);
    // The first attempt may have been made already.
    let mut attempts = 0;
    loop {
        let mut scene = Scene::over(state.path(), &manifest);
        let ended = eventually("it is tried, or given up", || {
            if scene.depth("dead-letters") == 1 {
                return Some(true);
            }
            let begins = format!("invoked id={id} ");
            (!scene.lines(&begins).is_empty()).then_some(false)
        });
        if ended {
            let dead = scene.lying("dead-letters", 1).remove(0);
            assert_eq!(dead["id"], id.as_str());
            break;
        }
        attempts += 1;
        assert!(attempts <= MOST, "it was tried {attempts} times");
        scene.host.signal(Signal::KILL);
        scene.host.wait_for_exit(PATIENCE);
    }
}

#[test]
fn a_fire_that_kills_the_host_is_a_dead_letter() {
    let state = tempfile::tempdir().unwrap();
    // The components are compiled, so that the next host comes up in no time.
    drop(Scene::over(state.path(), ""));
    let when = at(3);
    let manifest = manifest(
        1,
        &format!(
            "[[function.worker.schedule]]\nname = \"deadly\"\nwhen = \"{when}\"\n\
         payload = \"{KILLER}\"\n"
        ),
    );
    killed_at(state.path(), &manifest, |_| {
        "tick schedule=deadly ".to_owned()
    });
    let scene = Scene::over(state.path(), &manifest);
    let dead = scene.lying("dead-letters", 1).remove(0);
    let reason = dead["reason"].as_str().unwrap();
    assert!(reason.starts_with("RetriesExhausted: "), "{reason}");
    scene.says("tick schedule=deadly ", 0);
}
