//! What the disk can do, without the host: the references of what is durable.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection;

use crate::proc;
use crate::stats::percentile;

/// Of `statfs`: a file system in memory, on which everything is durable at once.
const TMPFS: i64 = 0x0102_1994;
const APPEND: usize = 512;

/// Fails if a folder is not on a disk.
pub fn check(folder: &Path) -> Result<()> {
    let kind = rustix::fs::statfs(folder)?.f_type;
    ensure!(
        kind != TMPFS,
        "{} is in memory: set TMPDIR to a folder on a disk",
        folder.display()
    );
    Ok(())
}

/// Commits rows to SQLite in a bare loop, so many to a transaction, each with a body like this.
/// Answers rows per second.
pub fn commits(folder: &Path, rows: u32, body: &str, time: Duration) -> Result<f64> {
    proc::first(|| commit(folder, rows, body, time))
}

fn commit(folder: &Path, rows: u32, body: &str, time: Duration) -> Result<f64> {
    let folder = tempfile::tempdir_in(folder)?;
    let connection = Connection::open(folder.path().join("reference.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE message (sequence INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL,
             visible INTEGER NOT NULL, body BLOB NOT NULL);
         CREATE INDEX message_next ON message (queue, visible, sequence)",
    )?;
    let mut insert =
        connection.prepare("INSERT INTO message (queue, visible, body) VALUES (1, ?1, ?2)")?;
    let began = Instant::now();
    let mut done = 0_u64;
    while began.elapsed() < time {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let visible = i64::try_from(began.elapsed().as_millis())?;
        for _ in 0..rows {
            insert.execute((visible, body.as_bytes()))?;
        }
        connection.execute_batch("COMMIT")?;
        done += u64::from(rows);
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// The median of a small append to a file that has its room already, until the disk has it.
pub fn sync(folder: &Path, time: Duration) -> Result<Duration> {
    proc::first(|| append(folder, time))
}

fn append(folder: &Path, time: Duration) -> Result<Duration> {
    let folder = tempfile::tempdir_in(folder)?;
    let file = File::create(folder.path().join("appended"))?;
    const ROOM: usize = 64 << 20;
    // Written, not only reserved: else each append changes what the file system knows of it.
    file.write_all_at(&vec![0; ROOM], 0)?;
    file.sync_all()?;
    let mut latencies = Vec::new();
    let began = Instant::now();
    for place in (0..ROOM).step_by(APPEND) {
        let asked = Instant::now();
        file.write_all_at(&[1; APPEND], place as u64)?;
        file.sync_data().context("the disk does not sync")?;
        latencies.push(asked.elapsed());
        if began.elapsed() >= time {
            break;
        }
    }
    Ok(percentile(&mut latencies, 0.5))
}
