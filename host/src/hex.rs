//! Bytes as lower-case hexadecimal.

use std::fmt::Write as _;

pub(crate) fn hex(bytes: &[u8]) -> String {
    let text = String::with_capacity(bytes.len() * 2);
    bytes.iter().fold(text, |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
