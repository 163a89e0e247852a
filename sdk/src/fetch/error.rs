use std::fmt;

use crate::StatusCode;

/// Why a request got no answer, or not all of it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FetchError {
    /// The manifest does not list it in `egress`.
    Denied,
    /// Its name is listed; the address that it has is not a public one, and is not.
    AddressDenied,
    /// It is written wrongly; the text says what.
    Invalid(String),
    /// Too many requests or connections at once. Try again later.
    Limit,
    /// Its name cannot be resolved, or nobody is there; the text says more.
    Unreachable(String),
    /// TLS failed: its certificate is not trusted, for example.
    Tls(String),
    /// It took too long; the text says what did.
    Timeout(&'static str),
    /// The answer is larger than the manifest's `response-limit`, or its head than the host
    /// takes.
    TooLarge,
    /// It broke off, or is no HTTP.
    Broken(String),
    /// The answer's body is not what was wanted: text, or JSON.
    Body(String),
    /// The answer has a status that is no success.
    Status(StatusCode),
}

impl FetchError {
    /// Whether the same request may do better later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Limit | Self::Unreachable(_) | Self::Timeout(_) | Self::Broken(_) => true,
            Self::Status(status) => matches!(status.as_u16(), 408 | 425 | 429 | 500..),
            Self::Denied
            | Self::AddressDenied
            | Self::Invalid(_)
            | Self::Tls(_)
            | Self::TooLarge
            | Self::Body(_) => false,
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("the function's `egress` does not list it"),
            Self::AddressDenied => f.write_str("its address may not be reached"),
            Self::Invalid(what) => write!(f, "it cannot be sent: {what}"),
            Self::Limit => f.write_str("too many requests or connections at once"),
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::Timeout(what) => write!(f, "{what} took too long"),
            Self::TooLarge => f.write_str("the answer is too large"),
            Self::Broken(what) => write!(f, "the exchange broke off: {what}"),
            Self::Body(what) => write!(f, "the answer is not what was wanted: {what}"),
            Self::Status(status) => write!(f, "the answer is {status}"),
        }
    }
}

impl std::error::Error for FetchError {}
