use std::sync::Arc;

use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;
use crate::runtime::{Budget, Charge};
use crate::store::SystemClock;

fn name(name: &str) -> BucketName {
    BucketName::new(name).unwrap()
}

fn charge() -> Charge {
    Budget::new(1 << 30).charge()
}

fn opened(folder: &TempDir) -> (Buckets, std::thread::JoinHandle<()>) {
    let path = folder.path().join(FILE_NAME);
    let clock = Arc::new(SystemClock::default());
    Buckets::open(&path, clock, Handle::current()).unwrap()
}

/// The bucket `b` with these limits.
async fn with(folder: &TempDir, quota: Quota) -> Buckets {
    let (buckets, _) = opened(folder);
    buckets.declare(vec![(name("b"), quota)]).await.unwrap();
    buckets
}

async fn small(folder: &TempDir) -> Buckets {
    let quota = Quota {
        max_keys: 3,
        max_value: 10,
        max_bytes: 20,
    };
    with(folder, quota).await
}

impl Buckets {
    async fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyValueError> {
        let changes = vec![(key.to_owned(), Some(value.to_vec()))];
        self.change(name("b"), changes, charge()).await
    }

    async fn delete(&self, key: &str) -> Result<(), KeyValueError> {
        let changes = vec![(key.to_owned(), None)];
        self.change(name("b"), changes, charge()).await
    }

    async fn value(&self, key: &str) -> Option<Vec<u8>> {
        let held = self.get(name("b"), vec![key.to_owned()], charge()).await;
        let found = held.unwrap().value.pop().flatten();
        found.map(|(value, _)| value)
    }

    async fn add(&self, key: &str, delta: i128) -> Result<i128, KeyValueError> {
        let bounds = (0, u64::MAX.into());
        self.increment(name("b"), key.to_owned(), delta, bounds, charge())
            .await
    }

    async fn fill(&self) -> (u64, u64) {
        let fill = self.overview(10).await.unwrap().remove(0);
        (fill.keys, fill.bytes)
    }
}

#[tokio::test]
async fn what_is_set_is_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let (buckets, thread) = opened(&folder);
    let declared = vec![(name("b"), Quota::default())];
    assert_eq!(buckets.declare(declared.clone()).await.unwrap(), []);
    buckets.set("a", b"1").await.unwrap();
    buckets.set("a", b"2").await.unwrap();
    buckets.set("gone", b"x").await.unwrap();
    buckets.delete("gone").await.unwrap();
    buckets.delete("never").await.unwrap();
    drop(buckets);
    thread.join().unwrap();
    let (buckets, _) = opened(&folder);
    buckets.declare(declared).await.unwrap();
    assert_eq!(buckets.value("a").await, Some(b"2".to_vec()));
    assert_eq!(buckets.value("gone").await, None);
    assert_eq!(buckets.fill().await, (1, 2));
}

#[tokio::test]
async fn keys_are_told_apart_byte_by_byte() {
    let folder = TempDir::new().unwrap();
    let buckets = with(&folder, Quota::default()).await;
    let long = "x".repeat(MAX_KEY);
    // Two ways to write one letter are two keys; nothing ends at a NUL, and no letter is
    // like its capital.
    let keys = [
        "",
        "\0",
        "a\0b",
        "a\0c",
        "a",
        "A",
        "\u{e9}",
        "e\u{301}",
        "1",
        "01",
        "\u{1f426}",
        &long,
    ];
    for key in keys {
        buckets.set(key, key.as_bytes()).await.unwrap();
    }
    for key in keys {
        assert_eq!(
            buckets.value(key).await,
            Some(key.as_bytes().to_vec()),
            "{key:?}"
        );
    }
    let page = buckets.list(name("b"), 0).await.unwrap();
    assert_eq!(page.keys, keys);
    assert_eq!(page.next, None);
    let longer = "x".repeat(MAX_KEY + 1);
    let error = KeyValueError::KeyTooLong(MAX_KEY + 1);
    assert_eq!(buckets.set(&longer, b"").await, Err(error.clone()));
    assert_eq!(buckets.delete(&longer).await, Err(error.clone()));
    assert_eq!(buckets.revision(name("b"), longer).await, Err(error));
}

#[tokio::test]
async fn what_is_over_a_limit_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let buckets = small(&folder).await;
    let full = |error: Result<(), KeyValueError>, what: &str| match error {
        Err(KeyValueError::Full(_, limit)) => assert!(limit.contains(what), "{limit}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        buckets.set("a", &[0; 11]).await,
        Err(KeyValueError::TooLarge {
            bucket: name("b"),
            size: 11,
            most: 10
        })
    );
    buckets.set("a", &[0; 10]).await.unwrap();
    full(buckets.set("b", &[0; 9]).await, "20 bytes");
    buckets.set("b", &[0; 8]).await.unwrap();
    assert_eq!(buckets.fill().await, (2, 20));
    full(buckets.set("", &[0; 1]).await, "20 bytes");
    full(buckets.set("b", &[0; 9]).await, "20 bytes");
    buckets.set("", b"").await.unwrap();
    full(buckets.set("", b"x").await, "20 bytes");
    buckets.set("a", b"").await.unwrap();
    full(buckets.set("c", b"").await, "3 keys");
    // A batch counts as a whole: what it deletes makes room for what it sets, and one entry
    // that is too many spoils all.
    let entry = |key: &str, value: Option<&[u8]>| (key.to_owned(), value.map(<[u8]>::to_vec));
    let batch = vec![entry("a", None), entry("c", Some(b"c"))];
    buckets.change(name("b"), batch, charge()).await.unwrap();
    let before = buckets.fill().await;
    let batch = vec![entry("c", Some(b"changed")), entry("d", Some(b""))];
    full(buckets.change(name("b"), batch, charge()).await, "3 keys");
    let batch = vec![entry("c", Some(b"changed")), entry("b", Some(&[0; 11]))];
    buckets
        .change(name("b"), batch, charge())
        .await
        .unwrap_err();
    assert_eq!(buckets.value("c").await, Some(b"c".to_vec()));
    assert_eq!(buckets.fill().await, before);
    // Of two for one key the last counts, and once.
    let batch = vec![entry("c", Some(&[0; 10])), entry("c", Some(b"c"))];
    buckets.change(name("b"), batch, charge()).await.unwrap();
    assert_eq!(buckets.fill().await, before);
}

#[tokio::test]
async fn a_bucket_above_a_lower_limit_may_shrink() {
    let folder = TempDir::new().unwrap();
    let buckets = with(&folder, Quota::default()).await;
    for key in ["a", "b", "c", "d"] {
        buckets.set(key, &[0; 9]).await.unwrap();
    }
    let quota = Quota {
        max_keys: 1,
        max_value: 9,
        max_bytes: 1024,
    };
    buckets.declare(vec![(name("b"), quota)]).await.unwrap();
    buckets.set("a", &[1; 9]).await.unwrap();
    buckets.set("e", b"").await.unwrap_err();
    buckets.delete("b").await.unwrap();
    assert_eq!(buckets.fill().await, (3, 30));
}

#[tokio::test]
async fn numbers_count_exactly_and_what_is_none_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let buckets = Arc::new(with(&folder, Quota::default()).await);
    let all = (0..64).map(|_| {
        let buckets = Arc::clone(&buckets);
        tokio::spawn(async move {
            for _ in 0..10 {
                buckets.add("n", 2).await.unwrap();
            }
        })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(buckets.value("n").await, Some(b"1280".to_vec()));
    assert_eq!(buckets.add("n", -1280).await, Ok(0));
    let overflow = KeyValueError::Overflow(0, u64::MAX.into());
    assert_eq!(buckets.add("n", -1).await, Err(overflow.clone()));
    buckets.add("n", u64::MAX.into()).await.unwrap();
    assert_eq!(buckets.add("n", 1).await, Err(overflow));
    let digits = vec![b'1'; 100];
    for value in [&b"x"[..], b"", b"1.5", b" 1", b"\xff", b"1\0", &digits] {
        buckets.set("no", value).await.unwrap();
        assert_eq!(buckets.add("no", 1).await, Err(KeyValueError::NotANumber));
        assert_eq!(buckets.value("no").await, Some(value.to_vec()));
    }
}

#[tokio::test]
async fn a_swap_is_done_once_and_only_on_what_was_seen() {
    let folder = TempDir::new().unwrap();
    let buckets = with(&folder, Quota::default()).await;
    let revision = || async { buckets.revision(name("b"), "k".to_owned()).await.unwrap() };
    let swap = |expected, value: &str| {
        let value = value.as_bytes().to_vec();
        buckets.swap(name("b"), "k".to_owned(), expected, value, charge())
    };
    assert_eq!(revision().await, None);
    assert_eq!(swap(None, "first").await, Ok(Swapped::Yes));
    let first = revision().await;
    assert_eq!(swap(None, "again").await, Ok(Swapped::No(first)));
    assert_eq!(swap(first, "second").await, Ok(Swapped::Yes));
    let second = revision().await;
    assert_eq!(swap(first, "late").await, Ok(Swapped::No(second)));
    // The same value in between is a change too, and so are its end and its return.
    buckets.set("k", b"second").await.unwrap();
    assert!(matches!(swap(second, "late").await, Ok(Swapped::No(_))));
    let third = revision().await;
    buckets.delete("k").await.unwrap();
    assert_eq!(swap(third, "late").await, Ok(Swapped::No(None)));
    buckets.set("k", b"second").await.unwrap();
    for old in [None, first, second, third] {
        assert!(matches!(swap(old, "late").await, Ok(Swapped::No(Some(_)))));
    }
    assert_eq!(buckets.value("k").await, Some(b"second".to_vec()));
    assert_eq!(buckets.fill().await, (1, 7));
}

#[tokio::test]
async fn pages_have_each_key_that_stays_once_whatever_comes_and_goes() {
    let folder = TempDir::new().unwrap();
    let buckets = with(&folder, Quota::default()).await;
    let key = |number: usize| format!("{number:05}");
    for numbers in (0..2500).collect::<Vec<_>>().chunks(MAX_BATCH) {
        let entries = numbers
            .iter()
            .map(|number| (key(*number), Some(Vec::new())));
        buckets
            .change(name("b"), entries.collect(), charge())
            .await
            .unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let page = buckets.list(name("b"), after).await.unwrap();
        assert!(page.keys.len() <= MAX_PAGE, "{}", page.keys.len());
        seen.extend(page.keys);
        // Meanwhile the first goes, one is written and others come.
        buckets.delete(&key(0)).await.unwrap();
        buckets.set(&key(1), b"new").await.unwrap();
        buckets
            .set(&format!("later-{}", seen.len()), b"")
            .await
            .unwrap();
        let Some(next) = page.next else { break };
        after = next;
    }
    let kept = seen.iter().filter(|key| !key.starts_with("later"));
    let expected: Vec<String> = (0..2500).map(key).collect();
    assert_eq!(kept.cloned().collect::<Vec<_>>(), expected);
    assert!(buckets.list(name("b"), u64::MAX).await.is_err());
    let end = buckets.list(name("b"), i64::MAX as u64).await;
    assert_eq!(end, Ok(Page::default()));
}

#[tokio::test]
async fn a_page_and_a_batch_are_bounded_in_bytes() {
    let folder = TempDir::new().unwrap();
    let buckets = with(&folder, Quota::default()).await;
    let key = |number: usize| format!("{number:01000}");
    let entries = (0..300).map(|number| (key(number), Some(Vec::new())));
    buckets
        .change(name("b"), entries.collect(), charge())
        .await
        .unwrap();
    let page = buckets.list(name("b"), 0).await.unwrap();
    assert!(page.keys.len() * 1000 <= MAX_PAGE_BYTES && page.next.is_some());

    let is_too_much = |error| matches!(error, KeyValueError::TooMuch(_));
    let many = (0..=MAX_BATCH).map(key).collect();
    let error = buckets.get(name("b"), many, charge()).await.err().unwrap();
    assert!(is_too_much(error));
    let big = |number| (key(number), Some(vec![0; 1 << 20]));
    let entries = (0..5).map(big).collect();
    let error = buckets.change(name("b"), entries, charge()).await;
    assert!(is_too_much(error.unwrap_err()));
    let entries = (0..4).map(big).collect();
    buckets.change(name("b"), entries, charge()).await.unwrap();
    let one_more = (4..5).map(big).collect();
    buckets.change(name("b"), one_more, charge()).await.unwrap();
    let error = buckets
        .get(name("b"), (0..5).map(key).collect(), charge())
        .await;
    assert!(is_too_much(error.err().unwrap()));
}

#[tokio::test]
async fn what_is_read_is_charged_before_it_is_copied() {
    let folder = TempDir::new().unwrap();
    let buckets = with(&folder, Quota::default()).await;
    buckets.set("k", &[0; 5000]).await.unwrap();
    let budget = Budget::new(6000);
    let get = || buckets.get(name("b"), vec!["k".to_owned()], budget.charge());
    let held = get().await.unwrap();
    assert_eq!(budget.used(), 5000);
    assert_eq!(get().await.err(), Some(KeyValueError::NoMemory));
    drop(held);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn buckets_know_nothing_of_each_other_and_go_when_they_are_empty() {
    let folder = TempDir::new().unwrap();
    let (buckets, _) = opened(&folder);
    let both = vec![(name("b"), Quota::default()), (name("c"), Quota::default())];
    buckets.declare(both.clone()).await.unwrap();
    buckets.set("k", b"of b").await.unwrap();
    let of_c = |key: &str| buckets.get(name("c"), vec![key.to_owned()], charge());
    assert_eq!(of_c("k").await.unwrap().value, [None]);
    // Those that are not declared again go on, until they are to go.
    let left = buckets.declare(Vec::new()).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(of_c("k").await.unwrap().value, [None]);
    buckets.set("k", b"of b").await.unwrap();
    // The empty one goes, the other waits.
    buckets.retain(Vec::new()).await.unwrap();
    let left = buckets.declare(Vec::new()).await.unwrap();
    let fill = Fill {
        name: name("b"),
        keys: 1,
        bytes: 5,
    };
    assert_eq!(left, std::slice::from_ref(&fill));
    assert_eq!(buckets.overview(10).await.unwrap(), [fill]);
    let unknown = KeyValueError::Unknown(name("b"));
    assert_eq!(buckets.set("k", b"x").await, Err(unknown.clone()));
    assert_eq!(buckets.list(name("b"), 0).await, Err(unknown));
    assert_eq!(
        of_c("k").await.err(),
        Some(KeyValueError::Unknown(name("c")))
    );
    buckets.declare(both).await.unwrap();
    assert_eq!(buckets.value("k").await, Some(b"of b".to_vec()));
}

#[tokio::test]
async fn readers_come_and_go_in_any_number() {
    let folder = TempDir::new().unwrap();
    let buckets = Arc::new(with(&folder, Quota::default()).await);
    buckets.set("k", b"v").await.unwrap();
    let all = (0..100).map(|number| {
        let buckets = Arc::clone(&buckets);
        let read = tokio::spawn(async move { buckets.value("k").await });
        // Some do not wait for the answer.
        if number % 3 == 0 {
            read.abort();
        }
        read
    });
    for read in all.collect::<Vec<_>>() {
        if let Ok(value) = read.await {
            assert_eq!(value, Some(b"v".to_vec()));
        }
    }
    assert_eq!(buckets.value("k").await, Some(b"v".to_vec()));
}

#[tokio::test]
async fn tables_of_a_newer_host_are_refused() {
    let folder = TempDir::new().unwrap();
    drop(opened(&folder));
    let connection = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let path = folder.path().join(FILE_NAME);
    let clock = Arc::new(SystemClock::default());
    let error = Buckets::open(&path, clock, Handle::current());
    let error = error.err().unwrap().to_string();
    assert!(
        error.contains("newer version") && error.contains(FILE_NAME),
        "{error}"
    );
}
