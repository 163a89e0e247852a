//! Buckets in memory, for tests on the build machine.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::KeyValueError;

/// The host's limits that do not depend on the bucket.
const MAX_KEY: usize = 1024;
const MAX_BATCH: usize = 1000;
const MAX_BYTES: usize = 4 << 20;

type Result<T> = std::result::Result<T, KeyValueError>;

/// A value, with numbers that no other of its bucket has: for its key, and for its writing.
#[derive(Clone)]
struct Entry {
    made: u64,
    written: u64,
    value: Vec<u8>,
}

#[derive(Default)]
struct Content {
    entries: BTreeMap<String, Entry>,
    written: u64,
}

thread_local! {
    static BUCKETS: RefCell<BTreeMap<String, Content>> = RefCell::default();
}

#[derive(Clone)]
pub(super) struct Bucket(String);

fn check<'k>(entries: impl IntoIterator<Item = (&'k str, usize)>) -> Result<()> {
    let (mut count, mut bytes) = (0, 0);
    for (key, size) in entries {
        if key.len() > MAX_KEY {
            let length = key.len();
            let what = format!("the key has {length} bytes, and a key has {MAX_KEY} at most");
            return Err(KeyValueError::Other(what));
        }
        (count, bytes) = (count + 1, bytes + size);
    }
    let what = match (count > MAX_BATCH, bytes > MAX_BYTES) {
        (true, _) => format!("{count} keys at once, more than {MAX_BATCH}; use several calls"),
        (_, true) => format!("{bytes} bytes at once, more than {MAX_BYTES}; use several calls"),
        _ => return Ok(()),
    };
    Err(KeyValueError::Other(what))
}

impl Bucket {
    #[allow(clippy::unnecessary_wraps, reason = "the host may refuse")]
    pub(super) fn open(name: &str) -> Result<Self> {
        Ok(Self(name.to_owned()))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Content) -> T) -> T {
        BUCKETS.with_borrow_mut(|buckets| look(buckets.entry(self.0.clone()).or_default()))
    }

    fn entry(&self, key: &str) -> Option<Entry> {
        self.with(|content| content.entries.get(key).cloned())
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        check([(key, 0)])?;
        Ok(self.entry(key).map(|entry| entry.value))
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        check([(key, value.len())])?;
        self.with(|content| {
            content.written += 1;
            let written = content.written;
            let entry = content.entries.entry(key.to_owned()).or_insert(Entry {
                made: written,
                written,
                value: Vec::new(),
            });
            (entry.written, entry.value) = (written, value.to_vec());
        });
        Ok(())
    }

    pub(super) fn delete(&self, key: &str) -> Result<()> {
        check([(key, 0)])?;
        self.with(|content| content.entries.remove(key));
        Ok(())
    }

    pub(super) fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    pub(super) fn list_keys(&self, cursor: Option<&str>) -> Result<(Vec<String>, Option<String>)> {
        let no_cursor = |_| KeyValueError::Other("no cursor of this bucket".to_owned());
        let after: u64 = cursor.map_or(Ok(0), str::parse).map_err(no_cursor)?;
        let mut keys: Vec<(u64, String)> = self.with(|content| {
            let all = content.entries.iter();
            let later = all.filter(|(_, entry)| entry.made > after);
            later
                .map(|(key, entry)| (entry.made, key.clone()))
                .collect()
        });
        keys.sort_unstable();
        let is_last = keys.len() <= MAX_BATCH;
        keys.truncate(MAX_BATCH);
        let next = keys.last().filter(|_| !is_last);
        let next = next.map(|(made, _)| made.to_string());
        Ok((keys.into_iter().map(|(_, key)| key).collect(), next))
    }

    pub(super) fn increment(&self, key: &str, delta: i64) -> Result<i64> {
        let before = match self.get(key)? {
            None => Some(0),
            Some(value) => String::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok()),
        };
        let other = |what: &str| KeyValueError::Other(what.to_owned());
        let before: i64 = before.ok_or_else(|| {
            other("the value is no whole number in decimal digits, so nothing can be added to it")
        })?;
        let sum = before.checked_add(delta);
        let sum = sum.ok_or_else(|| other("the sum is too large"))?;
        self.set(key, sum.to_string().as_bytes())?;
        Ok(sum)
    }

    pub(super) fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        check(keys.iter().map(|key| (key.as_str(), 0)))?;
        keys.iter().map(|key| self.get(key)).collect()
    }

    pub(super) fn set_many(&self, entries: &[(String, Vec<u8>)]) -> Result<()> {
        let sizes = entries.iter();
        check(sizes.map(|(key, value)| (key.as_str(), value.len())))?;
        let mut entries = entries.iter();
        entries.try_for_each(|(key, value)| self.set(key, value))
    }

    pub(super) fn delete_many(&self, keys: &[String]) -> Result<()> {
        check(keys.iter().map(|key| (key.as_str(), 0)))?;
        keys.iter().try_for_each(|key| self.delete(key))
    }

    pub(super) fn compare(&self, key: &str) -> Result<Compare> {
        check([(key, 0)])?;
        Ok(Compare {
            bucket: self.clone(),
            key: key.to_owned(),
            expected: Cell::new(self.entry(key).map(|entry| entry.written)),
        })
    }
}

pub(super) struct Compare {
    bucket: Bucket,
    key: String,
    expected: Cell<Option<u64>>,
}

impl Compare {
    #[allow(clippy::unnecessary_wraps, reason = "the host may fail")]
    pub(super) fn current(&self) -> Result<Option<Vec<u8>>> {
        let entry = self.bucket.entry(&self.key);
        self.expected.set(entry.as_ref().map(|entry| entry.written));
        Ok(entry.map(|entry| entry.value))
    }

    pub(super) fn swap(self, value: &[u8]) -> Result<std::result::Result<(), Self>> {
        let now = self.bucket.entry(&self.key).map(|entry| entry.written);
        if now != self.expected.get() {
            self.expected.set(now);
            return Ok(Err(self));
        }
        self.bucket.set(&self.key, value)?;
        Ok(Ok(()))
    }
}
