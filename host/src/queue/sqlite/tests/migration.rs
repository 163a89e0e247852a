//! Files that an earlier version wrote.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// The tables of the first version, as it made them.
const FIRST: &str = "
CREATE TABLE timeline (one INTEGER PRIMARY KEY CHECK (one = 1),
    seen_ms INTEGER NOT NULL, age_ms INTEGER NOT NULL);
CREATE TABLE queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, settings TEXT NOT NULL,
    owner INTEGER NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
    messages INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0);
CREATE TABLE message (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL,
    visible INTEGER NOT NULL, receives INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0, round INTEGER NOT NULL DEFAULT 0,
    first_received INTEGER, sent INTEGER NOT NULL, expires INTEGER NOT NULL,
    size INTEGER NOT NULL, id BLOB NOT NULL, grp TEXT, deduplication TEXT, source TEXT,
    reason TEXT, attributes TEXT, body BLOB NOT NULL);
CREATE INDEX message_next ON message (queue, visible, sequence, held);
CREATE INDEX message_expires ON message (queue, expires);
CREATE INDEX message_group ON message (queue, grp, sequence) WHERE grp IS NOT NULL;
CREATE INDEX message_flight ON message (queue, grp, visible) WHERE grp IS NOT NULL AND held != 0;
CREATE INDEX message_host ON message (sequence) WHERE held = 2;
CREATE TABLE lane (queue INTEGER NOT NULL, grp TEXT NOT NULL, visible INTEGER NOT NULL,
    PRIMARY KEY (queue, grp)) WITHOUT ROWID;
CREATE INDEX lane_next ON lane (queue, visible, grp);
CREATE TABLE seen (queue INTEGER NOT NULL, key TEXT NOT NULL, expires INTEGER NOT NULL,
    id BLOB NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (queue, key)) WITHOUT ROWID;
CREATE INDEX seen_expires ON seen (expires);
CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO timeline VALUES (1, 1700000000000, 5000);
INSERT INTO queue VALUES (3, 'q', '{}', 0, 7, 8, 1, 16);
INSERT INTO message VALUES (41, 3, 1699999999000, 2, 0, 2, 1699999990000, 1699999980000,
    345600000, 16, x'00000000000000000000000000000007', NULL, NULL, NULL, NULL,
    '{\"kind\":{\"t\":\"String\",\"v\":[111,108,100]}}', x'6f6c64');
PRAGMA user_version = 1;
";

fn first(folder: &Path) -> PathBuf {
    let path = folder.join("queue.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    connection.execute_batch(FIRST).unwrap();
    path
}

fn open(path: &Path) -> (SqliteQueues, JoinHandle<()>) {
    let clock = Set::default();
    clock.wall.store(START, Ordering::SeqCst);
    SqliteQueues::open(path, Arc::new(clock)).unwrap()
}

/// What a copy says of itself: its version, whether it is sound, its messages.
fn look(copy: &Path) -> (i64, String, i64) {
    let connection = Connection::open(copy).unwrap();
    let read = |text: &str| connection.query_row(text, [], |row| row.get(0)).unwrap();
    let sound = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    (
        read("PRAGMA user_version"),
        sound.unwrap(),
        read("SELECT count(*) FROM message"),
    )
}

#[tokio::test]
async fn a_file_of_the_first_version_keeps_its_messages_and_leaves_a_copy() {
    let folder = TempDir::new().unwrap();
    let path = first(folder.path());
    let copy = folder.path().join("queue.db.v1");
    let (queues, thread) = open(&path);
    assert_eq!(look(&copy), (1, "ok".to_owned(), 1));

    let depth = queues.depth(name("q")).await.unwrap();
    assert_eq!((depth.messages, depth.bytes), (1, 16));
    let got = queues.receive(name("q"), 10, None, Held::Outside).await;
    let got = got.unwrap().remove(0);
    let message = &got.message;
    assert_eq!((message.sequence, message.receives), (41, 3));
    assert_eq!(message.id, Uuid::from_u128(7));
    assert_eq!(message.body, "old");
    assert_eq!(message.attributes["kind"].value, b"old");
    assert_eq!((message.depth, message.releases), (0, 0));
    assert_eq!(got.age, Duration::ZERO, "it ages from the migration on");
    let done = vec![(got.receipt, Settlement::Done)];
    let settled = queues.settle(done, Vec::new()).await;
    assert_eq!(settled, Ok(vec![Settled::Yes]));
    // What is new works, and numbers are not used again.
    let marks = vec![(MarkName("m".into()), "x".into())];
    assert_eq!(queues.marks(marks, 1).await.unwrap().len(), 1);
    let sent = queues.send(name("q"), vec![NewMessage::of("new")]).await;
    assert_eq!(sent.unwrap().remove(0).unwrap().sequence, 42);
    drop(queues);
    thread.join().unwrap();

    fs::write(&copy, "as the operator left it").unwrap();
    drop(open(&path));
    assert_eq!(fs::read(&copy).unwrap(), b"as the operator left it");
    let files = fs::read_dir(folder.path()).unwrap();
    let copies = files.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("queue.db.")
    });
    assert_eq!(copies.count(), 1, "no other copy");
}

#[tokio::test]
async fn what_a_killed_start_left_of_its_copy_is_replaced() {
    let folder = TempDir::new().unwrap();
    let path = first(folder.path());
    let part = folder.path().join("queue.db.v1.part");
    fs::write(&part, "half of a copy").unwrap();
    drop(open(&path));
    assert!(!part.exists());
    assert_eq!(
        look(&folder.path().join("queue.db.v1")),
        (1, "ok".to_owned(), 1)
    );
}

#[tokio::test]
async fn a_copy_that_is_whole_stays_when_the_migration_did_not_come_to_its_end() {
    let folder = TempDir::new().unwrap();
    let path = first(folder.path());
    let copy = folder.path().join("queue.db.v1");
    fs::write(&copy, "of the start before").unwrap();
    drop(open(&path));
    assert_eq!(fs::read(&copy).unwrap(), b"of the start before");
}

#[tokio::test]
async fn a_new_file_needs_no_copy() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue.db");
    drop(open(&path));
    drop(open(&path));
    assert!(!folder.path().join("queue.db.v0").exists());
    assert!(!folder.path().join("queue.db.v2").exists());
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    let path = first(folder.path());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let Err(error) = SqliteQueues::open(&path, Arc::new(Set::default())) else {
        panic!("it was opened");
    };
    let error = error.to_string();
    for part in ["queue.db", "newer version of Dunlin", "99"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(look(&path), (99, "ok".to_owned(), 1));
}
