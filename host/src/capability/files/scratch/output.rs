//! Writing to a file of a scratch directory by a stream.

use std::fs::File;
use std::io;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::format_err;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn_blocking};

use super::{Hold, Scratch};

/// What is taken at once, as wasmtime-wasi does.
const CAPACITY: usize = 64 << 10;

/// Where writing goes on.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Mode {
    /// Here.
    At(u64),
    /// Where the file ends then.
    Append,
}

/// A stream into a file.
pub(in super::super) struct Output {
    file: Arc<File>,
    hold: Arc<Hold>,
    mode: Mode,
    state: State,
}

enum State {
    Ready,
    Writing(AbortOnDropJoinHandle<io::Result<usize>>),
    Failed(io::Error),
    Closed,
}

impl Output {
    pub(in super::super) fn new(file: &Arc<File>, hold: &Arc<Hold>, mode: Mode) -> Self {
        Self {
            file: Arc::clone(file),
            hold: Arc::clone(hold),
            mode,
            state: State::Ready,
        }
    }

    fn begin(&mut self, bytes: Bytes) {
        let (mode, scratch) = (self.mode, Arc::clone(self.hold.scratch()));
        let (file, hold) = (Arc::clone(&self.file), Arc::clone(&self.hold));
        self.state = State::Writing(spawn_blocking(move || {
            let done = write(&scratch, &file, &bytes, mode);
            // What it holds goes after the file.
            drop(file);
            drop(hold);
            done
        }));
    }
}

/// All of it, or why not.
fn write(scratch: &Scratch, file: &File, bytes: &[u8], mode: Mode) -> io::Result<usize> {
    let (written, done) = scratch.write(file, bytes, mode);
    done.map(|()| written)
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        let State::Writing(task) = &mut self.state else {
            return;
        };
        self.state = match task.await {
            Ok(written) => {
                if let Mode::At(offset) = &mut self.mode {
                    *offset += written as u64;
                }
                State::Ready
            }
            Err(error) => State::Failed(error),
        };
    }
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self.state {
            State::Ready => {
                self.begin(bytes);
                Ok(())
            }
            State::Closed => Err(StreamError::Closed),
            State::Writing(_) | State::Failed(_) => Err(StreamError::Trap(format_err!(
                "write not permitted: check_write not called first"
            ))),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        match self.state {
            State::Writing(_) => Ok(()),
            _ => self.check_write().map(|_| ()),
        }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match &self.state {
            State::Ready => Ok(CAPACITY),
            State::Writing(_) => Ok(0),
            State::Closed => Err(StreamError::Closed),
            State::Failed(_) => match mem::replace(&mut self.state, State::Closed) {
                State::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
                _ => Err(StreamError::Closed),
            },
        }
    }

    async fn cancel(&mut self) {
        if let State::Writing(task) = mem::replace(&mut self.state, State::Closed) {
            // A write that has begun is done first.
            task.cancel().await;
        }
    }
}
