//! From an outcome to a response.

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{Method, Response, StatusCode};

use http_body_util::{Either, Full};

use super::activity::Activity;
use super::service::Busy;
use super::stream::Streamed;
use crate::body::BodyError;
use crate::invocation::{Failure, HttpAnswer, OutcomeKind, RequestId};

/// What goes over the wire.
pub(super) type HttpResponse = Response<Outgoing>;

/// The body of an answer.
pub(super) enum Outgoing {
    /// It is there.
    Whole(Bytes),
    /// It comes.
    Streamed(Box<Streamed>),
}

impl Outgoing {
    /// As it is sent. A request is under way until its answer is there, or sent if it
    /// comes in pieces.
    pub(super) fn sent(self, activity: &Activity, busy: Busy) -> Sent {
        match self {
            Self::Whole(body) => Either::Left(Full::new(activity.until_sent(body))),
            Self::Streamed(mut body) => {
                body.keep(busy);
                Either::Right(body)
            }
        }
    }
}

/// A body while it is sent.
pub(super) type Sent = Either<Full<Bytes>, Box<Streamed>>;

/// Names the invocation, as AWS does.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
/// Says how the invocation ended, on every answer that the handler did not
/// make.
const OUTCOME: HeaderName = HeaderName::from_static("x-dunlin-outcome");

/// The handler's own answer.
pub(super) fn of_handler(answer: HttpAnswer, request_id: RequestId) -> HttpResponse {
    let mut response = Response::new(Outgoing::Whole(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    // What the host says of an invocation, no guest says.
    response.headers_mut().remove(OUTCOME);
    name(&mut response, request_id);
    response
}

/// The answer of a handler that streams it.
pub(super) fn of_stream(
    parts: http::response::Parts,
    body: Outgoing,
    request_id: RequestId,
) -> HttpResponse {
    let mut response = Response::from_parts(parts, body);
    response.headers_mut().remove(OUTCOME);
    name(&mut response, request_id);
    response
}

fn name(response: &mut HttpResponse, request_id: RequestId) {
    let value =
        request_id.with_str(|id| HeaderValue::from_str(id).expect("a UUID is visible ASCII"));
    response.headers_mut().insert(REQUEST_ID, value);
}

fn message(status: StatusCode, text: &str) -> HttpResponse {
    let body = serde_json::json!({ "message": text }).to_string();
    let mut response = Response::new(Outgoing::Whole(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer of an invocation that did not end well. What the guest said
/// stays in the log: a client need not learn of a function's insides.
pub(super) fn of_failure(failure: &Failure, request_id: RequestId) -> HttpResponse {
    let (status, text) = match failure.kind {
        OutcomeKind::Ok => (StatusCode::OK, "OK"),
        OutcomeKind::FunctionError
        | OutcomeKind::Trap
        | OutcomeKind::OutOfMemory
        | OutcomeKind::OutOfFuel => (StatusCode::BAD_GATEWAY, "Internal Server Error"),
        OutcomeKind::Timeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "the function did not answer in time",
        ),
        OutcomeKind::Throttled => (StatusCode::TOO_MANY_REQUESTS, "Rate Exceeded."),
        // Nobody is there to read it, but for a client of HTTP/2 that took back
        // its request.
        OutcomeKind::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "cancelled"),
        OutcomeKind::HostError => (StatusCode::INTERNAL_SERVER_ERROR, "the host failed"),
    };
    let mut response = message(status, text);
    if let Some(after) = failure.retry_after {
        let seconds = after.as_secs().max(1);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
        .headers_mut()
        .insert(OUTCOME, HeaderValue::from_static(failure.kind.as_str()));
    name(&mut response, request_id);
    response
}

/// The answer to a request whose body could not be had.
pub(super) fn of_body(error: &BodyError, limit: u64) -> HttpResponse {
    let mut response = match error {
        BodyError::TooLarge => message(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("Request must be smaller than {limit} bytes"),
        ),
        BodyError::Timeout => message(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        ),
        BodyError::NoMemory => {
            let mut response = message(
                StatusCode::SERVICE_UNAVAILABLE,
                "no memory for the body now",
            );
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
        BodyError::Broken => message(StatusCode::BAD_REQUEST, "the body is broken"),
    };
    close(&mut response);
    response
}

/// Whether an answer with this status has a body, unless it is one to HEAD (RFC 9110
/// section 6.4.1).
pub(super) fn has_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Leaves the headers of an answer that has no body, and to HEAD their content-length.
pub(super) fn without_body(response: &mut HttpResponse) {
    let status = response.status();
    // RFC 9110 section 8.6.
    if status == StatusCode::NO_CONTENT {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    // One that is streamed is never read.
    if let Outgoing::Whole(body) = response.body_mut() {
        let length = std::mem::take(body).len();
        if has_body(status) {
            // A handler may know it without making the body.
            let headers = response.headers_mut();
            headers
                .entry(CONTENT_LENGTH)
                .or_insert_with(|| HeaderValue::from(length));
        }
    }
}

/// Takes out of trailers what no guest says.
pub(super) fn of_trailers(trailers: &mut http::HeaderMap) {
    trailers.remove(OUTCOME);
    trailers.remove(REQUEST_ID);
}

/// The connection ends with this answer.
pub(super) fn close(response: &mut HttpResponse) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

pub(super) fn not_found() -> HttpResponse {
    message(StatusCode::NOT_FOUND, "no route matches")
}

pub(super) fn method_not_allowed(allowed: &[Method]) -> HttpResponse {
    let list = allowed
        .iter()
        .map(Method::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let mut response = message(
        StatusCode::METHOD_NOT_ALLOWED,
        "the route does not take this method",
    );
    if let Ok(value) = HeaderValue::from_str(&list) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

pub(super) fn head_too_large(limit: usize) -> HttpResponse {
    let text = format!("the request's head must be smaller than {limit} bytes");
    let mut response = message(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &text);
    close(&mut response);
    response
}

pub(super) fn bad_request(text: &str) -> HttpResponse {
    let mut response = message(StatusCode::BAD_REQUEST, text);
    close(&mut response);
    response
}

pub(super) fn shutting_down() -> HttpResponse {
    let mut response = message(StatusCode::SERVICE_UNAVAILABLE, "the host is shutting down");
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    close(&mut response);
    response
}

/// Written by hand to a connection whose request never became whole.
pub(super) const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_that_has_no_body_says_at_most_how_long_it_would_be() {
        let length = |status, own: Option<u64>| {
            let mut response = Response::new(Outgoing::Whole("body".into()));
            *response.status_mut() = status;
            if let Some(own) = own {
                response.headers_mut().insert(CONTENT_LENGTH, own.into());
            }
            without_body(&mut response);
            assert!(matches!(response.body(), Outgoing::Whole(body) if body.is_empty()));
            let length = response.headers().get(CONTENT_LENGTH);
            length.map(|length| length.to_str().unwrap().to_owned())
        };
        assert_eq!(length(StatusCode::OK, None).as_deref(), Some("4"));
        assert_eq!(length(StatusCode::OK, Some(1000)).as_deref(), Some("1000"));
        assert_eq!(length(StatusCode::NO_CONTENT, Some(4)), None);
        assert_eq!(length(StatusCode::NOT_MODIFIED, None), None);
        let kept = length(StatusCode::NOT_MODIFIED, Some(4));
        assert_eq!(kept.as_deref(), Some("4"));
    }

    #[test]
    fn every_outcome_has_its_status_and_tells_nothing_of_the_inside() {
        let expected = |kind| match kind {
            OutcomeKind::Ok => 200,
            OutcomeKind::FunctionError
            | OutcomeKind::Trap
            | OutcomeKind::OutOfMemory
            | OutcomeKind::OutOfFuel => 502,
            OutcomeKind::Timeout => 504,
            OutcomeKind::Throttled => 429,
            OutcomeKind::Cancelled => 503,
            OutcomeKind::HostError => 500,
        };
        for kind in OutcomeKind::ALL {
            let failure = Failure {
                retry_after: Some(Duration::from_millis(1)),
                ..Failure::new(kind, "Inner.Type", "inner message")
            };
            let id = RequestId::random();
            let response = of_failure(&failure, id);
            assert_eq!(response.status(), expected(kind), "{kind:?}");
            let header = |name| response.headers()[name].to_str().unwrap();
            assert_eq!(header("x-dunlin-outcome"), kind.as_str());
            assert_eq!(header("x-amzn-requestid"), id.to_string());
            assert_eq!(header("retry-after"), "1", "a whole second at least");
            let Outgoing::Whole(body) = response.body() else {
                panic!("{kind:?}: it is streamed");
            };
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            let text = body["message"].as_str().unwrap();
            assert!(!text.to_lowercase().contains("inner"), "{kind:?}: {text}");
        }
    }
}
