//! `dunlin invoke`

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;

use super::Exit;
use super::client::{HostArgs, Payload};
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

    #[command(flatten)]
    pub host: HostArgs,

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

/// Invokes, and prints the answer.
///
/// # Errors
/// If the host is not reached, or refuses.
pub async fn run(args: &Args) -> anyhow::Result<Exit> {
    let payload = args.data.read()?;
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
        .header("content-type", "application/json")
        .header("x-amz-invocation-type", args.invocation_type.as_str())
        .header("x-amz-log-type", if args.log { "Tail" } else { "None" });
    let (head, body) = args.host.ask("lambda", request, payload).await?;
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
