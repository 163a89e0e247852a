use http::header::HeaderMap;

use super::*;

const REQUEST_ID: &str = "6b2f2c55-7f1b-4a8e-9a3b-1d4c5e6f7a8b";

fn message() -> String {
    "m".to_owned()
}

/// Status, code and body as they are on the wire.
#[track_caller]
fn check(error: ApiError, status: u16, code: &str, body: &str) -> HeaderMap {
    let response = error.into_response(REQUEST_ID);
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["x-amzn-errortype"], code);
    assert_eq!(response.headers()["x-amzn-requestid"], REQUEST_ID);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.body(), body);
    response.headers().clone()
}

#[test]
fn each_error_is_as_aws_sends_it() {
    let message = message();
    check(
        ApiError::ResourceNotFound {
            message: "Function not found: arn:aws:lambda:edge-1:123456789012:function:f:$LATEST"
                .to_owned(),
        },
        404,
        "ResourceNotFoundException",
        r#"{"Type":"User","Message":"Function not found: arn:aws:lambda:edge-1:123456789012:function:f:$LATEST"}"#,
    );
    let lower = r#"{"Type":"User","message":"m"}"#;
    for (error, status, code) in [
        (
            ApiError::ResourceConflict {
                message: message.clone(),
            },
            409,
            "ResourceConflictException",
        ),
        (
            ApiError::PreconditionFailed {
                message: message.clone(),
            },
            412,
            "PreconditionFailedException",
        ),
        (
            ApiError::InvalidRequestContent {
                message: message.clone(),
            },
            400,
            "InvalidRequestContentException",
        ),
        (
            ApiError::InvalidParameterValue {
                message: message.clone(),
            },
            400,
            "InvalidParameterValueException",
        ),
        (
            ApiError::RequestTooLarge {
                message: message.clone(),
            },
            413,
            "RequestEntityTooLargeException",
        ),
    ] {
        check(error, status, code, lower);
    }
    check(
        ApiError::Validation {
            message: message.clone(),
        },
        400,
        "ValidationException",
        r#"{"message":"m"}"#,
    );
    check(
        ApiError::AccessDenied { message },
        403,
        "AccessDeniedException",
        r#"{"Message":"m"}"#,
    );
    check(
        ApiError::NotImplemented {
            operation: "PutFunctionScalingConfig".to_owned(),
        },
        501,
        "NotImplementedException",
        r#"{"message":"PutFunctionScalingConfig is not implemented by this host."}"#,
    );
}

#[test]
fn a_throttled_request_learns_the_reason_and_when_to_return() {
    let throttled = |retry_after| ApiError::TooManyRequests {
        reason: ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded,
        retry_after,
    };
    let check = |retry_after| {
        check(
            throttled(retry_after),
            429,
            "TooManyRequestsException",
            r#"{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}"#,
        )
    };
    assert!(!check(None).contains_key("retry-after"));
    for (after, seconds) in [
        (Duration::ZERO, "0"),
        (Duration::from_millis(1), "1"),
        (Duration::from_secs(1), "1"),
        (Duration::from_millis(1001), "2"),
        (Duration::MAX, "18446744073709551615"),
    ] {
        assert_eq!(check(Some(after))["retry-after"], seconds);
    }
}

#[test]
fn an_unavailable_host_says_when_to_return() {
    let headers = check(
        ApiError::Unavailable {
            message: message(),
            retry_after: Some(Duration::from_secs(5)),
        },
        503,
        "ServiceUnavailableException",
        r#"{"Type":"Service","message":"m"}"#,
    );
    assert_eq!(headers["retry-after"], "5");
}

#[test]
fn a_fault_of_the_host_is_not_explained_to_the_client() {
    let error = ApiError::Service {
        source: "disk /dev/sda1 is on fire".into(),
    };
    let source = std::error::Error::source(&error).expect("kept for the log");
    assert_eq!(source.to_string(), "disk /dev/sda1 is on fire");
    check(
        error,
        500,
        "ServiceException",
        r#"{"Type":"Service","Message":"The service encountered an internal error. The host's log has the cause, under this request id."}"#,
    );
}

#[test]
fn a_wrong_signature_is_answered_with_its_own_code_and_text() {
    check(
        SignatureError::Missing.into(),
        403,
        "MissingAuthenticationTokenException",
        r#"{"message":"Missing Authentication Token"}"#,
    );
    check(
        SignatureError::UnknownKey {
            access_key_id: "AKIDEXAMPLE".to_owned(),
        }
        .into(),
        403,
        "UnrecognizedClientException",
        r#"{"message":"The security token included in the request is invalid."}"#,
    );
    check(
        SignatureError::Incomplete("x".to_owned()).into(),
        400,
        "IncompleteSignatureException",
        r#"{"message":"x"}"#,
    );
}

#[test]
fn a_refused_request_is_told_why() {
    check(
        Refusal::HostRepeated { count: 2 }.into(),
        403,
        "AccessDeniedException",
        r#"{"Message":"the request has 2 Host headers: send one"}"#,
    );
}

#[test]
fn texts_are_escaped() {
    check(
        ApiError::Validation {
            message: "\"a\"\n\\".to_owned(),
        },
        400,
        "ValidationException",
        r#"{"message":"\"a\"\n\\"}"#,
    );
}

#[test]
fn a_request_id_that_no_header_can_hold_is_left_out() {
    let response = ApiError::Validation { message: message() }.into_response("a\nb");
    assert!(!response.headers().contains_key("x-amzn-requestid"));
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}
