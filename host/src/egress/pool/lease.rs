//! A connection on loan.

use std::sync::{Arc, Weak};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout_at;

use super::usage::{Usage, Using};
use super::{Error, Http1, Outgoing, Pool, SETTLE, Shared, Target};

/// A connection on loan, for one request. Dropped with an answer that is not read, or with a
/// body that is not sent, it closes a connection of HTTP/1.1, and resets a stream of HTTP/2.
pub(in crate::egress) struct Lease {
    pool: Weak<Pool>,
    target: Target,
    sender: Sender,
    using: Using,
    /// Of a connection of HTTP/1.1.
    ticket: Option<OwnedSemaphorePermit>,
    unread: Unread,
    upload: Upload,
    /// Whether it served before.
    pub(in crate::egress) is_reused: bool,
}

enum Sender {
    Http1(Http1),
    Http2(u64, http2::SendRequest<Outgoing>),
}

/// What is left of a request that was not answered.
pub(in crate::egress) struct Unsent {
    pub(in crate::egress) error: Error,
    /// There if nothing of it was sent.
    pub(in crate::egress) request: Option<http::Request<Outgoing>>,
}

impl Lease {
    pub(super) fn own(
        pool: &Arc<Pool>,
        target: &Target,
        connection: Http1,
        ticket: OwnedSemaphorePermit,
        is_reused: bool,
    ) -> Self {
        Self {
            ticket: Some(ticket),
            unread: Unread(Some(Arc::clone(&connection.usage))),
            upload: Upload::default(),
            pool: Arc::downgrade(pool),
            target: target.clone(),
            using: Using::of(&connection.usage),
            sender: Sender::Http1(connection),
            is_reused,
        }
    }

    pub(super) fn shared(
        pool: &Arc<Pool>,
        target: &Target,
        shared: Shared,
        is_reused: bool,
    ) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            target: target.clone(),
            using: Using::of(&shared.usage),
            ticket: None,
            unread: Unread(None),
            upload: Upload::default(),
            sender: Sender::Http2(shared.id, shared.sender),
            is_reused,
        }
    }

    pub(in crate::egress) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(..))
    }

    /// Sends a request, and waits for the head of its answer.
    pub(in crate::egress) async fn send(
        &mut self,
        mut request: http::Request<Outgoing>,
    ) -> Result<http::Response<Incoming>, Unsent> {
        self.upload.begin(request.body_mut());
        let sent = match &mut self.sender {
            Sender::Http1(connection) => connection.sender.try_send_request(request).await,
            Sender::Http2(_, sender) => {
                if let Err(error) = sender.ready().await {
                    let error = error.into();
                    let request = Some(request);
                    return Err(Unsent { error, request });
                }
                sender.try_send_request(request).await
            }
        };
        if let (Ok(_), Sender::Http2(id, _)) = (&sent, &self.sender) {
            let connection = (Weak::clone(&self.pool), self.target.clone(), *id);
            self.upload.outlasts = Some(connection);
        }
        sent.map_err(|mut error| {
            let request = error.take_message();
            Unsent {
                error: error.into_error().into(),
                request,
            }
        })
    }

    /// The answer is read: somebody else may have the connection, once the rest of the
    /// request's body is sent too. That gets a moment, and then breaks off.
    pub(in crate::egress) fn give_back(mut self) {
        let is_sent = match &self.sender {
            Sender::Http1(connection) => connection.sender.is_ready(),
            Sender::Http2(..) => self.upload.is_over(),
        };
        if is_sent {
            return self.rests();
        }
        // A host that ends drops what runs outside of its runtimes.
        let Ok(here) = Handle::try_current() else {
            return;
        };
        here.spawn(async move {
            let is_sent = async {
                match &mut self.sender {
                    Sender::Http1(connection) => connection.sender.ready().await.is_ok(),
                    Sender::Http2(..) => {
                        self.upload.over().await;
                        true
                    }
                }
            };
            let is_sent = timeout_at((Instant::now() + SETTLE).into(), is_sent).await;
            if is_sent == Ok(true) {
                self.rests();
            }
        });
    }

    fn rests(self) {
        let Self {
            pool,
            target,
            sender,
            using,
            ticket,
            mut unread,
            ..
        } = self;
        drop(using);
        let (Sender::Http1(connection), Some(pool)) = (sender, pool.upgrade()) else {
            return;
        };
        unread.0 = None;
        pool.rests(target, connection);
        // The ticket goes last: who gets it finds the connection.
        drop(ticket);
    }
}

/// An exchange over HTTP/1.1 that is not over: dropped, it ends its connection at once,
/// whatever that waits for: its other side may read nothing of the request for as long as it
/// likes.
struct Unread(Option<Arc<Usage>>);

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(usage) = &self.0 {
            usage.ended.notify_one();
        }
    }
}

/// The body of a request on its way: dropped before it is sent, it breaks off.
#[derive(Default)]
struct Upload {
    /// Its other end goes with the body.
    body: Option<oneshot::Sender<()>>,
    /// The connection of HTTP/2 that it may outlast an answer on: a stream whose other side
    /// takes nothing more of it is ended by nothing but its connection. Who else uses that
    /// goes on doing so, and nobody begins to.
    outlasts: Option<(Weak<Pool>, Target, u64)>,
}

impl Upload {
    fn begin(&mut self, body: &mut Outgoing) {
        let (sender, wanted) = oneshot::channel();
        body.while_wanted(wanted);
        self.body = Some(sender);
    }

    fn is_over(&self) -> bool {
        self.body.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    async fn over(&mut self) {
        if let Some(body) = &mut self.body {
            body.closed().await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_over()
            && let Some((pool, target, id)) = &self.outlasts
            && let Some(pool) = pool.upgrade()
        {
            pool.forget(target, *id);
        }
    }
}
