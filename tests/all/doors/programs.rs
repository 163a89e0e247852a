//! Programs: the event on stdin, the answer on stdout, and the exit status.

use dunlin_tests::{Host, Response, guest};
use serde_json::{Value, json};

use crate::admin::Api;
use crate::scene::{Ends, OUT_OF_FUEL, Scene, TIMEOUT, TOO_LARGE, trap};

const KEYS: &str = r#"
timeout = "2s"
memory = "16MiB"
response-limit = "256KiB"
arguments = ["echo", "--verbose"]
environment = { GREETING = "hello" }
"#;

/// The program of WASI 0.2, and the same of 0.3.
const PROGRAMS: [&str; 2] = ["program", "program03"];

fn up(program: &str) -> Host {
    Host::builder()
        .function("program", &guest(program), KEYS)
        .start()
}

#[track_caller]
fn invoke(host: &Host, event: &Value) -> Response {
    let event = event.to_string();
    Api::of(host).invoke_with("program", &[], event.as_bytes())
}

#[test]
fn the_event_is_on_stdin_and_the_answer_on_stdout() {
    for program in PROGRAMS {
        let host = up(program);
        let event = json!({ "value": [1, "é", null] });
        let response = invoke(&host, &event);
        assert_eq!((response.status, response.json()), (200, event));
        assert_eq!(response.header("x-amz-function-error"), None);
        let record = host.record(response.request_id());
        assert_eq!(
            (&record["trigger"], &record["outcome"]),
            (&json!("invoke"), &json!("ok"))
        );
        let lines = host.guest_log(response.request_id());
        assert_eq!(lines.len(), 1, "stderr, and not the answer: {lines:?}");
        assert_eq!(lines[0]["message"], "got 23 bytes");
    }
}

#[test]
fn an_event_larger_than_any_pipe_comes_whole() {
    for program in PROGRAMS {
        let host = up(program);
        let event = json!({ "value": "x".repeat(200_000) });
        assert_eq!(invoke(&host, &event).json(), event);
    }
}

#[test]
fn arguments_and_environment_are_those_of_the_manifest() {
    for program in PROGRAMS {
        let host = up(program);
        let described = invoke(&host, &json!({ "do": "describe" })).json();
        assert_eq!(
            described,
            json!({ "arguments": ["program", "echo", "--verbose"], "greeting": "hello" })
        );
    }
}

#[test]
fn each_run_is_a_run_of_its_own() {
    for program in PROGRAMS {
        let host = up(program);
        for number in 0..20 {
            let event = json!({ "number": number });
            assert_eq!(invoke(&host, &event).json(), event);
        }
        host.wait_until_quiet();
    }
}

#[test]
fn the_exit_status_says_how_it_went() {
    for program in PROGRAMS {
        let host = up(program);
        let done = invoke(&host, &json!({ "do": "exit-zero" }));
        assert_eq!((done.status, done.text().as_str()), (200, "\"done\""));
        assert_eq!(done.header("x-amz-function-error"), None);
        // WASI tells a success from a failure, and nothing else of a status.
        for (what, status) in [("fail", 1), ("exit-seven", 1)] {
            let failed = invoke(&host, &json!({ "do": what }));
            assert_eq!(failed.status, 200, "as Lambda does");
            assert_eq!(
                failed.header("x-amz-function-error"),
                Some("Unhandled"),
                "{what}"
            );
            let message = format!("the program ended with exit status {status}");
            assert_eq!(failed.json()["errorType"], "Runtime.ExitError");
            assert_eq!(failed.json()["errorMessage"], json!(message));
            let record = host.record(failed.request_id());
            assert_eq!(
                (&record["outcome"], &record["message"]),
                (&json!("function_error"), &json!(message))
            );
        }
    }
}

#[test]
fn over_http_its_output_is_the_response() {
    for program in PROGRAMS {
        let host = up(program);
        // It echoes the event, which has no status: that is the body.
        let headers = [("content-type", "text/plain")];
        let echoed = host
            .http
            .request("POST", "/program/a?x=1", &headers, b"hello");
        assert_eq!(echoed.status, 200);
        let event = echoed.json();
        assert_eq!(
            (&event["rawPath"], &event["rawQueryString"], &event["body"]),
            (&json!("/program/a"), &json!("x=1"), &json!("hello"))
        );
        assert_eq!(echoed.header("content-type"), Some("application/json"));
    }
}

#[test]
fn what_is_no_json_is_text() {
    let keys = KEYS.replace("\"echo\"", "\"text\"");
    let host = Host::builder()
        .function("program", &guest("program"), &keys)
        .start();
    let answer = host.get("/program");
    assert_eq!((answer.status, answer.text().as_str()), (200, "not JSON\n"));
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
}

/// A host where the program does this.
fn doing(program: &str, what: &str) -> Scene {
    let keys = KEYS.replace("\"echo\"", &format!("{what:?}"));
    let builder = Host::builder().function("program", &guest(program), KEYS);
    Scene::new(builder.function("hostile", &guest(program), &keys))
}

/// The invocation ends so; the next runs as this one did.
#[track_caller]
fn ends(program: &str, what: &str, ends: &Ends) {
    let scene = doing(program, what);
    for _ in 0..2 {
        let response = scene.beside("/hostile", "");
        assert_eq!(
            (response.status, response.outcome()),
            (ends.status, Some(ends.outcome)),
            "{program}, {what}: {response:?}"
        );
        let record = scene.host.record(response.request_id());
        assert_eq!(record["error_type"], ends.error_type, "{record}");
        let message = record["message"].as_str().unwrap();
        assert!(message.contains(ends.message), "{record}");
        assert_eq!(scene.host.get("/program").status, 200);
    }
    scene.end();
}

#[test]
fn a_program_that_panics_traps() {
    for program in PROGRAMS {
        ends(program, "panic", &trap("unreachable"));
    }
}

#[test]
fn a_program_that_fails_is_no_answer() {
    let failed = Ends {
        status: 502,
        outcome: "function_error",
        error_type: "Runtime.ExitError",
        message: "exit status 1",
    };
    for program in PROGRAMS {
        ends(program, "fail", &failed);
    }
}

#[test]
fn a_program_that_floods_its_output_is_told_so() {
    for program in PROGRAMS {
        ends(program, "flood", &TOO_LARGE);
    }
}

#[test]
fn a_program_that_spins_is_ended() {
    for program in PROGRAMS {
        let scene = doing(program, "spin");
        let response = scene.beside("/hostile", "");
        let record = scene.host.record(response.request_id());
        // Whichever of its two budgets is used up first.
        assert!(
            [TIMEOUT.outcome, OUT_OF_FUEL.outcome].contains(&record["outcome"].as_str().unwrap()),
            "{program}: {record}"
        );
        scene.end();
    }
}

#[test]
fn a_program_that_waits_too_long_is_ended() {
    ends("program03", "wait", &TIMEOUT);
}

#[test]
fn what_a_program_writes_after_it_has_returned_is_its_answer_too() {
    let host = up("program03");
    let late = invoke(&host, &json!({ "do": "later" }));
    assert_eq!((late.status, late.json()), (200, json!("late")));
}

#[test]
fn messages_and_schedules_come_to_it_as_they_do_to_lambda() {
    let component = guest("program");
    let when = crate::events::at(crate::events::SOON);
    let host = Host::builder()
        .manifest(format!(
            "[queue.work]\n[function.program]\ncomponent = {component:?}\n\
             arguments = [\"exit-zero\"]\n\
             [[function.program.queue]]\nname = \"work\"\n\
             [[function.program.schedule]]\nname = \"soon\"\nwhen = \"{when}\"\n"
        ))
        .args(["--insecure-admin"])
        .start();
    let body = json!({ "QueueUrl": "http://h/1/work", "MessageBody": "hello" });
    crate::events::ask(&host.admin, "SendMessage", &body).expect("the host answers");
    for trigger in ["queue", "schedule"] {
        let record = host.wait_for_log(|line| {
            line["kind"] == "invocation" && line["trigger"] == trigger && line["outcome"] == "ok"
        });
        let lines = host.guest_log(record["request_id"].as_str().unwrap());
        let got = lines[0]["message"].as_str().unwrap();
        assert!(got.starts_with("got ") && got != "got 0 bytes", "{got}");
    }
}

#[track_caller]
fn refused(keys: &str, component: &str, problem: &str) {
    let builder = Host::builder().function("it", &guest(component), keys);
    let failure = builder.start_expecting_failure();
    assert_eq!(failure.code, 64, "{failure:?}");
    assert!(
        failure.stderr.contains(problem),
        "{keys}: {}",
        failure.stderr
    );
}

#[test]
fn what_a_component_cannot_do_is_refused_by_name() {
    refused(
        "isolation = \"reuse\"",
        "program",
        "`reuse` is not for programs: a `wasi:cli/run` component runs once; use `fresh`",
    );
    for component in ["web02", "program", "hello"] {
        refused(
            "isolation = \"concurrent\"",
            component,
            "`concurrent` is for components that export `wasi:http/handler` of WASI 0.3; \
             use `fresh` or `reuse`",
        );
    }
    refused(
        "arguments = [\"--loud\"]",
        "hello",
        "`arguments` are for programs (`wasi:cli/run`); leave them out, or set `environment` or \
         `config`",
    );
    for key in ["request-limit", "response-limit"] {
        for component in ["hello", "program"] {
            refused(
                &format!("{key} = \"65MiB\""),
                component,
                "it is 65MiB, and a component that gets its requests as a whole has 64MiB at most; \
                 lower it, or export `wasi:http` to stream bodies",
            );
        }
        refused(&format!("{key} = \"1025MiB\""), "web02", key);
    }
}

#[test]
fn streams_may_be_larger_than_what_is_held() {
    let keys = "request-limit = \"1GiB\"\nresponse-limit = \"1GiB\"";
    for component in super::DOORS {
        let host = Host::builder().function(component, &guest(component), keys);
        let host = host.start();
        assert_eq!(host.get(&format!("/{component}/ok")).text(), "ok");
    }
}
