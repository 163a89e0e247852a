//! Logs with the crate `tracing`, by the SDK without its default features.

use dunlin_sdk::{Request, Response};

#[dunlin_sdk::http]
fn handle(request: Request) -> Response {
    tracing::error!("an error");
    let span = tracing::info_span!("order", id = 7, total = tracing::field::Empty);
    span.in_scope(|| {
        span.record("total", 2.5);
        tracing::warn!(country = "de", path = request.path(), "low on {}", "tea");
    });
    tracing::info!(done = true, "outside of the span");
    tracing::debug!("dropped");
    Response::text("logged\n")
}
