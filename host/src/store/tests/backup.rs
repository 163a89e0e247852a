//! Copies of a database.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::AtomicBool;

use super::super::backup::failure;
use super::*;

/// Two rows in one operation: a copy has both or none.
fn pair(n: i64) -> impl FnOnce(&Connection, Moment) -> rusqlite::Result<()> + Send + 'static {
    move |connection, at| {
        insert(2 * n)(connection, at)?;
        insert(2 * n + 1)(connection, at).map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_whole_whatever_is_written_meanwhile() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    let ended = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicI64::new(0));
    let writes = tokio::spawn({
        let (writer, ended, written) = (writer.clone(), Arc::clone(&ended), Arc::clone(&written));
        async move {
            while !ended.load(Ordering::SeqCst) {
                let n = written.load(Ordering::SeqCst);
                writer.write(pair(n)).await.unwrap();
                written.store(n + 1, Ordering::SeqCst);
            }
        }
    });
    for number in 0..5 {
        while written.load(Ordering::SeqCst) < 5 * (number + 1) {
            tokio::task::yield_now().await;
        }
        let before = written.load(Ordering::SeqCst);
        let (database, copy) = (
            folder.path().join("t.db"),
            folder.path().join(format!("copy{number}")),
        );
        let to = copy.clone();
        tokio::task::spawn_blocking(move || back_up(&database, &to).unwrap())
            .await
            .unwrap();
        let mode = fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let connection = Connection::open(&copy).unwrap();
        let sound: String = connection
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sound, "ok");
        let rows = count(&connection);
        assert_eq!(rows % 2, 0, "an operation is in it as a whole");
        assert!(rows >= 2 * before, "{rows} rows, {before} pairs before");
    }
    ended.store(true, Ordering::SeqCst);
    writes.await.unwrap();
}

#[tokio::test]
async fn a_copy_can_be_made_without_the_writer_and_after_a_kill() {
    let folder = TempDir::new().unwrap();
    let (writer, thread) = open(&folder, 1);
    writer.write(insert(1)).await.unwrap();
    // As a kill leaves it: with a WAL that is not in the file.
    let killed = TempDir::new().unwrap();
    for name in ["t.db", "t.db-wal"] {
        fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    drop(writer);
    thread.join().unwrap();
    assert!(!folder.path().join("t.db-wal").exists());
    for folder in [&folder, &killed] {
        let copy = folder.path().join("copy");
        back_up(&folder.path().join("t.db"), &copy).unwrap();
        assert_eq!(count(&Connection::open(&copy).unwrap()), 1);
        let (writer, _thread) = open(folder, 1);
        assert_eq!(count(&writer.reader().unwrap()), 1);
    }
}

#[tokio::test]
async fn a_file_that_is_there_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    writer.write(insert(1)).await.unwrap();
    let copy = folder.path().join("copy");
    fs::write(&copy, "mine").unwrap();
    let error = back_up(&folder.path().join("t.db"), &copy).unwrap_err();
    assert!(matches!(error, BackupError::Target { .. }), "{error}");
    assert!(error.to_string().contains("name a new file"), "{error}");
    assert_eq!(fs::read(&copy).unwrap(), b"mine");
}

#[test]
fn nothing_is_left_of_a_copy_that_failed() {
    let folder = TempDir::new().unwrap();
    let (database, copy) = (folder.path().join("t.db"), folder.path().join("copy"));
    let error = back_up(&database, &copy).unwrap_err().to_string();
    assert!(error.contains("t.db"), "{error}");
    assert!(!copy.exists());
    fs::write(&database, [b'x'; 8192]).unwrap();
    let error = back_up(&database, &copy).unwrap_err();
    assert!(matches!(error, BackupError::Source { .. }), "{error}");
    assert!(!copy.exists());
    let nowhere = folder.path().join("none/copy");
    let error = back_up(&database, &nowhere).unwrap_err();
    assert!(matches!(error, BackupError::Target { .. }), "{error}");
}

#[test]
fn a_full_disk_is_told_from_a_database_that_cannot_be_read() {
    let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(13), None);
    let error = failure(Path::new("queue.db"), Path::new("copy"), full);
    assert!(error.to_string().contains("no room for copy"), "{error}");
}
