//! A connection on loan.

use std::sync::{Arc, Weak};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;

use super::usage::{Usage, Using};
use super::{Error, Http1, Outgoing, Pool, SETTLE, Shared, Target};

/// A connection on loan, for one request. Dropped with an answer that is not read, it closes
/// a connection of HTTP/1.1.
pub(in crate::egress) struct Lease {
    pool: Weak<Pool>,
    target: Target,
    sender: Sender,
    using: Using,
    /// Of a connection of HTTP/1.1.
    ticket: Option<OwnedSemaphorePermit>,
    unread: Unread,
    /// Whether it served before.
    pub(in crate::egress) is_reused: bool,
}

enum Sender {
    Http1(Http1),
    Http2(http2::SendRequest<Outgoing>),
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
            pool: Arc::downgrade(pool),
            target: target.clone(),
            using: Using::of(&connection.usage),
            sender: Sender::Http1(connection),
            is_reused,
        }
    }

    pub(super) fn shared(pool: &Arc<Pool>, target: &Target, shared: Shared, is_reused: bool) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            target: target.clone(),
            using: Using::of(&shared.usage),
            ticket: None,
            unread: Unread(None),
            sender: Sender::Http2(shared.sender),
            is_reused,
        }
    }

    pub(in crate::egress) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Sends a request, and waits for the head of its answer.
    pub(in crate::egress) async fn send(
        &mut self,
        request: http::Request<Outgoing>,
    ) -> Result<http::Response<Incoming>, Unsent> {
        let sent = match &mut self.sender {
            Sender::Http1(connection) => connection.sender.try_send_request(request).await,
            Sender::Http2(sender) => {
                if let Err(error) = sender.ready().await {
                    let error = error.into();
                    let request = Some(request);
                    return Err(Unsent { error, request });
                }
                sender.try_send_request(request).await
            }
        };
        sent.map_err(|mut error| {
            let request = error.take_message();
            Unsent {
                error: error.into_error().into(),
                request,
            }
        })
    }

    /// The answer is read: somebody else may have the connection.
    pub(in crate::egress) fn give_back(self) {
        let Self {
            pool,
            target,
            sender,
            using,
            ticket,
            mut unread,
            ..
        } = self;
        unread.0 = None;
        drop(using);
        let (Sender::Http1(mut connection), Some(pool)) = (sender, pool.upgrade()) else {
            return;
        };
        // The ticket goes last: who gets it finds the connection.
        if connection.sender.is_ready() {
            pool.rests(target, connection);
            return drop(ticket);
        }
        // A host that ends drops what runs outside of its runtimes.
        let Ok(here) = Handle::try_current() else {
            return;
        };
        here.spawn(async move {
            let settled = timeout_at((Instant::now() + SETTLE).into(), connection.sender.ready());
            if matches!(settled.await, Ok(Ok(()))) {
                pool.rests(target, connection);
            }
            drop(ticket);
        });
    }
}

/// An answer that is not read yet: dropped, it ends its connection at once, whatever that
/// waits for: its other side may read nothing of the request for as long as it likes.
struct Unread(Option<Arc<Usage>>);

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(usage) = &self.0 {
            usage.ended.notify_one();
        }
    }
}
