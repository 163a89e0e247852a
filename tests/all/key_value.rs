//! Values that last: what functions do with buckets, in both drafts of the interface, and
//! what they are refused.

mod durability;

use std::collections::BTreeSet;
use std::path::Path;

use dunlin_tests::{Builder, Client, Host, eventually};
use serde_json::{Value, json};

use crate::http::box_with;

/// The function `values` with the bucket `b`, and `other` with the same under another name,
/// read-only, and one of its own.
const MANIFEST: &str = r#"
[function.values]
component = "{values}"
timeout = "30s"
[[function.values.http]]
path = "/values"
[[function.values.key-value]]
bucket = "b"

[function.other]
component = "{values}"
[[function.other.http]]
path = "/other"
[[function.other.key-value]]
bucket = "b"
name = ""
access = "read-only"
[[function.other.key-value]]
bucket = "own"
name = "b"

[key-value.b]
[key-value.own]
"#;

/// With these limits of the bucket `b`, and a state that outlives the host.
fn over(state: &Path, limits: &str) -> Builder {
    let manifest = MANIFEST.replace("[key-value.b]", &format!("[key-value.b]\n{limits}"));
    let state = state.join("state");
    box_with(&manifest).args(["--state", state.to_str().expect("a path of ours")])
}

fn started() -> Host {
    box_with(MANIFEST).start()
}

fn request(draft: u32, bucket: &str, steps: Value) -> String {
    json!({ "draft": draft, "bucket": bucket, "do": steps }).to_string()
}

/// Has a function do all that, and answers what came of it.
#[track_caller]
fn does(client: &Client, function: &str, bucket: &str, steps: Value) -> Value {
    let response = client.post(&format!("/{function}"), request(2, bucket, steps));
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// What came of each step of the function `values` in the bucket `b`, where nothing failed.
#[track_caller]
fn done(host: &Host, steps: Value) -> Vec<Value> {
    let all = does(&host.http, "values", "b", steps);
    let all = all.as_array().unwrap_or_else(|| panic!("{all}"));
    let ok = |it: &Value| {
        assert!(it.get("ok").is_some(), "{it}");
        it["ok"].clone()
    };
    all.iter().map(ok).collect()
}

/// Why a step failed.
#[track_caller]
fn refused(host: &Host, step: Value) -> String {
    let answer = does(&host.http, "values", "b", json!([step]));
    let error = answer[0]["error"].as_str();
    error.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn both_drafts_do_the_same_to_the_same_buckets() {
    let host = started();
    for draft in [1, 2] {
        let steps = json!([
            ["set", "k", "v"],
            ["get", "k"],
            ["exists", "k"],
            ["get", "none"],
            ["exists", "none"],
            ["delete", "none"],
            ["increment", "n", 5],
            ["increment", "n", 37],
            ["get", "n"],
            ["set-many", [["a", "1"], ["c", "3"]]],
            ["get-many", ["c", "none", "a"]],
            ["delete-many", ["a", "none", "k"]],
            ["keys", null],
            ["get", "k"],
            ["delete-many", ["n", "c"]],
        ]);
        let response = host.post("/values", request(draft, "b", steps));
        let seen = response.json();
        let seen = seen.as_array().expect("a list").iter();
        let seen: Vec<Value> = seen.map(|it| it["ok"].clone()).collect();
        assert_eq!(
            seen,
            [
                json!(null),
                json!("v"),
                json!(true),
                json!(null),
                json!(false),
                json!(null),
                json!(5),
                json!(42),
                json!("42"),
                json!(null),
                json!([["c", "3"], null, ["a", "1"]]),
                json!(null),
                json!({ "keys": ["n", "c"], "cursor": null }),
                json!(null),
                json!(null),
            ],
            "draft {draft}"
        );
    }
    host.stop();
}

#[test]
fn a_swap_that_was_overtaken_can_be_tried_again() {
    let host = started();
    let seen = done(
        &host,
        json!([
            ["race", "k"],
            ["get", "k"],
            ["race", "k"],
            ["swap", "new", "made"],
            ["get", "new"],
        ]),
    );
    let expected = [
        json!([null, "theirs", true]),
        json!("mine"),
        json!(["mine", "theirs", true]),
        json!("swapped"),
        json!("made"),
    ];
    assert_eq!(seen, expected);
    let swaps = |outcome: &str| {
        let labels = [("operation", "swap"), ("outcome", outcome)];
        host.metric("dunlin_key_value_operations_total", &labels)
    };
    assert_eq!((swaps("ok"), swaps("conflict")), (Some(3.0), Some(2.0)));
    host.stop();
}

#[test]
fn counting_and_swapping_are_exact_with_64_at_once() {
    let host = started();
    let each = json!([["count", "n", 20], ["append", "s", 2]]);
    let body = request(2, "b", each);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            let (client, body) = (&host.http, &body);
            scope.spawn(move || {
                let response = client.post("/values", body);
                assert_eq!(response.status, 200, "{response:?}");
            });
        }
    });
    let seen = done(&host, json!([["get", "n"], ["get", "s"]]));
    // Shown by its length: each of 128 letters was added once.
    assert_eq!(seen, [json!("1280"), json!(128)]);
    host.stop();
}

#[test]
fn what_was_not_granted_is_denied_whether_it_is_there_or_not() {
    let host = started();
    for bucket in ["own", "none", "B", "", "../b"] {
        let answer = does(&host.http, "values", bucket, json!([["get", "k"]]));
        assert_eq!(answer, json!({ "error": "access-denied" }), "{bucket}");
    }
    let labels = [
        ("function", "values"),
        ("operation", "open"),
        ("outcome", "refused"),
    ];
    let denied = host.metric("dunlin_key_value_operations_total", &labels);
    assert_eq!(denied, Some(5.0));
    host.stop();
}

#[test]
fn a_bucket_is_shared_by_those_that_it_was_granted_to_and_read_only_is_just_that() {
    let host = started();
    done(&host, json!([["set", "k", "of values"]]));
    // Its own bucket has the same name for it, and nothing in it.
    let own = does(
        &host.http,
        "other",
        "b",
        json!([["get", "k"], ["set", "k", "own"]]),
    );
    assert_eq!(own, json!([{ "ok": null }, { "ok": null }]));
    let writes = json!([
        ["set", "k", "x"],
        ["delete", "k"],
        ["increment", "n", 1],
        ["swap", "k", "x"],
        ["set-many", [["k", "x"]]],
        ["delete-many", ["k"]],
    ]);
    let seen = does(&host.http, "other", "", writes);
    for it in seen.as_array().expect("a list") {
        assert_eq!(*it, json!({ "error": "access-denied" }));
    }
    let reads = json!([
        ["get", "k"],
        ["exists", "k"],
        ["keys", null],
        ["get-many", ["k"]]
    ]);
    assert_eq!(
        does(&host.http, "other", "", reads),
        json!([
            { "ok": "of values" },
            { "ok": true },
            { "ok": { "keys": ["k"], "cursor": null } },
            { "ok": [["k", "of values"]] },
        ])
    );
    host.stop();
}

#[test]
fn what_goes_over_a_limit_is_refused_and_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let limits = "max-keys = 3\nmax-value = \"100B\"\nmax-bytes = \"1KiB\"";
    let host = over(state.path(), limits).start();
    done(&host, json!([["set-many", [["a", 100], ["b", "b"]]]]));
    for (step, part) in [
        (
            json!(["set", "c", 101]),
            "101 bytes, and the bucket `b` takes 100 at most",
        ),
        (json!(["set", "a", 101]), "(`max-value`)"),
        (json!(["swap", "a", 101]), "(`max-value`)"),
        (
            json!(["set-many", [["a", "new"], ["c", ""], ["d", ""]]]),
            "3 keys (`max-keys`)",
        ),
        (
            json!(["set-many", [["a", "new"], ["b", 101]]]),
            "(`max-value`)",
        ),
        (json!(["increment", "b", 1]), "no whole number"),
    ] {
        let error = refused(&host, step.clone());
        assert!(error.contains(part), "{step}: {error}");
    }
    let seen = done(&host, json!([["get", "a"], ["get", "b"], ["keys", null]]));
    let keys = json!({ "keys": ["a", "b"], "cursor": null });
    assert_eq!(seen, [json!(100), json!("b"), keys]);
    let labels = [("function", "values"), ("outcome", "refused")];
    let scraped = host.scrape();
    let counted = scraped.get("dunlin_key_value_operations_total", &labels);
    assert_eq!(counted, Some(6.0));
    let of_b = [("bucket", "b")];
    assert_eq!(scraped.get("dunlin_key_value_keys", &of_b), Some(2.0));
    assert_eq!(scraped.get("dunlin_key_value_bytes", &of_b), Some(103.0));
    host.stop();

    // A higher limit counts from the next start on, and a lower one lets it shrink.
    let host = over(state.path(), "max-value = \"300B\"\nmax-bytes = \"1KiB\"").start();
    done(
        &host,
        json!([["set", "a", 300], ["set-many", [["c", 300], ["d", 300]]]]),
    );
    let error = refused(&host, json!(["set", "e", 300]));
    assert!(error.contains("1024 bytes (`max-bytes`)"), "{error}");
    host.stop();
    let host = over(state.path(), "max-keys = 1").start();
    let error = refused(&host, json!(["set", "e", ""]));
    assert!(error.contains("1 keys (`max-keys`)"), "{error}");
    done(&host, json!([["delete", "a"], ["set", "b", ""]]));
    host.stop();
}

#[test]
fn any_text_of_up_to_1024_bytes_is_a_key() {
    let host = started();
    let longest = "k".repeat(1024);
    let keys = [
        "", "\0", "a\0b", "a\0", "é", "e\u{301}", "🐦", " ", "A", "a", &longest,
    ];
    let steps = keys
        .iter()
        .enumerate()
        .map(|(at, key)| json!(["set", key, at.to_string()]));
    done(&host, steps.collect());
    let steps = keys.iter().map(|key| json!(["get", key]));
    let expected: Vec<Value> = (0..keys.len()).map(|at| at.to_string().into()).collect();
    assert_eq!(done(&host, steps.collect()), expected);
    assert_eq!(done(&host, json!([["keys", null]]))[0]["keys"], json!(keys));
    for operation in ["get", "set", "delete", "exists", "increment", "swap"] {
        let error = refused(&host, json!([operation, 1025, 1]));
        assert_eq!(
            error, "the key has 1025 bytes, and a key has 1024 at most",
            "{operation}"
        );
    }
    host.stop();
}

#[test]
fn large_values_and_batches_are_bounded_with_an_error_not_a_trap() {
    let state = tempfile::tempdir().unwrap();
    // The limit of answers does not bound what may be stored.
    let manifest = MANIFEST
        .replace("[key-value.b]", "[key-value.b]\nmax-value = \"4MiB\"")
        .replacen(
            "timeout = \"30s\"",
            "timeout = \"30s\"\nresponse-limit = \"1KiB\"",
            1,
        );
    let path = state.path().join("state");
    let host = box_with(&manifest)
        .args(["--state", path.to_str().unwrap()])
        .start();
    let most = 4 << 20;
    let seen = done(&host, json!([["set", "k", most], ["get", "k"]]));
    assert_eq!(seen[1], json!(most));
    let error = refused(&host, json!(["set", "k", most + 1]));
    assert!(error.contains("takes 4194304 at most"), "{error}");
    let many: Vec<String> = (0..1001).map(|key| key.to_string()).collect();
    for operation in ["get-many", "delete-many"] {
        let error = refused(&host, json!([operation, many]));
        assert!(
            error.contains("1001 keys at once, more than 1000"),
            "{error}"
        );
    }
    let error = refused(
        &host,
        json!(["set-many", [["a", 3 << 20], ["b", 1 + (1 << 20)]]]),
    );
    assert!(error.contains("more than 4194304"), "{error}");
    done(&host, json!([["set", "l", 1]]));
    let error = refused(&host, json!(["get-many", ["k", "l"]]));
    assert!(error.contains("ask for fewer"), "{error}");
    // All that was held is given back.
    host.wait_until_quiet();
    let used = || host.metric("dunlin_memory_used_bytes", &[]).unwrap_or(0.0);
    eventually("the memory is given back", || {
        (used() < f64::from(most)).then_some(())
    });
    host.stop();
}

#[test]
fn keys_come_in_pages_of_bounded_size() {
    let host = started();
    let all: Vec<String> = (0..2500).map(|key| format!("key-{key}")).collect();
    for keys in all.chunks(1000) {
        let entries: Vec<Value> = keys.iter().map(|key| json!([key, ""])).collect();
        done(&host, json!([["set-many", entries]]));
    }
    for draft in [1, 2] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
        loop {
            let step = json!([["keys", cursor]]);
            let page = host.post("/values", request(draft, "b", step)).json()[0]["ok"].clone();
            let keys = page["keys"].as_array().expect("a list").iter();
            seen.extend(keys.map(|key| key.as_str().unwrap().to_owned()));
            pages += 1;
            cursor = page["cursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(seen, all, "draft {draft}");
        assert_eq!(pages, 3, "draft {draft}");
    }
    for cursor in ["nonsense", "-1", "99999999999999999999"] {
        let error = refused(&host, json!(["keys", cursor]));
        assert!(error.contains("no cursor"), "{cursor}: {error}");
    }
    host.stop();
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    let host = started();
    let keys: Vec<String> = (0..50).map(|key| key.to_string()).collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..20 {
                let entries: Vec<Value> = keys
                    .iter()
                    .map(|key| json!([key, round.to_string()]))
                    .collect();
                done(&host, json!([["set-many", entries]]));
            }
        });
        while !writer.is_finished() {
            let seen = done(&host, json!([["get-many", keys]]));
            let values = seen[0].as_array().expect("a list").iter();
            let values: BTreeSet<String> = values.map(|pair| pair[1].to_string()).collect();
            assert_eq!(values.len(), 1, "{values:?}");
        }
    });
    host.stop();
}

#[test]
fn handles_are_bounded_and_charged() {
    let host = started();
    let key = "k".repeat(1000);
    assert_eq!(done(&host, json!([["handles", key, 100]])), [json!(100)]);
    let response = host.post("/values", request(2, "b", json!([["handles", key, 5000]])));
    assert_eq!(response.status, 502, "{response:?}");
    host.wait_until_quiet();
    done(&host, json!([["set", "k", "goes on"]]));
    host.stop();
}

#[test]
fn a_bucket_that_is_taken_out_of_the_manifest_keeps_what_is_in_it() {
    let state = tempfile::tempdir().unwrap();
    let host = over(state.path(), "").start();
    done(&host, json!([["set", "k", "kept"]]));
    host.stop();
    let path = state.path().join("state");
    let without = box_with("[key-value.another]").args(["--state", path.to_str().unwrap()]);
    let host = without.start();
    host.wait_for_log(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "warn" && message.contains("bucket b is no longer in the manifest")
    });
    host.stop();
    let host = over(state.path(), "").start();
    assert_eq!(done(&host, json!([["get", "k"]])), [json!("kept")]);
    host.stop();
}

#[test]
fn a_swap_takes_no_bucket_and_no_queue_from_what_runs() {
    let gate = tempfile::tempdir().unwrap();
    let path = gate.path().display().to_string();
    let kept = format!(
        "[host.mount.gate]\npath = {path:?}\n\
         [function.values]\ncomponent = \"{{values}}\"\ntimeout = \"30s\"\n\
         [[function.values.http]]\npath = \"/values\"\n\
         [[function.values.mount]]\nfrom = \"gate\"\nto = \"/gate\"\n"
    );
    let mut gone = "# gone\n[queue.gone]\n".to_owned();
    for bucket in ["full", "empty"] {
        gone += &format!(
            "[key-value.{bucket}]\n[[function.values.key-value]]\nbucket = \"{bucket}\"\n"
        );
    }
    let host = box_with(&(kept + &gone))
        .args(["--watch", "--insecure-admin"])
        .start();
    does(&host.http, "values", "full", json!([["set", "a", "b"]]));
    let requests = ["full", "empty"].map(|bucket| {
        let client = host.http;
        let steps = json!([["wait", "/gate/open"], ["set", "k", "v"], ["get", "k"]]);
        std::thread::spawn(move || does(&client, "values", bucket, steps))
    });
    let labels = [("function", "values")];
    host.wait_for_metric("dunlin_invocations_running", &labels, |running| {
        running == 2.0
    });
    let text = std::fs::read_to_string(host.manifest()).unwrap();
    let (kept, _) = text.split_once("# gone").unwrap();
    let route = "[[function.values.http]]\npath = \"/new\"\n";
    std::fs::write(host.manifest(), format!("{kept}{route}")).unwrap();
    eventually("the swap", || {
        (host.get("/new").status == 200).then_some(())
    });
    let queues = crate::events::ask(&host.admin, "ListQueues", &json!({}));
    let queues = queues.expect("the host answers").to_string();
    assert!(queues.contains("/gone"), "{queues}");
    host.wait_for_log(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("bucket full is no longer in the manifest")
    });
    std::fs::write(gate.path().join("open"), "").unwrap();
    for request in requests {
        let all = request.join().unwrap();
        assert_eq!(all, json!([{ "ok": null }, { "ok": null }, { "ok": "v" }]));
    }
    host.stop();
}
