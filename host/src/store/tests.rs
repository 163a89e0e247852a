use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tempfile::TempDir;

use super::*;

mod backup;

struct Fixed(AtomicI64);

impl Clock for Fixed {
    fn wall(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn open(folder: &TempDir, wall: i64) -> (Writer, JoinHandle<()>) {
    let clock = Arc::new(Fixed(AtomicI64::new(wall)));
    let migrate = |connection: &Connection| {
        connection.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, at INTEGER)")
    };
    Writer::open(&folder.path().join("t.db"), clock, migrate).unwrap()
}

fn insert(n: i64) -> impl FnOnce(&Connection, Moment) -> rusqlite::Result<usize> + Send + 'static {
    move |connection, at| connection.execute("INSERT INTO t (n, at) VALUES (?1, ?2)", [n, at.now])
}

fn count(connection: &Connection) -> i64 {
    let count = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    count.unwrap()
}

#[tokio::test]
async fn what_is_answered_is_there_after_a_restart_and_time_goes_on() {
    let folder = TempDir::new().unwrap();
    let (writer, thread) = open(&folder, 1000);
    let all = (0..1000).map(|n| {
        let writer = writer.clone();
        tokio::spawn(async move { writer.write(insert(n)).await })
    });
    for write in all.collect::<Vec<_>>() {
        assert_eq!(write.await.unwrap(), Ok(1));
    }
    assert_eq!(count(&writer.reader().unwrap()), 1000);
    drop(writer);
    thread.join().unwrap();
    // With a clock that was set back.
    let (writer, _thread) = open(&folder, 1);
    writer.write(insert(5000)).await.unwrap();
    let reader = writer.reader().unwrap();
    let at = reader.query_row("SELECT at FROM t WHERE n = 5000", [], |row| {
        row.get::<_, i64>(0)
    });
    assert_eq!(at.unwrap(), 1000);
    assert_eq!(count(&reader), 1001);
}

#[tokio::test]
async fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    writer.write(insert(1)).await.unwrap();
    for name in ["t.db", "t.db-wal", "t.db-shm"] {
        let mode = std::fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn what_changes_nothing_waits_for_no_disk() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    writer.write(insert(1)).await.unwrap();
    let wal = || {
        std::fs::metadata(folder.path().join("t.db-wal"))
            .unwrap()
            .len()
    };
    let before = wal();
    let looks = |connection: &Connection, _: Moment| Ok(count(connection));
    assert_eq!(writer.write(looks).await, Ok(1));
    assert_eq!(wal(), before);
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    let reader = writer.reader().unwrap();
    assert!(reader.execute("INSERT INTO t (n) VALUES (1)", []).is_err());
}

/// What the disk may hold, in pages.
async fn bound(writer: &Writer, pages: i64) {
    let set = move |connection: &Connection, _| {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
    };
    writer.write(set).await.unwrap();
}

fn fill(connection: &Connection, _at: Moment) -> rusqlite::Result<()> {
    connection.execute_batch("CREATE TABLE IF NOT EXISTS big (b BLOB)")?;
    connection.execute("INSERT INTO big VALUES (zeroblob(1000000))", [])?;
    Ok(())
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    writer.write(insert(1)).await.unwrap();
    bound(&writer, 20).await;
    assert_eq!(writer.write(fill).await, Err(WriteError::Full));
    assert_eq!(*writer.disk().borrow(), Disk::Full);
    // Who looks only learns nothing of the disk.
    let looks = |connection: &Connection, _: Moment| Ok(count(connection));
    assert_eq!(writer.write(looks).await, Ok(1));
    assert_eq!(*writer.disk().borrow(), Disk::Full);
    // There is room for little.
    writer.write(insert(2)).await.unwrap();
    assert_eq!(*writer.disk().borrow(), Disk::Sound);
    bound(&writer, 1_000_000).await;
    writer.write(fill).await.unwrap();
    assert_eq!(count(&writer.reader().unwrap()), 2);
}

#[tokio::test]
async fn a_probe_finds_room_that_nobody_asked_for() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    bound(&writer, 4).await;
    assert_eq!(writer.write(fill).await, Err(WriteError::Full));
    assert_eq!(*writer.disk().borrow(), Disk::Full);
    bound(&writer, 1_000_000).await;
    // That is a setting, and nothing for the disk.
    assert_eq!(*writer.disk().borrow(), Disk::Full);
    writer.probe().await.unwrap();
    assert_eq!(*writer.disk().borrow(), Disk::Sound);
}

#[tokio::test]
async fn the_log_is_moved_into_the_database_and_stays_small() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
    for _ in 0..30 {
        writer.write(fill).await.unwrap();
    }
    assert!(size("t.db") > 25_000_000, "{}", size("t.db"));
    assert!(size("t.db-wal") < 10_000_000, "{}", size("t.db-wal"));
}

/// With small pages: a log of many of them takes little writing.
fn open_small(folder: &TempDir) -> (Writer, JoinHandle<()>) {
    let connection = Connection::open(folder.path().join("t.db")).unwrap();
    let made = connection.execute_batch("PRAGMA page_size = 512; CREATE TABLE big (b BLOB)");
    made.unwrap();
    drop(connection);
    open(folder, 1)
}

#[tokio::test]
async fn the_log_stays_small_while_there_is_always_somebody_who_reads() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open_small(&folder);
    let mut readers = [writer.reader().unwrap(), writer.reader().unwrap()];
    let ended = Arc::new(AtomicBool::new(false));
    let reads = std::thread::spawn({
        let ended = Arc::clone(&ended);
        move || {
            let begin = |reader: &Connection| {
                reader.execute_batch("BEGIN").unwrap();
                count(reader);
            };
            begin(&readers[0]);
            while !ended.load(Ordering::SeqCst) {
                // The next one begins before the one before ends.
                begin(&readers[1]);
                std::thread::sleep(Duration::from_millis(3));
                readers[0].execute_batch("COMMIT").unwrap();
                readers.swap(0, 1);
            }
        }
    });
    let size = || {
        let log = std::fs::metadata(folder.path().join("t.db-wal"));
        log.unwrap().len()
    };
    let mut most = 0;
    for _ in 0..60 {
        writer.write(fill).await.unwrap();
        most = most.max(size());
    }
    ended.store(true, Ordering::SeqCst);
    reads.join().unwrap();
    // Half of what was written: the readers' thread may have been held up once or twice.
    assert!(most < 30_000_000, "{most}");
}

#[tokio::test]
async fn a_log_that_is_read_for_long_is_moved_when_that_is_over() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open_small(&folder);
    let size = || {
        let log = std::fs::metadata(folder.path().join("t.db-wal"));
        log.unwrap().len()
    };
    let reader = writer.reader().unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(count(&reader), 0);
    writer.write(insert(1)).await.unwrap();
    // Who writes goes on.
    for _ in 0..40 {
        writer.write(fill).await.unwrap();
    }
    assert!(size() > 40_000_000, "{}", size());
    assert_eq!(count(&reader), 0);
    reader.execute_batch("COMMIT").unwrap();
    for _ in 0..12 {
        writer.write(fill).await.unwrap();
    }
    assert!(size() < 20_000_000, "{}", size());
    assert_eq!(count(&reader), 1);
}

#[tokio::test]
async fn after_a_failure_nothing_is_acknowledged_any_more() {
    let folder = TempDir::new().unwrap();
    let (writer, thread) = open(&folder, 1);
    writer.write(insert(1)).await.unwrap();
    let fails = |connection: &Connection, _: Moment| {
        connection.execute("INSERT INTO t (n) VALUES (2)", [])?;
        connection.execute("INSERT INTO nothing VALUES (1)", [])
    };
    let error = writer.write(fails).await.unwrap_err();
    assert!(
        matches!(&error, WriteError::Broken(why) if why.contains("nothing") && why.contains("t.db")),
        "{error}"
    );
    assert!(writer.broken().await.contains("nothing"));
    assert_eq!(writer.write(insert(3)).await, Err(error));
    thread.join().unwrap();
    let (writer, _thread) = open(&folder, 1);
    assert_eq!(count(&writer.reader().unwrap()), 1);
}

#[tokio::test]
async fn an_operation_that_panics_breaks_the_store_and_hangs_nobody() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    let panics =
        |_: &Connection, _: Moment| -> rusqlite::Result<()> { panic!("a mistake of the host") };
    assert!(matches!(
        writer.write(panics).await,
        Err(WriteError::Broken(_))
    ));
    assert!(matches!(
        writer.write(insert(1)).await,
        Err(WriteError::Broken(_))
    ));
}

#[tokio::test]
async fn operations_are_counted_and_commits_that_write_are_timed() {
    let folder = TempDir::new().unwrap();
    let (writer, _thread) = open(&folder, 1);
    writer.write(insert(1)).await.unwrap();
    writer.write(insert(2)).await.unwrap();
    let looks = |connection: &Connection, _: Moment| Ok(count(connection));
    writer.write(looks).await.unwrap();
    assert_eq!(writer.metrics().operations.get(), 3);
    assert_eq!(writer.metrics().commit.get_sample_count(), 2);
}

#[test]
fn a_database_without_a_write_ahead_log_is_refused() {
    let connection = Connection::open_in_memory().unwrap();
    let clock = Arc::new(Fixed(AtomicI64::new(1)));
    let Err(error) = prepare(&connection, clock, |_| Ok(())) else {
        panic!("it was taken");
    };
    let error = error.to_string();
    for part in ["write-ahead log", "`memory`", "local file system"] {
        assert!(error.contains(part), "{error}");
    }
}
