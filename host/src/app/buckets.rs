//! The buckets that the manifest declares.

use crate::config::Config;
use crate::key_value::Buckets;
use crate::store::WriteError;
use crate::telemetry::{Level, Telemetry};

/// Makes the buckets what the configuration says. One that is no longer in it goes if it is
/// empty; with values in it, it stays for when it is declared again, and the log says so.
pub(super) async fn declare(
    buckets: &Buckets,
    config: &Config,
    telemetry: &Telemetry,
) -> Result<(), WriteError> {
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
