//! Posts the records of a function's outcomes to its HTTP endpoints.
//!
//! A record is a message in a queue of the host's own, sent in the commit that ended the
//! event; the message says which destination it is for, and the manifest in force where that
//! is. An endpoint that answers 2xx has it. One that is not there, is busy or broken gets it
//! again, with a back-off, until the record is as old as an event of the function may
//! become; what no repetition changes, and what became too old, is a dead letter. At least
//! once: the id in `dunlin-delivery-id` is the same on each attempt.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::record::{self, Condition};
use super::records_of;
use super::worker::{Surroundings, default_dead_letters};
use crate::dispatch::Function;
use crate::egress::{Alive, BoxError, Client, Options, Outgoing, Shared};
use crate::function::egress::Endpoint;
use crate::function::{Destination, FunctionName};
use crate::invocation::RequestId;
use crate::queue::message::Attribute;
use crate::queue::{Attributes, Delivery, Held, Message, NewMessage, QueueError, Settlement};
use crate::telemetry::Level;
use crate::trigger::feed::{self, Unsettled};

/// Records of one function that are posted at once.
const AT_ONCE: usize = 8;
/// What one attempt may take. Amazon gives an endpoint five seconds; what is slower than this
/// gets the record again.
const ATTEMPT: Duration = Duration::from_secs(30);
/// How long a record is hidden meanwhile: also while it is settled on a slow disk.
const HIDDEN: Duration = Duration::from_secs(120);
/// How often it looks without a call: a clock may have been set.
const LOOK: Duration = Duration::from_secs(30);
/// How long it waits after a failure of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait that an endpoint may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// What is read of an answer, so that its connection serves again.
const READ: usize = 64 << 10;
/// The attribute that says which destination a record is for.
const ATTRIBUTE: &str = "dunlin-destination";

/// A record on its way to an endpoint.
pub(super) fn message(body: Bytes, condition: Condition) -> NewMessage {
    let value = match condition {
        Condition::Success => "on-success",
        _ => "on-failure",
    };
    let attribute = Attribute {
        kind: "String".into(),
        value: value.into(),
    };
    NewMessage {
        attributes: Attributes::from([(ATTRIBUTE.to_owned(), attribute)]),
        ..NewMessage::of(body)
    }
}

/// What posting needs.
#[derive(Clone)]
pub struct Deliveries {
    /// The queues, and what else workers need.
    pub around: Surroundings,
    /// What clients have in common.
    pub egress: Arc<Shared>,
    /// Those that run.
    pub running: TaskTracker,
}

impl Deliveries {
    /// Posts the records of a function until it is stopped. What is under way by then comes
    /// to its end.
    pub async fn run(self, function: FunctionName, stop: CancellationToken) {
        let running = self.running.clone();
        let deliverer = Arc::new(Deliverer {
            queue: records_of(&function),
            function,
            around: self.around,
            egress: self.egress,
            unsettled: Unsettled::default(),
            clients: Mutex::default(),
        });
        let queues = Arc::clone(&deliverer.around.queues);
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let mut arrivals = queues.arrivals(&deliverer.queue);
        while !stop.is_cancelled() {
            arrivals.mark_unchanged();
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = Arc::clone(&slots).acquire_owned() => slot.expect("it is never closed"),
            };
            // Never broken off: what is received must come to somebody.
            let received = match deliverer.unsettled.is_empty() {
                true => {
                    queues
                        .receive(deliverer.queue.clone(), 1, Some(HIDDEN), Held::Host)
                        .await
                }
                false => Ok(Vec::new()),
            };
            let wait = match received {
                Ok(received) => match received.into_iter().next() {
                    Some(delivery) => {
                        let deliverer = Arc::clone(&deliverer);
                        tokio::spawn(running.track_future(async move {
                            deliverer.deliver(delivery).await;
                            drop(slot);
                        }));
                        continue;
                    }
                    None if !deliverer.unsettled.is_empty() => PAUSE,
                    None => match queues.next(deliverer.queue.clone()).await {
                        Ok(next) => next.unwrap_or(LOOK).clamp(Duration::from_millis(1), LOOK),
                        Err(_) => PAUSE,
                    },
                },
                // Whoever keeps the store says what is wrong with it.
                Err(_) => PAUSE,
            };
            drop(slot);
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(wait) => {}
                _ = arrivals.changed() => {}
            }
        }
    }
}

/// Posts the records of one function.
struct Deliverer {
    function: FunctionName,
    queue: crate::queue::QueueName,
    around: Surroundings,
    egress: Arc<Shared>,
    unsettled: Unsettled,
    /// One for each endpoint in force: two at most.
    clients: Mutex<Vec<(Endpoint, Arc<Client>)>>,
}

/// What an attempt came to.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Delivered,
    /// It may do better later: not before this time, if the endpoint says so.
    Later(String, Option<Duration>),
    /// It never will.
    Never(String),
}

impl Deliverer {
    async fn deliver(&self, delivery: Delivery) {
        let resolved = self.around.dispatcher.resolve(self.function.as_str(), None);
        // A function that goes takes its endpoints along; its records wait.
        let Ok(function) = resolved else {
            let later = Settlement::Release(feed::back_off(delivery.message.releases));
            return self.settle(&delivery, later).await;
        };
        let came = match self.endpoint(&function, &delivery.message) {
            Some(endpoint) => self.post(&function, &endpoint, &delivery.message).await,
            None => Came::Never("the function has no such HTTP destination any more".into()),
        };
        let common = &function.version.common;
        let policy = &common.spec.events;
        let (why, after) = match came {
            Came::Delivered => {
                self.settle(&delivery, Settlement::Done).await;
                return common.metrics.delivery("delivered");
            }
            Came::Later(why, after) => (why, Some(after)),
            Came::Never(why) => (why, None),
        };
        let wait = feed::back_off(delivery.message.receives - 1);
        let wait = after.map(|after| after.map_or(wait, |after| after.max(wait)));
        if let Some(wait) = wait
            && delivery.age.saturating_add(wait) <= policy.max_age
        {
            let retry = Settlement::Retry {
                after: wait,
                reason: why,
            };
            self.settle(&delivery, retry).await;
            return common.metrics.delivery("retried");
        }
        let message = format!(
            "a record of the function {} cannot be posted and is a dead letter: {why}",
            self.function
        );
        self.around.telemetry.log.host(Level::Warn, &message);
        let id = RequestId::of(delivery.message.id);
        let mut attributes = delivery.message.attributes.clone();
        attributes.extend(record::dead_letter(id, None, &why));
        let queue = policy.dead_letters.clone();
        let bury = Settlement::Bury {
            queue: queue.unwrap_or_else(default_dead_letters),
            reason: why,
            attributes,
        };
        self.settle(&delivery, bury).await;
        common.metrics.delivery("dead");
    }

    /// Where the record goes, by what is deployed now.
    fn endpoint(&self, function: &Function, message: &Message) -> Option<Endpoint> {
        let policy = &function.version.common.spec.events;
        let destination = match message.attributes.get(ATTRIBUTE)?.value.as_slice() {
            b"on-success" => policy.on_success.as_ref(),
            _ => policy.on_failure.as_ref(),
        };
        match destination? {
            Destination::Http(endpoint) => Some(Endpoint::clone(endpoint)),
            Destination::Queue(_) | Destination::Function(_) => None,
        }
    }

    /// The client for an endpoint, with its connections.
    fn client(&self, function: &Function, endpoint: &Endpoint) -> Arc<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(own, _)| own == endpoint) {
            return Arc::clone(client);
        }
        let client = Arc::new(Client::new(
            self.function.clone(),
            endpoint.reach().clone(),
            Arc::clone(&self.egress),
            Arc::clone(&function.version.common.metrics),
        ));
        // Those of endpoints that are no more go first.
        if clients.len() >= 2 {
            clients.remove(0);
        }
        clients.push((endpoint.clone(), Arc::clone(&client)));
        client
    }

    async fn post(&self, function: &Function, endpoint: &Endpoint, message: &Message) -> Came {
        let Some(body) = self.around.budget.hold(message.body.clone()) else {
            return Came::Later("the host-wide memory budget is used up".into(), None);
        };
        let body = Full::new(body).map_err(|never| -> BoxError { match never {} });
        let request = Request::post(endpoint.url())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, message.body.len())
            .header(
                header::USER_AGENT,
                concat!("dunlin/", env!("CARGO_PKG_VERSION")),
            )
            .header("dunlin-delivery-id", message.id.to_string())
            .header("dunlin-attempt", message.receives)
            .body(Outgoing::new(body.boxed_unsync(), Alive::default()));
        let Ok(request) = request else {
            return Came::Never("its URL cannot be asked for".into());
        };
        let options = Options {
            connect_timeout: None,
            first_byte_timeout: None,
            between_bytes_timeout: None,
            deadline: Instant::now() + ATTEMPT,
        };
        let client = self.client(function, endpoint);
        let response = match client.send(request, options).await {
            Ok(response) => response,
            Err(error) => {
                let target = endpoint.target();
                return Came::Later(format!("{target} did not take it: {error}"), None);
            }
        };
        let (parts, mut body) = response.into_parts();
        let read = async {
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > READ {
                    return;
                }
            }
        };
        // What it says beside its status is nobody's business.
        let _ = timeout(PAUSE, read).await;
        came(endpoint, parts.status, &parts.headers)
    }

    /// Settles a record. Where its dead-letter queue is gone, there is the host's own.
    async fn settle(&self, delivery: &Delivery, settlement: Settlement) {
        let queues = &*self.around.queues;
        let all = vec![(delivery.receipt, settlement.clone())];
        let settled = feed::settle(queues, &self.unsettled, all, Vec::new()).await;
        if let (
            Err(QueueError::Unknown(_)),
            Settlement::Bury {
                reason, attributes, ..
            },
        ) = (settled, settlement)
        {
            let bury = Settlement::Bury {
                queue: default_dead_letters(),
                reason,
                attributes,
            };
            let all = vec![(delivery.receipt, bury)];
            // A store that is broken says so itself, and the record is still there.
            let _ = feed::settle(queues, &self.unsettled, all, Vec::new()).await;
        }
    }
}

/// What an answer means. As at Amazon EventBridge, 409, 429 and what is the server's fault is
/// tried again; 408 and 425 ask for it.
fn came(endpoint: &Endpoint, status: StatusCode, headers: &HeaderMap) -> Came {
    if status.is_success() {
        return Came::Delivered;
    }
    let why = format!("{} answered {status}", endpoint.target());
    if !matches!(status.as_u16(), 408 | 409 | 425 | 429 | 500..) {
        return Came::Never(why);
    }
    let after = headers.get(header::RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
    Came::Later(
        why,
        after.map(|it| Duration::from_secs(it).min(MAX_RETRY_AFTER)),
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_answer_says_whether_to_come_again() {
        let ceiling = [crate::function::egress::Rule::parse("https://*").unwrap()];
        let endpoint = Endpoint::parse("https://hooks.example.com/secret", &ceiling).unwrap();
        let came = |status: u16, after: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(after) = after {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(after));
            }
            super::came(&endpoint, StatusCode::from_u16(status).unwrap(), &headers)
        };
        for status in [200, 202, 204] {
            assert_eq!(came(status, None), Came::Delivered);
        }
        for status in [301, 302, 307, 400, 401, 403, 404, 410, 413, 422] {
            let never = came(status, None);
            let Came::Never(why) = &never else {
                panic!("{status}: {never:?}");
            };
            assert!(why.contains("https://hooks.example.com answered"), "{why}");
            assert!(!why.contains("secret"), "{why}");
        }
        for status in [408, 409, 425, 429, 500, 502, 503, 504, 599] {
            assert!(
                matches!(came(status, None), Came::Later(_, None)),
                "{status}"
            );
        }
        let after = |text| match came(503, Some(text)) {
            Came::Later(_, after) => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(after("-1"), None);
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
