//! Says how the disk of the queues is: in the log and in a metric, when it changes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::store::Disk;
use crate::telemetry::{Level, Telemetry};

/// Between two lines: a disk with room for little is full and has room many times a second.
const PAUSE: Duration = Duration::from_secs(5);

/// Tells of each change, until the queues are closed.
pub(super) async fn tell(mut disk: watch::Receiver<Disk>, telemetry: Telemetry) {
    let mut told = Disk::Sound;
    while disk.changed().await.is_ok() {
        let now = disk.borrow_and_update().clone();
        let (level, line) = match &now {
            _ if now == told => continue,
            Disk::Full => (
                Level::Error,
                "the disk is full: nothing is accepted, settled or fired until it has room; \
                 what was accepted is kept, and HTTP goes on",
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
