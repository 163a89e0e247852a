//! One JSON object on one line, written straight into a buffer.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

/// Writes the members of one JSON object. The line ends when it is dropped.
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Line<'a> {
    /// Begins a line with the time and the level.
    pub fn begin(out: &'a mut Vec<u8>, level: &str) -> Self {
        out.push(b'{');
        let mut line = Self { out, first: true };
        line.key("time");
        line.out.push(b'"');
        push_timestamp(line.out, SystemTime::now());
        line.out.push(b'"');
        line.str("level", level);
        line
    }

    fn key(&mut self, key: &str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A string member. Control characters, ANSI escapes among them, come out
    /// escaped, so that no guest writes to an operator's terminal.
    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        let begin = self.out.len();
        // Writing to a vector cannot fail, and a str is always valid JSON text.
        let _ = serde_json::to_writer(&mut *self.out, value);
        self.escape_c1(begin);
        self
    }

    /// JSON lets DEL and the C1 control characters stand as they are, and a
    /// terminal obeys them.
    fn escape_c1(&mut self, begin: usize) {
        let is_control = |c: char| ('\u{7f}'..='\u{9f}').contains(&c);
        // In UTF-8 they are the byte 7F, or begin with C2.
        if !self.out[begin..]
            .iter()
            .any(|byte| matches!(byte, 0x7f | 0xc2))
        {
            return;
        }
        let text = String::from_utf8_lossy(&self.out[begin..]).into_owned();
        self.out.truncate(begin);
        for c in text.chars() {
            if is_control(c) {
                self.out
                    .extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            } else {
                self.out
                    .extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }

    /// An integer member.
    pub fn u64(&mut self, key: &str, value: u64) -> &mut Self {
        self.key(key);
        let _ = serde_json::to_writer(&mut *self.out, &value);
        self
    }

    /// A time in milliseconds, with three decimals.
    pub fn millis(&mut self, key: &str, time: Duration) -> &mut Self {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.u64(key, micros / 1000);
        let digit = |place: u64| b'0' + (micros / place % 10) as u8;
        self.out.extend([b'.', digit(100), digit(10), digit(1)]);
        self
    }

    /// A member of any shape.
    pub fn json(&mut self, key: &str, value: &serde_json::Value) -> &mut Self {
        self.key(key);
        let begin = self.out.len();
        let _ = serde_json::to_writer(&mut *self.out, value);
        self.escape_c1(begin);
        self
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.out.extend_from_slice(b"}\n");
    }
}

/// RFC 3339 in UTC with milliseconds. Written out digit by digit: it runs on
/// the path of every request.
fn push_timestamp(out: &mut Vec<u8>, now: SystemTime) {
    let now = OffsetDateTime::from(now);
    let mut push = |value: u32, width: u32, end: u8| {
        for place in (0..width).rev() {
            out.push(b'0' + (value / 10u32.pow(place) % 10) as u8);
        }
        out.push(end);
    };
    push(now.year().unsigned_abs(), 4, b'-');
    push(u32::from(u8::from(now.month())), 2, b'-');
    push(u32::from(now.day()), 2, b'T');
    push(u32::from(now.hour()), 2, b':');
    push(u32::from(now.minute()), 2, b':');
    push(u32::from(now.second()), 2, b'.');
    push(u32::from(now.millisecond()), 3, b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_line_is_one_json_object() {
        let mut out = Vec::new();
        Line::begin(&mut out, "info")
            .str("message", "a\n\u{1b}[31m\"b\"")
            .u64("n", 7)
            .millis("ms", Duration::from_micros(1034));
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{1b}'));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"], "a\n\u{1b}[31m\"b\"");
        assert_eq!(value["ms"], 1.034);
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        let mut out = Vec::new();
        push_timestamp(
            &mut out,
            UNIX_EPOCH + Duration::from_millis(1_795_219_200_042),
        );
        assert_eq!(String::from_utf8(out).unwrap(), "2026-11-21T00:00:00.042Z");
    }
}
