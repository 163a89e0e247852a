//! Bodies on their way: out, so that half of one is never taken for a whole one; in, within
//! their size and time.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Sleep, sleep_until};

use super::Error;
use super::client::Exchange;
use super::message::take_off_trailers;
use super::pool::Lease;

/// Whatever a body fails with.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Whether there is still somebody who makes a body. A body that ends when its maker is gone
/// is not whole, whatever it says.
#[derive(Clone, Default)]
pub(crate) struct Alive(Arc<AtomicBool>);

impl Alive {
    /// From now on everything that ends is broken off.
    pub(crate) fn end(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// When something was last taken of a body.
#[derive(Clone)]
pub(super) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a request.
pub(crate) struct Outgoing {
    inner: Option<UnsyncBoxBody<Bytes, BoxError>>,
    alive: Alive,
    progress: Progress,
    /// That of its request, which is under way as long as its body is.
    permit: Option<Arc<OwnedSemaphorePermit>>,
    /// Ends when nobody wants the rest of it any more.
    wanted: Option<oneshot::Receiver<()>>,
}

impl Outgoing {
    /// A body whose maker may go away.
    pub(crate) fn new(inner: UnsyncBoxBody<Bytes, BoxError>, alive: Alive) -> Self {
        Self {
            inner: Some(inner),
            alive,
            progress: Progress::new(),
            permit: None,
            wanted: None,
        }
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self {
            inner: None,
            alive: Alive::default(),
            progress: Progress::new(),
            permit: None,
            wanted: None,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Holds a permit for as long as it is on its way.
    pub(super) fn hold(&mut self, permit: Arc<OwnedSemaphorePermit>) {
        self.permit = Some(permit);
    }

    /// Is on its way as long as the other end of the channel is there: when that is dropped,
    /// it breaks off. The other end sees when all of it is sent, or nobody sends it any more.
    pub(super) fn while_wanted(&mut self, wanted: oneshot::Receiver<()>) {
        self.wanted = Some(wanted);
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(wanted) = &mut self.wanted
            && (wanted.is_terminated() || Pin::new(wanted).poll(context).is_ready())
        {
            return Poll::Ready(Some(Err("nobody wants the rest".into())));
        }
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(inner).poll_frame(context));
        self.progress.now();
        let mut frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None if self.alive.is_over() => return Poll::Ready(Some(Err("broken off".into()))),
            None => return Poll::Ready(None),
        };
        if let Some(trailers) = frame.trailers_mut() {
            take_off_trailers(trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// The body of an answer. Holds its connection until it is read; dropped before, it closes
/// the connection, or resets its stream.
pub(crate) struct ResponseBody {
    incoming: Incoming,
    /// How many bytes may still come.
    left: u64,
    limit: u64,
    between_bytes: Duration,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    /// Whether the timer runs: only while somebody waits.
    waits: bool,
    /// There until the body is read.
    held: Option<(Lease, Exchange)>,
}

/// What an answer may take.
pub(super) struct Bounds {
    pub(super) limit: u64,
    pub(super) between_bytes: Duration,
    pub(super) deadline: Instant,
}

impl ResponseBody {
    pub(super) fn new(
        incoming: Incoming,
        bounds: Bounds,
        lease: Lease,
        exchange: Exchange,
    ) -> Self {
        let Bounds {
            limit,
            between_bytes,
            deadline,
        } = bounds;
        let mut body = Self {
            incoming,
            left: limit,
            limit,
            between_bytes,
            deadline,
            timer: Box::pin(sleep_until(deadline.into())),
            waits: false,
            held: Some((lease, exchange)),
        };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    /// All of it was read.
    fn end(&mut self) {
        if let Some((lease, exchange)) = self.held.take() {
            lease.give_back();
            exchange.ended(Ok(()));
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        if let Some((_, exchange)) = self.held.take() {
            exchange.ended(Err(&error));
        }
        error
    }

    /// Whether it is too late for more.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        if !self.waits {
            let until = (Instant::now() + self.between_bytes).min(self.deadline);
            self.timer.as_mut().reset(until.into());
            self.waits = true;
        }
        self.timer.as_mut().poll(context).is_ready()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.incoming).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending if this.is_late(context) => {
                let error = this.fail(Error::ReadTimeout);
                return Poll::Ready(Some(Err(error)));
            }
            Poll::Pending => return Poll::Pending,
        };
        this.waits = false;
        let mut frame = match frame {
            None => {
                this.end();
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(this.fail(error.into())))),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            let Some(left) = this.left.checked_sub(data.len() as u64) else {
                let error = Error::ResponseTooLarge(this.limit);
                return Poll::Ready(Some(Err(this.fail(error))));
            };
            this.left = left;
        }
        if let Some(trailers) = frame.trailers_mut() {
            take_off_trailers(trailers);
        }
        // Who knows how long it is need not ask whether that was all.
        if this.incoming.is_end_stream() {
            this.end();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // Who has read enough has got what it wanted.
        if let Some((_, exchange)) = self.held.take() {
            exchange.ended(Ok(()));
        }
    }
}
