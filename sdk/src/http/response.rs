use std::fmt;

use serde::Serialize;

use super::{Header, IntoResponse, Json, StatusCode};

/// An HTTP response, whole.
///
/// ```
/// use dunlin_sdk::{Response, StatusCode};
///
/// let response = Response::text("made\n")
///     .with_status(StatusCode::CREATED)
///     .with_header("location", "/things/7");
/// assert_eq!(response.header("location"), Some("/things/7"));
/// ```
///
/// Headers that frame the message (`content-length`, `transfer-encoding`,
/// `connection`, …) are the host's business; it ignores them here.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<Header>,
    pub(super) body: Vec<u8>,
}

impl Response {
    /// A response with this status (200 to 599), without headers and body.
    pub fn new(status: impl Into<StatusCode>) -> Self {
        Self {
            status: status.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// 204, without a body.
    pub fn empty() -> Self {
        Self::new(StatusCode::NO_CONTENT)
    }

    /// 200 and plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::of_type("text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// 200 and HTML.
    pub fn html(html: impl Into<String>) -> Self {
        Self::of_type("text/html; charset=utf-8", html.into().into_bytes())
    }

    /// 200 and a value as JSON. A value that cannot be JSON (a map whose keys
    /// are no strings, an error in a `Serialize`) is logged, and answers 500.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Self {
        Json(value).into_response()
    }

    /// 302, to a location. For others set the status:
    /// `.with_status(StatusCode::SEE_OTHER)`.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self::new(StatusCode::FOUND).with_header("location", location.into())
    }

    /// 200 and a body of this content type.
    pub(super) fn of_type(content_type: &str, body: Vec<u8>) -> Self {
        Self::new(StatusCode::OK)
            .with_header("content-type", content_type)
            .with_body(body)
    }

    /// Sets the status: 200 to 599.
    pub fn with_status(mut self, status: impl Into<StatusCode>) -> Self {
        self.status = status.into();
        self
    }

    /// Sets a header in place of any of this name.
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers
            .retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.append_header(name, value)
    }

    /// Adds a header and keeps those of the same name, such as `set-cookie`.
    pub fn append_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets the body. A `Vec` or `String` moves to the host without a copy in
    /// the function.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The first header of this name, in any case, if its value is UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| str::from_utf8(value).ok())
    }

    /// All headers in their order, with names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_replaced_or_appended() {
        let response = Response::text("x")
            .with_header("Content-Type", "text/csv")
            .append_header("set-cookie", "a=1")
            .append_header("set-cookie", "b=2");
        let headers: Vec<_> = response.headers().collect();
        let expected: [(&str, &[u8]); 3] = [
            ("content-type", b"text/csv"),
            ("set-cookie", b"a=1"),
            ("set-cookie", b"b=2"),
        ];
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_redirect_has_a_location() {
        let response = Response::redirect("/new");
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(response.header("location"), Some("/new"));
        assert_eq!(response.body(), b"");
    }

    #[test]
    fn an_empty_response_is_204() {
        assert_eq!(Response::empty(), Response::new(204));
    }
}
