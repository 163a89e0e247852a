//! Reading Prometheus' text form.

/// A scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// As it came.
    pub text: String,
    series: Vec<Series>,
}

#[derive(Clone, Debug)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    pub(crate) fn parse(text: String) -> Self {
        let series = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                Series::parse(line).unwrap_or_else(|| panic!("no line of metrics: {line:?}"))
            })
            .collect();
        Self { text, series }
    }

    /// The sum of the series of this name that have these labels, whatever
    /// others they have. None if there is no such series.
    #[must_use]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self
            .series
            .iter()
            .filter(|series| series.name == name && series.has(labels))
            .peekable();
        found.peek()?;
        Some(found.map(|series| series.value).sum())
    }

    /// How many series of this name have these labels.
    #[must_use]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.series
            .iter()
            .filter(|series| series.name == name && series.has(labels))
            .count()
    }
}

impl Series {
    fn parse(line: &str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"")?;
                let mut value = String::new();
                let mut chars = after.char_indices();
                let end = loop {
                    match chars.next()? {
                        (at, '"') => break at + 1,
                        (_, '\\') => value.push(match chars.next()?.1 {
                            'n' => '\n',
                            other => other,
                        }),
                        (_, other) => value.push(other),
                    }
                };
                labels.push((label.to_owned(), value));
                rest = after[end..].trim_start_matches(',');
            }
            rest = &rest[1..];
        }
        Some(Self {
            name: name.to_owned(),
            labels,
            value: rest.trim().parse().ok()?,
        })
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| {
            self.labels
                .iter()
                .any(|(own, text)| own == name && text == value)
        })
    }
}
