//! Bytes where a JSON form has only room for text.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The bytes as text. What is not UTF-8 becomes base64, as in all of Lambda's events: the
/// function can then get the bytes back, which replaced characters would not let it.
pub(super) fn text(bytes: &[u8]) -> Text<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Text {
            text: Cow::Borrowed(text),
            is_base64: false,
        },
        Err(_) => Text {
            text: Cow::Owned(STANDARD.encode(bytes)),
            is_base64: true,
        },
    }
}

/// A text, and what it is of.
pub(super) struct Text<'a> {
    pub(super) text: Cow<'a, str>,
    /// Whether it is base64 of what was no text.
    pub(super) is_base64: bool,
}
