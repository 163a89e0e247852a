//! The command line: what each command says, and how it exits.

mod backup;
mod cache;
mod functions;
mod queue;
mod refusals;
mod schedule;
mod starting;

use std::fs::{metadata, read_dir};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use dunlin_tests::{Host, dunlin, eventually};

use crate::http::{PROBE, box_with, up};

/// Runs `dunlin` to its end.
#[track_caller]
fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(dunlin());
    command.args(args).current_dir(folder);
    for name in [
        "DUNLIN_HTTP",
        "DUNLIN_ADMIN",
        "DUNLIN_METRICS",
        "DUNLIN_STATE",
        "DUNLIN_URL",
    ] {
        command.env_remove(name);
    }
    command.output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mode(path: &Path) -> u32 {
    metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_first_line_on_stderr_says_where_it_listens() {
    let host = box_with(PROBE).args(["--metrics", "127.0.0.1:0"]).start();
    let first = host.stderr()[0].clone();
    let expected = format!(
        "listening http=http://{} admin=http://{} metrics=http://{}",
        host.http.address(),
        host.admin.address(),
        host.metrics.address()
    );
    assert_eq!(first, expected);
    for client in [host.http, host.admin, host.metrics] {
        assert!(client.address().ip().is_loopback() && client.address().port() != 0);
    }
    let table = dunlin_tests::eventually("the table of routes", || {
        let lines = host.stderr();
        (lines.len() >= 3).then(|| lines[1..].to_vec())
    });
    assert!(
        table[0].contains("ANY") && table[0].contains("/probe ") && table[0].ends_with("probe"),
        "{table:?}"
    );
    assert!(table[1].contains("/probe/{*rest}"), "{table:?}");

    let host = up(PROBE);
    assert_eq!(
        host.metrics.address(),
        host.admin.address(),
        "without an address of its own"
    );
}

#[test]
fn an_address_in_use_is_named_with_its_key_and_the_remedy() {
    let host = up(PROBE);
    for (flag, key, taken) in [
        ("--http", "host.http", host.http.address()),
        ("--admin", "host.admin", host.admin.address()),
        ("--metrics", "host.metrics", host.http.address()),
    ] {
        let failure = box_with(PROBE)
            .args([flag.to_owned(), taken.to_string()])
            .start_expecting_failure();
        assert_eq!(failure.code, 1, "{failure:?}");
        assert!(
            failure.stderr.starts_with("error: cannot listen on "),
            "{failure:?}"
        );
        for part in [
            taken.to_string().as_str(),
            key,
            flag,
            "in use",
            "choose another address",
        ] {
            assert!(failure.stderr.contains(part), "{part}: {failure:?}");
        }
    }
    assert_eq!(host.get("/probe").status, 200, "the other host goes on");
}

#[test]
fn a_state_directory_serves_one_host() {
    let host = up(PROBE);
    let state = host.state().display().to_string();
    let failure = box_with(PROBE)
        .args(["--state", &state])
        .start_expecting_failure();
    assert_eq!(failure.code, 1, "{failure:?}");
    for part in [
        state.as_str(),
        &format!("process {}", host.pid()),
        "--state",
    ] {
        assert!(failure.stderr.contains(part), "{part}: {failure:?}");
    }
    assert_eq!(host.get("/probe").status, 200);
}

#[test]
fn the_state_directory_and_the_key_are_the_owners_alone() {
    let host = up(PROBE);
    let state = host.state();
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("admin.key")), 0o600);
    assert_eq!(mode(&state.join("compiled.key")), 0o600);
    assert_eq!(mode(&state.join("compiled")), 0o700);
    let files: Vec<_> = read_dir(state.join("compiled"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(
        files.len(),
        3,
        "the machine code, its MAC and what is noted of it, and nothing left over: {files:?}"
    );
    for file in files {
        assert_eq!(mode(&file), 0o400, "{}", file.display());
    }
}

#[test]
fn the_key_stays_the_same_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let start = || {
        box_with(PROBE)
            .args(["--state", state.to_str().unwrap()])
            .start()
    };
    let host = start();
    let key = std::fs::read(state.join("admin.key")).unwrap();
    host.stop();
    let host = start();
    assert_eq!(std::fs::read(state.join("admin.key")).unwrap(), key);
    drop(host);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let start = || box_with(PROBE).args(["--state", state.to_str().unwrap()]);
    start().start().stop();
    let key = state.join("admin.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let failure = start().start_expecting_failure();
    assert_eq!(failure.code, 1, "{failure:?}");
    for part in ["admin.key", "0644", "chmod 600"] {
        assert!(failure.stderr.contains(part), "{part}: {failure:?}");
    }
    assert_eq!(mode(&key), 0o644, "it is left as it is");
}

#[test]
fn variables_stand_in_for_options() {
    let host = Host::builder()
        .manifest("")
        .env("DUNLIN_METRICS", "127.0.0.1:0")
        .start();
    assert_ne!(host.metrics.address(), host.admin.address());
}

#[test]
fn a_command_line_that_is_wrong_exits_with_64() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["up", "--nonsense"][..],
        &["fly"],
        &["up", "--http", "nowhere"],
        &["up", "--drain-timeout", "30"],
        &["invoke"],
        &["invoke", "not a name"],
        &["new", "http", "Capital"],
        &["new", "pigeon", "name"],
        &[],
    ] {
        let output = run(folder.path(), args);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_no_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["--help"][..],
        &["--version"],
        &["up", "--help"],
        &["help", "invoke"],
    ] {
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
    assert!(
        stdout(&run(folder.path(), &["--help"])).contains("64"),
        "the exit codes are explained"
    );
}

const COMMANDS: [&str; 6] = ["up", "new", "build", "invoke", "check", "backup"];

#[test]
fn completions_and_manual_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(folder.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        for word in COMMANDS
            .iter()
            .chain(&["drain-timeout", "insecure-admin", "watch"])
        {
            assert!(stdout(&output).contains(word), "{shell}: {word}");
        }
    }
    let output = run(folder.path(), &["man"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stdout(&output).contains(".TH dunlin 1"),
        "{}",
        stdout(&output)
    );
    for command in COMMANDS {
        assert!(stdout(&output).contains(command), "{command}");
    }
    assert_eq!(
        run(folder.path(), &["man", "--out", "."]).status.code(),
        Some(0)
    );
    for command in COMMANDS {
        let page = folder.path().join(format!("dunlin-{command}.1"));
        assert!(
            std::fs::read_to_string(&page).is_ok_and(|text| text.contains(".TH")),
            "{}",
            page.display()
        );
    }
    let script = folder.path().join("dunlin.bash");
    std::fs::write(&script, run(folder.path(), &["completions", "bash"]).stdout).unwrap();
    let sourced = Command::new("bash")
        .arg("-n")
        .arg(&script)
        .output()
        .unwrap();
    assert!(sourced.status.success(), "bash reads it: {sourced:?}");
}

/// The compiler bounds itself before it reads a byte: here it waits for the first one.
#[test]
fn the_compiler_bounds_its_cpu_time_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    let made = Command::new("mkfifo").arg(&input).status().unwrap();
    assert!(made.success());
    let mut compiler = Command::new(dunlin())
        .arg("compile-component")
        .args([&input, &output])
        .spawn()
        .unwrap();
    let file = format!("/proc/{}/limits", compiler.id());
    // As the kernel writes it: the soft limit and the hard one.
    let bounds = [
        ("Max cpu time", ["600", "610"]),
        ("Max address space", ["8589934592", "8589934592"]),
        ("Max core file size", ["0", "0"]),
    ];
    eventually("the compiler's bounds", || {
        let limits = std::fs::read_to_string(&file).ok()?;
        let holds = |(name, expected): &(&str, [&str; 2])| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name));
            line.is_some_and(|line| line.split_whitespace().take(2).eq(*expected))
        };
        bounds.iter().all(holds).then_some(())
    });
    // Nothing is no component.
    drop(std::fs::File::options().write(true).open(&input).unwrap());
    let status = compiler.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(!output.exists());
}
