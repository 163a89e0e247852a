//! Event source mappings: queues that feed functions, in batches.
//!
//! A message is done when its function says so, and tried again or buried as its queue's
//! settings say: the function's own settings for asynchronous events do not matter here.

pub mod lambda;
mod suspects;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lambda::Source;
use suspects::Suspects;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::dispatch::{Function, Permit};
use crate::function::events::{DEAD_LETTERS, DEAD_LETTERS_FIFO};
use crate::function::{FunctionName, QueueMapping};
use crate::invocation::{
    Advice, Answer, Call, Event, Failed, Failure, Handler, Occurrence, OutcomeKind, QueueMessage,
    Trigger,
};
use crate::queue::{
    Delivery, Message, QueueError, QueueInfo, QueueName, Receipt, ReceiptKey, Settlement,
    cut_reason,
};
use crate::telemetry::{EventStep, Level};
use crate::trigger::asynchronous::{MAX_DEPTH, Surroundings};
use crate::trigger::feed::{self, Rule, Unsettled, Worker};

/// Works on the batches of one mapping.
pub struct QueueWorker {
    function: FunctionName,
    mapping: QueueMapping,
    around: Surroundings,
    receipts: ReceiptKey,
    info: ArcSwapOption<(Instant, Arc<QueueInfo>)>,
    suspects: Suspects,
    unsettled: Unsettled,
}

/// Who filters now.
static FILTERING: Semaphore = Semaphore::const_new(1);
/// What is shown of an id that a guest made up, in bytes.
const MAX_SHOWN: usize = 64;
/// For so long what is known of a queue is taken for what it is.
const FRESH: Duration = Duration::from_secs(1);
/// How long a dead letter rests at least that is rejected where dead letters lie.
const LEAST_REST: Duration = Duration::from_mins(1);
/// The longest that a message is hidden: SQS's longest visibility timeout.
const LONGEST: Duration = Duration::from_hours(12);

impl QueueWorker {
    /// For a mapping of a function. `receipts` seals those that are shown to it.
    #[must_use]
    pub fn new(
        function: FunctionName,
        mapping: QueueMapping,
        around: Surroundings,
        receipts: ReceiptKey,
    ) -> Self {
        Self {
            function,
            mapping,
            around,
            receipts,
            info: ArcSwapOption::empty(),
            suspects: Suspects::default(),
            unsettled: Unsettled::default(),
        }
    }
}

impl Worker for QueueWorker {
    fn queue(&self) -> &QueueName {
        &self.mapping.queue
    }

    fn function(&self) -> Option<Arc<Function>> {
        self.around
            .dispatcher
            .resolve(self.function.as_str(), None)
            .ok()
    }

    async fn rule(&self) -> Result<Rule, QueueError> {
        let info = self.info().await?;
        let most = self.mapping.max_concurrency;
        Ok(Rule {
            batch: self.mapping.batch_size as usize,
            window: self.mapping.batch_window,
            most: most.map_or(usize::MAX, |most| most as usize),
            visibility: info.settings.visibility,
        })
    }

    fn unsettled(&self) -> &Unsettled {
        &self.unsettled
    }

    async fn work(self: Arc<Self>, function: Arc<Function>, permit: Permit, batch: Vec<Delivery>) {
        let received = Instant::now();
        let receipts: Vec<Receipt> = batch.iter().map(|delivery| delivery.receipt).collect();
        let Ok(info) = self.info().await else {
            // It was there when the batch was received, and may be again.
            drop(permit);
            let back = receipts.into_iter().map(|it| given_back(it, FRESH));
            return self.settle(&function, back.collect()).await;
        };
        let (batch, mut unfit) = self.choose(batch, &info).await;
        let hidden = feed::hidden(&function, info.settings.visibility);
        let mut runs = self.suspects.split(batch, info.name.is_fifo());
        let suspect = runs.iter().position(|run| self.suspects.is_one(run));
        // Should it take the host down, those behind it only waited.
        let behind = suspect.map(|place| runs.split_off(place + 1));
        let behind = behind.into_iter().flatten().flatten();
        unfit.extend(behind.map(|delivery| given_back(delivery.receipt, Duration::ZERO)));
        let mut failed_groups = HashSet::new();
        let mut permit = Some(permit);
        if !unfit.is_empty() {
            // On a full disk that takes its time, and others may run meanwhile.
            permit = None;
            self.settle(&function, unfit).await;
        }
        for run in runs {
            // Others may run while one is settled: on a full disk that takes its time.
            let permit = match permit.take() {
                Some(permit) => permit,
                None => function.lane.admit_background().await,
            };
            // The rest would come again while it is handled; or it stands behind a message of
            // its group that did not come to its end.
            let late = received.elapsed() + function.version.common.spec.limits.timeout > hidden;
            let (run, held_up): (Vec<_>, Vec<_>) = run.into_iter().partition(|delivery| {
                let group = delivery.message.group.as_ref();
                !late && group.is_none_or(|group| !failed_groups.contains(group))
            });
            let mut verdicts: Vec<Verdict> = held_up
                .iter()
                .map(|delivery| given_back(delivery.receipt, Duration::ZERO))
                .collect();
            if !run.is_empty() {
                let result = self.invoke(&function, permit, &run, &info).await;
                if brings_down_others(&result, run.len()) {
                    self.suspects.add(&run);
                }
                verdicts.extend(self.judge(&run, result, &info, received, &mut failed_groups));
            }
            self.settle(&function, verdicts).await;
        }
    }
}

/// It waits for better times, uncharged.
fn given_back(receipt: Receipt, after: Duration) -> Verdict {
    (receipt, Settlement::Release(after), EventStep::Released)
}

/// Whether a batch ended without a word on its messages: one of them may be to blame.
fn brings_down_others(result: &Result<Vec<Failed>, Failure>, of: usize) -> bool {
    match result {
        // With all of them named it says no more than that.
        Ok(failed) => {
            let retried = failed
                .iter()
                .filter(|it| matches!(it.advice, Advice::Retry(_)));
            retried.count() >= of
        }
        Err(failure) => !is_no_fault(failure),
    }
}

/// Whether it says nothing of the event that it did not run.
fn is_no_fault(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        OutcomeKind::Throttled | OutcomeKind::HostError | OutcomeKind::Cancelled
    )
}

/// What becomes of a message, and how that is counted.
type Verdict = (Receipt, Settlement, EventStep);

impl QueueWorker {
    /// The queue as it is now, or was a moment ago.
    async fn info(&self) -> Result<Arc<QueueInfo>, QueueError> {
        let known = self.info.load_full();
        if let Some((at, info)) = known.as_deref()
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(info));
        }
        let info = Arc::new(self.around.queues.info(self.mapping.queue.clone()).await?);
        let now = (Instant::now(), Arc::clone(&info));
        self.info.store(Some(Arc::new(now)));
        Ok(info)
    }

    /// Takes out what the function does not get. A filter reads bodies that anybody may have
    /// sent: one batch at a time, and not on a core where functions wait.
    async fn choose(
        self: &Arc<Self>,
        batch: Vec<Delivery>,
        info: &Arc<QueueInfo>,
    ) -> (Vec<Delivery>, Vec<Verdict>) {
        if self.mapping.filter.patterns().is_empty() {
            return self.sort_out(batch, info);
        }
        let _one = FILTERING.acquire().await;
        let (worker, info) = (Arc::clone(self), Arc::clone(info));
        let sorted = self
            .around
            .blocking
            .spawn_blocking(move || worker.sort_out(batch, &info));
        sorted.await.expect("a filter takes any message")
    }

    /// Takes out what the function does not get.
    fn sort_out(&self, batch: Vec<Delivery>, info: &QueueInfo) -> (Vec<Delivery>, Vec<Verdict>) {
        let mut fit = Vec::with_capacity(batch.len());
        let mut unfit = Vec::new();
        let mut held_up = HashSet::new();
        for mut delivery in batch {
            let message = &delivery.message;
            let group = message.group.as_ref();
            if group.is_some_and(|group| held_up.contains(group)) {
                unfit.push(given_back(delivery.receipt, Duration::ZERO));
            } else if message.depth >= MAX_DEPTH {
                let reason = format!(
                    "functions send events to each other in a loop: {MAX_DEPTH} invocations stand \
                     before it"
                );
                unfit.push((delivery.receipt, self.reject(info, reason), EventStep::Dead));
            } else if !self.passes(&delivery) {
                unfit.push((delivery.receipt, Settlement::Done, EventStep::Filtered));
            } else if let Some(body) = self.around.budget.hold(message.body.clone()) {
                delivery.message.body = body;
                fit.push(delivery);
            } else {
                // What stands behind it in its group waits for it.
                held_up.extend(message.group.clone());
                unfit.push(given_back(
                    delivery.receipt,
                    feed::back_off(message.releases),
                ));
            }
        }
        (fit, unfit)
    }

    fn passes(&self, delivery: &Delivery) -> bool {
        let body = lambda::body(&delivery.message.body);
        let fields = || self.as_lambda(&|source| lambda::fields(delivery, source));
        self.mapping.filter.matches_message(&body, fields)
    }

    async fn invoke(
        &self,
        function: &Function,
        permit: Permit,
        batch: &[Delivery],
        info: &QueueInfo,
    ) -> Result<Vec<Failed>, Failure> {
        let depth = batch.iter().map(|delivery| delivery.message.depth).max();
        let attempt = batch.iter().map(|delivery| delivery.message.receives).min();
        let call = Call {
            depth: depth.unwrap_or(0),
            attempt: attempt.unwrap_or(1),
            ..Call::new(Trigger::Queue)
        };
        let event = if function.version.handles(Handler::Queue) {
            Event::Batch(batch.iter().map(|d| message(d, info)).collect())
        } else {
            let payload = self.as_lambda(&|source| lambda::event(batch, source));
            let held = self.around.budget.hold(payload.into());
            let no_room = || Failure::host("the host-wide memory budget has no room for the batch");
            Event::Payload(held.ok_or_else(no_room)?)
        };
        let ids: Vec<Uuid> = batch.iter().map(|delivery| delivery.message.id).collect();
        let report_failures = self.mapping.report_failures;
        let interpret = move |answer| match answer {
            Answer::Batch(failed) => Ok(failed),
            Answer::Payload(_) if !report_failures => Ok(Vec::new()),
            Answer::Payload(answer) => match lambda::failures(&answer, &ids) {
                Ok(failed) => Ok(failed
                    .into_iter()
                    .map(|place| failed_one(ids[place]))
                    .collect()),
                Err(error) => Err(Failure::new(
                    OutcomeKind::FunctionError,
                    "Function.InvalidResponse",
                    error.to_string(),
                )),
            },
            Answer::Http(_) | Answer::Done | Answer::Streamed => {
                Err(Failure::host("a batch had the answer of another event"))
            }
        };
        let dispatcher = &self.around.dispatcher;
        let ended = dispatcher.invoke_admitted(function, permit, event, call, interpret);
        ended.await.result
    }

    /// Something of a batch in Lambda's form.
    fn as_lambda<T>(&self, make: &dyn Fn(&Source<'_>) -> T) -> T {
        let Surroundings {
            account, region, ..
        } = &self.around;
        let queue = &self.mapping.queue;
        make(&Source {
            queue,
            arn: &|queue| format!("arn:aws:sqs:{region}:{account}:{queue}"),
            region,
            sender: account,
            handle: &|receipt| self.receipts.seal(queue, *receipt),
        })
    }

    /// What becomes of each message of a batch.
    fn judge(
        &self,
        batch: &[Delivery],
        result: Result<Vec<Failed>, Failure>,
        info: &QueueInfo,
        received: Instant,
        failed_groups: &mut HashSet<String>,
    ) -> Vec<Verdict> {
        let back = info.settings.visibility.saturating_sub(received.elapsed());
        let groups = |batch: &[Delivery]| -> Vec<String> {
            let groups = batch.iter().filter_map(|d| d.message.group.clone());
            groups.collect()
        };
        // The last attempt that a message has, and it is a dead letter.
        let redrive = info.settings.redrive.as_ref();
        let most = redrive.map_or(u32::MAX, |redrive| redrive.max_receives);
        let step = |message: &Message| match message.receives >= most {
            true => EventStep::Dead,
            false => EventStep::Retried,
        };
        let all = |after: Duration, reason: &str| -> Vec<Verdict> {
            let retry = |delivery: &Delivery| {
                let reason = cut_reason(reason).to_owned();
                let retry = Settlement::Retry { after, reason };
                (delivery.receipt, retry, step(&delivery.message))
            };
            batch.iter().map(retry).collect()
        };
        let failed = match result {
            Ok(failed) => failed,
            Err(failure) => {
                failed_groups.extend(groups(batch));
                if is_no_fault(&failure) {
                    let each = batch.iter();
                    let back_off = |d: &Delivery| feed::back_off(d.message.releases);
                    return each.map(|d| given_back(d.receipt, back_off(d))).collect();
                }
                let after = failure.retry_after.unwrap_or(back);
                return all(after, &failure.message);
            }
        };
        let mut advice: HashMap<String, Advice> = failed
            .into_iter()
            .map(|failed| (failed.id, failed.advice))
            .collect();
        let mut verdicts = Vec::with_capacity(batch.len());
        for delivery in batch {
            let message = &delivery.message;
            let stands_behind = message
                .group
                .as_ref()
                .is_some_and(|group| failed_groups.contains(group));
            let verdict = match advice.remove(&message.id.to_string()) {
                None => (delivery.receipt, Settlement::Done, EventStep::Done),
                // It comes after the one that failed before it, which is its only fault.
                Some(Advice::Retry(_)) if stands_behind => {
                    given_back(delivery.receipt, Duration::ZERO)
                }
                Some(Advice::Retry(after)) => {
                    failed_groups.extend(message.group.clone());
                    let reason = format!("the function {} failed it", self.function);
                    let after = after.unwrap_or(back).min(LONGEST);
                    let retry = Settlement::Retry { after, reason };
                    (delivery.receipt, retry, step(message))
                }
                Some(Advice::Reject(reason)) => {
                    let reject = self.reject(info, reason);
                    (delivery.receipt, reject, EventStep::Dead)
                }
            };
            verdicts.push(verdict);
        }
        // A handler that names other messages does not know what it did.
        if let Some(stranger) = advice.keys().next() {
            let reason = format!(
                "the function {} names the message `{}` as failed, which is not in its batch",
                self.function,
                stranger[..stranger.floor_char_boundary(MAX_SHOWN)].escape_debug()
            );
            return all(back, &reason);
        }
        verdicts
    }

    /// To the dead letters; to the host's own if the queue names none when it is settled.
    fn reject(&self, info: &QueueInfo, reason: String) -> Settlement {
        let name = match info.name.is_fifo() {
            true => DEAD_LETTERS_FIFO,
            false => DEAD_LETTERS,
        };
        let otherwise = QueueName::new(name).expect("it is one");
        if otherwise == info.name && info.settings.redrive.is_none() {
            // It is there already: better there for longer than nowhere.
            let after = info.settings.visibility.max(LEAST_REST);
            return Settlement::Retry { after, reason };
        }
        let otherwise = Some(otherwise);
        Settlement::Reject { reason, otherwise }
    }

    async fn settle(&self, function: &Function, verdicts: Vec<Verdict>) {
        let metrics = &function.version.common.metrics;
        let steps: Vec<EventStep> = verdicts.iter().map(|(_, _, step)| *step).collect();
        let settlements = verdicts
            .into_iter()
            .map(|(receipt, settlement, _)| (receipt, settlement));
        let queues = &*self.around.queues;
        let settlements = settlements.collect();
        let settled = feed::settle(queues, &self.unsettled, settlements, Vec::new()).await;
        match settled {
            Ok(_) => steps.into_iter().for_each(|step| metrics.events(step, 1)),
            // They come back when their time is over.
            Err(error) => {
                let message = format!(
                    "messages of the queue {} cannot be settled: {error}",
                    self.mapping.queue
                );
                self.around.telemetry.log.host(Level::Error, &message);
            }
        }
    }
}

fn failed_one(id: Uuid) -> Failed {
    Failed {
        id: id.to_string(),
        advice: Advice::Retry(None),
    }
}

/// A message as the `queue` handler gets it.
fn message(delivery: &Delivery, info: &QueueInfo) -> QueueMessage {
    let message = &delivery.message;
    let redrive = info.settings.redrive.as_ref();
    let own = message.attributes.iter().map(|(name, attribute)| {
        let value = match attribute.kind.starts_with("Binary") {
            true => STANDARD.encode(&attribute.value),
            false => String::from_utf8_lossy(&attribute.value).into_owned(),
        };
        (name.clone(), value)
    });
    let system = [
        ("sys:sequence-number", Some(message.sequence.to_string())),
        ("sys:deduplication-id", message.deduplication.clone()),
        (
            "sys:dead-letter-source",
            message.dead.as_ref().map(|dead| dead.source.to_string()),
        ),
        (
            "sys:dead-letter-reason",
            message.dead.as_ref().map(|dead| dead.reason.clone()),
        ),
    ];
    let system = system
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    QueueMessage {
        occurrence: Occurrence {
            id: message.id.to_string(),
            attempt: message.receives,
            max_attempts: redrive.map_or(0, |redrive| redrive.max_receives),
            enqueued_at: message.sent.unsigned_abs(),
            source: info.name.as_str().into(),
        },
        body: message.body.clone(),
        attributes: own.chain(system).collect(),
        group: message.group.clone(),
    }
}
