use std::borrow::Cow;
use std::fmt;

use super::StatusCode;

/// An error that the client may see: a status and a message.
///
/// As a response it is the JSON `{"error":"<message>"}`. It passes through
/// [`Error`](crate::Error) unharmed, so that `?` works on it in any handler.
///
/// ```
/// use dunlin_sdk::{Error, HttpError, Request, Response};
///
/// #[dunlin_sdk::http]
/// fn handle(request: Request) -> Result<Response, Error> {
///     if request.header("authorization").is_none() {
///         return Err(HttpError::new(401, "who are you?").into());
///     }
///     // A parameter that is no number answers 400.
///     let id: u64 = request.param_as("id")?;
///     Ok(Response::text(id.to_string()))
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpError {
    status: StatusCode,
    message: Cow<'static, str>,
}

impl HttpError {
    /// An error with a status, usually 400 to 599, and a message for the client.
    pub fn new(status: impl Into<StatusCode>, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: status.into(),
            message: message.into(),
        }
    }

    /// 400: the request is malformed.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 422: the request is well-formed, and what it says cannot be.
    pub fn unprocessable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the client is told.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for HttpError {}
