//! Why a text is no expression.

/// Why a text is no expression: which part of it, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}`{} is {what}: {remedy}", value.escape_debug(), place(*field))]
pub struct InvalidExpression {
    /// The field, where one is to blame: `hours`, `day-of-month`, …
    pub field: Option<&'static str>,
    /// What stands there, cut short if it is long.
    pub value: String,
    /// What is wrong with it, to follow "is": `not between 0 and 23`.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// How much of a value an error repeats, in characters.
const SHOWN: usize = 64;

impl InvalidExpression {
    pub(super) fn new(
        field: impl Into<Option<&'static str>>,
        value: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            value: shown(value),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// A value as errors repeat it.
pub(super) fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn place(field: Option<&'static str>) -> String {
    field.map_or_else(String::new, |field| format!(" in the field {field}"))
}
