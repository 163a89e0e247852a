//! A running host, as the subcommands that ask it something reach it.

use std::convert::Infallible;
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, request, response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::api::credentials::{Credentials, FILE_NAME};
use crate::api::sigv4::{PayloadHash, Signer};

/// Where the host is, and its key.
#[derive(Clone, Debug, clap::Args)]
pub struct HostArgs {
    /// The admin address of the host
    #[arg(
        long = "host",
        value_name = "URL",
        env = "DUNLIN_URL",
        default_value = "http://127.0.0.1:3001",
        value_parser = parse_url
    )]
    pub url: String,

    /// Folder of the host's state, which has the key
    #[arg(long, value_name = "DIR", env = "DUNLIN_STATE", default_value = super::STATE_DIR)]
    pub state: PathBuf,
}

/// A text that is no URL of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no URL of a host: write one such as `http://127.0.0.1:3001`")]
pub struct InvalidUrl;

fn parse_url(text: &str) -> Result<String, InvalidUrl> {
    let authority = text.strip_prefix("http://").ok_or(InvalidUrl)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
        return Err(InvalidUrl);
    }
    Ok(format!("http://{authority}"))
}

/// The region that our own signatures name; the host takes any.
const REGION: &str = "edge-1";

impl HostArgs {
    /// Does an operation of the SQS API, or one of our own beside them.
    ///
    /// # Errors
    /// If the host is not reached, or refuses.
    pub(super) async fn operate(&self, operation: &str, body: &Value) -> anyhow::Result<Value> {
        let request = Request::post("/")
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", operation);
        let (_, answer) = self.ask("sqs", request, body.to_string().into()).await?;
        serde_json::from_slice(&answer).context("the host's answer is not JSON")
    }

    /// Sends a request, signed for this service if there is a key, and reads the answer.
    ///
    /// # Errors
    /// If the host is not reached, or refuses.
    pub(super) async fn ask(
        &self,
        service: &str,
        request: request::Builder,
        body: Bytes,
    ) -> anyhow::Result<(response::Parts, Bytes)> {
        let authority = self.url.strip_prefix("http://").unwrap_or(&self.url);
        let (mut parts, ()) = request.header("host", authority).body(())?.into_parts();
        let key = self.state.join(FILE_NAME);
        // A host that takes unsigned requests may be on a machine without the key.
        if key.exists() {
            let credentials = Credentials::load(&key)?;
            Signer {
                credentials: &credentials,
                region: REGION,
                service,
            }
            .sign(
                &mut parts,
                &PayloadHash::of(&body),
                time::OffsetDateTime::now_utc(),
            )?;
        }
        let stream = tokio::net::TcpStream::connect(authority)
            .await
            .with_context(|| {
                format!(
                    "no host answers at {}; start one with `dunlin up`, or name it with --host",
                    self.url
                )
            })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let response = sender
            .send_request(Request::from_parts(parts, Full::new(body)))
            .await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        connection.abort();
        if head.status.is_success() {
            return Ok((head, body));
        }
        let code = head
            .headers
            .get("x-amzn-errortype")
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        let text = String::from_utf8_lossy(&body);
        let hint = if code == "MissingAuthenticationTokenException" {
            format!(
                "; the key is looked for in {}: name the host's state folder with --state",
                key.display()
            )
        } else {
            String::new()
        };
        anyhow::bail!(
            "the host answers {} {code}: {text}{hint}",
            head.status.as_u16()
        );
    }
}

/// Where what is sent comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The command line.
    Inline(String),
    /// A file.
    File(PathBuf),
    /// Stdin.
    Stdin,
}

impl FromStr for Payload {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix('@') {
            None => Self::Inline(text.to_owned()),
            Some("-") => Self::Stdin,
            Some(file) => Self::File(file.into()),
        })
    }
}

impl Payload {
    pub(super) fn read(&self) -> anyhow::Result<Bytes> {
        Ok(match self {
            Self::Inline(text) => Bytes::copy_from_slice(text.as_bytes()),
            Self::File(file) => std::fs::read(file)
                .with_context(|| format!("--data: cannot read {}", file.display()))?
                .into(),
            Self::Stdin => {
                let mut bytes = Vec::new();
                std::io::stdin()
                    .lock()
                    .read_to_end(&mut bytes)
                    .context("--data: cannot read stdin")?;
                bytes.into()
            }
        })
    }
}
