//! Instances of WASI 0.3 that serve several requests at once.

use std::time::Duration;

use dunlin_tests::{Builder, Host, Response, guest};

fn web(keys: &str) -> Builder {
    let keys = format!("isolation = \"concurrent\"\n{keys}");
    Host::builder().function("web03", &guest("web03"), &keys)
}

/// How many were in the instance with a request, and how many had come to it.
#[track_caller]
fn counts(response: &Response) -> (u32, u32) {
    assert_eq!(response.status, 200, "{response:?}");
    let text = response.text();
    let (now, in_all) = text.split_once(' ').expect("two numbers");
    (now.parse().unwrap(), in_all.parse().unwrap())
}

#[test]
fn requests_share_an_instance_while_it_has_room() {
    let host = web("").start();
    let at_once = host.http.get_at_once("/web03/waits?pause=1000", 40);
    let most = at_once.iter().map(|response| counts(response).0).max();
    // Sixteen at most. Connections are spread over the cores, and each has its own.
    assert!((2..=16).contains(&most.unwrap()), "{most:?}");
    // One after another they find it again.
    let in_all = (0..20).map(|_| counts(&host.get("/web03/waits")).1).max();
    assert!(in_all.unwrap() > 2, "{in_all:?}");
    host.wait_until_quiet();
    host.stop();
}

#[test]
fn fresh_instances_serve_one_request_each() {
    let host = Host::builder()
        .function("web03", &guest("web03"), "")
        .start();
    let at_once = host.http.get_at_once("/web03/waits?pause=300", 10);
    assert!(at_once.iter().all(|response| counts(response) == (1, 1)));
    host.stop();
}

#[test]
fn what_ends_an_instance_ends_all_that_is_in_it_and_nothing_else() {
    let host = web("timeout = \"20s\"").start();
    // One for each core at least: the panic meets one of them.
    let waits: Vec<_> = (0..8)
        .map(|_| host.http.spawn_get("/web03/waits?pause=3000"))
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let panics = host.get("/web03/panic");
    assert_eq!((panics.status, panics.outcome()), (502, Some("trap")));
    let responses = waits.into_iter().map(|waits| waits.join().unwrap());
    let ended: Vec<Response> = responses
        .filter(|response| response.status != 200)
        .collect();
    assert!(!ended.is_empty(), "no two requests met");
    for response in ended {
        assert_eq!((response.status, response.outcome()), (502, Some("trap")));
        // Each is told by its own name.
        let record = host.record(response.request_id());
        assert_eq!(record["outcome"], "trap", "{record}");
        let message = record["message"].as_str().unwrap();
        assert!(message.contains(response.request_id()), "{record}");
    }
    assert_eq!(host.get("/web03/ok").status, 200);
    host.wait_until_quiet();
    host.stop();
}

#[test]
fn a_request_that_is_late_ends_and_the_next_is_served() {
    let host = web("timeout = \"2s\"\nreserved-concurrency = 4").start();
    for path in ["sleeps", "spins", "hangs-late"] {
        let response = host
            .http
            .connect()
            .try_request("GET", &format!("/web03/{path}"), &[], b"");
        match response {
            Ok(response) => {
                assert_eq!(
                    (response.status, response.outcome()),
                    (504, Some("timeout")),
                    "{path}"
                );
            }
            // Half an answer, and a reset.
            Err(error) => assert_eq!(path, "hangs-late", "{error}"),
        }
        assert_eq!(counts(&host.get("/web03/waits")).0, 1, "after {path}");
    }
    host.wait_until_quiet();
    host.stop();
}

#[test]
fn each_request_sees_its_own_context() {
    let host = Host::builder()
        .function(
            "observer03",
            &guest("observer03"),
            "isolation = \"concurrent\"\nsecrets = { KEY = { env = \"KEY\" } }",
        )
        .env("KEY", "hunter2")
        .start();
    for response in host.http.get_at_once("/observer03/any", 20) {
        assert_eq!(response.status, 200, "{response:?}");
        let own = format!("{} true hunter2", response.request_id());
        assert_eq!(response.text(), [own.as_str(); 3].join("\n"));
    }
    host.stop();
}

#[test]
fn an_instance_ends_after_the_requests_that_it_has_when_another_version_comes() {
    let host = web("").start();
    let waits = host.http.spawn_get("/web03/waits?pause=1000");
    std::thread::sleep(Duration::from_millis(300));
    let log = host.stop();
    assert_eq!(counts(&waits.join().unwrap()), (1, 1));
    let ended = log.iter().filter(|line| line["outcome"] == "ok").count();
    assert_eq!(ended, 1, "{log:?}");
}
