//! The SQS API over the durable queues: AWS's JSON protocol, so that any SQS client feeds
//! and reads them.
//!
//! A request is `POST /` with the operation in `X-Amz-Target`. Queues are named by a URL of
//! which only the last part counts: the rest is whatever way the client came.

mod attributes;
pub mod error;
mod message;
mod shapes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::schedules::Schedules;
use crate::queue::{
    Delivery, Held, Owner, QueueError, QueueName, QueueStore, Receipt, ReceiptKey, Settled,
    Settlement,
};
use error::SqsError;
use shapes::{
    Batch, BatchAnswer, CreateQueue, Entry, GetQueueAttributes, GetQueueUrl, Handle,
    HandleWithTime, Id, ListQueues, Nothing, OfQueue, OfReceipt, OfSome, ReceiveMessage,
    SendMessage, SetQueueAttributes,
};

/// The header that names an operation, and what its value begins with.
const TARGET: &str = "x-amz-target";
const PREFIX: &str = "AmazonSQS.";
/// What SQS has no operation for, for `dunlin queue` and `dunlin schedule`.
const OWN: &str = "Dunlin.";
/// A batch has up to ten entries.
const MAX_BATCH: usize = 10;
/// SQS's limit for all messages of a batch together, in bytes.
const MAX_BATCH_BYTES: u64 = 1 << 20;
/// The largest body of a request: a batch in which every byte is escaped, and then some.
pub(super) const BODY_LIMIT: usize = 8 << 20;
/// Messages that are shown at once: with the largest bodies an answer of some MiB.
const MAX_PEEKED: u64 = 100;
/// How long a client may wait for messages.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// How often who waits looks by itself, should the clock have been set.
const LOOK: Duration = Duration::from_secs(1);

/// The operation that a request asks for, if it is one of SQS.
pub(super) fn operation<'a>(
    method: &Method,
    path: &str,
    headers: &'a HeaderMap,
) -> Option<&'a str> {
    let target = headers.get(TARGET)?.to_str().ok()?;
    // Some clients post to the queue's own URL.
    let is_queue = path.split('/').count() == 3;
    (method == Method::POST && (path == "/" || is_queue))
        .then(|| {
            target
                .strip_prefix(PREFIX)
                .or_else(|| target.starts_with(OWN).then_some(target))
        })
        .flatten()
}

/// The API.
pub struct Sqs {
    queues: Arc<dyn QueueStore>,
    key: ReceiptKey,
    account: String,
    region: String,
    /// What else one of our own operations shows.
    schedules: Schedules,
    /// Who waits for messages when the host drains is sent away.
    draining: watch::Receiver<bool>,
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, SqsError> {
    serde_json::from_slice(body).map_err(|error| SqsError::Malformed(error.to_string()))
}

fn answer(value: &impl Serialize) -> Result<Response<Bytes>, SqsError> {
    let text = serde_json::to_vec(value).map_err(|error| SqsError::Internal(error.to_string()))?;
    let mut response = Response::new(text.into());
    let json = HeaderValue::from_static("application/x-amz-json-1.0");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// The queue that a URL names.
fn name_of(url: &str) -> Result<QueueName, SqsError> {
    let name = url.rsplit('/').next().unwrap_or_default();
    QueueName::new(name).map_err(|_| SqsError::NoQueue)
}

/// As [`name_of`], and also one that the host keeps for itself: for operators.
fn any_name_of(url: &str) -> Result<QueueName, SqsError> {
    let name = url.rsplit('/').next().unwrap_or_default();
    QueueName::stored(name).map_err(|_| SqsError::NoQueue)
}

/// A number of seconds within a range.
fn seconds(name: &'static str, value: i64, most: u64) -> Result<Duration, SqsError> {
    let valid = u64::try_from(value).ok().filter(|value| *value <= most);
    valid.map(Duration::from_secs).ok_or_else(|| SqsError::InvalidParameter {
        message: format!("Value {value} for parameter {name} is invalid. Reason: must be between 0 and {most}."),
    })
}

/// The longest that a message may be hidden, in seconds: 12 h.
const MAX_HIDDEN: u64 = 43_200;

impl Sqs {
    /// The API over queues, for ARNs of this account and region.
    #[must_use]
    pub fn new(
        queues: Arc<dyn QueueStore>,
        key: ReceiptKey,
        account: String,
        region: String,
        schedules: Schedules,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self {
            queues,
            key,
            account,
            region,
            schedules,
            draining,
        }
    }

    /// Does an operation. `host` is how the client reached this address.
    pub(super) async fn run(
        &self,
        operation: &str,
        host: &str,
        body: &[u8],
    ) -> Result<Response<Bytes>, SqsError> {
        match operation {
            "CreateQueue" => self.create(host, parse(body)?).await,
            "GetQueueUrl" => self.url_of(host, parse(body)?).await,
            "ListQueues" => self.list(host, parse(body)?).await,
            "DeleteQueue" => self.delete_queue(parse(body)?).await,
            "PurgeQueue" => self.purge(parse(body)?).await,
            "GetQueueAttributes" => self.attributes(parse(body)?).await,
            "SetQueueAttributes" => self.set_attributes(parse(body)?).await,
            // Terraform asks for each queue.
            "ListQueueTags" => answer(&Nothing {}),
            "SendMessage" => self.send(parse(body)?).await,
            "SendMessageBatch" => self.send_batch(parse(body)?).await,
            "ReceiveMessage" => self.receive(parse(body)?).await,
            "DeleteMessage" => self.delete(parse(body)?).await,
            "DeleteMessageBatch" => self.delete_batch(parse(body)?).await,
            "ChangeMessageVisibility" => self.hide(parse(body)?).await,
            "ChangeMessageVisibilityBatch" => self.hide_batch(parse(body)?).await,
            "Dunlin.ListQueueDepths" => self.depths().await,
            "Dunlin.PeekQueue" => self.peek(parse(body)?).await,
            "Dunlin.RedriveQueue" => self.redrive(parse(body)?).await,
            "Dunlin.ListSchedules" => answer(&self.schedules.list()),
            "Dunlin.PurgeQueue" => self.purge_and_count(parse(body)?).await,
            other => Err(SqsError::Unsupported(format!(
                "this host does not have the operation {other}"
            ))),
        }
    }

    fn url(&self, host: &str, name: &QueueName) -> String {
        format!("http://{host}/{}/{name}", self.account)
    }

    fn arn(&self, name: &QueueName) -> String {
        format!("arn:aws:sqs:{}:{}:{name}", self.region, self.account)
    }

    async fn create(&self, host: &str, request: CreateQueue) -> Result<Response<Bytes>, SqsError> {
        let name =
            QueueName::new(&request.queue_name).map_err(|error| SqsError::InvalidParameter {
                message: error.to_string(),
            })?;
        if !request.tags.is_empty() {
            return Err(SqsError::Unsupported("queues have no tags here".to_owned()));
        }
        let is_fifo = request
            .attributes
            .get("FifoQueue")
            .is_some_and(|value| value == "true");
        if is_fifo != name.is_fifo() {
            return Err(SqsError::InvalidParameter {
                message:
                    "The name of a FIFO queue ends with .fifo, and its attribute FifoQueue is \
                          true."
                        .to_owned(),
            });
        }
        let settings = attributes::settings(Default::default(), &request.attributes)?;
        match self.queues.info(name.clone()).await {
            Ok(info)
                if attributes::settings(info.settings.clone(), &request.attributes)?
                    == info.settings => {}
            Ok(_) => return Err(SqsError::Exists),
            Err(QueueError::Unknown(_)) => {
                self.queues
                    .put(vec![(name.clone(), settings)], Owner::Api)
                    .await?;
            }
            Err(error) => return Err(error.into()),
        }
        answer(&BTreeMap::from([("QueueUrl", self.url(host, &name))]))
    }

    async fn url_of(&self, host: &str, request: GetQueueUrl) -> Result<Response<Bytes>, SqsError> {
        let name = QueueName::new(&request.queue_name).map_err(|_| SqsError::NoQueue)?;
        self.queues.info(name.clone()).await?;
        answer(&BTreeMap::from([("QueueUrl", self.url(host, &name))]))
    }

    async fn list(&self, host: &str, request: ListQueues) -> Result<Response<Bytes>, SqsError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Page {
            #[serde(skip_serializing_if = "Vec::is_empty")]
            queue_urls: Vec<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            next_token: Option<String>,
        }
        let most = request.max_results.unwrap_or(1000).clamp(1, 1000);
        let after = request.next_token.unwrap_or_default();
        let mut names: Vec<QueueName> = self
            .queues
            .list()
            .await?
            .into_iter()
            .filter(|info| info.owner != Owner::Host)
            .map(|info| info.name)
            .filter(|name| name.as_str().starts_with(&request.queue_name_prefix))
            .filter(|name| name.as_str() > after.as_str())
            .take(most + 1)
            .collect();
        let more = names.len() > most;
        names.truncate(most);
        let last = names.last().map(|name| name.as_str().to_owned());
        answer(&Page {
            queue_urls: names.iter().map(|name| self.url(host, name)).collect(),
            next_token: last.filter(|_| more),
        })
    }

    async fn delete_queue(&self, request: OfQueue) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        self.not_the_manifests(&name).await?;
        self.queues.delete(name).await?;
        answer(&Nothing {})
    }

    /// What the manifest declares, only the manifest changes.
    async fn not_the_manifests(&self, name: &QueueName) -> Result<(), SqsError> {
        match self.queues.info(name.clone()).await?.owner {
            Owner::Api => Ok(()),
            Owner::Manifest | Owner::Host => Err(SqsError::Unsupported(format!(
                "the queue {name} is declared in the manifest: change it there"
            ))),
        }
    }

    async fn purge(&self, request: OfQueue) -> Result<Response<Bytes>, SqsError> {
        self.queues.purge(name_of(&request.queue_url)?).await?;
        answer(&Nothing {})
    }

    async fn attributes(&self, request: GetQueueAttributes) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        let info = self.queues.info(name.clone()).await?;
        let depth = self.queues.depth(name.clone()).await?;
        let arn = |name: &QueueName| self.arn(name);
        let all = attributes::of(&info, depth, arn);
        let chosen = attributes::chosen(all, &request.attribute_names)?;
        match chosen.is_empty() {
            true => answer(&Nothing {}),
            false => answer(&BTreeMap::from([("Attributes", chosen)])),
        }
    }

    async fn set_attributes(
        &self,
        request: SetQueueAttributes,
    ) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        self.not_the_manifests(&name).await?;
        let info = self.queues.info(name.clone()).await?;
        let settings = attributes::settings(info.settings, &request.attributes)?;
        self.queues.put(vec![(name, settings)], Owner::Api).await?;
        answer(&Nothing {})
    }

    async fn send(&self, request: SendMessage) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        let (message, digests) = request.message.into_message()?;
        let mut sent = self.queues.send(name.clone(), vec![message]).await?;
        let sent = sent
            .pop()
            .ok_or_else(|| SqsError::Internal("nothing was sent".to_owned()))??;
        answer(&digests.receipt(sent, name.is_fifo(), None))
    }

    async fn send_batch(
        &self,
        request: Batch<message::Outgoing>,
    ) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        check_batch(&request.entries)?;
        let mut messages = Vec::new();
        let mut results = Vec::new();
        // By place: what has been sent, or why not.
        for entry in request.entries {
            match entry.item.into_message() {
                Ok((message, digests)) => {
                    results.push((entry.id, Ok(digests)));
                    messages.push(message);
                }
                Err(error) => results.push((entry.id, Err(error))),
            }
        }
        if messages
            .iter()
            .map(crate::queue::NewMessage::size)
            .sum::<u64>()
            > MAX_BATCH_BYTES
        {
            return Err(SqsError::BatchTooLong);
        }
        let mut sent = self.queues.send(name.clone(), messages).await?.into_iter();
        let results = results.into_iter().map(|(id, digests)| {
            let result = digests.and_then(|digests| {
                let sent = sent.next();
                let sent =
                    sent.ok_or_else(|| SqsError::Internal("it was not sent".to_owned()))??;
                Ok(digests.receipt(sent, name.is_fifo(), Some(id.clone())))
            });
            (id, result)
        });
        answer(&BatchAnswer::of(results.collect()))
    }

    async fn receive(&self, request: ReceiveMessage) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        let most = request.max_number_of_messages.unwrap_or(1);
        let most = usize::try_from(most)
            .ok()
            .filter(|most| (1..=10).contains(most));
        let most = most.ok_or_else(|| SqsError::InvalidParameter {
            message: "Value for parameter MaxNumberOfMessages is invalid. Reason: must be between \
                      1 and 10, if provided."
                .to_owned(),
        })?;
        let visibility = match request.visibility_timeout {
            Some(value) => Some(seconds("VisibilityTimeout", value, MAX_HIDDEN)?),
            None => None,
        };
        let wait = match request.wait_time_seconds {
            Some(value) => seconds("WaitTimeSeconds", value, MAX_WAIT.as_secs())?,
            None => Duration::ZERO,
        };
        let received = self.wait_for(&name, most, visibility, wait).await?;
        let wanted = message::Wanted {
            system: request
                .attribute_names
                .into_iter()
                .chain(request.message_system_attribute_names)
                .collect(),
            attributes: request.message_attribute_names,
        };
        let messages: Vec<message::Incoming> = received
            .into_iter()
            .map(|delivery| {
                let receipt = self.key.seal(&name, delivery.receipt);
                wanted.incoming(delivery.message, receipt, &self.account, |source| {
                    self.arn(source)
                })
            })
            .collect();
        match messages.is_empty() {
            true => answer(&Nothing {}),
            false => answer(&BTreeMap::from([("Messages", messages)])),
        }
    }

    /// Receives, and waits for messages if there are none.
    async fn wait_for(
        &self,
        name: &QueueName,
        most: usize,
        visibility: Option<Duration>,
        wait: Duration,
    ) -> Result<Vec<Delivery>, SqsError> {
        let deadline = Instant::now() + wait;
        let mut arrivals = self.queues.arrivals(name);
        let mut draining = self.draining.clone();
        loop {
            // From before the look: what comes right after it is not missed.
            arrivals.mark_unchanged();
            let receive = self
                .queues
                .receive(name.clone(), most, visibility, Held::Outside);
            let received = receive.await?;
            let now = Instant::now();
            if !received.is_empty() || now >= deadline || *draining.borrow() {
                return Ok(received);
            }
            let next = self.queues.next(name.clone()).await?;
            // Never without a pause: what is visible now may be nobody's to receive.
            let until_next = next.unwrap_or(LOOK).max(Duration::from_millis(1));
            let look = deadline.min(now + until_next.min(LOOK));
            tokio::select! {
                () = tokio::time::sleep_until(look) => {}
                _ = arrivals.changed() => {}
                _ = draining.wait_for(|draining| *draining) => {}
            }
        }
    }

    async fn depths(&self) -> Result<Response<Bytes>, SqsError> {
        let mut queues = Vec::new();
        for info in self.queues.list().await? {
            let depth = self.queues.depth(info.name.clone()).await?;
            queues.push(serde_json::json!({
                "Name": info.name,
                "Waiting": depth.messages.saturating_sub(depth.in_flight + depth.delayed),
                "InFlight": depth.in_flight,
                "Delayed": depth.delayed,
            }));
        }
        answer(&BTreeMap::from([("Queues", queues)]))
    }

    async fn peek(&self, request: OfSome) -> Result<Response<Bytes>, SqsError> {
        let name = any_name_of(&request.queue_url)?;
        let most = request.most.unwrap_or(MAX_PEEKED).min(MAX_PEEKED);
        let messages = self
            .queues
            .peek(name, usize::try_from(most).unwrap_or(0))
            .await?;
        let messages: Vec<_> = messages.into_iter().map(message::peeked).collect();
        answer(&BTreeMap::from([("Messages", messages)]))
    }

    async fn redrive(&self, request: OfSome) -> Result<Response<Bytes>, SqsError> {
        let name = any_name_of(&request.queue_url)?;
        let moved = self
            .queues
            .redrive(name, request.most.unwrap_or(u64::MAX))
            .await?;
        answer(&BTreeMap::from([("Messages", moved)]))
    }

    async fn purge_and_count(&self, request: OfQueue) -> Result<Response<Bytes>, SqsError> {
        let dropped = self.queues.purge(any_name_of(&request.queue_url)?).await?;
        answer(&BTreeMap::from([("Messages", dropped)]))
    }

    fn open(&self, name: &QueueName, handle: &str) -> Result<Receipt, SqsError> {
        self.key
            .open(name, handle)
            .map_err(|_| SqsError::BadReceipt)
    }

    async fn settle(
        &self,
        name: &QueueName,
        settlements: Vec<Result<(Receipt, Settlement), SqsError>>,
    ) -> Result<Vec<Result<Settled, SqsError>>, SqsError> {
        // Every queue must be there, even if no handle is good.
        self.queues.info(name.clone()).await?;
        let good: Vec<_> = settlements
            .iter()
            .filter_map(|s| s.as_ref().ok().cloned())
            .collect();
        let mut settled = self.queues.settle(good, Vec::new()).await?.into_iter();
        let results = settlements.into_iter().map(|settlement| {
            settlement?;
            settled
                .next()
                .ok_or_else(|| SqsError::Internal("it was not settled".to_owned()))
        });
        Ok(results.collect())
    }

    async fn settle_one(
        &self,
        name: &QueueName,
        settlement: Result<(Receipt, Settlement), SqsError>,
    ) -> Result<Settled, SqsError> {
        let mut settled = self.settle(name, vec![settlement]).await?;
        settled
            .pop()
            .ok_or_else(|| SqsError::Internal("it was not settled".to_owned()))?
    }

    async fn delete(&self, request: OfReceipt<Handle>) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        let receipt = self.open(&name, &request.item.receipt_handle);
        let settlement = receipt.map(|receipt| (receipt, Settlement::Done));
        let settled = self.settle_one(&name, settlement).await?;
        deleted(settled)?;
        answer(&Nothing {})
    }

    async fn delete_batch(&self, request: Batch<Handle>) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        check_batch(&request.entries)?;
        let settlements = request.entries.iter().map(|entry| {
            let receipt = self.open(&name, &entry.item.receipt_handle);
            receipt.map(|receipt| (receipt, Settlement::Done))
        });
        let settled = self.settle(&name, settlements.collect()).await?;
        let ids = request.entries.into_iter().map(|entry| entry.id);
        let results = ids.zip(settled).map(|(id, settled)| {
            let done = settled.and_then(deleted).map(|()| Id { id: id.clone() });
            (id, done)
        });
        answer(&BatchAnswer::of(results.collect()))
    }

    fn hidden(
        &self,
        name: &QueueName,
        item: &HandleWithTime,
    ) -> Result<(Receipt, Settlement), SqsError> {
        let receipt = self.open(name, &item.receipt_handle)?;
        let time = seconds("VisibilityTimeout", item.visibility_timeout, MAX_HIDDEN)?;
        Ok((receipt, Settlement::Hide(time)))
    }

    async fn hide(&self, request: OfReceipt<HandleWithTime>) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        match self
            .settle_one(&name, self.hidden(&name, &request.item))
            .await?
        {
            Settled::Stale | Settled::Expired => Err(SqsError::NotInFlight),
            Settled::Yes | Settled::Dropped => answer(&Nothing {}),
        }
    }

    async fn hide_batch(
        &self,
        request: Batch<HandleWithTime>,
    ) -> Result<Response<Bytes>, SqsError> {
        let name = name_of(&request.queue_url)?;
        check_batch(&request.entries)?;
        let settlements = request
            .entries
            .iter()
            .map(|entry| self.hidden(&name, &entry.item));
        let settled = self.settle(&name, settlements.collect()).await?;
        let ids = request.entries.into_iter().map(|entry| entry.id);
        let results = ids.zip(settled).map(|(id, settled)| {
            let done = settled.and_then(|settled| match settled {
                Settled::Stale | Settled::Expired => Err(SqsError::NotInFlight),
                Settled::Yes | Settled::Dropped => Ok(Id { id: id.clone() }),
            });
            (id, done)
        });
        answer(&BatchAnswer::of(results.collect()))
    }
}

/// SQS answers the same for what is gone already; but what may come again is not deleted.
fn deleted(settled: Settled) -> Result<(), SqsError> {
    match settled {
        Settled::Yes | Settled::Dropped | Settled::Stale => Ok(()),
        Settled::Expired => Err(SqsError::InvalidParameter {
            message: "Value for parameter ReceiptHandle is invalid. Reason: The receipt handle \
                      has expired."
                .to_owned(),
        }),
    }
}

/// What a batch must be, whatever is in its entries.
fn check_batch<T>(entries: &[Entry<T>]) -> Result<(), SqsError> {
    if entries.is_empty() {
        return Err(SqsError::EmptyBatch);
    }
    if entries.len() > MAX_BATCH {
        return Err(SqsError::TooManyEntries(entries.len()));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    for (index, Entry { id, .. }) in entries.iter().enumerate() {
        if id.is_empty() || id.len() > 80 || !id.bytes().all(allowed) {
            return Err(SqsError::BadBatchId);
        }
        if entries[..index].iter().any(|entry| entry.id == *id) {
            return Err(SqsError::SameBatchId(id.clone()));
        }
    }
    Ok(())
}
