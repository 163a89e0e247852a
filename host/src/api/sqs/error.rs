//! Errors of the SQS API as clients see them.
//!
//! AWS's JSON protocol names an error in the body (`__type`); clients that were written for
//! the older query protocol read its code in a header of its own.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::queue::QueueError;
use crate::store::WriteError;

const QUERY_ERROR: HeaderName = HeaderName::from_static("x-amzn-query-error");
/// Where clients look for a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqsError {
    #[error("The specified queue does not exist.")]
    NoQueue,
    #[error("A queue already exists with the same name and a different value for an attribute.")]
    Exists,
    #[error("{message}")]
    InvalidParameter { message: String },
    #[error("Unknown Attribute {0}.")]
    UnknownAttribute(String),
    #[error("Invalid value for the parameter {name}. Reason: {reason}")]
    InvalidAttribute { name: String, reason: String },
    #[error("The request must contain the parameter {0}.")]
    Missing(&'static str),
    #[error(
        "The message has a character that is not allowed: use #x9, #xA, #xD, #x20 to #xD7FF, #xE000 to #xFFFD and #x10000 to #x10FFFF."
    )]
    BadCharacters,
    #[error("The input receipt handle is invalid.")]
    BadReceipt,
    #[error("The specified message isn't in flight.")]
    NotInFlight,
    #[error("There should be at least one entry in the request.")]
    EmptyBatch,
    #[error("Maximum number of entries per request are 10. You have sent {0}.")]
    TooManyEntries(usize),
    #[error(
        "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long."
    )]
    BadBatchId,
    #[error("Id {0} repeated.")]
    SameBatchId(String),
    #[error("Batch requests cannot be longer than 1048576 bytes.")]
    BatchTooLong,
    #[error("{0}")]
    Unsupported(String),
    #[error("The request is not what the operation takes: {0}")]
    Malformed(String),
    /// The queue or the disk is full: what is sent again later may be taken.
    #[error("{0}")]
    Throttled(String),
    /// The disk is full.
    #[error("{0}")]
    Unavailable(String),
    #[error("The request has failed due to an unknown error of the host.")]
    Internal(String),
}

impl From<QueueError> for SqsError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Unknown(_) => Self::NoQueue,
            QueueError::InUse(..) => Self::Unsupported(error.to_string()),
            QueueError::TooLarge { .. } => Self::InvalidParameter {
                message: error.to_string(),
            },
            QueueError::Refused(message) => Self::InvalidParameter { message },
            QueueError::Full(..) => Self::Throttled(error.to_string()),
            QueueError::Write(WriteError::Full) => Self::Unavailable(error.to_string()),
            QueueError::Write(WriteError::Broken(why)) => Self::Internal(why),
        }
    }
}

impl SqsError {
    /// Its name in AWS's model, and its code in the older protocol.
    fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::NoQueue => (
                "QueueDoesNotExist",
                "AWS.SimpleQueueService.NonExistentQueue",
            ),
            Self::Exists => ("QueueNameExists", "QueueAlreadyExists"),
            Self::InvalidParameter { .. } | Self::Malformed(_) => {
                ("InvalidParameterValue", "InvalidParameterValue")
            }
            Self::UnknownAttribute(_) => ("InvalidAttributeName", "InvalidAttributeName"),
            Self::InvalidAttribute { .. } => ("InvalidAttributeValue", "InvalidAttributeValue"),
            Self::Missing(_) => ("MissingParameter", "MissingParameter"),
            Self::BadCharacters => ("InvalidMessageContents", "InvalidMessageContents"),
            Self::BadReceipt => ("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid"),
            Self::NotInFlight => (
                "MessageNotInflight",
                "AWS.SimpleQueueService.MessageNotInflight",
            ),
            Self::EmptyBatch => (
                "EmptyBatchRequest",
                "AWS.SimpleQueueService.EmptyBatchRequest",
            ),
            Self::TooManyEntries(_) => (
                "TooManyEntriesInBatchRequest",
                "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            ),
            Self::BadBatchId => (
                "InvalidBatchEntryId",
                "AWS.SimpleQueueService.InvalidBatchEntryId",
            ),
            Self::SameBatchId(_) => (
                "BatchEntryIdsNotDistinct",
                "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            ),
            Self::BatchTooLong => (
                "BatchRequestTooLong",
                "AWS.SimpleQueueService.BatchRequestTooLong",
            ),
            Self::Unsupported(_) => (
                "UnsupportedOperation",
                "AWS.SimpleQueueService.UnsupportedOperation",
            ),
            Self::Throttled(_) => ("RequestThrottled", "RequestThrottled"),
            Self::Unavailable(_) => ("ServiceUnavailable", "ServiceUnavailable"),
            Self::Internal(_) => ("InternalFailure", "InternalFailure"),
        }
    }

    /// Its code, as a batch has it for each entry.
    pub(super) fn query_code(&self) -> &'static str {
        self.names().1
    }

    /// Whether the sender can do something about it.
    pub(super) fn is_the_senders(&self) -> bool {
        self.status().is_client_error()
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Throttled(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer to the client. `request_id` must be visible ASCII.
    pub fn into_response(self, request_id: &str) -> Response<Bytes> {
        let (name, code) = self.names();
        let body = serde_json::json!({
            "__type": format!("com.amazonaws.sqs#{name}"),
            "message": self.to_string(),
        });
        let mut response = Response::new(body.to_string().into());
        *response.status_mut() = self.status();
        let fault = if self.is_the_senders() {
            "Sender"
        } else {
            "Receiver"
        };
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/x-amz-json-1.0");
        headers.insert(CONTENT_TYPE, json);
        for (name, value) in [
            (QUERY_ERROR, format!("{code};{fault}")),
            (REQUEST_ID, request_id.to_owned()),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        if matches!(self, Self::Throttled(_) | Self::Unavailable(_)) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
