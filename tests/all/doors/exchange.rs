//! A client of HTTP/1.1 that reads an answer piece by piece, and tells a whole one from
//! one that was broken off.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use dunlin_tests::{Host, PATIENCE};

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As it should, with these trailers.
    Whole(Vec<(String, String)>),
    /// Before its end.
    Broken,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) end: End,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    #[track_caller]
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.end, End::Whole(_))
    }
}

/// What is left of the body under way.
#[derive(Clone, Copy)]
enum Left {
    Nothing,
    Bytes(usize),
    Chunks,
    UntilClosed,
}

/// One connection.
pub(super) struct Exchange {
    stream: BufReader<TcpStream>,
    left: Left,
    trailers: Vec<(String, String)>,
}

type Headers = Vec<(String, String)>;

impl Exchange {
    pub(super) fn open(host: &Host) -> Self {
        let stream = TcpStream::connect_timeout(&host.http.address(), PATIENCE).unwrap();
        Self::over(stream)
    }

    /// One whose socket takes little at a time.
    pub(super) fn narrow(host: &Host) -> Self {
        let exchange = Self::open(host);
        let socket = socket2::SockRef::from(exchange.stream.get_ref());
        socket.set_recv_buffer_size(64 << 10).unwrap();
        exchange
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::with_capacity(64 << 10, stream),
            left: Left::Nothing,
            trailers: Vec::new(),
        }
    }

    #[track_caller]
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.stream.get_mut().write_all(bytes.as_ref());
        sent.expect("the connection is open");
    }

    /// Another handle, to send from another thread.
    pub(super) fn sender(&self) -> TcpStream {
        self.stream.get_ref().try_clone().unwrap()
    }

    pub(super) fn half_close(&self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Vanishes with a reset.
    pub(super) fn reset(self) {
        let socket = socket2::SockRef::from(self.stream.get_ref());
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// A request without a body.
    #[track_caller]
    pub(super) fn ask(&mut self, method: &str, target: &str) {
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nhost: box.test\r\n\r\n"
        ));
    }

    /// A GET, and its answer.
    #[track_caller]
    pub(super) fn get(&mut self, target: &str) -> Got {
        self.ask("GET", target);
        self.answer()
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if !line.ends_with("\r\n") {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }

    fn lines(&mut self) -> std::io::Result<Headers> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                return Ok(lines);
            };
            lines.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// A head, whatever its status.
    #[track_caller]
    pub(super) fn any_head(&mut self) -> (u16, Headers) {
        let status = self.line().expect("a status line");
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.unwrap_or_else(|| panic!("no status line: {status:?}"));
        (code, self.lines().expect("headers"))
    }

    /// The head of the answer to a GET.
    #[track_caller]
    pub(super) fn head(&mut self) -> (u16, Headers) {
        self.head_of("GET")
    }

    /// The head of the answer to such a request; interim ones are passed over.
    #[track_caller]
    pub(super) fn head_of(&mut self, method: &str) -> (u16, Headers) {
        let (status, headers) = loop {
            let (status, headers) = self.any_head();
            if status >= 200 {
                break (status, headers);
            }
        };
        let value = |name: &str| {
            let mut headers = headers.iter();
            headers.find(|(own, _)| own == name).map(|(_, value)| value)
        };
        self.left = if method == "HEAD" || status == 204 || status == 304 {
            Left::Nothing
        } else if value("transfer-encoding").is_some() {
            Left::Chunks
        } else if let Some(length) = value("content-length") {
            Left::Bytes(length.parse().unwrap())
        } else {
            Left::UntilClosed
        };
        self.trailers.clear();
        (status, headers)
    }

    /// The next piece of the body; None at its end.
    pub(super) fn piece(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let size = match self.left {
            Left::Nothing | Left::Bytes(0) => return Ok(None),
            Left::Bytes(left) => left.min(64 << 10),
            Left::UntilClosed => {
                let piece = self.stream.fill_buf()?.to_vec();
                self.stream.consume(piece.len());
                return Ok((!piece.is_empty()).then_some(piece));
            }
            Left::Chunks => {
                let line = self.line()?;
                let size = usize::from_str_radix(&line, 16).expect("the size of a chunk");
                if size == 0 {
                    self.left = Left::Nothing;
                    self.trailers = self.lines()?;
                    return Ok(None);
                }
                size
            }
        };
        let mut piece = vec![0; size];
        self.stream.read_exact(&mut piece)?;
        match &mut self.left {
            Left::Bytes(left) => *left -= size,
            _ => assert_eq!(self.line()?, "", "the end of a chunk"),
        }
        Ok(Some(piece))
    }

    /// What is left of the body.
    #[track_caller]
    pub(super) fn rest(&mut self) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        loop {
            match self.piece() {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => return (body, End::Whole(std::mem::take(&mut self.trailers))),
                Err(error) if crate::http::wire::is_end(&error) => return (body, End::Broken),
                Err(error) => panic!("neither more nor an end: {error}; got {body:?}"),
            }
        }
    }

    /// The answer to a GET.
    #[track_caller]
    pub(super) fn answer(&mut self) -> Got {
        self.answer_to("GET")
    }

    #[track_caller]
    pub(super) fn answer_to(&mut self, method: &str) -> Got {
        let (status, headers) = self.head_of(method);
        let (body, end) = self.rest();
        Got {
            status,
            headers,
            body,
            end,
        }
    }

    /// Waits until the other side has closed, and that nothing comes before.
    #[track_caller]
    pub(super) fn closed(&mut self) {
        let mut more = Vec::new();
        match self.stream.read_to_end(&mut more) {
            Ok(_) => {}
            Err(error) if crate::http::wire::is_end(&error) => {}
            Err(error) => panic!("the connection is open: {error}"),
        }
        assert_eq!(String::from_utf8_lossy(&more), "");
    }
}

/// A body in chunks.
pub(super) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}
