//! Requests for functions that export `wasi:http`: bodies go through as they come, in
//! both directions.
//!
//! The handler is polled where its connection is, like any other, until the head of its
//! answer is there. Most have ended by then, and what they wrote is sent as a whole. One
//! that goes on becomes a task of its own, because its connection polls an answer's body
//! only while its client reads.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::activity::{Activity, Pieces};
use super::answer::{self, HttpResponse, Outgoing};
use super::service::{Busy, HttpTrigger};
use crate::body::BodyError;
use crate::dispatch::Function;
use crate::invocation::{
    Answer, Call, Event, Failure, OutcomeKind, StreamBody, StreamError, StreamRequest,
    allowed_trailers,
};
use crate::runtime::Budget;

/// What is gathered of an answer before it is sent in pieces, in bytes.
const GATHERED: usize = 64 << 10;
/// In so many pieces: each takes room beside its bytes.
const GATHERED_PIECES: usize = 256;

/// How often others on the core are let run before an answer goes out in pieces: a guest that
/// they run has then taken what its reader read, and said that this was all.
const TURNS: u32 = 4;

/// An invocation under way. Dropped, it is cancelled.
type Invocation = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

impl HttpTrigger {
    /// Runs the handler for a request, and answers as soon as it does.
    pub(super) async fn stream(
        self: &Arc<Self>,
        request: Request<Incoming>,
        function: &Arc<Function>,
        call: Call,
        activity: &Arc<Activity>,
    ) -> HttpResponse {
        let limit = function.version.common.spec.limits.request.0;
        if request.body().size_hint().lower() > limit {
            return answer::of_body(&BodyError::TooLarge, limit);
        }
        let request_id = call.request_id;
        let is_head = request.method() == http::Method::HEAD;
        let (failed, mut why) = oneshot::channel();
        let request = request.map(|body| {
            if body.is_end_stream() {
                return Empty::new().map_err(|never| match never {}).boxed_unsync();
            }
            let body = RequestBody {
                body,
                left: limit,
                limit,
                patience: self.limits.body_timeout,
                waits: None,
                failed: Some(failed),
                trigger: Arc::clone(self),
                activity: Arc::clone(activity),
            };
            body.boxed_unsync()
        });
        let (respond, mut head) = oneshot::channel();
        let mut invocation: Invocation = {
            let event = Event::Stream(Box::new(StreamRequest { request, respond }));
            let (dispatcher, function) = (Arc::clone(&self.dispatcher), Arc::clone(function));
            Box::pin(async move {
                let interpret = |answer| match answer {
                    Answer::Streamed => Ok(()),
                    _ => Err(Failure::host("a request had the answer of another event")),
                };
                let ended = dispatcher.invoke(&function, event, call, interpret);
                ended.await.result
            })
        };
        let mut ended = None;
        let mut none = false;
        let mut look = |context: &mut Context<'_>| {
            if ended.is_none()
                && let Poll::Ready(result) = invocation.as_mut().poll(context)
            {
                ended = Some(result);
            }
            if !none {
                match Pin::new(&mut head).poll(context) {
                    Poll::Ready(Ok(response)) => return Poll::Ready(Some(response)),
                    Poll::Ready(Err(_)) => none = true,
                    Poll::Pending => {}
                }
            }
            // There will be none. Why is known when the invocation has ended; what could
            // give one may outlive it, in an instance that others are in.
            match ended.is_some() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        };
        // Most need no timer, nor anybody to wake.
        let first = look(&mut Context::from_waker(Waker::noop()));
        let answered = match first {
            Poll::Ready(answered) => answered,
            Poll::Pending => poll_fn(look).await,
        };
        let Some(response) = answered else {
            // What was wrong with the request comes before what the guest made of it.
            // It was told before the guest was. (A guest that is used again may hold the
            // request for ever.)
            if let Ok(error) = why.try_recv() {
                return answer::of_body(&error, limit);
            }
            let failure = match ended {
                Some(Err(failure)) => failure,
                _ => Failure::host("an invocation ended without an answer"),
            };
            return answer::of_failure(&failure, request_id);
        };
        let (parts, mut body) = response.into_parts();
        // In an instance that serves others too, the guest is run by a task of its own.
        let mut turns = if function.version.is_concurrent() {
            TURNS
        } else {
            0
        };
        let mut pieces = VecDeque::new();
        let mut gathered = gather(&mut invocation, &mut ended, &mut body, &mut pieces);
        while turns > 0 {
            match gathered {
                Ok(Gathered::Part { waits: true }) => {
                    tokio::task::yield_now().await;
                    gathered = gather(&mut invocation, &mut ended, &mut body, &mut pieces);
                }
                Ok(Gathered::Whole) if ended.is_none() => {
                    tokio::task::yield_now().await;
                    settle(&mut invocation, &mut ended);
                }
                _ => break,
            }
            turns -= 1;
        }
        let gathered = match gathered {
            Ok(gathered) => gathered,
            Err(error) => {
                // Nothing is sent yet: the client need not see half of it. Nor does the
                // guest wait for a reader.
                drop(body);
                let result = match ended {
                    Some(result) => result,
                    None => invocation.await,
                };
                let failure = result.err();
                let failure = failure.unwrap_or_else(|| Failure::host(error.to_string()));
                return answer::of_failure(&failure, request_id);
            }
        };
        let outgoing = match (gathered, ended) {
            // Likewise.
            (_, Some(Err(failure))) => return answer::of_failure(&failure, request_id),
            (Gathered::Whole, Some(Ok(()))) => match joined(pieces, &self.budget) {
                Some(body) => Outgoing::Whole(body),
                None => return answer::of_failure(&Failure::no_memory(), request_id),
            },
            (Gathered::Whole, None) => {
                // What it does after its answer, it may do.
                let token = self.left.token();
                tokio::spawn(async move {
                    let _token = token;
                    let _ = invocation.await;
                });
                match joined(pieces, &self.budget) {
                    Some(body) => Outgoing::Whole(body),
                    None => return answer::of_failure(&Failure::no_memory(), request_id),
                }
            }
            (Gathered::Part { .. }, ended) => {
                let lacks_body = is_head || !answer::has_body(parts.status);
                let length = parts.headers.get(CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                let announced = if lacks_body { Some(0) } else { length };
                Outgoing::Streamed(Box::new(Streamed {
                    pieces,
                    rest: Some(Rest {
                        body,
                        invocation: ended
                            .is_none()
                            .then(|| AbortOnDropHandle::new(tokio::spawn(invocation))),
                        failed: None,
                        token: self.left.token(),
                    }),
                    lacks_body,
                    announced,
                    unread: self.limits.idle_timeout,
                    expired: Box::pin(activity.expired.clone().cancelled_owned()),
                    activity: Arc::clone(activity),
                    unsent: activity.pieces(),
                    busy: None,
                }))
            }
        };
        answer::of_stream(parts, outgoing, request_id)
    }
}

/// How much there is of an answer's body before its guest waits for something.
#[derive(Clone, Copy)]
enum Gathered {
    /// All of it, without trailers.
    Whole,
    /// Some of it, because the rest is waited for, or because this is enough for once.
    Part { waits: bool },
}

/// Polls the guest and the body of its answer for as long as neither waits. Answers an
/// error if the body ended before its end.
fn gather(
    invocation: &mut Invocation,
    ended: &mut Option<Result<(), Failure>>,
    body: &mut StreamBody,
    pieces: &mut VecDeque<Frame<Bytes>>,
) -> Result<Gathered, StreamError> {
    let data = |piece: &Frame<Bytes>| piece.data_ref().map_or(0, Bytes::len);
    let mut size: usize = pieces.iter().map(data).sum();
    // Whoever is left with them polls both anew.
    let mut context = Context::from_waker(Waker::noop());
    // The guest had its turn since the body last gave something.
    let mut asked = false;
    loop {
        match Pin::new(&mut *body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(piece))) => {
                size += data(&piece);
                pieces.push_back(piece);
                asked = false;
            }
            Poll::Ready(None) => {
                settle(invocation, ended);
                return Ok(match pieces.iter().all(Frame::is_data) {
                    true => Gathered::Whole,
                    false => Gathered::Part { waits: false },
                });
            }
            Poll::Ready(Some(Err(error))) => {
                return Err(error);
            }
            Poll::Pending if asked => return Ok(Gathered::Part { waits: true }),
            Poll::Pending => {
                settle(invocation, ended);
                asked = true;
            }
        }
        if size > GATHERED || pieces.len() >= GATHERED_PIECES {
            return Ok(Gathered::Part { waits: false });
        }
    }
}

/// Lets an invocation go on, and end if it can: if its answer has been read to its end.
fn settle(invocation: &mut Invocation, ended: &mut Option<Result<(), Failure>>) {
    let mut context = Context::from_waker(Waker::noop());
    if ended.is_none()
        && let Poll::Ready(result) = invocation.as_mut().poll(&mut context)
    {
        *ended = Some(result);
    }
}

/// Makes one of the pieces, which are charged; None if there is no memory for it.
fn joined(pieces: VecDeque<Frame<Bytes>>, budget: &Arc<Budget>) -> Option<Bytes> {
    let mut pieces = pieces
        .into_iter()
        .filter_map(|piece| piece.into_data().ok());
    // Mostly there is one, which needs no copy.
    let first = pieces.next().unwrap_or_default();
    let Some(second) = pieces.next() else {
        return Some(first);
    };
    let mut all = BytesMut::from(first);
    all.extend_from_slice(&second);
    pieces.for_each(|piece| all.extend_from_slice(&piece));
    budget.hold(all.freeze())
}

/// A request's body, as its guest reads it: on the guest's core, which need not be that of
/// its connection.
struct RequestBody<B> {
    body: B,
    /// Bytes that may come.
    left: u64,
    limit: u64,
    /// How long its next piece may take.
    patience: Duration,
    waits: Option<Pin<Box<Sleep>>>,
    /// Takes what goes wrong. None if something did: nothing comes after that.
    failed: Option<oneshot::Sender<BodyError>>,
    trigger: Arc<HttpTrigger>,
    activity: Arc<Activity>,
}

impl<B> RequestBody<B> {
    fn fail(&mut self, how: BodyError) {
        if let Some(failed) = self.failed.take() {
            let _ = failed.send(how);
        }
    }

    /// All of it has been read.
    fn whole(&self) {
        self.activity.whole();
        self.activity.body_unread.store(false, Ordering::Relaxed);
    }
}

impl<B: Body<Data = Bytes, Error: Display> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if self.failed.is_none() {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let patience = self.patience;
                let begin = || Box::pin(tokio::time::sleep_until(Instant::now() + patience));
                ready!(self.waits.get_or_insert_with(begin).as_mut().poll(context));
                self.trigger.timed_out("body");
                self.fail(BodyError::Timeout);
                return Poll::Ready(Some(Err(StreamError::Timeout)));
            }
        };
        self.waits = None;
        let Some(frame) = frame else {
            self.whole();
            return Poll::Ready(None);
        };
        let frame = frame.map_err(|error| {
            self.fail(BodyError::Broken);
            StreamError::Broken(error.to_string())
        });
        let frame = frame.and_then(|frame| {
            let size = frame.data_ref().map_or(0, Bytes::len) as u64;
            let left = self.left.checked_sub(size);
            self.left = left.ok_or_else(|| {
                self.fail(BodyError::TooLarge);
                StreamError::TooLarge(self.limit)
            })?;
            Ok(match frame.into_trailers() {
                Ok(trailers) => Frame::trailers(allowed_trailers(trailers)),
                Err(data) => data,
            })
        });
        if self.body.is_end_stream() {
            self.whole();
        }
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer that is sent as its guest makes it. Dropped before its end, it
/// cancels the invocation.
pub(super) struct Streamed {
    /// What is there already.
    pieces: VecDeque<Frame<Bytes>>,
    /// None when it has ended.
    rest: Option<Rest>,
    /// Nobody will read it: what the guest writes goes nowhere.
    lacks_body: bool,
    /// Bytes that its head announced and that were not read yet. At 0 nobody reads on.
    announced: Option<u64>,
    /// How long what nobody will read is read all the same.
    unread: Duration,
    /// The drain has taken too long.
    expired: Pin<Box<WaitForCancellationFutureOwned>>,
    activity: Arc<Activity>,
    /// What is given to HTTP/2 and not sent.
    unsent: Option<Arc<Pieces>>,
    busy: Option<Busy>,
}

/// What is still to come.
struct Rest {
    body: StreamBody,
    /// None if it has ended.
    invocation: Option<AbortOnDropHandle<Result<(), Failure>>>,
    /// How, if not well.
    failed: Option<OutcomeKind>,
    token: TaskTrackerToken,
}

impl Rest {
    /// The next of it. Of an invocation that has failed there is only what was written
    /// before, and after its deadline nothing at all: its guest may go on, and hold the
    /// body, where others are in its instance.
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if let Some(invocation) = &mut self.invocation
            && let Poll::Ready(ended) = Pin::new(invocation).poll(context)
        {
            self.invocation = None;
            self.failed = match ended {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure.kind),
                Err(_) => Some(OutcomeKind::HostError),
            };
        }
        let broken = || {
            Poll::Ready(Some(Err(StreamError::Broken(
                "its invocation failed".into(),
            ))))
        };
        if self.failed == Some(OutcomeKind::Timeout) {
            return broken();
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_pending() && self.failed.is_some() {
            return broken();
        }
        polled
    }

    /// Lets the invocation go on, now that its answer is read.
    fn let_go(self) {
        if let Some(invocation) = self.invocation {
            // The task itself goes on; this only tells the drain of it.
            tokio::spawn(async move {
                let _token = self.token;
                let _ = invocation.await;
            });
        }
    }

    /// Reads the body for a client that is to get none, for so long: no client sets a
    /// pace, nor ends it by going away. Then the guest finds it closed.
    fn read_out(mut self, limit: Duration) {
        tokio::spawn(async move {
            let read = async {
                while let Some(Ok(_)) = poll_fn(|context| self.poll_frame(context)).await {}
            };
            let _ = tokio::time::timeout(limit, read).await;
            self.let_go();
        });
    }
}

impl Streamed {
    /// The request is under way until this has been sent.
    pub(super) fn keep(&mut self, busy: Busy) {
        self.activity.begins_answer();
        self.busy = Some(busy);
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let this = &mut *self;
        if let Some(unsent) = &this.unsent
            && !this.expired.as_mut().poll(context).is_ready()
        {
            ready!(unsent.poll_room(context));
        }
        let frame = if let Some(piece) = this.pieces.pop_front() {
            Some(Ok(piece))
        } else if this.expired.as_mut().poll(context).is_ready() {
            this.rest = None;
            Some(Err(StreamError::Broken("the host is shutting down".into())))
        } else {
            match &mut this.rest {
                Some(rest) => ready!(rest.poll_frame(context)),
                None => None,
            }
        };
        match frame {
            Some(Ok(frame)) => {
                if let (Some(left), Some(data)) = (&mut this.announced, frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                }
                let (activity, unsent) = (&this.activity, &this.unsent);
                let mut frame = frame.map_data(|data| match unsent {
                    Some(unsent) => activity.until_piece_sent(unsent, data),
                    None => data,
                });
                if let Some(trailers) = frame.trailers_mut() {
                    answer::of_trailers(trailers);
                    // Nothing comes after them, and hyper does not look for it.
                    if let Some(rest) = this.rest.take() {
                        rest.let_go();
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // Its client must not take it for whole, whatever the protocol. How the
                // invocation ends is its own affair.
                this.activity.broken.store(true, Ordering::Relaxed);
                if let Some(rest) = this.rest.take() {
                    rest.let_go();
                }
                Poll::Ready(Some(Err(error)))
            }
            None => {
                if let Some(rest) = this.rest.take() {
                    rest.let_go();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lacks_body
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // Its client has all of it.
        if self.announced == Some(0)
            && let Some(rest) = self.rest.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            rest.read_out(self.unread);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::watch;

    use super::super::service::{Draining, Limits};
    use super::*;
    use crate::dispatch::Dispatcher;
    use crate::telemetry::{Log, LogInvocations, Metrics, Telemetry};

    /// These, and then nothing more for ever.
    struct Pieces(VecDeque<&'static str>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
                None => Poll::Pending,
            }
        }
    }

    fn trigger(body_timeout: Duration) -> Arc<HttpTrigger> {
        let (log, _) = Log::start(std::io::sink()).unwrap();
        let telemetry = Telemetry {
            log,
            metrics: Arc::new(Metrics::new().unwrap()),
            log_invocations: LogInvocations::Failures,
        };
        let limits = Limits {
            header_timeout: Duration::from_secs(1),
            body_timeout,
            idle_timeout: Duration::from_secs(1),
            min_rate: 0,
            max_connections: 1,
            max_header_bytes: 1 << 10,
            max_headers: 10,
        };
        let dispatcher = Arc::new(Dispatcher::new(telemetry.clone()));
        let (_, draining) = watch::channel(Draining::No);
        HttpTrigger::new(dispatcher, telemetry, Budget::new(0), limits, draining)
    }

    /// A body of these pieces, that may have four bytes.
    fn body<const N: usize>(
        trigger: &Arc<HttpTrigger>,
        pieces: [&'static str; N],
    ) -> RequestBody<Pieces> {
        RequestBody {
            body: Pieces(pieces.into()),
            left: 4,
            limit: 4,
            patience: trigger.limits.body_timeout,
            waits: None,
            failed: Some(oneshot::channel().0),
            trigger: Arc::clone(trigger),
            activity: Arc::new(Activity::new(true)),
        }
    }

    #[tokio::test]
    async fn nothing_comes_of_a_body_after_it_was_too_large() {
        let trigger = trigger(Duration::from_secs(60));
        let mut body = body(&trigger, ["large", "not"]);
        let frame = body.frame().await.unwrap();
        assert_eq!(frame.unwrap_err(), StreamError::TooLarge(4));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_is_late_once() {
        let trigger = trigger(Duration::from_millis(1));
        let mut body = body(&trigger, []);
        let frame = body.frame().await.unwrap();
        assert_eq!(frame.unwrap_err(), StreamError::Timeout);
        assert!(body.frame().await.is_none());
        let timeouts = &trigger.telemetry.metrics.http.timeouts;
        assert_eq!(timeouts.with_label_values(&["body"]).get(), 1);
    }
}
