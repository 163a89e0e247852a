//! The AWS Lambda API: which operation a request asks for, and its answer.

pub mod error;
mod invoke;
mod names;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use percent_encoding::percent_decode_str;
use tokio_util::task::TaskTracker;

use error::ApiError;
use names::FunctionReference;

use crate::dispatch::Dispatcher;
use crate::invocation::RequestId;
use crate::runtime::{Budget, Cores};
use crate::telemetry::Telemetry;
use crate::trigger::asynchronous::Intake;

/// The API.
pub struct Lambda {
    dispatcher: Arc<Dispatcher>,
    cores: Arc<Cores>,
    running: TaskTracker,
    budget: Arc<Budget>,
    intake: Intake,
    telemetry: Telemetry,
    account: String,
    region: String,
}

/// What a request asks for.
pub(super) enum Operation {
    /// `Invoke`.
    Invoke {
        /// As it stands in the path, decoded.
        function: String,
        /// The query parameter `Qualifier`.
        qualifier: Option<String>,
    },
}

impl Operation {
    /// Its name in AWS's model; messages use `InvokeFunction`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Invoke { .. } => "InvokeFunction",
        }
    }

    /// The largest body it takes.
    pub(super) fn body_limit(&self) -> usize {
        match self {
            // Each function has its own limit below this one, which is the
            // most that a manifest may set.
            Self::Invoke { .. } => crate::function::PAYLOAD_RANGE.end().as_usize(),
        }
    }
}

/// Finds the operation. The path is split before it is decoded: names may
/// carry an encoded slash or colon.
pub(super) fn route(
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Result<Operation, ApiError> {
    let unknown = || ApiError::NotImplemented {
        operation: format!("{method} {path}"),
    };
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    match (method, segments.as_slice()) {
        (&Method::POST, ["2015-03-31", "functions", function, "invocations"]) => {
            Ok(Operation::Invoke {
                function: decode(function)?,
                qualifier: parameter(query, "Qualifier")?,
            })
        }
        _ => Err(unknown()),
    }
}

fn decode(text: &str) -> Result<String, ApiError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| ApiError::InvalidParameterValue {
            message: format!("`{text}` is not UTF-8 when decoded."),
        })
}

fn parameter(query: Option<&str>, name: &str) -> Result<Option<String>, ApiError> {
    let pairs = query.unwrap_or_default().split('&');
    let mut values = pairs
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| *key == name);
    values
        .next()
        .map(|(_, value)| decode(&value.replace('+', " ")))
        .transpose()
}

impl Lambda {
    /// The API over a dispatcher.
    #[must_use]
    pub fn new(
        dispatcher: Arc<Dispatcher>,
        cores: Arc<Cores>,
        budget: Arc<Budget>,
        intake: Intake,
        telemetry: Telemetry,
        account: String,
        region: String,
    ) -> Self {
        Self {
            dispatcher,
            cores,
            running: TaskTracker::new(),
            budget,
            intake,
            telemetry,
            account,
            region,
        }
    }

    /// The invocations that run. They go on when their client goes away.
    pub(crate) fn running(&self) -> &TaskTracker {
        &self.running
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    pub(super) async fn run(
        &self,
        operation: Operation,
        headers: &HeaderMap,
        body: Bytes,
        request_id: RequestId,
    ) -> Result<Response<Bytes>, ApiError> {
        match operation {
            Operation::Invoke {
                function,
                qualifier,
            } => {
                let reference =
                    FunctionReference::parse(&function, qualifier, &self.account, &self.region)?;
                self.invoke(reference, headers, body, request_id).await
            }
        }
    }
}
