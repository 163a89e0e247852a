//! `wasi:http/outgoing-handler`.

use super::{Builder, FetchError, Response};
use crate::bindings::fetch::outgoing_handler::handle;
use crate::bindings::fetch::poll::poll;
use crate::bindings::fetch::streams::{InputStream, OutputStream, StreamError};
use crate::bindings::fetch::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method,
    OutgoingBody, OutgoingRequest, RequestOptions, Scheme, http_error_code,
};

/// What is read of a body at once.
const CHUNK: u64 = 64 << 10;

pub(super) struct Pending {
    /// There if it is answered before its body is written.
    upload: Option<Upload>,
    answer: FutureIncomingResponse,
}

pub(super) fn start(request: Builder) -> Result<Pending, FetchError> {
    let Builder {
        method,
        url,
        mut headers,
        body,
        timeouts,
        ..
    } = request;
    let invalid = |what: &str| FetchError::Invalid(what.to_owned());
    if !body.is_empty() && !headers.iter().any(|(name, _)| name == "content-length") {
        headers.push(("content-length".into(), body.len().to_string().into_bytes()));
    }
    let fields = Fields::from_list(&headers)
        .map_err(|error| FetchError::Invalid(format!("its headers: {error}")))?;
    let outgoing = OutgoingRequest::new(fields);
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
        _ => {
            return Err(invalid(
                "its URL begins with neither `http://` nor `https://`",
            ));
        }
    };
    // What stands behind a `#` is the reader's own business.
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    let method = match method.as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    };
    let set = |what: Result<(), ()>, name: &str| what.map_err(|()| invalid(name));
    set(outgoing.set_method(&method), "its method")?;
    set(outgoing.set_scheme(Some(&scheme)), "its scheme")?;
    set(
        outgoing.set_authority(Some(authority)),
        "the host of its URL",
    )?;
    set(
        outgoing.set_path_with_query(Some(&path)),
        "the path of its URL",
    )?;

    // A host may keep options that nobody needs for as long as the instance lives.
    let has_wishes = timeouts.connect.is_some()
        || timeouts.first_byte.is_some()
        || timeouts.between_bytes.is_some();
    let options = has_wishes.then(RequestOptions::new);
    let nanos = |time: Option<std::time::Duration>| {
        time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    };
    if let Some(options) = &options {
        let (connect, first) = (nanos(timeouts.connect), nanos(timeouts.first_byte));
        set(options.set_connect_timeout(connect), "its timeouts")?;
        set(options.set_first_byte_timeout(first), "its timeouts")?;
        let between = nanos(timeouts.between_bytes);
        set(options.set_between_bytes_timeout(between), "its timeouts")?;
    }

    let sink = match body.is_empty() {
        true => None,
        false => Some(outgoing.body().map_err(|()| invalid("its body"))?),
    };
    let answer = handle(outgoing, options).map_err(error)?;
    let mut upload = sink.map(|sink| Upload::new(sink, body));
    while let Some(under_way) = upload.take() {
        upload = under_way.go_on()?;
        if let Some(upload) = &upload {
            let answered = answer.subscribe();
            poll(&[&upload.stream.subscribe(), &answered]);
            if answered.ready() {
                break;
            }
        }
    }
    Ok(Pending { upload, answer })
}

/// The body of a request on its way. Dropped before all is written, it breaks off. Parts go
/// before what they belong to.
struct Upload {
    stream: OutputStream,
    sink: OutgoingBody,
    body: Vec<u8>,
    written: usize,
}

impl Upload {
    fn new(sink: OutgoingBody, body: Vec<u8>) -> Self {
        Self {
            stream: sink.write().expect("the stream is taken once"),
            sink,
            body,
            written: 0,
        }
    }

    /// Writes as much as there is room for. None when there is nothing left to write, or
    /// nobody takes it any more: why is said in the answer.
    fn go_on(mut self) -> Result<Option<Self>, FetchError> {
        while self.written < self.body.len() {
            let Ok(room) = self.stream.check_write() else {
                return Ok(None);
            };
            if room == 0 {
                return Ok(Some(self));
            }
            let rest = &self.body[self.written..];
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let part = &rest[..room.min(rest.len())];
            if self.stream.write(part).is_err() {
                return Ok(None);
            }
            self.written += part.len();
        }
        let Self { stream, sink, .. } = self;
        drop(stream);
        OutgoingBody::finish(sink, None).map_err(error)?;
        Ok(None)
    }

    /// Writes the rest. A host lets nobody wait for long who has the whole answer.
    fn finish(self) -> Result<(), FetchError> {
        let mut rest = Some(self);
        while let Some(upload) = rest.take() {
            upload.stream.subscribe().block();
            rest = upload.go_on()?;
        }
        Ok(())
    }
}

impl Pending {
    pub(super) fn wait(self) -> Result<Response, FetchError> {
        let Self { upload, answer } = self;
        let ready = answer.subscribe();
        ready.block();
        drop(ready);
        let answered = answer.get().expect("it is ready");
        let response = answered.expect("it is asked for once").map_err(error)?;
        drop(answer);
        let status = response.status();
        let headers = response.headers().entries();
        let incoming = response.consume().expect("the body is taken once");
        let stream = incoming.stream().expect("the stream is taken once");
        let body = Body {
            upload,
            stream: Some(stream),
            _incoming: incoming,
            _response: response,
        };
        Ok(Response::from_parts(status, headers, body))
    }
}

/// Parts go before what they belong to.
pub(super) struct Body {
    /// What is left of the request's body goes out while the answer is read.
    upload: Option<Upload>,
    stream: Option<InputStream>,
    _incoming: IncomingBody,
    _response: IncomingResponse,
}

impl Body {
    /// The next part; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, FetchError> {
        self.take(CHUNK)
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, FetchError> {
        if into.is_empty() {
            return Ok(0);
        }
        let most = CHUNK.min(into.len() as u64);
        let Some(part) = self.take(most)? else {
            return Ok(0);
        };
        into[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }

    fn take(&mut self, most: u64) -> Result<Option<Vec<u8>>, FetchError> {
        while let Some(stream) = &self.stream {
            if let Some(upload) = self.upload.take() {
                self.upload = upload.go_on()?;
            }
            let part = match &self.upload {
                None => stream.blocking_read(most),
                Some(upload) => {
                    poll(&[&upload.stream.subscribe(), &stream.subscribe()]);
                    stream.read(most)
                }
            };
            match part {
                Ok(part) if part.is_empty() => {}
                Ok(part) => return Ok(Some(part)),
                Err(StreamError::Closed) => {
                    self.stream = None;
                    if let Some(upload) = self.upload.take() {
                        upload.finish()?;
                    }
                }
                Err(StreamError::LastOperationFailed(why)) => {
                    let code = http_error_code(&why);
                    let text = why.to_debug_string();
                    drop(why);
                    self.stream = None;
                    return Err(code.map_or_else(|| body_error(text), error));
                }
            }
        }
        Ok(None)
    }
}

/// wasmtime 48 has no code for what fails within a body, only its text.
fn body_error(text: String) -> FetchError {
    if text.contains("body size exceeds limit") {
        FetchError::TooLarge
    } else if text.contains("timeout") {
        FetchError::Timeout("the answer's body")
    } else {
        FetchError::Broken(text)
    }
}

fn error(code: ErrorCode) -> FetchError {
    let broken = |what: &str| FetchError::Broken(what.to_owned());
    let unreachable = |what: &str| FetchError::Unreachable(what.to_owned());
    match code {
        ErrorCode::HttpRequestDenied => FetchError::Denied,
        ErrorCode::DestinationIpProhibited => FetchError::AddressDenied,
        ErrorCode::ConnectionLimitReached => FetchError::Limit,
        ErrorCode::DnsError(payload) => FetchError::Unreachable(
            payload
                .rcode
                .unwrap_or_else(|| "its name is not known".into()),
        ),
        ErrorCode::DestinationNotFound => unreachable("its name is not known"),
        ErrorCode::DestinationUnavailable => unreachable("nobody is there"),
        ErrorCode::DestinationIpUnroutable => unreachable("no way leads there"),
        ErrorCode::ConnectionRefused => unreachable("the connection was refused"),
        ErrorCode::DnsTimeout => FetchError::Timeout("the resolution of its name"),
        ErrorCode::ConnectionTimeout => FetchError::Timeout("the connection"),
        ErrorCode::HttpResponseTimeout => FetchError::Timeout("the answer"),
        ErrorCode::ConnectionReadTimeout => FetchError::Timeout("the answer's body"),
        ErrorCode::ConnectionWriteTimeout => FetchError::Timeout("the request's body"),
        ErrorCode::TlsCertificateError => FetchError::Tls("its certificate is not trusted".into()),
        ErrorCode::TlsAlertReceived(payload) => {
            FetchError::Tls(payload.alert_message.unwrap_or_else(|| "it refused".into()))
        }
        ErrorCode::TlsProtocolError => FetchError::Tls("it speaks no TLS that we speak".into()),
        ErrorCode::HttpRequestMethodInvalid => FetchError::Invalid("its method".into()),
        ErrorCode::HttpRequestUriInvalid => FetchError::Invalid("its URL".into()),
        ErrorCode::HttpRequestBodySize(_) => {
            FetchError::Invalid("its body is not as long as its `content-length`".into())
        }
        ErrorCode::HttpResponseBodySize(_) | ErrorCode::HttpResponseHeaderSectionSize(_) => {
            FetchError::TooLarge
        }
        ErrorCode::ConnectionTerminated => broken("the connection ended"),
        ErrorCode::HttpResponseIncomplete => broken("the answer ended too early"),
        ErrorCode::InternalError(Some(what)) => FetchError::Invalid(what),
        other => FetchError::Broken(format!("{other:?}")),
    }
}
