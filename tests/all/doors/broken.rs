//! Handlers that do not come to a good end, before and after the head of their answer,
//! and requests that are not as they should be.

use std::time::Duration;

use dunlin_tests::{Builder, Host, eventually, guest};
use serde_json::Value;

use super::exchange::{End, Exchange, chunk};
use super::{DOORS, both, paused};
use crate::scene::{Ends, OUT_OF_FUEL, OUT_OF_MEMORY, Scene, TIMEOUT, TOO_LARGE, invalid, trap};

const KEYS: &str = r#"
timeout = "5s"
fuel = "off"
memory = "16MiB"
response-limit = "64KiB"
request-limit = "64KiB"
"#;

/// An end of a handler that spoke, but not as it should.
fn faulty(error_type: &'static str, message: &'static str) -> Ends {
    Ends {
        status: 502,
        outcome: "function_error",
        error_type,
        message,
    }
}

const NONE: Ends = Ends {
    status: 502,
    outcome: "function_error",
    error_type: "Function.NoResponse",
    message: "returned without setting a response",
};

#[test]
fn a_fault_before_the_head_is_answered_with_its_status() {
    let scene = Scene::new(both(KEYS));
    let error = || faulty("Function.HttpError", "ConfigurationError");
    let status = || invalid("the status 199 is none that ends a request");
    for (target, ends) in [
        ("web02/none", NONE),
        ("web02/error", error()),
        ("web03/error", error()),
        ("web02/panic", trap("unreachable")),
        ("web03/panic", trap("unreachable")),
        (
            "web02/length-alone",
            invalid("its content-length is 10, and it has no body"),
        ),
        // The interface refuses it before the host does.
        ("web02/status?code=199", trap("unreachable")),
        ("web03/status?code=199", status()),
    ] {
        scene.ends(&format!("/{target}"), &ends);
    }
    scene.end();
}

/// Asks for an answer whose fault comes right after its head: mostly nothing is sent yet,
/// and it is answered with its status. A guest that had to give way to another meanwhile
/// has its head sent, and breaks off.
#[track_caller]
fn fails(host: &Host, target: &str, outcome: &str, error_type: &str, message: &str) {
    let mut exchange = Exchange::open(host);
    let answer = exchange.get(&format!("/{target}"));
    if answer.status == 502 {
        assert_eq!(answer.header("x-dunlin-outcome"), Some(outcome), "{target}");
        assert!(answer.is_whole() && !answer.text().contains("half"));
    } else {
        assert_eq!(
            (answer.status, &answer.end),
            (200, &End::Broken),
            "{target}: {answer:?}"
        );
    }
    let record = host.record(answer.header("x-amzn-requestid").unwrap());
    assert_eq!(record["outcome"], outcome, "{target}: {record}");
    assert_eq!(record["error_type"], error_type, "{target}: {record}");
    let text = record["message"].as_str().unwrap_or_default();
    assert!(text.contains(message), "{target}: {record}");
    let name = target.split('/').next().unwrap();
    let next = host.get(&format!("/{name}/ok"));
    assert_eq!(next.text(), "ok", "after {target}");
}

#[test]
fn a_fault_right_after_the_head_is_no_whole_answer() {
    let host = both(KEYS).start();
    let incomplete = (
        "function_error",
        "Function.IncompleteResponse",
        "broken off",
    );
    let trapped = ("trap", "Runtime.ExitError", "unreachable");
    let Ends {
        outcome,
        error_type,
        message,
        ..
    } = TOO_LARGE;
    let large = (outcome, error_type, message);
    for (target, (outcome, error_type, message)) in [
        ("web02/panics-late", trapped),
        ("web03/panics-late", trapped),
        ("web03/errors-late", incomplete),
        ("web02/drops", incomplete),
        ("web02/leaks", incomplete),
        ("web02/leaks-all", incomplete),
        ("web02/pieces?count=1&size=65600", large),
        ("web03/pieces?count=1&size=65600", large),
        ("web02/pieces?count=2000&size=40", large),
        ("web03/pieces?count=2000&size=40", large),
    ] {
        fails(&host, target, outcome, error_type, message);
    }
    host.wait_until_quiet();
}

#[test]
fn a_false_length_is_a_fault() {
    let host = both(KEYS).start();
    let targets = ["web02/short", "web03/short", "web02/long", "web03/long"];
    for (before, target) in targets.into_iter().enumerate() {
        let mut connection = host.http.connect();
        // Broken off it may be before its head is sent, or after.
        if let Ok(answer) = connection.try_request("GET", &format!("/{target}"), &[], b"") {
            // Of one that is too long a client may get what was announced, and no more.
            let announced = answer.text().len() <= 4 && target.ends_with("long");
            assert!(
                answer.status == 502 || (answer.status == 200 && announced),
                "{target}: {answer:?}"
            );
        }
        eventually(&format!("{target} is recorded as broken off"), || {
            let log = host.log();
            let broken = log
                .iter()
                .filter(|line| line["error_type"] == "Function.IncompleteResponse");
            let all = broken.filter(|line| line["outcome"] == "function_error");
            (all.count() == before + 1).then_some(())
        });
    }
    host.wait_until_quiet();
}

#[test]
fn a_handler_that_does_not_answer_in_time_is_answered_for() {
    let scene = Scene::new(both(&KEYS.replace("5s", "500ms")));
    for function in DOORS {
        for what in ["sleeps", "spins"] {
            scene.ends(&format!("/{function}/{what}"), &TIMEOUT);
        }
    }
    scene.end();
}

/// Asks for an answer that breaks off after its head; answers the record.
#[track_caller]
fn breaks(host: &Host, target: &str, outcome: &str, error_type: &str, message: &str) -> Value {
    let mut exchange = Exchange::open(host);
    let answer = exchange.get(&format!("/{target}"));
    assert_eq!(
        (answer.status, &answer.end),
        (200, &End::Broken),
        "{target}: {answer:?}"
    );
    assert_eq!(
        answer.header("x-dunlin-outcome"),
        None,
        "it was not known yet"
    );
    let record = host.record(answer.header("x-amzn-requestid").unwrap());
    assert_eq!(record["outcome"], outcome, "{target}: {record}");
    assert_eq!(record["error_type"], error_type, "{target}: {record}");
    let text = record["message"].as_str().unwrap_or_default();
    assert!(text.contains(message), "{target}: {record}");
    let name = target.split('/').next().unwrap();
    assert_eq!(
        host.get(&format!("/{name}/ok")).text(),
        "ok",
        "after {target}"
    );
    record
}

#[test]
fn a_fault_after_the_head_breaks_the_connection() {
    let host = both(KEYS).start();
    let incomplete = (
        "function_error",
        "Function.IncompleteResponse",
        "broken off",
    );
    let trapped = ("trap", "Runtime.ExitError", "unreachable");
    let memory = ("out_of_memory", "Runtime.OutOfMemory", "raise `memory`");
    for (target, (outcome, error_type, message)) in [
        ("web02/panics-late", trapped),
        ("web03/panics-late?count=1", trapped),
        ("web03/errors-late?count=1", incomplete),
        ("web02/drops", incomplete),
        ("web02/leaks", incomplete),
        ("web02/leaks-all", incomplete),
        ("web02/grows-late", memory),
        ("web03/grows-late?count=1", memory),
    ] {
        breaks(&host, &paused(target), outcome, error_type, message);
    }
    host.wait_until_quiet();
}

#[test]
fn the_deadline_breaks_an_answer_off_also_while_its_handler_computes() {
    let host = both(&KEYS.replace("5s", "1s")).start();
    for function in DOORS {
        for what in ["hangs-late", "spins-late?count=1&pause=100"] {
            let target = format!("{function}/{what}");
            breaks(
                &host,
                &target,
                "timeout",
                TIMEOUT.error_type,
                TIMEOUT.message,
            );
        }
    }
    host.wait_until_quiet();
}

#[test]
fn fuel_that_runs_out_breaks_an_answer_off() {
    let keys = KEYS.replace("fuel = \"off\"", "fuel = 50000000");
    let host = both(&keys.replace("5s", "30s")).start();
    for function in DOORS {
        let target = paused(&format!("{function}/spins-late?count=1"));
        let Ends {
            outcome,
            error_type,
            message,
            ..
        } = OUT_OF_FUEL;
        breaks(&host, &target, outcome, error_type, message);
    }
    let Ends { outcome, .. } = OUT_OF_MEMORY;
    assert_eq!(
        host.metric("dunlin_invocations_total", &[("outcome", outcome)]),
        Some(0.0)
    );
}

#[test]
fn an_answer_over_the_limit_is_broken_off_once_it_is_being_sent() {
    let host = both(KEYS).start();
    for function in DOORS {
        let target = format!("{function}/pieces?count=100&size=4096&pause=10");
        let Ends {
            outcome,
            error_type,
            message,
            ..
        } = TOO_LARGE;
        breaks(&host, &target, outcome, error_type, message);
        // Exactly as large as it may be, it is none.
        let fits = host.get(&format!("/{function}/pieces?count=16&size=4096"));
        assert_eq!((fits.status, fits.body.len()), (200, 64 << 10));
    }
}

#[test]
fn a_broken_answer_of_http2_is_a_stream_that_is_reset() {
    use crate::http::h2c;
    let host = both(KEYS).start();
    h2c::run(async {
        let mut connection = h2c::Connection::open(&host).await;
        for function in DOORS {
            let target = paused(&format!("/{function}/panics-late?count=1"));
            let broken = connection.send("GET", &target, b"").await.unwrap_err();
            assert_eq!(
                broken.reason(),
                Some(h2::Reason::INTERNAL_ERROR),
                "{broken}"
            );
            let target = format!("/{function}/ok");
            let (_, body) = connection.send("GET", &target, b"").await.unwrap();
            assert_eq!(body, "ok", "the connection goes on");
        }
    });
}

#[test]
fn an_announced_body_over_the_limit_runs_nothing() {
    let host = both(KEYS).start();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        exchange.send(format!(
            "POST /{function}/count HTTP/1.1\r\nhost: a\r\ncontent-length: 65537\r\n\r\n"
        ));
        let answer = exchange.answer();
        assert_eq!(answer.status, 413);
        assert!(answer.text().contains("65536 bytes"), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        // As large as it may be.
        let most = host.post(&format!("/{function}/count"), vec![b'x'; 65536]);
        assert_eq!(most.text(), "65536");
    }
    // An answer may be there before its invocation is over.
    host.wait_until_quiet();
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(2.0));
}

#[test]
fn a_body_that_turns_out_too_large_is_refused_if_there_is_no_answer_yet() {
    let host = both(KEYS).start();
    for function in DOORS {
        let send = |what: &str| {
            let mut exchange = Exchange::open(&host);
            exchange.send(format!(
                "POST /{function}/{what} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            ));
            exchange.send(chunk(&[b'x'; 60_000]));
            if what == "echo" {
                assert_eq!(exchange.head().0, 200);
            }
            exchange.send(chunk(&[b'x'; 6_000]));
            exchange
        };
        let answer = send("count").answer();
        assert_eq!(answer.status, 413, "{function}: {answer:?}");
        assert!(answer.text().contains("65536 bytes"), "{answer:?}");
        let mut exchange = send("echo");
        assert_eq!(exchange.rest().1, End::Broken, "{function}");
        host.wait_until_quiet();
        assert_eq!(host.get(&format!("/{function}/ok")).text(), "ok");
    }
}

#[test]
fn a_body_that_stops_is_waited_for_as_long_as_is_said() {
    let host = both(KEYS)
        .manifest("[host]\nbody-timeout = \"400ms\"")
        .start();
    for (times, function) in (1..).zip(DOORS) {
        let mut exchange = Exchange::open(&host);
        exchange.send(format!(
            "POST /{function}/count HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhello"
        ));
        let answer = exchange.answer();
        assert_eq!(answer.status, 408, "{function}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        let timeout = [("timeout", "body")];
        assert_eq!(
            host.metric("dunlin_http_timeouts_total", &timeout),
            Some(f64::from(times))
        );
        // One that comes piece by piece is no such body.
        let mut exchange = Exchange::open(&host);
        exchange.send(format!(
            "POST /{function}/count HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n"
        ));
        for byte in ["a", "b", "c", "d", "e", "f"] {
            std::thread::sleep(Duration::from_millis(120));
            exchange.send(byte);
        }
        assert_eq!(exchange.answer().text(), "6", "{function}");
    }
}

#[test]
fn a_client_that_goes_in_the_middle_of_its_body_leaves_nothing() {
    let host = both(KEYS).start();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        exchange.send(format!(
            "POST /{function}/count HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhello"
        ));
        host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
        exchange.reset();
        host.wait_until_quiet();
        assert_eq!(host.get(&format!("/{function}/ok")).text(), "ok");
    }
    host.wait_for_metric("dunlin_http_connections", &[], |n| n == 0.0);
}

/// One function whose instances are used again.
fn reused() -> Builder {
    let keys = format!("{KEYS}\nisolation = \"reuse\"");
    Host::builder().function("web02", &guest("web02"), &keys)
}

#[test]
fn an_instance_that_is_used_again_keeps_nobody_waiting_for_what_it_leaked() {
    let host = reused().start();
    for _ in 0..3 {
        let answer = host.post("/web02/forgets-request", "body");
        let got = (answer.status, answer.outcome());
        assert_eq!(got, (502, Some("function_error")));
        fails(
            &host,
            "web02/leaks-all",
            "function_error",
            "Function.IncompleteResponse",
            "left it open",
        );
    }
    host.wait_until_quiet();
}

#[test]
fn what_a_handler_may_not_set_it_is_refused() {
    let host = both(KEYS).start();
    let forbidden = host.get("/web02/forbidden");
    assert_eq!(forbidden.text(), "[true, true, true, true] [true, true]");
    let lengths = host.get("/web02/lengths");
    assert_eq!(lengths.text(), "[true, true, true, true, true] true");
    let upgrade = host.get("/web02/upgrade");
    assert_eq!(
        (upgrade.header("keep-alive-x"), upgrade.header("te")),
        (Some("y"), None)
    );
}
