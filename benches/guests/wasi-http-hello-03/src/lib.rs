//! The same hello as `guest-examples/hello`, through `wasi:http` 0.3.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

const GREETING: &[u8] = b"Hello, world!\n";

struct Hello;

wasip3::http::service::export!(Hello);

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let headers = Fields::from_list(&[
            (
                "content-type".to_owned(),
                b"text/plain; charset=utf-8".to_vec(),
            ),
            (
                "content-length".to_owned(),
                GREETING.len().to_string().into_bytes(),
            ),
        ])
        .expect("these are headers");
        let (mut body, contents) = wit_stream::new();
        let (trailers, ends) = wit_future::new(|| Ok(None));
        drop(trailers);
        let (response, _) = Response::new(headers, Some(contents), ends);
        wit_bindgen::spawn_local(async move {
            let left = body.write_all(GREETING.to_vec()).await;
            assert!(left.is_empty(), "the body is taken");
        });
        Ok(response)
    }
}
