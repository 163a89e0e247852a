//! How log records reach the host.
//!
//! A record is one line on standard error, a JSON object:
//!
//! ```json
//! {"level":"info","target":"shop::orders","message":"stored","id":7}
//! ```
//!
//! The host reads the level and the fields from it and adds the request id, the
//! function and the time. Any other line that a function prints is plain text.
//!
//! With the feature `log` (default) the attributes of handlers, such as
//! [`http`](macro@crate::http), install a logger for the crate `log`, with its
//! key-values as fields, unless the function has installed one:
//!
//! ```
//! # let (id, country) = (7, "de");
//! log::info!(id, country; "stored");
//! ```
//!
//! With the feature `tracing` they install a subscriber for the crate `tracing`
//! likewise; the fields of the spans an event is in come before its own.
//!
//! Records below `info` are dropped. `log::set_max_level` changes that for
//! `log`, the `max_level_…` features of both crates when the function is built.

use std::fmt::{self, Write as _};
use std::io::Write as _;

#[cfg(feature = "log")]
mod log_crate;
#[cfg(feature = "tracing")]
mod tracing_crate;

/// Installs the logger and the subscriber, once per instance.
#[doc(hidden)]
#[inline]
pub fn install() {
    #[cfg(any(feature = "log", feature = "tracing"))]
    {
        use std::sync::atomic::{AtomicBool, Ordering};

        static INSTALLED: AtomicBool = AtomicBool::new(false);
        if !INSTALLED.swap(true, Ordering::Relaxed) {
            #[cfg(feature = "log")]
            log_crate::install();
            #[cfg(feature = "tracing")]
            tracing_crate::install();
        }
    }
}

/// Writes a record of the SDK's own.
pub(crate) fn error(message: &str, reason: &str) {
    let mut line = Line::new("error", "dunlin_sdk", format_args!("{message}"));
    line.field("error", format_args!("{reason}"));
    line.emit();
}

/// Writes a record about an event that was not handled, which may come again.
pub(crate) fn not_handled(what: &str, id: &str, attempt: u32, reason: &str) {
    let mut line = Line::new(
        "error",
        "dunlin_sdk",
        format_args!("the {what} was not handled"),
    );
    line.field("id", format_args!("{id}"));
    line.literal("attempt", format_args!("{attempt}"));
    line.field("error", format_args!("{reason}"));
    line.emit();
}

/// Writes a record about a batch of messages of which none was handled.
pub(crate) fn batch_not_handled(ids: &[String], reason: &str) {
    let mut line = Line::new(
        "error",
        "dunlin_sdk",
        format_args!("the batch was not handled"),
    );
    line.field("ids", format_args!("{}", ids.join(" ")));
    line.field("error", format_args!("{reason}"));
    line.emit();
}

/// A record on its way to standard error.
struct Line(String);

impl Line {
    fn new(level: &str, target: &str, message: fmt::Arguments<'_>) -> Self {
        let mut line = Self(String::with_capacity(128));
        line.0.push_str(r#"{"level":""#);
        line.0.push_str(level);
        line.0.push('"');
        line.field("target", format_args!("{target}"));
        line.field("message", message);
        line
    }

    /// Adds a field that is text.
    fn field(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.name(name);
        self.0.push('"');
        // The adapter below never fails; a failing `Display` leaves what it wrote.
        let _ = Escaped(&mut self.0).write_fmt(value);
        self.0.push('"');
    }

    /// Adds a field whose text is JSON: a number or a bool.
    fn literal(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.name(name);
        let _ = self.0.write_fmt(value);
    }

    fn name(&mut self, name: &str) {
        self.0.push(',');
        push_json_string(&mut self.0, name);
        self.0.push(':');
    }

    /// Writes the line at once, so that lines of one instance never mix.
    fn emit(mut self) {
        self.0.push_str("}\n");
        // Nobody is left to tell if standard error is closed.
        let _ = std::io::stderr().write_all(self.0.as_bytes());
    }
}

/// Appends a JSON string, with its quotation marks.
pub(crate) fn push_json_string(json: &mut String, text: &str) {
    json.push('"');
    let _ = Escaped(json).write_str(text);
    json.push('"');
}

/// What is written here is escaped for a JSON string.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match char {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                '\0'..='\x1f' => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    let code = char as usize;
                    self.0.push_str("\\u00");
                    self.0.push(HEX[code >> 4].into());
                    self.0.push(HEX[code & 15].into());
                }
                _ => self.0.push(char),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive_a_round_trip_through_json() {
        let text = "say \"hi\"\\ \n\r\t\0\x1b\x7f é \u{1f426}";
        let mut json = String::new();
        push_json_string(&mut json, text);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn a_line_is_one_json_object() {
        let mut line = Line::new("warn", "shop", format_args!("{} left", 3));
        line.field("na\"me", format_args!("a\nb"));
        let json: serde_json::Value = serde_json::from_str(&(line.0 + "}")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"level": "warn", "target": "shop", "message": "3 left", "na\"me": "a\nb"})
        );
    }
}
