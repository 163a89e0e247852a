//! What may be on the disk, and what is: per instance, per function, and for the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntGauge;

/// Room on the disk. What is taken from it is taken from the account above, too.
pub(in super::super) struct Account {
    limit: u64,
    used: AtomicU64,
    above: Option<Arc<Account>>,
    /// Shows what is used.
    gauge: Option<IntGauge>,
}

impl Account {
    /// The host's.
    pub(super) fn new(limit: u64, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            above: None,
            gauge: Some(gauge),
        })
    }

    /// A part of this one.
    pub(super) fn part(self: &Arc<Self>, limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            above: Some(Arc::clone(self)),
            gauge: None,
        })
    }

    /// In bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes so many bytes, or none.
    #[must_use]
    pub(super) fn take(&self, bytes: u64) -> bool {
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if taken.is_err() {
            return false;
        }
        if self.above.as_ref().is_some_and(|above| !above.take(bytes)) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        if let Some(gauge) = &self.gauge {
            gauge.add(bytes.cast_signed());
        }
        true
    }

    /// Takes what is on the disk already.
    pub(super) fn take_anyway(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(above) = &self.above {
            above.take_anyway(bytes);
        }
        if let Some(gauge) = &self.gauge {
            gauge.add(bytes.cast_signed());
        }
    }

    /// Gives back at most what was taken.
    pub(super) fn give_back(&self, bytes: u64) {
        let mut given = 0;
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                given = bytes.min(used);
                Some(used - given)
            });
        if let Some(above) = &self.above {
            above.give_back(given);
        }
        if let Some(gauge) = &self.gauge {
            gauge.sub(given.cast_signed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_counts_all_the_way_up_and_is_taken_whole_or_not() {
        let gauge = IntGauge::new("used", "used").unwrap();
        let host = Account::new(100, gauge.clone());
        let function = host.part(80);
        let (one, other) = (function.part(60), function.part(60));
        assert!(one.take(60));
        assert!(!one.take(1), "its own limit");
        assert!(!other.take(21), "the function's");
        assert!(other.take(20));
        assert!(host.part(50).take(20), "the rest of the host's");
        assert!(!host.part(50).take(1));
        assert_eq!(gauge.get(), 100);
        // Nothing stayed taken where another refused.
        other.give_back(u64::MAX);
        assert!(one.take(0) && !one.take(1));
        assert!(other.take(20));
        one.give_back(60);
        one.give_back(60);
        assert_eq!(gauge.get(), 40);
    }
}
