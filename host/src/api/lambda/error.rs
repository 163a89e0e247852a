//! Errors of the Lambda API as clients see them: the one place where a failure becomes HTTP.
//!
//! The frame (REST-JSON): the code stands in `x-amzn-errortype`, the request id in
//! `x-amzn-RequestId`, the body is JSON. The member with the text is `message` for some codes and
//! `Message` for others, as in AWS's model of the service: SDKs hand it to their users under that
//! name. `Type` says whose fault it was, `User` or `Service`; errors from in front of the service
//! (signature, access, unknown operation) do not have it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::api::guard::Refusal;
use crate::api::sigv4::SignatureError;

const X_AMZN_ERRORTYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const X_AMZN_REQUESTID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// An error answer of the Lambda API. The texts are for the client; what only the operator may
/// know is the `source` of [`ApiError::Service`] and goes to the log.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Function, version, alias or other resource is not there.
    #[error("{message}")]
    ResourceNotFound { message: String },
    /// It exists already, or is in a state that does not allow the operation.
    #[error("{message}")]
    ResourceConflict { message: String },
    /// The `RevisionId` is not the latest.
    #[error("{message}")]
    PreconditionFailed { message: String },
    /// The body is not what the operation takes (not JSON, for Invoke).
    #[error("{message}")]
    InvalidRequestContent { message: String },
    /// A member of the request has a value that is not accepted.
    #[error("{message}")]
    InvalidParameterValue { message: String },
    /// A member of the request breaks the form that the model gives it.
    #[error("{message}")]
    Validation { message: String },
    #[error("{message}")]
    RequestTooLarge { message: String },
    /// Concurrency or rate is used up. Clients try again on their own.
    #[error("throttled: {}", reason.as_str())]
    TooManyRequests {
        reason: ThrottleReason,
        retry_after: Option<Duration>,
    },
    #[error("{message}")]
    AccessDenied { message: String },
    /// Turned away before anything was looked at.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not, or wrongly, signed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// An operation of the API that this host does not have, or a path that no operation has.
    #[error("operation not implemented: {operation}")]
    NotImplemented { operation: String },
    /// Draining, or out of disk: it will pass.
    #[error("{message}")]
    Unavailable {
        message: String,
        retry_after: Option<Duration>,
    },
    /// A fault of the host. The client learns only that there was one.
    #[error("internal error")]
    Service {
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Which limit a throttled request met: `Reason` in the answer. AWS's model has more; these are
/// the limits that this host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleReason {
    /// The host's.
    ConcurrentInvocationLimitExceeded,
    /// The function's reserved concurrency.
    ReservedFunctionConcurrentInvocationLimitExceeded,
    /// The function's backlog of asynchronous events.
    FunctionInvocationRateLimitExceeded,
    /// The caller's own rate.
    CallerRateLimitExceeded,
}

impl ThrottleReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConcurrentInvocationLimitExceeded => "ConcurrentInvocationLimitExceeded",
            Self::ReservedFunctionConcurrentInvocationLimitExceeded => {
                "ReservedFunctionConcurrentInvocationLimitExceeded"
            }
            Self::FunctionInvocationRateLimitExceeded => "FunctionInvocationRateLimitExceeded",
            Self::CallerRateLimitExceeded => "CallerRateLimitExceeded",
        }
    }
}

/// The body, in the order in which AWS writes it.
#[derive(Debug, Default, Serialize)]
struct Body<'a> {
    #[serde(rename = "Reason", skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(rename = "Type", skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    #[serde(rename = "message", skip_serializing_if = "Option::is_none")]
    lower: Option<&'a str>,
    #[serde(rename = "Message", skip_serializing_if = "Option::is_none")]
    upper: Option<&'a str>,
}

impl<'a> Body<'a> {
    /// `{"Type":…,"message":…}`
    fn lower(fault: &'a str, message: &'a str) -> Self {
        Self {
            fault: Some(fault),
            ..Self::untyped(message)
        }
    }

    /// `{"Type":…,"Message":…}`
    fn upper(fault: &'a str, message: &'a str) -> Self {
        Self {
            fault: Some(fault),
            upper: Some(message),
            ..Self::default()
        }
    }

    /// `{"message":…}`
    fn untyped(message: &'a str) -> Self {
        Self {
            lower: Some(message),
            ..Self::default()
        }
    }
}

impl ApiError {
    /// AWS's name of the error on the wire: for `x-amzn-errortype`, logs and labels. Sometimes
    /// another than the model's (`RequestTooLargeException` is never sent).
    pub fn code(&self) -> &'static str {
        match self {
            Self::ResourceNotFound { .. } => "ResourceNotFoundException",
            Self::ResourceConflict { .. } => "ResourceConflictException",
            Self::PreconditionFailed { .. } => "PreconditionFailedException",
            Self::InvalidRequestContent { .. } => "InvalidRequestContentException",
            Self::InvalidParameterValue { .. } => "InvalidParameterValueException",
            Self::Validation { .. } => "ValidationException",
            Self::RequestTooLarge { .. } => "RequestEntityTooLargeException",
            Self::TooManyRequests { .. } => "TooManyRequestsException",
            Self::AccessDenied { .. } => "AccessDeniedException",
            Self::Refused(refusal) => refusal.code(),
            Self::Signature(error) => error.code(),
            Self::NotImplemented { .. } => "NotImplementedException",
            Self::Unavailable { .. } => "ServiceUnavailableException",
            Self::Service { .. } => "ServiceException",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::ResourceNotFound { .. } => StatusCode::NOT_FOUND,
            Self::ResourceConflict { .. } => StatusCode::CONFLICT,
            Self::PreconditionFailed { .. } => StatusCode::PRECONDITION_FAILED,
            Self::InvalidRequestContent { .. }
            | Self::InvalidParameterValue { .. }
            | Self::Validation { .. } => StatusCode::BAD_REQUEST,
            Self::RequestTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::AccessDenied { .. } => StatusCode::FORBIDDEN,
            Self::Refused(refusal) => refusal.status(),
            Self::Signature(error) => error.status(),
            Self::NotImplemented { .. } => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Service { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer to the client. `request_id` must be visible ASCII, as a UUID is.
    pub fn into_response(self, request_id: &str) -> Response<Bytes> {
        let mut response = Response::new(self.body());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_AMZN_ERRORTYPE, HeaderValue::from_static(self.code()));
        if let Ok(request_id) = HeaderValue::from_str(request_id) {
            headers.insert(X_AMZN_REQUESTID, request_id);
        }
        if let Some(after) = self.retry_after() {
            // Whole seconds, and never sooner than asked.
            let seconds = after
                .as_secs()
                .saturating_add(u64::from(after.subsec_nanos() > 0));
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            Self::ResourceNotFound { .. }
            | Self::ResourceConflict { .. }
            | Self::PreconditionFailed { .. }
            | Self::InvalidRequestContent { .. }
            | Self::InvalidParameterValue { .. }
            | Self::Validation { .. }
            | Self::RequestTooLarge { .. }
            | Self::AccessDenied { .. }
            | Self::Refused(_)
            | Self::Signature(_)
            | Self::NotImplemented { .. }
            | Self::Service { .. } => None,
        }
    }

    fn body(&self) -> Bytes {
        match self {
            Self::ResourceNotFound { message } => json(&Body::upper("User", message)),
            Self::ResourceConflict { message }
            | Self::PreconditionFailed { message }
            | Self::InvalidRequestContent { message }
            | Self::InvalidParameterValue { message }
            | Self::RequestTooLarge { message } => json(&Body::lower("User", message)),
            Self::TooManyRequests { reason, .. } => json(&Body {
                reason: Some(reason.as_str()),
                ..Body::lower("User", "Rate Exceeded.")
            }),
            Self::Validation { message } => json(&Body::untyped(message)),
            Self::AccessDenied { message } => json(&Body {
                upper: Some(message),
                ..Body::default()
            }),
            Self::Refused(refusal) => json(&Body {
                upper: Some(&refusal.to_string()),
                ..Body::default()
            }),
            Self::Signature(error) => json(&Body::untyped(&error.message())),
            Self::NotImplemented { operation } => json(&Body::untyped(&format!(
                "{operation} is not implemented by this host."
            ))),
            Self::Unavailable { message, .. } => json(&Body::lower("Service", message)),
            Self::Service { .. } => json(&Body::upper(
                "Service",
                "The service encountered an internal error. The host's log has the cause, under \
                 this request id.",
            )),
        }
    }
}

fn json(body: &Body<'_>) -> Bytes {
    serde_json::to_vec(body)
        .expect("strings under fixed names always become JSON")
        .into()
}
