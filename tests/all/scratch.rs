//! Scratch directories: each instance's own, within its quota, and gone with it.

use std::fs;
use std::time::Duration;

use dunlin_tests::{Builder, Host, eventually, example, guest};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::wire::Wire;
use crate::scene::{Ends, Scene, TIMEOUT, trap};
use crate::told::{does, ok, refused};

fn files(keys: &str) -> Builder {
    Host::builder().function("files", &guest("files"), keys)
}

/// The directories of instances that are there.
fn there(host: &Host) -> usize {
    let all = fs::read_dir(host.state().join("scratch")).expect("the host has made it");
    all.count()
}

/// Nothing is left, on the disk or on the account.
#[track_caller]
fn is_empty_soon(host: &Host) {
    eventually("all scratch directories are gone", || {
        (there(host) == 0).then_some(())
    });
    host.wait_for_metric("dunlin_scratch_used_bytes", &[], |used| used == 0.0);
}

const FULL: &str = "no storage space";
/// The same, where it is a stream that is written to: the C library of Rust's standard
/// library does not ask a stream for the reason, and says `EIO`.
const FULL_STREAM: &str = "uncategorized error";

#[test]
fn an_instance_has_it_to_itself_and_the_next_begins_with_none() {
    let host = files("scratch = \"1MiB\"").start();
    ok(&host, "/files/raw-directories", json!(["/tmp"]));
    assert_eq!(there(&host), 0, "who does not use it has none");
    ok(&host, "/files/list?path=/tmp", json!([]));
    ok(&host, "/files/write?path=/tmp/a&to=text", Value::Null);
    refused(&host, "/files/read?path=/tmp/a", "entity not found");
    ok(&host, "/files/list?path=/tmp", json!([]));
    ok(&host, "/files/sync?path=/tmp/a", Value::Null);
    is_empty_soon(&host);
    host.stop();
}

#[test]
fn under_reuse_it_stays_as_long_as_the_instance() {
    let host = files("scratch = \"1MiB\"\nisolation = \"reuse\"\nprovisioned = 0").start();
    for target in [
        "/files/write?path=/tmp/a&to=text",
        "/files/append?path=/tmp/a&to=+more",
        "/files/make-folder?path=/tmp/sub",
        "/files/make-folder?path=/tmp/gone",
        "/files/remove-folder?path=/tmp/gone",
        "/files/rename?path=/tmp/a&to=/tmp/sub/a",
        "/files/link?path=/tmp/sub/a&to=/tmp/b",
        "/files/write-at?path=/tmp/c&n=5&to=x",
    ] {
        ok(&host, target, Value::Null);
    }
    ok(&host, "/files/raw-symlink?path=d&to=sub/a", true);
    ok(&host, "/files/raw-touch?path=d", true);
    ok(&host, "/files/read?path=/tmp/d", "text more");
    ok(&host, "/files/read?path=/tmp/b", "text more");
    ok(&host, "/files/size?path=/tmp/c", 6);
    ok(
        &host,
        "/files/list?path=/tmp",
        json!(["b", "c", "d", "sub"]),
    );
    ok(&host, "/files/remove?path=/tmp/d", Value::Null);
    ok(&host, "/files/truncate?path=/tmp/b", Value::Null);
    ok(&host, "/files/size?path=/tmp/sub/a", 0);
    ok(&host, "/files/list?path=/tmp", json!(["b", "c", "sub"]));
    assert_eq!(there(&host), 1);
    // What is open in it is the instance's, too.
    let response = host.get("/files/fill-and-trap?path=/tmp/e&n=64");
    assert_eq!(response.status, 502, "{response:?}");
    ok(&host, "/files/list?path=/tmp", json!([]));
    host.stop();
}

#[test]
fn who_is_given_none_has_none() {
    let host = files("").start();
    ok(&host, "/files/raw-directories", json!([]));
    for what in ["read", "write", "list", "make-folder"] {
        let target = format!("/files/{what}?path=/tmp/a&to=x");
        assert!(does(&host, &target)["error"].is_string(), "{target}");
    }
    host.stop();
}

#[test]
fn the_quota_holds_whatever_the_guest_does() {
    let host = files("scratch = \"1MiB\"\ntimeout = \"20s\"").start();
    // All but the directory itself.
    ok(
        &host,
        "/files/fill?path=/tmp/a&n=4096",
        json!({ "wrote": 1008 << 10, "then": FULL_STREAM }),
    );
    ok(&host, "/files/set-size?path=/tmp/a&n=1032192", Value::Null);
    refused(&host, "/files/set-size?path=/tmp/a&n=1032193", FULL);
    ok(
        &host,
        "/files/write-at?path=/tmp/a&n=1032191&to=x",
        Value::Null,
    );
    refused(
        &host,
        "/files/write-at?path=/tmp/a&n=1032192&to=x",
        FULL_STREAM,
    );
    refused(
        &host,
        "/files/write-at?path=/tmp/a&n=4000000000&to=x",
        FULL_STREAM,
    );
    // 16 KiB for each file and each directory.
    ok(
        &host,
        "/files/make-many?path=/tmp&n=10000",
        json!({ "made": 32, "then": FULL }),
    );
    let nested = &does(&host, "/files/raw-nest?n=10000")["ok"];
    assert_eq!(nested["then"], "insufficient-space", "{nested}");
    assert!(nested["depth"].as_u64().is_some_and(|n| n > 50), "{nested}");
    // What is open counts, also without a name.
    ok(
        &host,
        "/files/hold-removed?path=/tmp/a&to=/tmp/b&n=768",
        json!([768 << 10, 240 << 10, 768 << 10]),
    );
    is_empty_soon(&host);
    host.stop();
}

#[test]
fn nothing_passes_between_it_and_a_mounted_directory() {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    fs::write(folder.path().join("a"), "in a").unwrap();
    let host = files("scratch = \"1MiB\"\nisolation = \"reuse\"\nprovisioned = 0")
        .manifest(format!(
            "[host.mount.data]\npath = {:?}\naccess = \"read-write\"\n\
             [[function.files.mount]]\nfrom = \"data\"\nto = \"/data\"\naccess = \"read-write\"",
            folder.path().display().to_string()
        ))
        .start();
    ok(&host, "/files/raw-directories", json!(["/data", "/tmp"]));
    ok(&host, "/files/write?path=/tmp/b&to=in+b", Value::Null);
    for (what, from, to) in [
        ("rename", "/data/a", "/tmp/a"),
        ("link", "/data/a", "/tmp/a"),
        ("rename", "/tmp/b", "/data/b"),
        ("link", "/tmp/b", "/data/b"),
    ] {
        let target = format!("/files/{what}?path={from}&to={to}");
        refused(&host, &target, "cross-device link or rename");
    }
    for what in ["rename", "link"] {
        let target = format!("/files/raw-{what}-across?path=b&to=b");
        refused(&host, &target, "cross-device");
    }
    ok(&host, "/files/list?path=/data", json!(["a"]));
    ok(&host, "/files/list?path=/tmp", json!(["b"]));
    // Nor does a path or a link lead out.
    for path in [
        "/tmp/../data/a",
        "/tmp/../../lock",
        "/tmp/../of-1",
        "/etc/passwd",
    ] {
        let error = &does(&host, &format!("/files/read?path={path}"))["error"];
        assert!(
            error.is_string() || path == "/tmp/../data/a",
            "{path}: {error}"
        );
    }
    host.stop();
}

#[test]
fn all_functions_together_have_the_hosts_budget_and_one_has_half() {
    let host =
        files("scratch = \"1MiB\"\nisolation = \"reuse\"\nprovisioned = 0\ntimeout = \"60s\"")
            .manifest("[host]\nscratch-budget = \"3MiB\"")
            .function("other", &guest("files"), "scratch = \"2MiB\"")
            .start();
    assert_eq!(
        host.metric("dunlin_scratch_budget_bytes", &[]),
        Some(f64::from(3 << 20))
    );
    let mut wires = Vec::new();
    for used in [1 << 20, 3 << 19] {
        let mut wire = Wire::connect(host.http.address());
        wire.send("GET /files/fill-and-wait?path=/tmp/a&n=4096 HTTP/1.1\r\nhost: a\r\n\r\n");
        host.wait_for_metric("dunlin_scratch_used_bytes", &[], |n| n == f64::from(used));
        wires.push(wire);
    }
    // The other has the rest, though less than its quota.
    ok(
        &host,
        "/other/fill?path=/tmp/a&n=4096",
        json!({ "wrote": (1 << 20) + (512 << 10) - (16 << 10), "then": FULL_STREAM }),
    );
    // Clients that go away take it along.
    drop(wires);
    is_empty_soon(&host);
    host.stop();
}

#[test]
fn it_goes_however_an_invocation_ends() {
    let scene = Scene::new(files("scratch = \"16MiB\"\ntimeout = \"2s\"").function(
        "ok",
        &example("hello"),
        "",
    ));
    let host = &scene.host;
    scene.ends(
        "/files/fill-and-trap?path=/tmp/a&n=64",
        &trap("unreachable"),
    );
    let timeout = Ends {
        message: TIMEOUT.message,
        ..TIMEOUT
    };
    scene.ends("/files/fill-and-wait?path=/tmp/a&n=64", &timeout);
    // In the midst of the work.
    scene.ends("/files/fill-and-wait?path=/tmp/a&n=4000000", &timeout);
    let mut wire = Wire::connect(host.http.address());
    wire.send("GET /files/fill-and-wait?path=/tmp/a&n=64 HTTP/1.1\r\nhost: a\r\n\r\n");
    host.wait_for_metric("dunlin_scratch_used_bytes", &[], |n| n > 65536.0);
    drop(wire);
    is_empty_soon(host);
    scene.end();
}

#[test]
fn a_large_tree_is_emptied_beside_the_cores() {
    let keys = "scratch = \"64MiB\"\ntimeout = \"60s\"";
    let scene = Scene::new(files(keys).manifest("[host]\nscratch-budget = \"256MiB\""));
    for _ in 0..2 {
        let many = scene.beside("/files/make-many?path=/tmp&n=1500", "");
        assert_eq!(many.json()["ok"]["made"], 1500, "{many:?}");
        is_empty_soon(&scene.host);
        let deep = scene.beside("/files/raw-nest?n=3000", "");
        assert_eq!(deep.json()["ok"]["depth"], 3000, "{deep:?}");
        is_empty_soon(&scene.host);
    }
    scene.end();
}

#[test]
fn a_budget_larger_than_the_disk_is_told_of() {
    let said = |lines: Vec<Value>| {
        let text = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
        let told = |line: &Value| text(line).contains("may fill the disk");
        lines.iter().any(told)
    };
    let most = "[host]\nscratch-budget = \"16384GiB\"";
    let host = files("scratch = \"1MiB\"").manifest(most).start();
    assert!(said(host.stop()));
    let host = files("").manifest(most).start();
    assert!(!said(host.stop()), "nobody uses it");
}

#[test]
fn what_a_crash_leaves_goes_at_the_next_start() {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let state = folder.path().join("state").display().to_string();
    let keys = "scratch = \"1MiB\"\nisolation = \"reuse\"\nprovisioned = 0";
    let start = || files(keys).args(["--state", &state]).start();
    let mut host = start();
    ok(&host, "/files/write?path=/tmp/a&to=text", Value::Null);
    let scratch = folder.path().join("state/scratch");
    let left = fs::read_dir(&scratch).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read_to_string(left.path().join("a")).unwrap(), "text");
    host.signal(Signal::KILL);
    host.wait_for_exit(Duration::from_secs(20));
    assert!(left.path().exists());
    // Somebody plays a trick meanwhile.
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "").unwrap();
    std::os::unix::fs::symlink(&outside, left.path().join("link")).unwrap();
    std::os::unix::fs::symlink(&outside, scratch.join("link")).unwrap();
    let host = start();
    ok(&host, "/files/list?path=/tmp", json!([]));
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 1);
    assert!(outside.join("kept").exists());
    host.stop();
    assert_eq!(
        fs::read_dir(&scratch).unwrap().count(),
        0,
        "as after each run"
    );
}
