//! Passes a request on through `wasi:http` 0.3, to the URL in its header `x-to`, and the
//! answer back, both bodies as they come. What goes wrong is a 502 that names the error.
//! Built with the standard bindings alone.

use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Proxy);

struct Proxy;

/// What a header says.
fn header(headers: &Fields, name: &str) -> String {
    let values = headers.get(name);
    values.first().map_or(String::new(), |value| {
        String::from_utf8_lossy(value).into_owned()
    })
}

/// The same request for a URL.
fn outgoing(request: Request) -> Result<Request, ErrorCode> {
    let url = header(&request.get_headers(), "x-to");
    let (scheme, rest) = url
        .split_once("://")
        .ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    let method = request.get_method();
    // Nobody tells the sender how it went.
    let (_, well) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, well);
    let (outgoing, _sent) = Request::new(Fields::new(), Some(body), trailers, None);
    outgoing.set_method(&method).map_err(invalid)?;
    outgoing.set_scheme(Some(&scheme)).map_err(invalid)?;
    outgoing.set_authority(Some(authority)).map_err(invalid)?;
    let path = format!("/{path}");
    outgoing.set_path_with_query(Some(&path)).map_err(invalid)?;
    Ok(outgoing)
}

async fn pass_on(request: Request) -> Result<Response, ErrorCode> {
    let answer = client::send(outgoing(request)?).await?;
    let status = answer.get_status_code();
    let headers = Fields::new();
    let named = header(&answer.get_headers(), "x-name").into_bytes();
    let _ = headers.set("x-name", &[named]);
    let (_, well) = wit_future::new(|| Ok(()));
    let (body, trailers) = Response::consume_body(answer, well);
    let (response, _sent) = Response::new(headers, Some(body), trailers);
    let _ = response.set_status_code(status);
    Ok(response)
}

fn failed(code: &ErrorCode) -> Response {
    let (mut body, contents) = wit_stream::new();
    let (_, ends) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(contents), ends);
    let _ = response.set_status_code(502);
    let text = format!("{code:?}").into_bytes();
    wit_bindgen::spawn_local(async move {
        body.write_all(text).await;
    });
    response
}

impl wasip3::exports::http::handler::Guest for Proxy {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        Ok(pass_on(request).await.unwrap_or_else(|code| failed(&code)))
    }
}
