//! `Invoke`: RequestResponse, Event and DryRun.
//!
//! Function errors are HTTP 200 with `X-Amz-Function-Error`, as clients expect;
//! only what kept the function from running is an error of the API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use tokio::sync::oneshot;

use super::Lambda;
use super::error::{ApiError, ThrottleReason};
use super::names::FunctionReference;
use crate::dispatch::{Ended, Function};
use crate::invocation::{
    Answer, Call, Event, Failure, Handler, OutcomeKind, RequestId, Tail, Trigger, traceparent,
};
use crate::queue::QueueError;
use crate::store::WriteError;
use crate::trigger::asynchronous::{Envelope, NewEvent};

const INVOCATION_TYPE: &str = "x-amz-invocation-type";
const LOG_TYPE: &str = "x-amz-log-type";
const CLIENT_CONTEXT: &str = "x-amz-client-context";
const EXECUTED_VERSION: HeaderName = HeaderName::from_static("x-amz-executed-version");
const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
const LOG_RESULT: HeaderName = HeaderName::from_static("x-amz-log-result");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// Lambda's limit for the client context, before it is decoded.
const MAX_CLIENT_CONTEXT: usize = 3583;
/// When a client may try again that came while the host shut down.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Lambda {
    pub(super) async fn invoke(
        &self,
        reference: FunctionReference,
        headers: &HeaderMap,
        body: Bytes,
        request_id: RequestId,
    ) -> Result<Response<Bytes>, ApiError> {
        if self.running.is_closed() {
            return Err(ApiError::Unavailable {
                message: "The host is shutting down.".into(),
                retry_after: Some(RETRY_AFTER),
            });
        }
        let FunctionReference { name, qualifier } = reference;
        let function = self.dispatcher.resolve(&name, qualifier.as_deref()).map_err(|_| {
            let (region, account) = (&self.region, &self.account);
            let qualifier = qualifier.as_deref().unwrap_or("$LATEST");
            ApiError::ResourceNotFound {
                message: format!("Function not found: arn:aws:lambda:{region}:{account}:function:{name}:{qualifier}"),
            }
        })?;
        let kind = match text(headers, INVOCATION_TYPE)? {
            None | Some("RequestResponse") => Kind::RequestResponse,
            Some("DryRun") => Kind::DryRun,
            Some("Event") => Kind::Event,
            Some(other) => {
                return Err(ApiError::Validation {
                    message: format!(
                        "1 validation error detected: Value '{other}' at 'invocationType' failed to satisfy constraint: Member must satisfy enum value set: [Event, RequestResponse, DryRun]"
                    ),
                });
            }
        };
        if !function.version.handles(Handler::Invoke) {
            return Err(ApiError::InvalidParameterValue {
                message: format!(
                    "The function {name} exports no `dunlin:event/invoke`, so it cannot be invoked directly."
                ),
            });
        }
        check_size(kind, body.len() as u64, &function)?;
        let payload = if body.is_empty() {
            Bytes::from_static(b"{}")
        } else {
            body
        };
        if let Err(error) = is_json(&payload) {
            return Err(ApiError::InvalidRequestContent {
                message: format!(
                    "Could not parse request body into json: Could not parse payload into json: {error}"
                ),
            });
        }
        let client_context = client_context(headers)?;
        let traceparent = text(headers, "traceparent")?.and_then(traceparent);
        match kind {
            Kind::RequestResponse => {}
            Kind::DryRun => {
                return Ok(answer(StatusCode::NO_CONTENT, Bytes::new(), request_id));
            }
            Kind::Event => {
                let event = NewEvent {
                    request_id,
                    payload,
                    envelope: Envelope {
                        qualifier,
                        traceparent,
                        fire: None,
                    },
                    depth: 0,
                };
                self.intake
                    .accept(&function, event)
                    .await
                    .map_err(not_accepted)?;
                return Ok(answer(StatusCode::ACCEPTED, Bytes::new(), request_id));
            }
        }
        let tail = match text(headers, LOG_TYPE)? {
            Some("Tail") => Some(Tail::default()),
            _ => None,
        };

        let call = Call {
            request_id,
            qualifier,
            client_context,
            traceparent,
            tail: tail.clone(),
            ..Call::new(Trigger::Invoke)
        };
        if let Some(tail) = &tail {
            tail.line(&format!(
                "START RequestId: {request_id} Version: {}",
                function.version.common.version
            ));
        }
        let began = Instant::now();
        let ended = self.run_on_core(&function, payload, call).await?;
        let mut response = respond(ended.result, request_id)?;
        let response_headers = response.headers_mut();
        if let Ok(version) = HeaderValue::from_str(&function.version.common.version) {
            response_headers.insert(EXECUTED_VERSION, version);
        }
        if let Some(tail) = tail {
            let millis = began.elapsed().as_secs_f64() * 1000.0;
            let limit = function.version.common.spec.limits.memory.0 >> 20;
            let used = ended.usage.memory.div_ceil(1 << 20);
            tail.line(&format!("END RequestId: {request_id}"));
            tail.line(&format!(
                "REPORT RequestId: {request_id}\tDuration: {millis:.2} ms\tBilled Duration: {} ms\tMemory Size: {limit} MB\tMax Memory Used: {used} MB\t",
                millis.ceil()
            ));
            if let Ok(value) = HeaderValue::from_str(&STANDARD.encode(tail.bytes())) {
                response_headers.insert(LOG_RESULT, value);
            }
        }
        Ok(response)
    }

    /// Runs it on the least loaded core, to its end: a client that goes away
    /// does not cancel a direct invocation.
    async fn run_on_core(
        &self,
        function: &Arc<Function>,
        payload: Bytes,
        call: Call,
    ) -> Result<Ended<Bytes>, ApiError> {
        let (send, receive) = oneshot::channel();
        let (dispatcher, function) = (Arc::clone(&self.dispatcher), Arc::clone(function));
        let budget = Arc::clone(&self.budget);
        let running = self.running.token();
        self.cores.spawn(move |load| async move {
            let _held = (load, running);
            let interpret = move |answer| match answer {
                Answer::Payload(payload) => {
                    let held = budget.hold(json(payload)?.into());
                    held.ok_or_else(Failure::no_memory)
                }
                _ => Err(Failure::host(
                    "a direct invocation had the answer of another event",
                )),
            };
            let ended = dispatcher
                .invoke(&function, Event::Payload(payload), call, interpret)
                .await;
            // Nobody may be left to hear of it; its record is written.
            let _ = send.send(ended);
        });
        receive.await.map_err(|error| ApiError::Service {
            source: error.into(),
        })
    }
}

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The answer.
    RequestResponse,
    /// That the event is durable.
    Event,
    /// Whether it would be allowed.
    DryRun,
}

fn check_size(kind: Kind, size: u64, function: &Function) -> Result<(), ApiError> {
    let spec = &function.version.common.spec;
    let (limit, message) = if kind == Kind::Event {
        let limit = spec.events.event_limit.0;
        let message = format!(
            "{size} byte payload is too large for the Event invocation type (limit {limit} bytes)"
        );
        (limit, message)
    } else {
        let limit = spec.limits.request.0;
        let message =
            format!("Request must be smaller than {limit} bytes for the InvokeFunction operation");
        (limit, message)
    };
    match size > limit {
        true => Err(ApiError::RequestTooLarge { message }),
        false => Ok(()),
    }
}

/// Why an event could not be made durable.
fn not_accepted(error: QueueError) -> ApiError {
    match error {
        QueueError::Full(..) => ApiError::TooManyRequests {
            reason: ThrottleReason::FunctionInvocationRateLimitExceeded,
            retry_after: Some(RETRY_AFTER),
        },
        QueueError::Write(WriteError::Full) => ApiError::Unavailable {
            message: error.to_string(),
            retry_after: Some(RETRY_AFTER),
        },
        other => ApiError::Service {
            source: other.into(),
        },
    }
}

/// Whether these bytes are JSON: in UTF-8 too, which the parser does not look at
/// in what it skips.
fn is_json(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text);
    parsed.map(|_| ()).map_err(|error| error.to_string())
}

/// The answer of a function must be JSON; nothing at all is `null`.
fn json(payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if payload.is_empty() {
        return Ok(b"null".to_vec());
    }
    match is_json(&payload) {
        Ok(_) => Ok(payload),
        Err(error) => Err(Failure::new(
            OutcomeKind::FunctionError,
            "Runtime.MarshalError",
            format!("Unable to marshal response: the answer is not JSON: {error}"),
        )),
    }
}

fn answer(status: StatusCode, body: Bytes, request_id: RequestId) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let id = request_id.with_str(|id| HeaderValue::from_str(id).expect("a UUID is visible ASCII"));
    headers.insert(REQUEST_ID, id);
    response
}

fn respond(
    result: Result<Bytes, Failure>,
    request_id: RequestId,
) -> Result<Response<Bytes>, ApiError> {
    let failure = match result {
        Ok(payload) => return Ok(answer(StatusCode::OK, payload, request_id)),
        Err(failure) => failure,
    };
    match failure.kind {
        OutcomeKind::Throttled => {
            let reserved = failure.message.starts_with("Reserved");
            let reason = if reserved {
                ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded
            } else {
                ThrottleReason::ConcurrentInvocationLimitExceeded
            };
            Err(ApiError::TooManyRequests {
                reason,
                retry_after: failure.retry_after,
            })
        }
        OutcomeKind::HostError | OutcomeKind::Cancelled => Err(ApiError::Service {
            source: failure.message.into(),
        }),
        OutcomeKind::Ok
        | OutcomeKind::FunctionError
        | OutcomeKind::Trap
        | OutcomeKind::OutOfMemory
        | OutcomeKind::OutOfFuel
        | OutcomeKind::Timeout => {
            let body = failure.to_json(request_id);
            let mut response = answer(StatusCode::OK, body.to_string().into(), request_id);
            response
                .headers_mut()
                .insert(FUNCTION_ERROR, HeaderValue::from_static("Unhandled"));
            Ok(response)
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    let value = headers.get(name).map(HeaderValue::to_str).transpose();
    value.map_err(|_| ApiError::Validation {
        message: format!("the header {name} is not text"),
    })
}

fn client_context(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(encoded) = text(headers, CLIENT_CONTEXT)? else {
        return Ok(None);
    };
    let invalid = |why: String| ApiError::InvalidRequestContent {
        message: format!(
            "Client context must be base64 of a JSON object of at most {MAX_CLIENT_CONTEXT} bytes: {why}"
        ),
    };
    if encoded.len() > MAX_CLIENT_CONTEXT {
        return Err(invalid(format!("it has {} bytes", encoded.len())));
    }
    let decoded = STANDARD
        .decode(encoded)
        .map_err(|error| invalid(error.to_string()))?;
    let text = String::from_utf8(decoded).map_err(|error| invalid(error.to_string()))?;
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
        .map_err(|error| invalid(error.to_string()))?;
    Ok(Some(text))
}
