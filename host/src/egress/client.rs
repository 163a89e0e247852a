//! Sends the requests of one function.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use prometheus::IntGauge;
use rustls::ClientConfig;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::body::{Bounds, Progress};
use super::connect::Dialler;
use super::message::{self, Head};
use super::pool::{Found, Lease, Pool, Unsent};
use super::{Error, Outgoing, ResponseBody, Shared};
use crate::function::egress::{Scheme, Target};
use crate::function::{Egress, FunctionName};
use crate::telemetry::{FunctionMetrics, Level};

/// Requests of one function that wait for their turn; more are refused at once.
const MAX_WAITING: usize = 1024;
/// Names that one function looks up at once.
const LOOKUPS: usize = 8;
/// How often a request is sent that nobody has begun to read.
const MOST_TRIES: usize = 4;
/// How often the log says what was denied: as many targets, in each such time.
const DENIALS_SAID: usize = 10;
/// See [`DENIALS_SAID`].
const DENIALS_TIME: Duration = Duration::from_secs(60);

/// How long what may take, if that is less than the policy says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) first_byte_timeout: Option<Duration>,
    pub(crate) between_bytes_timeout: Option<Duration>,
    /// When all of it must be over.
    pub(crate) deadline: Instant,
}

/// Sends the requests of one function. Connections are made when they are first needed.
pub(crate) struct Client {
    function: FunctionName,
    policy: Egress,
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    requests: Arc<Semaphore>,
    waiting: AtomicUsize,
    lookups: Arc<Semaphore>,
    tls: OnceCell<Arc<ClientConfig>>,
    metrics: Arc<FunctionMetrics>,
    denials: Mutex<Denials>,
}

/// What the log has said of late.
struct Denials {
    since: Instant,
    said: Vec<String>,
    more: u64,
}

/// A request under way, for as long as this lives: it is counted when it ends.
pub(super) struct Exchange {
    /// Its body has it too: who is answered early may go on sending.
    _permit: Arc<OwnedSemaphorePermit>,
    counted: Counted,
}

/// Counts a request once; one that is dropped is `cancelled`.
struct Counted {
    metrics: Arc<FunctionMetrics>,
    result: &'static str,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.egress(self.result);
    }
}

impl Exchange {
    pub(super) fn ended(mut self, how: Result<(), &Error>) {
        self.counted.result = how.map_or_else(Error::result, |()| "ok");
    }
}

/// Somebody waits for its turn, for as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    pub(crate) fn new(
        function: FunctionName,
        policy: Egress,
        shared: Arc<Shared>,
        metrics: Arc<FunctionMetrics>,
    ) -> Self {
        let connections = policy.connections as usize;
        // Of a function that may ask nobody there is nothing to show.
        let open = match policy.rules.is_empty() {
            true => IntGauge::new("none", "none").expect("a valid name"),
            false => metrics.egress_connections(),
        };
        if !policy.rules.is_empty() {
            metrics.begin_egress(&Error::RESULTS);
        }
        Self {
            function,
            pool: Pool::new(connections, Arc::clone(&shared.room), open),
            requests: Arc::new(Semaphore::new(policy.requests as usize)),
            waiting: AtomicUsize::new(0),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            tls: OnceCell::new(),
            policy,
            shared,
            metrics,
            denials: Mutex::new(Denials {
                since: Instant::now(),
                said: Vec::new(),
                more: 0,
            }),
        }
    }

    /// Sends a request, and answers with the head of its answer and a body that streams.
    /// Dropped, it ends the exchange.
    ///
    /// # Errors
    /// If it may not be sent, or there is no answer in time.
    pub(crate) async fn send(
        &self,
        request: Request<Outgoing>,
        options: Options,
    ) -> Result<Response<ResponseBody>, Error> {
        let mut counted = Counted {
            metrics: Arc::clone(&self.metrics),
            result: "cancelled",
        };
        let by = |option: Option<Duration>, most: Duration| option.map_or(most, |it| it.min(most));
        let policy = &self.policy;
        let connect = by(options.connect_timeout, policy.connect_timeout);
        let times = Times {
            connect,
            first_byte: by(options.first_byte_timeout, policy.first_byte_timeout),
            between_bytes: by(options.between_bytes_timeout, policy.between_bytes_timeout),
            deadline: options.deadline,
        };
        let answered = async {
            let target = message::target(request.uri())?;
            if !policy.admits(&target) {
                return Err(Error::Denied(target));
            }
            let (head, mut body) = Head::check(request, target)?;
            let permit = Arc::new(self.turn(times.connected()).await?);
            body.hold(Arc::clone(&permit));
            let (lease, response) = self.exchange(&head, body, &times).await?;
            Ok((permit, lease, response))
        };
        match answered.await {
            Ok((permit, lease, response)) => {
                let exchange = Exchange {
                    _permit: permit,
                    counted,
                };
                let bounds = Bounds {
                    limit: policy.response.0,
                    between_bytes: times.between_bytes,
                    deadline: times.deadline,
                };
                let (mut parts, incoming) = response.into_parts();
                message::take_off(&mut parts.headers);
                let body = ResponseBody::new(incoming, bounds, lease, exchange);
                Ok(Response::from_parts(parts, body))
            }
            Err(error) => {
                counted.result = error.result();
                self.tell(&error);
                Err(error)
            }
        }
    }

    /// Waits for its turn among the function's requests.
    async fn turn(&self, by: Instant) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = Arc::clone(&self.requests).try_acquire_owned() {
            return Ok(permit);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= MAX_WAITING {
            return Err(Error::Limit);
        }
        let permit = timeout_at(by.into(), Arc::clone(&self.requests).acquire_owned()).await;
        let permit = permit.map_err(|_| Error::Limit)?;
        Ok(permit.expect("it is never closed"))
    }

    /// Sends until somebody reads it: a connection that rested may be closed by the other
    /// side at the very moment.
    async fn exchange(
        &self,
        head: &Head,
        mut body: Outgoing,
        times: &Times,
    ) -> Result<(Lease, Response<Incoming>), Error> {
        let repeatable = head.is_repeatable(&body);
        for tries in 1.. {
            // At last one that cannot have been closed long ago.
            let mut lease = self.lease(&head.target, tries == MOST_TRIES, times).await?;
            let progress = body.progress();
            progress.now();
            let request = head.over(lease.is_http2(), body);
            let sent = times.first_byte(&progress, lease.send(request)).await?;
            let unsent = match sent {
                Ok(response) => {
                    self.check(&response)?;
                    return Ok((lease, response));
                }
                Err(unsent) => unsent,
            };
            let again = lease.is_reused && tries < MOST_TRIES;
            body = match unsent {
                Unsent {
                    request: Some(request),
                    ..
                } if again => request.into_body(),
                Unsent {
                    error: Error::Terminated,
                    ..
                } if again && repeatable => Outgoing::empty(),
                Unsent { error, .. } => return Err(error),
            };
        }
        unreachable!("the last try returns")
    }

    fn check(&self, response: &Response<Incoming>) -> Result<(), Error> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Upgrade);
        }
        let most = self.policy.response.0;
        // What says so itself need not be read first.
        if response.body().size_hint().lower() > most {
            return Err(Error::ResponseTooLarge(most));
        }
        Ok(())
    }

    async fn lease(&self, target: &Target, fresh: bool, times: &Times) -> Result<Lease, Error> {
        let by = times.connected();
        let slot = match self.pool.find(target, fresh, by).await? {
            Found::Connection(lease) => return Ok(lease),
            Found::Room(slot) => slot,
        };
        let tls = match target.scheme {
            Scheme::Http => None,
            Scheme::Https => {
                let config = async { self.shared.roots.config().await.map(Arc::new) };
                let config = self.tls.get_or_try_init(|| config);
                let config = timeout_at(by.into(), config).await;
                Some(Arc::clone(config.map_err(|_| Error::ConnectTimeout)??))
            }
        };
        let dialler = Dialler {
            shared: &self.shared,
            policy: &self.policy,
            lookups: &self.lookups,
            by,
        };
        let opened = dialler.open(target, tls).await?;
        self.pool.begin(target, opened, slot, by).await
    }

    /// How many more requests may be under way.
    #[cfg(test)]
    pub(super) fn free_requests(&self) -> usize {
        self.requests.available_permits()
    }

    /// Tells the operator what was denied, a few targets in a minute.
    fn tell(&self, error: &Error) {
        let (target, why) = match error {
            Error::Denied(target) => (target, "its `egress` does not list it"),
            Error::AddressDenied(target, why) => (target, *why),
            _ => return,
        };
        let line = format!("{target}: {why}");
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        if denials.since.elapsed() >= DENIALS_TIME {
            *denials = Denials {
                since: Instant::now(),
                said: Vec::new(),
                more: denials.more,
            };
        }
        if denials.said.contains(&line) || denials.said.len() >= DENIALS_SAID {
            denials.more += 1;
            return;
        }
        let more = std::mem::take(&mut denials.more);
        let mut message = format!("the function {} may not reach {line}", self.function);
        if more > 0 {
            message += &format!("; not shown since the last such line: {more}");
        }
        denials.said.push(line);
        drop(denials);
        self.shared.log.host(Level::Warn, &message);
    }
}

/// How long what may take.
struct Times {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
    deadline: Instant,
}

impl Times {
    /// When there must be a connection that is asked for now.
    fn connected(&self) -> Instant {
        (Instant::now() + self.connect).min(self.deadline)
    }

    /// Waits for the head of an answer. The time counts from when something was last taken
    /// of the request's body: a large one may take longer.
    async fn first_byte<F: Future>(
        &self,
        progress: &Progress,
        answer: F,
    ) -> Result<F::Output, Error> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let until = (progress.last() + self.first_byte).min(self.deadline);
            if let Ok(answer) = timeout_at(until.into(), &mut answer).await {
                return Ok(answer);
            }
            let until = (progress.last() + self.first_byte).min(self.deadline);
            if until <= Instant::now() {
                return Err(Error::ResponseTimeout);
            }
        }
    }
}
