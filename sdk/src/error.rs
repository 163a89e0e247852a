/// Any error.
///
/// Every type that implements [`std::error::Error`] becomes one with `?`, and
/// so does a string with `.into()`. What a handler that returns it answers is
/// described at [`IntoResponse`](crate::IntoResponse),
/// [`FunctionError`](crate::FunctionError) and [`Failure`](crate::Failure).
pub type Error = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The error and what caused it, outermost first: `cannot store: disk full`.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Kinds of errors: they only tell apart the implementations of the traits that
/// turn errors into answers. No value of them exists.
pub(crate) mod kind {
    #[derive(Debug)]
    pub enum Itself {}
    #[derive(Debug)]
    pub enum Standard {}
    #[derive(Debug)]
    pub enum Any {}
    #[derive(Debug)]
    pub enum Text {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("not a price")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        let error = Outer("x".parse::<u8>().unwrap_err());
        assert_eq!(chain(&error), "not a price: invalid digit found in string");
    }
}
