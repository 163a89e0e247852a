//! HTTP endpoints that get the records of asynchronous invocations.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dunlin_tests::{Host, guest};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::upstream::{Upstream, ok, request};
use crate::events::Scene;

/// A function `other` whose records go there.
fn manifest(upstream: &Upstream, keys: &str) -> String {
    format!(
        r#"
[host]
egress = ["{rule}"]
[function.other]
component = "{{lambda-consumer}}"
[function.other.async]
retry-delay = "10ms"
on-success = {{ http = "{url}" }}
on-failure = {{ http = "{url}" }}
{keys}
"#,
        rule = upstream.rule(),
        url = upstream.url("/hook/secret?of=other"),
    )
}

/// Answers with these statuses, one after the other; the last for ever.
fn statuses(all: &'static [&'static str]) -> Upstream {
    let count = Arc::new(AtomicUsize::new(0));
    Upstream::start(move |mut stream, tell| {
        let count = Arc::clone(&count);
        async move {
            while let Some(request) = request(&mut stream).await {
                let index = count.fetch_add(1, Ordering::SeqCst).min(all.len() - 1);
                let answer = format!("HTTP/1.1 {}\r\ncontent-length: 0\r\n\r\n", all[index]);
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
                tell.say(request);
            }
        }
    })
}

/// A header of a request.
fn header<'a>(request: &'a str, name: &str) -> &'a str {
    let line = request.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}: {request}"))
}

fn body(request: &str) -> Value {
    let (_, body) = request.split_once("\r\n\r\n").expect("it has a head");
    serde_json::from_str(body).expect("it is JSON")
}

#[track_caller]
fn delivered(scene: &Scene, result: &str, count: f64) {
    let labels = [("function", "other"), ("result", result)];
    let host = &scene.host;
    host.wait_for_metric("dunlin_deliveries_total", &labels, |n| n == count);
}

#[test]
fn an_endpoint_gets_the_record() {
    let upstream = Upstream::answering(ok(""));
    let scene = Scene::new(&manifest(&upstream, ""));
    let id = scene.event("other", &json!({ "do": "ok", "value": 42 }));
    let request = upstream.hears();
    let line = request.lines().next();
    assert_eq!(line, Some("POST /hook/secret?of=other HTTP/1.1"));
    assert_eq!(header(&request, "content-type: "), "application/json");
    assert_eq!(header(&request, "host: "), upstream.address.to_string());
    assert_eq!(header(&request, "dunlin-attempt: "), "1");
    let record = body(&request);
    assert_eq!(record["requestContext"]["requestId"], id.as_str());
    assert_eq!(record["requestContext"]["condition"], "Success");
    assert_eq!(record["responsePayload"], 42);
    delivered(&scene, "delivered", 1.0);

    let id = scene.event("other", &json!({ "do": "fail" }));
    let record = body(&upstream.hears());
    assert_eq!(record["requestContext"]["requestId"], id.as_str());
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    delivered(&scene, "delivered", 2.0);
    scene.is_drained("@http:other");
    assert_eq!(scene.depth("dead-letters"), 0);
    assert!(!scene.host.log_text().contains("secret"));
}

#[test]
fn an_endpoint_that_fails_gets_the_same_record_again() {
    let upstream = statuses(&["503 Busy", "429 Slow", "204 Done"]);
    let scene = Scene::new(&manifest(&upstream, ""));
    scene.event("other", &json!({ "do": "ok" }));
    let requests = [upstream.hears(), upstream.hears(), upstream.hears()];
    let ids = requests
        .each_ref()
        .map(|it| header(it, "dunlin-delivery-id: "));
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    let attempts = requests.each_ref().map(|it| header(it, "dunlin-attempt: "));
    assert_eq!(attempts, ["1", "2", "3"]);
    assert_eq!(body(&requests[0]), body(&requests[2]));
    delivered(&scene, "retried", 2.0);
    delivered(&scene, "delivered", 1.0);
    scene.is_drained("@http:other");
}

#[test]
fn what_an_endpoint_refuses_is_a_dead_letter_with_its_reason() {
    let upstream = statuses(&["404 Gone", "200 OK"]);
    let scene = Scene::new(&manifest(&upstream, "dead-letter-queue = \"dead\""));
    scene.event("other", &json!({ "do": "ok", "value": 1 }));
    let dead = scene.lying("dead", 1).remove(0);
    let reason = dead["reason"].as_str().unwrap_or_default();
    let expected = format!("{} answered 404 Not Found", upstream.rule());
    assert_eq!(reason, expected);
    delivered(&scene, "dead", 1.0);
    assert_eq!(body(&upstream.hears())["responsePayload"], 1);
    // Sent back, it is posted again.
    let sent_back = scene.own("RedriveQueue", &json!({ "QueueUrl": "http://h/1/dead" }));
    assert_eq!(sent_back["Messages"], 1);
    assert_eq!(body(&upstream.hears())["responsePayload"], 1);
    delivered(&scene, "delivered", 1.0);
}

#[test]
fn a_record_outlives_the_host() {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let upstream = statuses(&["500 Broken", "200 OK"]);
    let manifest = manifest(&upstream, "");
    let scene = Scene::over(folder.path(), &manifest);
    scene.event("other", &json!({ "do": "ok", "value": "kept" }));
    let first = upstream.hears();
    let mut host = scene.host;
    host.signal(Signal::KILL);
    host.wait_for_exit(dunlin_tests::PATIENCE);
    let scene = Scene::over(folder.path(), &manifest);
    let second = upstream.hears();
    assert_eq!(body(&first), body(&second));
    let id = "dunlin-delivery-id: ";
    assert_eq!(header(&first, id), header(&second, id));
    delivered(&scene, "delivered", 1.0);
    scene.is_drained("@http:other");
}

#[test]
fn an_endpoint_is_one_that_the_host_allows() {
    let manifest = |host: &str, url: &str| {
        let builder = Host::builder()
            .manifest(host)
            .function("other", &guest("lambda-consumer"), "")
            .manifest(format!(
                "[function.other.async]\non-failure = {{ http = \"{url}\" }}"
            ));
        builder.start_expecting_failure()
    };
    for (host, url, what) in [
        (
            "",
            "http://127.0.0.1:1/x",
            "`http://127.0.0.1:1` is more than the host allows",
        ),
        (
            "[host]\negress = []",
            "https://a.example/x",
            "`https://a.example` is more than",
        ),
        (
            "",
            "https://user:secret@a.example/",
            "no URL to post to: a user in it",
        ),
        (
            "",
            "ftp://a.example/secret",
            "no URL to post to: another scheme",
        ),
        ("", "https://a.example/#secret", "no URL to post to: a `#`"),
    ] {
        let failure = manifest(host, url);
        assert!(failure.stderr.contains(what), "{url}: {failure:?}");
        assert!(
            failure.stderr.contains("on-failure.http"),
            "{url}: {failure:?}"
        );
        assert!(!failure.stderr.contains("secret"), "{url}: {failure:?}");
    }
}

#[test]
fn a_name_that_leads_inside_is_tried_and_is_not_lost() {
    let upstream = Upstream::answering(ok(""));
    let url = format!("http://localhost:{}/x", upstream.port());
    let scene = Scene::new(&format!(
        r#"
[host]
egress = ["http://localhost:{}"]
[function.other]
component = "{{lambda-consumer}}"
[function.other.async]
on-success = {{ http = "{url}" }}
"#,
        upstream.port()
    ));
    scene.event("other", &json!({ "do": "ok" }));
    delivered(&scene, "retried", 1.0);
    assert_eq!(upstream.accepted(), 0);
    assert_eq!(scene.depth("@http:other"), 1);
}
