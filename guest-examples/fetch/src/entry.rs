//! What lies in the bucket: a line of JSON, then the body as it came.

use std::time::{Duration, SystemTime};

use dunlin_sdk::{Response, StatusCode};
use serde::{Deserialize, Serialize};

/// An answer that was kept.
#[derive(PartialEq, Debug)]
pub(crate) struct Entry {
    head: Head,
    body: Vec<u8>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Head {
    /// When it came, in milliseconds since 1970.
    came_at: u64,
    content_type: String,
}

impl Entry {
    pub(crate) fn new(came_at: SystemTime, content_type: &str, body: &[u8]) -> Self {
        let since = came_at.duration_since(SystemTime::UNIX_EPOCH);
        let head = Head {
            came_at: since.map_or(0, |since| since.as_millis() as u64),
            content_type: content_type.to_owned(),
        };
        let body = body.to_vec();
        Self { head, body }
    }

    /// None for what no version of this function has written.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        Some(Self {
            head: serde_json::from_slice(&bytes[..end]).ok()?,
            body: bytes[end + 1..].to_vec(),
        })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // JSON has no line feed of its own, not even in a text.
        let mut bytes = serde_json::to_vec(&self.head).expect("it has a number and a text");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// None if it is of the future: the clock was set back.
    pub(crate) fn age(&self, now: SystemTime) -> Option<Duration> {
        let came_at = Duration::from_millis(self.head.came_at);
        let came_at = SystemTime::UNIX_EPOCH.checked_add(came_at)?;
        now.duration_since(came_at).ok()
    }

    /// As it came, with its age in seconds (RFC 9111, 5.1).
    pub(crate) fn response(self, age: Duration) -> Response {
        Response::new(StatusCode::OK)
            .with_header("content-type", self.head.content_type)
            .with_header("age", age.as_secs().to_string())
            .with_body(self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAME_AT: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        for (content_type, body) in [
            ("text/html", &b"<p>\n</p>\n"[..]),
            ("", b""),
            ("a\nb", b"\n\0\xff"),
        ] {
            let entry = Entry::new(CAME_AT + Duration::from_millis(7), content_type, body);
            assert_eq!(Entry::from_bytes(&entry.to_bytes()), Some(entry));
        }
        for broken in [&b""[..], b"{}", b"{}\n", b"text\nmore"] {
            assert_eq!(Entry::from_bytes(broken), None);
        }
    }

    #[test]
    fn an_age_counts_from_when_it_came() {
        let entry = Entry::new(CAME_AT + Duration::from_secs(60), "", b"");
        let age = |seconds| entry.age(CAME_AT + Duration::from_secs(seconds));
        assert_eq!(age(60), Some(Duration::ZERO));
        assert_eq!(age(90), Some(Duration::from_secs(30)));
        assert_eq!(age(59), None);
    }
}
