//! `dunlin invoke`

use std::convert::Infallible;
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;

use super::Exit;
use crate::api::credentials::{Credentials, FILE_NAME};
use crate::api::sigv4::{PayloadHash, Signer};
use crate::function::{FunctionName, InvalidName};

/// Invoke a function on a running host.
///
/// Its answer goes to stdout. The request is signed with the key in the state folder of
/// the host.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The function, and a version or alias of it
    #[arg(value_name = "NAME[:QUALIFIER]")]
    pub target: Target,

    /// The event: JSON, the file `@FILE`, or `@-` for stdin
    #[arg(long, value_name = "JSON|@FILE|@-", default_value = "{}")]
    pub data: Payload,

    /// The Lambda API of the host
    #[arg(
        long,
        value_name = "URL",
        env = "DUNLIN_URL",
        default_value = "http://127.0.0.1:3001",
        value_parser = parse_url
    )]
    pub host: String,

    /// Folder of the host's state, which has the key
    #[arg(long, value_name = "DIR", env = "DUNLIN_STATE", default_value = super::STATE_DIR)]
    pub state: PathBuf,

    /// Whether to run the function or only to see that it could be
    #[arg(
        long = "type",
        value_name = "TYPE",
        value_enum,
        ignore_case = true,
        default_value = "RequestResponse"
    )]
    pub invocation_type: InvocationType,

    /// Print the end of the invocation's log to stderr
    #[arg(long)]
    pub log: bool,
}

/// Lambda's `InvocationType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum InvocationType {
    /// Run it and wait for the answer.
    #[value(name = "RequestResponse")]
    RequestResponse,
    /// See whether it could be invoked.
    #[value(name = "DryRun")]
    DryRun,
}

impl InvocationType {
    /// The word that Lambda's API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestResponse => "RequestResponse",
            Self::DryRun => "DryRun",
        }
    }
}

/// A function, and a version or alias of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The function.
    pub name: FunctionName,
    /// A version, an alias or `$LATEST`.
    pub qualifier: Option<String>,
}

/// A text that names no function, or no version of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// The part before the colon.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The part after it.
    #[error(
        "`{0}` names no version or alias: use 1 to 128 letters, digits, `-` and `_`, or `$LATEST`"
    )]
    Qualifier(String),
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let Some((name, qualifier)) = text.split_once(':') else {
            let name = FunctionName::new(text)?;
            return Ok(Self {
                name,
                qualifier: None,
            });
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let is_word = (1..=128).contains(&qualifier.len()) && qualifier.bytes().all(allowed);
        if !is_word && qualifier != "$LATEST" {
            return Err(InvalidTarget::Qualifier(qualifier.to_owned()));
        }
        Ok(Self {
            name: FunctionName::new(name)?,
            qualifier: Some(qualifier.to_owned()),
        })
    }
}

/// Where the event comes from.
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

/// Invokes, and prints the answer.
///
/// # Errors
/// If the host is not reached, or refuses.
pub async fn run(args: &Args) -> anyhow::Result<Exit> {
    let payload = args.data.read()?;
    let authority = args.host.strip_prefix("http://").unwrap_or(&args.host);
    let name = &args.target.name;
    let qualifier = args
        .target
        .qualifier
        .as_ref()
        .map(|q| format!("?Qualifier={}", q.replace('$', "%24")));
    let target = format!(
        "/2015-03-31/functions/{name}/invocations{}",
        qualifier.unwrap_or_default()
    );
    let request = Request::post(target)
        .header("host", authority)
        .header("content-type", "application/json")
        .header("x-amz-invocation-type", args.invocation_type.as_str())
        .header("x-amz-log-type", if args.log { "Tail" } else { "None" });
    let (mut parts, ()) = request.body(())?.into_parts();
    let key = args.state.join(FILE_NAME);
    // A host that takes unsigned requests may be on a machine without the key.
    if key.exists() {
        let credentials = Credentials::load(&key)?;
        Signer {
            credentials: &credentials,
            region: REGION,
            service: "lambda",
        }
        .sign(
            &mut parts,
            &PayloadHash::of(&payload),
            time::OffsetDateTime::now_utc(),
        )?;
    }
    let stream = tokio::net::TcpStream::connect(authority)
        .await
        .with_context(|| {
            format!(
                "no host answers at {}; start one with `dunlin up`, or name it with --host",
                args.host
            )
        })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender
        .send_request(Request::from_parts(parts, Full::new(payload)))
        .await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();

    if !head.status.is_success() {
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
    if let Some(log) = head.headers.get("x-amz-log-result") {
        let log = STANDARD.decode(log.as_bytes())?;
        eprint!("{}", String::from_utf8_lossy(&log));
    }
    if !body.is_empty() {
        super::print(&body)?;
        super::print(b"\n")?;
    }
    let failed = head.headers.contains_key("x-amz-function-error");
    Ok(if failed {
        Exit::FunctionFailed
    } else {
        Exit::Ok
    })
}

impl Payload {
    fn read(&self) -> anyhow::Result<Bytes> {
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
