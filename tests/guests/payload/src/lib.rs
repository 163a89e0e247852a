//! Exports `dunlin:event/invoke` alone: behind a route it receives the event
//! of API Gateway, and answers in its form.
//!
//! With the query `answer` it answers the text of the request's body as it is;
//! with `fail` it fails; else it answers the event that it received.

use dunlin_sdk::{FunctionError, Raw};
use serde_json::Value;

#[dunlin_sdk::invoke]
fn handle(Raw(event): Raw) -> Result<Raw, FunctionError> {
    let parsed: Value = serde_json::from_slice(&event).expect("the host sends JSON");
    match parsed["rawQueryString"].as_str() {
        Some("answer") => {
            let text = parsed["body"].as_str().unwrap_or_default();
            Ok(Raw(text.as_bytes().to_vec()))
        }
        Some("fail") => Err(FunctionError::new("Failed", "as asked")),
        _ => Ok(Raw(event)),
    }
}
