//! What functions send to queues and to each other.

use std::sync::Arc;
use std::time::Duration;

use super::{Envelope, Intake, NewEvent};
use crate::dispatch::Dispatcher;
use crate::invocation::{Handler, Letter, Outbox, Posted, Refused, RequestId};
use crate::queue::{NewMessage, QueueError, QueueName, QueueStore};
use crate::store::WriteError;

/// When to try again where something is full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Takes what functions of this host send.
pub struct HostOutbox {
    dispatcher: Arc<Dispatcher>,
    queues: Arc<dyn QueueStore>,
    intake: Intake,
}

impl HostOutbox {
    /// To these queues, and to what the dispatcher knows.
    #[must_use]
    pub fn new(dispatcher: Arc<Dispatcher>, queues: Arc<dyn QueueStore>) -> Self {
        Self {
            dispatcher,
            intake: Intake::new(Arc::clone(&queues)),
            queues,
        }
    }
}

impl Outbox for HostOutbox {
    fn send(
        &self,
        queue: QueueName,
        messages: Vec<NewMessage>,
    ) -> Posted<'_, Vec<Result<String, Refused>>> {
        let count = messages.len();
        Box::pin(async move {
            match self.queues.send(queue, messages).await {
                Ok(sent) => sent
                    .into_iter()
                    .map(|sent| sent.map(|sent| sent.id.to_string()).map_err(refused))
                    .collect(),
                Err(error) => vec![Err(refused(error)); count],
            }
        })
    }

    fn invoke(&self, letter: Letter) -> Posted<'_, Result<String, Refused>> {
        Box::pin(async move {
            let resolved = self
                .dispatcher
                .resolve(letter.function.as_str(), letter.qualifier.as_deref());
            let function = resolved.map_err(|error| Refused::NotFound(error.to_string()))?;
            if !function.version.handles(Handler::Invoke) {
                let what = format!("`{}` exports no `dunlin:event/invoke`", letter.function);
                return Err(Refused::Invalid(what));
            }
            let most = function.version.common.spec.events.event_limit.0;
            if letter.payload.len() as u64 > most {
                return Err(Refused::TooLarge(most));
            }
            let request_id = RequestId::random();
            let event = NewEvent {
                request_id,
                payload: letter.payload,
                envelope: Envelope {
                    qualifier: letter.qualifier,
                    traceparent: letter.traceparent,
                    fire: None,
                },
                depth: letter.depth,
            };
            let accepted = self.intake.accept(&function, event).await;
            accepted.map_err(refused)?;
            Ok(request_id.to_string())
        })
    }
}

fn refused(error: QueueError) -> Refused {
    match error {
        QueueError::Unknown(name) => Refused::NotFound(name.to_string()),
        QueueError::Full(..) => Refused::Throttled(Some(RETRY_AFTER)),
        QueueError::TooLarge { most, .. } => Refused::TooLarge(most),
        QueueError::Refused(what) => Refused::Invalid(what),
        QueueError::InUse(..) => Refused::Invalid(error.to_string()),
        QueueError::Write(WriteError::Full) => Refused::Unavailable(error.to_string()),
        QueueError::Write(WriteError::Broken(_)) => Refused::Unavailable(error.to_string()),
    }
}
