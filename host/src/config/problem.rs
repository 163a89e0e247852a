//! What is wrong with a configuration, one entry for each fault.

use std::fmt;
use std::path::PathBuf;

/// One fault: where it is, what it is, and what to do about it.
///
/// It prints as `FILE:LINE: KEY: VALUE: what is wrong; remedy`, without the parts
/// that it does not have. The value of a secret is never part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file and the line in it, from 1. None for a fault of the command line.
    pub at: Option<(PathBuf, usize)>,
    /// The key with its tables, such as `function.hello.memory`, or the flag.
    pub key: String,
    /// The value as it was written, where it may be shown.
    pub value: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            key,
            value,
            what,
            remedy,
        } = self;
        if let Some((file, line)) = at {
            write!(f, "{}:{line}: ", file.display())?;
        }
        write!(f, "{key}: ")?;
        if let Some(value) = value {
            write!(f, "{value}: ")?;
        }
        write!(f, "{what}; {remedy}")
    }
}

/// A key of the manifest, for problems with it that show later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file and the line in it, from 1.
    pub at: (PathBuf, usize),
    /// The key with its tables.
    pub key: String,
    /// The value as it was written, where it may be shown.
    pub value: Option<String>,
}

impl Place {
    /// What is wrong there.
    #[must_use]
    pub fn problem(&self, what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem {
            at: Some(self.at.clone()),
            key: self.key.clone(),
            value: self.value.clone(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Every fault of a configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Problems(pub Vec<Problem>);

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
