//! Reading a request's body: whole, within its limit, its time and the host's
//! memory. For every address that takes bodies.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::runtime::Budget;

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is larger than the limit.
    TooLarge,
    /// It did not come in time.
    Timeout,
    /// The host has no memory for it now.
    NoMemory,
    /// The client broke off, or sent what is no body.
    Broken,
}

/// Reads a body of at most `limit` bytes within `timeout`. The bytes are charged
/// to the budget until they are dropped.
pub(crate) async fn read(
    mut body: Incoming,
    limit: u64,
    timeout: Duration,
    budget: &Arc<Budget>,
) -> Result<Bytes, BodyError> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    // A length that is announced is refused before a byte of it is read.
    if body.size_hint().lower() > limit {
        return Err(BodyError::TooLarge);
    }
    let mut charge = budget.charge();
    let collect = async {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
                continue;
            };
            let have = first.len() + rest.len();
            if (have + data.len()) as u64 > limit {
                return Err(BodyError::TooLarge);
            }
            if !charge.grow(data.len() as u64) {
                return Err(BodyError::NoMemory);
            }
            // Most bodies come in one piece, which needs no copy.
            if have == 0 {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() {
            first
        } else {
            rest.freeze()
        })
    };
    let bytes = tokio::time::timeout(timeout, collect)
        .await
        .map_err(|_| BodyError::Timeout)??;
    Ok(charge.hold(bytes))
}
