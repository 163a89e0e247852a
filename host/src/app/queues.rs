//! The queues that the manifest declares.

use crate::queue::{Owner, QueueError, QueueName, QueueSettings, QueueStore};
use crate::telemetry::{Level, Telemetry};

/// Makes the queues what the manifest says. One that it no longer declares goes if it is
/// empty; with messages in it, it stays, and the log says so.
pub(super) async fn declare(
    queues: &dyn QueueStore,
    declared: &[(QueueName, QueueSettings)],
    telemetry: &Telemetry,
) -> Result<(), QueueError> {
    queues.put(declared.to_vec(), Owner::Manifest).await?;
    let is_declared = |name: &QueueName| declared.iter().any(|(other, _)| other == name);
    let mut all = queues.list().await?;
    // Those that send dead letters go before those that get them.
    all.sort_by_key(|info| info.settings.redrive.is_none());
    for info in all {
        if info.owner != Owner::Manifest || is_declared(&info.name) {
            continue;
        }
        let name = info.name;
        let kept = match queues.delete_if_empty(name.clone()).await {
            Ok(true) => None,
            Ok(false) => {
                let messages = queues.depth(name.clone()).await?.messages;
                Some(format!("messages in it: {messages}"))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = kept {
            let message = format!("the queue {name} is no longer in the manifest and stays: {why}");
            telemetry.log.host(Level::Warn, &message);
        }
    }
    Ok(())
}
