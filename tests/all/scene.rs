//! A hostile function beside a neighbour, and what must hold around them.

use dunlin_tests::{Builder, Host, Response, eventually, example};
use serde_json::Value;

/// A host with the neighbour `hello`, and the level at which it rests.
pub(crate) struct Scene {
    pub(crate) host: Host,
    level: (f64, f64),
}

/// How an invocation shall end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) status: u16,
    pub(crate) outcome: &'static str,
    pub(crate) error_type: &'static str,
    /// A part of the record's message.
    pub(crate) message: &'static str,
}

/// A trap, for this reason.
pub(crate) fn trap(message: &'static str) -> Ends {
    Ends {
        status: 502,
        outcome: "trap",
        error_type: "Runtime.ExitError",
        message,
    }
}

pub(crate) const TIMEOUT: Ends = Ends {
    status: 504,
    outcome: "timeout",
    error_type: "Sandbox.Timedout",
    message: "Task timed out after",
};

pub(crate) const OUT_OF_MEMORY: Ends = Ends {
    status: 502,
    outcome: "out_of_memory",
    error_type: "Runtime.OutOfMemory",
    message: "raise `memory`",
};

pub(crate) const OUT_OF_FUEL: Ends = Ends {
    status: 502,
    outcome: "out_of_fuel",
    error_type: "Runtime.OutOfFuel",
    message: "raise `fuel`",
};

pub(crate) const TOO_LARGE: Ends = Ends {
    status: 502,
    outcome: "function_error",
    error_type: "Function.ResponseSizeTooLarge",
    message: "exceeded maximum allowed payload size",
};

/// An answer that cannot be sent, for this reason.
pub(crate) fn invalid(message: &'static str) -> Ends {
    Ends {
        status: 502,
        outcome: "function_error",
        error_type: "Function.InvalidResponse",
        message,
    }
}

impl Scene {
    /// Starts a host with these functions and the neighbour.
    #[track_caller]
    pub(crate) fn new(builder: Builder) -> Self {
        let host = builder
            // Pools that grow with what comes would hide what does not end.
            .host("ready-per-function = 2")
            .function("hello", &example("hello"), "timeout = \"30s\"")
            .start();
        let level = level(&host);
        Self { host, level }
    }

    /// The invocation ends so, for the client, in the log and in the metrics;
    /// meanwhile the neighbour answers, and afterwards the function as well, at
    /// `NAME/ok`. Answers the record.
    #[track_caller]
    pub(crate) fn ends(&self, target: &str, ends: &Ends) -> Value {
        self.post_ends(target, "", ends)
    }

    /// As [`Self::ends`], with a body.
    #[track_caller]
    pub(crate) fn post_ends(&self, target: &str, body: &str, ends: &Ends) -> Value {
        let host = &self.host;
        let name = function(target);
        let labels = [("function", name), ("outcome", ends.outcome)];
        let count = || {
            host.metric("dunlin_invocations_total", &labels)
                .unwrap_or(0.0)
        };
        let before = count();

        let response = self.beside(target, body);

        let got = (response.status, response.outcome());
        assert_eq!(
            got,
            (ends.status, Some(ends.outcome)),
            "{target}: {response:?}"
        );
        let record = host.record(response.request_id());
        assert_eq!(record["outcome"], ends.outcome, "{target}: {record}");
        assert_eq!(record["error_type"], ends.error_type, "{target}: {record}");
        let message = record["message"].as_str().unwrap_or_default();
        assert!(message.contains(ends.message), "{target}: {record}");
        assert_eq!(count(), before + 1.0, "{target}");
        // What a client sees says nothing of the function's insides.
        let text = response.text();
        assert!(
            !text.contains("wasm") && text.len() < 200,
            "{target}: {text}"
        );

        let next = host.get(&format!("/{name}/ok"));
        assert_eq!(next.status, 200, "the request after {target}: {next:?}");
        record
    }

    /// Sends a request, and others to the neighbour until it is answered.
    #[track_caller]
    pub(crate) fn beside(&self, target: &str, body: &str) -> Response {
        let client = self.host.http;
        let (own, owned) = (target.to_owned(), body.to_owned());
        let request = std::thread::spawn(move || client.post(&own, owned));
        loop {
            let answered = request.is_finished();
            let neighbour = self.host.get("/hello");
            assert_eq!(neighbour.status, 200, "beside {target}: {neighbour:?}");
            if answered {
                break request.join().expect("the request is answered");
            }
        }
    }

    /// Everything is back at its level; the host ends in order.
    #[track_caller]
    pub(crate) fn end(self) -> Vec<Value> {
        self.rests();
        self.host.stop()
    }

    /// Everything is back at its level.
    #[track_caller]
    pub(crate) fn rests(&self) {
        self.host.wait_until_quiet();
        let mut last = self.level;
        let expected = self.level;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        eventually("memory and ready instances are back at their level", || {
            last = level(&self.host);
            let late = std::time::Instant::now() >= deadline;
            assert!(
                !late || last == expected,
                "level {expected:?}, but {last:?}"
            );
            (last == expected).then_some(())
        });
    }
}

/// Bytes in use, and instances that are ready.
fn level(host: &Host) -> (f64, f64) {
    let metrics = host.scrape();
    let get = |name| metrics.get(name, &[]).unwrap_or(0.0);
    (
        get("dunlin_memory_used_bytes"),
        get("dunlin_instances_ready"),
    )
}

fn function(target: &str) -> &str {
    target[1..].split(['/', '?']).next().unwrap_or_default()
}
