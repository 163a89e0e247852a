//! Answers over `wasi:http` 0.3 what the host says of the request, before and after it
//! has waited: in one instance with others.

use std::time::Duration;

use dunlin_sdk::Context;
use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Observer);

struct Observer;

/// Takes its time, in each instance, where it is told to.
#[dunlin_sdk::init]
fn prepare() -> Result<(), String> {
    let pause = std::env::var("PAUSE").ok();
    if let Some(pause) = pause.and_then(|pause| pause.parse().ok()) {
        std::thread::sleep(Duration::from_millis(pause));
    }
    Ok(())
}

fn seen() -> String {
    let context = Context::current();
    let secret = context.secret("KEY").unwrap_or_default();
    format!(
        "{} {} {secret}",
        context.request_id(),
        context.remaining_time().as_millis() > 0
    )
}

impl wasip3::exports::http::handler::Guest for Observer {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let before = seen();
        let pause = Duration::from_millis(300);
        monotonic_clock::wait_for(pause.as_nanos() as u64).await;
        let text = format!("{before}\n{}", seen());
        let (mut body, contents) = wit_stream::new();
        let (trailers, ends) = wit_future::new(|| Ok(None));
        drop(trailers);
        let (response, _) = Response::new(Fields::new(), Some(contents), ends);
        wit_bindgen::spawn_local(async move {
            body.write_all(text.into_bytes()).await;
            // What its task does after it has returned is still the request's.
            body.write_all(format!("\n{}", seen()).into_bytes()).await;
        });
        Ok(response)
    }
}
