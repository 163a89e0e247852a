//! AWS Signature Version 4 for the admin API: [`Verifier`] on the host's side, [`Signer`] for our
//! own command line. Everything here is a pure function of its arguments; the clock comes in as
//! one of them.
//!
//! What a request must fulfil, beyond a signature that matches:
//!
//! - It is signed in its `Authorization` header. A presigned URL is refused: such URLs end up in
//!   logs and histories, and no operation of ours needs one.
//! - `host` is signed, and so is every `x-amz-*` header that is present (`x-amz-date` too): these
//!   decide what the request means, so none may be added on the way, and every client signs them.
//!   Other headers may be left out, as every client leaves out `user-agent`.
//! - The time is that of `X-Amz-Date`, or of `Date` if the former is absent, within
//!   [`MAX_CLOCK_SKEW`]. Within that window the same request may be sent again: signatures are
//!   not remembered, here as at AWS.
//! - The scope names a service that the caller of [`Verifier`] allows. Any region will do: a box
//!   is in all of them.
//! - The payload is covered. `x-amz-content-sha256`, if present, is the SHA-256 of the body; the
//!   literals `UNSIGNED-PAYLOAD` and `STREAMING-…` are refused: the body of our requests is code
//!   or configuration, and in AWS's models only S3 and a few stream services leave it unsigned.
//! - There is no `X-Amz-Security-Token`: we issue no session tokens, so a client that sends one
//!   has picked up somebody else's credentials.
//!
//! The path is encoded twice, as for every service but S3: `my-fn%3Aprod` on the wire is
//! `my-fn%253Aprod` in the canonical request. It is also normalised (`/a//b/../c` counts as
//! `/a/c`), and a `+` in the query counts as a space. Whoever routes the request sees it as it
//! was sent, so the router must read `+` the same way and refuse empty, `.` and `..` segments.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>,
//! checked against the public test suite and against the crate `aws-sigv4` (see the tests).

mod authorization;
mod canonical;
mod clock;
mod error;
mod signature;
#[cfg(test)]
mod tests;

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, request};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::{Duration, OffsetDateTime, UtcOffset};

use super::credentials::Credentials;
use crate::hex::hex;
use authorization::Authorization;
use clock::{basic_iso_8601, check_skew, date_of, signing_time};
use signature::{Scope, signature, string_to_sign};

pub use error::SignatureError;

/// How far the signing time may lie from ours, in both directions, edges included.
///
/// As at AWS (IAM user guide, "AWS Signature Version 4 for API requests": in most cases a request
/// must arrive within five minutes of its time stamp).
pub const MAX_CLOCK_SKEW: Duration = Duration::minutes(5);

/// The longest `Authorization` header that is read: [`MAX_SIGNED_HEADERS`] names of ordinary
/// length and the fixed parts, four times over.
pub const MAX_AUTHORIZATION_BYTES: usize = 8 * 1024;

/// How many headers a request may sign. Clients sign about ten.
pub const MAX_SIGNED_HEADERS: usize = 64;

/// How long names and values of the signed headers may be together. The largest header of the
/// API, `X-Amz-Client-Context`, has at most 3583 bytes.
pub const MAX_SIGNED_HEADER_BYTES: usize = 32 * 1024;

/// How long path and query may be together. The longest that the API knows is about 20 KiB: an
/// `UntagResource` with fifty tag keys.
pub const MAX_TARGET_BYTES: usize = 32 * 1024;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";
const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const X_AMZ_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// What may change between client and host, so that nobody signs it (botocore's list).
const NEVER_SIGNED: [&str; 11] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-amzn-trace-id",
];

/// What a signature covers besides the body.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    pub method: &'a str,
    /// As on the wire: still percent-encoded.
    pub path: &'a str,
    /// As on the wire, without the `?`; empty if there is none.
    pub query: &'a str,
    /// Stands in for the `host` header where there is none (HTTP/2).
    pub authority: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

impl<'a> From<&'a request::Parts> for RequestHead<'a> {
    fn from(parts: &'a request::Parts) -> Self {
        Self {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            authority: parts.uri.authority().map(|authority| authority.as_str()),
            headers: &parts.headers,
        }
    }
}

/// The SHA-256 of a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadHash(String);

impl PayloadHash {
    pub fn of(body: &[u8]) -> Self {
        Self::from_digest(Sha256::digest(body).into())
    }

    /// For a body that was hashed while it was received.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(hex(&digest))
    }
}

/// Who signed a request, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub access_key_id: String,
    pub region: String,
    pub service: String,
}

/// Checks signatures against the keys that are known.
#[derive(Debug, Clone, Copy)]
pub struct Verifier<'a> {
    pub keys: &'a [Credentials],
    /// The signing names that are accepted, `lambda` for instance.
    pub services: &'a [&'a str],
}

impl<'a> Verifier<'a> {
    /// Checks a request whose body is at hand.
    ///
    /// # Errors
    ///
    /// See [`SignatureError`]: it knows the status and the text for the client.
    pub fn verify(
        &self,
        head: &RequestHead<'_>,
        payload: &PayloadHash,
        now: OffsetDateTime,
    ) -> Result<Identity, SignatureError> {
        self.check_head(head, now)?.verify(payload)
    }

    /// Checks all that can be checked before the body is read: form, time, scope, key. Who calls
    /// this first buffers no body for a stranger. **Nothing is proven until [`Claim::verify`].**
    ///
    /// # Errors
    ///
    /// As [`Verifier::verify`].
    pub fn check_head(
        &self,
        head: &RequestHead<'_>,
        now: OffsetDateTime,
    ) -> Result<Claim<'a>, SignatureError> {
        let now = now.to_offset(UtcOffset::UTC);
        error::check_size(
            "path and query",
            head.path.len() + head.query.len(),
            MAX_TARGET_BYTES,
        )?;
        if canonical::query_has_key(head.query, "X-Amz-Signature")
            || canonical::query_has_key(head.query, "X-Amz-Algorithm")
        {
            return Err(SignatureError::Presigned);
        }
        let header = single(head.headers, &AUTHORIZATION)?.ok_or(SignatureError::Missing)?;
        error::check_size(
            "Authorization header",
            header.len(),
            MAX_AUTHORIZATION_BYTES,
        )?;
        let authorization = Authorization::parse(header)?;
        check_signed_headers(head, &authorization.signed_headers)?;

        let signed_at = signing_time(head.headers)?;
        let Scope {
            date,
            region,
            service,
        } = authorization.scope;
        let timestamp = basic_iso_8601(signed_at);
        if !timestamp.starts_with(date) {
            return Err(SignatureError::ScopeDate {
                scope: date.to_owned(),
                timestamp,
            });
        }
        if !self.services.contains(&service) {
            return Err(SignatureError::ScopeService {
                service: service.to_owned(),
                allowed: self.services.join("', '"),
            });
        }
        check_skew(signed_at, now)?;

        if head.headers.contains_key(X_AMZ_SECURITY_TOKEN) {
            return Err(SignatureError::SessionToken);
        }
        let key = self
            .keys
            .iter()
            .find(|key| key.access_key_id() == authorization.access_key_id)
            .ok_or_else(|| SignatureError::UnknownKey {
                access_key_id: authorization.access_key_id.to_owned(),
            })?;
        let declared_payload = declared_payload(head.headers)?;

        Ok(Claim {
            key,
            region: region.to_owned(),
            service: service.to_owned(),
            canonical_head: canonical::head(head, &authorization.signed_headers)?,
            timestamp,
            declared_payload,
            signature: authorization.signature.to_owned(),
        })
    }
}

/// A signature that is well formed, of this time and of a known key, but not yet compared.
// No `Debug`: a signature is good for some minutes.
#[must_use = "nothing is proven until `verify`"]
pub struct Claim<'a> {
    key: &'a Credentials,
    region: String,
    service: String,
    canonical_head: Vec<u8>,
    timestamp: String,
    declared_payload: Option<String>,
    signature: String,
}

impl Claim<'_> {
    /// Compares the signature, in constant time.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Mismatch`], or [`SignatureError::PayloadMismatch`] if the body is not the
    /// one that the request itself declares.
    pub fn verify(self, payload: &PayloadHash) -> Result<Identity, SignatureError> {
        if self
            .declared_payload
            .is_some_and(|declared| declared != payload.0)
        {
            return Err(SignatureError::PayloadMismatch);
        }
        let scope = Scope {
            date: date_of(&self.timestamp),
            region: &self.region,
            service: &self.service,
        };
        let text = string_to_sign(&self.timestamp, scope, &self.canonical_head, payload);
        let expected = signature(self.key, scope, &text);
        if !bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
            return Err(SignatureError::Mismatch);
        }
        Ok(Identity {
            access_key_id: self.key.access_key_id().to_owned(),
            region: self.region,
            service: self.service,
        })
    }
}

/// Signs requests of our own command line.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    pub credentials: &'a Credentials,
    pub region: &'a str,
    pub service: &'a str,
}

impl Signer<'_> {
    /// Sets `host` (from the URI, if it is absent), `x-amz-date` and `authorization`. All other
    /// headers must be in place: every one that may be signed is.
    ///
    /// # Errors
    ///
    /// [`SignatureError::HostUnsigned`] if neither header nor URI names the host.
    ///
    /// # Panics
    ///
    /// If region or service hold what a header cannot: they are ours, or checked before.
    pub fn sign(
        &self,
        parts: &mut request::Parts,
        payload: &PayloadHash,
        now: OffsetDateTime,
    ) -> Result<(), SignatureError> {
        let timestamp = basic_iso_8601(now.to_offset(UtcOffset::UTC));
        if !parts.headers.contains_key(HOST) {
            let host = parts
                .uri
                .authority()
                .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
                .ok_or(SignatureError::HostUnsigned)?;
            parts.headers.insert(HOST, host);
        }
        parts.headers.remove(AUTHORIZATION);
        parts.headers.insert(
            X_AMZ_DATE,
            HeaderValue::from_str(&timestamp).expect("digits, T and Z"),
        );

        let head = RequestHead::from(&*parts);
        let mut names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        names.retain(|name| !NEVER_SIGNED.contains(name));
        names.sort_unstable();
        let scope = Scope {
            date: date_of(&timestamp),
            region: self.region,
            service: self.service,
        };
        let canonical_head = canonical::head(&head, &names)?;
        let text = string_to_sign(&timestamp, scope, &canonical_head, payload);
        let value = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={}",
            self.credentials.access_key_id(),
            names.join(";"),
            signature(self.credentials, scope, &text),
        );
        let mut value =
            HeaderValue::from_str(&value).expect("key id, region and service are plain text");
        value.set_sensitive(true);
        parts.headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

/// The one value of a header that must not come twice.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, SignatureError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(SignatureError::Incomplete(format!(
            "Header '{name}' must not appear more than once."
        )));
    }
    match value.to_str() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(SignatureError::Incomplete(format!(
            "Header '{name}' must be printable ASCII."
        ))),
    }
}

fn check_signed_headers(head: &RequestHead<'_>, names: &[&str]) -> Result<(), SignatureError> {
    if !names.contains(&"host") {
        return Err(SignatureError::HostUnsigned);
    }
    single(head.headers, &HOST)?;
    match head
        .headers
        .keys()
        .map(HeaderName::as_str)
        .find(|name| name.starts_with("x-amz-") && !names.contains(name))
    {
        // Not signed by clients that add it late; it is refused in any case, by its own error.
        Some("x-amz-security-token") | None => Ok(()),
        Some(name) => Err(SignatureError::HeaderUnsigned {
            name: name.to_owned(),
        }),
    }
}

/// The hash that `x-amz-content-sha256` claims, if the header is there.
fn declared_payload(headers: &HeaderMap) -> Result<Option<String>, SignatureError> {
    let Some(declared) = single(headers, &X_AMZ_CONTENT_SHA256)? else {
        return Ok(None);
    };
    if declared == "UNSIGNED-PAYLOAD" || declared.starts_with("STREAMING-") {
        return Err(SignatureError::UnsignedPayload {
            declared: error::excerpt(declared).to_owned(),
        });
    }
    Ok(Some(declared.to_owned()))
}
