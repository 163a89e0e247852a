//! Load on a thread of its own: closed (each connection asks again when it has its answer) or
//! paced (requests are due at fixed times, whatever the server does).

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinSet, LocalSet};

use super::{Endpoint, Head, Request};
use crate::proc;

/// How often requests are given out: each at most so much later than it was due, which counts.
const QUANTUM: Duration = Duration::from_micros(100);
/// How long requests that were due may take after the last one was.
const GRACE: Duration = Duration::from_secs(5);

/// A connection that asks for the same again and again.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(request: Request) -> Result<Self> {
        let Request { address, bytes } = request;
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: bytes,
            buffer: Vec::with_capacity(16 << 10),
        })
    }

    /// Asks, and answers the status.
    async fn ask(&mut self) -> Result<u16> {
        self.stream.write_all(&self.request).await?;
        self.buffer.clear();
        loop {
            let count = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(count > 0, "the server closed the connection");
            if let Some(head) = Head::parse(&self.buffer)?
                && self.buffer.len() >= head.length
            {
                return Ok(head.status);
            }
        }
    }
}

/// Runs what is not `Send` on a thread of its own that goes before the servers.
fn on_a_thread<T, F>(run: impl FnOnce() -> F + Send + 'static) -> JoinHandle<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    std::thread::spawn(move || {
        proc::go_first();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        LocalSet::new().block_on(&runtime, run())
    })
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| bail!("the load generator panicked"))
}

/// A closed load that runs until it is stopped.
pub struct Closed {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<ClosedSeen>>,
}

/// What a closed load saw.
#[derive(Clone, Debug)]
pub struct ClosedSeen {
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// How long each took.
    pub latencies: Vec<Duration>,
    /// For how long it ran.
    pub time: Duration,
}

impl ClosedSeen {
    /// Answers per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.time.as_secs_f64()
    }

    /// Fails if there were other answers than these.
    pub fn only(&self, statuses: &[u16]) -> Result<()> {
        ensure!(!self.latencies.is_empty(), "there was no answer");
        ensure!(
            self.statuses.keys().all(|status| statuses.contains(status)),
            "the answers were {:?}, not {statuses:?} alone",
            self.statuses
        );
        Ok(())
    }
}

impl Closed {
    /// Begins, with so many connections.
    #[must_use]
    pub fn start(request: impl Into<Request>, connections: usize) -> Self {
        let request = request.into();
        let (stop, stopped) = oneshot::channel();
        let thread = on_a_thread(move || async move {
            let seen = Rc::new(RefCell::new((BTreeMap::new(), Vec::new())));
            let mut tasks = JoinSet::new();
            let began = Instant::now();
            for _ in 0..connections {
                let mut connection = Connection::open(request.clone()).await?;
                let seen = Rc::clone(&seen);
                tasks.spawn_local(async move {
                    loop {
                        let asked = Instant::now();
                        let status = match connection.ask().await {
                            Ok(status) => status,
                            Err(error) => return error,
                        };
                        let mut seen = seen.borrow_mut();
                        *seen.0.entry(status).or_insert(0) += 1;
                        seen.1.push(asked.elapsed());
                    }
                });
            }
            tokio::select! {
                // Also when nobody is left to stop it.
                _ = stopped => {}
                Some(failed) = tasks.join_next() => return Err(failed?),
            }
            let time = began.elapsed();
            tasks.shutdown().await;
            let (statuses, latencies) = seen.take();
            Ok(ClosedSeen {
                statuses,
                latencies,
                time,
            })
        });
        Self { stop, thread }
    }

    /// Stops: what is under way is broken off and not counted.
    pub fn stop(self) -> Result<ClosedSeen> {
        drop(self.stop);
        join(self.thread)
    }

    /// Runs for so long.
    pub fn run(
        request: impl Into<Request>,
        connections: usize,
        time: Duration,
    ) -> Result<ClosedSeen> {
        let load = Self::start(request, connections);
        std::thread::sleep(time);
        load.stop()
    }
}

/// A load at a fixed rate.
#[derive(Clone, Debug)]
pub struct Paced {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// Requests per second.
    pub rate: f64,
    /// Connections; a request that finds none free waits for one.
    pub connections: usize,
    /// For how long.
    pub time: Duration,
}

/// What a paced load saw.
#[derive(Clone, Debug)]
pub struct OpenSeen {
    /// From the time a request was due to its answer, or to the end of the run if there was none:
    /// a server that stalls is charged with every request that fell due meanwhile.
    pub latencies: Vec<Duration>,
    /// Requests that had no answer by the end.
    pub unanswered: u64,
    /// Answers other than 200.
    pub failed: u64,
}

struct Due {
    waiting: RefCell<VecDeque<Instant>>,
    permits: Semaphore,
    latencies: RefCell<Vec<Duration>>,
    failed: RefCell<u64>,
    /// When the requests under way were due.
    under_way: RefCell<Vec<Option<Instant>>>,
}

/// A timer that is exact: tokio's own are rounded up to a millisecond, which would hide what is
/// measured.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    #[allow(
        unsafe_code,
        reason = "tokio cannot know that a type keeps its descriptor; this one does"
    )]
    fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an `OwnedFd` stays the same open descriptor for as long as it lives.
        let timer = unsafe { AsyncFd::register(timer) };
        Ok(Self(timer.context("cannot watch a timer")?))
    }

    async fn until(&self, due: Instant) -> Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(left)?,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        let mut ready = self.0.readable().await?;
        rustix::io::read(&self.0, &mut [0; 8])?;
        ready.clear_ready();
        Ok(())
    }
}

impl Paced {
    /// Runs it.
    pub fn run(self) -> Result<OpenSeen> {
        join(on_a_thread(move || self.paced()))
    }

    async fn paced(self) -> Result<OpenSeen> {
        let Self {
            endpoint,
            rate,
            connections,
            time,
        } = self;
        let due = Rc::new(Due {
            waiting: RefCell::default(),
            permits: Semaphore::new(0),
            latencies: RefCell::new(Vec::with_capacity((rate * time.as_secs_f64()) as usize)),
            failed: RefCell::new(0),
            under_way: RefCell::new(vec![None; connections]),
        });
        let mut tasks = JoinSet::new();
        for index in 0..connections {
            let mut connection = Connection::open(endpoint.clone().into()).await?;
            let due = Rc::clone(&due);
            tasks.spawn_local(async move { due.serve(index, &mut connection).await });
        }
        let timer = Timer::new()?;
        let interval = Duration::from_secs_f64(1.0 / rate);
        let began = Instant::now();
        let (mut next, mut woke) = (began, began);
        while next < began + time {
            // Not for each request: the pacer's own work would take what is measured.
            timer.until(next.max(woke + QUANTUM)).await?;
            let now = Instant::now();
            while next <= now && next < began + time {
                due.waiting.borrow_mut().push_back(next);
                due.permits.add_permits(1);
                next += interval;
            }
            woke = now;
            // A pacer that is behind must not keep the connections from asking.
            tokio::task::yield_now().await;
        }
        let all_done = async {
            while !due.is_done() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(GRACE, all_done) => {}
            Some(failed) = tasks.join_next() => failed??,
        }
        let now = Instant::now();
        tasks.shutdown().await;
        let mut latencies = due.latencies.take();
        let mut unanswered = 0;
        let under_way = due.under_way.take().into_iter().flatten();
        for intended in due.waiting.take().into_iter().chain(under_way) {
            latencies.push(now - intended);
            unanswered += 1;
        }
        Ok(OpenSeen {
            latencies,
            unanswered,
            failed: due.failed.take(),
        })
    }
}

impl Due {
    fn is_done(&self) -> bool {
        self.waiting.borrow().is_empty() && self.under_way.borrow().iter().all(Option::is_none)
    }

    async fn serve(&self, index: usize, connection: &mut Connection) -> Result<()> {
        loop {
            self.permits.acquire().await?.forget();
            let Some(intended) = self.waiting.borrow_mut().pop_front() else {
                continue;
            };
            self.under_way.borrow_mut()[index] = Some(intended);
            let status = connection.ask().await?;
            self.under_way.borrow_mut()[index] = None;
            self.latencies.borrow_mut().push(intended.elapsed());
            if status != 200 {
                *self.failed.borrow_mut() += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    /// Answers every request after this long, one connection at a time.
    fn slow_server(delay: Duration) -> Endpoint {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut buffer = [0; 1024];
                while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                    std::thread::sleep(delay);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                }
            }
        });
        Endpoint::new(address, "/")
    }

    #[test]
    fn requests_that_fall_due_while_the_server_stalls_count_from_when_they_were_due() {
        let seen = Paced {
            endpoint: slow_server(Duration::from_millis(20)),
            rate: 100.0,
            connections: 1,
            time: Duration::from_millis(500),
        }
        .run()
        .unwrap();
        // 50 requests of 20 ms each take a second: the last waits for half of it.
        assert_eq!(seen.latencies.len(), 50);
        assert_eq!((seen.unanswered, seen.failed), (0, 0));
        let longest = seen.latencies.iter().max().unwrap();
        assert!(*longest >= Duration::from_millis(400), "{longest:?}");
    }

    #[test]
    fn a_closed_load_counts_every_answer() {
        let endpoint = slow_server(Duration::from_millis(5));
        let seen = Closed::run(endpoint, 1, Duration::from_millis(200)).unwrap();
        seen.only(&[200]).unwrap();
        assert!(seen.only(&[504]).is_err());
        assert!((5..=40).contains(&seen.latencies.len()), "{seen:?}");
    }
}
