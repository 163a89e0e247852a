//! HTTP whose bodies are not held as a whole: a request that is read as it comes, an
//! answer that is sent as it is made.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;

/// A body in pieces.
pub type StreamBody = UnsyncBoxBody<Bytes, StreamError>;

/// Why a body ends before its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It is larger than the function's limit, in bytes.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// Its next piece did not come in time.
    #[error("its next piece did not come in time")]
    Timeout,
    /// Whoever sends it broke off.
    #[error("it was broken off: {0}")]
    Broken(String),
}

/// An HTTP request that is read as it comes, for a function that exports `wasi:http`.
pub struct StreamRequest {
    /// The request: an absolute target, and no headers that concern only the connection
    /// but a content-length that is true.
    pub request: http::Request<StreamBody>,
    /// Takes the answer as soon as its head is known. A body of it that ends with an
    /// error is not the whole answer.
    pub respond: oneshot::Sender<http::Response<StreamBody>>,
}

impl std::fmt::Debug for StreamRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamRequest")
            .field("method", self.request.method())
            .field("uri", self.request.uri())
            .finish_non_exhaustive()
    }
}
