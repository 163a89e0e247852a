//! Tries an event, and says what becomes of it: the one place that knows Lambda's rules for
//! attempts, ages and destinations.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::record::{self, Condition, Record, Response};
use super::{Envelope, Fire, MAX_DEPTH, NewEvent, deliver, queue_of, records_of};
use crate::dispatch::{Dispatcher, Function, NotFound, Permit};
use crate::function::events::DEAD_LETTERS;
use crate::function::{AsyncPolicy, Destination, FunctionName};
use crate::invocation::{
    Answer, Call, Event, Failure, Handler, Occurrence, OutcomeKind, RequestId, Tick, Trigger,
};
use crate::queue::{
    Delivery, Held, NewMessage, QueueError, QueueName, QueueStore, Settlement, cut_reason,
};
use crate::runtime::Budget;
use crate::telemetry::{EventStep, Level, Telemetry};
use crate::trigger::feed::{self, Rule, Unsettled, Worker};
use crate::trigger::schedule::lambda::Firing;
use crate::trigger::schedule::{self};

/// Events that are received at once for one function, at most.
const MOST: usize = 1000;

/// Events that are given up in one go of a function that may not run: a drain waits for them.
const REFUSED: usize = 100;

/// What workers of all kinds need.
#[derive(Clone)]
pub struct Surroundings {
    /// Takes events to instances.
    pub dispatcher: Arc<Dispatcher>,
    /// The queues.
    pub queues: Arc<dyn QueueStore>,
    /// What payloads are charged to.
    pub budget: Arc<Budget>,
    /// Where what takes long is done: never on a core's few threads, which files may hold.
    pub blocking: Handle,
    /// Where outcomes are counted.
    pub telemetry: Telemetry,
    /// The account in ARNs.
    pub account: Arc<str>,
    /// The region in ARNs.
    pub region: Arc<str>,
}

/// Works on the events of one function.
pub struct AsyncWorker {
    function: FunctionName,
    queue: QueueName,
    around: Surroundings,
    unsettled: Unsettled,
}

impl AsyncWorker {
    /// For a function.
    #[must_use]
    pub fn new(function: FunctionName, around: Surroundings) -> Self {
        Self {
            queue: queue_of(&function),
            function,
            around,
            unsettled: Unsettled::default(),
        }
    }
}

impl Worker for AsyncWorker {
    fn queue(&self) -> &QueueName {
        &self.queue
    }

    fn function(&self) -> Option<Arc<Function>> {
        self.around
            .dispatcher
            .resolve(self.function.as_str(), None)
            .ok()
    }

    async fn rule(&self) -> Result<Rule, QueueError> {
        Ok(Rule {
            batch: 1,
            window: Duration::ZERO,
            most: MOST,
            visibility: Duration::ZERO,
        })
    }

    async fn work(self: Arc<Self>, function: Arc<Function>, permit: Permit, batch: Vec<Delivery>) {
        for delivery in batch {
            self.try_event(&function, permit.clone(), delivery).await;
        }
    }

    fn unsettled(&self) -> &Unsettled {
        &self.unsettled
    }

    async fn refuse(&self) {
        // Lambda's rule: what nothing may run for is given up at once.
        let Some(function) = self.function() else {
            return;
        };
        let received = self.around.queues.receive(
            self.queue.clone(),
            REFUSED,
            Some(Duration::from_mins(1)),
            Held::Host,
        );
        for delivery in received.await.unwrap_or_default() {
            let tried = Tried::never(&function, &delivery);
            self.give_up(&tried, Condition::ZeroReservedConcurrency, None)
                .await;
        }
    }
}

/// An event that is being tried.
struct Tried<'a> {
    function: &'a Function,
    delivery: &'a Delivery,
    envelope: Envelope,
    /// How often a handler ran for it.
    runs: u32,
}

impl<'a> Tried<'a> {
    /// It did not run this time.
    fn never(function: &'a Function, delivery: &'a Delivery) -> Self {
        Self {
            function,
            delivery,
            envelope: Envelope::open(&delivery.message),
            runs: delivery.message.receives - 1,
        }
    }

    fn request_id(&self) -> RequestId {
        RequestId::of(self.delivery.message.id)
    }

    fn policy(&self) -> &AsyncPolicy {
        &self.function.version.common.spec.events
    }

    /// Why it is not even tried.
    fn hopeless(&self) -> Option<Condition> {
        let message = &self.delivery.message;
        if message.depth >= MAX_DEPTH {
            return Some(Condition::RecursiveInvocation);
        }
        if !self.may_wait(Duration::ZERO) {
            return Some(Condition::EventAgeExceeded);
        }
        // It was received so often already, and nobody came to tell how that ended.
        let is_spent = message.receives > self.policy().max_attempts;
        is_spent.then_some(Condition::RetriesExhausted)
    }

    /// Whether it may still come after so long.
    fn may_wait(&self, delay: Duration) -> bool {
        self.delivery.age.saturating_add(delay) <= self.policy().max_age
    }
}

impl AsyncWorker {
    async fn try_event(&self, function: &Arc<Function>, permit: Permit, delivery: Delivery) {
        let mut tried = Tried::never(function, &delivery);
        // The function may have other versions and aliases.
        let qualifier = tried.envelope.qualifier.clone();
        let resolved = self
            .around
            .dispatcher
            .resolve(self.function.as_str(), qualifier.as_deref());
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(error) => {
                drop(permit);
                return self.wait(&tried, &not_found(&error)).await;
            }
        };
        tried.function = &resolved;
        let message = &delivery.message;
        if let Some(condition) = tried.hopeless() {
            // Others may run meanwhile: on a full disk it takes its time.
            drop(permit);
            return self.give_up(&tried, condition, None).await;
        }
        let Some(payload) = self.around.budget.hold(message.body.clone()) else {
            drop(permit);
            return self.wait(&tried, &Failure::no_memory()).await;
        };
        tried.runs += 1;
        let (event, call) = self.event(&tried, payload);
        let budget = Arc::clone(&self.around.budget);
        let interpret = move |answer| match answer {
            Answer::Payload(payload) => {
                let held = budget.hold(payload.into());
                Ok(Some(held.ok_or_else(Failure::no_memory)?))
            }
            Answer::Done => Ok(None),
            Answer::Http(_) | Answer::Batch(_) | Answer::Streamed => {
                Err(Failure::host("an event had the answer of another"))
            }
        };
        let ended = self
            .around
            .dispatcher
            .invoke_admitted(&resolved, permit, event, call, interpret)
            .await;
        match ended.result {
            Ok(answer) => self.done(&tried, answer).await,
            Err(failure) => match failure.kind {
                OutcomeKind::Throttled | OutcomeKind::HostError | OutcomeKind::Cancelled => {
                    tried.runs -= 1;
                    self.wait(&tried, &failure).await;
                }
                _ => self.failed(&tried, failure).await,
            },
        }
    }

    /// What the handler gets.
    fn event(&self, tried: &Tried<'_>, payload: Bytes) -> (Event, Call) {
        let message = &tried.delivery.message;
        let mut call = Call {
            request_id: tried.request_id(),
            qualifier: tried.envelope.qualifier.clone(),
            attempt: message.receives,
            traceparent: tried.envelope.traceparent.clone(),
            depth: message.depth,
            ..Call::new(Trigger::Async)
        };
        let Some(fire) = &tried.envelope.fire else {
            return (Event::Payload(payload), call);
        };
        call.trigger = Trigger::Schedule;
        if !tried.function.version.handles(Handler::Schedule) {
            let payload = self.scheduled_event(fire, message.id, payload);
            return (Event::Payload(payload), call);
        }
        let tick = Tick {
            occurrence: Occurrence {
                id: fire.id(),
                attempt: message.receives,
                max_attempts: tried.policy().max_attempts,
                enqueued_at: message.sent.unsigned_abs(),
                source: fire.schedule.as_str().into(),
            },
            schedule: fire.schedule.clone(),
            scheduled_at: fire.scheduled_at,
            fired_at: fire.fired_at,
            missed: fire.missed,
            payload,
        };
        (Event::Tick(Box::new(tick)), call)
    }

    /// EventBridge's own event, or what the schedule gives in its place.
    fn scheduled_event(&self, fire: &Fire, id: uuid::Uuid, payload: Bytes) -> Bytes {
        if fire.has_payload {
            return payload;
        }
        let (account, region) = (&self.around.account, &self.around.region);
        let firing = Firing {
            schedule: &fire.schedule,
            id,
            time: fire.scheduled_at.cast_signed(),
            account,
            region,
        };
        schedule::lambda::event(&firing, None).into()
    }

    /// It waits for better times, and is charged no attempt.
    async fn wait(&self, tried: &Tried<'_>, failure: &Failure) {
        let delay = feed::back_off(tried.delivery.message.releases);
        let delay = failure.retry_after.map_or(delay, |after| after.max(delay));
        if !tried.may_wait(delay) {
            return self
                .give_up(tried, Condition::EventAgeExceeded, Some(failure))
                .await;
        }
        self.settle(
            tried,
            Settlement::Release(delay),
            Vec::new(),
            EventStep::Released,
        )
        .await;
    }

    /// The handler failed: another attempt, or none.
    async fn failed(&self, tried: &Tried<'_>, failure: Failure) {
        let policy = tried.policy();
        let attempt = tried.delivery.message.receives;
        if failure.rejected || attempt >= policy.max_attempts {
            return self
                .give_up(tried, Condition::RetriesExhausted, Some(&failure))
                .await;
        }
        let doubled = policy.retry_delay * (1 << (attempt - 1).min(20));
        let delay = failure.retry_after.unwrap_or_else(|| feed::later(doubled));
        if !tried.may_wait(delay) {
            return self
                .give_up(tried, Condition::EventAgeExceeded, Some(&failure))
                .await;
        }
        let retry = Settlement::Retry {
            after: delay,
            reason: cut_reason(&failure.message).to_owned(),
        };
        self.settle(tried, retry, Vec::new(), EventStep::Retried)
            .await;
    }

    async fn done(&self, tried: &Tried<'_>, answer: Option<Bytes>) {
        let sends = tried.policy().on_success.iter().map(|destination| {
            let response = Response {
                status: 200,
                version: Some(&tried.function.version.common.version),
                error: None,
                payload: answer.as_deref(),
            };
            self.record(tried, destination, Condition::Success, Some(response))
        });
        let sends = sends.collect();
        self.settle(tried, Settlement::Done, sends, EventStep::Done)
            .await;
    }

    /// No attempt follows: it goes where failed events go, with its reason.
    async fn give_up(&self, tried: &Tried<'_>, condition: Condition, failure: Option<&Failure>) {
        let policy = tried.policy();
        let why = match failure {
            Some(failure) => format!("{}: {}", condition.as_str(), cut_reason(&failure.message)),
            None => format!("{}: {}", condition.as_str(), condition.meaning()),
        };
        let ran = failure.filter(|_| tried.runs > 0);
        let payload = ran.map(|failure| failure.to_json(tried.request_id()).to_string());
        let response = payload.as_ref().map(|payload| Response {
            status: 200,
            version: Some(&tried.function.version.common.version),
            error: Some("Unhandled"),
            payload: Some(payload.as_bytes()),
        });
        let record = |destination| self.record(tried, destination, condition, response);
        // The end of a chain of functions is not told to another function.
        let ends_here = tried.delivery.message.depth + 1 >= MAX_DEPTH;
        let on_failure = policy.on_failure.iter();
        let on_failure =
            on_failure.filter(|to| !ends_here || !matches!(to, Destination::Function(_)));
        let sends: Vec<_> = on_failure.map(record).collect();
        let dead_letters = match (&policy.dead_letters, sends.is_empty()) {
            (Some(queue), _) => Some(queue.clone()),
            (None, true) => Some(default_dead_letters()),
            (None, false) => None,
        };
        let settlement = match dead_letters {
            None => Settlement::Done,
            Some(queue) => {
                let said = failure.map_or(why.as_str(), |failure| &failure.message);
                let status = (tried.runs > 0).then_some(200);
                let mut attributes = record::dead_letter(tried.request_id(), status, said);
                tried.envelope.seal(&mut attributes);
                Settlement::Bury {
                    queue,
                    reason: why.clone(),
                    attributes,
                }
            }
        };
        let message = format!(
            "the event {} of the function {} is given up: {why}",
            tried.request_id(),
            self.function
        );
        self.around.telemetry.log.host(Level::Warn, &message);
        self.settle(tried, settlement, sends, EventStep::Dead).await;
    }

    /// The record of an outcome, for a destination.
    fn record(
        &self,
        tried: &Tried<'_>,
        destination: &Destination,
        condition: Condition,
        response: Option<Response<'_>>,
    ) -> (QueueName, NewMessage) {
        let common = &tried.function.version.common;
        let message = &tried.delivery.message;
        let qualifier = tried.envelope.qualifier.as_deref();
        let record = Record {
            time: now(),
            request_id: tried.request_id(),
            function_arn: &format!("{}:{}", common.arn, qualifier.unwrap_or("$LATEST")),
            condition,
            invokes: tried.runs,
            request: &message.body,
            response,
        };
        let body: Bytes = record.to_json().into();
        match destination {
            Destination::Queue(queue) => (queue.clone(), NewMessage::of(body)),
            Destination::Http(_) => {
                let message = deliver::message(body, condition);
                (records_of(&self.function), message)
            }
            Destination::Function(function) => {
                let event = NewEvent {
                    request_id: RequestId::random(),
                    payload: body,
                    envelope: Envelope {
                        traceparent: tried.envelope.traceparent.clone(),
                        ..Envelope::default()
                    },
                    depth: message.depth + 1,
                };
                (queue_of(function), event.into_message())
            }
        }
    }

    async fn settle(
        &self,
        tried: &Tried<'_>,
        settlement: Settlement,
        sends: Vec<(QueueName, NewMessage)>,
        how: EventStep,
    ) {
        let queues = &*self.around.queues;
        let receipt = tried.delivery.receipt;
        let all = vec![(receipt, settlement.clone())];
        let mut settled = feed::settle(queues, &self.unsettled, all, sends).await;
        if let Err(QueueError::Unknown(gone)) = &settled {
            // Better in another place than nowhere.
            let message = format!(
                "the event {} of the function {} cannot go to `{gone}`, which is no more; a failed \
                 one goes to `{DEAD_LETTERS}`",
                tried.request_id(),
                self.function
            );
            self.around.telemetry.log.host(Level::Error, &message);
            let settlement = match settlement {
                Settlement::Bury {
                    reason, attributes, ..
                } => Settlement::Bury {
                    queue: default_dead_letters(),
                    reason,
                    attributes,
                },
                Settlement::Done if how == EventStep::Dead => Settlement::Bury {
                    queue: default_dead_letters(),
                    reason: format!("`{gone}`, where it was to go, is no more"),
                    attributes: tried.delivery.message.attributes.clone(),
                },
                other => other,
            };
            let settlements = vec![(receipt, settlement)];
            settled = feed::settle(queues, &self.unsettled, settlements, Vec::new()).await;
        }
        if settled.is_ok() {
            tried.function.version.common.metrics.events(how, 1);
        }
    }
}

pub(super) fn default_dead_letters() -> QueueName {
    QueueName::new(DEAD_LETTERS).expect("it is one")
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

fn not_found(error: &NotFound) -> Failure {
    Failure::host(error.to_string())
}
