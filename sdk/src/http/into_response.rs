use std::borrow::Cow;

use serde::Serialize;

use super::{HttpError, Response, StatusCode};
use crate::error::{self, Error};
use crate::logging;

/// What a handler of HTTP requests may return.
///
/// | type | response |
/// |---|---|
/// | [`Response`] | itself |
/// | `&str`, `String`, `Cow<str>` | 200, `text/plain; charset=utf-8` |
/// | `Vec<u8>`, `&'static [u8]` | 200, `application/octet-stream` |
/// | [`Json`] | 200, `application/json` |
/// | [`StatusCode`] | that status, no body |
/// | `()` | 204 |
/// | `(StatusCode, R)` | `R`, with that status |
/// | [`HttpError`] | its status and `{"error":"<message>"}` |
/// | [`Error`](crate::Error) | an [`HttpError`] inside it as above; any other is logged with its causes, and the client gets 500 and `{"error":"internal server error"}` |
/// | `Result<R, E>` | that of the `R` or of the `E` |
///
/// Types of your own, above all error types, join by implementing it:
///
/// ```
/// use dunlin_sdk::{HttpError, IntoResponse, Request, Response};
///
/// enum ShopError {
///     SoldOut,
///     NoSuchThing(String),
/// }
///
/// impl IntoResponse for ShopError {
///     fn into_response(self) -> Response {
///         match self {
///             Self::SoldOut => HttpError::new(409, "sold out"),
///             Self::NoSuchThing(name) => HttpError::not_found(format!("no {name} here")),
///         }
///         .into_response()
///     }
/// }
///
/// #[dunlin_sdk::http]
/// fn handle(request: Request) -> Result<&'static str, ShopError> {
///     match request.param("thing") {
///         Some("kite") => Ok("42.00\n"),
///         Some("boat") => Err(ShopError::SoldOut),
///         name => Err(ShopError::NoSuchThing(name.unwrap_or_default().to_owned())),
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a response",
    note = "an HTTP handler returns `Response`, text, bytes, `Json<T>`, `StatusCode`, `(StatusCode, R)` or a `Result` of these",
    note = "for errors that implement `std::error::Error`, return `Result<_, dunlin_sdk::Error>` and use `?`"
)]
pub trait IntoResponse {
    /// The response.
    fn into_response(self) -> Response;
}

/// A value as the JSON body of a response.
///
/// ```
/// use dunlin_sdk::{IntoResponse, Json};
///
/// let response = Json([1, 2]).into_response();
/// assert_eq!(response.header("content-type"), Some("application/json"));
/// assert_eq!(response.body(), b"[1,2]");
/// ```
///
/// A value that cannot be JSON (a map whose keys are no strings, an error in a
/// `Serialize`) is logged, and answers 500.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => Response::of_type("application/json", body),
            Err(error) => internal_server_error(&error),
        }
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for &str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for Cow<'_, str> {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for &[u8] {
    fn into_response(self) -> Response {
        self.to_vec().into_response()
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Response::of_type("application/octet-stream", self)
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::empty()
    }
}

impl<R: IntoResponse> IntoResponse for (StatusCode, R) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<R: IntoResponse, E: IntoResponse> IntoResponse for Result<R, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(response) => response.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        error_response(self.status(), self.message())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match self.downcast::<HttpError>() {
            Ok(error) => error.into_response(),
            Err(error) => internal_server_error(&*error),
        }
    }
}

/// What went wrong is for the log; the client learns only that it did.
fn internal_server_error(error: &(dyn std::error::Error + 'static)) -> Response {
    logging::error("the handler failed", &error::chain(error));
    error_response(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
}

fn error_response(status: StatusCode, message: &str) -> Response {
    let mut body = String::from(r#"{"error":"#);
    logging::push_json_string(&mut body, message);
    body.push('}');
    Response::of_type("application/json", body.into_bytes()).with_status(status)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn check(value: impl IntoResponse, status: u16, content_type: Option<&str>, body: &str) {
        let response = value.into_response();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.header("content-type"), content_type);
        assert_eq!(str::from_utf8(response.body()), Ok(body));
    }

    const TEXT: Option<&str> = Some("text/plain; charset=utf-8");
    const BYTES: Option<&str> = Some("application/octet-stream");
    const JSON: Option<&str> = Some("application/json");

    #[test]
    fn each_type_has_its_response() {
        check("hi", 200, TEXT, "hi");
        check(String::from("hi"), 200, TEXT, "hi");
        check(Cow::Borrowed("hi"), 200, TEXT, "hi");
        check(&b"hi"[..], 200, BYTES, "hi");
        check(b"hi".to_vec(), 200, BYTES, "hi");
        check(Json(HashMap::from([("a", 1)])), 200, JSON, r#"{"a":1}"#);
        check(StatusCode::ACCEPTED, 202, None, "");
        check((), 204, None, "");
        check((StatusCode::CREATED, "made"), 201, TEXT, "made");
        check(
            Response::html("<p>"),
            200,
            Some("text/html; charset=utf-8"),
            "<p>",
        );
    }

    #[test]
    fn an_http_error_keeps_its_status_also_when_boxed() {
        let error = HttpError::not_found("no user \"7\"");
        let body = r#"{"error":"no user \"7\""}"#;
        check(error.clone(), 404, JSON, body);
        check(Err::<(), _>(Error::from(error)), 404, JSON, body);
    }

    #[test]
    fn any_other_error_is_500_and_keeps_its_reason_from_the_client() {
        let error: Error = "password is swordfish".into();
        check(error, 500, JSON, r#"{"error":"internal server error"}"#);
    }

    #[test]
    fn what_cannot_be_json_is_500() {
        let map = HashMap::from([((1, 2), 3)]);
        check(Json(map), 500, JSON, r#"{"error":"internal server error"}"#);
    }
}
