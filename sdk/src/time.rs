//! Between the contract's milliseconds and the types of the standard library.

use std::time::{Duration, SystemTime};

/// A moment of the contract.
pub(crate) fn from_millis(timestamp: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(timestamp)
}

/// A span for the contract. Rounded up: what is to wait does not wait too little.
pub(crate) fn to_millis(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rounded_up_and_end_at_the_largest() {
        assert_eq!(to_millis(Duration::ZERO), 0);
        assert_eq!(to_millis(Duration::from_nanos(1)), 1);
        assert_eq!(to_millis(Duration::from_micros(1_500)), 2);
        assert_eq!(to_millis(Duration::from_secs(2)), 2_000);
        assert_eq!(to_millis(Duration::MAX), u64::MAX);
    }
}
