//! A client that writes bytes as they are, for what no HTTP library would send.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use dunlin_tests::PATIENCE;
use serde_json::Value;

/// How long anything here waits. No test depends on how much less it takes.
pub(crate) const DEADLINE: Duration = PATIENCE;

/// One connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header that stands there once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(
            values.next().is_none(),
            "{name} stands there twice: {self:?}"
        );
        value
    }

    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let all = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        all.map(|(_, value)| value.as_str()).collect()
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether the server says that it closes the connection.
    pub(crate) fn closes(&self) -> bool {
        self.values("connection")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, DEADLINE).expect("somebody listens"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the connection is open");
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends until it is all sent or the server takes no more. Says how much.
    pub(crate) fn send_while_taken(&mut self, piece: &[u8], times: usize) -> usize {
        (0..times)
            .take_while(|_| self.stream.write_all(piece).is_ok())
            .count()
    }

    /// One GET on a connection that stays open.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: box.test\r\n\r\n"));
        self.answer()
    }

    #[track_caller]
    pub(crate) fn post(&mut self, target: &str, body: &[u8]) -> Answer {
        self.send(format!(
            "POST {target} HTTP/1.1\r\nhost: box.test\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ));
        self.send(body);
        self.answer()
    }

    /// The next answer.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.next(true).expect("an answer")
    }

    /// The next answer that is final: a server may send interim ones (RFC 9110
    /// section 15.2) before it.
    #[track_caller]
    pub(crate) fn final_answer(&mut self) -> Answer {
        self.final_answer_or_end()
            .unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// As [`Self::final_answer`], or the connection's end.
    pub(crate) fn final_answer_or_end(&mut self) -> std::io::Result<Answer> {
        loop {
            let answer = self.next(true)?;
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    /// The next answer, to a HEAD.
    #[track_caller]
    pub(crate) fn head_answer(&mut self) -> Answer {
        self.next(false).expect("an answer")
    }

    /// The next answer, or the connection's end.
    pub(crate) fn next(&mut self, with_body: bool) -> std::io::Result<Answer> {
        let end = loop {
            if let Some(at) = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break at + 4;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = std::str::from_utf8(&head).expect("heads are text");
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let status = status
            .strip_prefix("HTTP/1.1 ")
            .or(status.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("no status line: {status:?}"));
        let headers = lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("no header: {line:?}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        let mut answer = Answer {
            status,
            headers: headers.collect(),
            body: Vec::new(),
        };
        if with_body && status >= 200 && status != 204 && status != 304 {
            assert_eq!(
                answer.header("transfer-encoding"),
                None,
                "buffered answers have a length"
            );
            let length = answer
                .header("content-length")
                .expect("a length")
                .parse()
                .expect("a number");
            while self.buffer.len() < length {
                self.fill()?;
            }
            answer.body = self.buffer.drain(..length).collect();
        }
        Ok(answer)
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(&piece[..read]);
                Ok(())
            }
        }
    }

    /// Waits until the server has closed the connection, and that nothing comes
    /// before.
    #[track_caller]
    pub(crate) fn closed(&mut self) {
        let began = Instant::now();
        while self.buffer.is_empty() {
            match self.fill() {
                Ok(()) => {}
                Err(error) if is_end(&error) => return,
                Err(error) => panic!(
                    "the connection is open after {:?}: {error}",
                    began.elapsed()
                ),
            }
        }
        panic!("more came: {:?}", String::from_utf8_lossy(&self.buffer));
    }

    /// Whether nothing comes, and the connection stays, for this long.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let result = self.fill();
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        matches!(result, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// No more requests come, but answers are still read.
    pub(crate) fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Vanishes with a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// An end that the other side made.
pub(crate) fn is_end(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        UnexpectedEof | ConnectionReset | BrokenPipe | ConnectionAborted
    )
}

/// One GET on a connection of its own.
#[track_caller]
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    Wire::connect(address).get(target)
}
