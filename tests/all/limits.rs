//! Every key of the manifest does something: each test here fails when its key
//! is ignored. Those that only clients of HTTP notice (timeouts and sizes of
//! connections) are tested there.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dunlin_tests::{Builder, Host, Response, guest};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::scene::{OUT_OF_FUEL, Scene, TIMEOUT, TOO_LARGE};
use crate::wat::{MEMORY, REALLOC, handler, http_component};

/// The guest `hostile`, deployed twice under these names with these keys.
fn both(first: (&str, &str), second: (&str, &str)) -> Builder {
    Host::builder()
        .function(first.0, &guest("hostile"), first.1)
        .function(second.0, &guest("hostile"), second.1)
}

fn hostile(keys: &str) -> Builder {
    Host::builder().function("hostile", &guest("hostile"), keys)
}

#[track_caller]
fn is_throttled(response: &Response) {
    assert_eq!(
        (response.status, response.outcome()),
        (429, Some("throttled")),
        "{response:?}"
    );
    let after: u64 = response
        .header("retry-after")
        .and_then(|after| after.parse().ok())
        .unwrap_or_else(|| panic!("no Retry-After: {response:?}"));
    assert!((1..60).contains(&after));
}

/// Starts invocations that go on for some time, and waits until they run.
#[track_caller]
fn running(
    host: &Host,
    function: &str,
    count: usize,
    ms: u32,
) -> Vec<std::thread::JoinHandle<Response>> {
    let target = format!("/{function}/sleep?n={ms}");
    let requests = (0..count).map(|_| host.http.spawn_get(&target)).collect();
    host.wait_for_metric(
        "dunlin_invocations_running",
        &[("function", function)],
        |n| n >= count as f64,
    );
    requests
}

#[track_caller]
fn all_succeed(requests: Vec<std::thread::JoinHandle<Response>>) {
    for request in requests {
        let response = request.join().expect("each is answered");
        assert_eq!(response.status, 200, "{response:?}");
    }
}

#[test]
fn memory() {
    let host = both(
        ("small", "memory = \"8MiB\""),
        ("large", "memory = \"64MiB\""),
    )
    .start();
    let got = |name: &str| -> u32 {
        let response = host.get(&format!("/{name}/modest?n=1000"));
        response
            .text()
            .parse()
            .unwrap_or_else(|_| panic!("{response:?}"))
    };
    assert!((3..8).contains(&got("small")));
    assert!((40..64).contains(&got("large")));
    host.stop();
}

#[test]
fn timeout() {
    let scene = Scene::new(both(
        ("short", "timeout = \"250ms\""),
        ("long", "timeout = \"30s\""),
    ));
    scene.ends("/short/sleep?n=2000", &TIMEOUT);
    assert_eq!(scene.host.get("/long/sleep?n=2000").status, 200);
    scene.end();
}

#[test]
fn fuel() {
    let scene = Scene::new(
        both(("few", "fuel = 1_000_000"), ("off", "fuel = \"off\"")).function(
            "auto",
            &guest("hostile"),
            "fuel = \"auto\"\ntimeout = \"1ms\"",
        ),
    );
    let work = "work?n=3000000";
    scene.ends(&format!("/few/{work}"), &OUT_OF_FUEL);
    let off = scene.host.get(&format!("/off/{work}"));
    assert_eq!(off.status, 200);
    // What is unlimited is not counted.
    assert_eq!(scene.host.record(off.request_id())["fuel"], 0);
    // 20 billion a second: 20 million in a millisecond. Whichever comes first.
    let auto = scene.host.get("/auto/spin");
    assert!(
        matches!(auto.outcome(), Some("timeout" | "out_of_fuel")),
        "{auto:?}"
    );
    scene.end();
}

#[test]
fn fuel_auto_follows_from_the_timeout() {
    // What counts and takes no time: ten thousand instructions in each round that the
    // compiler leaves out. So the budget comes before the deadline.
    let round = "(drop (i32.const 0))".repeat(10_000);
    let body = format!(
        "(if (i32.gt_u (local.get 7) (i32.const 0)) (then
            (local.set $n (i32.const 100000000))
            (loop $again
                {round}
                (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))"
    );
    let component = http_component(&format!("{MEMORY} {REALLOC} {}", handler(&body)));
    let function = |builder: Builder, name: &str, keys: &str| {
        builder.function(name, &component, &format!("fuel = \"auto\"\n{keys}"))
    };
    let builder = function(Host::builder(), "short", "timeout = \"5s\"");
    let builder = function(builder, "long", "timeout = \"60s\"");
    let observer = "fuel = \"auto\"\ntimeout = \"7s\"";
    let scene = Scene::new(builder.function("observer", &guest("observer"), observer));

    let record = scene.post_ends("/short", "x", &OUT_OF_FUEL);
    assert_eq!(record["fuel"], 100_000_000_000_u64, "20 billion a second");
    let long = scene.host.post("/long", "x");
    assert_eq!(long.status, 200, "{long:?}");
    let used = scene.host.record(long.request_id())["fuel"].as_u64();
    let enough = 1_000_000_000_000..1_200_000_000_000;
    assert!(used.is_some_and(|used| enough.contains(&used)), "{used:?}");
    // The guest is told of the same budget.
    let seen = scene.host.get("/observer/context").json();
    let left = seen["fuel"].as_u64();
    let left_of = 139_000_000_000..140_000_000_000;
    assert!(left.is_some_and(|left| left_of.contains(&left)), "{seen}");
    scene.end();
}

#[test]
fn request_limit() {
    let host = both(("small", "request-limit = \"1KiB\""), ("usual", "")).start();
    let most = "x".repeat(1024);
    assert_eq!(host.post("/small/length", &most).text(), "1024");
    let over = host.post("/small/length", format!("{most}x"));
    assert_eq!(over.status, 413, "{over:?}");
    assert!(over.text().contains("1024"), "{over:?}");
    assert_eq!(
        host.post("/usual/length", format!("{most}x")).text(),
        "1025"
    );
    host.stop();
}

#[test]
fn response_limit() {
    let scene = Scene::new(both(("small", "response-limit = \"1KiB\""), ("usual", "")));
    assert_eq!(scene.host.get("/small/large?n=1024").body.len(), 1024);
    scene.ends("/small/large?n=1025", &TOO_LARGE);
    // Headers count as well.
    scene.ends("/small/headers?n=200", &TOO_LARGE);
    assert_eq!(scene.host.get("/usual/large?n=1025").body.len(), 1025);
    scene.end();
}

#[test]
fn log_limit() {
    let host = both(
        ("quiet", "log-limit = \"0B\""),
        ("loud", "log-limit = \"1MiB\""),
    )
    .start();
    let body = "a line of one hundred bytes or so, which is how it goes, and goes, and goes on\n"
        .repeat(1000);
    let messages = |name: &str| {
        let response = host.post(&format!("/{name}/print"), &body);
        assert_eq!(response.status, 200);
        host.guest_log(response.request_id()).len()
    };
    assert_eq!(messages("quiet"), 1, "the note alone");
    assert_eq!(messages("loud"), 1000);
    host.stop();
}

#[test]
fn isolation() {
    let host = both(
        ("fresh", "isolation = \"fresh\"\nprovisioned = 1"),
        ("reuse", "isolation = \"reuse\"\nprovisioned = 1"),
    )
    .start();
    for round in 0..4 {
        assert_eq!(host.get("/fresh/find-secret").text(), "served 0 found 0");
        let reused = host.get("/reuse/find-secret").text();
        assert_eq!(reused, format!("served {round} found 0"));
    }
    host.stop();
}

#[test]
fn reserved_concurrency_is_the_most_a_function_gets() {
    let host = Host::builder()
        .manifest("[host]\nadmission-wait = \"0\"")
        .function(
            "two",
            &guest("hostile"),
            "reserved-concurrency = 2\ntimeout = \"30s\"",
        )
        .function("none", &guest("hostile"), "reserved-concurrency = 0")
        .start();
    is_throttled(&host.get("/none/ok"));
    let two = running(&host, "two", 2, 1500);
    is_throttled(&host.get("/two/ok"));
    all_succeed(two);
    assert_eq!(host.get("/two/ok").status, 200);
    let labels = [("function", "two"), ("outcome", "throttled")];
    host.wait_for_metric("dunlin_invocations_total", &labels, |n| n == 1.0);
    host.stop();
}

#[test]
fn reserved_concurrency_is_set_aside_from_the_others() {
    let host = Host::builder()
        .manifest("[host]\nadmission-wait = \"0\"\nconcurrency = 3")
        .function("reserves", &guest("hostile"), "reserved-concurrency = 2")
        .function("shares", &guest("hostile"), "timeout = \"30s\"")
        .start();
    let one = running(&host, "shares", 1, 1500);
    is_throttled(&host.get("/shares/ok"));
    assert_eq!(host.get("/reserves/ok").status, 200);
    all_succeed(one);
    host.stop();
}

#[test]
fn concurrency() {
    let host = hostile("timeout = \"30s\"")
        .manifest("[host]\nconcurrency = 2\nadmission-wait = \"0\"")
        .start();
    let two = running(&host, "hostile", 2, 1500);
    let third = host.get("/hostile/ok");
    is_throttled(&third);
    let record = host.record(third.request_id());
    assert_eq!(record["outcome"], "throttled", "{record}");
    assert_eq!(record["error_type"], "TooManyRequestsException", "{record}");
    all_succeed(two);
    assert_eq!(host.get("/hostile/ok").status, 200);
    host.stop();
}

#[test]
fn admission_wait() {
    let host = hostile("timeout = \"30s\"")
        .manifest("[host]\nconcurrency = 1\nadmission-wait = \"30s\"")
        .start();
    let one = running(&host, "hostile", 1, 1000);
    let waits = host.http.spawn_get("/hostile/ok");
    host.wait_for_metric("dunlin_admission_waiting", &[], |n| n == 1.0);
    let response = waits.join().expect("it is answered");
    assert_eq!(response.status, 200, "{response:?}");
    let waited = host.record(response.request_id())["waited_ms"].as_f64();
    assert!(waited.is_some_and(|waited| waited > 1.0), "{waited:?}");
    all_succeed(one);
    host.wait_until_quiet();
    host.stop();
}

#[test]
fn an_event_that_waits_in_vain_for_admission_is_throttled() {
    let wait = Duration::from_millis(300);
    let host = hostile("timeout = \"60s\"")
        .manifest("[host]\nconcurrency = 1\nadmission-wait = \"300ms\"")
        .start();
    // Holds the only place until it goes.
    let mut holder = TcpStream::connect(host.http.address()).unwrap();
    let request = "GET /hostile/sleep?n=50000 HTTP/1.1\r\nhost: a\r\n\r\n";
    holder.write_all(request.as_bytes()).unwrap();
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);

    let begun = Instant::now();
    let response = host.get("/hostile/ok");
    assert!(begun.elapsed() >= wait);
    is_throttled(&response);
    let record = host.record(response.request_id());
    let waited = record["waited_ms"].as_f64();
    assert!(waited.is_some_and(|waited| waited >= 300.0), "{record}");
    assert_eq!(record["error_type"], "TooManyRequestsException", "{record}");
    assert_eq!(host.metric("dunlin_admission_waiting", &[]), Some(0.0));

    drop(holder);
    host.wait_until_quiet();
    assert_eq!(host.get("/hostile/ok").status, 200);
    host.stop();
}

#[test]
fn provisioned() {
    let host = both(("five", "provisioned = 5"), ("none", "provisioned = 0"))
        .function("usual", &guest("hostile"), "")
        .start();
    let ready = |name| host.metric("dunlin_instances_ready", &[("function", name)]);
    assert_eq!(
        (ready("five"), ready("none"), ready("usual")),
        (Some(5.0), Some(0.0), Some(2.0))
    );
    for name in ["five", "none"] {
        assert_eq!(host.get(&format!("/{name}/ok")).status, 200);
    }
    let leases = |name, source| {
        host.metric(
            "dunlin_leases_total",
            &[("function", name), ("source", source)],
        )
    };
    assert_eq!(
        (leases("five", "ready"), leases("five", "on_demand")),
        (Some(1.0), Some(0.0))
    );
    assert_eq!(
        (leases("none", "ready"), leases("none", "on_demand")),
        (Some(0.0), Some(1.0))
    );
    // Made up for.
    host.wait_for_metric("dunlin_instances_ready", &[("function", "five")], |n| {
        n == 5.0
    });
    host.stop();
}

#[test]
fn weight() {
    let host = both(
        ("light", "weight = 100\ntimeout = \"4s\""),
        ("heavy", "weight = 400\ntimeout = \"4s\""),
    )
    .start();
    // More of each than there are cores; first one function's, then the other's.
    let mut spinning = Vec::new();
    for name in ["light", "heavy"] {
        spinning.extend((0..6).map(|_| host.http.spawn_get(&format!("/{name}/spin"))));
        host.wait_for_metric("dunlin_invocations_running", &[("function", name)], |n| {
            n == 6.0
        });
    }
    is_shared_by_weight(&host, spinning);
    host.stop();
}

#[test]
fn weight_however_connections_come() {
    let host = both(
        ("light", "weight = 100\ntimeout = \"4s\""),
        ("heavy", "weight = 400\ntimeout = \"4s\""),
    )
    .start();
    // In turn: dealt out to two cores, one gets all of the one function and the other all
    // of the other. So invocations must start on the core that has less of their function.
    let mut spinning = Vec::new();
    for _ in 0..6 {
        for name in ["light", "heavy"] {
            spinning.push(host.http.spawn_get(&format!("/{name}/spin")));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    is_shared_by_weight(&host, spinning);
    host.stop();
}

#[track_caller]
fn is_shared_by_weight(host: &Host, spinning: Vec<std::thread::JoinHandle<Response>>) {
    for request in spinning {
        assert_eq!(request.join().expect("each is answered").status, 504);
    }
    let cpu = |name| {
        host.metric("dunlin_invocation_cpu_seconds_total", &[("function", name)])
            .unwrap_or_default()
    };
    let (light, heavy) = (cpu("light"), cpu("heavy"));
    let ratio = heavy / light;
    assert!(
        (2.0..8.0).contains(&ratio),
        "{heavy} s to {light} s: {ratio}, not about 4"
    );
}

#[test]
fn environment() {
    let host = Host::builder()
        .file("greeting.txt", "from a file\n")
        .env("OF_THE_HOST", "not for guests")
        .env("DOOR", "from the host's environment")
        .function(
            "observer",
            &guest("observer"),
            "environment = { PLAIN = \"as it stands\", READ = { file = \"greeting.txt\" }, \
             PASSED = { env = \"DOOR\" } }",
        )
        .start();
    let seen = host.get("/observer/environment").json();
    assert_eq!(
        seen["variables"],
        serde_json::json!({
            "PASSED": "from the host's environment",
            "PLAIN": "as it stands",
            "READ": "from a file",
        })
    );
    host.stop();
}

#[test]
fn secrets() {
    const VALUE: &str = "correct-horse-battery-staple";
    const OTHER: &str = "hunter-two-of-the-environment";
    let host = Host::builder()
        .file("password.txt", format!("{VALUE}\n"))
        .env("TOKEN_OF_THE_HOST", OTHER)
        .function(
            "observer",
            &guest("observer"),
            "secrets = { password = { file = \"password.txt\" }, \
             token = { env = \"TOKEN_OF_THE_HOST\" } }",
        )
        .function("nosy", &guest("observer"), "")
        .start();
    let secret = |function, name| host.get(&format!("/{function}/secret?name={name}")).json();
    assert_eq!(secret("observer", "password"), VALUE);
    assert_eq!(secret("observer", "token"), OTHER);
    for (function, name) in [
        ("observer", "undeclared"),
        ("observer", "PASSWORD"),
        ("observer", "password.txt"),
        ("observer", "TOKEN_OF_THE_HOST"),
        ("observer", ""),
        ("nosy", "password"),
    ] {
        assert_eq!(
            secret(function, name),
            serde_json::Value::Null,
            "{function} {name}"
        );
    }
    // In no place where others look.
    let environment = host.get("/observer/environment").text();
    let metrics = host.scrape().text;
    let stderr = host.stderr().join("\n");
    let log: String = host.stop().iter().map(ToString::to_string).collect();
    for text in [environment, metrics, stderr, log] {
        assert!(!text.contains(VALUE) && !text.contains(OTHER), "{text}");
    }
}

#[test]
fn memory_budget() {
    let host = hostile("memory = \"128MiB\"")
        .manifest("[host]\nmemory-budget = \"24MiB\"")
        .start();
    assert_eq!(
        host.metric("dunlin_memory_budget_bytes", &[]),
        Some(24.0 * 1024.0 * 1024.0)
    );
    let got: u32 = host
        .get("/hostile/modest?n=1000")
        .text()
        .parse()
        .expect("a number");
    assert!((8..24).contains(&got), "{got}");
    host.stop();
}

#[test]
fn bodies_are_charged_to_the_memory_budget() {
    let host = hostile("request-limit = \"32MiB\"\nprovisioned = 0")
        .manifest("[host]\nmemory-budget = \"16MiB\"")
        .start();
    let response = host.post("/hostile/length", vec![b'x'; 20 << 20]);
    assert_eq!(response.status, 503, "{:?}", response.headers);
    assert!(response.header("retry-after").is_some());
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |n| n == 0.0);
    host.stop();
}

#[test]
fn answers_are_charged_to_the_memory_budget() {
    let host = hostile("response-limit = \"6MiB\"\nprovisioned = 0\nmemory = \"32MiB\"")
        .manifest("[host]\nmemory-budget = \"20MiB\"")
        .start();
    // Clients that do not read: what the sockets do not take stays with the host.
    let mut clients = Vec::new();
    let request = "GET /hostile/large?n=4000000 HTTP/1.1\r\nhost: a\r\n\r\n";
    for _ in 0..6 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&host.http.address().into()).unwrap();
        let mut client = TcpStream::from(socket);
        client.write_all(request.as_bytes()).unwrap();
        clients.push(client);
    }
    let out_of_memory = [("function", "hostile"), ("outcome", "out_of_memory")];
    host.wait_for_metric("dunlin_invocations_total", &out_of_memory, |n| n >= 1.0);
    assert!(host.metric("dunlin_memory_used_bytes", &[]) > Some(4_000_000.0));
    drop(clients);
    host.wait_for_metric("dunlin_memory_used_bytes", &[], |n| n == 0.0);
    assert_eq!(host.get("/hostile/large?n=4000000").status, 200);
    host.stop();
}

#[test]
fn max_memory() {
    let host = hostile("memory = \"64MiB\"")
        .manifest("[host]\nmax-memory = \"64MiB\"")
        .start();
    let response = host.get("/hostile/modest?n=1000");
    let got: u32 = response.text().parse().expect("a number");
    assert!((40..64).contains(&got), "{got}");
    host.stop();

    let failure = hostile("memory = \"128MiB\"")
        .manifest("[host]\nmax-memory = \"64MiB\"")
        .start_expecting_failure();
    assert_eq!(failure.code, 64);
    for part in ["max-memory", "64MiB", "128MiB"] {
        assert!(failure.stderr.contains(part), "{failure:?}");
    }
}

#[test]
fn ready() {
    let failure = hostile("provisioned = 6")
        .manifest("[host]\nready = 5")
        .start_expecting_failure();
    assert_eq!(failure.code, 64);
    assert!(failure.stderr.contains("`ready`"), "{failure:?}");
}

#[test]
fn ready_bounds_what_waits_over_all_functions() {
    // Three by default, of two each: there is room for half of them.
    let host = both(("one", ""), ("two", ""))
        .manifest("[host]\nready = 3")
        .function("three", &guest("hostile"), "")
        .start();
    let ready = || host.metric("dunlin_instances_ready", &[]);
    assert_eq!(ready(), Some(3.0));
    // All are served, also those with nothing ready, and none takes more than is left.
    for _ in 0..5 {
        for name in ["one", "two", "three"] {
            assert_eq!(host.get(&format!("/{name}/ok")).status, 200);
            assert!(ready() <= Some(3.0));
        }
    }
    host.wait_for_metric("dunlin_instances_ready", &[], |n| n == 3.0);
    host.stop();
}

#[test]
fn drain_timeout() {
    let sleeper = |drain: &str| {
        hostile("timeout = \"60s\"")
            .manifest(format!("[host]\ndrain-timeout = \"{drain}\""))
            .start()
    };
    // What is in flight ends.
    let mut host = sleeper("60s");
    let request = running(&host, "hostile", 1, 1500);
    host.signal(Signal::TERM);
    all_succeed(request);
    assert_eq!(host.wait_for_exit(Duration::from_secs(20)).code(), Some(0));

    // It does not, and is told so.
    let mut host = sleeper("400ms");
    let mut request = running(&host, "hostile", 1, 50_000);
    let begun = Instant::now();
    host.signal(Signal::TERM);
    let response = request.remove(0).join().expect("it is answered");
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(host.wait_for_exit(Duration::from_secs(20)).code(), Some(1));
    assert!(begun.elapsed() >= Duration::from_millis(400));
}

#[test]
fn memory_reset() {
    // A guest that writes to all of its 1.5 MiB: memset keeps 128 KiB of a slot
    // resident for the next guest, pagemap all of it.
    let module = format!(
        r#"(memory (export "memory") 24) {REALLOC} {}"#,
        handler(
            "(memory.fill (i32.const 1048576) (i32.const 7) (i32.const 524288))
             (memory.fill (i32.const 65536) (i32.const 7) (i32.const 983040))
             (if (i32.gt_u (local.get 7) (i32.const 0)) (then
                (local.set $n (i32.const 400000000))
                (loop $again
                    (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))"
        )
    );
    let component = http_component(&module);
    let resident = |reset: &str| -> Option<u64> {
        let started = Host::builder()
            .manifest(format!("[host]\nmemory-reset = \"{reset}\""))
            .function("wide", &component, "timeout = \"60s\"\nprovisioned = 60")
            .try_start();
        let host = match started {
            Ok(host) => host,
            Err(failure) if reset == "pagemap" => {
                assert!(
                    failure.stderr.contains("memory-reset: pagemap"),
                    "{failure:?}"
                );
                return None;
            }
            Err(failure) => panic!("{failure:?}"),
        };
        let before = host.rss();
        let client = host.http;
        let requests: Vec<_> = (0..40)
            .map(|_| std::thread::spawn(move || client.post("/wide", "x")))
            .collect();
        for request in requests {
            assert_eq!(request.join().expect("each is answered").status, 200);
        }
        host.wait_until_quiet();
        let after = host.rss();
        host.stop();
        Some(after.saturating_sub(before))
    };
    let memset = resident("memset").expect("it works everywhere");
    let Some(pagemap) = resident("pagemap") else {
        return;
    };
    assert!(
        pagemap > memset + (16 << 20),
        "{pagemap} with pagemap, {memset} with memset"
    );
}

#[test]
fn log_invocations() {
    let host = hostile("")
        .manifest("[host]\nlog-invocations = \"failures\"")
        .start();
    let well = host.get("/hostile/ok").request_id().to_owned();
    let badly = host.get("/hostile/unreachable").request_id().to_owned();
    host.record(&badly);
    let log = host.stop();
    let records: Vec<_> = log
        .iter()
        .filter(|line| line["kind"] == "invocation")
        .collect();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["request_id"], badly.as_str());
    assert!(!log.iter().any(|line| line["request_id"] == well.as_str()));
}

#[test]
fn account_and_region() {
    let host = Host::builder()
        .manifest("[host]\naccount = \"210987654321\"\nregion = \"attic-7\"")
        .function("observer", &guest("observer"), "")
        .start();
    assert_eq!(
        host.get("/observer/context").json()["invokedAs"],
        "arn:aws:lambda:attic-7:210987654321:function:observer"
    );
    host.stop();
}
