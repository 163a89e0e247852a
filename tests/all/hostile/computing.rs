//! Guests that never end: each of their ways to spend time.

use dunlin_tests::{Host, guest};

use super::hostile;
use crate::scene::{OUT_OF_FUEL, Scene, TIMEOUT, trap};
use crate::wat::{REALLOC, handler, http_component};

/// The deadline is enforced, and not long after it.
#[track_caller]
fn times_out(scene: &Scene, target: &str, timeout_ms: f64) {
    let record = scene.ends(target, &TIMEOUT);
    let took = record["duration_ms"]
        .as_f64()
        .expect("records have durations");
    assert!(
        took >= timeout_ms && took < timeout_ms + 10_000.0,
        "{target}: {record}"
    );
}

#[test]
fn a_loop_ends_at_the_deadline() {
    let scene = Scene::new(hostile("timeout = \"700ms\""));
    times_out(&scene, "/hostile/spin", 700.0);
    scene.end();
}

#[test]
fn a_host_call_in_a_loop_ends_at_the_deadline() {
    let scene = Scene::new(hostile("timeout = \"700ms\""));
    times_out(&scene, "/hostile/now-for-ever", 700.0);
    times_out(&scene, "/hostile/random-for-ever?n=65536", 700.0);
    times_out(&scene, "/hostile/random-for-ever?n=1", 700.0);
    scene.end();
}

#[test]
fn bulk_memory_in_a_loop_ends_at_the_deadline() {
    // A unit of fuel for each byte: on a quick machine the default budget could
    // be used up first. Here the deadline stands alone.
    let scene = Scene::new(hostile("timeout = \"700ms\"\nfuel = \"off\""));
    times_out(&scene, "/hostile/copy-for-ever?n=64", 700.0);
    times_out(&scene, "/hostile/fill-for-ever?n=64", 700.0);
    scene.end();
}

#[test]
fn one_instruction_over_all_of_a_large_memory_ends_at_the_deadline() {
    // 512 MiB, over and over.
    let module = format!(
        r#"(memory (export "memory") 8192) {REALLOC} {}"#,
        handler(
            "(if (i32.gt_u (local.get 7) (i32.const 0))
                (then
                    (loop
                        (memory.fill (i32.const 65536) (i32.const 7) (i32.const 0x1ffe0000))
                        (br 0))))"
        )
    );
    let keys = "memory = \"1GiB\"\ntimeout = \"500ms\"\nfuel = \"off\"\nprovisioned = 0";
    let scene = Scene::new(Host::builder().function("wide", &http_component(&module), keys));
    scene.post_ends("/wide", "x", &TIMEOUT);
    scene.end();
}

#[test]
fn who_sleeps_past_the_deadline_is_ended_and_costs_no_core() {
    let scene = Scene::new(hostile("timeout = \"700ms\""));
    let record = scene.ends("/hostile/sleep?n=600000", &TIMEOUT);
    let cpu = record["cpu_ms"].as_f64().expect("records have CPU time");
    assert!(cpu < 350.0, "{record}");
    scene.end();
}

#[test]
fn fuel_ends_a_computation_and_a_small_one_is_within_it() {
    let scene = Scene::new(hostile("fuel = 5_000_000\ntimeout = \"60s\""));
    let record = scene.ends("/hostile/spin", &OUT_OF_FUEL);
    assert_eq!(record["fuel"], 5_000_000, "{record}");
    let work = scene.host.get("/hostile/work?n=1000");
    assert_eq!(work.status, 200);
    let used = scene.host.record(work.request_id())["fuel"].as_u64();
    assert!(
        used.is_some_and(|used| used > 1000 && used < 5_000_000),
        "{used:?}"
    );
    scene.end();
}

#[test]
fn who_asks_for_too_many_random_bytes_at_once_traps() {
    let scene = Scene::new(hostile(""));
    assert_eq!(scene.host.get("/hostile/random?n=65536").text(), "65536");
    scene.ends("/hostile/random?n=65537", &trap("exceeds limit"));
    scene.ends("/hostile/huge-random", &trap("exceeds limit"));
    scene.end();
}

#[test]
fn many_that_spin_at_once_end_and_the_neighbour_answers() {
    let scene = Scene::new(hostile("timeout = \"2s\""));
    let host = &scene.host;
    let spinning: Vec<_> = (0..60)
        .map(|_| host.http.spawn_get("/hostile/spin"))
        .collect();
    host.wait_for_metric(
        "dunlin_invocations_running",
        &[("function", "hostile")],
        |n| n >= 50.0,
    );
    // Metrics and health have threads of their own.
    assert_eq!(host.metrics.get("/health").status, 200);
    for _ in 0..10 {
        assert_eq!(host.get("/hello").status, 200);
    }
    for request in spinning {
        let response = request.join().expect("each is answered");
        assert_eq!(
            (response.status, response.outcome()),
            (504, Some("timeout"))
        );
    }
    scene.end();
}

#[test]
fn clients_that_leave_spinning_guests_behind_leave_nothing_behind() {
    let scene = Scene::new(
        Host::builder()
            .manifest("[host]\nconcurrency = 20")
            .function("hostile", &guest("hostile"), "timeout = \"60s\""),
    );
    let host = &scene.host;
    for _ in 0..3 {
        let mut left: Vec<_> = (0..15)
            .map(|_| {
                let mut connection = host.http.connect();
                connection.send(b"GET /hostile/spin HTTP/1.1\r\nhost: x\r\n\r\n");
                connection
            })
            .collect();
        host.wait_for_metric(
            "dunlin_invocations_running",
            &[("function", "hostile")],
            |n| n >= 15.0,
        );
        left.clear();
        host.wait_until_quiet();
    }
    host.wait_for_metric(
        "dunlin_invocations_total",
        &[("function", "hostile"), ("outcome", "cancelled")],
        |n| n == 45.0,
    );
    scene.end();
}
