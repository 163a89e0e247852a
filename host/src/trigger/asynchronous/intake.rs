//! Where events are accepted.

use std::sync::Arc;

use bytes::Bytes;

use super::{Envelope, queue_of};
use crate::dispatch::Function;
use crate::invocation::RequestId;
use crate::queue::{Attributes, NewMessage, QueueError, QueueStore};
use crate::telemetry::EventStep;

/// An event that nobody waits for.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Names it, and all its attempts.
    pub request_id: RequestId,
    /// What the handler gets.
    pub payload: Bytes,
    /// What is known of it beside.
    pub envelope: Envelope,
    /// How many invocations stand before it in a chain.
    pub depth: u32,
}

impl NewEvent {
    /// As a message of the function's queue.
    #[must_use]
    pub fn into_message(self) -> NewMessage {
        let mut attributes = Attributes::new();
        self.envelope.seal(&mut attributes);
        NewMessage {
            body: self.payload,
            attributes,
            id: Some(self.request_id.uuid()),
            depth: self.depth,
            ..NewMessage::default()
        }
    }
}

/// Accepts events. Cheap to clone.
#[derive(Clone)]
pub struct Intake(Arc<dyn QueueStore>);

impl Intake {
    /// Into these queues.
    #[must_use]
    pub fn new(queues: Arc<dyn QueueStore>) -> Self {
        Self(queues)
    }

    /// Accepts an event: once this returns, the disk has it.
    ///
    /// # Errors
    /// If the function's backlog or the disk is full, or the store is broken.
    pub async fn accept(&self, function: &Function, event: NewEvent) -> Result<(), QueueError> {
        let common = &function.version.common;
        let queue = queue_of(&common.spec.name);
        let sent = self.0.send(queue, vec![event.into_message()]).await?;
        for sent in sent {
            sent?;
        }
        common.metrics.events(EventStep::Accepted, 1);
        Ok(())
    }
}
