//! Event patterns: which events are wanted, as EventBridge's rules and Lambda's filter
//! criteria write it.
//!
//! A pattern has the shape of the events that it is for. Where the event has a value, it
//! has a list of tests: `{"body": {"price": [{"numeric": [">", 10]}], "kind": ["a", "b"]}}`.
//!
//! - Of an object all fields must match, of a list of tests one. `$or` has a list of
//!   objects, of which one must match.
//! - A list in the event matches if one of its elements does, also a list in it. All fields
//!   of an object of the pattern are looked for in the same element.
//! - Tests look at what is no object and no list. Where there is no such value, also in an
//!   empty list, only `{"exists": false}` matches.
//! - Numbers are equal by value: 300, 300.0 and 3e2 are the same. (EventBridge does so too,
//!   though its documentation says otherwise.)
//!
//! What it takes to match grows with the pattern's tests times the event's size, no faster:
//! `$or` is not multiplied out, and `wildcard` does not try again. An event made for it
//! costs 2 ms for each of its MiB and each test; an ordinary one, microseconds.
//!
//! Other than at AWS: numbers beyond ±5·10⁹ are compared too; a `cidr` means its whole
//! network, whatever the address in it; a dot in a field's name is a character of the name;
//! and a wildcard may have any number of `*`.

mod filter;
mod operators;
mod parse;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

pub use filter::{Filter, InvalidFilter};
use operators::Test;

/// A pattern that events match or not. Cheap to clone; equal to one of the same text.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    fields: Arc<Fields>,
}

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event pattern is not valid at `{path}`: {problem}")]
pub struct InvalidPattern {
    /// Where: `$` is the pattern, `$.body.price[0]` the first test of a field.
    pub path: String,
    /// The value, what is wrong with it, and what to write.
    pub problem: String,
}

/// What an object of a pattern asks for.
#[derive(Default)]
struct Fields {
    /// All of these.
    named: Vec<(String, Node)>,
    /// And one of these, if there are any.
    either: Vec<Fields>,
}

/// What a field of a pattern asks for.
enum Node {
    Object(Fields),
    Tests(Vec<Test>),
}

impl Pattern {
    /// The longest text, in characters: Lambda's limit.
    pub const MAX_LENGTH: usize = 4096;
    /// How many objects may stand in each other.
    pub const MAX_DEPTH: usize = 32;
    /// How many tests it may have: with more, looking at a large event would hold a core.
    pub const MAX_TESTS: usize = 300;

    /// Reads a pattern. Of fields with the same name the last counts, as at Lambda.
    ///
    /// # Errors
    /// If it is none, or has more than is allowed; the error says where.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        Ok(Self {
            text: text.into(),
            fields: Arc::new(parse::fields(text)?),
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an event matches.
    #[must_use]
    pub fn matches(&self, event: &Value) -> bool {
        self.fields.matches(Some(event))
    }
}

impl Fields {
    /// Whether what is asked for is there, by this answer to each field.
    fn all(&self, answer: &dyn Fn(&str, &Node) -> bool) -> bool {
        self.named.iter().all(|(name, node)| answer(name, node))
            && (self.either.is_empty() || self.either.iter().any(|fields| fields.all(answer)))
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        match value {
            // What must not be there must not be in any element; what must be there, with
            // all that stands beside it, in one.
            Some(Value::Array(list)) if !list.is_empty() => match self.wants_nothing() {
                true => list.iter().all(|element| self.matches(Some(element))),
                false => list.iter().any(|element| self.matches(Some(element))),
            },
            Some(Value::Object(object)) => self.all(&|name, node| node.matches(object.get(name))),
            _ => self.all(&|_, node| node.matches(None)),
        }
    }

    /// Whether all that it asks for is that something is not there.
    fn wants_nothing(&self) -> bool {
        self.named.iter().all(|(_, node)| match node {
            Node::Object(fields) => fields.wants_nothing(),
            Node::Tests(tests) => tests.iter().all(|test| matches!(test, Test::Absent)),
        }) && self.either.iter().all(Self::wants_nothing)
    }
}

impl Node {
    fn matches(&self, value: Option<&Value>) -> bool {
        let tests = match self {
            Self::Object(fields) => return fields.matches(value),
            Self::Tests(tests) => tests,
        };
        let mut is_there = false;
        let matched = value.is_some_and(|value| {
            any_leaf(value, &mut |leaf| {
                is_there = true;
                tests.iter().any(|test| test.matches(leaf))
            })
        });
        matched || (!is_there && tests.iter().any(|test| matches!(test, Test::Absent)))
    }
}

/// Whether a value, or one in it if it is a list, is such a leaf.
fn any_leaf(value: &Value, is_such: &mut dyn FnMut(&Value) -> bool) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|element| any_leaf(element, is_such)),
        Value::Object(_) => false,
        leaf => is_such(leaf),
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests;
