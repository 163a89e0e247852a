//! Events that are never lost: queues that feed functions, asynchronous invocations and
//! schedules, with the real binary and components.

mod asynchronous;
mod crashes;
mod disk;
mod disk_errors;
mod mappings;
mod schedules;

use std::path::Path;
use std::time::Duration;

use dunlin_tests::{Builder, Client, Faults, Host, Response, eventually};
use serde_json::{Value, json};

use crate::http::box_with;

/// An operation on a queue, unsigned: what the host answers, if it does.
pub(crate) fn try_ask(client: &Client, operation: &str, body: &Value) -> Option<Response> {
    try_operate(client, &format!("AmazonSQS.{operation}"), body)
}

/// As [`try_ask`], where all is well if there is an answer.
pub(crate) fn ask(client: &Client, operation: &str, body: &Value) -> Option<Value> {
    operate(client, &format!("AmazonSQS.{operation}"), body)
}

/// As [`ask`], an operation of our own.
pub(crate) fn own_operation(client: &Client, operation: &str, body: &Value) -> Option<Value> {
    operate(client, &format!("Dunlin.{operation}"), body)
}

fn operate(client: &Client, target: &str, body: &Value) -> Option<Value> {
    let answer = try_operate(client, target, body)?;
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    Some(answer.json())
}

fn try_operate(client: &Client, target: &str, body: &Value) -> Option<Response> {
    let headers = [
        ("x-amz-target", target),
        ("content-type", "application/x-amz-json-1.0"),
    ];
    let body = body.to_string();
    client
        .try_request("POST", "/", &headers, body.as_bytes())
        .ok()
}

/// A host that feeds functions, with its own state or one that is there.
pub(crate) struct Scene {
    pub(crate) host: Host,
}

/// `visibility-timeout` and `timeout` of most scenes: short, so that what fails comes soon.
pub(crate) const CONSUMER: &str = r#"
[function.consumer]
component = "{consumer}"
timeout = "1s"
sends-to = ["out", "out.fifo"]
invokes = ["lambda"]

[function.lambda]
component = "{lambda-consumer}"
timeout = "1s"
sends-to = ["out"]
invokes = ["lambda"]

[function.lambda.async]
retry-delay = "50ms"

[queue.out]
[queue."out.fifo"]
content-based-deduplication = "on"
[queue.dead]
[queue."dead.fifo"]
"#;

impl Scene {
    #[track_caller]
    pub(crate) fn new(manifest: &str) -> Self {
        let host = box_with(&format!("{CONSUMER}{manifest}"))
            .args(["--insecure-admin"])
            .start();
        Self { host }
    }

    /// Over a state directory that outlives it.
    #[track_caller]
    pub(crate) fn over(state: &Path, manifest: &str) -> Self {
        let host = Self::builder(state, manifest).start();
        Self { host }
    }

    /// Over a state directory that outlives it, on a disk that can fail.
    #[track_caller]
    pub(crate) fn on(faults: &Faults, state: &Path, manifest: &str) -> Self {
        let host = Self::builder(state, manifest);
        let host = faults.under(host).start();
        Self { host }
    }

    fn builder(state: &Path, manifest: &str) -> Builder {
        box_with(&format!("{CONSUMER}{manifest}"))
            .args(["--insecure-admin", "--state"])
            .args([state.join("state").to_str().unwrap()])
    }

    #[track_caller]
    pub(crate) fn ask(&self, operation: &str, body: &Value) -> Value {
        ask(&self.host.admin, operation, body).expect("the host answers")
    }

    /// Sends a message with this body; answers its id.
    #[track_caller]
    pub(crate) fn send(&self, queue: &str, body: &str) -> String {
        self.send_more(queue, &json!({ "MessageBody": body }))
    }

    #[track_caller]
    pub(crate) fn send_more(&self, queue: &str, more: &Value) -> String {
        let mut request = more.clone();
        request["QueueUrl"] = format!("http://h/1/{queue}").into();
        let sent = self.ask("SendMessage", &request);
        sent["MessageId"].as_str().unwrap().to_owned()
    }

    /// As one batch, so that they are received together.
    #[track_caller]
    pub(crate) fn send_all(&self, queue: &str, bodies: &[&str]) -> Vec<String> {
        let entries: Vec<Value> = bodies
            .iter()
            .enumerate()
            .map(|(index, body)| json!({ "Id": index.to_string(), "MessageBody": body }))
            .collect();
        let request = json!({ "QueueUrl": format!("http://h/1/{queue}"), "Entries": entries });
        let sent = self.ask("SendMessageBatch", &request);
        let ids = sent["Successful"].as_array().unwrap().iter();
        ids.map(|sent| sent["MessageId"].as_str().unwrap().to_owned())
            .collect()
    }

    /// An operation of our own.
    #[track_caller]
    pub(crate) fn own(&self, operation: &str, body: &Value) -> Value {
        own_operation(&self.host.admin, operation, body).expect("the host answers")
    }

    /// Messages of a queue, in whatever state.
    #[track_caller]
    pub(crate) fn depth(&self, queue: &str) -> u64 {
        let all = self.own("ListQueueDepths", &json!({}));
        let mut all = all["Queues"].as_array().unwrap().iter();
        let depth = all.find(|it| it["Name"] == queue);
        let depth = depth.unwrap_or_else(|| panic!("there is no queue {queue}"));
        let count = |name: &str| depth[name].as_u64().unwrap();
        count("Waiting") + count("InFlight") + count("Delayed")
    }

    #[track_caller]
    pub(crate) fn is_drained(&self, queue: &str) {
        eventually(&format!("{queue} is empty"), || {
            (self.depth(queue) == 0).then_some(())
        });
    }

    /// Receives and deletes a message, once there is one.
    #[track_caller]
    pub(crate) fn take(&self, queue: &str) -> Value {
        let url = format!("http://h/1/{queue}");
        let request = json!({
            "QueueUrl": url,
            "WaitTimeSeconds": 5,
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        });
        let message = eventually(&format!("a message of {queue}"), || {
            let received = self.ask("ReceiveMessage", &request);
            Some(received["Messages"].as_array()?[0].clone())
        });
        let request = json!({ "QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"] });
        self.ask("DeleteMessage", &request);
        message
    }

    /// Messages of a queue as `dunlin queue peek` shows them, once there are so many.
    #[track_caller]
    pub(crate) fn lying(&self, queue: &str, count: usize) -> Vec<Value> {
        let request = json!({ "QueueUrl": format!("http://h/1/{queue}") });
        eventually(&format!("{count} messages in {queue}"), || {
            let peeked = self.own("PeekQueue", &request);
            let messages = peeked["Messages"].as_array()?.clone();
            (messages.len() == count).then_some(messages)
        })
    }

    /// Invokes a function asynchronously; answers the response.
    pub(crate) fn try_event(&self, function: &str, payload: &str) -> Response {
        let target = format!("/2015-03-31/functions/{function}/invocations");
        let headers = [("x-amz-invocation-type", "Event")];
        self.host
            .admin
            .request("POST", &target, &headers, payload.as_bytes())
    }

    /// Invokes a function asynchronously; answers the request id.
    #[track_caller]
    pub(crate) fn event(&self, function: &str, payload: &Value) -> String {
        let answer = self.try_event(function, &payload.to_string());
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(answer.text(), "");
        answer.header("x-amzn-requestid").unwrap().to_owned()
    }

    /// Waits for a line of a guest that begins so, and answers its fields.
    #[track_caller]
    pub(crate) fn line(&self, begins: &str) -> String {
        let line = self
            .host
            .wait_for_log(|line| says(line).starts_with(begins));
        says(&line).to_owned()
    }

    /// The lines of guests that begin so, until now.
    pub(crate) fn lines(&self, begins: &str) -> Vec<String> {
        let log = self.host.log();
        let lines = log.iter().map(says);
        lines
            .filter(|line| line.starts_with(begins))
            .map(str::to_owned)
            .collect()
    }

    /// So many lines of guests begin so, now or soon.
    #[track_caller]
    pub(crate) fn says(&self, begins: &str, count: usize) {
        eventually(&format!("{count} lines `{begins}…`"), || {
            let lines = self.lines(begins).len();
            assert!(lines <= count, "{lines} lines `{begins}…`, not {count}");
            (lines == count).then_some(())
        });
    }

    /// How often a step of events was counted.
    pub(crate) fn step(&self, function: &str, step: &str) -> f64 {
        let labels = [("function", function), ("step", step)];
        self.host
            .metric("dunlin_events_total", &labels)
            .unwrap_or(0.0)
    }

    #[track_caller]
    pub(crate) fn steps(&self, function: &str, step: &str, count: f64) {
        let labels = [("function", function), ("step", step)];
        self.host
            .wait_for_metric("dunlin_events_total", &labels, |value| value == count);
    }
}

fn says(line: &Value) -> &str {
    match line["kind"] == "log" {
        true => line["message"].as_str().unwrap_or_default(),
        false => "",
    }
}

/// Seconds in which a host has started, also on a busy machine.
pub(crate) const SOON: i64 = 8;

/// `at(…)` so many seconds from now.
pub(crate) fn at(seconds: i64) -> String {
    let time = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    format!("at({})", time.format(&format).unwrap())
}

/// Long enough for what must not happen to happen.
pub(crate) fn meanwhile() {
    std::thread::sleep(Duration::from_millis(500));
}
