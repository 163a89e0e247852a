//! `isolation = "concurrent"`: instances of WASI 0.3 that serve several requests at once.
//!
//! Each such instance has a worker, a task on the core where it was made, that takes
//! requests for as long as it has room. Fuel, memory and faults are the instance's: a
//! trap, and a guest that computes beyond the last deadline, end all that is in it. A
//! request that passes its own deadline while the guest waits ends alone; its instance
//! then takes no others, because nothing can take the request out of it.

use std::any::Any;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, oneshot};
use wasmtime::AsContextMut as _;
use wasmtime::component::{Accessor, AccessorTask, HasSelf, TypedFunc};

use super::instance::{Instance, arm, classify, first_slice, govern, timed_out};
use super::state::{Common, Current, State};
use super::streaming::{self, Params03, Results03};
use crate::invocation::{Answer, Call, Failure, RequestId, StreamRequest};

/// Requests in one instance at once: as many as `wasmtime serve` lets in.
const AT_ONCE: u32 = 16;
/// How long an instance without requests waits for the next.
const IDLE: Duration = Duration::from_secs(60);

/// One request for an instance.
pub(super) struct Job {
    pub(super) request: Box<StreamRequest>,
    pub(super) call: Box<Call>,
    pub(super) deadline: Instant,
    /// What is held until it has ended in the instance, whoever still waits for it.
    pub(super) hold: Box<dyn Any + Send>,
    /// Its place in an instance.
    pub(super) place: Option<Place>,
    pub(super) ended: oneshot::Sender<Result<Answer, Failure>>,
}

/// What is known of a worker outside of its instance.
pub(super) struct Worker {
    jobs: mpsc::Sender<Box<Job>>,
    inside: Arc<Inside>,
}

struct Inside {
    /// Requests that it has and that have not ended.
    running: AtomicU32,
    /// It may still take requests before it ends.
    left: AtomicU32,
    /// It takes no more.
    closed: AtomicBool,
    closing: Notify,
    /// Stands in its failure where the name of a request belongs.
    nobody: RequestId,
    /// The last deadline of those that it has.
    last: Mutex<Instant>,
    /// Why it ended, if not well.
    failure: Mutex<Option<Failure>>,
}

impl Inside {
    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another deadline; answers the last of all.
    fn extend(&self, deadline: Instant) -> Instant {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = deadline.max(*last);
        *last
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.closing.notify_one();
    }
}

/// A request that is inside.
pub(super) struct Place(Arc<Inside>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The workers of a version.
pub(super) struct Workers {
    cores: Box<[OnCore]>,
    /// There will be no others.
    closed: AtomicBool,
}

/// Those on one core.
#[derive(Default)]
struct OnCore {
    workers: Mutex<Vec<Worker>>,
    /// Tells of a new one.
    started: Notify,
}

impl OnCore {
    fn workers(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    pub(super) fn new(cores: usize) -> Self {
        Self {
            cores: (0..cores).map(|_| OnCore::default()).collect(),
            closed: AtomicBool::new(false),
        }
    }

    fn on(&self, core: usize) -> &OnCore {
        &self.cores[core % self.cores.len()]
    }

    /// Waits until another worker starts on this core, from the call on.
    pub(super) fn started(&self, core: usize) -> Notified<'_> {
        self.on(core).started.notified()
    }

    /// Gives a job to a worker on this core that has room; gives it back if none has.
    pub(super) fn give(&self, core: usize, mut job: Box<Job>) -> Result<Entered, Box<Job>> {
        let mut workers = self.on(core).workers();
        workers.retain(|worker| !worker.jobs.is_closed());
        for worker in workers.iter() {
            match worker.give(job) {
                Ok(entered) => return Ok(entered),
                Err(back) => job = back,
            }
        }
        Err(job)
    }

    /// Adds a worker to this core, and gives it its first job.
    pub(super) fn start(&self, core: usize, lifetime: u32, job: Box<Job>) -> (Entered, Serving) {
        let (jobs, taken) = mpsc::channel(AT_ONCE as usize);
        let inside = Arc::new(Inside {
            running: AtomicU32::new(0),
            left: AtomicU32::new(lifetime),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            nobody: RequestId::random(),
            last: Mutex::new(job.deadline),
            failure: Mutex::default(),
        });
        let worker = Worker {
            jobs,
            inside: Arc::clone(&inside),
        };
        let Ok(entered) = worker.give(job) else {
            unreachable!("a new worker has room");
        };
        let here = self.on(core);
        let mut workers = here.workers();
        // Checked under the lock that `close` takes after it has set the mark. One that
        // nobody knows of ends with the job that it has.
        if !self.closed.load(Ordering::Acquire) {
            workers.push(worker);
        }
        drop(workers);
        here.started.notify_waiters();
        let serving = Serving {
            jobs: taken,
            inside,
        };
        (entered, serving)
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        self.cores.iter().any(|core| {
            let workers = core.workers();
            workers.iter().any(|worker| !worker.jobs.is_closed())
        })
    }

    /// They take no more requests, and end when those that they have are answered.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.cores.iter().for_each(|core| core.workers().clear());
    }

    /// Those without a request take no more, and end as soon as their cores come to it.
    pub(super) fn close_idle(&self) {
        for core in &self.cores {
            // Jobs are given under this lock.
            let works = |worker: &Worker| worker.inside.running.load(Ordering::Relaxed) > 0;
            core.workers().retain(works);
        }
    }
}

impl Worker {
    fn give(&self, mut job: Box<Job>) -> Result<Entered, Box<Job>> {
        let inside = &self.inside;
        let full = inside.running.fetch_add(1, Ordering::Relaxed) >= AT_ONCE;
        let place = Place(Arc::clone(inside));
        if full || inside.closed.load(Ordering::Relaxed) {
            return Err(job);
        }
        let (deadline, request_id) = (job.deadline, job.call.request_id);
        job.place = Some(place);
        self.jobs.try_send(job).map_err(|error| {
            let mut job = error.into_inner();
            job.place = None;
            job
        })?;
        // The last that it takes.
        if inside.left.fetch_sub(1, Ordering::Relaxed) <= 1 {
            inside.close();
        }
        Ok(Entered {
            inside: Arc::clone(inside),
            deadline,
            request_id,
        })
    }
}

/// A request that was given to a worker.
pub(super) struct Entered {
    inside: Arc<Inside>,
    pub(super) deadline: Instant,
    request_id: RequestId,
}

impl Entered {
    /// Why it has no answer, now that its instance is gone.
    pub(super) fn lost(&self, common: &Common) -> Failure {
        if Instant::now() >= self.deadline {
            return timed_out(common, self.request_id);
        }
        let Some(failure) = self.inside.failure().clone() else {
            return Failure::host("an instance ended with a request in it");
        };
        let (nobody, own) = (self.inside.nobody.to_string(), self.request_id.to_string());
        Failure {
            message: failure.message.replace(&nobody, &own),
            ..failure
        }
    }

    /// It was given up: its instance takes no others.
    pub(super) fn late(&self, common: &Common) -> Failure {
        self.inside.close();
        timed_out(common, self.request_id)
    }
}

/// What an instance serves.
pub(super) struct Serving {
    jobs: mpsc::Receiver<Box<Job>>,
    inside: Arc<Inside>,
}

impl Serving {
    /// Serves until there are no more requests. Answers what the guest took of the core.
    pub(super) async fn run(self, instance: &mut Instance) -> Duration {
        let handler = instance.handlers.http_03();
        let handler = handler.expect("what is concurrent has a handler of WASI 0.3");
        let Self { mut jobs, inside } = self;
        let store = &mut instance.store;
        let common = Arc::clone(&store.data().common);
        let seat = Arc::clone(&store.data().seat);
        let mut cpu = Duration::ZERO;
        let last = || inside.last() + IDLE_GRACE;
        let ended = {
            let serve = pin!(Some(async {
                let at_once = seat.start().await;
                arm(store, common.spec.limits.fuel_units(), first_slice(at_once));
                let served = store.run_concurrent(async |accessor| {
                    accept(accessor, handler, &mut jobs, &inside).await
                });
                served.await.and_then(|accepted| accepted)
            }));
            govern(&common.clock, &seat, last, &mut cpu, serve).await
        };
        inside.close();
        let failure = match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(classify(instance.store.data(), &error, inside.nobody)),
            Err(_) => Some(timed_out(&common, inside.nobody)),
        };
        *inside.failure() = failure;
        cpu
    }
}

/// A guest that waits is given up by the requests in it, each at its deadline; this long
/// after the last the instance itself is.
const IDLE_GRACE: Duration = Duration::from_secs(IDLE.as_secs() + 1);

/// Takes jobs until there are no more, and waits for those that it took.
async fn accept(
    accessor: &Accessor<State>,
    handler: TypedFunc<Params03, Results03>,
    jobs: &mut mpsc::Receiver<Box<Job>>,
    inside: &Arc<Inside>,
) -> wasmtime::Result<()> {
    // Closed when the last task has ended.
    let (running, mut all_ended) = mpsc::channel::<()>(1);
    let begin = |job| {
        accessor.spawn(Task {
            handler,
            job,
            inside: Arc::clone(inside),
            _running: running.clone(),
        })
    };
    loop {
        tokio::select! {
            biased;
            job = jobs.recv() => match job {
                Some(job) => drop(begin(job)?),
                None => break,
            },
            () = inside.closing.notified() => break,
            () = tokio::time::sleep(IDLE) => {
                if inside.running.load(Ordering::Relaxed) == 0 {
                    break;
                }
            }
        }
    }
    inside.close();
    jobs.close();
    // Those that were given meanwhile.
    while let Some(job) = jobs.recv().await {
        begin(job)?;
    }
    drop(running);
    all_ended.recv().await;
    Ok(())
}

/// One request, inside.
struct Task {
    handler: TypedFunc<Params03, Results03>,
    job: Box<Job>,
    inside: Arc<Inside>,
    _running: mpsc::Sender<()>,
}

impl AccessorTask<State, HasSelf<State>> for Task {
    async fn run(self, accessor: &Accessor<State>) -> wasmtime::Result<()> {
        let Job {
            request,
            call,
            deadline,
            hold: _hold,
            place: _place,
            ended,
        } = *self.job;
        let request_id = call.request_id;
        let common = accessor.with(|mut access| Arc::clone(&access.data_mut().common));
        // Nobody waits for it any more: the guest was too busy to begin it.
        if ended.is_closed() || Instant::now() >= deadline {
            let _ = ended.send(Err(timed_out(&common, request_id)));
            return Ok(());
        }
        let last = self.inside.extend(deadline);
        accessor.with(|mut access| -> wasmtime::Result<_> {
            let mut store = access.as_context_mut();
            store.data_mut().deadline = last;
            // The budget of an invocation, for whatever the instance does next.
            store.set_fuel(common.spec.limits.fuel_units())
        })?;
        let mut task = None;
        let served = streaming::join_03(self.handler, accessor, request, |state, id| {
            task = Some(id);
            state.join(id, Current { call, deadline });
        });
        let result = {
            let mut served = pin!(served);
            let mut late = pin!(tokio::time::sleep_until(deadline.into()));
            poll_fn(|context| {
                if let std::task::Poll::Ready(result) = served.as_mut().poll(context) {
                    return std::task::Poll::Ready(Some(result));
                }
                late.as_mut().poll(context).map(|()| None)
            })
            .await
        };
        if let Some(task) = task {
            accessor.with(|mut access| access.data_mut().part(task));
        }
        let result = match result {
            Some(result) => result?.map(|()| Answer::Streamed),
            None => {
                // Its guest goes on for as long as others are in the instance.
                self.inside.close();
                Err(timed_out(&common, request_id))
            }
        };
        // Whoever waited for it may be gone.
        let _ = ended.send(result);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Empty};

    use super::*;
    use crate::invocation::Trigger;

    /// A lifetime that no test comes to the end of.
    const LONG: u32 = 1000;

    fn job() -> Box<Job> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        Box::new(Job {
            request: Box::new(StreamRequest {
                request: http::Request::new(body),
                respond: oneshot::channel().0,
            }),
            call: Box::new(Call::new(Trigger::Http)),
            deadline: Instant::now() + Duration::from_secs(60),
            hold: Box::new(()),
            place: None,
            ended: oneshot::channel().0,
        })
    }

    #[tokio::test]
    async fn a_worker_without_requests_is_closed_and_one_with_some_is_not() {
        let workers = Workers::new(1);
        let (_, mut serving) = workers.start(0, LONG, job());
        workers.close_idle();
        assert!(
            workers.any() && workers.give(0, job()).is_ok(),
            "it has one"
        );
        for _ in 0..2 {
            drop(serving.jobs.recv().await.expect("those that it was given"));
        }
        workers.close_idle();
        assert!(!workers.any() && workers.give(0, job()).is_err());
        assert!(serving.jobs.recv().await.is_none(), "it is told");
    }

    #[tokio::test]
    async fn a_worker_that_starts_when_all_are_closed_has_its_first_request_only() {
        let workers = Workers::new(1);
        workers.close();
        let (_, mut serving) = workers.start(0, LONG, job());
        assert!(workers.give(0, job()).is_err());
        assert!(serving.jobs.recv().await.is_some());
        assert!(serving.jobs.recv().await.is_none(), "it ends");
    }

    #[tokio::test]
    async fn whoever_looks_for_room_is_told_of_a_new_worker_on_its_core() {
        let workers = Workers::new(2);
        let (here, there) = (workers.started(0), workers.started(1));
        let _serving = workers.start(0, LONG, job());
        here.await;
        let mut there = pin!(there);
        let other = poll_fn(|context| std::task::Poll::Ready(there.as_mut().poll(context))).await;
        assert!(other.is_pending());
    }
}
