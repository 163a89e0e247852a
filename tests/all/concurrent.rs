//! Instances of WASI 0.3 that serve several requests at once.

use std::time::Duration;

use dunlin_tests::{Builder, Host, Response, eventually, guest, within};
use http::Request;

use crate::http::h2c;

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

/// Opens a stream; answers the future of its answer.
fn ask(connection: &mut h2c::Connection, target: &str) -> h2::client::ResponseFuture {
    let request = Request::get(format!("http://box.test/web03/{target}"));
    let request = request.body(()).unwrap();
    connection.requests.send_request(request, true).unwrap().0
}

/// Reads an answer until it ends or breaks.
async fn read(mut body: h2::RecvStream) -> Result<(), h2::Error> {
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece?.len())?;
    }
    Ok(())
}

#[test]
fn an_answer_breaks_off_at_its_deadline_while_others_are_in_its_instance() {
    let host = web("timeout = \"4s\"\nfuel = \"off\"\nresponse-limit = \"1GiB\"").start();
    for late in ["hangs-late", "pieces?count=1000000000&pause=1"] {
        // Streams of a connection stay on its core, but for one that is busy.
        eventually("two requests meet", || {
            h2c::run(async {
                let mut connection = h2c::Connection::open(&host).await;
                let (parts, body) = ask(&mut connection, late).await.unwrap().into_parts();
                let id = parts.headers["x-amzn-requestid"].to_str().unwrap();
                let mut broken = std::pin::pin!(read(body));
                tokio::select! {
                    ended = &mut broken => panic!("{late}: it ended already: {ended:?}"),
                    () = tokio::time::sleep(Duration::from_secs(2)) => {}
                }
                let other = ask(&mut connection, "waits?pause=3500");
                let mut other = std::pin::pin!(other);
                tokio::select! {
                    broken = &mut broken => {
                        let broken = broken.unwrap_err();
                        assert_eq!(broken.reason(), Some(h2::Reason::INTERNAL_ERROR), "{late}");
                    }
                    _ = &mut other => panic!("{late}: it outlives its deadline"),
                }
                assert_eq!(host.record(id)["outcome"], "timeout", "{late}");
                let (parts, mut body) = other.await.unwrap().into_parts();
                assert_eq!(parts.status, 200, "{late}");
                let text = body.data().await.unwrap().unwrap();
                (text != "1 1").then_some(())
            })
        });
    }
    host.wait_until_quiet();
    host.stop();
}

#[test]
fn a_request_that_is_held_up_is_answered_at_its_deadline() {
    let host = web("timeout = \"4s\"\nfuel = \"off\"").start();
    h2c::run(async {
        let mut connection = h2c::Connection::open(&host).await;
        let mut held_up = std::pin::pin!(ask(&mut connection, "sleeps"));
        tokio::select! {
            _ = &mut held_up => panic!("it sleeps"),
            () = tokio::time::sleep(Duration::from_secs(3)) => {}
        }
        let mut spins = std::pin::pin!(ask(&mut connection, "spins"));
        tokio::select! {
            biased;
            answer = &mut held_up => assert_eq!(answer.unwrap().status(), 504),
            _ = &mut spins => panic!("the other has three seconds more"),
        }
        let other = tokio::time::timeout(Duration::from_millis(500), spins).await;
        assert!(other.is_err(), "not when the other ends: {other:?}");
    });
    host.wait_until_quiet();
    host.stop();
}

#[test]
fn a_request_whose_client_has_gone_is_not_begun() {
    const AT_ONCE: u32 = 8;
    let running = |host: &Host, count: u32| {
        host.wait_for_metric("dunlin_invocations_running", &[], |n| n >= f64::from(count));
    };
    let host = web("timeout = \"20s\"\nfuel = \"off\"").start();
    // On all cores.
    let busy: Vec<_> = (0..AT_ONCE)
        .map(|_| host.http.spawn_get("/web03/computes?pause=1000"))
        .collect();
    running(&host, AT_ONCE);
    let clients: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let mut client = host.http.connect();
            client.send("GET /web03/says HTTP/1.1\r\nhost: a\r\n\r\n");
            client
        })
        .collect();
    running(&host, 2 * AT_ONCE);
    drop(clients);
    for busy in busy {
        assert_eq!(busy.join().unwrap().text(), "done");
    }
    host.wait_until_quiet();
    let cancelled = [("outcome", "cancelled")];
    let cancelled = host.metric("dunlin_invocations_total", &cancelled);
    assert_eq!(cancelled, Some(f64::from(AT_ONCE)));
    let log = host.stop();
    let begun = log.iter().filter(|line| line["message"] == "begun").count();
    assert_eq!(begun, 0);
}

#[test]
fn a_burst_needs_no_instance_for_each_request() {
    let host = Host::builder()
        .function(
            "observer03",
            &guest("observer03"),
            "isolation = \"concurrent\"\nprovisioned = 0\nenvironment = { PAUSE = \"400\" }",
        )
        .start();
    let used = || host.metric("dunlin_memory_used_bytes", &[]).unwrap();
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |used| used == 0.0);
    assert_eq!(host.get("/observer03").status, 200);
    // It waits for the next.
    let one = used();
    assert!(one > 0.0);
    for response in host.http.get_at_once("/observer03", 48) {
        assert_eq!(response.status, 200, "{response:?}");
    }
    host.wait_until_quiet();
    // Three on a core that got all, two on each of two; and what came too late for one.
    let instances = used() / one;
    assert!(instances < 12.0, "{instances} instances");
    host.stop();
}

#[test]
fn an_instance_without_requests_gives_way_to_who_needs_its_memory() {
    let host = web("memory = \"64MiB\"\nprovisioned = 0")
        .manifest("[host]\nmemory-budget = \"64MiB\"")
        .function(
            "hostile",
            &guest("hostile"),
            "memory = \"64MiB\"\nprovisioned = 0",
        )
        .start();
    // Its allocator takes twice as much.
    let grown = host.get(&format!("/web03/grows?size={}", 20 << 20));
    assert_eq!(grown.text(), "grown");
    host.wait_until_quiet();
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |used| used > 4e7);
    // Far sooner than it would end by itself.
    within(Duration::from_secs(30), "the other has its memory", || {
        (host.get("/hostile/modest?n=40").text() == "40").then_some(())
    });
    host.stop();
}

#[test]
fn a_version_whose_instances_have_requests_is_no_idle_one() {
    let host = web("").manifest("[host]\nrest-after = \"2s\"").start();
    let began = std::time::Instant::now();
    let wanted = || host.metric("dunlin_instances_wanted", &[]).unwrap();
    assert!(wanted() > 0.0);
    while began.elapsed() < Duration::from_secs(6) {
        assert_eq!(host.get("/web03/ok").status, 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(wanted() > 0.0, "it rests");
    let reused = [("source", "reused")];
    let reused = host.metric("dunlin_leases_total", &reused).unwrap();
    let all = host.metric("dunlin_leases_total", &[]).unwrap();
    assert!(reused > all / 2.0, "{reused} of {all}");
    // Then it does.
    host.wait_for_metric("dunlin_instances_wanted", &[], |wanted| wanted == 0.0);
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
