//! What a writer counts of its commits.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, Opts};

/// From a disk that does not wait for its medium to one that hardly answers.
const COMMIT_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// The handles. Cheap to clone; they count whether or not anybody registers them.
#[derive(Clone)]
pub struct StoreMetrics {
    /// How long commits took that had something for the disk, with the wait for it.
    pub(super) commit: Histogram,
    /// Operations that were committed.
    pub(super) operations: IntCounter,
}

impl StoreMetrics {
    /// Those of the store of this name, the label that tells it from others.
    pub(super) fn new(store: &str) -> Self {
        let options = HistogramOpts::new(
            "dunlin_store_commit_seconds",
            "How long a commit took, with the wait for the disk, by store: queue or values.",
        );
        let options = options
            .const_label("store", store)
            .buckets(COMMIT_BUCKETS.to_vec());
        let operations = IntCounter::with_opts(
            Opts::new(
                "dunlin_store_operations_total",
                "Operations that were committed, many at a time, by store: queue or values.",
            )
            .const_label("store", store),
        );
        Self {
            commit: Histogram::with_opts(options).expect("the name and the buckets are right"),
            operations: operations.expect("the name is right"),
        }
    }

    /// What is to be registered.
    #[must_use]
    pub fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [
            Box::new(self.commit.clone()),
            Box::new(self.operations.clone()),
        ]
    }
}
