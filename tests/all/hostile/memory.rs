//! Guests that take all the memory they can get.

use dunlin_tests::{Host, guest};

use super::hostile;
use crate::scene::{OUT_OF_MEMORY, Scene, TIMEOUT};
use crate::wat::{MEMORY, REALLOC, handler, http_component};

const MIB: u32 = 1 << 20;
const PAGE: u32 = 1 << 16;

/// What the components by hand answer: a number of four bytes.
#[track_caller]
fn number(response: &dunlin_tests::Response) -> u32 {
    assert_eq!(response.status, 200, "{response:?}");
    u32::from_le_bytes(response.body.as_slice().try_into().expect("four bytes"))
}

#[test]
fn who_needs_more_than_its_memory_is_out_of_memory() {
    let scene = Scene::new(hostile("memory = \"16MiB\""));
    let record = scene.ends("/hostile/hoard", &OUT_OF_MEMORY);
    let peak = record["memory_bytes"]
        .as_u64()
        .expect("records have a peak");
    assert!(peak > 8 << 20 && peak <= 16 << 20, "{record}");
    // One that gets along with a refusal is none that failed.
    let modest = scene.host.get("/hostile/modest?n=100");
    assert_eq!(modest.status, 200);
    let got: u32 = modest.text().parse().expect("a number");
    assert!((8..16).contains(&got), "{got}");
    scene.end();
}

/// Grows ten memories in turn, a MiB each, until one is refused; counts pages.
/// With a body it traps then.
fn ten_memories() -> std::path::PathBuf {
    let grow = |index: u32| {
        format!(
            "(if (i32.eq (memory.grow {index} (i32.const 16)) (i32.const -1))
                (then (br $refused))
                (else (local.set $n (i32.add (local.get $n) (i32.const 16)))))"
        )
    };
    let body = format!(
        "(block $refused (loop $again {} (br $again)))
         (if (i32.gt_u (local.get 7) (i32.const 0)) (then unreachable))
         (i32.store (i32.const 64) (local.get $n))",
        (0..10).map(grow).collect::<String>()
    );
    let others = "(memory 1)".repeat(9);
    http_component(&format!("{MEMORY} {others} {REALLOC} {}", handler(&body)))
}

#[test]
fn all_memories_of_an_instance_count_together() {
    let scene = Scene::new(Host::builder().function("ten", &ten_memories(), "memory = \"32MiB\""));
    let pages = number(&scene.host.get("/ten")) + 10;
    assert!(
        pages * PAGE <= 32 * MIB && pages * PAGE > 30 * MIB,
        "{pages} pages"
    );
    let record = scene.post_ends("/ten", "x", &OUT_OF_MEMORY);
    let peak = record["memory_bytes"]
        .as_u64()
        .expect("records have a peak");
    assert!(peak <= 32 << 20 && peak > 30 << 20, "{record}");
    scene.end();
}

#[test]
fn memories_of_several_core_instances_count_together() {
    // Four instances of a module with a memory each, all driven by one.
    let component = dunlin_tests::wat_component(&format!(
        r#"(component
          (core module $store
            (memory 1)
            (func (export "grow") (result i32) (memory.grow (i32.const 16))))
          (core instance $a (instantiate $store))
          (core instance $b (instantiate $store))
          (core instance $c (instantiate $store))
          (core module $main
            (import "a" "grow" (func $a (result i32)))
            (import "b" "grow" (func $b (result i32)))
            (import "c" "grow" (func $c (result i32)))
            {MEMORY} {REALLOC} {})
          (core instance $core (instantiate $main
            (with "a" (instance $a)) (with "b" (instance $b)) (with "c" (instance $c))))
          {})"#,
        handler(
            "(block $refused (loop $again
                (br_if $refused (i32.eq (call $a) (i32.const -1)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $refused (i32.eq (call $b) (i32.const -1)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $refused (i32.eq (call $c) (i32.const -1)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br $again)))
             (if (i32.gt_u (local.get 7) (i32.const 0)) (then unreachable))
             (i32.store (i32.const 64) (local.get $n))"
        ),
        crate::wat::lift("$core")
    ));
    let scene = Scene::new(Host::builder().function("four", &component, "memory = \"32MiB\""));
    let mib = number(&scene.host.get("/four"));
    assert_eq!(mib, 31, "and four pages");
    scene.post_ends("/four", "x", &OUT_OF_MEMORY);
    scene.end();
}

/// Grows a table by `step` until it is refused; counts elements. With a body
/// it traps then.
fn table(step: u32) -> std::path::PathBuf {
    http_component(&format!(
        r#"(memory (export "memory") 10) (table 1 funcref) {REALLOC} {}"#,
        handler(&format!(
            "(block $refused (loop $again
                (br_if $refused (i32.eq
                    (table.grow (ref.null func) (i32.const {step})) (i32.const -1)))
                (local.set $n (i32.add (local.get $n) (i32.const {step})))
                (br $again)))
             (if (i32.gt_u (local.get 7) (i32.const 0)) (then unreachable))
             (i32.store (i32.const 64) (local.get $n))"
        ))
    ))
}

#[test]
fn tables_count_as_memory() {
    let scene = Scene::new(
        Host::builder()
            .function("steps", &table(1000), "memory = \"1MiB\"")
            .function("leap", &table(10_000_000), "memory = \"16MiB\""),
    );
    let elements = number(&scene.host.get("/steps"));
    // What ten pages leave of a MiB, at eight bytes each.
    assert!((45_000..=49_152).contains(&elements), "{elements} elements");
    assert_eq!(number(&scene.host.get("/leap")), 0);
    scene.post_ends("/leap", "x", &OUT_OF_MEMORY);
    scene.end();
}

#[test]
fn two_hundred_at_once_stay_within_the_hosts_budget() {
    const BUDGET: f64 = 64.0 * 1024.0 * 1024.0;
    let scene = Scene::new(
        Host::builder()
            .manifest("[host]\nmemory-budget = \"64MiB\"")
            .function(
                "hostile",
                &guest("hostile"),
                "memory = \"16MiB\"\ntimeout = \"30s\"",
            ),
    );
    let host = &scene.host;
    let before = host.rss();
    let many: Vec<_> = (0..200)
        .map(|_| host.http.spawn_get("/hostile/hold?n=8&ms=1000"))
        .collect();
    let mut most: f64 = 0.0;
    let mut rss = 0;
    while many.iter().any(|request| !request.is_finished()) {
        most = most.max(host.metric("dunlin_memory_used_bytes", &[]).unwrap_or(0.0));
        rss = rss.max(host.rss());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut ends = std::collections::BTreeMap::new();
    for request in many {
        let response = request.join().expect("each is answered");
        let end = (
            response.status,
            response.outcome().unwrap_or("ok").to_owned(),
        );
        if end.0 == 429 {
            assert!(response.header("retry-after").is_some(), "{response:?}");
        }
        *ends.entry(end).or_insert(0) += 1;
    }
    let allowed = [(200, "ok"), (502, "out_of_memory"), (429, "throttled")];
    for (status, outcome) in ends.keys() {
        assert!(allowed.contains(&(*status, outcome.as_str())), "{ends:?}");
    }
    let succeeded = ends.get(&(200, "ok".to_owned())).copied().unwrap_or(0);
    assert!((1..200).contains(&succeeded), "{ends:?}");
    assert!(
        most <= BUDGET && most > 16.0 * 1024.0 * 1024.0,
        "{most} bytes in use"
    );
    assert!(
        rss < before + (64 + 96) * u64::from(MIB),
        "{before} bytes, then {rss}"
    );
    // The neighbour's ready instances may have been given up for work; it works.
    host.wait_until_quiet();
    assert_eq!(host.get("/hello").status, 200);
    assert_eq!(host.get("/hostile/ok").status, 200);
    scene.end();
}

#[test]
fn the_hosts_budget_refuses_one_that_is_within_its_own_memory() {
    let scene = Scene::new(
        Host::builder()
            .manifest("[host]\nmemory-budget = \"24MiB\"")
            .function("hostile", &guest("hostile"), "memory = \"128MiB\""),
    );
    let ends = crate::scene::Ends {
        message: "host-wide memory budget",
        ..OUT_OF_MEMORY
    };
    scene.post_ends("/hostile/hoard", "", &ends);
    scene.end();
}

#[test]
fn one_function_with_many_memories_leaves_its_neighbours_theirs() {
    // The pool has fourteen memories for each slot.
    let fourteen = http_component(&format!(
        "{MEMORY} {} {REALLOC} {}",
        "(memory 1)".repeat(13),
        handler("(if (i32.gt_u (local.get 7) (i32.const 0)) (then (loop (br 0))))")
    ));
    let scene = Scene::new(
        Host::builder()
            .manifest("[host]\nconcurrency = 100\nready = 10")
            .function("fourteen", &fourteen, "timeout = \"3s\""),
    );
    let client = scene.host.http;
    // Refused, they come again at once.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
    let many: Vec<_> = (0..60)
        .map(|_| {
            std::thread::spawn(move || -> std::io::Result<()> {
                while std::time::Instant::now() < until {
                    let response = client.try_request("POST", "/fourteen", &[], b"x")?;
                    assert!(matches!(response.status, 504 | 429), "{response:?}");
                }
                Ok(())
            })
        })
        .collect();
    let running = [("function", "fourteen")];
    scene
        .host
        .wait_for_metric("dunlin_invocations_running", &running, |n| n >= 2.0);
    let mut neighbours = 0;
    while many.iter().any(|request| !request.is_finished()) {
        let neighbour = scene.host.get("/hello");
        assert_eq!(neighbour.status, 200, "after {neighbours}: {neighbour:?}");
        neighbours += 1;
    }
    for requests in many {
        let answered = requests.join().expect("each is refused or ended");
        answered.expect("each is answered");
    }
    assert!(neighbours > 0);
    scene.end();
}

#[test]
fn growing_and_waiting_is_ended_like_any_other() {
    let scene = Scene::new(hostile("memory = \"64MiB\"\ntimeout = \"500ms\""));
    scene.ends("/hostile/hold?n=32&ms=60000", &TIMEOUT);
    scene.end();
}
