//! Several patterns for one source of events, and how they look at messages.

use serde_json::Value;

use super::{Fields, InvalidPattern, Node, Pattern};

/// What a message's pattern may name, of the record that Lambda makes of it. The others are
/// the same for all messages, or say nothing of them.
const MESSAGE_FIELDS: [&str; 6] = [
    BODY,
    "attributes",
    "md5OfBody",
    "md5OfMessageAttributes",
    "messageAttributes",
    "messageId",
];
const BODY: &str = "body";

/// Which events are wanted: those that one of its patterns matches, or all if it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Pattern>);

/// What is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It has more patterns than allowed.
    #[error("{0} patterns are too many for one filter; use at most {max}", max = Filter::MAX_PATTERNS)]
    TooMany(usize),
    /// One of its patterns is none.
    #[error("pattern {} of the filter", .index + 1)]
    Pattern {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        source: InvalidPattern,
    },
}

impl Filter {
    /// The most patterns: what Lambda grants on request. Its default is 5.
    pub const MAX_PATTERNS: usize = 10;

    /// A filter of events.
    ///
    /// # Errors
    /// If there are too many patterns, or one is none.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidFilter> {
        Self::each(texts, Pattern::parse)
    }

    /// A filter of a queue's messages.
    ///
    /// # Errors
    /// If there are too many patterns, or one is none for messages.
    pub fn for_messages<'a>(
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidFilter> {
        Self::each(texts, Pattern::for_messages)
    }

    fn each<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        parse: fn(&str) -> Result<Pattern, InvalidPattern>,
    ) -> Result<Self, InvalidFilter> {
        let texts: Vec<&str> = texts.into_iter().collect();
        if texts.len() > Self::MAX_PATTERNS {
            return Err(InvalidFilter::TooMany(texts.len()));
        }
        let patterns = texts.into_iter().enumerate().map(|(index, text)| {
            parse(text).map_err(|source| InvalidFilter::Pattern { index, source })
        });
        patterns.collect::<Result<_, _>>().map(Self)
    }

    /// Its patterns.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.0
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, event: &Value) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(event))
    }

    /// Whether a message is wanted; see [`Pattern::matches_message`]. The record is made
    /// only if a pattern looks at more than the body.
    ///
    /// A body that is JSON is parsed for it, if a pattern looks at it: some 15 ms for a MiB,
    /// and up to 90 times its size in memory if it was made for that. So large bodies are
    /// matched one at a time, where no function waits for the core.
    #[must_use]
    pub fn matches_message(&self, body: &str, record: impl FnOnce() -> Value) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let mut names = self.0.iter().flat_map(|pattern| pattern.fields.names());
        let body = match names.any(|name| name == BODY) {
            true => Body::of(body),
            false => Body::Plain(Value::Null),
        };
        let mut names = self.0.iter().flat_map(|pattern| pattern.fields.names());
        let record = match names.any(|name| name != BODY) {
            true => record(),
            false => Value::Null,
        };
        self.0.iter().any(|pattern| pattern.has(&body, &record))
    }
}

impl Pattern {
    /// Reads a pattern for a queue's messages: its fields are those of the record that
    /// Lambda makes of a message. Another name is refused: what matches no pattern is
    /// deleted, so a slip would empty the queue.
    ///
    /// # Errors
    /// If it is no pattern, or names a field that no message has.
    pub fn for_messages(text: &str) -> Result<Self, InvalidPattern> {
        let pattern = Self::parse(text)?;
        let unknown = |name: &&str| !MESSAGE_FIELDS.contains(name);
        if let Some(name) = pattern.fields.names().find(unknown) {
            return Err(InvalidPattern {
                path: format!("$.{}", name.escape_debug()),
                problem: format!(
                    "messages have no such field to choose by; use `{{\"{BODY}\": …}}` for what \
                     they say, or one of {}",
                    MESSAGE_FIELDS[1..].join(", ")
                ),
            });
        }
        Ok(pattern)
    }

    /// Whether a message matches, by Lambda's rules for SQS. `record` has the other fields
    /// of the record that a function would get, and only those are asked for there.
    ///
    /// A body is JSON if it is an object or a list, else a plain text. What the pattern says
    /// of `body` is for JSON if it is an object, for a plain text if it is a list of tests:
    ///
    /// | body | pattern's `body` | |
    /// |---|---|---|
    /// | any | none | only the other fields count |
    /// | plain text | for a plain text | looked at |
    /// | JSON | for JSON | looked at |
    /// | plain text | for JSON | does not match |
    /// | JSON | for a plain text | does not match |
    #[must_use]
    pub fn matches_message(&self, body: &str, record: &Value) -> bool {
        self.has(&Body::of(body), record)
    }

    fn has(&self, body: &Body, record: &Value) -> bool {
        self.fields.all(&|name, node| match (name, node, body) {
            (BODY, Node::Object(_), Body::Json(json)) => node.matches(Some(json)),
            (BODY, Node::Tests(_), Body::Plain(text)) => node.matches(Some(text)),
            (BODY, ..) => false,
            _ => node.matches(record.get(name)),
        })
    }
}

impl Fields {
    /// The names of the fields of an event that it looks at.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        let named = self.named.iter().map(|(name, _)| name.as_str());
        Box::new(named.chain(self.either.iter().flat_map(Self::names)))
    }
}

/// What a message says, in the form that it has.
enum Body {
    Json(Value),
    /// As a JSON string.
    Plain(Value),
}

impl Body {
    fn of(text: &str) -> Self {
        // A number or `true` is JSON too, but who sends it and nothing else means a text.
        let json = match text.trim_ascii_start().starts_with(['{', '[']) {
            true => serde_json::from_str(text).ok(),
            false => None,
        };
        json.map_or_else(|| Self::Plain(text.into()), Self::Json)
    }
}
