//! `/health`, `/ready` and `/metrics`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dunlin_tests::{Client, Host, PATIENCE, repository};
use rustix::process::Signal;

use super::PROBE;
use crate::http::wire::Wire;
use crate::http::{box_with, up};

#[test]
fn probes_and_prometheus_need_no_signature() {
    let host = up(PROBE);
    assert_eq!(
        (
            host.admin.get("/health").status,
            host.admin.get("/health").text().as_str()
        ),
        (200, "ok\n")
    );
    assert_eq!(
        (
            host.admin.get("/ready").status,
            host.admin.get("/ready").text().as_str()
        ),
        (200, "ready\n")
    );
    let response = host.admin.get("/metrics");
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(
        response
            .text()
            .contains("# TYPE dunlin_leases_total counter")
    );
    assert_eq!(
        host.admin.request("POST", "/metrics", &[], b"x").status,
        405
    );
    let mut connection = host.admin.connect();
    let head = connection.request("HEAD", "/health", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        host.get("/metrics").status,
        404,
        "the HTTP trigger has none of it"
    );
    assert_eq!(host.get("/health").status, 404);
}

#[test]
fn metrics_may_have_an_address_of_their_own() {
    let host = box_with(PROBE).args(["--metrics", "127.0.0.1:0"]).start();
    assert_ne!(host.metrics.address(), host.admin.address());
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(host.metrics.get(path).status, 200, "{path}");
        assert_eq!(
            host.admin.get(path).status,
            403,
            "{path} is not on the admin address any more"
        );
    }
    for path in ["/", "/2015-03-31/functions", "/metrics/x"] {
        assert_eq!(host.metrics.get(path).status, 404, "{path}");
    }
    let response = host
        .metrics
        .post("/2015-03-31/functions/probe/invocations", "{}");
    assert_eq!(
        response.status, 404,
        "the API is not on the metrics address"
    );
    // Prometheus comes by whatever name its configuration has.
    let response = host
        .metrics
        .request("GET", "/metrics", &[("host", "box.example:9100")], b"");
    assert_eq!(response.status, 200);
}

#[test]
fn metrics_answer_while_guests_hold_every_core() {
    let host: Host = up(r#"
[function.probe]
component = "{probe}"
timeout = "30s"
fuel = "off"

[[function.probe.http]]
path = "/probe"
"#);
    let count = 4 * std::thread::available_parallelism().unwrap().get();
    let spinning: Vec<Wire> = (0..count)
        .map(|_| {
            let mut wire = Wire::connect(host.http.address());
            wire.send("GET /probe?spin HTTP/1.1\r\nhost: a\r\n\r\n");
            wire
        })
        .collect();
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == count as f64);
    let quick = |client: Client, path: &str| {
        let mut connection = client.connect();
        connection.set_read_timeout(Duration::from_secs(1));
        connection.request("GET", path, &[], b"").status
    };
    for _ in 0..20 {
        for path in ["/metrics", "/ready", "/health"] {
            assert_eq!(quick(host.metrics, path), 200, "{path}");
        }
    }
    for wire in spinning {
        wire.reset();
    }
    host.wait_until_quiet();
}

#[test]
fn what_a_function_did_is_counted() {
    let host = up(PROBE);
    for _ in 0..3 {
        assert_eq!(host.get("/probe").status, 200);
    }
    assert_eq!(host.get("/nothing").status, 404);
    let metrics = host.scrape();
    let probe = [("function", "probe")];
    assert_eq!(
        metrics.get(
            "dunlin_invocations_total",
            &[
                ("function", "probe"),
                ("trigger", "http"),
                ("outcome", "ok")
            ]
        ),
        Some(3.0)
    );
    assert_eq!(
        metrics.get("dunlin_invocation_duration_seconds_count", &probe),
        Some(3.0)
    );
    assert_eq!(metrics.get("dunlin_leases_total", &probe), Some(3.0));
    assert!(metrics.get("dunlin_invocation_fuel_total", &probe) > Some(0.0));
    assert!(metrics.get("dunlin_invocation_cpu_seconds_total", &probe) > Some(0.0));
    assert_eq!(
        metrics.get("dunlin_http_responses_total", &[("class", "2xx")]),
        Some(3.0)
    );
    assert_eq!(
        metrics.get("dunlin_http_responses_total", &[("class", "4xx")]),
        Some(1.0)
    );
    assert_eq!(metrics.get("dunlin_http_accepted_total", &[]), Some(4.0));
    assert!(metrics.get("dunlin_memory_budget_bytes", &[]) > Some(0.0));
}

/// The first cells of the tables' rows in a page of Markdown, if they are code.
fn documented(page: &str) -> BTreeSet<String> {
    let cell = |line: &str| {
        Some(
            line.strip_prefix('|')?
                .trim_start()
                .strip_prefix('`')?
                .split_once('`')?
                .0
                .to_owned(),
        )
    };
    page.lines()
        .filter_map(cell)
        .filter(|name| name.starts_with("dunlin_"))
        .collect()
}

#[test]
fn the_metrics_are_those_that_are_documented() {
    let manifest = format!(
        "[host]\nidle-timeout = \"200ms\"\negress = [\"http://127.0.0.1:9\"]\n{PROBE}\
         [function.probe.async]\non-success = {{ http = \"http://127.0.0.1:9/\" }}\n\
         on-failure = {{ http = \"http://127.0.0.1:9/\" }}\nmax-attempts = 1\n\
         [function.values]\ncomponent = \"{{values}}\"\n\
         egress = [\"http://127.0.0.1:9\"]\n[[function.values.http]]\npath = \"/values\"\n\
         [[function.values.key-value]]\nbucket = \"b\"\n[key-value.b]\n"
    );
    let host = box_with(&manifest).args(["--insecure-admin"]).start();
    // Families without a series are not shown until they have one: those of events, of a
    // timeout, of buckets, of deliveries (there is nobody at that port) and of guests.
    let looked = host.post("/values", r#"{ "bucket": "b", "do": [["get", "k"]] }"#);
    assert_eq!(looked.text(), r#"[{"ok":null}]"#);
    let event = [("x-amz-invocation-type", "Event")];
    let target = "/2015-03-31/functions/probe/invocations";
    let accepted = host.admin.request("POST", target, &event, b"{}");
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let mut wire = Wire::connect(host.http.address());
    assert_eq!(wire.get("/probe?measure").status, 200);
    wire.closed();
    host.wait_for_metric("dunlin_http_timeouts_total", &[("timeout", "idle")], |n| {
        n == 1.0
    });
    host.wait_for_metric("dunlin_deliveries_total", &[("result", "retried")], |n| {
        n >= 1.0
    });
    let served: BTreeSet<String> = host
        .scrape()
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    assert!(served.contains("dunlin_guest_histogram"), "{served:?}");
    let page = repository().join("docs/metrics.md");
    let page = std::fs::read_to_string(&page)
        .unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    assert_eq!(
        documented(&page),
        served,
        "left: docs/metrics.md, right: what is served"
    );
}

#[test]
fn direct_invocations_leave_room_for_whoever_asks_how_the_host_is() {
    let host = box_with(PROBE).args(["--insecure-admin"]).start();
    let head = format!(
        "POST /2015-03-31/functions/probe/invocations HTTP/1.1\r\nhost: {}\r\n\
         content-length: 2\r\n\r\n",
        host.admin.address()
    );
    // Each has sent half of its request.
    let mut slow: Vec<Wire> = (0..600)
        .map(|_| {
            let mut wire = Wire::connect(host.admin.address());
            wire.send(&head);
            wire
        })
        .collect();
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(host.admin.get(path).status, 200, "{path}");
    }
    // Those that found no room have their answer already, and their connections end.
    for wire in &mut slow {
        let _ = wire.try_send("{}");
    }
    let (mut answered, mut refused) = (0, 0);
    for wire in &mut slow {
        let answer = wire.answer();
        match answer.status {
            200 => answered += 1,
            429 => {
                assert_eq!(answer.header("retry-after"), Some("1"));
                assert!(answer.closes());
                refused += 1;
            }
            other => panic!("{other}: {answer:?}"),
        }
    }
    assert_eq!((answered, refused), (448, 152));
}

#[test]
fn a_client_that_does_not_read_does_not_hold_the_drain() {
    let mut host = box_with(PROBE).start();
    let mut wire = Wire::connect(host.admin.address());
    let socket = socket2::SockRef::from(&wire.stream);
    socket.set_recv_buffer_size(64 << 10).unwrap();
    // More than the sockets' buffers hold.
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n",
        host.admin.address()
    );
    wire.send(request.repeat(2000));
    std::thread::sleep(Duration::from_millis(500));
    host.signal(Signal::TERM);
    // The drain may take 30 s.
    assert_eq!(host.wait_for_exit(2 * PATIENCE).code(), Some(0));
    assert!(!host.log_text().contains("the drain timeout has passed"));
}

#[test]
fn queues_show_how_full_they_are_and_how_old_their_messages() {
    let manifest = format!("[queue.orders]\n[queue.empty]\n{PROBE}");
    let host = box_with(&manifest).args(["--insecure-admin"]).start();
    let headers = [
        ("x-amz-target", "AmazonSQS.SendMessage"),
        ("content-type", "application/x-amz-json-1.0"),
    ];
    let before = Instant::now();
    for _ in 0..3 {
        let body = br#"{"QueueUrl":"http://h/1/orders","MessageBody":"12345"}"#;
        let answer = host.admin.request("POST", "/", &headers, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let orders = [("queue", "orders")];
    // Nobody touches the queue, and it ages all the same.
    let age = host.wait_for_metric("dunlin_queue_oldest_age_seconds", &orders, |age| age > 0.1);
    assert!(age <= before.elapsed().as_secs_f64(), "{age}");
    let metrics = host.scrape();
    assert_eq!(metrics.get("dunlin_queue_messages", &orders), Some(3.0));
    assert_eq!(metrics.get("dunlin_queue_bytes", &orders), Some(15.0));
    for queue in ["empty", "@async:probe"] {
        for name in [
            "dunlin_queue_messages",
            "dunlin_queue_bytes",
            "dunlin_queue_oldest_age_seconds",
        ] {
            assert_eq!(metrics.get(name, &[("queue", queue)]), Some(0.0), "{queue}");
        }
    }
    assert!(metrics.get("dunlin_store_commit_seconds_count", &[("store", "queue")]) >= Some(3.0));
    assert!(metrics.get("dunlin_store_operations_total", &[("store", "queue")]) >= Some(3.0));
}
