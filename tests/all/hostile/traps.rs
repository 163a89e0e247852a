//! Guests that end in the middle of an invocation.

use dunlin_tests::Host;

use super::hostile;
use crate::scene::{Scene, TIMEOUT, trap};
use crate::wat::{MEMORY, REALLOC, handler, http_component};

#[test]
fn a_trap_is_a_502_and_the_next_request_works() {
    let scene = Scene::new(hostile(""));
    scene.ends("/hostile/unreachable", &trap("unreachable"));
    scene.ends("/hostile/out-of-bounds", &trap("out of bounds"));
    scene.ends("/hostile/abort", &trap("unreachable"));
    scene.end();
}

#[test]
fn a_panic_is_a_trap_and_its_message_is_in_the_log() {
    let scene = Scene::new(hostile(""));
    let record = scene.ends("/hostile/panic?text=no%20way", &trap("unreachable"));
    let id = record["request_id"]
        .as_str()
        .expect("records name their invocation");
    let lines = scene.host.guest_log(id);
    let said = |line: &serde_json::Value| {
        line["stream"] == "stderr"
            && line["message"]
                .as_str()
                .is_some_and(|m| m.contains("no way"))
    };
    assert!(lines.iter().any(said), "{lines:?}");
    scene.end();
}

#[test]
fn to_exit_is_a_trap_whatever_the_code() {
    let scene = Scene::new(hostile(""));
    scene.ends("/hostile/exit?n=0", &trap("exit status 0"));
    scene.ends("/hostile/exit?n=1", &trap("exit status 1"));
    scene.end();
}

#[test]
fn recursion_without_end_traps() {
    // A guest of our toolchain runs out of the stack in its memory, which lies
    // first in it; one that keeps none there out of the engine's.
    let plain = format!(
        "{MEMORY} {REALLOC}
        (func $deeper (param i32) (result i32)
            (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
        {}",
        handler(
            "(if (i32.gt_u (local.get 3) (i32.const 9))
                (then (i32.store (i32.const 64) (call $deeper (i32.const 0)))))"
        )
    );
    let scene = Scene::new(hostile("").function("plain", &http_component(&plain), ""));
    scene.ends("/hostile/recurse", &trap("out of bounds"));
    scene.ends("/plain/recurse", &trap("call stack exhausted"));
    scene.end();
}

#[test]
fn division_by_zero_traps() {
    let module = format!(
        "{MEMORY} {REALLOC} {}",
        handler(
            "(local.set $n (i32.sub (local.get 3) (i32.const 10)))
             (if (i32.eqz (local.get $n))
                (then (drop (i32.div_u (i32.const 1) (local.get $n)))))"
        )
    );
    let scene = Scene::new(Host::builder().function("zero", &http_component(&module), ""));
    // The length of the target is what it divides by, less ten.
    scene.ends("/zero/1234", &trap("divide by zero"));
    scene.end();
}

/// A module whose `realloc` does this from the second call on within an
/// invocation that brings a body.
fn with_realloc(body: &str) -> std::path::PathBuf {
    http_component(&format!(
        r#"{MEMORY}
        (global $next (mut i32) (i32.const 4096))
        (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (if (i32.eq (local.get 3) (i32.const 777)) (then {body}))
            (local.set $at
                (i32.and
                    (i32.add (global.get $next) (i32.sub (local.get 2) (i32.const 1)))
                    (i32.sub (i32.const 0) (local.get 2))))
            (global.set $next (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
        {}"#,
        handler("")
    ))
}

#[test]
fn what_the_host_calls_to_bring_an_event_is_under_the_same_limits() {
    let body = "x".repeat(777);
    let keys = "timeout = \"500ms\"";
    let spins = with_realloc("(loop (br 0))");
    let recurses = with_realloc(
        "(return (call $realloc (local.get 0) (local.get 1) (local.get 2) (local.get 3)))",
    );
    let lies = with_realloc("(return (i32.const 0x7fffffff))");
    let traps = with_realloc("unreachable");
    let scene = Scene::new(
        Host::builder()
            .function("spins", &spins, keys)
            .function("recurses", &recurses, keys)
            .function("lies", &lies, keys)
            .function("traps", &traps, keys),
    );
    scene.post_ends("/spins", &body, &TIMEOUT);
    scene.post_ends("/recurses", &body, &trap("call stack exhausted"));
    scene.post_ends("/lies", &body, &trap("realloc"));
    scene.post_ends("/traps", &body, &trap("unreachable"));
    scene.end();
}
