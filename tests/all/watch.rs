//! `dunlin up --watch`: what changes is built and swapped in, and no request
//! fails by it.

use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin_tests::{Host, dunlin, repository, target_dir};
use tempfile::TempDir;

use crate::drain::Load;

/// Where packages outside of the workspace are built: kept, so that the next
/// run is quick.
pub(crate) fn scratch_target() -> PathBuf {
    target_dir().join("tmp").join("scratch")
}

/// A package of `dunlin new`, in a folder of its own, on the versions of crates
/// that the workspace uses.
pub(crate) fn new_package(template: &str, name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(dunlin())
        .args(["new", template, name])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let package = folder.path().join(name);
    std::fs::copy(repository().join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    (folder, package)
}

/// Saves as editors do: a new file in place of the old.
fn save(path: &Path, text: &str) {
    let beside = path.with_extension("new~");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn said(host: &Host, text: &str) -> usize {
    host.stderr()
        .iter()
        .filter(|line| line.contains(text))
        .count()
}

#[test]
fn a_change_is_swapped_in_under_load_and_a_mistake_is_not() {
    let (_folder, package) = new_package("http", "greeter");
    let source = package.join("src/lib.rs");
    let original = std::fs::read_to_string(&source).unwrap();
    let host = Host::builder()
        .folder(&package)
        .args(["--watch"])
        .env("CARGO_TARGET_DIR", scratch_target().to_str().unwrap())
        .start();
    let greeting = || host.get("/hello/ada").text();
    assert_eq!(greeting(), "Hello, ada!\n");
    let load = Load::start(host.http.address(), 6, "/hello/load");
    load.wait_for_more(100);

    // The source.
    save(
        &source,
        &original.replace("Hello, {name}!", "Goodbye, {name}!"),
    );
    let building = std::time::Duration::from_secs(300);
    dunlin_tests::within(building, "the new source answers", || {
        (greeting() == "Goodbye, ada!\n").then_some(())
    });
    load.wait_for_more(100);

    // A mistake.
    save(&source, "this is no Rust");
    dunlin_tests::within(building, "the mistake is reported", || {
        (said(&host, "what was serving goes on serving") == 1).then_some(())
    });
    // Progress, and so what the compiler says, goes to stdout.
    host.wait_for_log(|line| {
        line["raw"]
            .as_str()
            .is_some_and(|text| text.contains("src/lib.rs:1"))
    });
    assert_eq!(greeting(), "Goodbye, ada!\n");
    load.wait_for_more(100);

    // And its repair.
    save(
        &source,
        &original.replace("Hello, {name}!", "Welcome, {name}!"),
    );
    dunlin_tests::within(building, "the repair answers", || {
        (greeting() == "Welcome, ada!\n").then_some(())
    });

    // The manifest: a route more.
    assert_eq!(host.get("/extra/ada").status, 404);
    let manifest = package.join("dunlin.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    save(
        &manifest,
        &format!("{text}\n[[function.greeter.http]]\npath = \"/extra/{{name}}\"\n"),
    );
    dunlin_tests::within(building, "the new route answers", || {
        (host.get("/extra/ada").status == 200).then_some(())
    });
    assert_eq!(host.get("/extra/ada").text(), "Welcome, ada!\n");

    // A manifest that is wrong.
    let before = said(&host, "what was serving goes on serving");
    save(&manifest, &format!("{text}\nmemroy = \"1MiB\"\n"));
    dunlin_tests::within(building, "the key is reported", || {
        (said(&host, "memroy") > 0).then_some(())
    });
    assert_eq!(said(&host, "what was serving goes on serving"), before + 1);
    assert_eq!(host.get("/extra/ada").status, 200);

    load.wait_for_more(100);
    assert_eq!(
        load.stop(),
        Vec::<String>::new(),
        "no request failed by any of it"
    );
    assert!(
        host.log()
            .iter()
            .all(|line| line["kind"] != "invocation" || line["outcome"] == "ok")
    );
    host.stop();
}

#[test]
fn a_signal_in_the_middle_of_a_build_ends_it() {
    let (_folder, package) = new_package("http", "interrupted");
    let host = Host::builder()
        .folder(&package)
        .args(["--watch"])
        .env("CARGO_TARGET_DIR", scratch_target().to_str().unwrap())
        .start();
    // A build script that goes on until its file is gone, at most a minute.
    let gate = package.join("gate");
    let script = r#"
fn main() {
    std::fs::write("gate", "").unwrap();
    for _ in 0..600 {
        if !std::path::Path::new("gate").exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
"#;
    save(&package.join("build.rs"), script);
    dunlin_tests::within(std::time::Duration::from_secs(300), "it builds", || {
        gate.exists().then_some(())
    });
    assert_eq!(host.get("/hello/ada").text(), "Hello, ada!\n");
    host.stop();
}

#[test]
fn a_change_during_the_first_build_is_swapped_in() {
    let (_folder, package) = new_package("http", "overtaken");
    // The first build changes what the package is made from, as an author may meanwhile.
    let script = r#"
fn main() {
    if !std::path::Path::new("built-once").exists() {
        std::fs::write("built-once", "").unwrap();
        std::fs::write("src/late.txt", "").unwrap();
    }
}
"#;
    save(&package.join("build.rs"), script);
    let host = Host::builder()
        .folder(&package)
        .args(["--watch"])
        .env("CARGO_TARGET_DIR", scratch_target().to_str().unwrap())
        .start();
    dunlin_tests::within(
        std::time::Duration::from_secs(300),
        "it builds anew",
        || (said(&host, "swapped in: overtaken") > 0).then_some(()),
    );
    host.stop();
}

#[test]
fn a_file_that_the_build_reads_is_watched_wherever_it_is() {
    let (folder, package) = new_package("http", "reader");
    let words = folder.path().join("words.txt");
    save(&words, "Well met");
    let source = package.join("src/lib.rs");
    let text = std::fs::read_to_string(&source).unwrap();
    let reading = text.replace("\"Hello, {name}!", "\"{}, {name}!");
    let reading = reading.replace(
        "{}, {name}!\\n\"",
        "{}, {name}!\\n\", include_str!(\"../../words.txt\")",
    );
    assert!(reading.contains("include_str"), "{reading}");
    save(&source, &reading);
    let host = Host::builder()
        .folder(&package)
        .args(["--watch"])
        .env("CARGO_TARGET_DIR", scratch_target().to_str().unwrap())
        .start();
    let greeting = || host.get("/hello/ada").text();
    assert_eq!(greeting(), "Well met, ada!\n");
    let building = std::time::Duration::from_secs(300);

    save(&words, "Good day");
    dunlin_tests::within(building, "the new words are in", || {
        (greeting() == "Good day, ada!\n").then_some(())
    });
    let swaps = || said(&host, "swapped in: reader");
    dunlin_tests::within(building, "it says so", || (swaps() == 1).then_some(()));

    // As `cargo update` does.
    let lock = package.join("Cargo.lock");
    let text = std::fs::read_to_string(&lock).unwrap();
    save(&lock, &format!("{text}\n"));
    dunlin_tests::within(building, "the versions are asked for", || {
        (swaps() > 1).then_some(())
    });
    host.stop();
}
