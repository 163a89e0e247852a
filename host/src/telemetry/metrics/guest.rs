//! Metrics that functions keep of their own, through `dunlin:event/metrics`.
//!
//! Three fixed families with the function's name as a label, so that no
//! function can take another's name, and a bound on the series of each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// Series per function; the contract (`wit/metrics.wit`) states it.
const MAX_SERIES: usize = 200;
/// Characters of a name.
const MAX_NAME: usize = 64;
/// Bytes of a label's value.
const MAX_LABEL_VALUE: usize = 128;
/// Labels of a point.
const MAX_LABELS: usize = 8;

/// In seconds, from a millisecond to ten seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
];

/// The families, in the order of [`GuestValue`].
pub(super) const FAMILIES: [&str; 3] = [
    "dunlin_guest_counter_total",
    "dunlin_guest_gauge",
    "dunlin_guest_histogram",
];

/// One point.
#[derive(Clone, Copy, Debug)]
pub enum GuestValue {
    /// To be added to a counter.
    Add(f64),
    /// To be set.
    Set(f64),
    /// To be counted into buckets.
    Observe(f64),
}

#[derive(Clone, Debug)]
enum Series {
    Counter(f64),
    Gauge(f64),
    Histogram {
        counts: [u64; BUCKETS.len()],
        count: u64,
        sum: f64,
    },
}

/// Which family, then name and labels as they are written.
type Key = (usize, String);

/// The series of one function.
#[derive(Default)]
pub struct GuestMetrics(Mutex<BTreeMap<Key, Series>>);

/// A point that was not taken: its name, a label or its value is not allowed,
/// or it would be one series too many.
#[derive(Debug, PartialEq, Eq)]
pub struct Dropped;

fn valid_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn escape_into(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

impl GuestMetrics {
    /// Takes one point.
    ///
    /// # Errors
    /// [`Dropped`], when it does not fit the contract.
    pub fn record(
        &self,
        name: &str,
        value: GuestValue,
        labels: &[(String, String)],
    ) -> Result<(), Dropped> {
        let label_ok = |(key, value): &(String, String)| {
            valid_name(key)
                && key != "function"
                && key != "name"
                && key != "le"
                && value.len() <= MAX_LABEL_VALUE
        };
        if !valid_name(name) || labels.len() > MAX_LABELS || !labels.iter().all(label_ok) {
            return Err(Dropped);
        }
        let (family, number) = match value {
            GuestValue::Add(n) if n < 0.0 => return Err(Dropped),
            GuestValue::Add(n) => (0, n),
            GuestValue::Set(n) => (1, n),
            GuestValue::Observe(n) => (2, n),
        };
        if !number.is_finite() {
            return Err(Dropped);
        }
        let mut sorted: Vec<_> = labels.iter().collect();
        sorted.sort();
        if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Dropped);
        }
        let mut key = format!("name=\"{name}\"");
        for (label, text) in sorted {
            let _ = write!(key, ",{label}=\"");
            escape_into(&mut key, text);
            key.push('"');
        }

        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = series.len() >= MAX_SERIES;
        let entry = match series.entry((family, key)) {
            std::collections::btree_map::Entry::Vacant(_) if full => return Err(Dropped),
            std::collections::btree_map::Entry::Vacant(vacant) => vacant.insert(match family {
                0 => Series::Counter(0.0),
                1 => Series::Gauge(0.0),
                _ => Series::Histogram {
                    counts: [0; BUCKETS.len()],
                    count: 0,
                    sum: 0.0,
                },
            }),
            std::collections::btree_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        match entry {
            Series::Counter(total) => *total += number,
            Series::Gauge(value) => *value = number,
            Series::Histogram { counts, count, sum } => {
                *count += 1;
                *sum += number;
                if let Some(bucket) = BUCKETS.iter().position(|bound| number <= *bound) {
                    counts[bucket] += 1;
                }
            }
        }
        Ok(())
    }
}

/// Writes the series of all functions in Prometheus' text form.
pub(super) fn render<'a>(
    out: &mut Vec<u8>,
    functions: impl Iterator<Item = (&'a str, &'a GuestMetrics)>,
) {
    let mut families = [String::new(), String::new(), String::new()];
    for (function, metrics) in functions {
        for ((family, key), series) in metrics
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let name = FAMILIES[*family];
            let text = &mut families[*family];
            match series {
                Series::Counter(n) | Series::Gauge(n) => {
                    let _ = writeln!(text, "{name}{{function=\"{function}\",{key}}} {n}");
                }
                Series::Histogram { counts, count, sum } => {
                    let mut below = 0;
                    for (bound, n) in BUCKETS.iter().zip(counts) {
                        below += n;
                        let _ = writeln!(
                            text,
                            "{name}_bucket{{function=\"{function}\",{key},le=\"{bound}\"}} {below}"
                        );
                    }
                    let _ = writeln!(
                        text,
                        "{name}_bucket{{function=\"{function}\",{key},le=\"+Inf\"}} {count}"
                    );
                    let _ = writeln!(text, "{name}_sum{{function=\"{function}\",{key}}} {sum}");
                    let _ = writeln!(
                        text,
                        "{name}_count{{function=\"{function}\",{key}}} {count}"
                    );
                }
            }
        }
    }
    for ((name, kind), text) in FAMILIES
        .iter()
        .zip(["counter", "gauge", "histogram"])
        .zip(families)
    {
        if !text.is_empty() {
            out.extend_from_slice(
                format!("# HELP {name} Kept by functions.\n# TYPE {name} {kind}\n{text}")
                    .as_bytes(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn series_add_up_and_are_rendered() {
        let metrics = GuestMetrics::default();
        metrics
            .record("orders", GuestValue::Add(2.0), &labels(&[("kind", "a\"b")]))
            .unwrap();
        metrics
            .record("orders", GuestValue::Add(1.0), &labels(&[("kind", "a\"b")]))
            .unwrap();
        metrics.record("depth", GuestValue::Set(7.5), &[]).unwrap();
        metrics
            .record("lag", GuestValue::Observe(0.003), &[])
            .unwrap();
        let mut out = Vec::new();
        render(&mut out, [("f", &metrics)].into_iter());
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains(
                "dunlin_guest_counter_total{function=\"f\",name=\"orders\",kind=\"a\\\"b\"} 3\n"
            ),
            "{text}"
        );
        assert!(text.contains("dunlin_guest_gauge{function=\"f\",name=\"depth\"} 7.5\n"));
        assert!(
            text.contains("le=\"0.0025\"} 0\n")
                && text.contains("le=\"0.005\"} 1\n")
                && text.contains("le=\"+Inf\"} 1\n")
        );
    }

    #[test]
    fn what_does_not_fit_is_dropped() {
        let metrics = GuestMetrics::default();
        let long = "x".repeat(65);
        for name in ["", "1a", "a-b", "a b", "a\n", long.as_str()] {
            assert_eq!(
                metrics.record(name, GuestValue::Add(1.0), &[]),
                Err(Dropped),
                "{name:?}"
            );
        }
        assert_eq!(
            metrics.record("a", GuestValue::Add(-1.0), &[]),
            Err(Dropped)
        );
        assert_eq!(
            metrics.record("a", GuestValue::Set(f64::NAN), &[]),
            Err(Dropped)
        );
        assert_eq!(
            metrics.record("a", GuestValue::Add(1.0), &labels(&[("function", "other")])),
            Err(Dropped)
        );
        assert_eq!(
            metrics.record(
                "a",
                GuestValue::Add(1.0),
                &labels(&[("l", "1"), ("l", "2")])
            ),
            Err(Dropped)
        );
        let value = "v".repeat(129);
        assert_eq!(
            metrics.record("a", GuestValue::Add(1.0), &labels(&[("l", &value)])),
            Err(Dropped)
        );
        for n in 0..MAX_SERIES {
            metrics
                .record("a", GuestValue::Add(1.0), &labels(&[("n", &n.to_string())]))
                .unwrap();
        }
        assert_eq!(metrics.record("b", GuestValue::Add(1.0), &[]), Err(Dropped));
        metrics
            .record("a", GuestValue::Add(1.0), &labels(&[("n", "0")]))
            .unwrap();
    }
}
