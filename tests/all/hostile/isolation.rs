//! What one invocation leaves behind, and who may see it.

use std::sync::atomic::{AtomicUsize, Ordering};

use dunlin_tests::{Connection, Host};

use super::hostile;

const INVOCATIONS: usize = 2000;
const CLIENTS: usize = 4;

#[track_caller]
fn get(connection: &mut Connection, target: &str) -> String {
    let response = connection.request("GET", target, &[], b"");
    assert_eq!(response.status, 200, "{target}: {response:?}");
    response.text()
}

/// Leaves a secret now and then, and looks for it in 2000 other invocations,
/// in the memory that they begin with and in what they grow into.
fn canary(host: Host) {
    let looked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = host.http.connect();
                while looked.fetch_add(1, Ordering::Relaxed) < INVOCATIONS {
                    let turn = looked.load(Ordering::Relaxed);
                    if turn.is_multiple_of(5) {
                        get(&mut connection, "/hostile/leave-secret");
                    }
                    let pages = if turn.is_multiple_of(10) { 80 } else { 0 };
                    let seen = get(&mut connection, &format!("/hostile/find-secret?n={pages}"));
                    assert_eq!(seen, "served 0 found 0");
                }
            });
        }
    });
    assert!(looked.load(Ordering::Relaxed) >= INVOCATIONS);
    host.stop();
}

#[test]
fn a_fresh_instance_sees_nothing_of_those_before_with_memset() {
    canary(
        hostile("timeout = \"30s\"")
            .manifest("[host]\nmemory-reset = \"memset\"")
            .start(),
    );
}

#[test]
fn a_fresh_instance_sees_nothing_of_those_before_with_pagemap() {
    let started = hostile("timeout = \"30s\"")
        .manifest("[host]\nmemory-reset = \"pagemap\"")
        .try_start();
    match started {
        Ok(host) => canary(host),
        // A kernel that is too old, or a machine that swaps.
        Err(failure) => assert!(
            failure.stderr.contains("memory-reset: pagemap"),
            "{failure:?}"
        ),
    }
}

const REUSE: &str = "isolation = \"reuse\"\nprovisioned = 1\ntimeout = \"1s\"";

#[test]
fn a_reused_instance_sees_what_it_left() {
    let host = hostile(REUSE).start();
    assert_eq!(host.get("/hostile/find-secret").text(), "served 0 found 0");
    assert_eq!(host.get("/hostile/leave-secret").text(), "1");
    let seen = host.get("/hostile/find-secret").text();
    let found = seen
        .strip_prefix("served 2 found ")
        .unwrap_or_else(|| panic!("{seen}"));
    assert!(
        found.parse::<u32>().is_ok_and(|found| found > 1000),
        "{seen}"
    );
    let reused = host.metric(
        "dunlin_leases_total",
        &[("function", "hostile"), ("source", "reused")],
    );
    assert_eq!(reused, Some(2.0));
    host.stop();
}

#[test]
fn a_reused_instance_that_failed_serves_no_more() {
    let host = hostile(&format!("{REUSE}\nmemory = \"16MiB\"")).start();
    let deaths = [
        ("unreachable?", "trap"),
        ("exit?n=0", "trap"),
        ("hoard?", "out_of_memory"),
        ("spin?", "timeout"),
        ("sleep?n=60000", "timeout"),
        ("random?n=100000000", "trap"),
    ];
    for (death, outcome) in deaths {
        // Whichever it is: there may be one more, made while another served.
        for _ in 0..4 {
            assert_eq!(host.get("/hostile/instance").status, 200);
        }
        let response = host.get(&format!("/hostile/{death}&signed"));
        assert_eq!(response.outcome(), Some(outcome), "{death}: {response:?}");
        let log = host.guest_log(response.request_id());
        let dead = log[0]["message"]
            .as_str()
            .expect("it said its name")
            .to_owned();
        for _ in 0..20 {
            assert_ne!(host.get("/hostile/instance").text(), dead, "{death}");
        }
    }
    host.stop();
}

#[test]
fn a_reused_instance_serves_again_and_again() {
    let host = hostile(REUSE).start();
    let first = host.get("/hostile/instance").text();
    for _ in 0..20 {
        assert_eq!(host.get("/hostile/instance").text(), first);
    }
    // An answer that cannot be sent is the handler's fault, not the instance's.
    assert_eq!(
        host.get("/hostile/status?n=99").outcome(),
        Some("function_error")
    );
    assert_eq!(host.get("/hostile/instance").text(), first);
    host.stop();
}

#[test]
fn a_reused_instance_whose_client_left_serves_no_more() {
    let host = hostile(&REUSE.replace("1s", "30s")).start();
    assert_eq!(host.get("/hostile/leave-secret").status, 200);
    let mut connection = host.http.connect();
    connection.send(b"GET /hostile/sleep?n=20000 HTTP/1.1\r\nhost: x\r\n\r\n");
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
    drop(connection);
    host.wait_until_quiet();
    assert_eq!(host.get("/hostile/find-secret").text(), "served 0 found 0");
    host.stop();
}

#[test]
fn a_reused_instance_has_its_limits_for_each_invocation_anew() {
    let keys = format!("{REUSE}\nfuel = 50_000_000\nlog-limit = \"4KiB\"");
    let host = hostile(&keys).start();
    for round in 0..5 {
        // More than half of each budget, every time.
        let work = host.get("/hostile/work?n=4000000");
        assert_eq!(work.status, 200, "round {round}: {work:?}");
        let print = host.post("/hostile/print", format!("{}\n", "x".repeat(3000)));
        assert_eq!(host.guest_log(print.request_id()).len(), 1, "round {round}");
        let sleep = host.get("/hostile/sleep?n=600");
        assert_eq!(sleep.status, 200, "round {round}: {sleep:?}");
    }
    host.stop();
}

#[test]
fn a_function_sees_nothing_of_another() {
    // Both run in slots of one pool, and one of them keeps its instances.
    let host = hostile("timeout = \"30s\"")
        .function(
            "keeper",
            &dunlin_tests::guest("hostile"),
            "isolation = \"reuse\"\nprovisioned = 1\ntimeout = \"30s\"",
        )
        .start();
    let mut connection = host.http.connect();
    for _ in 0..200 {
        get(&mut connection, "/keeper/leave-secret");
        assert_eq!(
            get(&mut connection, "/hostile/find-secret?n=80"),
            "served 0 found 0"
        );
        // Its instance ends, and its slot is anyone's.
        assert_eq!(host.get("/keeper/unreachable").status, 502);
    }
    host.stop();
}
