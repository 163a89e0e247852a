//! How an invocation ended.

use std::borrow::Cow;
use std::time::Duration;

use super::RequestId;

/// How an invocation ended. A closed set: it is a label of metrics, stands in
/// the log line and decides the client's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeKind {
    /// The handler answered.
    Ok,
    /// The handler reported an error, or its answer was none the host can use.
    FunctionError,
    /// The guest trapped or exited.
    Trap,
    /// The guest was refused memory and did not get over it.
    OutOfMemory,
    /// The guest used up its budget of computation.
    OutOfFuel,
    /// The deadline passed.
    Timeout,
    /// No permit or no slot was free in time: the handler never ran.
    Throttled,
    /// The client went away.
    Cancelled,
    /// The host failed.
    HostError,
}

impl OutcomeKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::FunctionError,
        Self::Trap,
        Self::OutOfMemory,
        Self::OutOfFuel,
        Self::Timeout,
        Self::Throttled,
        Self::Cancelled,
        Self::HostError,
    ];

    /// As it stands in logs, labels and the header `x-dunlin-outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::FunctionError => "function_error",
            Self::Trap => "trap",
            Self::OutOfMemory => "out_of_memory",
            Self::OutOfFuel => "out_of_fuel",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Cancelled => "cancelled",
            Self::HostError => "host_error",
        }
    }
}

/// An end other than `ok`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub kind: OutcomeKind,
    /// A name that a program can compare: the guest's own for a function error,
    /// else one of Lambda's (`Sandbox.Timedout`, `Runtime.ExitError`, …).
    pub error_type: Cow<'static, str>,
    /// What a person reads. For the log; a client sees it only through the API.
    pub message: String,
    /// The guest's own, for a function error.
    pub stack_trace: Vec<String>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// The guest says that trying again never does.
    pub rejected: bool,
}

/// What a handler says of an event that it did not handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Try again, after this time if one is given.
    Retry(Option<Duration>),
    /// It will never succeed, for this reason.
    Reject(String),
}

impl Failure {
    /// A failure without stack trace and retry.
    #[must_use]
    pub fn new(kind: OutcomeKind, error_type: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            error_type: Cow::Borrowed(error_type),
            message: message.into(),
            stack_trace: Vec::new(),
            retry_after: None,
            rejected: false,
        }
    }

    /// The handler did not do what the event asks for, and said what to do with it.
    #[must_use]
    pub fn advised(advice: Advice) -> Self {
        match advice {
            Advice::Retry(after) => Self {
                retry_after: after,
                ..Self::new(
                    OutcomeKind::FunctionError,
                    "Retry",
                    "the handler asks to try again",
                )
            },
            Advice::Reject(reason) => Self {
                rejected: true,
                ..Self::new(OutcomeKind::FunctionError, "Rejected", reason)
            },
        }
    }

    /// As Lambda tells it: who invoked the function reads this.
    #[must_use]
    pub fn to_json(&self, request_id: RequestId) -> serde_json::Value {
        let mut json = serde_json::json!({
            "errorType": self.error_type,
            "errorMessage": self.message,
        });
        if self.kind == OutcomeKind::FunctionError {
            json["requestId"] = request_id.to_string().into();
            json["stackTrace"] = self.stack_trace.clone().into();
        }
        json
    }

    /// The answer is larger than the function's `response-limit`, in bytes.
    #[must_use]
    pub fn too_large(limit: u64) -> Self {
        Self::new(
            OutcomeKind::FunctionError,
            "Function.ResponseSizeTooLarge",
            format!("Response payload size exceeded maximum allowed payload size ({limit} bytes)."),
        )
    }

    /// The host-wide memory budget has no room for the answer.
    #[must_use]
    pub fn no_memory() -> Self {
        Self::new(
            OutcomeKind::OutOfMemory,
            "Runtime.OutOfMemory",
            "the host-wide memory budget has no room for the answer",
        )
    }
}

/// What an invocation took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a core, host calls included.
    pub cpu: Duration,
    /// Units of fuel; 0 when the budget is unlimited or the end was not
    /// orderly.
    pub fuel: u64,
    /// The most that all memories and tables were together, in bytes.
    pub memory: u64,
}
