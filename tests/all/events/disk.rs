//! A full disk: events are refused in each protocol's words, HTTP goes on, what was accepted
//! is kept, and all goes on by itself when there is room.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dunlin_tests::{Faults, Response};
use serde_json::{Value, json};

use super::{Scene, at, meanwhile, try_ask};
use crate::http::PROBE;

/// The next line of the host's own that begins so.
#[track_caller]
fn host_says(scene: &Scene, begins: &str) {
    scene.host.wait_for_log(|line| {
        line["kind"] == "host" && line["message"].as_str().unwrap_or("").starts_with(begins)
    });
}

/// The answer to an operation that the disk has no room for.
#[track_caller]
fn is_refused(scene: &Scene, operation: &str, mut body: Value) {
    body["QueueUrl"] = "http://h/1/out".into();
    let answer = try_ask(&scene.host.admin, operation, &body).expect("the host answers");
    assert_eq!(answer.status, 503, "{operation}: {}", answer.text());
    let error = answer.json();
    assert_eq!(error["__type"], "com.amazonaws.sqs#ServiceUnavailable");
    assert_eq!(error["message"], "the disk is full");
    let code = answer.header("x-amzn-query-error");
    assert_eq!(code, Some("ServiceUnavailable;Receiver"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.header("x-amzn-requestid").is_some());
}

fn invoke(scene: &Scene, function: &str, payload: &Value) -> Response {
    let target = format!("/2015-03-31/functions/{function}/invocations");
    let payload = payload.to_string();
    let admin = &scene.host.admin;
    admin.request("POST", &target, &[], payload.as_bytes())
}

#[track_caller]
fn serves_http(scene: &Scene) {
    let answer = scene.host.get("/probe");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = invoke(scene, "lambda", &json!({ "do": "ok", "value": 7 }));
    assert_eq!((answer.status, answer.text().as_str()), (200, "7"));
    assert_eq!(scene.host.admin.get("/ready").status, 200);
}

#[test]
fn while_the_disk_is_full_events_are_refused_and_http_goes_on() {
    let (faults, state) = (Faults::default(), tempfile::tempdir().unwrap());
    let scene = Scene::on(&faults, state.path(), PROBE);
    let kept: Vec<String> = (0..20).map(|_| scene.send("out", "kept")).collect();
    assert_eq!(scene.host.admin.get("/health").text(), "ok\n");

    faults.fill();
    is_refused(&scene, "SendMessage", json!({ "MessageBody": "x" }));
    let entries = json!([{ "Id": "a", "MessageBody": "x" }]);
    is_refused(&scene, "SendMessageBatch", json!({ "Entries": entries }));
    is_refused(&scene, "ReceiveMessage", json!({}));
    is_refused(&scene, "PurgeQueue", json!({}));
    let answer = scene.try_event("lambda", "{}");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(
        answer.header("x-amzn-errortype"),
        Some("ServiceUnavailableException")
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    // A function that sends hears of it, and may answer all the same.
    let send = json!({ "do": "send", "queue": "out", "body": "x" });
    let answer = invoke(&scene, "lambda", &send);
    assert_eq!(answer.header("x-amz-function-error"), Some("Unhandled"));
    let said = answer.json()["errorMessage"].to_string();
    assert!(said.contains("cannot store it: the disk is full"), "{said}");
    // What only looks is answered.
    assert_eq!(scene.depth("out"), 20);
    serves_http(&scene);
    let health = scene.host.admin.get("/health");
    assert_eq!(health.status, 200, "a restart would not help");
    assert!(health.text().contains("the disk is full"));
    host_says(&scene, "the disk is full: ");
    scene
        .host
        .wait_for_metric("dunlin_disk_full", &[], |it| it == 1.0);

    faults.end();
    let again = scene.send("out", "again");
    host_says(&scene, "the disk has room again");
    assert_eq!(scene.host.admin.get("/health").text(), "ok\n");
    scene
        .host
        .wait_for_metric("dunlin_disk_full", &[], |it| it == 0.0);
    // Nothing of what was refused is there, and all that was acknowledged.
    let mut taken: Vec<Value> = (0..21)
        .map(|_| scene.take("out")["MessageId"].clone())
        .collect();
    let mut known: Vec<Value> = kept.into_iter().chain([again]).map(Value::from).collect();
    taken.sort_by_key(Value::to_string);
    known.sort_by_key(Value::to_string);
    assert_eq!(taken, known);
    assert_eq!(scene.depth("out"), 0);
    assert!(scene.lines("invoked").len() == 2, "no refused event runs");
    scene.host.stop();
}

#[test]
fn what_ran_when_the_disk_became_full_is_settled_later_and_runs_once() {
    let (faults, state) = (Faults::default(), tempfile::tempdir().unwrap());
    let scene = Scene::on(
        &faults,
        state.path(),
        r#"
[[function.consumer.queue]]
name = "in"
[queue.in]

[function.other]
component = "{lambda-consumer}"
[function.other.async]
max-attempts = 1
on-success = { queue = "out" }
"#,
    );
    let message = scene.send("in", "sleep 900");
    let event = scene.event("other", &json!({ "do": "sleep", "ms": 900 }));
    scene.line(&format!("handled id={message} attempt=1 "));
    scene.line(&format!("invoked id={event} attempt=1 "));
    faults.fill();
    assert_eq!(scene.host.record(&event)["outcome"], "ok");
    host_says(&scene, "the disk is full: ");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((scene.depth("in"), scene.depth("@async:other")), (1, 1));

    faults.end();
    scene.is_drained("in");
    scene.is_drained("@async:other");
    let record = scene.take("out");
    let record: Value = serde_json::from_str(record["Body"].as_str().unwrap()).unwrap();
    assert_eq!(record["requestContext"]["requestId"], event.as_str());
    scene.steps("consumer", "done", 1.0);
    scene.steps("other", "done", 1.0);
    meanwhile();
    scene.says("handled", 1);
    scene.says("invoked", 1);
    assert_eq!(scene.depth("dead-letters"), 0);
}

#[test]
fn what_cannot_be_settled_yet_keeps_nobody_from_its_function() {
    let (faults, state) = (Faults::default(), tempfile::tempdir().unwrap());
    let scene = Scene::on(
        &faults,
        state.path(),
        r#"
[host]
admission-wait = "0"

[function.one]
component = "{lambda-consumer}"
reserved-concurrency = 1

[[function.one.queue]]
name = "in"
[queue.in]
"#,
    );
    scene.send("in", "sleep 700");
    scene.line("record ");
    faults.fill();
    host_says(&scene, "the disk is full: ");
    scene.host.wait_until_quiet();
    let answer = invoke(&scene, "one", &json!({ "do": "ok", "value": 7 }));
    assert_eq!((answer.status, answer.text().as_str()), (200, "7"));
    faults.end();
    scene.is_drained("in");
    scene.says("record", 1);
}

#[test]
fn feeds_and_schedules_wait_for_room_quietly_and_go_on_by_themselves() {
    let (faults, state) = (Faults::default(), tempfile::tempdir().unwrap());
    let mut manifest = String::new();
    // What takes its time is done before the time is told, and a busy machine has some left:
    // what is over when the host starts does not come.
    drop(Scene::new(""));
    let due = Instant::now() + Duration::from_secs(12);
    let when = at(12);
    for index in 0..5 {
        manifest += &format!(
            "[[function.consumer.queue]]\nname = \"in{index}\"\n[queue.in{index}]\n\
             [[function.consumer.schedule]]\nname = \"s{index}\"\nwhen = \"{when}\"\n"
        );
    }
    let scene = Scene::on(&faults, state.path(), &manifest);
    let delayed = json!({ "MessageBody": "ok", "DelaySeconds": 2 });
    let ids: Vec<String> = (0..5)
        .map(|index| scene.send_more(&format!("in{index}"), &delayed))
        .collect();
    faults.fill();
    host_says(&scene, "the disk is full: ");
    // Until the schedules are due, too.
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    let (began, used, said) = (Instant::now(), scene.host.cpu(), scene.host.log().len());
    std::thread::sleep(Duration::from_secs(4));
    let used = scene.host.cpu() - used;
    assert!(used < began.elapsed() / 5, "{used:?} of processor time");
    let said = scene.host.log().len() - said;
    assert!(said <= 4, "{said} lines in 4 seconds");
    assert!(scene.lines("handled").is_empty() && scene.lines("tick").is_empty());

    faults.end();
    for id in &ids {
        scene.line(&format!("handled id={id} attempt=1 "));
    }
    for index in 0..5 {
        scene.is_drained(&format!("in{index}"));
        scene.line(&format!("tick schedule=s{index} "));
    }
    meanwhile();
    scene.says("handled", 5);
    scene.says("tick", 5);
}

/// A file system of this size for the state, which only the host sees.
const SMALL_DISK: [&str; 6] = [
    "unshare",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    "mount -t tmpfs -o size=96m tmpfs \"$0\" && exec \"$@\"",
];

/// Whether this machine lets us make file systems, as most do.
fn can_mount(folder: &Path) -> bool {
    let mut words = SMALL_DISK
        .iter()
        .map(OsStr::new)
        .chain([folder.as_os_str(), "true".as_ref()]);
    let unshare = words.next().expect("it names a program");
    let ended = Command::new(unshare).args(words).output();
    let why = match ended {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    // Past the harness, which keeps what tests say that succeed.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: a file system that is really full: this machine lets no user mount one: {why}"
    );
    false
}

/// Takes all the room that there is.
fn take_the_room(file: &Path) {
    let mut file = File::create(file).unwrap();
    for size in [1 << 20, 4096] {
        let error = loop {
            if let Err(error) = file.write_all(&vec![0; size]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
}

#[test]
fn a_file_system_that_is_really_full_loses_nothing() {
    let state = tempfile::tempdir().unwrap();
    if !can_mount(state.path()) {
        return;
    }
    let folder = state.path().to_str().unwrap();
    let builder = Scene::builder(state.path(), &format!("{PROBE}\n[queue.many]\n"));
    let host = builder
        .started_by(SMALL_DISK.into_iter().chain([folder]))
        .start();
    // As the host sees it.
    let filler = format!("/proc/{}/root{folder}/filler", host.pid());
    let scene = Scene { host };
    let mut known = BTreeSet::new();
    for round in 0..5 {
        take_the_room(filler.as_ref());
        let mut refused = 0;
        for number in 0.. {
            let body = format!("{round}-{number} {}", "x".repeat(number % 7 * 3000));
            let request = json!({ "QueueUrl": "http://h/1/many", "MessageBody": body });
            let answer = try_ask(&scene.host.admin, "SendMessage", &request).unwrap();
            if answer.status == 200 {
                let id = answer.json()["MessageId"].as_str().unwrap().to_owned();
                known.insert(id);
            } else {
                assert_eq!(answer.status, 503, "{}", answer.text());
                refused += 1;
            }
            if refused == 20 {
                break;
            }
        }
        serves_http(&scene);
        std::fs::remove_file(&filler).unwrap();
        known.extend((0..30).map(|_| scene.send("many", &"y".repeat(5000))));
    }
    while !known.is_empty() {
        let message = scene.take("many");
        let is_known = known.remove(message["MessageId"].as_str().unwrap());
        assert!(is_known, "nothing that was refused is there: {message}");
    }
    assert_eq!(scene.depth("many"), 0);
    scene.host.stop();
}
