//! The `Authorization` header, taken apart. What is accepted is what clients send:
//! `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`, in any order, with or without
//! spaces after the commas. The header itself never appears in an error: it may hold a password
//! that was meant for something else.

use super::{ALGORITHM, MAX_SIGNED_HEADERS, Scope, SignatureError, TERMINATOR, error};

/// AWS's own bound (IAM API reference, `AccessKey`).
const MAX_ACCESS_KEY_ID_BYTES: usize = 128;

/// Longer than any name of a region or a service.
const MAX_SCOPE_PART_BYTES: usize = 128;

/// Hexadecimal digits of a SHA-256.
const SIGNATURE_BYTES: usize = 64;

/// The parts of the header; not yet believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authorization<'a> {
    pub(super) access_key_id: &'a str,
    pub(super) scope: Scope<'a>,
    /// Lower case, in order, each once.
    pub(super) signed_headers: Vec<&'a str>,
    /// 64 lower-case hexadecimal digits.
    pub(super) signature: &'a str,
}

impl<'a> Authorization<'a> {
    pub(super) fn parse(header: &'a str) -> Result<Self, SignatureError> {
        let (algorithm, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if algorithm != ALGORITHM {
            return Err(SignatureError::Incomplete(format!(
                "Unsupported AWS 'algorithm': only '{ALGORITHM}' is accepted."
            )));
        }

        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for parameter in parameters.split(',') {
            let (name, value) = parameter.trim().split_once('=').ok_or_else(|| {
                incomplete("Authorization header must be a list of name=value parameters.")
            })?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(incomplete("Authorization header has an unknown parameter.")),
            };
            if slot.replace(value).is_some() {
                return Err(SignatureError::Incomplete(format!(
                    "Authorization header has more than one '{name}' parameter."
                )));
            }
        }
        let (Some(credential), Some(signed_headers), Some(signature)) =
            (credential, signed_headers, signature)
        else {
            let missing: Vec<String> = [
                ("Credential", credential),
                ("Signature", signature),
                ("SignedHeaders", signed_headers),
            ]
            .into_iter()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| format!("Authorization header requires '{name}' parameter."))
            .collect();
            return Err(SignatureError::Incomplete(missing.join(" ")));
        };

        let (access_key_id, scope) = parse_credential(credential)?;
        Ok(Self {
            access_key_id,
            scope,
            signed_headers: parse_signed_headers(signed_headers)?,
            signature: parse_signature(signature)?,
        })
    }
}

fn parse_credential(credential: &str) -> Result<(&str, Scope<'_>), SignatureError> {
    let parts: Vec<&str> = credential.splitn(6, '/').collect();
    let [access_key_id, date, region, service, terminator] = parts[..] else {
        return Err(incomplete(
            "Credential must have exactly 5 slash-delimited elements, \
             e.g. keyid/date/region/service/term.",
        ));
    };
    if terminator != TERMINATOR {
        return Err(SignatureError::Incomplete(format!(
            "Credential should be scoped with a valid terminator: '{TERMINATOR}'."
        )));
    }
    if date.len() != "20150830".len() || !date.bytes().all(|b| b.is_ascii_digit()) {
        return Err(incomplete("Date in Credential scope must be YYYYMMDD."));
    }
    for (what, part, max) in [
        ("access key id", access_key_id, MAX_ACCESS_KEY_ID_BYTES),
        ("region", region, MAX_SCOPE_PART_BYTES),
        ("service", service, MAX_SCOPE_PART_BYTES),
    ] {
        error::check_size(what, part.len(), max)?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SignatureError::Incomplete(format!(
                "Credential has a malformed {what}."
            )));
        }
    }
    let scope = Scope {
        date,
        region,
        service,
    };
    Ok((access_key_id, scope))
}

fn parse_signed_headers(list: &str) -> Result<Vec<&str>, SignatureError> {
    let names: Vec<&str> = list.split(';').take(MAX_SIGNED_HEADERS + 1).collect();
    error::check_size("number of signed headers", names.len(), MAX_SIGNED_HEADERS)?;
    let is_name = |name: &&str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
    };
    if !names.iter().all(is_name) || !names.is_sorted_by(|a, b| a < b) {
        return Err(incomplete(
            "SignedHeaders must be lower-case header names in alphabetical order, each once.",
        ));
    }
    Ok(names)
}

fn parse_signature(signature: &str) -> Result<&str, SignatureError> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if signature.len() != SIGNATURE_BYTES || !signature.bytes().all(is_digit) {
        return Err(incomplete(
            "Signature must be 64 lower-case hexadecimal digits.",
        ));
    }
    Ok(signature)
}

fn incomplete(text: &str) -> SignatureError {
    SignatureError::Incomplete(text.to_owned())
}
