//! From the canonical request to the signature.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{ALGORITHM, Credentials, PayloadHash, TERMINATOR};
use crate::hex::hex;

/// What a signing key is good for: a day, a region, a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope<'a> {
    /// `YYYYMMDD`
    pub(super) date: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            date,
            region,
            service,
        } = self;
        write!(f, "{date}/{region}/{service}/{TERMINATOR}")
    }
}

pub(super) fn string_to_sign(
    timestamp: &str,
    scope: Scope<'_>,
    canonical_head: &[u8],
    payload: &PayloadHash,
) -> String {
    let canonical_request = Sha256::new()
        .chain_update(canonical_head)
        .chain_update(&payload.0)
        .finalize();
    format!(
        "{ALGORITHM}\n{timestamp}\n{scope}\n{}",
        hex(&canonical_request)
    )
}

pub(super) fn signature(
    credentials: &Credentials,
    scope: Scope<'_>,
    string_to_sign: &str,
) -> String {
    let secret = format!("AWS4{}", credentials.secret_access_key());
    let date = hmac(secret.as_bytes(), scope.date);
    let region = hmac(&date, scope.region);
    let service = hmac(&region, scope.service);
    let signing_key = hmac(&service, TERMINATOR);
    hex(&hmac(&signing_key, string_to_sign))
}

fn hmac(key: &[u8], message: &str) -> [u8; 32] {
    Hmac::<Sha256>::new_from_slice(key)
        .expect("HMAC takes keys of any length")
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}
