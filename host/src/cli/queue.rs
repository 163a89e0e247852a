//! `dunlin queue`

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use super::Exit;
use super::client::{HostArgs, Payload};
use crate::function::parse_duration;
use crate::queue::{InvalidQueueName, QueueName};

/// Look into the queues of a running host, and change what is in them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with queues.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the queues, with how many messages they have
    ///
    /// One line each: NAME, then messages that wait, that are in flight, that are delayed.
    Ls {
        /// The host
        #[command(flatten)]
        host: HostArgs,
    },
    /// Send a message, and print its id
    Send {
        /// The queue
        #[arg(value_name = "QUEUE", value_parser = name)]
        queue: QueueName,
        /// What it says: text, the file `@FILE`, or `@-` for stdin
        #[arg(long, value_name = "TEXT|@FILE|@-")]
        data: Payload,
        /// How long it is hidden, in whole seconds, such as `5s`
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        delay: Option<std::time::Duration>,
        /// FIFO queues: the group whose order is kept
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
        /// FIFO queues: what tells a duplicate
        #[arg(long, value_name = "ID")]
        deduplication: Option<String>,
        /// The host
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show messages, those that come next first, without receiving them
    ///
    /// One JSON object a line.
    Peek {
        /// The queue
        #[arg(value_name = "QUEUE", value_parser = name)]
        queue: QueueName,
        /// How many at most
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 10)]
        most: u32,
        /// The host
        #[command(flatten)]
        host: HostArgs,
    },
    /// Send dead letters back to the queues they came from, and print how many
    Redrive {
        /// The dead-letter queue
        #[arg(value_name = "QUEUE", value_parser = name)]
        queue: QueueName,
        /// How many at most; all by default
        #[arg(short = 'n', long, value_name = "NUMBER")]
        most: Option<u64>,
        /// The host
        #[command(flatten)]
        host: HostArgs,
    },
    /// Drop all messages of a queue, those in flight too, and print how many
    Purge {
        /// The queue
        #[arg(value_name = "QUEUE", value_parser = name)]
        queue: QueueName,
        /// The host
        #[command(flatten)]
        host: HostArgs,
    },
}

fn name(text: &str) -> Result<QueueName, InvalidQueueName> {
    // Also those that `ls` shows of the host's own.
    QueueName::stored(text)
}

/// As the API names a queue: the rest of the URL does not count.
fn url(queue: &QueueName) -> String {
    format!("http://host/account/{queue}")
}

/// Does it, and prints what comes of it.
///
/// # Errors
/// If the host is not reached, or refuses.
pub async fn run(args: &Args) -> anyhow::Result<Exit> {
    let text = match &args.command {
        Command::Ls { host } => {
            let answer = host.operate("Dunlin.ListQueueDepths", &json!({})).await?;
            let queues = answer["Queues"].as_array().cloned().unwrap_or_default();
            let line = |queue: &Value| {
                let cell = |name: &str| match &queue[name] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                format!(
                    "{}\t{}\t{}\t{}\n",
                    cell("Name"),
                    cell("Waiting"),
                    cell("InFlight"),
                    cell("Delayed")
                )
            };
            queues.iter().map(line).collect()
        }
        Command::Send {
            queue,
            data,
            delay,
            group,
            deduplication,
            host,
        } => {
            let data = data.read()?;
            let body = std::str::from_utf8(&data).context("--data: a message is UTF-8 text")?;
            let mut request = json!({ "QueueUrl": url(queue), "MessageBody": body });
            if let Some(delay) = delay {
                request["DelaySeconds"] = delay.as_secs().into();
            }
            for (name, value) in [
                ("MessageGroupId", group),
                ("MessageDeduplicationId", deduplication),
            ] {
                if let Some(value) = value {
                    request[name] = value.as_str().into();
                }
            }
            let answer = host.operate("AmazonSQS.SendMessage", &request).await?;
            format!("{}\n", answer["MessageId"].as_str().unwrap_or_default())
        }
        Command::Peek { queue, most, host } => {
            let request = json!({ "QueueUrl": url(queue), "Most": most });
            let answer = host.operate("Dunlin.PeekQueue", &request).await?;
            let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
            messages
                .iter()
                .map(|message| format!("{message}\n"))
                .collect()
        }
        Command::Redrive { queue, most, host } => {
            let request = json!({ "QueueUrl": url(queue), "Most": most });
            let answer = host.operate("Dunlin.RedriveQueue", &request).await?;
            format!("{}\n", answer["Messages"])
        }
        Command::Purge { queue, host } => {
            let request = json!({ "QueueUrl": url(queue) });
            let answer = host.operate("Dunlin.PurgeQueue", &request).await?;
            format!("{}\n", answer["Messages"])
        }
    };
    super::print(text.as_bytes())?;
    Ok(Exit::Ok)
}
