//! Greets: `GET /hello` answers `Hello, world!`, `GET /hello/{name}` greets by name.

use dunlin_sdk::{Request, Response};

#[dunlin_sdk::http]
fn hello(request: Request) -> Response {
    match request.param("name") {
        Some(name) => Response::text(format!("Hello, {name}!\n")),
        None => Response::text("Hello, world!\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_greeted_unless_somebody_has_a_name() {
        let world = hello(Request::new("GET", "/hello"));
        assert_eq!(world.body(), b"Hello, world!\n");

        let ada = hello(Request::new("GET", "/hello/ada").with_param("name", "ada"));
        assert_eq!(ada.body(), b"Hello, ada!\n");
    }
}
