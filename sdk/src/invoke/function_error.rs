use std::any::type_name;
use std::fmt;

use crate::error::kind::{Any, Itself, Standard, Text};
use crate::error::{self, Error};

/// Why a function failed, as the caller and the log see it.
///
/// A handler need not make one. From its error it is made so:
///
/// | error | `error_type` | `message` |
/// |---|---|---|
/// | `FunctionError` | its own | its own |
/// | a type that implements [`std::error::Error`] | the name of the type | the error and its causes |
/// | [`Error`](crate::Error) | that of a `FunctionError` inside it, else `Error` | likewise |
/// | `String`, `&str` | `Error` | the text |
///
/// Make one where a program compares the type:
///
/// ```
/// use dunlin_sdk::FunctionError;
///
/// #[dunlin_sdk::invoke]
/// fn half(number: u32) -> Result<u32, FunctionError> {
///     if number % 2 == 1 {
///         return Err(FunctionError::new("ValidationError", "the number is odd"));
///     }
///     Ok(number / 2)
/// }
/// ```
///
/// `?` turns other errors into one, and one into an [`Error`](crate::Error).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionError {
    /// A name that a program can compare, such as `ValidationError`.
    pub error_type: String,
    /// What a person reads.
    pub message: String,
    /// One line per frame, innermost first. Empty unless the handler fills it.
    pub stack_trace: Vec<String>,
}

impl FunctionError {
    /// An error without a stack trace.
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            error_type: error_type.into(),
            message: message.into(),
            stack_trace: Vec::new(),
        }
    }
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

/// For `?`. So that this may hold for every error, `FunctionError` is itself no
/// `std::error::Error`.
impl<E: std::error::Error + 'static> From<E> for FunctionError {
    fn from(error: E) -> Self {
        Self::new(short_name(type_name::<E>()), error::chain(&error))
    }
}

/// Carries a [`FunctionError`] through an [`Error`].
#[derive(Debug)]
struct Boxed(FunctionError);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Boxed {}

impl From<FunctionError> for Error {
    fn from(error: FunctionError) -> Self {
        Box::new(Boxed(error))
    }
}

/// What an invoke handler may return when it fails; see [`FunctionError`].
///
/// `Kind` only tells the implementations apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of an invocation",
    note = "an invoke handler fails with a type that implements `std::error::Error`, `dunlin_sdk::Error`, `dunlin_sdk::FunctionError` or text"
)]
pub trait IntoFunctionError<Kind> {
    /// The error as the caller sees it.
    fn into_function_error(self) -> FunctionError;
}

impl IntoFunctionError<Itself> for FunctionError {
    fn into_function_error(self) -> FunctionError {
        self
    }
}

impl<E: std::error::Error + 'static> IntoFunctionError<Standard> for E {
    fn into_function_error(self) -> FunctionError {
        self.into()
    }
}

impl IntoFunctionError<Any> for Error {
    fn into_function_error(self) -> FunctionError {
        match self.downcast::<Boxed>() {
            Ok(error) => error.0,
            Err(error) => FunctionError::new("Error", error::chain(&*error)),
        }
    }
}

impl IntoFunctionError<Text> for String {
    fn into_function_error(self) -> FunctionError {
        FunctionError::new("Error", self)
    }
}

impl IntoFunctionError<Text> for &str {
    fn into_function_error(self) -> FunctionError {
        FunctionError::new("Error", self)
    }
}

/// `core::num::error::ParseIntError` is `ParseIntError`, `a::B<c::D>` is `B`.
fn short_name(path: &str) -> &str {
    let path = path.split('<').next().unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<K>(error: impl IntoFunctionError<K>, error_type: &str, message: &str) {
        let error = error.into_function_error();
        assert_eq!(error, FunctionError::new(error_type, message));
    }

    #[test]
    fn each_error_has_its_type_and_message() {
        let standard = || "x".parse::<u8>().unwrap_err();
        let own = || FunctionError::new("ValidationError", "too long");
        check(standard(), "ParseIntError", "invalid digit found in string");
        check(
            Error::from(standard()),
            "Error",
            "invalid digit found in string",
        );
        check(own(), "ValidationError", "too long");
        check(Error::from(own()), "ValidationError", "too long");
        check("no", "Error", "no");
        check(String::from("no"), "Error", "no");
        check(Error::from("no"), "Error", "no");
    }

    #[test]
    fn names_lose_their_path_and_their_parameters() {
        assert_eq!(
            short_name("core::num::error::ParseIntError"),
            "ParseIntError"
        );
        assert_eq!(short_name("a::B<c::D>"), "B");
        assert_eq!(short_name("E"), "E");
    }
}
