//! Directories of the host: what a function does in those that it mounts, and
//! that it gets no further.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dunlin_tests::{Builder, Host, eventually, guest};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::Scene;
use crate::told::{does, ok, refused};

/// A folder with a directory `data` to mount, and a file beside it that is none of
/// the guest's business.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    fs::create_dir_all(folder.path().join("data/sub")).unwrap();
    for (name, text) in [
        ("data/a", "in a"),
        ("data/sub/b", "in b"),
        ("outside", "secret"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The guest `files` with `data` of the folder at `/data`.
fn files(folder: &Path, access: &str, keys: &str) -> Builder {
    mounting(Host::builder(), "files", access, keys).manifest(format!(
        "[host.mount.data]\npath = {:?}\naccess = \"read-write\"",
        folder.join("data").display().to_string()
    ))
}

fn mounting(builder: Builder, name: &str, access: &str, keys: &str) -> Builder {
    builder
        .function(name, &guest("files"), keys)
        .manifest(format!(
            "[[function.{name}.mount]]\nfrom = \"data\"\nto = \"/data\"\naccess = {access:?}"
        ))
}

#[test]
fn a_function_reads_and_lists_what_it_mounts() {
    let folder = folder();
    let host = files(folder.path(), "read-only", "").start();
    ok(&host, "/files/read?path=/data/a", "in a");
    ok(&host, "/files/read?path=data/sub/../a", "in a");
    ok(&host, "/files/read?path=/data/sub/b", "in b");
    ok(&host, "/files/list?path=/data", json!(["a", "sub"]));
    ok(&host, "/files/size?path=/data/a", 4);
    refused(&host, "/files/read?path=/data/c", "entity not found");
    // What others write there is seen.
    fs::write(folder.path().join("data/c"), "new").unwrap();
    ok(&host, "/files/read?path=/data/c", "new");
    host.stop();
}

#[test]
fn a_path_counts_from_the_manifests_folder_and_read_only_is_the_default() {
    let folder = folder();
    let manifest = format!(
        "[host.mount.here]\npath = \"data\"\n[function.files]\ncomponent = {:?}\n\
         [[function.files.http]]\npath = \"/files/{{*rest}}\"\n\
         [[function.files.mount]]\nfrom = \"here\"\nto = \"/etc/app\"",
        guest("files").display().to_string()
    );
    fs::write(folder.path().join("dunlin.toml"), manifest).unwrap();
    let host = Host::builder().folder(folder.path()).start();
    ok(&host, "/files/read?path=/etc/app/a", "in a");
    ok(&host, "/files/raw-directories", json!(["/etc/app"]));
    refused(&host, "/files/write?path=/etc/app/a", "permission denied");
    host.stop();
}

#[test]
fn the_state_directory_is_within_no_guests_reach() {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let state = folder.path().display().to_string();
    for (path, args) in [
        (".", vec![]),
        ("/", vec![]),
        (&*format!("{state}/data"), vec!["--state", &state]),
    ] {
        let failure = Host::builder()
            .manifest(format!("[host.mount.here]\npath = {path:?}"))
            .function("files", &guest("files"), "")
            .manifest("[[function.files.mount]]\nfrom = \"here\"\nto = \"/data\"")
            .args(args)
            .start_expecting_failure();
        let what = "lie within each other; mount another directory";
        assert!(failure.stderr.contains(what), "{path}: {failure:?}");
        assert_eq!(failure.code, 64, "{path}: {failure:?}");
    }
}

#[test]
fn what_is_written_is_there_and_what_is_removed_is_gone() {
    let folder = folder();
    let host = files(folder.path(), "read-write", "").start();
    let data = folder.path().join("data");
    let read = |name: &str| fs::read_to_string(data.join(name)).unwrap();
    for target in [
        "/files/write?path=/data/new&to=text",
        "/files/append?path=/data/new&to=+more",
        "/files/rename?path=/data/a&to=/data/sub/a",
        "/files/link?path=/data/new&to=/data/same",
        "/files/truncate?path=/data/sub/b",
        "/files/make-folder?path=/data/made",
        "/files/make-folder?path=/data/gone",
        "/files/remove-folder?path=/data/gone",
    ] {
        ok(&host, target, Value::Null);
    }
    ok(&host, "/files/raw-create?path=empty", true);
    ok(&host, "/files/raw-touch?path=same", true);
    ok(&host, "/files/raw-symlink?path=to-same&to=same", true);
    ok(&host, "/files/read?path=/data/to-same", "text more");
    assert_eq!(read("new"), "text more");
    assert_eq!(read("sub/a"), "in a");
    assert_eq!(read("sub/b"), "");
    assert_eq!(read("empty"), "");
    let list = json!(["empty", "made", "new", "same", "sub", "to-same"]);
    ok(&host, "/files/list?path=/data", list);
    ok(&host, "/files/remove?path=/data/new", Value::Null);
    assert!(!data.join("new").exists());
    host.stop();
}

#[test]
fn nothing_is_changed_in_what_may_only_be_read() {
    let folder = folder();
    let host = files(folder.path(), "read-only", "").start();
    for target in [
        "/files/write?path=/data/a&to=text",
        "/files/write?path=/data/new&to=text",
        "/files/append?path=/data/a&to=text",
        "/files/truncate?path=/data/a",
        "/files/rename?path=/data/a&to=/data/c",
        "/files/link?path=/data/a&to=/data/c",
        "/files/remove?path=/data/a",
        "/files/make-folder?path=/data/made",
        "/files/remove-folder?path=/data/sub",
    ] {
        let error = &does(&host, target)["error"];
        assert!(error.is_string(), "{target}: {error}");
    }
    for what in [
        "raw-open-to-write",
        "raw-create",
        "raw-touch",
        "raw-symlink",
    ] {
        refused(&host, &format!("/files/{what}?path=a"), "not-permitted");
    }
    ok(&host, "/files/list?path=/data", json!(["a", "sub"]));
    assert_eq!(
        fs::read_to_string(folder.path().join("data/a")).unwrap(),
        "in a"
    );
    host.stop();
}

#[test]
fn no_path_and_no_link_leads_out_of_the_directory() {
    let folder = folder();
    let data = folder.path().join("data");
    let outside = folder.path().join("outside");
    symlink("sub/b", data.join("inside")).unwrap();
    symlink("../outside", data.join("up")).unwrap();
    symlink(&outside, data.join("absolute")).unwrap();
    symlink("../..", data.join("sub/folder")).unwrap();
    symlink("/proc/self/root", data.join("magic")).unwrap();
    let host = files(folder.path(), "read-write", "").start();
    ok(&host, "/files/read?path=/data/inside", "in b");
    ok(&host, "/files/raw-open?path=sub/../a", true);
    for path in [
        "..",
        "../outside",
        "sub/../../outside",
        "up",
        "absolute",
        "sub/folder",
        "sub/folder/outside",
        "magic",
        "magic/etc/passwd",
        "/",
        "/etc/passwd",
        &outside.display().to_string(),
    ] {
        for what in ["open", "open-to-write", "create", "touch"] {
            let target = format!("/files/raw-{what}?path={path}");
            let error = &does(&host, &target)["error"];
            assert!(error.is_string(), "{target}: {error}");
        }
        // To the guest's own library `/data//` is `/data`.
        let simply = ["read", "list", "size", "write", "remove"];
        for what in simply.iter().filter(|_| path != "/") {
            let target = format!("/files/{what}?path=/data/{path}");
            let error = &does(&host, &target)["error"];
            // A link itself may go.
            assert!(error.is_string() || *what == "remove", "{target}: {error}");
        }
    }
    for what in ["read", "list"] {
        for path in ["/etc/passwd", "/", "..", "/data/../etc/passwd"] {
            let target = format!("/files/{what}?path={path}");
            assert!(does(&host, &target)["error"].is_string(), "{target}");
        }
    }
    // Nor does the guest make one that does.
    let made = does(&host, "/files/raw-symlink?path=mine&to=/etc/passwd");
    assert!(made["error"].is_string(), "{made}");
    assert_eq!(fs::read_to_string(outside).unwrap(), "secret");
    host.stop();
}

/// Between the look at a path and the open, a directory becomes a link that leads out, and
/// back, again and again.
#[test]
fn a_directory_that_turns_into_a_link_meanwhile_does_not_lead_out() {
    let folder = folder();
    let data = folder.path().join("data");
    fs::create_dir(data.join("turning")).unwrap();
    fs::write(data.join("turning/outside"), "within").unwrap();
    symlink("..", data.join("link")).unwrap();
    let host = files(folder.path(), "read-write", "timeout = \"60s\"").start();
    let ends = Arc::new(AtomicBool::new(false));
    let turning = std::thread::spawn({
        let (ends, data) = (Arc::clone(&ends), data.clone());
        move || {
            let mut turns = 0_u64;
            while !ends.load(Ordering::Relaxed) {
                let (one, other) = (data.join("turning"), data.join("link"));
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                turns += 1;
            }
            turns
        }
    });
    let (mut within, mut failed) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(30);
    while (within < 5 || failed < 5) && Instant::now() < deadline {
        let got = &does(&host, "/files/read-again?path=/data/turning/outside&n=200")["ok"];
        for read in got["read"].as_array().unwrap() {
            assert!(
                matches!(read.as_str(), Some("within" | "mine" | "")),
                "{got}"
            );
            within += 1;
        }
        failed += got["failed"].as_u64().unwrap();
        does(
            &host,
            "/files/write-again?path=/data/turning/outside&to=mine&n=50",
        );
        does(&host, "/files/raw-create?path=turning/made");
        does(&host, "/files/make-folder?path=/data/turning/folder");
        does(&host, "/files/rename?path=/data/sub/b&to=/data/turning/b");
    }
    ends.store(true, Ordering::Relaxed);
    assert!(turning.join().unwrap() > 100, "it turned");
    assert!(
        within >= 5 && failed >= 5,
        "both were met: {within}, {failed}"
    );
    assert_eq!(
        fs::read_to_string(folder.path().join("outside")).unwrap(),
        "secret"
    );
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["data", "outside"]);
    host.stop();
}

#[test]
fn who_mounts_nothing_sees_nothing() {
    let folder = folder();
    let host = files(folder.path(), "read-write", "")
        .function("other", &guest("files"), "")
        .start();
    ok(&host, "/files/raw-directories", json!(["/data"]));
    ok(&host, "/other/raw-directories", json!([]));
    assert!(does(&host, "/other/read?path=/data/a")["error"].is_string());
    host.stop();
}

#[test]
fn a_directory_that_takes_the_place_of_a_mounted_one_is_not_followed() {
    let folder = folder();
    let host = files(folder.path(), "read-only", "").start();
    ok(&host, "/files/read?path=/data/a", "in a");
    let data = folder.path().join("data");
    fs::rename(&data, folder.path().join("elsewhere")).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a"), "another").unwrap();
    for _ in 0..5 {
        ok(&host, "/files/read?path=/data/a", "in a");
    }
    host.stop();
}

#[test]
fn another_mount_is_another_deployment() {
    let folder = folder();
    fs::create_dir(folder.path().join("second")).unwrap();
    fs::write(folder.path().join("second/a"), "in the second").unwrap();
    let host = files(folder.path(), "read-only", "")
        .args(["--watch"])
        .start();
    ok(&host, "/files/read?path=/data/a", "in a");
    let text = fs::read_to_string(host.manifest()).unwrap();
    fs::write(
        host.manifest(),
        text.replace(
            "/data\"\naccess = \"read-write",
            "/second\"\naccess = \"read-write",
        ),
    )
    .unwrap();
    eventually("the second directory is mounted", || {
        let seen = does(&host, "/files/read?path=/data/a");
        (seen["ok"] == "in the second").then_some(())
    });
    assert!(
        !host.stderr().iter().any(|line| line.contains("next start")),
        "it needs none: {:?}",
        host.stderr()
    );
    host.stop();
}

#[test]
fn pipes_are_not_opened_and_hold_nobody() {
    let folder = folder();
    let pipe = folder.path().join("data/pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).expect("pipes can be made");
    symlink("pipe", folder.path().join("data/to-pipe")).unwrap();
    let scene = Scene::new(files(folder.path(), "read-write", "timeout = \"5s\""));
    let host = &scene.host;
    let begun = Instant::now();
    // More than there are threads for files.
    for _ in 0..20 {
        for path in ["pipe", "to-pipe"] {
            for what in ["open", "open-to-write", "create", "touch"] {
                let target = format!("/files/raw-{what}?path={path}");
                refused(host, &target, "not-permitted");
            }
            for what in ["read", "write", "append", "truncate"] {
                let target = format!("/files/{what}?path=/data/{path}");
                refused(host, &target, "permission denied");
            }
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    let list = json!(["a", "pipe", "sub", "to-pipe"]);
    ok(host, "/files/list?path=/data", list);
    ok(host, "/files/read?path=/data/a", "in a");
    ok(host, "/files/size?path=/data/pipe", 0);
    ok(host, "/files/remove?path=/data/pipe", Value::Null);
    scene.end();
}

#[test]
fn what_a_guest_holds_open_is_bounded_and_comes_back() {
    let folder = folder();
    fs::write(folder.path().join("data/large"), vec![b'x'; 1 << 20]).unwrap();
    let builder = files(folder.path(), "read-only", "timeout = \"20s\"");
    let scene = Scene::new(mounting(builder, "other", "read-only", ""));
    let host = &scene.host;
    let before = host.rss();
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", host.pid()))
            .unwrap()
            .count()
    };
    let level = open();
    for (target, least) in [
        ("/files/raw-open-many?path=a&n=4000", 2000),
        ("/files/raw-list-many?n=4000", 2000),
        // One of them is the file.
        ("/files/raw-read-much?path=large&n=4000", 2000),
    ] {
        for _ in 0..3 {
            let got = &does(host, target)["ok"];
            assert_eq!(got["then"], "quota", "{target}: {got}");
            let count = got["got"].as_u64().unwrap_or(0);
            assert!((least..=2048).contains(&count), "{target}: {got}");
            ok(host, "/other/read?path=/data/a", "in a");
            eventually("all is closed", || (open() <= level + 16).then_some(()));
        }
    }
    let after = host.rss();
    assert!(after < before + (256 << 20), "{before}, then {after}");
    scene.end();
}

#[test]
fn buffers_of_files_are_part_of_the_memory_budget() {
    let folder = folder();
    fs::write(folder.path().join("data/large"), vec![b'x'; 1 << 20]).unwrap();
    let builder = files(
        folder.path(),
        "read-only",
        "timeout = \"20s\"\nmemory = \"8MiB\"",
    );
    let host = builder
        .manifest("[host]\nmemory-budget = \"64MiB\"")
        .start();
    let got = &does(&host, "/files/raw-read-much?path=large&n=2000")["ok"];
    assert_eq!(got["then"], "insufficient-memory", "{got}");
    assert!(
        got["got"].as_u64().is_some_and(|n| n > 500 && n < 1024),
        "{got}"
    );
    ok(&host, "/files/read?path=/data/a", "in a");
    host.stop();
}

#[test]
fn a_large_directory_is_listed_whole_and_a_piece_at_a_time() {
    let folder = folder();
    let many = folder.path().join("data/sub");
    for n in 0..20_000 {
        fs::write(many.join(format!("{n:0200}")), "").unwrap();
    }
    let host = files(folder.path(), "read-only", "timeout = \"30s\"").start();
    ok(&host, "/files/count?path=/data/sub", 20_001);
    host.stop();
}

#[test]
fn what_was_large_and_is_removed_is_freed_beside_the_cores() {
    let folder = folder();
    let scene = Scene::new(files(folder.path(), "read-write", "timeout = \"30s\""));
    let target = "/files/fill-and-remove?path=/data/large&to=256";
    let response = scene.beside(target, "");
    assert_eq!(response.json(), json!({ "ok": null }));
    let open = || {
        let all = fs::read_dir(format!("/proc/{}/fd", scene.host.pid())).unwrap();
        all.flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|path| path.display().to_string().contains("/large"))
    };
    eventually("the file is closed", || (!open()).then_some(()));
    scene.end();
}
