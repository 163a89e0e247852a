//! The log: JSON lines on one output, written by a thread of its own.
//!
//! Whoever logs appends to a buffer of the core it runs on and never waits. A
//! buffer that is full (the output is slow) drops the line and counts it.

use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Line;

/// How much one buffer holds before lines are dropped.
const MAX_BUFFER: usize = 4 << 20;

/// Lines wait at most this long. Long enough that a busy host writes in large
/// pieces, short enough that nobody notices.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// More buffers than cores that anyone has would only cost memory.
const BUFFERS: usize = 16;

thread_local! {
    static BUFFER: Cell<usize> = const { Cell::new(0) };
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Something failed that the host gets over.
    Warn,
    /// Something failed that an operator should look at.
    Error,
}

impl Level {
    /// As it stands in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    buffers: [Mutex<Vec<u8>>; BUFFERS],
    /// Whether the writer knows that something waits.
    pending: AtomicBool,
    dropped: AtomicU64,
    closed: AtomicBool,
    writer: std::sync::OnceLock<std::thread::Thread>,
}

/// Owns the writing thread; dropping it writes what waits and ends the thread.
pub struct LogWriter {
    log: Log,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    /// Starts the log on an output.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(output: impl Write + Send + 'static) -> std::io::Result<(Self, LogWriter)> {
        let log = Self(Arc::new(Shared {
            buffers: std::array::from_fn(|_| Mutex::default()),
            pending: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            writer: std::sync::OnceLock::new(),
        }));
        let shared = Arc::clone(&log.0);
        let thread = std::thread::Builder::new()
            .name("dunlin-log".into())
            .spawn(move || shared.write_out(output))?;
        let _ = log.0.writer.set(thread.thread().clone());
        Ok((
            log.clone(),
            LogWriter {
                log,
                thread: Some(thread),
            },
        ))
    }

    /// Lets this thread use a buffer of its own.
    pub fn use_buffer(index: usize) {
        BUFFER.set(index % BUFFERS);
    }

    /// Appends one line; `members` adds to it.
    pub fn line(&self, level: Level, members: impl FnOnce(&mut Line<'_>)) {
        {
            let mut buffer = self.0.buffer(BUFFER.get());
            if buffer.len() >= MAX_BUFFER {
                self.0.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            members(&mut Line::begin(&mut buffer, level.as_str()));
        }
        if !self.0.pending.swap(true, Ordering::AcqRel)
            && let Some(writer) = self.0.writer.get()
        {
            writer.unpark();
        }
    }

    /// A line of the host's own.
    pub fn host(&self, level: Level, message: &str) {
        self.line(level, |line| {
            line.str("kind", "host").str("message", message);
        });
    }

    /// Lines dropped because the output was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn buffer(&self, index: usize) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.buffers[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, mut output: impl Write) {
        let mut spare = Vec::new();
        loop {
            while !self.pending.swap(false, Ordering::AcqRel) {
                if self.closed.load(Ordering::Acquire) {
                    return;
                }
                std::thread::park();
            }
            if !self.closed.load(Ordering::Acquire) {
                std::thread::sleep(FLUSH_INTERVAL);
            }
            for index in 0..BUFFERS {
                std::mem::swap(&mut *self.buffer(index), &mut spare);
                if !spare.is_empty() && output.write_all(&spare).is_err() {
                    let lines = spare.iter().filter(|b| **b == b'\n').count();
                    self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
                }
                // A burst's buffer is not kept for ever.
                if spare.capacity() > MAX_BUFFER {
                    spare = Vec::new();
                }
                spare.clear();
            }
            let _ = output.flush();
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.log.0.closed.store(true, Ordering::Release);
        self.log.0.pending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_before_the_writer_ends() {
        let sink = Sink::default();
        let (log, writer) = Log::start(sink.clone()).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|index| {
                let log = log.clone();
                std::thread::spawn(move || {
                    Log::use_buffer(index);
                    for _ in 0..1000 {
                        log.host(Level::Info, "x");
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        drop(writer);
        let written = sink.0.lock().unwrap();
        assert_eq!(
            written
                .split(|b| *b == b'\n')
                .filter(|line| !line.is_empty())
                .count(),
            4000
        );
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_stuck_output_drops_and_counts_and_nobody_waits() {
        struct Stuck(Arc<Mutex<()>>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _wait = self.0.lock();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().unwrap();
        let (log, writer) = Log::start(Stuck(Arc::clone(&gate))).unwrap();
        let long = "x".repeat(100_000);
        for _ in 0..1000 {
            log.host(Level::Info, &long);
        }
        assert!(log.dropped() > 800, "{}", log.dropped());
        drop(held);
        drop(writer);
    }
}
