//! Why there is no answer.

use crate::function::egress::Target;

/// Why a request got no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The policy does not list it.
    #[error("{0} is not among what the function may reach")]
    Denied(Target),
    /// Its name is listed, the address is not.
    #[error("{0} is at no address that may be reached: {1}")]
    AddressDenied(Target, &'static str),
    /// It is not written as a request is.
    #[error("no URL that can be asked for: {0}")]
    Uri(&'static str),
    /// `CONNECT`.
    #[error("the method cannot be sent")]
    Method,
    /// Fields that say nothing, or two things.
    #[error("the headers cannot be sent: {0}")]
    Headers(&'static str),
    /// Neither a request nor a connection more is to be had.
    #[error("too many requests or connections at once")]
    Limit,
    /// The name stands for nothing.
    #[error("the name cannot be resolved: {0}")]
    Dns(String),
    /// No answer of the resolver in time.
    #[error("the name was not resolved in time")]
    DnsTimeout,
    /// No connection in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// No connection.
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    /// Its certificate is not to be trusted.
    #[error("its certificate is not to be trusted: {0}")]
    Certificate(String),
    /// It said what it dislikes.
    #[error("TLS alert {0}: {1}")]
    TlsAlert(u8, String),
    /// It speaks no TLS that we speak.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The head of the answer did not come in time.
    #[error("the answer did not begin in time")]
    ResponseTimeout,
    /// The body of the answer stopped.
    #[error("the answer stopped, and did not go on in time")]
    ReadTimeout,
    /// The head of the answer is too large.
    #[error("the head of the answer is too large")]
    HeadTooLarge,
    /// The body of the answer is too large: more than so many bytes.
    #[error("the answer has more than {0} bytes")]
    ResponseTooLarge(u64),
    /// The connection ended within the answer.
    #[error("the connection ended too early")]
    Terminated,
    /// It switched to another protocol, which nobody asked for.
    #[error("it wants to speak another protocol")]
    Upgrade,
    /// What it sends is no HTTP.
    #[error("it does not speak HTTP as it should: {0}")]
    Protocol(String),
    /// The body of the request ended with an error of its own.
    #[error("the body of the request broke off")]
    Body,
    /// This machine is not ready for it.
    #[error("{0}")]
    Host(String),
}

impl Error {
    /// What all results are called in metrics.
    pub(crate) const RESULTS: [&str; 10] = [
        "ok",
        "denied",
        "address_denied",
        "refused",
        "limit",
        "unreachable",
        "tls",
        "timeout",
        "broken",
        "cancelled",
    ];

    /// What it is called in metrics: one of [`Self::RESULTS`].
    pub(crate) fn result(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::AddressDenied(..) => "address_denied",
            Self::Uri(_) | Self::Method | Self::Headers(_) => "refused",
            Self::Limit | Self::HeadTooLarge | Self::ResponseTooLarge(_) => "limit",
            Self::Dns(_) | Self::Connect(_) | Self::Host(_) => "unreachable",
            Self::Certificate(_) | Self::TlsAlert(..) | Self::Tls(_) => "tls",
            Self::DnsTimeout | Self::ConnectTimeout | Self::ResponseTimeout | Self::ReadTimeout => {
                "timeout"
            }
            Self::Terminated | Self::Upgrade | Self::Protocol(_) | Self::Body => "broken",
        }
    }
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse_too_large() {
            Self::HeadTooLarge
        } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            Self::Terminated
        } else if error.is_user() {
            Self::Body
        } else {
            let io = std::error::Error::source(&error)
                .is_some_and(|source| source.downcast_ref::<std::io::Error>().is_some());
            match io {
                true => Self::Terminated,
                false => Self::Protocol(error.to_string()),
            }
        }
    }
}
