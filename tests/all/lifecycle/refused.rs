//! An `init` that fails refuses the deploy, by a message that names the function and
//! the reason; nothing is left of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_tests::{Failure, Host, guest};

use super::prepared;

/// The deploy is refused with these words, and leaves nothing in the cache but what may
/// stay there.
#[track_caller]
fn refused(prepare: &str, keys: &str, words: &[&str]) -> Failure {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let begun = Instant::now();
    let failure = prepared(prepare, keys)
        .args(["--state", state.to_str().unwrap()])
        .start_expecting_failure();
    assert_eq!(failure.code, 64, "{prepare}: {failure:?}");
    for word in words.iter().chain(&["function.prepared", "init"]) {
        assert!(failure.stderr.contains(word), "`{word}`: {failure:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{prepare}");
    nothing_half_made(&state);
    failure
}

#[track_caller]
fn nothing_half_made(state: &Path) {
    for entry in fs::read_dir(state.join("compiled")).unwrap() {
        let path = entry.unwrap().path();
        let ending = path.extension().unwrap_or_default().to_str().unwrap();
        assert!(["cwasm", "mac", "note"].contains(&ending), "{path:?}");
    }
}

#[test]
fn an_init_that_returns_an_error_refuses_the_deploy_with_it() {
    refused("err", "", &["its `init` failed: there are no words"]);
    // Where it runs in an instance: what it said before is in the log.
    let failure = refused(
        "say-and-err",
        "",
        &["its `init` failed: there are no words"],
    );
    assert!(failure.stdout.contains("looking for words"), "{failure:?}");
}

#[test]
fn an_init_that_traps_or_exits_refuses_the_deploy() {
    refused("trap", "", &["its `init` trapped: ", "unreachable"]);
    // WASI 0.2 tells no more of a status than that it is none of success.
    refused("exit", "", &["its `init` exited with status 1"]);
    // A panic is printed, so that one is seen in an instance.
    let failure = refused("panic", "", &["its `init` trapped: "]);
    assert!(failure.stdout.contains("no words"), "{failure:?}");
}

#[test]
fn an_init_that_loops_is_ended_by_its_fuel_or_its_time() {
    refused(
        "spin",
        "fuel = 1000000",
        &[
            "used up its budget of 10000000 units of fuel",
            "raise `fuel`",
        ],
    );
    refused("spin", "fuel = \"off\"", &["did not end within 10 seconds"]);
}

#[test]
fn an_init_that_loops_in_an_instance_is_ended_as_well() {
    refused("say-and-spin", "fuel = 1000000", &["units of fuel"]);
    refused("say-and-spin", "", &["did not end within 10 seconds"]);
}

#[test]
fn an_init_that_takes_memory_without_end_is_held_to_the_functions() {
    refused(
        "hoard",
        "memory = \"32MiB\"",
        &["its `init` needed more than its 32MiB of memory"],
    );
}

#[test]
fn a_refused_init_leaves_what_serves_as_it_was() {
    let manifest = |prepare: &str| {
        let component = guest("prepared").display().to_string();
        format!(
            "[function.prepared]\ncomponent = {component:?}\n\
             environment = {{ PREPARE = {prepare:?} }}\n\
             [[function.prepared.http]]\npath = \"/prepared\"\n"
        )
    };
    let host = Host::builder()
        .manifest(manifest("name"))
        .args(["--watch"])
        .start();
    let beside = host.manifest().with_extension("new");
    fs::write(&beside, manifest("err")).unwrap();
    fs::rename(&beside, host.manifest()).unwrap();
    dunlin_tests::eventually("the refusal is told", || {
        let lines = host.stderr();
        let told = |line: &&String| line.contains("its `init` failed: there are no words");
        lines.iter().find(told).map(drop)
    });
    assert_eq!(super::ask(&host)["what"], "prepared");
    nothing_half_made(&host.state());
    host.stop();
}
