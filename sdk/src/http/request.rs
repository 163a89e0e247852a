use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::{Header, HttpError, StatusCode};
use crate::Context;

/// An HTTP request, whole.
pub struct Request {
    method: String,
    path_with_query: String,
    headers: Vec<Header>,
    body: Vec<u8>,
    /// Asked from the host when they are first wanted.
    params: OnceCell<Vec<(String, String)>>,
}

impl Request {
    /// A request without headers and body, for tests of handlers. The path may
    /// have a query: `/users?limit=3`.
    pub fn new(method: impl Into<String>, path_with_query: impl Into<String>) -> Self {
        Self::from_parts(
            method.into(),
            path_with_query.into(),
            Vec::new(),
            Vec::new(),
        )
    }

    /// Adds a header, for tests.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers
            .push((name.into().to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets the body, for tests.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a parameter of the route, for tests, where no host matches routes.
    pub fn with_param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let mut params = self.params.take().unwrap_or_default();
        params.push((name.into(), value.into()));
        self.params = OnceCell::from(params);
        self
    }

    pub(super) fn from_parts(
        method: String,
        path_with_query: String,
        headers: Vec<Header>,
        body: Vec<u8>,
    ) -> Self {
        Self {
            method,
            path_with_query,
            headers,
            body,
            params: OnceCell::new(),
        }
    }

    /// `GET`, `POST`, …: case-sensitive.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path without the query, as the client sent it: still
    /// percent-encoded. See [`param`](Self::param) for decoded parts of it.
    pub fn path(&self) -> &str {
        match self.path_with_query.split_once('?') {
            Some((path, _)) => path,
            None => &self.path_with_query,
        }
    }

    /// The query as the client sent it, without the `?`. `None` if there is none.
    pub fn query(&self) -> Option<&str> {
        self.path_with_query.split_once('?').map(|(_, query)| query)
    }

    /// The parameters of the query, decoded, in their order: `a=1&b=x+y` is
    /// `("a", "1")` and `("b", "x y")`. Bytes that are not UTF-8 become `U+FFFD`.
    pub fn query_params(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query().unwrap_or_default().as_bytes())
    }

    /// The first parameter of this name in the query, decoded.
    ///
    /// ```
    /// # use dunlin_sdk::Request;
    /// let request = Request::new("GET", "/find?q=caf%C3%A9+noir&empty");
    /// assert_eq!(request.query_param("q").as_deref(), Some("café noir"));
    /// assert_eq!(request.query_param("empty").as_deref(), Some(""));
    /// assert_eq!(request.query_param("page"), None);
    /// ```
    pub fn query_param(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_params()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// The first parameter of this name in the query, parsed. `None` if there
    /// is none.
    ///
    /// # Errors
    ///
    /// 400 if it does not parse; the message names the parameter and the reason.
    pub fn query_param_as<T>(&self, name: &str) -> Result<Option<T>, HttpError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        self.query_param(name)
            .map(|value| parse("query parameter", name, &value))
            .transpose()
    }

    /// The first header of this name, in any case. `None` also if its value is
    /// not UTF-8; see [`headers`](Self::headers) for the bytes.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| str::from_utf8(value).ok())
    }

    /// All headers in their order, with names in lower case. A header that
    /// occurs twice stands twice.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// A parameter that the route took from the path, decoded: `id` for the
    /// route `/users/{id}`.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .get_or_init(|| Context::current().route_parameters())
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A parameter that the route took from the path, parsed.
    ///
    /// # Errors
    ///
    /// 400 if it does not parse; 500 if the route has no parameter of this
    /// name. The message names the parameter and the reason.
    ///
    /// ```
    /// # use dunlin_sdk::Request;
    /// let request = Request::new("GET", "/users/seven").with_param("id", "seven");
    /// let error = request.param_as::<u64>("id").unwrap_err();
    /// assert_eq!(error.status().as_u16(), 400);
    /// assert_eq!(error.message(), "path parameter `id`: invalid digit found in string");
    /// ```
    pub fn param_as<T>(&self, name: &str) -> Result<T, HttpError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let value = self.param(name).ok_or_else(|| {
            HttpError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the route has no path parameter `{name}`"),
            )
        })?;
        parse("path parameter", name, value)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, without a copy.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The body as text.
    ///
    /// # Errors
    ///
    /// 400 if it is not UTF-8.
    pub fn body_text(&self) -> Result<&str, HttpError> {
        str::from_utf8(&self.body).map_err(|error| HttpError::bad_request(format!("body: {error}")))
    }

    /// The body, read as JSON. Its `content-type` is not asked.
    ///
    /// # Errors
    ///
    /// 400 if it is not JSON, 422 if it is and does not fit `T`. The message
    /// says what is wrong, and where.
    ///
    /// ```
    /// # use dunlin_sdk::Request;
    /// #[derive(serde::Deserialize, Debug)]
    /// struct User {
    ///     name: String,
    /// }
    ///
    /// let request = Request::new("POST", "/users").with_body(r#"{"nam":"Ada"}"#);
    /// let error = request.json::<User>().unwrap_err();
    /// assert_eq!(error.status().as_u16(), 422);
    /// assert_eq!(error.message(), "body: missing field `name` at line 1 column 13");
    /// ```
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let status = match error.classify() {
                Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
                Category::Io | Category::Syntax | Category::Eof => StatusCode::BAD_REQUEST,
            };
            HttpError::new(status, format!("body: {error}"))
        })
    }
}

/// Without the body and the values of headers, which may be secret.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path_with_query", &self.path_with_query)
            .finish_non_exhaustive()
    }
}

fn parse<T>(kind: &str, name: &str, value: &str) -> Result<T, HttpError>
where
    T: FromStr<Err: fmt::Display>,
{
    value
        .parse()
        .map_err(|error| HttpError::bad_request(format!("{kind} `{name}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_are_split_at_the_first_question_mark() {
        let request = Request::new("GET", "/a%2Fb?x=1?2");
        assert_eq!(request.path(), "/a%2Fb");
        assert_eq!(request.query(), Some("x=1?2"));
        assert_eq!(Request::new("GET", "/a").query(), None);
        assert_eq!(Request::new("GET", "/a?").query(), Some(""));
    }

    #[test]
    fn query_parameters_are_decoded_and_keep_their_order() {
        let request = Request::new("GET", "/?b=2&a=x%20y+z&b=3&%66lag&bad=%ff");
        let all: Vec<_> = request.query_params().collect();
        let all: Vec<_> = all.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
        let expected = [
            ("b", "2"),
            ("a", "x y z"),
            ("b", "3"),
            ("flag", ""),
            ("bad", "\u{fffd}"),
        ];
        assert_eq!(all, expected);
        assert_eq!(request.query_param("b").as_deref(), Some("2"));
    }

    #[test]
    fn a_query_parameter_that_does_not_parse_is_named() {
        let request = Request::new("GET", "/?width=wide&height=7");
        assert_eq!(request.query_param_as("height"), Ok(Some(7)));
        assert_eq!(request.query_param_as::<u32>("depth"), Ok(None));
        let error = request.query_param_as::<u32>("width").unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        assert!(error.message().contains("`width`"), "{error}");
    }

    #[test]
    fn headers_are_found_in_any_case_and_the_first_one_wins() {
        let request = Request::new("GET", "/")
            .with_header("Accept", "text/html")
            .with_header("accept", "text/plain")
            .with_header("x-bytes", [0xff]);
        assert_eq!(request.header("ACCEPT"), Some("text/html"));
        assert_eq!(request.header("x-bytes"), None);
        assert_eq!(request.header("absent"), None);
        assert_eq!(request.headers().last(), Some(("x-bytes", &[0xff][..])));
    }

    #[test]
    fn path_parameters_parse_or_say_why_not() {
        let request = Request::new("GET", "/users/7")
            .with_param("id", "7")
            .with_param("tail", "a/b");
        assert_eq!(request.param_as("id"), Ok(7_u64));
        assert_eq!(request.param("tail"), Some("a/b"));
        let error = request.param_as::<u64>("uid").unwrap_err();
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(error.message().contains("`uid`"), "{error}");
    }

    #[test]
    fn json_that_does_not_parse_is_400_and_json_that_does_not_fit_is_422() {
        let json = |body: &str| {
            Request::new("POST", "/")
                .with_body(body)
                .json::<Vec<u32>>()
                .map_err(|error| error.status().as_u16())
        };
        assert_eq!(json("[1,2]"), Ok(vec![1, 2]));
        assert_eq!(json(""), Err(400));
        assert_eq!(json("[1,"), Err(400));
        assert_eq!(json("[1}"), Err(400));
        assert_eq!(json("[1,-2]"), Err(422));
        assert_eq!(json("{}"), Err(422));
    }

    #[test]
    fn text_must_be_utf8() {
        let request = Request::new("POST", "/").with_body([b'a', 0xff]);
        assert_eq!(
            request.body_text().unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }

    #[test]
    fn debug_shows_neither_body_nor_headers() {
        let request = Request::new("POST", "/login")
            .with_header("authorization", "secret-1")
            .with_body("secret-2");
        assert!(!format!("{request:?}").contains("secret"));
    }
}
