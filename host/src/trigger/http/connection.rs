//! One connection: HTTP/1.1 or HTTP/2 with prior knowledge, its timeouts and
//! its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::activity::{Activity, HALF_CLOSED_LOOK, Rules, Verdict};
use super::answer::{self, HttpResponse, Sent};
use super::io::Io;
use super::service::{Draining, HttpTrigger};

/// What HTTP/2 connections begin with (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often half a preface is looked at, in the end.
const MAX_PREFACE_PAUSE: Duration = Duration::from_millis(100);
/// Streams at once on one HTTP/2 connection. What RFC 9113 section 6.5.2
/// recommends as the least.
const MAX_STREAMS: u32 = 100;
/// How often an HTTP/2 peer is asked whether it is there, and how long it may
/// take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// After an answer that came before the request's body: how long and how much
/// of it is still read and thrown away, so that the client gets to read the
/// answer instead of a reset.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;
/// How long a connection that is idle when the host drains may still send a
/// request.
const DRAIN_IDLE: Duration = Duration::from_millis(500);

/// Serves a connection to its end.
pub(super) async fn serve(trigger: Arc<HttpTrigger>, stream: TcpStream, client: IpAddr) {
    let _ = stream.set_nodelay(true);
    let preface = tokio::time::timeout(trigger.limits.header_timeout, speaks_http2(&stream));
    let preface = tokio::select! {
        // What has come is served.
        biased;
        preface = preface => preface,
        // It may be about to send, as any idle connection.
        () = drains(&trigger, DRAIN_IDLE) => return,
    };
    match preface {
        Ok(Ok(true)) => serve_http2(&trigger, stream, client).await,
        Ok(Ok(false)) => serve_http1(&trigger, stream, client).await,
        Ok(Err(_)) => {}
        Err(_) => {
            trigger.timed_out("header");
            refuse(stream).await;
        }
    }
}

/// Waits until the host has drained for so long.
async fn drains(trigger: &HttpTrigger, since: Duration) {
    let mut draining = trigger.draining.clone();
    // The host that is gone has drained.
    let _ = draining
        .wait_for(|draining| *draining != Draining::No)
        .await;
    tokio::time::sleep(since).await;
}

/// Waits for the first bytes and looks whether they are HTTP/2's.
async fn speaks_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0; HTTP2_PREFACE.len()];
    let mut seen = 0;
    let mut pause = Duration::from_millis(1);
    loop {
        let now = stream.peek(&mut start).await?;
        if now == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if start[..now] != HTTP2_PREFACE[..now] {
            return Ok(false);
        }
        if now == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        // The same bytes are seen again until more come, and the rest of a preface
        // comes at once or hardly ever.
        if now == seen {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PREFACE_PAUSE);
        }
        seen = now;
    }
}

/// Answers 408 to a request that never became whole, and closes.
async fn refuse(mut stream: TcpStream) {
    let _ = tokio::time::timeout(LINGER, async {
        stream.write_all(answer::REQUEST_TIMEOUT).await?;
        stream.shutdown().await
    })
    .await;
}

/// What answers the requests of a connection.
fn service(
    trigger: &Arc<HttpTrigger>,
    activity: &Arc<Activity>,
    client: IpAddr,
) -> impl Service<Request<Incoming>, Response = Response<Sent>, Error = Infallible, Future: Send> + use<>
{
    let (trigger, activity) = (Arc::clone(trigger), Arc::clone(activity));
    service_fn(move |request| {
        let (trigger, activity) = (Arc::clone(&trigger), Arc::clone(&activity));
        let busy = HttpTrigger::begin(&request, &activity);
        async move {
            let answer = pin!(trigger.answer(request, client, &activity));
            let response = unless_expired(&activity, answer).await;
            Ok(response.map(|body| body.sent(&activity, busy)))
        }
    })
}

/// An answer, or 503 when the drain has taken too long.
async fn unless_expired(
    activity: &Activity,
    mut answer: Pin<&mut impl Future<Output = HttpResponse>>,
) -> HttpResponse {
    let mut expired = pin!(activity.expired.cancelled());
    poll_fn(|context| {
        if let Poll::Ready(response) = answer.as_mut().poll(context) {
            return Poll::Ready(response);
        }
        let expired = expired.as_mut().poll(context);
        expired.map(|()| answer::shutting_down())
    })
    .await
}

/// How serving ended.
enum End {
    /// The connection is done, or broken.
    Closed,
    /// A head took too long.
    HeaderTimeout,
    /// Nothing came.
    Idle,
    /// An answer was not read.
    AnswerTimeout,
}

/// Polls a connection beside its timer and the drain. `shut_down` tells it to
/// end after what is under way.
async fn watch<C: Unpin>(
    trigger: &HttpTrigger,
    activity: &Activity,
    http2: bool,
    connection: &mut C,
    mut poll: impl FnMut(&mut C, &mut Context<'_>) -> Poll<()>,
    mut shut_down: impl FnMut(&mut C),
) -> End {
    let limits = &trigger.limits;
    let rules = Rules {
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        min_rate: limits.min_rate,
    };
    let mut timer = pin!(tokio::time::sleep(
        limits.header_timeout.min(limits.idle_timeout)
    ));
    let mut draining = trigger.draining.clone();
    let mut drained = false;
    loop {
        let changed = {
            let mut change = pin!(draining.changed());
            let served = poll_fn(|context| {
                if poll(connection, context).is_ready() {
                    return Poll::Ready(Some(End::Closed));
                }
                if activity.half_closed_now() {
                    timer.as_mut().reset(Instant::now() + HALF_CLOSED_LOOK);
                }
                if timer.as_mut().poll(context).is_ready() {
                    return match activity.verdict(rules) {
                        Verdict::HeaderTimeout => Poll::Ready(Some(End::HeaderTimeout)),
                        Verdict::IdleTimeout => Poll::Ready(Some(End::Idle)),
                        Verdict::AnswerTimeout => Poll::Ready(Some(End::AnswerTimeout)),
                        Verdict::Wait(_) if drained && activity.idle() => {
                            Poll::Ready(Some(End::Idle))
                        }
                        Verdict::Wait(left) => {
                            let left = if drained { left.min(DRAIN_IDLE) } else { left };
                            timer.as_mut().reset(Instant::now() + left);
                            context.waker().wake_by_ref();
                            Poll::Pending
                        }
                    };
                }
                change.as_mut().poll(context).map(|_| None)
            });
            served.await
        };
        if let Some(end) = changed {
            return end;
        }
        match *draining.borrow_and_update() {
            Draining::No => {}
            Draining::Yes => {
                // An idle connection is given a moment: its client may be
                // sending just now, and would find it closed.
                drained = true;
                timer.as_mut().reset(Instant::now() + DRAIN_IDLE);
                // HTTP/1.1 is told by its next answer, HTTP/2 only by GOAWAY.
                if http2 || activity.busy() {
                    shut_down(connection);
                }
            }
            Draining::Expired => {
                activity.expired.cancel();
                shut_down(connection);
            }
        }
    }
}

async fn serve_http1(trigger: &Arc<HttpTrigger>, stream: TcpStream, client: IpAddr) {
    let activity = Arc::new(Activity::new(true));
    let io = TokioIo::new(Io::new(stream, Arc::clone(&activity)));
    let service = service(trigger, &activity, client);
    let mut connection = http1::Builder::new()
        .max_headers(trigger.limits.max_headers)
        .max_buf_size(trigger.limits.max_header_bytes)
        // Ours watch the connection as a whole.
        .header_read_timeout(None)
        .serve_connection(io, service);
    let end = watch(
        trigger,
        &activity,
        false,
        &mut connection,
        |connection, context| Pin::new(connection).poll(context).map(|_| ()),
        |connection| Pin::new(connection).graceful_shutdown(),
    )
    .await;
    let stream = connection.into_parts().io.into_inner().into_inner();
    let broken = activity.broken.load(Ordering::Relaxed);
    if broken || matches!(end, End::AnswerTimeout) {
        // HTTP/1.0 knows no other end of a body than that of the connection: a reset is
        // none.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    match end {
        End::Closed if broken => {}
        End::Closed => close(stream, activity.body_unread.load(Ordering::Relaxed)).await,
        End::Idle => trigger.timed_out("idle"),
        End::AnswerTimeout => trigger.timed_out("answer"),
        End::HeaderTimeout => {
            trigger.timed_out("header");
            refuse(stream).await;
        }
    }
}

/// Closes a connection. With bytes unread the kernel would reset it, and the
/// client might never see its answer: they are read and thrown away, for a
/// while.
async fn close(mut stream: TcpStream, body_unread: bool) {
    let _ = stream.shutdown().await;
    if !body_unread {
        return;
    }
    let discard = async {
        let mut buffer = vec![0; 16 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut buffer).await {
                Ok(read) if read > 0 => left = left.saturating_sub(read),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, discard).await;
}

async fn serve_http2(trigger: &Arc<HttpTrigger>, stream: TcpStream, client: IpAddr) {
    let activity = Arc::new(Activity::new(false));
    let io = TokioIo::new(Io::new(stream, Arc::clone(&activity)));
    let service = service(trigger, &activity, client);
    let header_bytes = u32::try_from(trigger.limits.max_header_bytes).unwrap_or(u32::MAX);
    let mut connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(io, service);
    let end = watch(
        trigger,
        &activity,
        true,
        &mut connection,
        |connection, context| Pin::new(connection).poll(context).map(|_| ()),
        |connection| Pin::new(connection).graceful_shutdown(),
    )
    .await;
    match end {
        End::Closed => {}
        End::AnswerTimeout => trigger.timed_out("answer"),
        End::Idle | End::HeaderTimeout => trigger.timed_out("idle"),
    }
}
