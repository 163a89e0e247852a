//! Between the generated types and ours.

use super::KeyValueError;
use crate::bindings::key_value::{atomics, batch, store};

type Result<T> = std::result::Result<T, KeyValueError>;

impl From<store::Error> for KeyValueError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NoSuchStore => Self::NoSuchStore,
            store::Error::AccessDenied => Self::AccessDenied,
            store::Error::Other(what) => Self::Other(what),
        }
    }
}

pub(super) struct Bucket(store::Bucket);

impl Bucket {
    pub(super) fn open(name: &str) -> Result<Self> {
        Ok(Self(store::open(name)?))
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(key)?)
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        Ok(self.0.set(key, value)?)
    }

    pub(super) fn delete(&self, key: &str) -> Result<()> {
        Ok(self.0.delete(key)?)
    }

    pub(super) fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.0.exists(key)?)
    }

    pub(super) fn list_keys(&self, cursor: Option<&str>) -> Result<(Vec<String>, Option<String>)> {
        let page = self.0.list_keys(cursor)?;
        Ok((page.keys, page.cursor))
    }

    pub(super) fn increment(&self, key: &str, delta: i64) -> Result<i64> {
        Ok(atomics::increment(&self.0, key, delta)?)
    }

    pub(super) fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        let found = batch::get_many(&self.0, keys)?.into_iter();
        Ok(found.map(|found| found.map(|(_, value)| value)).collect())
    }

    pub(super) fn set_many(&self, entries: &[(String, Vec<u8>)]) -> Result<()> {
        Ok(batch::set_many(&self.0, entries)?)
    }

    pub(super) fn delete_many(&self, keys: &[String]) -> Result<()> {
        Ok(batch::delete_many(&self.0, keys)?)
    }

    pub(super) fn compare(&self, key: &str) -> Result<Compare> {
        Ok(Compare(atomics::Cas::new(&self.0, key)?))
    }
}

pub(super) struct Compare(atomics::Cas);

impl Compare {
    pub(super) fn current(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.0.current()?)
    }

    pub(super) fn swap(self, value: &[u8]) -> Result<std::result::Result<(), Self>> {
        match atomics::swap(self.0, value) {
            Ok(()) => Ok(Ok(())),
            Err(atomics::CasError::CasFailed(again)) => Ok(Err(Self(again))),
            Err(atomics::CasError::StoreError(error)) => Err(error.into()),
        }
    }
}
