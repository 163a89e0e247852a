//! Says how the disk of the state directory is: in the log and in a metric, when it changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::key_value::Buckets;
use crate::store::{Disk, Disks};
use crate::telemetry::{Level, Telemetry};

/// Between two lines: a disk with room for little is full and has room many times a second.
const PAUSE: Duration = Duration::from_secs(5);

/// Tells of each change, until the databases are closed.
pub(super) async fn tell(mut disks: Disks, buckets: Arc<Buckets>, telemetry: Telemetry) {
    let mut told = Disk::Sound;
    loop {
        let changed = match told {
            Disk::Sound => disks.changed().await,
            // Feeds write all the time, and see when there is room again; functions that
            // were refused may never write another value.
            _ => match timeout(PAUSE, disks.changed()).await {
                Ok(changed) => changed,
                Err(_) => {
                    buckets.probe().await;
                    true
                }
            },
        };
        if !changed {
            return;
        }
        let now = disks.now();
        let (level, line) = match &now {
            _ if now == told => continue,
            Disk::Full => (
                Level::Error,
                "the disk is full: nothing is accepted, settled, fired or set in buckets until \
                 it has room; what was accepted is kept, and HTTP goes on",
            ),
            Disk::Sound => (Level::Info, "the disk has room again: what waited goes on"),
            // Said where the host ends.
            Disk::Broken(_) => return,
        };
        telemetry.metrics.disk_full.set((now == Disk::Full).into());
        telemetry.log.host(level, line);
        told = now;
        sleep(PAUSE).await;
    }
}
