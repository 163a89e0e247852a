//! Function names.

use std::fmt;
use std::sync::Arc;

/// The name of a function: 1 to 64 characters of `[a-zA-Z0-9-_]`, as AWS Lambda
/// has it (`CreateFunction`, parameter `FunctionName`). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionName(Arc<str>);

/// A string that cannot name a function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name a function: use 1 to 64 letters, digits, `-` and `_`")]
pub struct InvalidName(pub String);

impl FunctionName {
    /// The longest name, in characters.
    pub const MAX_LENGTH: usize = 64;

    /// Checks a name.
    ///
    /// # Errors
    /// If it is empty, too long or has other characters.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > Self::MAX_LENGTH || !name.bytes().all(allowed) {
            return Err(InvalidName(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for FunctionName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lambdas() {
        let longest = "a".repeat(64);
        for good in ["a", "hello-world_2", "0", longest.as_str()] {
            assert_eq!(FunctionName::new(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(65);
        for bad in [
            "",
            "a b",
            "a/b",
            "a:b",
            "ä",
            "$LATEST",
            "a.b",
            too_long.as_str(),
        ] {
            assert_eq!(FunctionName::new(bad), Err(InvalidName(bad.to_owned())));
        }
    }
}
