//! What a toolchain builds that cannot export an `async func`: the synchronous
//! twins of `http` and `invoke`.

mod http {
    wit_bindgen::generate!({ path: "../../../wit", world: "http-function-sync" });

    use exports::dunlin::event::http_sync::{Guest, Request, Response};

    struct Handler;

    impl Guest for Handler {
        fn handle(request: Request) -> Response {
            let body = format!("{} {}", request.method, request.path_with_query);
            Response {
                status: 200,
                headers: Vec::new(),
                body: body.into_bytes(),
            }
        }
    }

    export!(Handler);
}

mod invoke {
    wit_bindgen::generate!({ path: "../../../wit", world: "invoke-function-sync" });

    use exports::dunlin::event::invoke_sync::{FunctionError, Guest};

    struct Handler;

    impl Guest for Handler {
        fn handle(payload: Vec<u8>) -> Result<Vec<u8>, FunctionError> {
            if payload == b"\"fail\"" {
                return Err(FunctionError {
                    error_type: "Asked".into(),
                    message: "as asked".into(),
                    stack_trace: Vec::new(),
                });
            }
            Ok(payload)
        }
    }

    export!(Handler);
}
