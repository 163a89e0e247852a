//! The versions that somebody looks after.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustc_hash::FxHashMap;

use super::version::Version;

/// The versions that are awake: those that keep instances or got events lately.
#[derive(Default)]
pub(super) struct Awake(Mutex<Vec<Weak<Version>>>);

impl Awake {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Version>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, version: &Arc<Version>) {
        self.lock().push(Arc::downgrade(version));
    }

    pub(super) fn each(&self) -> Vec<Arc<Version>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Lets those sleep for whom this answers false.
    pub(super) fn retain(&self, stays: impl Fn(&Arc<Version>) -> bool) {
        // Not under the lock: instances are dropped.
        let mut asleep = FxHashMap::default();
        for version in self.each() {
            if !stays(&version) {
                asleep.insert(Arc::as_ptr(&version), version);
            }
        }
        self.lock().retain(|version| {
            version.strong_count() > 0 && !asleep.contains_key(&version.as_ptr())
        });
        for version in asleep.into_values() {
            if version.sleep() {
                self.add(&version);
            }
        }
    }
}
