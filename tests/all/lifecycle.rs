//! `init` and `shutdown`: what is prepared once is there in each instance, where that is
//! true to the program, and a reused instance is told that it ends.

mod by_hand;
mod refused;
mod retire;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_tests::{Builder, Host, eventually, guest, within};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const NOTE: &str = "its `init` runs in each instance";

/// The guest `prepared`, that prepares itself so.
fn prepared(prepare: &str, keys: &str) -> Builder {
    let environment = format!("environment = {{ PREPARE = {prepare:?} }}\n{keys}");
    Host::builder().function("prepared", &guest("prepared"), &environment)
}

#[track_caller]
fn ask(host: &Host) -> Value {
    let response = host.get("/prepared");
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// The lines that guests wrote outside of invocations.
fn said(host: &Host, text: &str) -> usize {
    let lines = host.log();
    let fits = |line: &&Value| line["kind"] == "log" && line["message"] == text;
    lines.iter().filter(fits).count()
}

/// There is no snapshot, and this is why: for whoever deploys, and in the log.
#[track_caller]
fn runs_in_each_instance(host: &Host, why: &str) {
    let note = eventually("a note on stderr", || {
        let lines = host.stderr();
        lines.into_iter().find(|line| line.contains(NOTE))
    });
    assert!(
        note.starts_with("note: function.prepared: ") && note.contains(why),
        "{note}"
    );
    let logged = host.wait_for_log(|line| {
        line["kind"] == "host" && line["message"].as_str().is_some_and(|m| m.contains(NOTE))
    });
    let message = logged["message"].as_str().unwrap();
    assert!(message.contains("function prepared") && message.contains(why));
}

/// The files of the cache: their names, and when they were written.
fn compiled(state: &Path) -> Vec<(String, u64, i64, i64)> {
    let mut files: Vec<_> = fs::read_dir(state.join("compiled"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let it = entry.metadata().unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, it.ino(), it.mtime(), it.mtime_nsec())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn each_fresh_instance_begins_with_what_init_left_at_deploy() {
    let host = prepared("name", "provisioned = 1").start();
    for _ in 0..4 {
        let answer = ask(&host);
        assert_eq!(answer["served"], 1, "it is fresh: {answer}");
        assert_eq!(answer["runs"], 1, "{answer}");
        assert_eq!(answer["what"], "prepared", "{answer}");
        assert_eq!(
            [&answer["words"], &answer["last"]],
            [&json!(5000), &json!("word-4999")]
        );
    }
    let noted = host.stderr().iter().any(|line| line.contains(NOTE));
    assert!(!noted, "{:?}", host.stderr());
    // What it has in memory is what it began with: no more was taken for it.
    let files = compiled(&host.state());
    assert_eq!(files.len(), 3, "code, its MAC and a note: {files:?}");
    host.stop();
}

#[test]
fn a_snapshot_is_under_every_way_to_make_memory_new() {
    let host = prepared("", "")
        .manifest("[host]\nmemory-reset = \"memset\"")
        .start();
    for _ in 0..20 {
        let answer = ask(&host);
        assert_eq!([&answer["served"], &answer["runs"]], [1, 1], "{answer}");
        assert_eq!(answer["last"], "word-4999");
    }
    host.stop();
}

#[test]
fn an_init_that_logs_runs_in_each_instance_and_logs_in_each() {
    let host = prepared("log", "provisioned = 0").start();
    runs_in_each_instance(&host, "`wasi:cli/stdout.get-stdout`");
    for _ in 0..3 {
        let answer = ask(&host);
        assert_eq!([&answer["served"], &answer["runs"]], [1, 1], "{answer}");
        assert_eq!(answer["words"], 5000);
    }
    // The instance that was tried at deploy, and three.
    eventually("each has said so", || {
        (said(&host, "prepared") >= 4).then_some(())
    });
    assert_eq!(said(&host, "prepared"), 4);
    let line = host.wait_for_log(|line| line["message"] == "prepared");
    assert_eq!(line["function"], "prepared");
    assert!(line["request_id"].is_null(), "of no invocation: {line}");
    host.stop();
}

#[test]
fn an_init_that_reads_a_file_runs_in_each_instance() {
    let (folder, mount) = words();
    let host = prepared("read", "provisioned = 0").manifest(mount).start();
    runs_in_each_instance(&host, "`wasi:filesystem/preopens.get-directories`");
    assert_eq!(ask(&host)["what"], "one");
    // Each reads it for itself.
    fs::write(folder.path().join("words"), "two").unwrap();
    assert_eq!(ask(&host)["what"], "two");

    // One that fails later fails the event that it was for, and no more.
    fs::remove_file(folder.path().join("words")).unwrap();
    let response = host.get("/prepared");
    let got = (response.status, response.outcome());
    assert_eq!(got, (502, Some("function_error")), "{response:?}");
    let record = host.record(response.request_id());
    assert_eq!(record["error_type"], "Runtime.InitError", "{record}");
    let message = record["message"].as_str().unwrap();
    assert!(message.contains("its `init` failed: "), "{record}");
    fs::write(folder.path().join("words"), "three").unwrap();
    assert_eq!(ask(&host)["what"], "three");
    host.stop();
}

/// A folder that functions may mount as `data`, with a file in it; and how to say so.
fn words() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("words"), "one").unwrap();
    let mount = format!(
        "[host.mount.data]\npath = {:?}\n\
         [[function.prepared.mount]]\nfrom = \"data\"\nto = \"/data\"",
        folder.path().display().to_string()
    );
    (folder, mount)
}

#[test]
fn an_init_that_fails_later_keeps_no_host_from_starting_and_is_tried_less_and_less() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (data, mount) = words();
    let file = data.path().join("words");
    let start = || {
        prepared("say-and-read", "provisioned = 1")
            .manifest(&mount)
            .args(["--state", state.to_str().unwrap()])
            .start()
    };
    start().stop();

    fs::remove_file(&file).unwrap();
    let host = start();
    let is_told = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        line["kind"] == "host" && message.contains("no instance can be made ready")
    };
    let line = host.wait_for_log(is_told);
    assert_eq!(line["level"], "warn", "{line}");
    let message = line["message"].as_str().unwrap();
    for part in ["function prepared: ", "its `init` failed: "] {
        assert!(message.contains(part), "`{part}`: {message}");
    }
    // An attempt after one second, and one after two more.
    let attempts = within(Duration::from_secs(60), "three attempts", || {
        let lines = host.log();
        let said = |line: &&Value| line["message"] == "looking for words";
        let times: Vec<_> = lines.iter().filter(said).map(moment).collect();
        (times.len() >= 3).then_some(times)
    });
    let passed = attempts[2] - attempts[0];
    assert!(passed > Duration::from_millis(2900), "{passed}");
    let told = host.log().iter().filter(|line| is_told(line)).count();
    assert_eq!(told, 1, "it is told once");

    // It serves as soon as it can, and is kept ready again.
    fs::write(&file, "two").unwrap();
    assert_eq!(ask(&host)["what"], "two");
    let labels = [("function", "prepared")];
    host.wait_for_metric("dunlin_instances_ready", &labels, |n| n == 1.0);
    host.stop();
}

#[test]
fn inits_that_hang_keep_no_host_from_starting_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (data, mount) = words();
    let start = || {
        let builder = prepared("read-or-hang", "")
            .manifest(&mount)
            .args(["--state", state.to_str().unwrap()]);
        let others = (0..11).map(|number| format!("other-{number}"));
        let with = |builder: Builder, name: String| {
            let keys = "environment = { PREPARE = \"read-or-hang\" }";
            let builder = builder.function(&name, &guest("prepared"), keys);
            builder.manifest(format!(
                "[[function.{name}.mount]]\nfrom = \"data\"\nto = \"/data\""
            ))
        };
        others.fold(builder, with).start()
    };
    start().stop();
    let file = data.path().join("words");
    fs::remove_file(&file).unwrap();
    let begun = Instant::now();
    let host = start();
    // Each has ten seconds; twelve have two minutes.
    assert!(begun.elapsed() < Duration::from_secs(60));
    fs::write(&file, "one").unwrap();
    assert_eq!(ask(&host)["what"], "one");
    host.stop();
}

/// When a line of the log was written.
fn moment(line: &Value) -> OffsetDateTime {
    let time = line["time"].as_str().expect("each line has a time");
    OffsetDateTime::parse(time, &Rfc3339).expect("it is one of RFC 3339")
}

#[test]
fn no_two_instances_share_random_numbers() {
    let host = prepared("random", "").start();
    runs_in_each_instance(&host, "`wasi:random/random.get-random-u64`");
    let mut drawn: Vec<String> = (0..6).map(|_| ask(&host)["what"].to_string()).collect();
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), 6, "{drawn:?}");
    host.stop();
}

#[test]
fn what_would_be_untrue_in_another_instance_is_not_kept() {
    for (prepare, import) in [
        ("instant", "`wasi:clocks/monotonic-clock.now`"),
        ("day", "`wasi:clocks/wall-clock.now`"),
        ("metric", "`dunlin:event/metrics.add`"),
        ("stream", "`dunlin:event/context.log-stream`"),
    ] {
        let host = prepared(prepare, "provisioned = 0").start();
        runs_in_each_instance(&host, import);
        assert_eq!(ask(&host)["runs"], 1);
        host.stop();
    }
}

#[test]
fn init_sees_no_secret() {
    let host = prepared("", "secrets = { key = { env = \"THE_KEY\" } }")
        .env("THE_KEY", "hush")
        .start();
    let answer = ask(&host);
    assert_eq!(answer["secret-then"], Value::Null, "{answer}");
    assert_eq!(answer["secret-now"], "hush", "{answer}");
    let kept = fs::read_dir(host.state().join("compiled")).unwrap();
    for file in kept {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"hush"));
    }
    host.stop();
}

#[test]
fn init_has_its_own_time_where_an_event_waits_for_it() {
    // It takes longer than the handler may.
    let host = prepared("sleep", "provisioned = 0\ntimeout = \"200ms\"").start();
    runs_in_each_instance(&host, "`wasi:clocks/monotonic-clock.");
    assert_eq!(ask(&host)["runs"], 1);
    // And the handler has its time from then on, and no more.
    let response = host.get("/prepared/sleep");
    assert_eq!(response.outcome(), Some("timeout"), "{response:?}");
    host.stop();
}

/// A manifest with a label in the environment.
fn labelled(label: &str) -> String {
    let component = guest("prepared").display().to_string();
    format!(
        "[function.prepared]\ncomponent = {component:?}\nenvironment = {{ LABEL = {label:?} }}\n\
         [[function.prepared.http]]\npath = \"/prepared\"\n"
    )
}

#[test]
fn a_snapshot_outlives_a_restart_and_a_changed_variable_makes_another() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let serve = |label: &str| {
        let host = Host::builder()
            .manifest(labelled(label))
            .args(["--state", state.to_str().unwrap()])
            .start();
        let answer = ask(&host);
        assert_eq!([&answer["label"], &answer["label-now"]], [label, label]);
        host.stop();
        compiled(&state)
    };
    let first = serve("one");
    assert_eq!(serve("one"), first, "nothing was made again");
    let second = serve("two");
    assert!(first.iter().all(|file| second.contains(file)));
    assert_eq!(second.len(), first.len() + 3, "{second:?}");
    assert_eq!(serve("one"), second, "the first is still there");
}

#[test]
fn a_changed_variable_takes_effect_when_the_manifest_is_swapped_in() {
    let host = Host::builder()
        .manifest(labelled("one"))
        .args(["--watch"])
        .start();
    assert_eq!(ask(&host)["label"], "one");
    let beside = host.manifest().with_extension("new");
    fs::write(&beside, labelled("two")).unwrap();
    fs::rename(&beside, host.manifest()).unwrap();
    eventually("the new value is there", || {
        let answer = ask(&host);
        assert_eq!(answer["label"], answer["label-now"], "never a mixture");
        (answer["label"] == "two").then_some(())
    });
    host.stop();
}

#[test]
fn that_there_is_no_snapshot_is_remembered_too() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let serve = || {
        let host = prepared("log", "")
            .args(["--state", state.to_str().unwrap()])
            .start();
        runs_in_each_instance(&host, "`wasi:cli/stdout.get-stdout`");
        host.stop();
        compiled(&state)
    };
    let first = serve();
    assert_eq!(first.len(), 3, "{first:?}");
    assert_eq!(serve(), first);
}

/// Nothing is mapped.
#[track_caller]
fn rests(host: &Host) {
    host.wait_for_metric("dunlin_code_mapped", &[], |n| n == 0.0);
}

#[test]
fn a_version_whose_init_was_kept_rests_and_what_is_lost_of_it_is_taken_again() {
    let host = prepared("name", "provisioned = 0")
        .manifest("[host]\nrest-after = \"1s\"")
        .start();
    let is_kept = || {
        let answer = ask(&host);
        assert_eq!([&answer["served"], &answer["runs"]], [1, 1], "{answer}");
        assert_eq!(answer["what"], "prepared", "{answer}");
    };
    let files = compiled(&host.state());
    for _ in 0..2 {
        is_kept();
        rests(&host);
    }
    assert_eq!(compiled(&host.state()), files, "nothing was made again");

    let code = files.iter().find(|(name, ..)| name.ends_with(".cwasm"));
    let code = host.state().join("compiled").join(&code.unwrap().0);
    fs::remove_file(&code).unwrap();
    let response = host.get("/prepared");
    assert_eq!(response.outcome(), Some("host_error"), "{response:?}");
    within(Duration::from_secs(120), "it is taken again", || {
        (host.get("/prepared").status == 200).then_some(())
    });
    assert!(code.exists());
    is_kept();
    host.stop();
}

#[test]
fn a_restart_neither_runs_init_nor_makes_an_instance() {
    for prepare in ["name", "log"] {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let start = || {
            prepared(prepare, "provisioned = 0")
                .args(["--state", state.to_str().unwrap()])
                .start()
        };
        start().stop();
        let host = start();
        let mappings = host.metric("dunlin_code_mappings_total", &[]);
        assert_eq!(mappings, Some(0.0), "{prepare}");
        if prepare == "log" {
            runs_in_each_instance(&host, "`wasi:cli/stdout.get-stdout`");
        }
        assert_eq!(said(&host, "prepared"), 0, "{prepare}");
        assert_eq!(ask(&host)["runs"], 1, "{prepare}");
        let log = host.stop();
        let lines = log.iter().filter(|line| line["message"] == "prepared");
        assert_eq!(lines.count(), usize::from(prepare == "log"));
    }
}

#[test]
fn that_an_init_was_right_in_an_instance_holds_for_one_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (_data, mount) = words();
    let builder = || prepared("read", "provisioned = 0").args(["--state", state.to_str().unwrap()]);
    builder().manifest(mount).start().stop();
    let failure = builder().start_expecting_failure();
    assert_eq!(failure.code, 64, "{failure:?}");
    assert!(failure.stderr.contains("its `init` failed"), "{failure:?}");
}
