//! stdout and stderr: captured per invocation, line by line, into the log; and records
//! that are for the log from the beginning.
//!
//! Writing never fails and never waits. What goes over the function's log
//! limit is dropped; the log says so once per invocation.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::invocation::{Call, RequestId, Tail};
use crate::runtime::Common;
use crate::telemetry::{Level, Line};

/// A longer line is cut into several.
const MAX_LINE: usize = 16 << 10;
/// What a line counts beside its bytes: each one carries names and a time, so
/// that a guest writing single characters cannot make the log a hundred times
/// what it wrote.
const LINE_COST: u64 = 64;
/// A longer context of a record is cut.
const MAX_CONTEXT: usize = 1 << 10;
/// What one write may bring.
const MAX_WRITE: usize = 64 << 10;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How much a record matters, for whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl Severity {
    fn level(self) -> Level {
        match self {
            Self::Trace | Self::Debug | Self::Info => Level::Info,
            Self::Warn => Level::Warn,
            Self::Error | Self::Critical => Level::Error,
        }
    }

    /// Its name where ours is coarser.
    fn finer(self) -> Option<&'static str> {
        match self {
            Self::Trace => Some("trace"),
            Self::Debug => Some("debug"),
            Self::Critical => Some("critical"),
            Self::Info | Self::Warn | Self::Error => None,
        }
    }
}

/// What an instance writes.
pub(crate) struct Output {
    common: Arc<Common>,
    capture: Mutex<Capture>,
}

#[derive(Default)]
struct Capture {
    request_id: Option<RequestId>,
    tail: Option<Tail>,
    left: u64,
    truncated: bool,
    /// What of a line has come so far, for each stream.
    partial: [Vec<u8>; 2],
}

impl Output {
    pub(crate) fn new(common: Arc<Common>) -> Arc<Self> {
        Arc::new(Self {
            common,
            capture: Mutex::default(),
        })
    }

    fn capture(&self) -> std::sync::MutexGuard<'_, Capture> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes from now on belongs to this invocation, or to none.
    pub(crate) fn begin(&self, call: Option<&Call>) {
        let mut capture = self.capture();
        capture.request_id = call.map(|call| call.request_id);
        capture.tail = call.and_then(|call| call.tail.clone());
        capture.left = self.common.spec.limits.log.0;
        capture.truncated = false;
    }

    /// Writes out lines that were not ended.
    pub(crate) fn end(&self) {
        let mut capture = self.capture();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(&mut capture.partial[stream as usize]);
            if !line.is_empty() {
                self.line(&capture, stream, &line);
            }
        }
        capture.request_id = None;
        capture.tail = None;
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut capture = self.capture();
        let mut rest = bytes;
        while !rest.is_empty() && !capture.truncated {
            let room = MAX_LINE - capture.partial[stream as usize].len();
            let newline = rest.iter().take(room).position(|byte| *byte == b'\n');
            let (piece, ends) = match newline {
                Some(at) => (at, true),
                None => (rest.len().min(room), rest.len() >= room),
            };
            let cost = piece as u64 + if ends { LINE_COST } else { 0 };
            if cost > capture.left {
                capture.truncated = true;
                self.truncated(&capture);
                break;
            }
            capture.left -= cost;
            capture.partial[stream as usize].extend_from_slice(&rest[..piece]);
            rest = &rest[piece + usize::from(newline.is_some())..];
            if ends {
                let line = std::mem::take(&mut capture.partial[stream as usize]);
                self.line(&capture, stream, &line);
            }
        }
    }

    /// Writes a record. One that is long becomes several lines, each with the level and the
    /// context.
    pub(crate) fn log(&self, severity: Severity, context: &str, message: &str) {
        let mut capture = self.capture();
        let context = &context[..context.floor_char_boundary(MAX_CONTEXT)];
        let mut rest = message;
        while !capture.truncated {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_LINE));
            let cost = (context.len() + piece.len()) as u64 + LINE_COST;
            if cost > capture.left {
                capture.truncated = true;
                self.truncated(&capture);
                break;
            }
            capture.left -= cost;
            if let Some(tail) = &capture.tail {
                tail.line(piece);
            }
            self.record(&capture, severity.level(), |out| {
                out.str("stream", "log").str("message", piece);
                let mut fields = serde_json::Map::new();
                if !context.is_empty() {
                    fields.insert("context".to_owned(), context.into());
                }
                if let Some(finer) = severity.finer() {
                    fields.insert("level".to_owned(), finer.into());
                }
                if !fields.is_empty() {
                    out.json("fields", &serde_json::Value::Object(fields));
                }
            });
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }

    /// A line of the log that belongs to the invocation.
    fn record(&self, capture: &Capture, level: Level, members: impl FnOnce(&mut Line<'_>)) {
        self.common.telemetry.log.line(level, |out| {
            out.str("kind", "log")
                .str("function", self.common.spec.name.as_str())
                .str("version", &self.common.version);
            if let Some(id) = capture.request_id {
                id.with_str(|id| {
                    out.str("request_id", id);
                });
            }
            members(out);
        });
    }

    fn line(&self, capture: &Capture, stream: Stream, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches('\r');
        if let Some(tail) = &capture.tail {
            tail.line(text);
        }
        let structured = Structured::parse(text);
        let level = structured
            .as_ref()
            .map_or(Level::Info, |structured| structured.level);
        self.record(capture, level, |out| {
            out.str("stream", stream.as_str());
            match structured {
                Some(structured) => {
                    out.str("message", &structured.message);
                    if !structured.fields.is_empty() {
                        out.json("fields", &serde_json::Value::Object(structured.fields));
                    }
                }
                None => {
                    out.str("message", text);
                }
            }
        });
    }

    fn truncated(&self, capture: &Capture) {
        self.common.metrics.log_truncated.inc();
        let limit = self.common.spec.limits.log;
        self.line(
            capture,
            Stream::Stderr,
            format!("the rest of this invocation's output is dropped: it went over the log limit of {limit}; raise `log-limit`")
                .as_bytes(),
        );
    }
}

/// A line in the form the SDK's loggers write: an object with a level and a
/// message.
struct Structured {
    level: Level,
    message: String,
    fields: serde_json::Map<String, serde_json::Value>,
}

impl Structured {
    fn parse(text: &str) -> Option<Self> {
        if !text.starts_with("{\"") {
            return None;
        }
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).ok()?;
        let level = match fields.get("level")?.as_str()? {
            "error" | "ERROR" => Level::Error,
            "warn" | "WARN" => Level::Warn,
            _ => Level::Info,
        };
        let message = fields.get("message")?.as_str()?.to_owned();
        // The level it was written at stays visible where ours is coarser.
        if matches!(
            fields["level"].as_str(),
            Some("info" | "INFO" | "warn" | "WARN" | "error" | "ERROR")
        ) {
            fields.remove("level");
        }
        fields.remove("message");
        Some(Self {
            level,
            message,
            fields,
        })
    }
}

/// One of the two streams of an instance.
#[derive(Clone)]
pub(crate) struct Stdio {
    output: Arc<Output>,
    stream: Stream,
}

impl Stdio {
    pub(crate) fn new(output: &Arc<Output>, stream: Stream) -> Self {
        Self {
            output: Arc::clone(output),
            stream,
        }
    }
}

impl IsTerminal for Stdio {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdio {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stdio {
    async fn ready(&mut self) {}
}

impl OutputStream for Stdio {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.output.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
