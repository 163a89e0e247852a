//! The doors of `wasi:http`: a handler gets a request whose body it reads as it comes,
//! and answers with a body that is sent as it writes it.
//!
//! An invocation is over when its handler has returned, its answer has been read to its
//! end, and nothing is left that it still does (of WASI 0.3). What a guest leaves
//! unfinished is broken off for its reader: nobody takes half an answer for a whole one.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::{Accessor, GuestTaskId, Resource, TypedFunc};
use wasmtime_wasi_http::p2::bindings::http::types::{self as types_02, Scheme};
use wasmtime_wasi_http::p2::body::{HostOutgoingBody, StreamContext};
use wasmtime_wasi_http::p3::bindings::http::types as types_03;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView as _};

use super::Budget;
use super::state::State;
use crate::invocation::{
    Failure, OutcomeKind, StreamBody, StreamError, StreamRequest, allowed_trailers, check_head,
};

/// `incoming-handler.handle`.
pub(super) type Params02 = (
    Resource<types_02::IncomingRequest>,
    Resource<types_02::ResponseOutparam>,
);
pub(super) type Results02 = ();
/// `handler.handle`.
pub(super) type Params03 = (Resource<Request>,);
pub(super) type Results03 = (Result<Resource<Response>, types_03::ErrorCode>,);

impl From<StreamError> for Error {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::TooLarge(limit) => Self::HttpRequestBodySize(Some(limit)),
            StreamError::Timeout => Self::ConnectionReadTimeout,
            StreamError::Broken(_) => Self::ConnectionTerminated,
        }
    }
}

/// Calls a handler of WASI 0.2. The outer error is an end that was none of its making.
pub(super) async fn enter_02(
    handler: TypedFunc<Params02, Results02>,
    store: &mut Store<State>,
    request: Box<StreamRequest>,
) -> wasmtime::Result<Result<(), Failure>> {
    let (desk, request) = Desk::of(store.data(), request);
    let _broken_off = BrokenOff(Arc::clone(&desk));
    let mut view = store.data_mut().http();
    let request = view.new_incoming_request(Scheme::Http, request)?;
    let answers = Arc::clone(&desk);
    let answer = view.new_response_outparam_from_callback(move |response| {
        answers.answer(response.map_err(|code| code.to_string()));
    })?;
    handler.call_async(&mut *store, (request, answer)).await?;
    break_off_unfinished(store.data_mut());
    desk.returned();
    Ok(desk.settle().await)
}

/// Breaks off the bodies that a guest has neither finished nor dropped: their readers
/// would take them for whole.
fn break_off_unfinished(state: &mut State) {
    for resource in state.table.iter_mut() {
        if let Some(body) = resource.downcast_mut::<HostOutgoingBody>() {
            let (nothing, _) = HostOutgoingBody::new(StreamContext::Response, None, 1, 1);
            std::mem::replace(body, nothing).abort();
        }
    }
}

/// Calls a handler of WASI 0.3. As [`enter_02`] else.
pub(super) async fn enter_03(
    handler: TypedFunc<Params03, Results03>,
    store: &mut Store<State>,
    request: Box<StreamRequest>,
) -> wasmtime::Result<Result<(), Failure>> {
    store
        .run_concurrent(async |accessor| {
            let ended = join_03(handler, accessor, request, |_, _| ()).await;
            poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
            ended
        })
        .await
        .and_then(|ended| ended)
}

/// Calls a handler of WASI 0.3 beside whatever else its instance does. `begun` is told
/// which task runs it.
pub(super) async fn join_03(
    handler: TypedFunc<Params03, Results03>,
    accessor: &Accessor<State>,
    request: Box<StreamRequest>,
    begun: impl FnOnce(&mut State, GuestTaskId),
) -> wasmtime::Result<Result<(), Failure>> {
    let (desk, request) = accessor.with(|mut access| Desk::of(access.data_mut(), request));
    let _broken_off = BrokenOff(Arc::clone(&desk));
    let (call, read) = accessor.with(|mut access| -> wasmtime::Result<_> {
        let view = access.data_mut().http();
        let (request, read) = Request::from_http(&mut *view.hooks, request);
        // Its type would hold on to the store.
        let read: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> = Box::pin(read);
        let request = view.table.push(request)?;
        let call = handler.start_call_concurrent(&mut access, (request,))?;
        begun(access.data_mut(), call.task());
        Ok((call, read))
    })?;
    let (response,) = handler.finish_call_concurrent(accessor, call).await?;
    let response = match response {
        Ok(response) => accessor.with(|mut access| {
            let response = access.data_mut().http().table.delete(response)?;
            response.into_http(&mut access, read).map(Ok)
        })?,
        Err(code) => Err(code.to_string()),
    };
    desk.answer(response);
    Ok(desk.settle().await)
}

/// Where a handler's answer is handed over.
struct Desk {
    answer: Mutex<Answer>,
    /// How large it may be, in bytes: head, body and trailers.
    limit: u64,
    /// What waits of it for its reader is charged here.
    budget: Arc<Budget>,
    /// The request was one whose answer has no body.
    is_head: bool,
    /// The handler has ended without an orderly end.
    broken_off: AtomicBool,
    /// Nothing of the guest runs any more, so that it writes no more.
    over: AtomicBool,
    /// Who waits for what it writes.
    reader: Mutex<Option<Waker>>,
}

enum Answer {
    /// There is none.
    Expected(oneshot::Sender<http::Response<StreamBody>>),
    /// It is on its way.
    Sent(oneshot::Receiver<Result<(), Failure>>),
    /// None that anybody can be sent.
    Invalid(Failure),
    /// Nobody asks any more.
    Settled,
}

/// Tells the reader of an answer that there is no more of it, unless it has it all.
struct BrokenOff(Arc<Desk>);

impl Drop for BrokenOff {
    fn drop(&mut self) {
        self.0.broken_off.store(true, Ordering::Release);
    }
}

fn invalid(error_type: &'static str, message: String) -> Failure {
    Failure::new(OutcomeKind::FunctionError, error_type, message)
}

impl Desk {
    fn of(state: &State, request: Box<StreamRequest>) -> (Arc<Self>, http::Request<StreamBody>) {
        let StreamRequest { request, respond } = *request;
        let desk = Self {
            answer: Mutex::new(Answer::Expected(respond)),
            limit: state.common.spec.limits.response.0,
            budget: Arc::clone(state.limiter.budget()),
            is_head: request.method() == Method::HEAD,
            broken_off: AtomicBool::new(false),
            over: AtomicBool::new(false),
            reader: Mutex::new(None),
        };
        (Arc::new(desk), request)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handler writes no more, whatever it left open.
    fn returned(&self) {
        self.over.store(true, Ordering::Release);
        let reader = self.reader.lock();
        if let Some(reader) = reader.unwrap_or_else(PoisonError::into_inner).take() {
            reader.wake();
        }
    }

    /// Whether the handler writes no more; else the reader is told of it.
    fn is_over(&self, context: &Context<'_>) -> bool {
        let reader = self.reader.lock();
        reader
            .unwrap_or_else(PoisonError::into_inner)
            .replace(context.waker().clone());
        self.over.load(Ordering::Acquire)
    }

    /// Takes the handler's answer, or the code of the error that it answered with.
    fn answer(self: &Arc<Self>, response: Result<http::Response<WasiBody>, String>) {
        let mut answer = self.state();
        let Answer::Expected(respond) = std::mem::replace(&mut *answer, Answer::Settled) else {
            // An instance hands over one answer: the type of its handler says so.
            return;
        };
        *answer = match self.check(response) {
            Err(failure) => Answer::Invalid(failure),
            Ok((response, ended)) => {
                // Nobody there: then nobody reads, and the body is dropped.
                let _ = respond.send(response);
                Answer::Sent(ended)
            }
        };
    }

    #[allow(clippy::type_complexity, reason = "named where it is taken apart")]
    fn check(
        self: &Arc<Self>,
        response: Result<http::Response<WasiBody>, String>,
    ) -> Result<
        (
            http::Response<StreamBody>,
            oneshot::Receiver<Result<(), Failure>>,
        ),
        Failure,
    > {
        let mut response = response.map_err(|code| {
            invalid(
                "Function.HttpError",
                format!("the handler answered with the error `{code}`"),
            )
        })?;
        let announced = check_head(&mut response, self.is_head).map_err(|message| {
            invalid(
                "Function.InvalidResponse",
                format!("the response cannot be sent: {message}"),
            )
        })?;
        let left = self.limit.checked_sub(size(response.headers()));
        let left = left.ok_or_else(|| Failure::too_large(self.limit))?;
        let (end, ended) = oneshot::channel();
        let response = response.map(|body| {
            let desk = Arc::clone(self);
            let body = GuestBody {
                body,
                left,
                announced,
                desk,
                end: Some(end),
            };
            body.boxed_unsync()
        });
        Ok((response, ended))
    }

    /// Waits until the answer has been read, once the handler can give no other. Answers
    /// what was wrong with it, if anything was.
    async fn settle(&self) -> Result<(), Failure> {
        let answer = std::mem::replace(&mut *self.state(), Answer::Settled);
        match answer {
            Answer::Expected(_) => Err(invalid(
                "Function.NoResponse",
                "the handler returned without setting a response".into(),
            )),
            Answer::Invalid(failure) => Err(failure),
            // Whoever drops it unread has no use for it.
            Answer::Sent(ended) => ended.await.unwrap_or(Ok(())),
            Answer::Settled => Ok(()),
        }
    }
}

/// What the lines of a head or of trailers count for.
fn size(headers: &HeaderMap) -> u64 {
    let lines = headers.iter();
    lines
        .map(|(name, value)| (name.as_str().len() + value.len()) as u64)
        .sum()
}

/// The body of an answer, as its reader sees it.
struct GuestBody {
    body: WasiBody,
    /// Bytes that may come.
    left: u64,
    /// Bytes that must come, if the head says so. wasmtime's own check may lose its
    /// error where nobody has read what came before.
    announced: Option<u64>,
    desk: Arc<Desk>,
    /// Takes how reading ended.
    end: Option<oneshot::Sender<Result<(), Failure>>>,
}

impl GuestBody {
    fn end(&mut self, how: Result<(), Failure>) {
        if let Some(end) = self.end.take() {
            // The invocation was broken off.
            let _ = end.send(how);
        }
    }

    /// Counts what comes; answers an error if it is too much.
    fn count(&mut self, bytes: u64) -> Result<(), StreamError> {
        let limit = self.desk.limit;
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| {
            self.end(Err(Failure::too_large(limit)));
            StreamError::TooLarge(limit)
        })?;
        Ok(())
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let broken = |this: &mut Self, why: String| {
            let message = format!("the response was broken off: {why}");
            this.end(Err(invalid("Function.IncompleteResponse", message)));
            Poll::Ready(Some(Err(StreamError::Broken(why))))
        };
        let mut polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_pending() && self.desk.is_over(context) {
            // What it wrote meanwhile is there.
            polled = Pin::new(&mut self.body).poll_frame(context);
            if polled.is_pending() {
                return broken(&mut self, "the handler returned and left it open".into());
            }
        }
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return broken(&mut self, error.to_string()),
            // What holds the other end is gone.
            None if self.end.is_some() && self.desk.broken_off.load(Ordering::Acquire) => {
                return broken(&mut self, "the handler did not end well".into());
            }
            None => {
                if let Some(missing) = self.announced.filter(|missing| *missing > 0) {
                    return broken(&mut self, format!("{missing} announced bytes are missing"));
                }
                self.end(Ok(()));
                return Poll::Ready(None);
            }
        };
        let frame = match frame.into_data() {
            Ok(data) => {
                self.count(data.len() as u64)?;
                if let Some(announced) = self.announced {
                    let Some(missing) = announced.checked_sub(data.len() as u64) else {
                        return broken(&mut self, "it is longer than announced".into());
                    };
                    self.announced = Some(missing);
                }
                let held = self.desk.budget.hold(data);
                let Some(data) = held else {
                    self.end(Err(Failure::no_memory()));
                    let why = "the host has no memory for it".into();
                    return Poll::Ready(Some(Err(StreamError::Broken(why))));
                };
                Frame::data(data)
            }
            Err(frame) => {
                if let Some(missing) = self.announced.filter(|missing| *missing > 0) {
                    return broken(&mut self, format!("{missing} announced bytes are missing"));
                }
                let trailers = frame.into_trailers().unwrap_or_default();
                self.count(size(&trailers))?;
                self.end(Ok(()));
                Frame::trailers(allowed_trailers(trailers))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.desk.broken_off.load(Ordering::Acquire)
    }
}
