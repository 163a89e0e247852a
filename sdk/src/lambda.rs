//! For handlers that were written for AWS Lambda.
//!
//! A handler for the crate `lambda_runtime` works as it is: exchange its `main`
//! for the attribute and its imports for those of this crate.
//!
//! ```
//! use dunlin_sdk::{Error, LambdaEvent};
//! use serde_json::{Value, json};
//!
//! #[dunlin_sdk::invoke]
//! async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
//!     let (event, context) = event.into_parts();
//!     let name = event["name"].as_str().unwrap_or("world");
//!     Ok(json!({ "message": format!("Hello, {name}!"), "id": context.request_id }))
//! }
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{FromEvent, FunctionError};

/// An event with its context, as `lambda_runtime::LambdaEvent`.
#[derive(Clone, Debug)]
pub struct LambdaEvent<T> {
    /// The event.
    pub payload: T,
    /// What is known about the invocation.
    pub context: Context,
}

impl<T> LambdaEvent<T> {
    /// An event and its context.
    pub fn new(payload: T, context: Context) -> Self {
        Self { payload, context }
    }

    /// The event and its context.
    pub fn into_parts(self) -> (T, Context) {
        (self.payload, self.context)
    }
}

impl<T: FromEvent> FromEvent for LambdaEvent<T> {
    fn from_event(payload: Vec<u8>) -> Result<Self, FunctionError> {
        Ok(Self::new(T::from_event(payload)?, Context::current()))
    }
}

/// What is known about an invocation, as `lambda_runtime::Context`.
///
/// [`dunlin_sdk::Context`](crate::Context) asks the host for one thing at a
/// time, and so costs less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// Names the invocation: a UUID.
    pub request_id: String,
    /// When the invocation is ended: milliseconds since 1970-01-01T00:00:00Z.
    pub deadline: u64,
    /// The ARN the caller used, with the alias or version as the caller gave it.
    pub invoked_function_arn: String,
    /// The trace in X-Ray's form: `Root=1-…;Parent=…;Sampled=1`.
    pub xray_trace_id: Option<String>,
    /// What a direct caller sent as its client context.
    pub client_context: Option<ClientContext>,
    /// The Cognito identity of the caller. Dunlin has none: always `None`.
    pub identity: Option<CognitoIdentity>,
    /// The function's configuration.
    pub env_config: Arc<Config>,
}

impl Context {
    /// The context of the current invocation.
    pub fn current() -> Self {
        let context = crate::Context::current();
        Self {
            request_id: context.request_id(),
            deadline: context.deadline_ms(),
            invoked_function_arn: context.invoked_as(),
            xray_trace_id: context.traceparent().as_deref().and_then(xray_trace_id),
            client_context: context
                .client_context()
                .and_then(|json| serde_json::from_str(&json).ok()),
            identity: None,
            env_config: Arc::new(Config {
                function_name: context.function_name(),
                memory: i32::try_from(context.memory_limit() / (1024 * 1024)).unwrap_or(i32::MAX),
                version: context.version(),
                log_stream: context.log_stream(),
                log_group: context.log_group(),
            }),
        }
    }
}

/// The function's configuration, as `lambda_runtime::Config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The name under which the function is deployed.
    pub function_name: String,
    /// The cap on memory, in MiB.
    pub memory: i32,
    /// The version that runs: a number, or `$LATEST`.
    pub version: String,
    /// The stream of log lines this instance writes to.
    pub log_stream: String,
    /// Where the function's log lines go.
    pub log_group: String,
}

/// What a direct caller tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientContext {
    /// The application that calls.
    pub client: ClientApplication,
    /// Values of the application's own.
    pub custom: HashMap<String, String>,
    /// Values that its mobile SDK adds.
    #[serde(rename = "env")]
    pub environment: HashMap<String, String>,
}

/// The application that calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientApplication {
    /// The installation.
    #[serde(rename = "installationId", alias = "installation_id")]
    pub installation_id: String,
    /// The name of the application.
    #[serde(rename = "appTitle", alias = "app_title")]
    pub app_title: String,
    /// The name of its version.
    #[serde(rename = "appVersionName", alias = "app_version_name")]
    pub app_version_name: String,
    /// The number of its version.
    #[serde(rename = "appVersionCode", alias = "app_version_code")]
    pub app_version_code: String,
    /// The name of its package.
    #[serde(rename = "appPackageName", alias = "app_package_name")]
    pub app_package_name: String,
}

/// The Cognito identity of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CognitoIdentity {
    /// The identity.
    pub identity_id: String,
    /// The pool it belongs to.
    pub identity_pool_id: String,
}

/// W3C's `00-<32 hex>-<16 hex>-01` in X-Ray's words. `None` if it has another form.
fn xray_trace_id(traceparent: &str) -> Option<String> {
    let mut parts = traceparent.split('-').skip(1);
    let (trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let (epoch, unique) = trace.split_at_checked(8)?;
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
    Some(format!(
        "Root=1-{epoch}-{unique};Parent={parent};Sampled={sampled}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_told_in_xray_words() {
        assert_eq!(
            xray_trace_id("00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01").as_deref(),
            Some("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1")
        );
        assert_eq!(xray_trace_id("rubbish"), None);
    }

    #[test]
    fn a_client_context_may_be_partial() {
        let context: ClientContext =
            serde_json::from_str(r#"{"custom":{"a":"b"},"client":{"appTitle":"x"}}"#).unwrap();
        assert_eq!(context.custom["a"], "b");
        assert_eq!(context.client.app_title, "x");
        assert!(context.environment.is_empty());
    }

    #[test]
    fn an_event_comes_with_its_context() {
        let event = LambdaEvent::<Vec<u8>>::from_event(b"[1,2]".to_vec()).unwrap();
        let (payload, context) = event.into_parts();
        assert_eq!(payload, [1, 2]);
        assert_eq!(context, Context::current());
    }
}
