//! Invocations that nobody waits for.

use std::collections::BTreeSet;
use std::time::Duration;

use dunlin_tests::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Scene, meanwhile};

#[test]
fn an_event_is_accepted_and_then_run() {
    let scene = Scene::new("");
    let id = scene.event("lambda", &json!({ "do": "ok", "value": 7 }));
    scene.line(&format!("invoked id={id} attempt=1 "));
    let record = scene.host.record(&id);
    assert_eq!(record["trigger"], "async");
    assert_eq!(record["outcome"], "ok");
    scene.steps("lambda", "accepted", 1.0);
    scene.steps("lambda", "done", 1.0);
    scene.is_drained("@async:lambda");
}

#[test]
fn what_fails_is_tried_again_under_the_same_id() {
    let scene = Scene::new("");
    let id = scene.event("lambda", &json!({ "do": "fail-until", "attempt": 3 }));
    for attempt in 1..=3 {
        scene.line(&format!("invoked id={id} attempt={attempt} "));
    }
    scene.steps("lambda", "done", 1.0);
    scene.steps("lambda", "retried", 2.0);
}

#[test]
fn what_fails_too_often_is_a_dead_letter_that_can_be_sent_back() {
    let scene = Scene::new(
        "[function.other]\ncomponent = \"{lambda-consumer}\"\n\
         [function.other.async]\nretry-delay = \"10ms\"\nmax-attempts = 2\ndead-letter-queue = \"dead\"\n",
    );
    let event = json!({ "do": "fail" });
    let id = scene.event("other", &event);
    let dead = scene.lying("dead", 1).remove(0);
    assert_eq!(dead["id"], id.as_str());
    let reason = dead["reason"].as_str().unwrap();
    assert!(reason.starts_with("RetriesExhausted: "), "{reason}");
    scene.says("invoked", 2);

    let sent_back = scene.own("RedriveQueue", &json!({ "QueueUrl": "http://h/1/dead" }));
    assert_eq!(sent_back["Messages"], 1);
    eventually("it is tried twice again", || {
        (scene.lines("invoked").len() == 4).then_some(())
    });

    let message = scene.take("dead");
    assert_eq!(message["MessageId"], id.as_str());
    assert_eq!(message["Body"], event.to_string());
    let attributes = &message["MessageAttributes"];
    assert_eq!(attributes["RequestID"]["StringValue"], id.as_str());
    assert_eq!(attributes["ErrorCode"]["StringValue"], "200");
    assert_eq!(attributes["ErrorCode"]["DataType"], "Number");
    assert_eq!(attributes["ErrorMessage"]["StringValue"], "as asked");
}

#[test]
fn without_a_dead_letter_queue_failed_events_go_to_the_hosts_own() {
    let scene = Scene::new("");
    let id = scene.event("lambda", &json!({ "do": "trap" }));
    let dead = scene.lying("dead-letters", 1).remove(0);
    assert_eq!(dead["id"], id.as_str());
    scene.says("invoked", 3);
}

/// The record of a destination, whole.
fn checked(scene: &Scene, message: &Value, function: &str, id: &str) -> Value {
    let record: Value = match message["Body"].as_str() {
        Some(body) => serde_json::from_str(body).unwrap(),
        None => message.clone(),
    };
    assert_eq!(record["version"], "1.0");
    let time = record["timestamp"].as_str().unwrap();
    assert_eq!(time.len(), "2026-11-21T00:00:00.000Z".len(), "{time}");
    let context = &record["requestContext"];
    assert_eq!(context["requestId"], id);
    let arn = format!("arn:aws:lambda:edge-1:123456789012:function:{function}:$LATEST");
    assert_eq!(context["functionArn"], arn.as_str());
    scene.host.record(id);
    record
}

#[test]
fn destinations_get_lambdas_record() {
    let scene = Scene::new(
        r#"
[function.other]
component = "{lambda-consumer}"
[function.other.async]
retry-delay = "10ms"
on-success = { queue = "good" }
on-failure = { function = "lambda" }
[queue.good]
"#,
    );
    let event = json!({ "do": "ok", "value": { "answer": [42] } });
    let id = scene.event("other", &event);
    let record = checked(&scene, &scene.take("good"), "other", &id);
    assert_eq!(record["requestContext"]["condition"], "Success");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 1);
    assert_eq!(record["requestPayload"], event);
    let response = json!({ "statusCode": 200, "executedVersion": "$LATEST" });
    assert_eq!(record["responseContext"], response);
    assert_eq!(record["responsePayload"], json!({ "answer": [42] }));

    let event = json!({ "do": "fail" });
    let id = scene.event("other", &event);
    let line = scene.host.wait_for_log(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["function"] == "lambda" && message.contains("RetriesExhausted")
    });
    let line = line["message"].as_str().unwrap();
    let payload = &line[line.find("payload=").unwrap() + 8..];
    let record = checked(
        &scene,
        &serde_json::from_str(payload).unwrap(),
        "other",
        &id,
    );
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 3);
    assert_eq!(record["requestPayload"], event);
    let response = json!({
        "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
    });
    assert_eq!(record["responseContext"], response);
    assert_eq!(record["responsePayload"]["errorType"], "Failed");
    assert_eq!(record["responsePayload"]["errorMessage"], "as asked");
    assert_eq!(scene.depth("dead-letters"), 0);
}

#[test]
fn the_guest_says_when_to_try_again() {
    let scene = Scene::new("");
    let began = std::time::Instant::now();
    let id = scene.event("lambda", &json!({ "do": "retry-after", "seconds": 1 }));
    scene.line(&format!("invoked id={id} attempt=2 "));
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn an_event_that_would_become_too_old_is_given_up_at_once() {
    let scene = Scene::new(
        "[function.other]\ncomponent = \"{lambda-consumer}\"\n\
         [function.other.async]\nretry-delay = \"1h\"\nmax-age = \"1m\"\n\
         on-failure = { queue = \"out\" }\n",
    );
    let id = scene.event("other", &json!({ "do": "fail" }));
    let record = checked(&scene, &scene.take("out"), "other", &id);
    assert_eq!(record["requestContext"]["condition"], "EventAgeExceeded");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 1);
}

#[test]
fn a_function_that_may_not_run_gives_its_events_up_at_once() {
    let scene = Scene::new(
        "[function.other]\ncomponent = \"{lambda-consumer}\"\nreserved-concurrency = 0\n\
         [function.other.async]\non-failure = { queue = \"out\" }\n",
    );
    let event = json!({ "do": "ok" });
    scene.event("other", &event);
    let message = scene.take("out");
    let record: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
    assert_eq!(
        record["requestContext"]["condition"],
        "ZeroReservedConcurrency"
    );
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 0);
    assert_eq!(record["requestPayload"], event);
    assert!(record.get("responseContext").is_none(), "{record}");
    assert!(record.get("responsePayload").is_none(), "{record}");
}

#[test]
fn functions_that_invoke_each_other_in_a_loop_are_stopped() {
    let scene = Scene::new("");
    scene.event("lambda", &json!({ "do": "loop", "function": "lambda" }));
    let dead = scene.lying("dead-letters", 1).remove(0);
    let reason = dead["reason"].as_str().unwrap();
    assert!(reason.contains("loop"), "{reason}");
    meanwhile();
    scene.says("invoked", 16);
}

#[test]
fn a_function_that_gets_its_own_failures_comes_to_an_end() {
    let scene = Scene::new(
        "[function.other]\ncomponent = \"{lambda-consumer}\"\n\
         [function.other.async]\nmax-attempts = 1\non-failure = { function = \"trapping\" }\n\
         [function.trapping]\ncomponent = \"{lambda-consumer}\"\nreserved-concurrency = 0\n\
         [function.trapping.async]\nmax-attempts = 1\non-failure = { function = \"trapping\" }\n",
    );
    scene.event("other", &json!({ "do": "fail" }));
    let dead = scene.lying("dead-letters", 1).remove(0);
    assert_eq!(dead["dead_from"], "@async:trapping");
    scene.is_drained("@async:trapping");
    assert!(scene.step("trapping", "dead") <= 16.0);
}

#[test]
fn what_cannot_be_accepted_is_refused_when_it_is_sent() {
    let scene = Scene::new(
        "[function.other]\ncomponent = \"{lambda-consumer}\"\nreserved-concurrency = 1\n\
         [function.other.async]\nevent-limit = \"1KiB\"\nbacklog = 3\n",
    );
    let is = |answer: dunlin_tests::Response, status: u16, code: &str, says: &str| {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("x-amzn-errortype"), Some(code));
        assert!(answer.text().contains(says), "{}", answer.text());
    };
    is(
        scene.try_event("nobody", "{}"),
        404,
        "ResourceNotFoundException",
        "Function not found",
    );
    is(
        scene.try_event("consumer", "{}"),
        400,
        "InvalidParameterValueException",
        "dunlin:event/invoke",
    );
    is(
        scene.try_event("other", "{"),
        400,
        "InvalidRequestContentException",
        "Could not parse",
    );
    let large = json!({ "x": "x".repeat(2000) }).to_string();
    is(
        scene.try_event("other", &large),
        413,
        "RequestEntityTooLargeException",
        "too large for the Event invocation type (limit 1024 bytes)",
    );
    // One runs, three wait.
    let sleep = json!({ "do": "sleep", "ms": 900 });
    let mut accepted = 0;
    let refused = loop {
        let answer = scene.try_event("other", &sleep.to_string());
        if answer.status != 202 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 10, "its backlog is never full");
    };
    assert_eq!(refused.header("retry-after"), Some("1"));
    is(refused, 429, "TooManyRequestsException", "Rate Exceeded");
    eventually("those that were accepted run", || {
        (scene.step("other", "done") == f64::from(accepted)).then_some(())
    });
}

#[test]
fn what_was_accepted_is_run_whatever_is_killed() {
    let state = tempfile::tempdir().unwrap();
    let mut accepted = BTreeSet::new();
    for round in 0..4 {
        let scene = Scene::over(state.path(), "");
        for number in 0..50 {
            // What ran says so in a queue: the log goes with the host.
            let body = format!("{round}-{number}");
            scene.event(
                "lambda",
                &json!({ "do": "send", "queue": "out", "body": body }),
            );
            accepted.insert(body);
        }
        scene.host.signal(Signal::KILL);
    }
    let scene = Scene::over(state.path(), "");
    scene.is_drained("@async:lambda");
    let mut ran = BTreeSet::new();
    while scene.depth("out") > 0 {
        ran.insert(scene.take("out")["Body"].as_str().unwrap().to_owned());
    }
    assert_eq!(ran, accepted);
    assert_eq!(scene.depth("dead-letters"), 0);
}
