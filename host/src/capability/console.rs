//! stdin and stdout of a program: its event, and its answer. (stdout and stderr of other
//! guests, and stderr of programs, are in [`super::stdio`].)
//!
//! Reading never waits: the event is there as a whole. Nor does writing: what goes over
//! the limit of an answer is dropped, and the invocation fails.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::runtime::{Budget, Charge};

/// What one read or write may bring: it is copied on the core's thread.
const MAX_PIECE: usize = 64 << 10;

/// What a program reads and writes.
pub(crate) struct Console(Mutex<Contents>);

struct Contents {
    input: Bytes,
    output: Vec<u8>,
    /// What the output holds of the budget.
    charge: Charge,
    /// How large it may get, in bytes.
    limit: u64,
    spilled: Option<Spilled>,
}

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spilled {
    /// It went over the limit.
    TooLarge,
    /// The host has no memory for it now.
    NoMemory,
}

impl Console {
    /// One whose output may have so many bytes.
    pub(crate) fn new(limit: u64, budget: &Arc<Budget>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Contents {
            input: Bytes::new(),
            output: Vec::new(),
            charge: budget.charge(),
            limit,
            spilled: None,
        })))
    }

    fn contents(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it reads from now on.
    pub(crate) fn begin(&self, input: Bytes) {
        self.contents().input = input;
    }

    /// Takes what it wrote.
    pub(crate) fn end(&self) -> Result<Vec<u8>, Spilled> {
        let mut contents = self.contents();
        contents.input = Bytes::new();
        let output = std::mem::take(&mut contents.output);
        contents.spilled.map_or(Ok(output), Err)
    }

    fn read(&self, most: usize) -> Bytes {
        let input = &mut self.contents().input;
        let piece = most.min(input.len()).min(MAX_PIECE);
        input.split_to(piece)
    }

    fn write(&self, bytes: &[u8]) {
        let mut contents = self.contents();
        if contents.spilled.is_some() {
            return;
        }
        let size = contents.output.len() + bytes.len();
        if size as u64 > contents.limit {
            contents.spilled = Some(Spilled::TooLarge);
        } else if !contents.charge.grow(bytes.len() as u64) {
            contents.spilled = Some(Spilled::NoMemory);
        } else {
            contents.output.extend_from_slice(bytes);
        }
    }
}

/// Its stdin, and its stdout.
#[derive(Clone)]
pub(crate) struct Pipe(pub(crate) Arc<Console>);

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

impl InputStream for Pipe {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let piece = self.0.read(size);
        if piece.is_empty() && size > 0 {
            return Err(StreamError::Closed);
        }
        Ok(piece)
    }
}

impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_PIECE)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let piece = self.0.read(buffer.remaining());
        buffer.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_over_the_limit_or_the_budget_is_none() {
        let ended = |limit, budget, written: &[usize]| {
            let console = Console::new(limit, &Budget::new(budget));
            for size in written {
                console.write(&vec![0; *size]);
            }
            console.end().map(|output| output.len())
        };
        assert_eq!(ended(10, 100, &[4, 6]), Ok(10));
        assert_eq!(ended(10, 100, &[4, 7]), Err(Spilled::TooLarge));
        // Nothing of what follows is an answer.
        assert_eq!(ended(10, 100, &[11, 1]), Err(Spilled::TooLarge));
        assert_eq!(ended(100, 10, &[4, 7]), Err(Spilled::NoMemory));
    }

    #[test]
    fn the_event_is_read_to_its_end_by_all_handles_together() {
        let console = Console::new(0, &Budget::new(0));
        console.begin(Bytes::from_static(b"event"));
        let (mut one, mut other) = (Pipe(Arc::clone(&console)), Pipe(console));
        assert_eq!(one.read(2).unwrap(), "ev");
        assert_eq!(other.read(100).unwrap(), "ent");
        assert!(matches!(one.read(1), Err(StreamError::Closed)));
    }
}
