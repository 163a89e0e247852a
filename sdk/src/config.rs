//! Configuration: the values of the function's table `config` in the manifest
//! (`[function.NAME.config]`).
//!
//! ```
//! use dunlin_sdk::{Request, Response, config};
//!
//! #[dunlin_sdk::http]
//! fn handle(_request: Request) -> Response {
//!     let greeting = config::get("greeting").unwrap_or("Hello".to_owned());
//!     Response::text(greeting)
//! }
//! # config::set("greeting", "Moin");
//! # assert_eq!(handle(Request::new("GET", "/")).body(), b"Moin");
//! ```
//!
//! They are no environment variables: neither is among the other. Unlike those, they are not
//! copied into each instance, and may be 64 KiB together. What must stay secret is asked for
//! by [`Context::secret`](crate::Context::secret).
//!
//! The interface is `wasi:config@0.2.0-rc.1`. In tests on the build machine there is no host:
//! there a test says with [`set`] what its thread shall find.

#[cfg(target_arch = "wasm32")]
use crate::bindings::config::store as host;

/// The value of this name.
///
/// # Panics
///
/// Never on this host, which always has an answer.
pub fn get(name: &str) -> Option<String> {
    host::get(name).expect("the host has read its configuration")
}

/// All names with their values, sorted by name.
///
/// # Panics
///
/// Never on this host, which always has an answer.
pub fn all() -> Vec<(String, String)> {
    host::get_all().expect("the host has read its configuration")
}

#[cfg(not(target_arch = "wasm32"))]
pub use host::set;

#[cfg(not(target_arch = "wasm32"))]
mod host {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    thread_local! {
        static VALUES: RefCell<BTreeMap<String, String>> = RefCell::default();
    }

    /// Sets a value for this thread, in tests on the build machine. It is not there in a
    /// function.
    pub fn set(name: &str, value: &str) {
        VALUES.with_borrow_mut(|values| values.insert(name.to_owned(), value.to_owned()));
    }

    #[allow(clippy::unnecessary_wraps, reason = "the host's may fail")]
    pub(super) fn get(name: &str) -> Result<Option<String>, Infallible> {
        Ok(VALUES.with_borrow(|values| values.get(name).cloned()))
    }

    #[allow(clippy::unnecessary_wraps, reason = "the host's may fail")]
    pub(super) fn get_all() -> Result<Vec<(String, String)>, Infallible> {
        Ok(VALUES.with_borrow(|values| values.clone().into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_sets_is_found_sorted_by_name() {
        assert_eq!(get("a"), None);
        set("b", "2");
        set("a", "1");
        assert_eq!(get("a").as_deref(), Some("1"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(all(), [pair("a", "1"), pair("b", "2")]);
    }
}
