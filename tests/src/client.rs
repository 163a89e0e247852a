//! A client of HTTP/1.1 that does what it is told, and no more: it neither
//! repairs a request nor hides an answer's bytes. Every wait has an end.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::PATIENCE;

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers in their order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// How the invocation ended, on answers that the handler did not make.
    #[must_use]
    pub fn outcome(&self) -> Option<&str> {
        self.header("x-dunlin-outcome")
    }

    /// The id of the invocation.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn request_id(&self) -> &str {
        self.header("x-amzn-requestid")
            .unwrap_or_else(|| panic!("no request id: {self:?}"))
    }

    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}

/// Sends whole requests to one address, each on a connection of its own. Cheap
/// to clone.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    address: SocketAddr,
}

impl Client {
    /// A client of this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a connection.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> Connection {
        self.try_connect()
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.address))
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// If it is refused.
    pub fn try_connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection {
            address: self.address,
            stream: BufReader::new(stream),
        })
    }

    /// Sends a GET.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.request("GET", target, &[], b"")
    }

    /// Sends a POST.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    #[track_caller]
    pub fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.request("POST", target, &[], body.as_ref())
    }

    /// Sends a request. `Host`, and with a body `Content-Length`, are added
    /// unless they are given.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    #[track_caller]
    pub fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.try_request(method, target, headers, body)
            .unwrap_or_else(|error| panic!("no answer to {method} {target}: {error}"))
    }

    /// As [`Self::request`].
    ///
    /// # Errors
    /// If there is no answer.
    pub fn try_request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut connection = self.try_connect()?;
        connection.try_request(method, target, headers, body)
    }

    /// Sends a GET from a thread of its own.
    #[must_use]
    pub fn spawn_get(&self, target: &str) -> JoinHandle<Response> {
        let client = *self;
        let target = target.to_owned();
        std::thread::spawn(move || client.get(&target))
    }

    /// Sends as many GETs at once, and answers when all are answered.
    ///
    /// # Panics
    /// If one is not answered.
    #[must_use]
    #[track_caller]
    pub fn get_at_once(&self, target: &str, count: usize) -> Vec<Response> {
        let requests: Vec<_> = (0..count).map(|_| self.spawn_get(target)).collect();
        requests
            .into_iter()
            .map(|request| request.join().expect("each request is answered"))
            .collect()
    }
}

/// A connection that is open.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Another limit for each read than [`PATIENCE`].
    pub fn set_read_timeout(&mut self, limit: Duration) {
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(Some(limit))
            .expect("a duration above zero is a timeout");
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// If the other side takes none.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the other side takes none.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends nothing more; answers may still come.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    /// Sends a request and reads its answer; the connection stays open.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn try_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let given = |name: &str| {
            headers
                .iter()
                .any(|(own, _)| own.eq_ignore_ascii_case(name))
        };
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !given("host") {
            head += &format!("host: {}\r\n", self.address);
        }
        let needs_length = !body.is_empty() || !matches!(method, "GET" | "HEAD");
        if needs_length && !given("content-length") {
            head += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        // A host that refuses a large body closes while it is being sent: its
        // answer is there nevertheless.
        let sent = self.try_send(bytes);
        self.try_read_response_to(method)
            .map_err(|error| sent.err().unwrap_or(error))
    }

    /// As [`Self::try_request`].
    ///
    /// # Panics
    /// If there is no answer.
    #[track_caller]
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.try_request(method, target, headers, body)
            .unwrap_or_else(|error| panic!("no answer to {method} {target}: {error}"))
    }

    /// Reads an answer.
    ///
    /// # Panics
    /// If none comes.
    #[track_caller]
    pub fn read_response(&mut self) -> Response {
        self.try_read_response()
            .unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// If none comes, or it breaks off.
    pub fn try_read_response(&mut self) -> io::Result<Response> {
        self.try_read_response_to("GET")
    }

    /// Reads the answer to a request of this method: one to HEAD has no body.
    ///
    /// # Errors
    /// If none comes, or it breaks off.
    pub fn try_read_response_to(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let (status, headers) = self.read_head()?;
            // 100 Continue comes before the answer.
            if status != 101 && (100..200).contains(&status) {
                continue;
            }
            let mut response = Response {
                status,
                headers,
                body: Vec::new(),
            };
            let has_body = method != "HEAD" && !matches!(status, 101 | 204 | 304);
            if has_body {
                response.body = self.read_body(&response)?;
            }
            return Ok(response);
        }
    }

    fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let first = self.read_line()?;
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| first.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| invalid(format!("no status line: {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| invalid(format!("no header: {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn read_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.read_line()?;
                let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| invalid(format!("no size of a chunk: {line:?}")))?;
                let start = body.len();
                body.resize(start + size, 0);
                self.stream.read_exact(&mut body[start..])?;
                // After the last chunk this is the end of the trailers: there
                // are none.
                self.read_line()?;
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        match response.header("content-length") {
            Some(length) => {
                let length = length
                    .parse()
                    .map_err(|_| invalid(format!("no length: {length:?}")))?;
                body.resize(length, 0);
                self.stream.read_exact(&mut body)?;
            }
            None => {
                self.stream.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads until the other side closes; answers what came.
    ///
    /// # Panics
    /// If it does not close within the limit for reads.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("the connection was not closed: {error}; got {bytes:?}"),
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
