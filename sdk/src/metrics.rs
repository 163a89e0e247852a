//! The function's own metrics.
//!
//! The host serves them with its own as `dunlin_guest_counter_total`,
//! `dunlin_guest_gauge` and `dunlin_guest_histogram`, labelled with the
//! function, the metric's name and the labels given here.
//!
//! A name, and a label's name, is 1 to 64 letters, digits and underscores and
//! does not begin with a digit; a label's value has at most 128 bytes; a metric
//! has at most 8 labels, a function at most 200 series. What does not fit is
//! dropped and counted by the host: a metric never fails a handler.
//!
//! ```
//! use dunlin_sdk::metrics;
//!
//! metrics::counter("orders").add(1.0);
//! metrics::counter("orders").label("country", "de").add(1.0);
//! metrics::gauge("basket_items").set(3.0);
//! metrics::histogram("lookup_seconds").observe(0.012);
//! ```

#[cfg(target_arch = "wasm32")]
use crate::bindings::imports::metrics as host;
#[cfg(not(target_arch = "wasm32"))]
use native as host;

/// A counter: a sum that only grows.
pub fn counter(name: &str) -> Counter<'_> {
    Counter(Series::new(name))
}

/// A gauge: a value that goes up and down. The last one set stands, from
/// whichever instance.
pub fn gauge(name: &str) -> Gauge<'_> {
    Gauge(Series::new(name))
}

/// A histogram: how observations are spread. The host's buckets suit durations
/// in seconds, from 1 ms to 10 s.
pub fn histogram(name: &str) -> Histogram<'_> {
    Histogram(Series::new(name))
}

/// Made by [`counter`].
#[must_use = "nothing is counted before `add`"]
#[derive(Clone, Debug)]
pub struct Counter<'a>(Series<'a>);

impl Counter<'_> {
    /// Adds a label.
    pub fn label(self, name: &str, value: impl Into<String>) -> Self {
        Self(self.0.label(name, value.into()))
    }

    /// Adds to the counter. A negative or non-finite amount is dropped.
    pub fn add(&self, amount: f64) {
        host::add(self.0.name, amount, &self.0.labels);
    }
}

/// Made by [`gauge`].
#[must_use = "nothing is recorded before `set`"]
#[derive(Clone, Debug)]
pub struct Gauge<'a>(Series<'a>);

impl Gauge<'_> {
    /// Adds a label.
    pub fn label(self, name: &str, value: impl Into<String>) -> Self {
        Self(self.0.label(name, value.into()))
    }

    /// Sets the gauge.
    pub fn set(&self, value: f64) {
        host::set(self.0.name, value, &self.0.labels);
    }
}

/// Made by [`histogram`].
#[must_use = "nothing is recorded before `observe`"]
#[derive(Clone, Debug)]
pub struct Histogram<'a>(Series<'a>);

impl Histogram<'_> {
    /// Adds a label.
    pub fn label(self, name: &str, value: impl Into<String>) -> Self {
        Self(self.0.label(name, value.into()))
    }

    /// Adds an observation.
    pub fn observe(&self, value: f64) {
        host::observe(self.0.name, value, &self.0.labels);
    }
}

#[derive(Clone, Debug)]
struct Series<'a> {
    name: &'a str,
    labels: Vec<(String, String)>,
}

impl<'a> Series<'a> {
    fn new(name: &'a str) -> Self {
        Self {
            name,
            labels: Vec::new(),
        }
    }

    fn label(mut self, name: &str, value: String) -> Self {
        self.labels.push((name.to_owned(), value));
        self
    }
}

/// Where there is no host, metrics go nowhere.
#[cfg(not(target_arch = "wasm32"))]
mod native {
    pub(super) fn add(_name: &str, _amount: f64, _labels: &[(String, String)]) {}
    pub(super) fn set(_name: &str, _value: f64, _labels: &[(String, String)]) {}
    pub(super) fn observe(_name: &str, _value: f64, _labels: &[(String, String)]) {}
}
