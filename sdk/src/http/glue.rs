//! Between the generated types and ours. The code that `#[http]` writes calls
//! this; nobody else does.

use dunlin_sdk_async::http::exports::dunlin::event::http as asynchronous;

use super::{IntoResponse, Request, Response};
use crate::bindings::http::exports::dunlin::event::http as synchronous;

pub use asynchronous::Guest as AsyncGuest;
pub use asynchronous::{Request as AsyncRequest, Response as AsyncResponse};
pub use synchronous::Guest;
pub use synchronous::{Request as RawRequest, Response as RawResponse};

impl From<RawRequest> for Request {
    fn from(request: RawRequest) -> Self {
        let RawRequest {
            method,
            path_with_query,
            headers,
            body,
        } = request;
        Self::from_parts(method, path_with_query, headers, body)
    }
}

impl From<AsyncRequest> for Request {
    fn from(request: AsyncRequest) -> Self {
        let AsyncRequest {
            method,
            path_with_query,
            headers,
            body,
        } = request;
        Self::from_parts(method, path_with_query, headers, body)
    }
}

impl From<Response> for RawResponse {
    fn from(response: Response) -> Self {
        let Response {
            status,
            headers,
            body,
        } = response;
        Self {
            status: status.as_u16(),
            headers,
            body,
        }
    }
}

impl From<Response> for AsyncResponse {
    fn from(response: Response) -> Self {
        let Response {
            status,
            headers,
            body,
        } = response;
        Self {
            status: status.as_u16(),
            headers,
            body,
        }
    }
}

/// The answer of a handler.
pub fn answer<R: From<Response>>(response: impl IntoResponse) -> R {
    response.into_response().into()
}
