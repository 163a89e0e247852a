//! HTTP: [`Request`] in, anything that is [`IntoResponse`] out.
//!
//! Both are whole: the body of a request has arrived when the handler runs, and
//! that of a response is sent when it has returned. The types here are plain
//! records, not those of the `http` crate: its header map and URI parser would
//! double the size of a small function, and the host has parsed all that once.

mod error;
#[doc(hidden)]
pub mod glue;
mod into_response;
mod request;
mod response;
mod status;

pub use error::HttpError;
pub use into_response::{IntoResponse, Json};
pub use request::Request;
pub use response::Response;
pub use status::StatusCode;

/// The name of a header in lower case, and its value.
type Header = (String, Vec<u8>);
