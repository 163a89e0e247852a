//! The queues that the manifest declares, and those that the host keeps for itself.

use std::collections::HashSet;
use std::time::Duration;

use super::Others;
use crate::config::Config;
use crate::function::FunctionSpec;
use crate::function::events::{DEAD_LETTERS, DEAD_LETTERS_FIFO};
use crate::queue::settings::{MESSAGE_RANGE, RETENTION_RANGE};
use crate::queue::{Owner, QueueError, QueueName, QueueSettings, QueueStore};
use crate::telemetry::{Level, Telemetry};
use crate::trigger::asynchronous::{queue_of, records_of};

/// Bytes of the events of one function that may wait.
const MAX_BACKLOG_BYTES: u64 = 1 << 30;
/// Longer than any event may become old.
const EVENTS_RETENTION: Duration = Duration::from_hours(365 * 24);

/// Makes the queues what the configuration says. Of one that is no longer needed and has
/// messages in it the log says so: it stays.
pub(super) async fn declare(
    queues: &dyn QueueStore,
    config: &Config,
    others: Others,
    telemetry: &Telemetry,
) -> Result<(), QueueError> {
    let own = own(config);
    // First: others send their dead letters there.
    queues.put(own.clone(), Owner::Host).await?;
    queues.put(config.queues.clone(), Owner::Manifest).await?;
    let declared = own.iter().chain(&config.queues).map(|(name, _)| name);
    let declared: HashSet<&QueueName> = declared.collect();
    let mut all = queues.list().await?;
    // Those that send dead letters go before those that get them.
    all.sort_by_key(|info| info.settings.redrive.is_none());
    for info in all {
        if info.owner == Owner::Api || declared.contains(&info.name) {
            continue;
        }
        let name = info.name;
        let deleted = match others {
            Others::Go => queues.delete_if_empty(name.clone()).await,
            Others::Stay => Ok(false),
        };
        let kept = match deleted {
            Ok(true) => None,
            Ok(false) => match queues.depth(name.clone()).await?.messages {
                0 => None,
                messages => Some(format!("messages in it: {messages}")),
            },
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = kept {
            let message = format!(
                "the queue {name} is no longer in the manifest and stays: {why}; what is in it \
                 waits, or `dunlin queue purge {name}` drops it"
            );
            telemetry.log.host(Level::Warn, &message);
        }
    }
    Ok(())
}

/// The host's own: one for the events of each function, and those for dead letters that no
/// other queue is named for.
fn own(config: &Config) -> Vec<(QueueName, QueueSettings)> {
    let of_function = |spec: &FunctionSpec| {
        let settings = QueueSettings {
            // Ages are the function's own business, and end long before.
            retention: EVENTS_RETENTION,
            max_message: *MESSAGE_RANGE.end(),
            max_messages: spec.events.backlog.into(),
            max_bytes: MAX_BACKLOG_BYTES,
            ..QueueSettings::default()
        };
        (queue_of(&spec.name), settings)
    };
    let of_records = |spec: &FunctionSpec| {
        let settings = QueueSettings {
            // As above: they are given up before.
            retention: EVENTS_RETENTION,
            max_message: *MESSAGE_RANGE.end(),
            max_bytes: MAX_BACKLOG_BYTES,
            ..QueueSettings::default()
        };
        (records_of(&spec.name), settings)
    };
    let posting = config.functions.iter().filter(|spec| spec.events.posts());
    let dead_letters = [DEAD_LETTERS, DEAD_LETTERS_FIFO].map(|name| {
        let settings = QueueSettings {
            retention: *RETENTION_RANGE.end(),
            ..QueueSettings::default()
        };
        let name = QueueName::new(name).expect("it names a queue");
        (name, settings)
    });
    let is_declared = |name: &QueueName| config.queues.iter().any(|(other, _)| other == name);
    let dead_letters = dead_letters
        .into_iter()
        .filter(|(name, _)| !is_declared(name));
    config
        .functions
        .iter()
        .map(of_function)
        .chain(posting.map(of_records))
        .chain(dead_letters)
        .collect()
}
