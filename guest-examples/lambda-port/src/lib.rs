//! A handler for AWS Lambda behind an HTTP API, as it would stand there.
//!
//! Three lines differ from the original: the attribute replaces `main`, which
//! called `lambda_runtime::run(service_fn(handler))`, and `Error` and
//! `LambdaEvent` come from `dunlin_sdk` instead of `lambda_runtime`. Bound to
//! the route `/lambda`, it receives API Gateway's event, format 2.0.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use aws_lambda_events::encodings::Body;
use aws_lambda_events::http::header::CONTENT_TYPE;
use aws_lambda_events::http::{HeaderMap, HeaderValue};
use dunlin_sdk::{Error, LambdaEvent};
use serde_json::json;

#[dunlin_sdk::invoke]
async fn handler(
    event: LambdaEvent<ApiGatewayV2httpRequest>,
) -> Result<ApiGatewayV2httpResponse, Error> {
    let (request, context) = event.into_parts();
    let name = request
        .query_string_parameters
        .first("name")
        .unwrap_or("world");
    let body = json!({
        "message": format!("Hello, {name}!"),
        "method": request.request_context.http.method.as_str(),
        "path": request.raw_path,
        "function": context.env_config.function_name,
        "requestId": context.request_id,
    });

    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));

    let mut response = ApiGatewayV2httpResponse::default();
    response.status_code = 200;
    response.headers = headers;
    response.body = Some(Body::Text(body.to_string()));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use aws_lambda_events::query_map::QueryMap;
    use dunlin_sdk::lambda;
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_name_in_the_query_is_greeted() {
        let mut request = ApiGatewayV2httpRequest::default();
        request.query_string_parameters =
            QueryMap::from(HashMap::from([("name".to_owned(), "ada".to_owned())]));
        let event = LambdaEvent::new(request, lambda::Context::default());

        // The handler awaits nothing, so it is ready when it is first polled.
        let handled = pin!(handler(event)).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(response)) = handled else {
            panic!("not ready, or an error: {handled:?}");
        };
        let Some(Body::Text(body)) = response.body else {
            panic!("no text: {response:?}");
        };
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["message"], "Hello, ada!");
    }
}
