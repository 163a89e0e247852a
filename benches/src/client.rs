//! A load generator of our own, for what `wrk` cannot do: a fixed rate, and many connections that
//! wait long.
//!
//! It speaks just enough HTTP/1.1, by hand: it competes for the cores with what it measures, and a
//! client library takes several times as long for a request.

mod load;
mod sqs;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use load::{Closed, ClosedSeen, OpenSeen, Paced};
pub use sqs::{Queue, SqsClient};

/// When a server that does not answer is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A path on a server.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The server.
    pub address: SocketAddr,
    /// The path.
    pub path: String,
}

/// A request as it goes over the wire, and where to.
#[derive(Clone, Debug)]
pub struct Request {
    /// The server.
    pub address: SocketAddr,
    /// Head and body.
    pub bytes: Vec<u8>,
}

impl From<Endpoint> for Request {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            address: endpoint.address,
            bytes: endpoint.request(),
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// What is known of an answer when its head has come.
struct Head {
    status: u16,
    /// Where its body begins.
    body: usize,
    /// Where the answer ends.
    length: usize,
}

impl Endpoint {
    /// A path on a server.
    #[must_use]
    pub fn new(address: SocketAddr, path: &str) -> Self {
        Self {
            address,
            path: path.to_owned(),
        }
    }

    fn request(&self) -> Vec<u8> {
        let mut request = String::new();
        let _ = write!(
            request,
            "GET {} HTTP/1.1\r\nhost: {}\r\n\r\n",
            self.path, self.address
        );
        request.into_bytes()
    }
}

impl Head {
    /// Reads it, if it is there.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..end]).context("the head is not text")?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok())
            .context("there is no status")?;
        let length: Option<usize> = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok());
        let Some(length) = length else {
            bail!("an answer has no content-length");
        };
        Ok(Some(Self {
            status,
            body: end + 4,
            length: end + 4 + length,
        }))
    }
}

/// Asks once, on a connection of its own.
pub fn get(endpoint: &Endpoint) -> Result<Answer> {
    Kept::open(endpoint.address)?.ask(&endpoint.request())
}

/// A connection that is kept, for one request after another.
pub struct Kept {
    stream: std::net::TcpStream,
    buffer: Vec<u8>,
}

impl Kept {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = std::net::TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Sends a request, and waits for its answer.
    pub fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some(head) = Head::parse(&self.buffer)?
                && self.buffer.len() >= head.length
            {
                return Ok(Answer {
                    status: head.status,
                    body: self.buffer[head.body..head.length].to_vec(),
                });
            }
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                bail!("the server closed the connection");
            }
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }
}

/// Asks again and again, and notes how long the longest answer took, until it is stopped.
pub struct Watcher {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Result<Vec<Duration>>>,
}

impl Watcher {
    /// Begins to ask, every `interval`.
    #[must_use]
    pub fn start(endpoint: Endpoint, interval: Duration) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            crate::proc::go_first();
            let mut latencies = Vec::new();
            while stopped.recv_timeout(interval) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                let began = Instant::now();
                let answer = get(&endpoint)?;
                latencies.push(began.elapsed());
                if answer.status != 200 {
                    bail!("{} answered {}", endpoint.path, answer.status);
                }
            }
            Ok(latencies)
        });
        Self { stop, thread }
    }

    /// Stops, and answers how long each answer took.
    pub fn stop(self) -> Result<Vec<Duration>> {
        drop(self.stop);
        self.thread
            .join()
            .unwrap_or_else(|_| bail!("the watcher panicked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_where_the_answer_ends() {
        let bytes = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 2\r\n\r\nok";
        let head = Head::parse(bytes).unwrap().unwrap();
        assert_eq!((head.status, head.length), (504, bytes.len()));
        assert!(Head::parse(&bytes[..20]).unwrap().is_none());
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
