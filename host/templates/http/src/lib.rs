use dunlin_sdk::{Request, Response};

#[dunlin_sdk::http]
fn handle(request: Request) -> Response {
    let name = request.param("name").unwrap_or("world");
    Response::text(format!("Hello, {name}!\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets_by_name() {
        let request = Request::new("GET", "/hello/ada").with_param("name", "ada");
        assert_eq!(handle(request).body(), b"Hello, ada!\n");
    }
}
