//! The attributes of a queue, as SQS names and writes them: all of them text.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::error::SqsError;
use crate::queue::{Depth, QueueInfo, QueueName, QueueSettings, Redrive};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
    max_receive_count: Count,
}

/// Clients write it as a number or as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u32),
    Text(String),
}

/// Settings with these attributes changed.
///
/// # Errors
/// If one is unknown, cannot be set, or has a value that is not accepted.
pub(super) fn settings(
    mut settings: QueueSettings,
    attributes: &BTreeMap<String, String>,
) -> Result<QueueSettings, SqsError> {
    for (name, value) in attributes {
        let invalid = |reason: &str| SqsError::InvalidAttribute {
            name: name.clone(),
            reason: reason.to_owned(),
        };
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| invalid("it is not a number."))
        };
        match name.as_str() {
            "VisibilityTimeout" => settings.visibility = Duration::from_secs(number()?),
            "DelaySeconds" => settings.delay = Duration::from_secs(number()?),
            "MessageRetentionPeriod" => settings.retention = Duration::from_secs(number()?),
            "MaximumMessageSize" => settings.max_message = number()?,
            "ContentBasedDeduplication" => {
                let parsed = value
                    .parse()
                    .map_err(|_| invalid("it is neither true nor false."));
                settings.content_deduplication = parsed?;
            }
            "RedrivePolicy" => settings.redrive = redrive(value).map_err(|why| invalid(&why))?,
            // Says what the name says.
            "FifoQueue" => {}
            // Every client says how long it waits by itself.
            "ReceiveMessageWaitTimeSeconds" if number()? == 0 => {}
            "ReceiveMessageWaitTimeSeconds" => {
                return Err(invalid(
                    "set WaitTimeSeconds with each ReceiveMessage here.",
                ));
            }
            _ => return Err(SqsError::UnknownAttribute(name.clone())),
        }
    }
    Ok(settings)
}

/// An empty text takes the policy away.
fn redrive(text: &str) -> Result<Option<Redrive>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let policy: RedrivePolicy =
        serde_json::from_str(text).map_err(|error| format!("it is no redrive policy: {error}."))?;
    let target = policy.dead_letter_target_arn;
    let name = target.rsplit(':').next().unwrap_or_default();
    let max_receives = match policy.max_receive_count {
        Count::Number(number) => number,
        Count::Text(text) => text
            .parse()
            .map_err(|_| "maxReceiveCount is not a number.")?,
    };
    Ok(Some(Redrive {
        target: QueueName::new(name)
            .map_err(|_| format!("deadLetterTargetArn {target} is no queue's."))?,
        max_receives,
    }))
}

/// All attributes of a queue.
pub(super) fn of(
    info: &QueueInfo,
    depth: Depth,
    arn: impl Fn(&QueueName) -> String,
) -> BTreeMap<&'static str, String> {
    let settings = &info.settings;
    let seconds = |duration: Duration| duration.as_secs().to_string();
    let waiting = depth
        .messages
        .saturating_sub(depth.in_flight + depth.delayed);
    let mut all = BTreeMap::from([
        ("QueueArn", arn(&info.name)),
        ("ApproximateNumberOfMessages", waiting.to_string()),
        (
            "ApproximateNumberOfMessagesNotVisible",
            depth.in_flight.to_string(),
        ),
        (
            "ApproximateNumberOfMessagesDelayed",
            depth.delayed.to_string(),
        ),
        ("CreatedTimestamp", (info.created / 1000).to_string()),
        ("LastModifiedTimestamp", (info.modified / 1000).to_string()),
        ("VisibilityTimeout", seconds(settings.visibility)),
        ("DelaySeconds", seconds(settings.delay)),
        ("MessageRetentionPeriod", seconds(settings.retention)),
        ("MaximumMessageSize", settings.max_message.to_string()),
        ("ReceiveMessageWaitTimeSeconds", "0".to_owned()),
    ]);
    if let Some(redrive) = &settings.redrive {
        let policy = serde_json::json!({
            "deadLetterTargetArn": arn(&redrive.target),
            "maxReceiveCount": redrive.max_receives,
        });
        all.insert("RedrivePolicy", policy.to_string());
    }
    if info.name.is_fifo() {
        all.insert("FifoQueue", "true".to_owned());
        let content = settings.content_deduplication;
        all.insert("ContentBasedDeduplication", content.to_string());
    }
    all
}

/// Those of them that were asked for; one that a queue may have and this one has not is
/// left out.
///
/// # Errors
/// If SQS has none of that name.
pub(super) fn chosen(
    mut all: BTreeMap<&'static str, String>,
    names: &[String],
) -> Result<BTreeMap<&'static str, String>, SqsError> {
    if names.iter().any(|name| name == "All") {
        return Ok(all);
    }
    const OTHERS: [&str; 7] = [
        "Policy",
        "RedrivePolicy",
        "RedriveAllowPolicy",
        "FifoQueue",
        "ContentBasedDeduplication",
        "KmsMasterKeyId",
        "SqsManagedSseEnabled",
    ];
    let known = |name: &String| all.contains_key(name.as_str()) || OTHERS.contains(&name.as_str());
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(SqsError::UnknownAttribute(unknown.clone()));
    }
    all.retain(|name, _| names.iter().any(|wanted| wanted == name));
    Ok(all)
}
