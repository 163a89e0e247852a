//! Why a signature was not accepted: for the log (`Display`) and for the client
//! ([`SignatureError::message`], AWS's own texts, which clients and people know).

use http::StatusCode;

use super::clock::date_of;

/// A request that is not, or not rightly, signed. The fault is always the caller's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the request has no Authorization header")]
    Missing,
    #[error("the request is signed in its query (a presigned URL)")]
    Presigned,
    /// The text is for the client and for the log; it never repeats the header.
    #[error("the signature is incomplete: {0}")]
    Incomplete(String),
    #[error("{what} of {size} is over the limit of {max}")]
    TooLarge {
        what: &'static str,
        size: usize,
        max: usize,
    },
    #[error("access key id {access_key_id:?} is not known")]
    UnknownKey { access_key_id: String },
    #[error("the request carries a session token, which this host never issues")]
    SessionToken,
    #[error("the scope is of {scope}, the request of {timestamp}")]
    ScopeDate { scope: String, timestamp: String },
    #[error("the scope names service {service:?} instead of '{allowed}'")]
    ScopeService { service: String, allowed: String },
    #[error("the host is not signed")]
    HostUnsigned,
    #[error("header {name:?} is present but not signed")]
    HeaderUnsigned { name: String },
    #[error("header {name:?} is signed but not present")]
    HeaderAbsent { name: String },
    #[error("signed at {signed}, more than 5 minutes before {now}")]
    Expired {
        signed: String,
        limit: String,
        now: String,
    },
    #[error("signed at {signed}, more than 5 minutes after {now}")]
    NotYetCurrent {
        signed: String,
        limit: String,
        now: String,
    },
    #[error("the payload is not signed (x-amz-content-sha256 is {declared:?})")]
    UnsignedPayload { declared: String },
    #[error("the body is not the one that x-amz-content-sha256 declares")]
    PayloadMismatch,
    #[error("the signature does not match")]
    Mismatch,
}

impl SignatureError {
    /// AWS's name for it: the `x-amzn-errortype` of the answer, and a label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing | Self::Presigned => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::TooLarge { .. } => "RequestEntityTooLargeException",
            Self::UnknownKey { .. } | Self::SessionToken => "UnrecognizedClientException",
            Self::ScopeDate { .. }
            | Self::ScopeService { .. }
            | Self::HostUnsigned
            | Self::HeaderUnsigned { .. }
            | Self::HeaderAbsent { .. }
            | Self::Expired { .. }
            | Self::NotYetCurrent { .. }
            | Self::UnsignedPayload { .. }
            | Self::PayloadMismatch
            | Self::Mismatch => "InvalidSignatureException",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Incomplete(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Missing
            | Self::Presigned
            | Self::UnknownKey { .. }
            | Self::SessionToken
            | Self::ScopeDate { .. }
            | Self::ScopeService { .. }
            | Self::HostUnsigned
            | Self::HeaderUnsigned { .. }
            | Self::HeaderAbsent { .. }
            | Self::Expired { .. }
            | Self::NotYetCurrent { .. }
            | Self::UnsignedPayload { .. }
            | Self::PayloadMismatch
            | Self::Mismatch => StatusCode::FORBIDDEN,
        }
    }

    /// What the client is told. Where AWS has a text it comes first, ours after it.
    pub fn message(&self) -> String {
        match self {
            Self::Missing => "Missing Authentication Token".to_owned(),
            Self::Presigned => "Missing Authentication Token. Presigned URLs are not accepted \
                                here: sign the request in its Authorization header."
                .to_owned(),
            Self::Incomplete(text) => text.clone(),
            Self::TooLarge { what, size, max } => {
                format!("The request's {what} of {size} is over the limit of {max}.")
            }
            Self::UnknownKey { .. } => {
                "The security token included in the request is invalid.".to_owned()
            }
            Self::SessionToken => "The security token included in the request is invalid. This \
                                   host issues no session tokens: unset AWS_SESSION_TOKEN, or \
                                   choose the profile of this host's key."
                .to_owned(),
            Self::ScopeDate { scope, timestamp } => format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date \
                 from HTTP: '{scope}' != '{}', from '{timestamp}'.",
                date_of(timestamp)
            ),
            Self::ScopeService { allowed, .. } => {
                format!("Credential should be scoped to correct service: '{allowed}'.")
            }
            Self::HostUnsigned => {
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
                    .to_owned()
            }
            Self::HeaderUnsigned { name } => {
                format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.")
            }
            Self::HeaderAbsent { name } => {
                format!("'{name}' is a 'SignedHeader', but the request does not have it.")
            }
            Self::Expired { signed, limit, now } => {
                format!("Signature expired: {signed} is now earlier than {limit} ({now} - 5 min.)")
            }
            Self::NotYetCurrent { signed, limit, now } => format!(
                "Signature not yet current: {signed} is still later than {limit} \
                 ({now} + 5 min.)"
            ),
            Self::UnsignedPayload { declared } => format!(
                "The payload must be signed: '{declared}' is not accepted for \
                 'x-amz-content-sha256', send the SHA-256 of the body."
            ),
            Self::PayloadMismatch => {
                "The provided 'x-amz-content-sha256' header does not match what was computed."
                    .to_owned()
            }
            Self::Mismatch => "The request signature we calculated does not match the signature \
                               you provided. Check your AWS Secret Access Key and signing \
                               method. Consult the service documentation for details."
                .to_owned(),
        }
    }
}

pub(super) fn check_size(
    what: &'static str,
    size: usize,
    max: usize,
) -> Result<(), SignatureError> {
    if size > max {
        return Err(SignatureError::TooLarge { what, size, max });
    }
    Ok(())
}

/// The beginning of a client's ASCII text, for an answer.
pub(super) fn excerpt(text: &str) -> &str {
    text.get(..64).unwrap_or(text)
}
