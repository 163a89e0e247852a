//! Reading the host's metrics.

use anyhow::{Result, ensure};

use crate::client::{self, Endpoint};

/// What `/metrics` said.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Asks for them.
    pub fn scrape(endpoint: &Endpoint) -> Result<Self> {
        let answer = client::get(endpoint)?;
        ensure!(answer.status == 200, "/metrics answered {}", answer.status);
        Ok(Self(String::from_utf8(answer.body)?))
    }

    /// The sum of a metric over all series that have these labels. Fails if there is none: a
    /// metric that is gone is not one that is zero.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let values: Vec<f64> = self
            .0
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter(|rest| {
                labels
                    .iter()
                    .all(|(key, value)| rest.contains(&format!("{key}=\"{value}\"")))
            })
            .filter_map(|rest| rest.rsplit_once(' '))
            .filter_map(|(_, value)| value.parse().ok())
            .collect();
        ensure!(
            !values.is_empty(),
            "the host has no metric `{name}` with {labels:?}"
        );
        Ok(values.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_the_labels_are_added_up() {
        let metrics = Metrics(
            "# HELP a A.\n# TYPE a counter\na{f=\"x\",o=\"ok\"} 2\na{f=\"x\",o=\"trap\"} 3\n\
             a{f=\"y\",o=\"ok\"} 5\nab{f=\"x\"} 7\nb 11\n"
                .into(),
        );
        assert_eq!(metrics.sum("a", &[]).unwrap(), 10.0);
        assert_eq!(metrics.sum("a", &[("f", "x")]).unwrap(), 5.0);
        assert_eq!(metrics.sum("a", &[("f", "x"), ("o", "ok")]).unwrap(), 2.0);
        assert_eq!(metrics.sum("b", &[]).unwrap(), 11.0);
        assert!(metrics.sum("c", &[]).is_err());
    }
}
