//! Answers: what a handler may say, and what of it may be sent to a client of HTTP.

use bytes::Bytes;

use super::Failed;

/// What a handler answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// From `dunlin:event/http`.
    Http(HttpAnswer),
    /// From `wasi:http`: the answer has gone to whoever waited for it.
    Streamed,
    /// From `dunlin:event/invoke` or `wasi:cli/run`.
    Payload(Vec<u8>),
    /// From `dunlin:event/schedule`.
    Done,
    /// From `dunlin:event/queue`: the messages that failed.
    Batch(Vec<Failed>),
}

/// An HTTP response, whole and fit to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status, 200 to 599.
    pub status: http::StatusCode,
    /// Headers, without those that frame the message.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Headers that concern one connection or the framing of one message (RFC 9110
/// section 7.6.1, RFC 9112 section 6): the host's business in both directions.
#[must_use]
pub fn is_connection_header(name: &http::HeaderName) -> bool {
    use http::header;
    const KEEP_ALIVE: http::HeaderName = http::HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: http::HeaderName = http::HeaderName::from_static("proxy-connection");
    [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ]
    .contains(name)
}

/// What may not come after a body, in either direction (RFC 9110 section 6.5.1): what
/// frames or routes the message, says who asks, how the request is to be handled or the
/// answer kept, and what the body is.
fn is_forbidden_trailer(name: &http::HeaderName) -> bool {
    use http::header;
    const FORBIDDEN: [http::HeaderName; 17] = [
        header::AGE,
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::COOKIE,
        header::DATE,
        header::EXPECT,
        header::EXPIRES,
        header::HOST,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::PRAGMA,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::RETRY_AFTER,
        header::SET_COOKIE,
        header::VARY,
        header::WWW_AUTHENTICATE,
    ];
    is_connection_header(name)
        || name.as_str().starts_with("content-")
        || name.as_str().starts_with("if-")
        || FORBIDDEN.contains(name)
}

/// Takes out of trailers what may not stand in them.
#[must_use]
pub fn allowed_trailers(mut trailers: http::HeaderMap) -> http::HeaderMap {
    remove_headers(&mut trailers, is_forbidden_trailer);
    trailers
}

/// Takes out headers, whatever their values.
pub fn remove_headers(headers: &mut http::HeaderMap, which: impl Fn(&http::HeaderName) -> bool) {
    // Mostly there is none.
    let found: Vec<http::HeaderName> = headers.keys().filter(|name| which(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// A status that ends a request.
fn check_status(status: u16) -> Result<http::StatusCode, String> {
    http::StatusCode::from_u16(status)
        .ok()
        .filter(|_| (200..600).contains(&status))
        .ok_or_else(|| format!("the status {status} is none that ends a request: use 200 to 599"))
}

/// Checks the head of an answer whose body comes in pieces, and takes out what concerns
/// only a connection. What says how long the body is, and which trailers follow it,
/// stays: it was checked, or is checked with the body. Answers how many bytes must come, if
/// the head says so.
///
/// # Errors
/// What no client may be sent, and why.
pub fn check_head<B: http_body::Body>(
    response: &mut http::Response<B>,
    may_lack_body: bool,
) -> Result<Option<u64>, String> {
    use http::header::{CONTENT_LENGTH, TRAILER};
    check_status(response.status().as_u16())?;
    let without_body = may_lack_body
        || matches!(
            response.status(),
            http::StatusCode::NO_CONTENT | http::StatusCode::NOT_MODIFIED
        );
    let is_empty = response.body().is_end_stream();
    let headers = response.headers_mut();
    let mut announced = None;
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let text = length.to_str().unwrap_or_default();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let shown = || length.as_bytes().escape_ascii();
        let Some(length) = text.parse::<u64>().ok().filter(|_| digits) else {
            return Err(format!("`{}` is no content-length", shown()));
        };
        if lengths.next().is_some() {
            return Err("it has several content-lengths".into());
        }
        if is_empty && length > 0 && !without_body {
            return Err(format!(
                "its content-length is {length}, and it has no body"
            ));
        }
        // One without a body says how long that of another would be.
        announced = (!without_body).then_some(length);
    }
    remove_headers(headers, |name| {
        is_connection_header(name) && ![CONTENT_LENGTH, TRAILER].contains(name)
    });
    Ok(announced)
}

impl HttpAnswer {
    /// Checks what a guest answered.
    ///
    /// # Errors
    /// What no client may be sent, and why.
    pub fn check<N, V>(
        status: u16,
        headers: impl Iterator<Item = (N, V)>,
        body: impl Into<Bytes>,
    ) -> Result<Self, String>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let code = check_status(status)?;
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            let shown = || String::from_utf8_lossy(name.as_ref()).into_owned();
            let name = http::HeaderName::from_bytes(name.as_ref())
                .map_err(|_| format!("`{}` is no name of a header", shown().escape_debug()))?;
            if is_connection_header(&name) {
                continue;
            }
            let value = http::HeaderValue::from_bytes(value.as_ref()).map_err(|_| {
                format!("the value of the header `{name}` has bytes that HTTP does not allow")
            })?;
            map.try_append(name, value)
                .map_err(|_| "it has too many headers".to_owned())?;
        }
        Ok(Self {
            status: code,
            headers: map,
            body: body.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Response};
    use http_body_util::{Empty, Full};

    use super::*;

    /// What is wrong with a head with these headers.
    fn head<B: http_body::Body>(
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: B,
        may_lack_body: bool,
    ) -> Result<HeaderMap, String> {
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_static(name);
            response.headers_mut().append(name, value.parse().unwrap());
        }
        check_head(&mut response, may_lack_body).map(|_| response.headers().clone())
    }

    fn body() -> Full<Bytes> {
        Full::from("body")
    }

    #[test]
    fn a_head_keeps_its_length_and_loses_what_concerns_the_connection() {
        let kept = head(
            200,
            &[
                ("content-length", "4"),
                ("trailer", "x-last"),
                ("connection", "close"),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("te", "trailers"),
                ("x-own", "1"),
                ("x-own", "2"),
            ],
            body(),
            false,
        );
        let kept = kept.unwrap();
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "trailer", "x-own"]);
        assert_eq!(kept.get_all("x-own").iter().count(), 2);
    }

    #[test]
    fn a_length_is_announced_where_a_body_follows() {
        let announced = |status: u16, length: &'static str, may_lack_body| {
            let mut response = Response::new(body());
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            let length = length.parse().unwrap();
            response.headers_mut().insert("content-length", length);
            check_head(&mut response, may_lack_body).unwrap()
        };
        assert_eq!(announced(200, "10", false), Some(10));
        assert_eq!(announced(200, "10", true), None, "to HEAD");
        assert_eq!(announced(304, "10", false), None);
    }

    #[test]
    fn a_length_that_is_none_is_named() {
        let length = |value| head(200, &[("content-length", value)], body(), false).unwrap_err();
        assert_eq!(length("+4"), "`+4` is no content-length");
        assert_eq!(length("4 "), "`4 ` is no content-length");
        assert_eq!(length(""), "`` is no content-length");
        assert_eq!(
            length("18446744073709551616"),
            "`18446744073709551616` is no content-length"
        );
        let twice = [("content-length", "4"), ("content-length", "4")];
        assert_eq!(
            head(200, &twice, body(), false).unwrap_err(),
            "it has several content-lengths"
        );
    }

    #[test]
    fn a_length_without_a_body_is_one_of_an_answer_that_has_none() {
        let ten = [("content-length", "10")];
        let empty = Empty::<Bytes>::new;
        assert_eq!(
            head(200, &ten, empty(), false).unwrap_err(),
            "its content-length is 10, and it has no body"
        );
        assert!(head(200, &ten, empty(), true).is_ok(), "to HEAD");
        assert!(head(304, &ten, empty(), false).is_ok());
        assert!(head(200, &[("content-length", "0")], empty(), false).is_ok());
    }

    #[test]
    fn a_status_ends_the_request() {
        for (status, ends) in [(199, false), (200, true), (599, true), (600, false)] {
            assert_eq!(head(status, &[], body(), false).is_ok(), ends, "{status}");
        }
        assert_eq!(
            head(103, &[], body(), false).unwrap_err(),
            "the status 103 is none that ends a request: use 200 to 599"
        );
    }

    #[test]
    fn of_trailers_remains_what_may_be_known_late() {
        let mut trailers = HeaderMap::new();
        for name in [
            "authorization",
            "cache-control",
            "content-length",
            "content-type",
            "cookie",
            "connection",
            "host",
            "if-match",
            "location",
            "set-cookie",
            "trailer",
            "transfer-encoding",
            "etag",
            "grpc-status",
            "server-timing",
        ] {
            trailers.append(name, "1".parse().unwrap());
        }
        trailers.append("etag", "2".parse().unwrap());
        trailers.append("host", "2".parse().unwrap());
        let allowed = allowed_trailers(trailers);
        let mut names: Vec<&str> = allowed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["etag", "grpc-status", "server-timing"]);
        assert_eq!(allowed.get_all("etag").iter().count(), 2);
    }
}
