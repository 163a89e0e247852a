//! The same hello as `guest-examples/hello`, through `wasi:http` 0.2, for `wasmtime serve`.
//!
//! As cheap as the interface allows: the headers in one call, with a length so that nothing is
//! chunked, and the body in one call. Handing the response over after its body, not before, measured
//! the same.

use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

const GREETING: &[u8] = b"Hello, world!\n";

struct Hello;

wasip2::http::proxy::export!(Hello);

impl wasip2::exports::http::incoming_handler::Guest for Hello {
    fn handle(_request: IncomingRequest, outparam: ResponseOutparam) {
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
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("a new response has its body");
        let stream = body.write().expect("a new body has its stream");
        ResponseOutparam::set(outparam, Ok(response));
        stream
            .blocking_write_and_flush(GREETING)
            .expect("the body is taken");
        drop(stream);
        OutgoingBody::finish(body, None).expect("the length is right");
    }
}
