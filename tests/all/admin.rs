//! The admin address: Lambda's Invoke as its clients speak it, the signatures
//! and the guard before it, and the operator's endpoints.

mod access;
mod boto3;
mod invoke;
mod javascript;
mod operator;
mod queues;
mod sign;

use dunlin_tests::{Host, Response};
use sign::Key;

/// The function `probe`, which can be invoked directly.
const PROBE: &str = r#"
[function.probe]
component = "{probe}"
timeout = "2s"
memory = "16MiB"
request-limit = "64KiB"
response-limit = "64KiB"

[[function.probe.http]]
path = "/probe"
"#;

/// Signs requests with the key in a host's state directory.
pub(crate) struct Api<'a> {
    host: &'a Host,
    pub(crate) key: Key,
}

impl<'a> Api<'a> {
    pub(crate) fn of(host: &'a Host) -> Self {
        Self {
            host,
            key: Key::read(&host.state().join("admin.key")),
        }
    }

    /// Sends a signed request.
    #[track_caller]
    pub(crate) fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let authority = self.host.admin.address().to_string();
        let mut all = vec![("host", authority.as_str())];
        all.extend_from_slice(headers);
        let signed = self.key.sign(method, target, &all, body);
        all.extend(
            signed
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        self.host.admin.request(method, target, &all, body)
    }

    /// Invokes a function, as it is named in the path.
    #[track_caller]
    pub(crate) fn invoke_with(
        &self,
        function: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send(
            "POST",
            &format!("/2015-03-31/functions/{function}/invocations"),
            headers,
            body,
        )
    }

    /// Invokes `probe`.
    #[track_caller]
    fn invoke(&self, event: serde_json::Value) -> Response {
        self.invoke_with("probe", &[], event.to_string().as_bytes())
    }
}

/// Checks an error in AWS's form; answers its body.
#[track_caller]
fn is_error(response: &Response, status: u16, code: &str) -> serde_json::Value {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(
        response.header("x-amzn-errortype"),
        Some(code),
        "{}",
        response.text()
    );
    assert!(
        response.header("x-amzn-requestid").is_some(),
        "{response:?}"
    );
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.json()
}
