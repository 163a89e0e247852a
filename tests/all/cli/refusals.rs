//! Manifests and components that are wrong: refused before anything listens,
//! each with file, key, value and remedy, all at once.

use dunlin_tests::{Failure, Host, example, guest, wat_component};

use super::{run, stderr, stdout};
use crate::http::PROBE;
use crate::watch::{new_package, scratch_target};

#[track_caller]
fn refused(manifest: &str, files: &[(&str, &[u8])]) -> Failure {
    let mut builder = Host::builder().manifest(manifest);
    for (name, contents) in files {
        builder = builder.file(name, *contents);
    }
    let failure = builder.start_expecting_failure();
    assert_eq!(failure.code, 64, "{failure:?}");
    assert!(!failure.stderr.contains("listening"), "{failure:?}");
    failure
}

#[track_caller]
fn says(failure: &Failure, parts: &[&str]) {
    let fits = |line: &str| parts.iter().all(|part| line.contains(part));
    assert!(
        failure.stderr.lines().any(fits),
        "no line with all of {parts:?} in:\n{}",
        failure.stderr
    );
}

fn hello() -> String {
    example("hello").display().to_string()
}

#[test]
fn a_manifest_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["up"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        stderr(&output).contains("dunlin.toml:1: ") && stderr(&output).contains("no such file"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_unknown_key() {
    let manifest = format!(
        "[function.hello]\ncomponent = {:?}\nmemroy = \"64MiB\"\n",
        hello()
    );
    says(
        &refused(&manifest, &[]),
        &["dunlin.toml:3: ", "function.hello.memroy: ", "`memory`"],
    );
    says(
        &refused("[hots]\n", &[]),
        &["dunlin.toml:1: ", "hots", "`host`"],
    );
    says(
        &refused("[host]\nhttp-port = 80\n", &[]),
        &["dunlin.toml:2: ", "host.http-port"],
    );
}

#[test]
fn a_size_or_duration_without_a_unit() {
    let manifest = format!(
        "[function.hello]\ncomponent = {:?}\nmemory = \"64\"\ntimeout = 3\n",
        hello()
    );
    let failure = refused(&manifest, &[]);
    says(
        &failure,
        &[
            "dunlin.toml:3: ",
            "function.hello.memory: ",
            "\"64\"",
            "MiB",
        ],
    );
    says(
        &failure,
        &["dunlin.toml:4: ", "function.hello.timeout: ", "3", "s"],
    );
}

#[test]
fn two_routes_in_conflict_are_both_named() {
    let component = hello();
    let manifest = format!(
        "[function.one]\ncomponent = {component:?}\n[[function.one.http]]\nmethod = \"GET\"\npath = \"/users/{{id}}\"\n\
         [function.two]\ncomponent = {component:?}\n[[function.two.http]]\npath = \"/users/{{name}}\"\n"
    );
    says(
        &refused(&manifest, &[]),
        &[
            "dunlin.toml:9: ",
            "function.two",
            "/users/{name}",
            "`two`",
            "/users/{id}",
            "`one`",
            "dunlin.toml:5",
        ],
    );
}

#[test]
fn a_component_that_is_none() {
    let module = wat_module();
    let whole = std::fs::read(example("hello")).unwrap();
    let table: [(&str, &[u8], &str); 5] = [
        ("module.wasm", &module, "core WebAssembly module"),
        ("short.wasm", b"\0asm", "cut short"),
        ("empty.wasm", b"", "cut short"),
        (
            "text.wasm",
            b"hello, I am a text",
            "no WebAssembly component",
        ),
        ("truncated.wasm", &whole[..whole.len() / 2], "cut short"),
    ];
    let mut manifest = "[function.missing]\ncomponent = \"missing.wasm\"\n".to_owned();
    for (name, _, _) in table {
        manifest += &format!(
            "[function.{}]\ncomponent = {name:?}\n",
            name.trim_end_matches(".wasm")
        );
    }
    let files: Vec<(&str, &[u8])> = table
        .iter()
        .map(|(name, bytes, _)| (*name, *bytes))
        .collect();
    let failure = refused(&manifest, &files);
    says(
        &failure,
        &[
            "function.missing.component: ",
            "missing.wasm",
            "no such file",
            "cargo build --target wasm32-wasip2",
        ],
    );
    for (name, _, what) in &table {
        says(
            &failure,
            &[name, what, "cargo build --target wasm32-wasip2"],
        );
    }
}

/// The smallest core module.
fn wat_module() -> Vec<u8> {
    b"\0asm\x01\0\0\0".to_vec()
}

/// A component that exports nothing.
fn bare() -> String {
    wat_component("(component)").display().to_string()
}

/// One that wants what no host has.
fn greedy() -> String {
    wat_component(
        r#"(component (import "wasi:nn/tensor@0.2.0" (instance (export "create" (func)))))"#,
    )
    .display()
    .to_string()
}

#[test]
fn a_handler_that_a_trigger_needs_is_missing() {
    let manifest = format!(
        "[function.bare]\ncomponent = {:?}\n[[function.bare.http]]\npath = \"/bare\"\n",
        bare()
    );
    says(
        &refused(&manifest, &[]),
        &[
            "dunlin.toml:2: ",
            "function.bare.component: ",
            "dunlin:event/http",
            "dunlin:event/invoke",
        ],
    );
}

/// `hello` handles HTTP and nothing else.
#[test]
fn a_trigger_without_a_handler_for_it_is_refused_with_its_line() {
    let manifest = format!(
        "[function.hello]\ncomponent = {:?}\n[[function.hello.queue]]\nname = \"orders\"\n\
         [[function.hello.schedule]]\nname = \"nightly\"\nwhen = \"0 3 * * *\"\n[queue.orders]\n",
        hello()
    );
    let failure = refused(&manifest, &[]);
    for (line, trigger, handler) in [
        (3, "queue", "the queue `orders`; export `dunlin:event/queue"),
        (
            5,
            "schedule",
            "the schedule `nightly`; export `dunlin:event/schedule",
        ),
    ] {
        let (at, key) = (
            format!("dunlin.toml:{line}: "),
            format!("function.hello.{trigger}: "),
        );
        says(&failure, &[&at, &key, handler, "`dunlin:event/invoke"]);
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("dunlin.toml"), manifest).unwrap();
    let output = run(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(stderr(&output).lines().count(), 2, "{}", stderr(&output));
}

#[test]
fn a_trigger_without_a_handler_is_refused_once_the_package_is_built() {
    let (_folder, package) = new_package("http", "only-http");
    let manifest = package.join("dunlin.toml");
    let mut text = std::fs::read_to_string(&manifest).unwrap();
    text += "\n[[function.only-http.schedule]]\nname = \"nightly\"\nwhen = \"0 3 * * *\"\n";
    std::fs::write(&manifest, text).unwrap();
    let failure = Host::builder()
        .folder(&package)
        .env("CARGO_TARGET_DIR", scratch_target().to_str().unwrap())
        .start_expecting_failure();
    assert_eq!(failure.code, 64, "{failure:?}");
    says(
        &failure,
        &[
            "function.only-http.source: ",
            "the component exports no handler for the schedule `nightly`",
            "`dunlin:event/schedule",
        ],
    );
}

#[test]
fn an_import_that_nothing_provides_is_named() {
    let manifest = format!("[function.greedy]\ncomponent = {:?}\n", greedy());
    says(
        &refused(&manifest, &[]),
        &[
            "dunlin.toml:2: ",
            "function.greedy.component: ",
            "wasi:nn/tensor",
        ],
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let failure = refused(
        "[host]\nhttp = \"nowhere\"\nmax-connections = 0\n[function.a]\ncomponent = \"a.wasm\"\nmemory = 5\n\
         [function.b]\n[function.\"c d\"]\ncomponent = \"c.wasm\"\n",
        &[],
    );
    for (line, key) in [
        (2, "host.http"),
        (3, "host.max-connections"),
        (5, "function.a.component"),
        (6, "function.a.memory"),
        (7, "function.b"),
        (8, "c d"),
        (9, "component"),
    ] {
        says(&failure, &[&format!("dunlin.toml:{line}: "), key, "; "]);
    }
}

#[test]
fn several_functions_that_do_not_load_are_reported_together() {
    let whole = std::fs::read(example("hello")).unwrap();
    let manifest = format!(
        "[function.bare]\ncomponent = {:?}\n[[function.bare.http]]\npath = \"/bare\"\n\
         [function.truncated]\ncomponent = \"t.wasm\"\n[function.greedy]\ncomponent = {:?}\n\
         [function.fine]\ncomponent = {:?}\n",
        bare(),
        greedy(),
        hello()
    );
    let failure = refused(&manifest, &[("t.wasm", &whole[..whole.len() / 2])]);
    for (line, key) in [
        (2, "function.bare.component"),
        (6, "function.truncated.component"),
        (8, "function.greedy.component"),
    ] {
        says(&failure, &[&format!("dunlin.toml:{line}: "), key, "; "]);
    }
    assert!(
        !failure.stderr.contains("function.fine"),
        "{}",
        failure.stderr
    );
}

#[test]
fn check_says_the_same_without_starting_anything() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("dunlin.toml"), text).unwrap();
    write(&PROBE.replace("{probe}", guest("probe").to_str().unwrap()));
    let output = run(folder.path(), &["check"]);
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(0), "ok: 1 function, 2 routes\n")
    );

    write("[hots]\n[function.a]\ncomponent = \"a.wasm\"\ntimeout = 3\n");
    let output = run(folder.path(), &["check"]);
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(64), "")
    );
    let lines = stderr(&output);
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(
        lines
            .lines()
            .all(|line| line.starts_with("dunlin.toml:") && line.contains("; ")),
        "{lines}"
    );
    assert!(!folder.path().join(".dunlin").exists());

    write("[function.a]\nsource = \".\"\n[function.a.secrets]\nTOKEN = { env = \"NOT_THERE\" }\n");
    std::fs::write(folder.path().join("Cargo.toml"), "").unwrap();
    let output = run(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    assert!(stderr(&output).contains("NOT_THERE"));
    assert_eq!(
        run(folder.path(), &["check", "--no-values"]).status.code(),
        Some(0)
    );
}
