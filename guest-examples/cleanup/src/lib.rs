//! Deletes the files below `/data` that are older than `MAX_AGE_HOURS`.
//!
//! The manifest mounts the folder and says when. With the payload
//! `{"dry-run": true}`, or the environment variable `DRY_RUN` set to other than
//! `0`, nothing is deleted, and the log tells what would be. A payload that is
//! not understood is rejected: a misspelt `dry-run` must not delete anything.
//!
//! Ages are counted from the time that the schedule was due, so that a tick that
//! comes late or again finds the same files old. Folders stay, symbolic links
//! are not followed. A file that cannot be deleted keeps none of the others from
//! it; the tick fails, and is tried again.

use std::env;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dunlin_sdk::{Failure, Tick};
use serde::Deserialize;

const FOLDER: &str = "/data";

#[dunlin_sdk::schedule]
fn handle(tick: Tick) -> Result<(), Failure> {
    let max_age = env::var("MAX_AGE_HOURS").unwrap_or_default();
    let is_dry_run = env::var("DRY_RUN").is_ok_and(|value| !matches!(value.as_str(), "" | "0"));
    let task = task(&tick, &max_age, is_dry_run)?;
    let summary = clean_up(Path::new(FOLDER), &task);
    let Summary {
        deleted,
        bytes,
        kept,
        failed,
    } = summary;
    let dry_run = task.is_dry_run;
    log::info!(deleted, bytes, kept, failed, dry_run; "cleaned up");
    if failed > 0 {
        return Err(Failure::retry().because(format!("{failed} of the files and folders failed")));
    }
    Ok(())
}

/// What a schedule may say.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Payload {
    dry_run: bool,
}

#[derive(PartialEq, Debug)]
struct Task {
    /// Files that were last changed before this are old.
    oldest: SystemTime,
    is_dry_run: bool,
}

fn task(tick: &Tick, max_age_hours: &str, is_dry_run: bool) -> Result<Task, Failure> {
    let payload = if tick.payload.is_empty() {
        Payload::default()
    } else {
        tick.json()?
    };
    // Neither changes before the next deploy, so another attempt is in vain.
    let hours: u64 = max_age_hours
        .parse()
        .map_err(|error| Failure::reject(format!("MAX_AGE_HOURS is {max_age_hours:?}: {error}")))?;
    let oldest = hours
        .checked_mul(60 * 60)
        .and_then(|seconds| tick.scheduled_at.checked_sub(Duration::from_secs(seconds)))
        .ok_or_else(|| Failure::reject("MAX_AGE_HOURS is too large"))?;
    Ok(Task {
        oldest,
        is_dry_run: is_dry_run || payload.dry_run,
    })
}

#[derive(Default, PartialEq, Debug)]
struct Summary {
    deleted: u64,
    /// Of the files that were deleted.
    bytes: u64,
    kept: u64,
    /// What could not be looked at or deleted; the log has a line for each.
    failed: u64,
}

/// Deletes what is old below a folder.
fn clean_up(folder: &Path, task: &Task) -> Summary {
    let mut summary = Summary::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                summary.fail(&folder, &error);
                continue;
            }
        };
        for entry in entries {
            let result = entry.and_then(|entry| visit(&entry, task, &mut folders, &mut summary));
            if let Err(error) = result {
                summary.fail(&folder, &error);
            }
        }
    }
    summary
}

fn visit(
    entry: &DirEntry,
    task: &Task,
    folders: &mut Vec<PathBuf>,
    summary: &mut Summary,
) -> io::Result<()> {
    let path = entry.path();
    // Of a link this is about the link itself.
    let metadata = entry.metadata()?;
    if metadata.is_dir() {
        folders.push(path);
        return Ok(());
    }
    if !metadata.is_file() || metadata.modified()? >= task.oldest {
        summary.kept += 1;
        return Ok(());
    }
    if task.is_dry_run {
        log::info!(path:% = path.display(); "would be deleted");
    } else if let Err(error) = fs::remove_file(&path) {
        // Somebody else was faster.
        if error.kind() != io::ErrorKind::NotFound {
            summary.fail(&path, &error);
        }
        return Ok(());
    }
    summary.deleted += 1;
    summary.bytes += metadata.len();
    Ok(())
}

impl Summary {
    fn fail(&mut self, path: &Path, error: &io::Error) {
        log::error!(path:% = path.display(), error:%; "not cleaned up");
        self.failed += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 1_000 * HOUR
    }

    /// A file that was last changed so many hours before now.
    fn file(folder: &Path, name: &str, hours: u32) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "content").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(now() - hours * HOUR).unwrap();
        path
    }

    fn after_a_day(is_dry_run: bool) -> Task {
        Task {
            oldest: now() - 24 * HOUR,
            is_dry_run,
        }
    }

    #[test]
    fn old_files_go_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let old = [
            file(folder.path(), "old", 25),
            file(folder.path(), "below/and/below/old", 1_000),
        ];
        let new = [
            file(folder.path(), "new", 24),
            file(folder.path(), "below/new", 0),
        ];
        let summary = clean_up(folder.path(), &after_a_day(false));
        let expected = Summary {
            deleted: 2,
            bytes: 14,
            kept: 2,
            failed: 0,
        };
        assert_eq!(summary, expected);
        assert!(old.iter().all(|path| !path.exists()));
        assert!(new.iter().all(|path| path.exists()));
        assert!(folder.path().join("below/and/below").is_dir());

        // The same tick, once more.
        let again = clean_up(folder.path(), &after_a_day(false));
        assert_eq!((again.deleted, again.kept), (0, 2));
    }

    #[test]
    fn a_dry_run_counts_and_deletes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let old = file(folder.path(), "old", 25);
        let summary = clean_up(folder.path(), &after_a_day(true));
        assert_eq!((summary.deleted, summary.bytes), (1, 7));
        assert!(old.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let old = file(other.path(), "old", 25);
        std::os::unix::fs::symlink(other.path(), folder.path().join("link")).unwrap();
        let summary = clean_up(folder.path(), &after_a_day(false));
        assert_eq!((summary.deleted, summary.kept), (0, 1));
        assert!(old.exists());
    }

    #[test]
    fn a_folder_that_is_not_there_fails() {
        let folder = tempfile::tempdir().unwrap();
        let summary = clean_up(&folder.path().join("absent"), &after_a_day(false));
        assert_eq!(summary.failed, 1);
    }

    #[test]
    fn the_payload_or_the_environment_asks_for_a_dry_run() {
        let of = |payload: &str, is_dry_run| {
            let tick = Tick::new("nightly").with_time(now()).with_payload(payload);
            task(&tick, "24", is_dry_run)
        };
        assert_eq!(of("", false), Ok(after_a_day(false)));
        assert_eq!(of(r#"{"dry-run": false}"#, false), Ok(after_a_day(false)));
        assert_eq!(of(r#"{"dry-run": true}"#, false), Ok(after_a_day(true)));
        assert_eq!(of(r#"{"dry-run": false}"#, true), Ok(after_a_day(true)));
    }

    #[test]
    fn what_is_not_understood_deletes_nothing() {
        let of = |payload: &str, hours: &str| {
            let tick = Tick::new("nightly").with_time(now()).with_payload(payload);
            let failure = task(&tick, hours, false).unwrap_err();
            assert!(failure.is_rejection());
            failure.reason().unwrap().to_owned()
        };
        assert!(of(r#"{"dryrun": true}"#, "24").contains("unknown field `dryrun`"));
        assert!(of("", "").contains("MAX_AGE_HOURS is \"\""));
        assert!(of("", "a day").contains("MAX_AGE_HOURS is \"a day\""));
        assert!(of("", "18446744073709551615").contains("too large"));
    }
}
