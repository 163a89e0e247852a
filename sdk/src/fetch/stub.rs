//! What answers where there is no host: on the build machine.

use std::cell::RefCell;

use super::{Builder, FetchError, Response};

type Answer = Box<dyn FnMut(&Builder) -> Result<Response, FetchError>>;

thread_local! {
    static ANSWER: RefCell<Option<Answer>> = const { RefCell::new(None) };
}

/// Answers what is sent in this thread from now on, in a test.
///
/// ```
/// use dunlin_sdk::fetch::{self, Response};
///
/// fetch::stub(|request| Ok(Response::new(200, request.url())));
/// let answer = fetch::get("https://a.example/").send().unwrap();
/// assert_eq!(answer.text().unwrap(), "https://a.example/");
/// ```
pub fn stub(answer: impl FnMut(&Builder) -> Result<Response, FetchError> + 'static) {
    ANSWER.set(Some(Box::new(answer)));
}

impl Response {
    /// An answer, for tests.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::from_parts(status, Vec::new(), Body(body.into()))
    }

    /// Adds a header, for tests.
    pub fn with_header(self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        let (status, mut headers, body) = self.into_parts();
        headers.push((name.into().to_ascii_lowercase(), value.into()));
        Self::from_parts(status, headers, body)
    }
}

pub(super) struct Pending(Result<Response, FetchError>);

impl Pending {
    pub(super) fn wait(self) -> Result<Response, FetchError> {
        self.0
    }
}

pub(super) fn start(request: Builder) -> Result<Pending, FetchError> {
    ANSWER.with_borrow_mut(|answer| match answer {
        Some(answer) => Ok(Pending(answer(&request))),
        None => Err(FetchError::Unreachable(
            "there is no host; a test answers with `fetch::stub`".into(),
        )),
    })
}

pub(super) struct Body(Vec<u8>);

impl Body {
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, FetchError> {
        let all = std::mem::take(&mut self.0);
        Ok((!all.is_empty()).then_some(all))
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, FetchError> {
        let count = into.len().min(self.0.len());
        into[..count].copy_from_slice(&self.0[..count]);
        self.0.drain(..count);
        Ok(count)
    }
}
