use std::io::{self, Read};

use serde::de::DeserializeOwned;

use super::{FetchError, host};
use crate::StatusCode;

/// An answer: its head, and a body that comes as it is read.
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: host::Body,
}

impl Response {
    pub(super) fn from_parts(
        status: u16,
        headers: Vec<(String, Vec<u8>)>,
        body: host::Body,
    ) -> Self {
        Self {
            status,
            headers,
            body,
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn into_parts(self) -> (u16, Vec<(String, Vec<u8>)>, host::Body) {
        let Self {
            status,
            headers,
            body,
        } = self;
        (status, headers, body)
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from(self.status)
    }

    /// This answer, if its status is a success: 200 to 299.
    ///
    /// # Errors
    ///
    /// [`FetchError::Status`] with any other.
    pub fn ok(self) -> Result<Self, FetchError> {
        match self.status {
            200..300 => Ok(self),
            _ => Err(FetchError::Status(self.status())),
        }
    }

    /// The first value of a header, in any case, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All headers: names in lower case, and values.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The whole body.
    ///
    /// # Errors
    ///
    /// It breaks off, takes too long, or is larger than it may be.
    pub fn bytes(mut self) -> Result<Vec<u8>, FetchError> {
        let mut all = Vec::new();
        while let Some(mut part) = self.body.next()? {
            if all.is_empty() {
                all = part;
            } else {
                all.append(&mut part);
            }
        }
        Ok(all)
    }

    /// The whole body as text.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes), or it is not UTF-8.
    pub fn text(self) -> Result<String, FetchError> {
        String::from_utf8(self.bytes()?).map_err(|error| FetchError::Body(error.to_string()))
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes), or it is not such a value.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, FetchError> {
        serde_json::from_slice(&self.bytes()?).map_err(|error| FetchError::Body(error.to_string()))
    }
}

impl Read for Response {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.body.read(into).map_err(io::Error::other)
    }
}
