//! The manifest as a tree whose every key and value knows its line: the raw form.
//!
//! serde stops at the first fault, so this reads toml's own spanned tree. A [`Section`]
//! remembers which keys were asked for: those are the known ones, and what is left at
//! the end is unknown. So the list of keys is kept nowhere else and cannot drift from what
//! is read.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::problem::{Place, Problem, Problems};
use crate::function::{ByteSize, InvalidUnit, parse_duration};

/// What is shown of a value, in characters: a message stays a line.
const MAX_SHOWN: usize = 80;

/// Collects the problems of one file.
pub(super) struct Report {
    file: PathBuf,
    /// The offset at which each line begins.
    lines: Vec<usize>,
    problems: RefCell<Vec<(usize, Problem)>>,
}

impl Report {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            file: file.to_owned(),
            lines: std::iter::once(0)
                .chain(breaks.map(|(at, _)| at + 1))
                .collect(),
            problems: RefCell::new(Vec::new()),
        }
    }

    /// The place of an offset, as `FILE:LINE`.
    pub(super) fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.file.display(), self.line(offset))
    }

    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// Adds a problem at an offset of the file.
    pub(super) fn add(
        &self,
        offset: usize,
        key: impl Into<String>,
        value: Option<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let problem = Problem {
            at: Some((self.file.clone(), self.line(offset))),
            key: key.into(),
            value,
            what: what.into(),
            remedy: remedy.into(),
        };
        self.problems.borrow_mut().push((offset, problem));
    }

    /// Adds a problem of the command line; those come last.
    pub(super) fn add_flag(&self, flag: &str, value: String, what: &str, remedy: &str) {
        let problem = Problem {
            at: None,
            key: flag.to_owned(),
            value: Some(value),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        };
        self.problems.borrow_mut().push((usize::MAX, problem));
    }

    /// Ends the report.
    ///
    /// # Errors
    /// If there is any problem: all of them, in the order of the file.
    pub(super) fn finish(self) -> Result<(), Problems> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by_key(|(offset, _)| *offset);
        Err(Problems(
            problems.into_iter().map(|(_, problem)| problem).collect(),
        ))
    }
}

/// Parses the text. None if it is no TOML; every syntax error is then reported, one for
/// each line, without the text of the line: it may hold a secret.
pub(super) fn parse<'a>(report: &Report, text: &'a str) -> Option<Spanned<DeTable<'a>>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(tree);
    }
    let mut last = None;
    for error in errors {
        let offset = error.span().map_or(text.len(), |span| span.start);
        let line = report.line(offset);
        if last.replace(line) != Some(line) {
            let remedy = "correct it as https://toml.io describes";
            report.add(offset, "TOML syntax", None, error.message(), remedy);
        }
    }
    None
}

/// A table of the manifest while it is read.
pub(super) struct Section<'a> {
    report: &'a Report,
    path: String,
    at: usize,
    entries: Option<&'a DeTable<'a>>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The document itself.
    pub(super) fn root(report: &'a Report, tree: &'a Spanned<DeTable<'a>>) -> Self {
        Self {
            report,
            path: String::new(),
            at: 0,
            entries: Some(tree.get_ref()),
            known: RefCell::default(),
        }
    }

    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// Where it begins: the place of what it lacks.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Adds a problem of the section as a whole, or of a key that it lacks.
    pub(super) fn problem(&self, what: impl Into<String>, remedy: impl Into<String>) {
        self.report
            .add(self.at, self.path.clone(), None, what, remedy);
    }

    /// The key of an entry with its tables.
    pub(super) fn key(&self, name: &str) -> String {
        let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let name = if !name.is_empty() && name.bytes().all(bare) {
            name.to_owned()
        } else {
            format!("{name:?}")
        };
        if self.path.is_empty() {
            name
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// The entry of that name, which is a known one from now on.
    pub(super) fn get(&self, name: &'static str) -> Option<Field<'a>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&name) {
            known.push(name);
        }
        let (key, value) = self.entries?.get_key_value(name)?;
        Some(self.field(key, value))
    }

    /// Every entry, in the order of the file: for tables whose keys the operator chooses.
    pub(super) fn entries(&self) -> Vec<(&'a str, Field<'a>)> {
        let mut entries: Vec<_> = self
            .entries
            .into_iter()
            .flat_map(|table| table.iter())
            .map(|(key, value)| (key.get_ref().as_ref(), self.field(key, value)))
            .collect();
        entries.sort_by_key(|(_, field)| field.at);
        entries
    }

    fn field(&self, key: &'a Spanned<DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Field<'a> {
        Field {
            report: self.report,
            path: self.key(key.get_ref()),
            at: key.span().start,
            value: value.get_ref(),
        }
    }

    /// The table of that name; an empty one if there is none.
    pub(super) fn table(&self, name: &'static str) -> Section<'a> {
        self.get(name)
            .and_then(|field| field.table())
            .unwrap_or_else(|| Section {
                report: self.report,
                path: self.key(name),
                at: self.at,
                entries: None,
                known: RefCell::default(),
            })
    }

    /// Reports every key that nobody asked for. To be called last.
    pub(super) fn unknown(&self) {
        let known = self.known.borrow();
        for (name, field) in self.entries() {
            if known.contains(&name) {
                continue;
            }
            // Its value is not shown: `secret = { … }` is a typing error for `secrets`.
            let remedy = match nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", list(&known, "and")),
            };
            field
                .report
                .add(field.at, field.path.clone(), None, "unknown key", remedy);
        }
    }

    /// A size within a range; the default if it is absent or wrong.
    pub(super) fn size(
        &self,
        name: &'static str,
        default: ByteSize,
        range: RangeInclusive<ByteSize>,
    ) -> ByteSize {
        self.get(name)
            .and_then(|field| field.size(range))
            .unwrap_or(default)
    }

    /// A duration within a range; the default if it is absent or wrong.
    pub(super) fn duration(
        &self,
        name: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.get(name)
            .and_then(|field| field.duration(range))
            .unwrap_or(default)
    }

    /// A whole number within a range; the default if it is absent or wrong.
    pub(super) fn number(
        &self,
        name: &'static str,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> u32 {
        self.get(name)
            .and_then(|field| field.number(range))
            .unwrap_or(default)
    }

    /// One of a few words; the default if it is absent or wrong.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> T {
        self.get(name)
            .and_then(|field| field.choice(words))
            .unwrap_or(default)
    }
}

/// A key with its value.
#[derive(Clone)]
pub(super) struct Field<'a> {
    report: &'a Report,
    path: String,
    at: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Field<'a> {
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.value
    }

    /// Adds a problem that shows the value.
    pub(super) fn problem(&self, what: impl Into<String>, remedy: impl Into<String>) {
        self.report
            .add(self.at, self.path.clone(), self.shown(), what, remedy);
    }

    /// Where it is, for problems that show once everything was read.
    pub(super) fn place(&self) -> Place {
        Place {
            at: (self.report.file.clone(), self.report.line(self.at)),
            key: self.path.clone(),
            value: self.shown(),
        }
    }

    fn shown(&self) -> Option<String> {
        match self.value {
            DeValue::String(text) if text.len() > MAX_SHOWN => {
                let short: String = text.chars().take(MAX_SHOWN).collect();
                Some(format!("{short:?}…"))
            }
            DeValue::String(text) => Some(format!("{text:?}")),
            DeValue::Integer(number) => Some(number.to_string()),
            DeValue::Float(number) => Some(number.to_string()),
            DeValue::Boolean(value) => Some(value.to_string()),
            DeValue::Datetime(value) => Some(value.to_string()),
            // Long, and there may be a secret in it.
            DeValue::Array(_) | DeValue::Table(_) => None,
        }
    }

    /// Adds a problem that does not show the value.
    pub(super) fn secret_problem(&self, what: impl Into<String>, remedy: impl Into<String>) {
        self.report
            .add(self.at, self.path.clone(), None, what, remedy);
    }

    fn wrong_type(&self, remedy: impl Into<String>) {
        let article = match self.value {
            DeValue::Integer(_) | DeValue::Array(_) => "an",
            _ => "a",
        };
        self.problem(format!("{article} {}", self.value.type_str()), remedy);
    }

    pub(super) fn table(&self) -> Option<Section<'a>> {
        let Some(entries) = self.value.as_table() else {
            // Whatever stands here, somebody may have meant a table of secrets.
            self.secret_problem(
                format!("no table but of type {}", self.value.type_str()),
                format!("write `[{}]` or `{{ KEY = … }}`", self.path),
            );
            return None;
        };
        Some(Section {
            report: self.report,
            path: self.path.clone(),
            at: self.at,
            entries: Some(entries),
            known: RefCell::default(),
        })
    }

    /// The tables of `[[…]]`.
    pub(super) fn tables(&self) -> Vec<Section<'a>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type(format!("write `[[{}]]`, once for each", self.path));
            return Vec::new();
        };
        let element = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| {
            let field = Field {
                report: self.report,
                path: format!("{}[{index}]", self.path),
                at: value.span().start,
                value: value.get_ref(),
            };
            field.table()
        };
        array.iter().enumerate().filter_map(element).collect()
    }

    pub(super) fn string(&self, example: &str) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type(format!("write a text such as `\"{example}\"`"));
        }
        text
    }

    /// A string, or a list of strings.
    pub(super) fn strings(&self, example: &str) -> Option<Vec<&'a str>> {
        let Some(array) = self.value.as_array() else {
            return self.string(example).map(|text| vec![text]);
        };
        let texts: Option<Vec<&str>> = array.iter().map(|v| v.get_ref().as_str()).collect();
        if texts.is_none() {
            self.problem(
                "a list of other things than texts",
                format!("write `[\"{example}\"]`"),
            );
        }
        texts
    }

    pub(super) fn size(&self, range: RangeInclusive<ByteSize>) -> Option<ByteSize> {
        let size = self.with_unit(ByteSize::parse, "a size such as `64MiB`")?;
        self.in_range(size, &range, ByteSize::to_string)
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = self.with_unit(parse_duration, "a duration such as `250ms` or `3s`")?;
        self.in_range(duration, &range, |d| spell(*d))
    }

    fn with_unit<T>(
        &self,
        parse: impl Fn(&str) -> Result<T, InvalidUnit>,
        example: &str,
    ) -> Option<T> {
        let text = match self.value {
            DeValue::String(text) => text.to_string(),
            // A bare number is as wrong as it is in a text, unless it is 0.
            DeValue::Integer(number) => number.to_string(),
            _ => {
                self.wrong_type(format!("write {example}"));
                return None;
            }
        };
        let (what, remedy) = match parse(&text) {
            Ok(value) => return Some(value),
            Err(InvalidUnit::NoUnit(_, example)) => (
                "a number without a unit".to_owned(),
                format!("write {example}"),
            ),
            Err(InvalidUnit::UnknownUnit(_, unit, units)) => (
                format!("the unit `{unit}` is unknown"),
                format!("use {units}"),
            ),
            Err(InvalidUnit::NoNumber(_)) => (
                "it does not begin with a whole number".to_owned(),
                format!("write {example}"),
            ),
            Err(InvalidUnit::TooLarge(_)) => ("too large".to_owned(), format!("write {example}")),
        };
        self.problem(what, remedy);
        None
    }

    pub(super) fn number(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer(&format!("{} to {}", range.start(), range.end()))?;
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.in_range(number, &range, u32::to_string)
    }

    /// A whole number of 64 bits, which is more than TOML promises.
    pub(super) fn integer(&self, allowed: &str) -> Option<u64> {
        let remedy = format!("write a whole number, {allowed}");
        let Some(number) = self.value.as_integer() else {
            self.wrong_type(remedy);
            return None;
        };
        let parsed = u64::from_str_radix(number.as_str(), number.radix());
        if parsed.is_err() {
            self.problem("out of range", remedy);
        }
        parsed.ok()
    }

    fn in_range<T: PartialOrd>(
        &self,
        value: T,
        range: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let what = if value < *range.start() {
            "too small"
        } else if value > *range.end() {
            "too large"
        } else {
            return Some(value);
        };
        let (start, end) = (show(range.start()), show(range.end()));
        self.problem(what, format!("allowed is {start} to {end}"));
        None
    }

    fn choice<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let text = self.string(names.first()?)?;
        let found = words.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            self.problem("unknown word", format!("use {}", list(&names, "or")));
        }
        found.map(|(_, value)| *value)
    }
}

/// A duration as the manifest writes it.
fn spell(duration: Duration) -> String {
    let micros = duration.as_micros();
    for (unit, scale) in [
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
    ] {
        if micros >= scale && micros.is_multiple_of(scale) {
            return format!("{}{unit}", micros / scale);
        }
    }
    if micros == 0 {
        "0".to_owned()
    } else {
        format!("{micros}us")
    }
}

/// `a`, `b` and `c`, each in backquotes.
fn list(names: &[&str], and: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} {and} {last}", most.join(", ")),
    }
}

/// The known key that somebody who wrote `name` most likely meant.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let close = |key: &&str| {
        let prefix = name.len() >= 3 && (key.starts_with(&name) || name.starts_with(*key));
        prefix || distance(&name, key) <= (key.len() / 3).max(1)
    };
    known
        .iter()
        .copied()
        .filter(close)
        .min_by_key(|key| (distance(&name, key), Reverse(key.len())))
}

/// The edits (Levenshtein) from one word to another.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spelled_as_they_are_read() {
        for text in ["15m", "90s", "1500ms", "250us", "2h", "0"] {
            assert_eq!(spell(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn the_nearest_key_is_what_was_meant() {
        let known = [
            "memory",
            "timeout",
            "request-limit",
            "response-limit",
            "environment",
        ];
        for (written, meant) in [
            ("memroy", Some("memory")),
            ("Timeout", Some("timeout")),
            ("request_limit", Some("request-limit")),
            ("env", Some("environment")),
            ("memory-size", Some("memory")),
            ("handler", None),
        ] {
            assert_eq!(nearest(written, &known), meant, "{written}");
        }
    }
}
