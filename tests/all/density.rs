//! Versions that rest, and pools that follow what their functions get.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_tests::{Builder, Host, example, within};

use crate::wat::{MEMORY, REALLOC, handler, http_component};

/// Compiling takes its time where others do the same.
const BUILD: Duration = Duration::from_secs(120);

/// The bytes of `hello` as another component: with a custom section of its own.
fn variant(number: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(example("hello")).expect("hello is built");
    let name = format!("variant-{number}");
    let length = u8::try_from(name.len()).expect("it is short");
    bytes.extend([0, length + 1, length]);
    bytes.extend(name.bytes());
    bytes
}

/// A function of a file beside the manifest, which need not be there yet.
fn beside(builder: Builder, name: &str, file: &str, keys: &str) -> Builder {
    builder.function(name, Path::new(file), keys)
}

fn hellos(host_keys: &str, count: usize, keys: &str) -> Builder {
    let mut builder = Host::builder().manifest(format!("[host]\n{host_keys}"));
    for number in 0..count {
        let (name, file) = (format!("f{number}"), format!("v{number}.wasm"));
        builder = beside(builder.file(&file, variant(number)), &name, &file, keys);
    }
    builder
}

#[track_caller]
fn greets(host: &Host, function: &str) {
    let response = host.get(&format!("/{function}"));
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "Hello, world!\n"),
        "{function}: {response:?}"
    );
}

fn metric(host: &Host, name: &str) -> f64 {
    host.metric(name, &[]).expect("it is always there")
}

#[track_caller]
fn all_rest(host: &Host) {
    host.wait_for_metric("dunlin_code_mapped", &[], |n| n == 0.0);
}

/// The machine code in a state directory.
fn machine_code(state: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state.join("compiled")).expect("the cache is there");
    let files = entries.map(|entry| entry.expect("it can be read").path());
    files
        .filter(|file| file.extension().is_some_and(|it| it == "cwasm"))
        .collect()
}

#[test]
fn a_version_rests_and_comes_back_unless_instances_are_provisioned() {
    let builder = hellos("rest-after = \"1s\"", 1, "");
    let builder = builder.file("kept.wasm", variant(100));
    let host = beside(builder, "kept", "kept.wasm", "provisioned = 1").start();
    for _ in 0..2 {
        greets(&host, "f0");
        greets(&host, "kept");
        host.wait_for_metric("dunlin_code_mapped", &[], |n| n == 1.0);
        assert_eq!(metric(&host, "dunlin_code_resting"), 1.0);
        let ready = |name| host.metric("dunlin_instances_ready", &[("function", name)]);
        assert_eq!((ready("f0"), ready("kept")), (Some(0.0), Some(1.0)));
        let wanted = |name| host.metric("dunlin_instances_wanted", &[("function", name)]);
        assert_eq!(wanted("f0"), Some(0.0));
    }
    // Nothing was compiled for it: the files are those of the deployment.
    assert_eq!(machine_code(&host.state()).len(), 2);
    assert!(metric(&host, "dunlin_code_mappings_total") >= 3.0);
    host.stop();
}

#[test]
fn machine_code_of_some_size_comes_back() {
    let keys = "memory = \"256MiB\"\ntimeout = \"30s\"";
    let host = Host::builder()
        .manifest("[host]\nrest-after = \"1s\"")
        .function("thumbnail", &example("thumbnail"), keys)
        .start();
    let size = |file: &PathBuf| file.metadata().expect("it is there").len();
    let sizes: Vec<u64> = machine_code(&host.state()).iter().map(size).collect();
    assert!(sizes.iter().any(|size| *size > 1 << 20), "{sizes:?}");
    let first = host.post("/thumbnail", "no image");
    assert_eq!(first.status, 400, "{first:?}");
    for _ in 0..2 {
        all_rest(&host);
        let before = metric(&host, "dunlin_code_mappings_total");
        let again = host.post("/thumbnail", "no image");
        assert_eq!(
            (again.status, again.body),
            (first.status, first.body.clone())
        );
        let mappings = metric(&host, "dunlin_code_mappings_total") - before;
        assert_eq!(mappings, 1.0, "it was mapped for it");
    }
    host.stop();
}

#[test]
fn events_that_come_together_map_a_version_once() {
    let host = hellos("rest-after = \"1s\"", 1, "provisioned = 0").start();
    for _ in 0..3 {
        all_rest(&host);
        let before = metric(&host, "dunlin_code_mappings_total");
        let requests: Vec<_> = (0..16).map(|_| host.http.spawn_get("/f0")).collect();
        for request in requests {
            assert_eq!(request.join().expect("it is answered").status, 200);
        }
        assert_eq!(
            metric(&host, "dunlin_code_mappings_total"),
            before + 1.0,
            "once for sixteen"
        );
    }
    host.stop();
}

#[test]
fn so_many_are_mapped_at_most() {
    let host = hellos("mapped = 2", 6, "").start();
    for _ in 0..2 {
        for number in 0..6 {
            greets(&host, &format!("f{number}"));
        }
        host.wait_for_metric("dunlin_code_mapped", &[], |n| n <= 2.0);
        assert!(metric(&host, "dunlin_code_resting") >= 4.0);
    }
    host.stop();
}

#[test]
fn what_was_asked_last_keeps_its_code_before_what_waits() {
    let host = hellos("mapped = 5", 10, "").start();
    for half in [0..5, 5..10, 0..5, 5..10] {
        let before = metric(&host, "dunlin_code_mappings_total");
        for number in half {
            // The second request finds the code where the first has mapped it.
            greets(&host, &format!("f{number}"));
            greets(&host, &format!("f{number}"));
        }
        let mapped = metric(&host, "dunlin_code_mappings_total") - before;
        assert!(mapped <= 6.0, "{mapped} mappings for five components");
        host.wait_for_metric("dunlin_code_mapped", &[], |n| n <= 5.0);
    }
    host.stop();
}

#[test]
fn what_keeps_none_gives_its_code_up_for_others() {
    // Each has an instance that waits for another event, and holds its code.
    let keys = "provisioned = 0\nisolation = \"reuse\"";
    let host = hellos("mapped = 1", 3, keys).start();
    for number in 0..3 {
        greets(&host, &format!("f{number}"));
    }
    // Without that, they would wait a minute.
    within(Duration::from_secs(40), "two give way", || {
        (metric(&host, "dunlin_code_mapped") <= 1.0).then_some(())
    });
    for number in 0..3 {
        greets(&host, &format!("f{number}"));
    }
    host.stop();
}

#[test]
fn what_runs_keeps_its_code_while_its_version_rests() {
    let component = http_component(&format!(
        "{MEMORY} {REALLOC} {}",
        // Some seconds, whatever the machine.
        handler(
            "(if (i32.gt_u (local.get 7) (i32.const 0)) (then
                (loop $again
                    (br_if $again (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1)))
                        (i64.const 3000000000))))))"
        )
        .replace("(local $n i32)", "(local $n i32) (local $i i64)")
    ));
    let host = hellos("mapped = 1\nrest-after = \"1s\"", 2, "")
        .function("long", &component, "timeout = \"2m\"\nfuel = \"off\"")
        .start();
    let client = host.http;
    let long = std::thread::spawn(move || client.post("/long", "x"));
    let running = [("function", "long")];
    host.wait_for_metric("dunlin_invocations_running", &running, |n| n == 1.0);
    // Others are mapped in its place, and rest again.
    while !long.is_finished() {
        for number in 0..2 {
            greets(&host, &format!("f{number}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let response = long.join().expect("it is answered");
    assert_eq!(response.status, 200, "{response:?}");
    all_rest(&host);
    assert_eq!(host.post("/long", "").status, 200);
    host.stop();
}

#[test]
fn a_pool_grows_with_what_comes_at_once_up_to_its_bound_and_ends_with_it() {
    // A start that takes a while: only then an instance is missed.
    let start = "(func $start (local $n i32) (local.set $n (i32.const 2000000))
        (loop $again (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
        (start $start)";
    let component = http_component(&format!("{MEMORY} {REALLOC} {} {start}", handler("")));
    let host = Host::builder()
        .manifest("[host]\nready-per-function = 5\nrest-after = \"4s\"")
        .function("slow", &component, "")
        .function("fixed", &component, "provisioned = 1")
        .start();
    let wanted = |name: &str| {
        let wanted = host.metric("dunlin_instances_wanted", &[("function", name)]);
        wanted.expect("it is shown for a few functions")
    };
    assert_eq!(wanted("slow"), 2.0);
    within(BUILD, "the pool has grown", || {
        let requests: Vec<_> = ["/slow", "/fixed"]
            .iter()
            .flat_map(|path| std::iter::repeat_n(path, 12))
            .map(|path| host.http.spawn_get(path))
            .collect();
        for request in requests {
            assert_eq!(request.join().expect("it is answered").status, 200);
        }
        assert!(wanted("slow") <= 5.0);
        (wanted("slow") == 5.0).then_some(())
    });
    host.wait_for_metric("dunlin_instances_ready", &[("function", "slow")], |n| {
        n == 5.0
    });
    host.wait_for_metric("dunlin_instances_ready", &[("function", "slow")], |n| {
        n == 0.0
    });
    assert_eq!(wanted("slow"), 0.0);
    // What says how many it keeps has kept as many.
    let fixed = host.metric("dunlin_instances_ready", &[("function", "fixed")]);
    assert_eq!(fixed, Some(1.0));
    host.stop();
}

#[test]
fn ready_per_function_bounds_what_a_function_keeps_that_does_not_say() {
    let host = hellos("ready-per-function = 1", 1, "").start();
    assert_eq!(metric(&host, "dunlin_instances_ready"), 1.0);
    host.stop();
}

#[test]
fn ready_memory_bounds_what_ready_instances_hold() {
    // An instance of hello holds more than 64 KiB and less than a MiB.
    for (bytes, range) in [("0", 0..=0), ("64KiB", 1..=1), ("4MiB", 5..=50)] {
        let host = hellos(&format!("ready-memory = {bytes:?}"), 1, "provisioned = 50").start();
        let ready = metric(&host, "dunlin_instances_ready");
        assert!(range.contains(&(ready as u32)), "{ready} with {bytes}");
        greets(&host, "f0");
        host.stop();
    }
}

#[test]
fn code_that_is_lost_while_it_rests_is_an_error_until_it_is_compiled_again() {
    let host = hellos("rest-after = \"1s\"", 1, "provisioned = 0").start();
    let remove = |file: &Path| std::fs::remove_file(file).unwrap();
    // One byte, in place, with its old times.
    let tamper = |file: &Path| {
        let modified = std::fs::metadata(file).unwrap().modified().unwrap();
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(file, bytes).unwrap();
        let times = std::fs::FileTimes::new().set_modified(modified);
        let opened = std::fs::File::open(file).unwrap();
        opened.set_times(times).unwrap();
    };
    type Lose<'l> = &'l dyn Fn(&Path);
    let cases: [(&str, Lose<'_>); 2] = [("gone", &remove), ("changed", &tamper)];
    for (count, (why, lose)) in cases.into_iter().enumerate() {
        greets(&host, "f0");
        all_rest(&host);
        let code = machine_code(&host.state());
        lose(&code[0]);

        let response = host.get("/f0");
        let got = (response.status, response.outcome());
        assert_eq!(got, (500, Some("host_error")), "{why}: {response:?}");
        let record = host.record(response.request_id());
        let message = record["message"].as_str().unwrap_or_default();
        for part in [why, "compiled again", &code[0].display().to_string()] {
            assert!(message.contains(part), "{part}: {record}");
        }
        within(BUILD, "it is compiled again", || {
            (host.get("/f0").status == 200).then_some(())
        });
        within(BUILD, "the log says that it is back", || {
            let lines = host.log().into_iter();
            let back = lines.filter(|line| {
                let message = line["message"].as_str().unwrap_or_default();
                message.starts_with("the machine code in") && message.ends_with("is back")
            });
            (back.count() == count + 1).then_some(())
        });
    }
    host.stop();
}

#[test]
fn lost_code_whose_component_is_gone_too_says_which() {
    let host = hellos("rest-after = \"1s\"", 1, "provisioned = 0").start();
    all_rest(&host);
    std::fs::remove_file(host.folder().join("v0.wasm")).unwrap();
    std::fs::remove_file(&machine_code(&host.state())[0]).unwrap();
    assert_eq!(host.get("/f0").outcome(), Some("host_error"));
    host.wait_for_log(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "error"
            && message.contains("v0.wasm cannot be compiled again: no such file")
    });
    assert_eq!(host.get("/f0").outcome(), Some("host_error"));
    host.stop();
}

#[test]
fn a_version_that_rests_is_reloaded() {
    let host = hellos("rest-after = \"1s\"", 2, "provisioned = 0")
        .args(["--watch"])
        .start();
    let put = |contents: Vec<u8>| {
        let beside = host.folder().join("v0.wasm~");
        std::fs::write(&beside, contents).unwrap();
        std::fs::rename(beside, host.folder().join("v0.wasm")).unwrap();
    };
    let other = http_component(&format!(
        "{MEMORY} {REALLOC} {} (data (i32.const 64) \"else\")",
        handler("")
    ));
    greets(&host, "f0");
    all_rest(&host);
    put(std::fs::read(other).unwrap());
    within(BUILD, "the new component answers", || {
        (host.get("/f0").text() == "else").then_some(())
    });
    all_rest(&host);
    put(variant(0));
    within(BUILD, "the old one answers again", || {
        (host.get("/f0").text() == "Hello, world!\n").then_some(())
    });
    greets(&host, "f1");
    host.stop();
}

#[test]
fn hundreds_of_functions_begin_at_rest_and_take_little() {
    let state = tempfile::tempdir().unwrap();
    let few = |count: usize, same: usize| {
        let mut builder =
            hellos("", count, "").args(["--state", state.path().join("state").to_str().unwrap()]);
        for number in 0..same {
            builder = beside(builder, &format!("same-{number}"), "v0.wasm", "");
        }
        builder.start()
    };
    // Fills the cache.
    few(4, 0).stop();
    let alone = few(4, 0);
    let base = alone.rss();
    alone.stop();

    let host = few(4, 600);
    let scrape = host.scrape();
    let get = |name| scrape.get(name, &[]);
    assert_eq!(
        (get("dunlin_code_mapped"), get("dunlin_code_resting")),
        (Some(0.0), Some(4.0))
    );
    assert_eq!(get("dunlin_code_mappings_total"), Some(0.0));
    let each = host.rss().saturating_sub(base) / 600;
    // Measured with a debug build: 30 KiB, most of it series of the first 256.
    assert!(each < 64 << 10, "{each} bytes for each function");

    for number in (0..600).step_by(40) {
        greets(&host, &format!("same-{number}"));
    }
    for number in 0..4 {
        greets(&host, &format!("f{number}"));
    }
    assert_eq!(metric(&host, "dunlin_code_mapped"), 4.0);
    assert_eq!(metric(&host, "dunlin_code_mappings_total"), 4.0);
    host.stop();
}

#[test]
fn what_was_checked_before_is_refused_all_the_same_where_it_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let args = ["--state", state.to_str().unwrap()];
    let large = http_component(&format!(
        "(memory (export \"memory\") 40) {REALLOC} {}",
        handler("")
    ));
    let with = |keys: &str| {
        let builder = Host::builder().args(args);
        let builder = builder.file("v0.wasm", std::fs::read(&large).unwrap());
        beside(builder, "f", "v0.wasm", keys)
    };
    with("").start().stop();
    let again = with("provisioned = 0").start();
    assert_eq!(
        metric(&again, "dunlin_code_mappings_total"),
        0.0,
        "it was checked"
    );
    again.stop();

    for (builder, part) in [
        (with("memory = \"1MiB\""), "raise `memory`"),
        (
            with("\n[[function.f.queue]]\nname = \"q\"\n").manifest("[queue.q]"),
            "exports no handler for the queue",
        ),
        (
            beside(Host::builder().args(args), "f", "v0.wasm", ""),
            "no such file",
        ),
    ] {
        let failure = builder.start_expecting_failure();
        assert!(failure.stderr.contains(part), "{part}: {failure:?}");
    }

    // Another component in its place is another one.
    let other = Host::builder().args(args).file("v0.wasm", variant(0));
    let host = beside(other, "f", "v0.wasm", "").start();
    greets(&host, "f");
    host.stop();

    // Machine code that was changed while the host was down is made anew at the start.
    for file in machine_code(&state) {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, "no code").unwrap();
    }
    let host = with("").start();
    assert_eq!(host.get("/f").status, 200);
    host.stop();
}
