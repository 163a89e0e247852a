//! Messages that were in a batch which ended without a word on each: a trap, a timeout, the
//! end of the host.
//!
//! One of them may bring down whatever batch it is in. So they come again alone: a poison
//! message costs those beside it one attempt, and not all that they have.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::queue::Delivery;

/// How many are remembered; older ones are forgotten, and may come in company.
const MOST: usize = 10_000;

/// Those of one mapping. They are forgotten when the host ends, but for those that it held
/// then.
#[derive(Default)]
pub(super) struct Suspects(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    ids: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Suspects {
    /// Remembers the messages of a batch. One that was alone has only itself to blame.
    pub(super) fn add(&self, batch: &[Delivery]) {
        if batch.len() < 2 {
            return;
        }
        self.remember(batch.iter());
    }

    /// Whether this is one of them, which is handled alone.
    pub(super) fn is_one(&self, batch: &[Delivery]) -> bool {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(batch, [one] if remembered.ids.contains(&one.message.id))
    }

    fn remember<'a>(&self, deliveries: impl Iterator<Item = &'a Delivery>) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for delivery in deliveries {
            let id = delivery.message.id;
            if remembered.ids.insert(id) {
                remembered.order.push_back(id);
            }
        }
        while remembered.order.len() > MOST {
            if let Some(id) = remembered.order.pop_front() {
                remembered.ids.remove(&id);
            }
        }
    }

    /// Splits what was received into what is handled together. In a FIFO queue the order
    /// stays as it is.
    pub(super) fn split(&self, received: Vec<Delivery>, is_fifo: bool) -> Vec<Vec<Delivery>> {
        if received.is_empty() {
            return Vec::new();
        }
        self.remember(received.iter().filter(|delivery| delivery.is_suspect));
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.ids.is_empty() {
            return vec![received];
        }
        let is_suspect = |delivery: &Delivery| remembered.ids.contains(&delivery.message.id);
        if is_fifo {
            let mut runs: Vec<Vec<Delivery>> = Vec::new();
            let mut alone = true;
            for delivery in received {
                let suspect = is_suspect(&delivery);
                match runs.last_mut().filter(|_| !alone && !suspect) {
                    Some(run) => run.push(delivery),
                    None => runs.push(vec![delivery]),
                }
                alone = suspect;
            }
            return runs;
        }
        let (suspects, others): (Vec<_>, Vec<_>) = received.into_iter().partition(is_suspect);
        let others = std::iter::once(others).filter(|others| !others.is_empty());
        others
            .chain(suspects.into_iter().map(|suspect| vec![suspect]))
            .collect()
    }
}
