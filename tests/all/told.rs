//! Guests that do what their path says, and answer `{ "ok": … }` or `{ "error": … }`.

use dunlin_tests::Host;
use serde_json::{Value, json};

/// What the guest answers.
#[track_caller]
pub(crate) fn does(host: &Host, target: &str) -> Value {
    let response = host.get(target);
    assert_eq!(response.status, 200, "{target}: {response:?}");
    response.json()
}

/// It succeeds, with this.
#[track_caller]
pub(crate) fn ok(host: &Host, target: &str, expected: impl Into<Value>) {
    let expected = expected.into();
    assert_eq!(does(host, target), json!({ "ok": expected }), "{target}");
}

/// It meets this error.
#[track_caller]
pub(crate) fn refused(host: &Host, target: &str, error: &str) {
    assert_eq!(does(host, target), json!({ "error": error }), "{target}");
}
