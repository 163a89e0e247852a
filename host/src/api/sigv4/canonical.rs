//! The canonical request: the one form of a request that both sides hash.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::{HOST, MAX_SIGNED_HEADER_BYTES, RequestHead, SignatureError, error};

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// The canonical request up to where the payload's hash belongs. Header values are bytes, so this
/// is bytes too.
pub(super) fn head(
    head: &RequestHead<'_>,
    signed_headers: &[&str],
) -> Result<Vec<u8>, SignatureError> {
    let path = encode_path(&normalise_path(head.path));
    assemble(head, &path, signed_headers)
}

/// [`head`] with the canonical path given: the test suite has cases without normalisation.
pub(super) fn assemble(
    head: &RequestHead<'_>,
    path: &str,
    signed_headers: &[&str],
) -> Result<Vec<u8>, SignatureError> {
    let mut out = Vec::with_capacity(512);
    for line in [head.method, path, &query(head.query)] {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    headers(&mut out, head, signed_headers)?;
    out.push(b'\n');
    out.extend_from_slice(signed_headers.join(";").as_bytes());
    out.push(b'\n');
    Ok(out)
}

/// Removes empty and dot segments (RFC 3986, section 5.2.4, and empty ones as AWS does).
pub(super) fn normalise_path(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len() + 1);
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    let ends_in_slash = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end));
    if segments.is_empty() || ends_in_slash {
        out.push('/');
    }
    out
}

/// The second encoding of a path that is encoded once on the wire.
pub(super) fn encode_path(path: &str) -> String {
    percent_encode(path.as_bytes(), RESERVED_IN_PATH).to_string()
}

/// Decoded, encoded one way, sorted by name, then value.
pub(super) fn query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = pairs(query)
        .map(|(name, value)| (encode(&decode(name)), encode(&decode(value))))
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

pub(super) fn query_has_key(query: &str, wanted: &str) -> bool {
    pairs(query).any(|(name, _)| decode(name) == wanted.as_bytes())
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// `+` is a space, as in forms: AWS and all signers that normalise agree. What is no valid escape
/// stays as it is.
fn decode(part: &str) -> Vec<u8> {
    percent_decode_str(&part.replace('+', " ")).collect()
}

fn encode(part: &[u8]) -> String {
    percent_encode(part, RESERVED).to_string()
}

/// One line for each signed header: repeated ones joined by commas, in the order of their coming;
/// runs of spaces made one.
fn headers(
    out: &mut Vec<u8>,
    head: &RequestHead<'_>,
    signed_headers: &[&str],
) -> Result<(), SignatureError> {
    let start = out.len();
    for &name in signed_headers {
        let values: Vec<&[u8]> = head
            .headers
            .get_all(name)
            .iter()
            .map(|value| value.as_bytes())
            .collect();
        let values = match (values.is_empty(), head.authority) {
            (false, _) => values,
            (true, Some(authority)) if name == HOST.as_str() => vec![authority.as_bytes()],
            (true, _) => {
                return Err(SignatureError::HeaderAbsent {
                    name: error::excerpt(name).to_owned(),
                });
            }
        };
        out.extend_from_slice(name.as_bytes());
        for (index, value) in values.into_iter().enumerate() {
            out.push(if index == 0 { b':' } else { b',' });
            let words = value.split(|&b| b == b' ').filter(|word| !word.is_empty());
            for (index, word) in words.enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                out.extend_from_slice(word);
            }
        }
        out.push(b'\n');
        error::check_size("signed headers", out.len() - start, MAX_SIGNED_HEADER_BYTES)?;
    }
    Ok(())
}
