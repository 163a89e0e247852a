//! Answers with the body of its request, as it comes, through its own memory.

use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

/// What one read asks for: as much as a host gives at once.
const PIECE: u64 = 64 << 10;

struct Echo;

wasip2::http::proxy::export!(Echo);

impl wasip2::exports::http::incoming_handler::Guest for Echo {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        let incoming = request.consume().expect("a new request has its body");
        let from = incoming.stream().expect("a new body has its stream");
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("a new response has its body");
        let to = body.write().expect("a new body has its stream");
        ResponseOutparam::set(outparam, Ok(response));
        let ready = to.subscribe();
        loop {
            let piece = match from.blocking_read(PIECE) {
                Ok(piece) => piece,
                Err(StreamError::Closed) => break,
                Err(error) => panic!("the request breaks off: {error:?}"),
            };
            let mut rest = piece.as_slice();
            while !rest.is_empty() {
                let room = to.check_write().expect("the answer is read") as usize;
                if room == 0 {
                    ready.block();
                    continue;
                }
                let (now, later) = rest.split_at(room.min(rest.len()));
                to.write(now).expect("there is room");
                rest = later;
            }
        }
        drop((ready, to));
        OutgoingBody::finish(body, None).expect("there was no length");
    }
}
