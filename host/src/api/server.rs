//! Serving the admin address, and the metrics address if it has one of its own.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
use tokio_util::task::TaskTracker;

use super::credentials::Credentials;
use super::guard::Guard;
use super::lambda::error::{ApiError, ThrottleReason};
use super::lambda::{self, Lambda};
use super::operator::Operator;
use super::sigv4::{PayloadHash, RequestHead, Verifier};
use super::sqs::error::SqsError;
use super::sqs::{self, Sqs};
use crate::body::{self, BodyError};
use crate::config::Signatures;
use crate::invocation::RequestId;

/// A head or a body that takes longer holds a connection for nothing.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may leave an answer unread before its connection ends.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once: an operator's clients and a scraper are few.
const MAX_CONNECTIONS: usize = 512;
/// Direct invocations and operations on queues at once. They may take minutes; the rest of
/// the connections is for whoever asks how the host is.
const MAX_REQUESTS: usize = MAX_CONNECTIONS - 64;
/// After an error of the listening socket.
const PAUSE: Duration = Duration::from_millis(100);
/// When a client that found no room may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The admin address.
pub struct Admin {
    /// Who may come at all.
    pub guard: Guard,
    /// The keys that requests are signed with.
    pub keys: Vec<Credentials>,
    /// Whether they must be signed.
    pub signatures: Signatures,
    /// The Lambda API.
    pub lambda: Lambda,
    /// The SQS API.
    pub sqs: Sqs,
    /// The operator's endpoints, if they are served here.
    pub operator: Option<Operator>,
    /// Room for direct invocations and operations on queues.
    pub room: Semaphore,
}

impl Admin {
    /// Room for as many of these as connections can be spared for them.
    #[must_use]
    pub fn room() -> Semaphore {
        Semaphore::new(MAX_REQUESTS)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Bytes> {
        let request_id = RequestId::random();
        match self.handle(request, request_id).await {
            Ok(response) => response,
            Err(error) => {
                if let ApiError::Service { source } = &error {
                    let message = format!("the API failed for request {request_id}: {source}");
                    self.lambda
                        .telemetry()
                        .log
                        .host(crate::telemetry::Level::Error, &message);
                }
                error.into_response(&request_id.to_string())
            }
        }
    }

    async fn handle(
        &self,
        request: Request<Incoming>,
        request_id: RequestId,
    ) -> Result<Response<Bytes>, ApiError> {
        let (parts, body) = request.into_parts();
        self.guard.check(&parts.uri, &parts.headers)?;
        if let Some(operator) = &self.operator
            && let Some(response) = operator.answer(&parts.method, parts.uri.path()).await
        {
            return Ok(response);
        }
        let path = parts.uri.path();
        let queue_operation = sqs::operation(&parts.method, path, &parts.headers);
        // Nobody's body is read before its sender is known. What was signed for one API is
        // not for the other.
        let verifier = Verifier {
            keys: &self.keys,
            services: match queue_operation {
                Some(_) => &["sqs"],
                None => &["lambda"],
            },
        };
        let claim = match self.signatures {
            Signatures::Required => {
                Some(verifier.check_head(&RequestHead::from(&parts), OffsetDateTime::now_utc())?)
            }
            Signatures::Waived => None,
        };
        let operation = match queue_operation {
            Some(operation) => Operation::Sqs(operation.to_owned()),
            None => Operation::Lambda(lambda::route(&parts.method, path, parts.uri.query())?),
        };
        // From before its body is read until it is answered: both may take long.
        let Ok(_room) = self.room.try_acquire() else {
            return Ok(crowded(request_id));
        };
        let limit = operation.body_limit();
        let read = body::read(body, limit as u64, BODY_TIMEOUT, self.lambda.budget());
        let body = read.await.map_err(|error| match error {
            BodyError::TooLarge => ApiError::RequestTooLarge {
                message: format!(
                    "Request must be smaller than {limit} bytes for the {} operation",
                    operation.name()
                ),
            },
            BodyError::Broken => ApiError::InvalidRequestContent {
                message: "The request body broke off.".into(),
            },
            BodyError::Timeout => ApiError::InvalidRequestContent {
                message: format!(
                    "The request body did not arrive within {} seconds.",
                    BODY_TIMEOUT.as_secs()
                ),
            },
            BodyError::NoMemory => ApiError::Unavailable {
                message: "The host has no memory for the request body now.".into(),
                retry_after: Some(RETRY_AFTER),
            },
        })?;
        if let Some(claim) = claim {
            claim.verify(&PayloadHash::of(&body))?;
        }
        match operation {
            Operation::Lambda(operation) => {
                let run = self.lambda.run(operation, &parts.headers, body, request_id);
                run.await
            }
            Operation::Sqs(operation) => {
                let host = host(&parts);
                match self.sqs.run(&operation, host, &body).await {
                    Ok(response) => {
                        // Messages hold memory until their client has read them.
                        let (head, body) = response.into_parts();
                        let held = self.lambda.budget().hold(body);
                        let body = held.ok_or_else(|| ApiError::Unavailable {
                            message: "The host has no memory for the answer now.".into(),
                            retry_after: Some(RETRY_AFTER),
                        })?;
                        let mut response = Response::from_parts(head, body);
                        let id = request_id.with_str(HeaderValue::from_str);
                        let id = id.expect("a UUID is visible ASCII");
                        response.headers_mut().insert(sqs::error::REQUEST_ID, id);
                        Ok(response)
                    }
                    Err(error) => Ok(self.failed(&error, request_id)),
                }
            }
        }
    }

    fn failed(&self, error: &SqsError, request_id: RequestId) -> Response<Bytes> {
        if let SqsError::Internal(why) = error {
            let message = format!("the queues failed for request {request_id}: {why}");
            let log = &self.lambda.telemetry().log;
            log.host(crate::telemetry::Level::Error, &message);
        }
        error.clone().into_response(&request_id.to_string())
    }
}

/// What a request asks for, of which API.
enum Operation {
    Lambda(lambda::Operation),
    Sqs(String),
}

impl Operation {
    fn name(&self) -> &str {
        match self {
            Self::Lambda(operation) => operation.name(),
            Self::Sqs(operation) => operation,
        }
    }

    fn body_limit(&self) -> usize {
        match self {
            Self::Lambda(operation) => operation.body_limit(),
            Self::Sqs(_) => sqs::BODY_LIMIT,
        }
    }
}

/// How the client reached this address; the guard has looked at it.
fn host(parts: &http::request::Parts) -> &str {
    let header = parts.headers.get(http::header::HOST);
    header
        .and_then(|host| host.to_str().ok())
        .or_else(|| parts.uri.authority().map(http::uri::Authority::as_str))
        .unwrap_or("localhost")
}

/// The answer to a request that finds no room. Its connection ends: kept, it
/// would take the place of somebody who asks how the host is.
fn crowded(request_id: RequestId) -> Response<Bytes> {
    let error = ApiError::TooManyRequests {
        reason: ThrottleReason::ConcurrentInvocationLimitExceeded,
        retry_after: Some(RETRY_AFTER),
    };
    let mut response = error.into_response(&request_id.to_string());
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// Serves an address until the host drains, and ends when its last request
/// has its answer.
pub async fn serve<F>(
    listener: TcpListener,
    draining: watch::Receiver<bool>,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Response<Bytes>> + Send + 'static,
{
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut ending = draining.clone();
    loop {
        let accept = async {
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            _ = ending.wait_for(|draining| *draining) => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let mut draining = draining.clone();
        connections.spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await.map(Full::new)) }
            });
            let mut stream = Box::pin(TimeoutStream::new(stream));
            stream.as_mut().set_write_timeout_pinned(Some(WRITE_TIMEOUT));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = draining.wait_for(|draining| *draining) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Answers on the admin address.
pub fn admin(
    admin: Arc<Admin>,
) -> impl Fn(Request<Incoming>) -> AnswerFuture + Clone + Send + Sync + 'static {
    move |request| Box::pin(Arc::clone(&admin).answer(request))
}

/// Answers on a metrics address of its own.
pub fn metrics(
    operator: Operator,
) -> impl Fn(Request<Incoming>) -> AnswerFuture + Clone + Send + Sync + 'static {
    move |request| {
        let operator = operator.clone();
        Box::pin(async move {
            let answer = operator.answer(request.method(), request.uri().path());
            answer.await.unwrap_or_else(|| {
                let mut response = Response::new(Bytes::from_static(
                    b"there is /health, /ready and /metrics\n",
                ));
                *response.status_mut() = http::StatusCode::NOT_FOUND;
                response
            })
        })
    }
}

type AnswerFuture = std::pin::Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;
