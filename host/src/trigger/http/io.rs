//! The socket of a connection: notes what arrives, and tells a client that has
//! gone away from one that only sends no more.
//!
//! Both look alike at first: the kernel reports the end of the stream. Nothing
//! but a write shows the difference, because a client that closed its socket
//! answers it with a reset. While a request is under way, no byte of its answer
//! has been sent, so the write is an interim response, `100 Continue`, which
//! every client of HTTP/1.1 must be able to read (RFC 9110 section 15.2).

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::activity::Activity;

/// More than hyper's loop needs to begin a request and read its body.
const HELD_BACK: u8 = 8;

const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The socket of a connection.
pub(super) struct Io {
    stream: TcpStream,
    activity: Arc<Activity>,
    half_closed: bool,
    /// How often the end of the stream was held back, so that what came before
    /// it is looked at first.
    held_back: u8,
}

impl Io {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            half_closed: false,
            held_back: 0,
        }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// The client sends no more while its request is under way: answers an
    /// error if it is gone altogether.
    fn end_of_stream(&mut self) -> Result<()> {
        if !self.half_closed {
            self.half_closed = true;
            self.activity.half_closed();
            if !self.activity.writing() && self.activity.takes_interim_responses() {
                match self.stream.try_write(PROBE) {
                    Ok(written) if written == PROBE.len() => {}
                    // Its window is full: it will show later.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Ok(_) => return Err(ErrorKind::WriteZero.into()),
                    Err(error) => return Err(error),
                }
            }
        }
        match socket2::SockRef::from(&self.stream).take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.activity.bytes();
        } else if !self.activity.idle()
            && !self.activity.awaits_answer()
            && self.held_back < HELD_BACK
        {
            // The request may have come whole together with its end.
            self.held_back += 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        } else if self.activity.awaits_answer() && buffer.remaining() > 0 {
            // The connection's timer polls this again.
            return match self.end_of_stream() {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.activity.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        // hyper flushes when it has nothing left to write.
        self.activity.flushed();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<std::result::Result<usize, Error>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        self.activity.wrote(written);
        Poll::Ready(Ok(written))
    }
}
