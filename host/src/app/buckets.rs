//! The buckets that the manifest declares.

use super::Others;
use crate::config::Config;
use crate::key_value::Buckets;
use crate::store::WriteError;
use crate::telemetry::{Level, Telemetry};

/// Makes the buckets what the configuration says. Of one that is no longer in it and has
/// values in it the log says so: it stays for when it is declared again.
pub(super) async fn declare(
    buckets: &Buckets,
    config: &Config,
    others: Others,
    telemetry: &Telemetry,
) -> Result<(), WriteError> {
    if others == Others::Go {
        let names = config.buckets.iter().map(|(name, _)| name.clone());
        buckets.retain(names.collect()).await?;
    }
    for left in buckets.declare(config.buckets.clone()).await? {
        let message = format!(
            "the bucket {} is no longer in the manifest and stays: keys in it: {}; no function \
             can open it until it is declared again",
            left.name, left.keys
        );
        telemetry.log.host(Level::Warn, &message);
    }
    Ok(())
}
