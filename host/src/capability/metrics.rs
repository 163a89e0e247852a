//! `dunlin:event/metrics`: the function's own metrics.

use super::bindings::dunlin::event::metrics;
use crate::runtime::State;
use crate::telemetry::GuestValue;

impl State {
    fn record(&self, name: &str, value: GuestValue, labels: &[(String, String)]) {
        let metrics = &self.common.metrics;
        if metrics.guest.record(name, value, labels).is_err() {
            metrics.guest_dropped.inc();
        }
    }
}

impl metrics::Host for State {
    fn add(&mut self, name: String, amount: f64, labels: Vec<(String, String)>) {
        self.record(&name, GuestValue::Add(amount), &labels);
    }

    fn set(&mut self, name: String, value: f64, labels: Vec<(String, String)>) {
        self.record(&name, GuestValue::Set(value), &labels);
    }

    fn observe(&mut self, name: String, value: f64, labels: Vec<(String, String)>) {
        self.record(&name, GuestValue::Observe(value), &labels);
    }
}
