//! `new`, `build` and `invoke`: from nothing to an answer.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use dunlin_tests::{Host, dunlin};

use super::{run, stderr, stdout};
use crate::http::{PROBE, up};
use crate::watch::{new_package, scratch_target};

/// Cargo, as an author runs it.
fn cargo(package: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO"))
        .args(args)
        .current_dir(package)
        .env("CARGO_TARGET_DIR", scratch_target())
        .output()
        .expect("cargo runs: it runs the tests")
}

/// `dunlin invoke` against a host.
fn invoke(host: &Host, args: &[&str]) -> Output {
    let url = format!("http://{}", host.admin.address());
    let state = host.state();
    let mut all = vec!["invoke", "--host", &url, "--state", state.to_str().unwrap()];
    all.extend_from_slice(args);
    run(host.folder(), &all)
}

#[test]
fn a_new_http_function_builds_and_answers() {
    let (_folder, package) = new_package("http", "brand-new");
    let built = cargo(&package, &["build", "--target", "wasm32-wasip2"]);
    assert!(built.status.success(), "{}", stderr(&built));
    let tested = cargo(&package, &["test"]);
    assert!(
        tested.status.success(),
        "its own tests pass: {}",
        stderr(&tested)
    );
    assert!(stdout(&tested).contains("1 passed"), "{}", stdout(&tested));

    let host = Host::builder()
        .folder(&package)
        .env("CARGO_TARGET_DIR", scratch_target().to_str().unwrap())
        .start();
    assert_eq!(host.get("/hello/ada").text(), "Hello, ada!\n");
    host.stop();
}

#[test]
fn a_new_invoke_function_builds_and_answers_the_command_line() {
    let (_folder, package) = new_package("invoke", "brand-new-too");
    let built = cargo(&package, &["build", "--target", "wasm32-wasip2"]);
    assert!(built.status.success(), "{}", stderr(&built));

    let host = Host::builder()
        .folder(&package)
        .env("CARGO_TARGET_DIR", scratch_target().to_str().unwrap())
        .start();
    let output = invoke(&host, &["brand-new-too", "--data", "{\"name\":\"ada\"}"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(answer, serde_json::json!({ "message": "Hello, ada!" }));

    // Its failure is not ours: another exit code, and the error as its answer.
    let output = invoke(&host, &["brand-new-too", "--data", "{\"name\":\"\"}"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("the name is empty"),
        "{}",
        stdout(&output)
    );
    host.stop();
}

#[test]
fn build_prints_where_the_components_are() {
    let (_folder, package) = new_package("http", "built-alone");
    let build = || {
        Command::new(dunlin())
            .arg("build")
            .current_dir(&package)
            .env("CARGO_TARGET_DIR", scratch_target())
            .output()
            .unwrap()
    };
    let output = build();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let line = stdout(&output);
    let component = line
        .trim_end()
        .strip_prefix("built-alone: ")
        .expect("NAME: COMPONENT");
    assert_eq!(
        std::fs::read(component).unwrap()[..8],
        *b"\0asm\x0d\0\x01\0"
    );

    std::fs::write(package.join("src/lib.rs"), "this is no Rust").unwrap();
    let output = build();
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(1), ""),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("src/lib.rs:1"),
        "what the compiler says: {}",
        stderr(&output)
    );
}

#[test]
fn new_leaves_alone_what_is_there() {
    let (folder, _) = new_package("http", "mine");
    let output = run(folder.path(), &["new", "invoke", "mine"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("mine") && stderr(&output).contains("choose another name"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn invoke_takes_its_event_from_wherever_it_is() {
    let host = up(PROBE);
    std::fs::write(host.folder().join("event.json"), "{\"from\":\"a file\"}").unwrap();
    for (data, answer) in [
        ("{\"from\":\"the line\"}", "{\"from\":\"the line\"}\n"),
        ("@event.json", "{\"from\":\"a file\"}\n"),
    ] {
        let output = invoke(&host, &["probe", "--data", data]);
        assert_eq!(
            (output.status.code(), stdout(&output).as_str()),
            (Some(0), answer),
            "{}",
            stderr(&output)
        );
    }
    let mut child = Command::new(dunlin())
        .args([
            "invoke",
            "probe:$LATEST",
            "--data",
            "@-",
            "--host",
            &format!("http://{}", host.admin.address()),
            "--state",
        ])
        .arg(host.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"[1]").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(0), "[1]\n")
    );
    assert_eq!(
        stdout(&invoke(&host, &["probe"])),
        "{}\n",
        "without one it is an empty object"
    );
    let output = invoke(&host, &["probe", "--data", "@not-there.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("not-there.json"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn invoke_shows_the_log_and_tells_failures_apart() {
    let host = up(PROBE);
    let output = invoke(
        &host,
        &[
            "probe",
            "--log",
            "--data",
            r#"{"do":"say","lines":["out loud"]}"#,
        ],
    );
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(0), "null\n")
    );
    assert!(
        stderr(&output).contains("START RequestId: ") && stderr(&output).contains("out loud\n"),
        "{}",
        stderr(&output)
    );

    let output = invoke(
        &host,
        &[
            "probe",
            "--data",
            r#"{"do":"fail","name":"E","message":"why"}"#,
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stdout(&output).contains("\"errorType\":\"E\""),
        "{}",
        stdout(&output)
    );
    let output = invoke(&host, &["probe", "--data", r#"{"do":"panic"}"#]);
    assert_eq!(output.status.code(), Some(2));

    let output = invoke(&host, &["probe", "--type", "DryRun"]);
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(0), "")
    );
    let output = invoke(&host, &["nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("404 ResourceNotFoundException"),
        "{}",
        stderr(&output)
    );
    let output = invoke(&host, &["probe:7"]);
    assert_eq!(output.status.code(), Some(1));
    let output = invoke(&host, &["probe", "--data", "{"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("InvalidRequestContentException"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn invoke_without_key_or_host_says_what_to_do() {
    let host = up(PROBE);
    let url = format!("http://{}", host.admin.address());
    let nowhere = tempfile::tempdir().unwrap();
    let output = run(nowhere.path(), &["invoke", "probe", "--host", &url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("admin.key") && stderr(&output).contains("--state"),
        "{}",
        stderr(&output)
    );
    host.stop();
    let output = run(nowhere.path(), &["invoke", "probe", "--host", &url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&url) && stderr(&output).contains("dunlin up"),
        "{}",
        stderr(&output)
    );
}
