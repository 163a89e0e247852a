//! `wasi:keyvalue`: the buckets that a function was granted, in [`crate::key_value`].
//!
//! Two drafts of it are in use, which differ in what a cursor is and in whether there is a
//! compare-and-swap. Both are here side by side, over the same buckets: `0.2.0-draft`
//! ([`draft`]) is wasmtime's and wasmCloud's, `0.2.0-draft2` ([`draft2`]) Spin's.
//!
//! - A bucket is opened by the name under which it was granted; any other is denied, whether
//!   it is there or not. So is a write to one that was granted read-only.
//! - A guest waits for the disk without a thread and without its core.
//! - What a call carries is charged to the memory budget: arguments until they are written,
//!   answers until the guest asks for something else.
//! - Each operation is counted, with how it ended.

mod draft;
mod draft2;

use wasmtime::component::{Linker, Resource, ResourceTableError};

use crate::function::Access;
use crate::key_value::{BucketName, Held, KeyValueError, Page, Revision, Swapped};
use crate::runtime::{Charge, State};
use crate::telemetry::{KeyValueOperation as Operation, KeyValueOutcome as Outcome};

/// What a handle costs the host beside its key.
const HANDLE: usize = 128;

/// A bucket that a guest has open.
#[derive(Clone)]
#[allow(unreachable_pub, reason = "generated code names it again")]
pub struct Bucket {
    name: BucketName,
    access: Access,
}

/// A compare-and-swap that was begun.
#[allow(unreachable_pub, reason = "generated code names it again")]
pub struct Cas {
    bucket: Bucket,
    key: String,
    /// What the value is to be compared with. None: there was no such key.
    expected: Option<Revision>,
    _charge: Charge,
}

/// What becomes of a call that is not done.
#[allow(unreachable_pub, reason = "generated code names it again")]
pub enum Problem {
    /// A handle that is none, or one too many.
    Trap(wasmtime::Error),
    /// It was not granted.
    Denied,
    /// It cannot be done.
    Refused(KeyValueError),
}

impl From<ResourceTableError> for Problem {
    fn from(error: ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

type Answer<T> = Result<T, Problem>;

/// How a call ended, for whoever counts.
fn outcome<T>(result: &Result<T, KeyValueError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Ok,
        Err(error) if error.is_the_hosts() => Outcome::Failed,
        Err(_) => Outcome::Refused,
    }
}

impl State {
    fn count(&self, operation: Operation, outcome: Outcome) {
        self.common.metrics.key_value(operation, outcome);
    }

    /// Counts how a call ended.
    fn ended<T>(&self, operation: Operation, result: Result<T, KeyValueError>) -> Answer<T> {
        self.count(operation, outcome(&result));
        result.map_err(Problem::Refused)
    }

    /// Room for what a call carries.
    fn room(&mut self, operation: Operation, bytes: usize) -> Answer<Charge> {
        // The guest has the last answer.
        self.answer = None;
        let mut charge = self.limiter.budget().charge();
        if bytes > 0 && !charge.grow(bytes as u64) {
            return self.ended(operation, Err(KeyValueError::NoMemory));
        }
        Ok(charge)
    }

    /// A bucket that a guest names.
    fn open_bucket(&mut self, identifier: &str) -> Answer<Resource<Bucket>> {
        let grants = &self.common.spec.buckets;
        let Some(grant) = grants.iter().find(|grant| grant.name == identifier) else {
            self.count(Operation::Open, Outcome::Refused);
            return Err(Problem::Denied);
        };
        let bucket = Bucket {
            name: grant.bucket.clone(),
            access: grant.access,
        };
        self.count(Operation::Open, Outcome::Ok);
        Ok(self.table.push(bucket)?)
    }

    /// An open bucket, to do this in.
    fn bucket(&self, bucket: &Resource<Bucket>, operation: Operation) -> Answer<Bucket> {
        let bucket = self.table.get(bucket)?.clone();
        if operation.writes() && bucket.access == Access::ReadOnly {
            self.count(operation, Outcome::Refused);
            return Err(Problem::Denied);
        }
        Ok(bucket)
    }

    async fn get_values(
        &mut self,
        bucket: &Resource<Bucket>,
        keys: Vec<String>,
        operation: Operation,
    ) -> Answer<Vec<Option<Vec<u8>>>> {
        let bucket = self.bucket(bucket, operation)?;
        let charge = self.room(operation, keys.iter().map(String::len).sum())?;
        let buckets = self.common.buckets.clone();
        let found = buckets.get(bucket.name, keys, charge).await;
        let Held { value, charge } = self.ended(operation, found)?;
        self.answer = Some(charge);
        let values = value.into_iter();
        Ok(values.map(|found| found.map(|(value, _)| value)).collect())
    }

    async fn exists(&mut self, bucket: &Resource<Bucket>, key: String) -> Answer<bool> {
        let operation = Operation::Exists;
        let bucket = self.bucket(bucket, operation)?;
        let buckets = self.common.buckets.clone();
        let found = buckets.revision(bucket.name, key).await;
        Ok(self.ended(operation, found)?.is_some())
    }

    async fn list_keys(&mut self, bucket: &Resource<Bucket>, after: u64) -> Answer<Page> {
        let operation = Operation::ListKeys;
        let bucket = self.bucket(bucket, operation)?;
        let buckets = self.common.buckets.clone();
        let page = buckets.list(bucket.name, after).await;
        self.ended(operation, page)
    }

    /// Sets keys, and deletes those without a value.
    async fn change(
        &mut self,
        bucket: &Resource<Bucket>,
        changes: Vec<(String, Option<Vec<u8>>)>,
        operation: Operation,
    ) -> Answer<()> {
        let bucket = self.bucket(bucket, operation)?;
        let sizes = changes.iter().map(|(key, value)| {
            let value = value.as_ref().map_or(0, Vec::len);
            key.len() + value
        });
        let charge = self.room(operation, sizes.sum())?;
        let buckets = self.common.buckets.clone();
        let changed = buckets.change(bucket.name, changes, charge).await;
        self.ended(operation, changed)
    }

    async fn increment(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
        delta: i128,
        bounds: (i128, i128),
    ) -> Answer<i128> {
        let operation = Operation::Increment;
        let bucket = self.bucket(bucket, operation)?;
        let charge = self.room(operation, key.len())?;
        let buckets = self.common.buckets.clone();
        let sum = buckets
            .increment(bucket.name, key, delta, bounds, charge)
            .await;
        self.ended(operation, sum)
    }

    /// A handle that compares with this revision.
    fn cas(
        &mut self,
        bucket: Bucket,
        key: String,
        expected: Option<Revision>,
    ) -> Answer<Resource<Cas>> {
        let charge = self.room(Operation::Compare, HANDLE + key.len())?;
        Ok(self.table.push(Cas {
            bucket,
            key,
            expected,
            _charge: charge,
        })?)
    }

    async fn begin_cas(&mut self, bucket: &Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        let operation = Operation::Compare;
        let bucket = self.bucket(bucket, operation)?;
        let buckets = self.common.buckets.clone();
        let found = buckets.revision(bucket.name.clone(), key.clone()).await;
        let expected = self.ended(operation, found)?;
        self.cas(bucket, key, expected)
    }

    /// The value that the swap compares with from now on.
    async fn current(&mut self, cas: &Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        let operation = Operation::Compare;
        let Cas { bucket, key, .. } = self.table.get(cas)?;
        let (name, keys) = (bucket.name.clone(), vec![key.clone()]);
        let charge = self.room(operation, 0)?;
        let buckets = self.common.buckets.clone();
        let found = buckets.get(name, keys, charge).await;
        let Held { mut value, charge } = self.ended(operation, found)?;
        let (value, revision) = value.pop().flatten().unzip();
        self.table.get_mut(cas)?.expected = revision;
        self.answer = Some(charge);
        Ok(value)
    }

    /// Answers a handle to try again with if the value has changed.
    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> Answer<Result<(), Resource<Cas>>> {
        let operation = Operation::Swap;
        let Cas {
            bucket,
            key,
            expected,
            ..
        } = self.table.delete(cas)?;
        let charge = self.room(operation, key.len() + value.len())?;
        let buckets = self.common.buckets.clone();
        let name = bucket.name.clone();
        let swapped = buckets
            .swap(name, key.clone(), expected, value, charge)
            .await;
        match swapped {
            Ok(Swapped::No(now)) => {
                self.count(operation, Outcome::Conflict);
                Ok(Err(self.cas(bucket, key, now)?))
            }
            Ok(Swapped::Yes) => self.ended(operation, Ok(Ok(()))),
            Err(error) => self.ended(operation, Err(error)),
        }
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    draft::add_to_linker(linker)?;
    draft2::add_to_linker(linker)
}

/// What the two drafts say in the same words: `$cursor` reads a guest's cursor, `$next`
/// writes one.
macro_rules! serve {
    (cursor: $kind:ty, $cursor:expr, $next:expr) => {
        impl store::Host for State {
            async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
                self.open_bucket(&identifier)
            }

            fn convert_error(&mut self, problem: Problem) -> wasmtime::Result<store::Error> {
                match problem {
                    Problem::Trap(error) => Err(error),
                    Problem::Denied => Ok(store::Error::AccessDenied),
                    Problem::Refused(KeyValueError::Unknown(_)) => Ok(store::Error::NoSuchStore),
                    Problem::Refused(error) => Ok(store::Error::Other(error.to_string())),
                }
            }
        }

        impl store::HostBucket for State {
            async fn get(
                &mut self,
                bucket: Resource<Bucket>,
                key: String,
            ) -> Answer<Option<Vec<u8>>> {
                let found = self.get_values(&bucket, vec![key], Operation::Get).await;
                Ok(found?.pop().flatten())
            }

            async fn set(
                &mut self,
                bucket: Resource<Bucket>,
                key: String,
                value: Vec<u8>,
            ) -> Answer<()> {
                let changes = vec![(key, Some(value))];
                self.change(&bucket, changes, Operation::Set).await
            }

            async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
                let changes = vec![(key, None)];
                self.change(&bucket, changes, Operation::Delete).await
            }

            async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
                State::exists(self, &bucket, key).await
            }

            async fn list_keys(
                &mut self,
                bucket: Resource<Bucket>,
                cursor: Option<$kind>,
            ) -> Answer<store::KeyResponse> {
                let after = match cursor.map_or(Some(0), $cursor) {
                    Some(after) => after,
                    None => return self.ended(Operation::ListKeys, Err(KeyValueError::Cursor)),
                };
                let Page { keys, next } = State::list_keys(self, &bucket, after).await?;
                Ok(store::KeyResponse {
                    keys,
                    cursor: next.map($next),
                })
            }

            async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
                self.table.delete(bucket)?;
                Ok(())
            }
        }

        impl batch::Host for State {
            async fn get_many(
                &mut self,
                bucket: Resource<Bucket>,
                keys: Vec<String>,
            ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
                let operation = Operation::GetMany;
                let values = self.get_values(&bucket, keys.clone(), operation).await?;
                let found = keys.into_iter().zip(values);
                Ok(found.map(|(key, value)| Some((key, value?))).collect())
            }

            async fn set_many(
                &mut self,
                bucket: Resource<Bucket>,
                key_values: Vec<(String, Vec<u8>)>,
            ) -> Answer<()> {
                let changes = key_values.into_iter();
                let changes = changes.map(|(key, value)| (key, Some(value))).collect();
                self.change(&bucket, changes, Operation::SetMany).await
            }

            async fn delete_many(
                &mut self,
                bucket: Resource<Bucket>,
                keys: Vec<String>,
            ) -> Answer<()> {
                let changes = keys.into_iter().map(|key| (key, None)).collect();
                self.change(&bucket, changes, Operation::DeleteMany).await
            }
        }
    };
}

use serve;
