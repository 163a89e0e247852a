//! One instance: a store, the handlers in it, and a call of one of them.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use wasmtime::component::{InstancePre, TypedFunc};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use super::budget::{Budget, Denied, Need};
use super::cache::Note;
use super::code::Mapped;
use super::engine::Clock;
use super::handlers::{Exports, Handlers};
use super::lifecycle::{self, SHUTDOWN_TIMEOUT};
use super::state::{Common, Current, MAX_HANDLES, State};
use super::turns::{self, Seat};
use crate::function::{Fuel, PAYLOAD_RANGE};
use crate::invocation::{Advice, Answer, Call, Event, Failure, OutcomeKind, Usage};
use crate::key_value;
use crate::telemetry::Level;

/// Ticks an invocation runs before it first yields: more than one, so that a
/// short handler does not meet a tick by chance.
const FIRST_SLICE: u64 = 2;
/// Ticks of every later slice.
const SLICE: u64 = 1;
/// What may cross from guest to host in one call beside a response's own
/// limit: headers and framing, or the arguments of an import.
const CALL_OVERHEAD: u64 = 256 << 10;

/// The deadline passed while the guest ran.
#[derive(Debug, thiserror::Error)]
#[error("the deadline passed")]
struct DeadlinePassed;

/// A live instance.
pub struct Instance {
    pub(super) store: Store<State>,
    pub(super) handlers: Handlers,
    /// Invocations it has served.
    pub(super) served: u32,
    /// When it last became ready.
    pub(super) since: Instant,
    /// It was made for the event that it gets now: that was its start, and this
    /// is the first slice of its handler in ticks.
    pub(super) started: Option<u64>,
    /// Called when it ends in good health.
    pub(super) shutdown: Option<TypedFunc<(), ()>>,
    /// Last: the store goes first, and the code is mapped as long.
    pub(super) code: Option<Arc<Mapped>>,
}

/// A store with every limit set.
fn new_store(engine: &wasmtime::Engine, state: State) -> Store<State> {
    let spec = &state.common.spec;
    let most = match spec.buckets.is_empty() {
        true => spec.limits.response.0,
        false => spec.limits.response.0.max(key_value::MAX_BYTES),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_max_component_handles(MAX_HANDLES);
    // An answer that is streamed may be larger, and never crosses at once.
    let most = most.min(PAYLOAD_RANGE.end().0) + CALL_OVERHEAD;
    store.set_hostcall_fuel(usize::try_from(most).unwrap_or(usize::MAX));
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(MAX_HANDLES);
    }
    store.epoch_deadline_callback(|context| {
        let state = context.data();
        if Instant::now() >= state.deadline {
            return Err(DeadlinePassed.into());
        }
        Ok(UpdateDeadline::YieldCustom(
            SLICE,
            Box::pin(state.seat.turn()),
        ))
    });
    store
}

/// The first slice of a guest: an ordinary one if it had to wait for its turn.
pub(super) fn first_slice(at_once: bool) -> u64 {
    if at_once { FIRST_SLICE } else { SLICE }
}

/// Gives the store a new budget of fuel and its first slice in ticks.
pub(super) fn arm(store: &mut Store<State>, fuel: u64, first_slice: u64) {
    store.set_fuel(fuel).expect("the engine counts fuel");
    store.set_epoch_deadline(first_slice);
}

/// The deadline passed while the guest waited.
pub(super) struct Elapsed;

/// Gives up what a seat waits for.
struct Leave<'a>(&'a Seat);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Runs a guest: counts its time on the core, and ends it at the deadline,
/// whatever it waits for. There must be one; it is gone when it was ended.
///
/// It is pinned where it lies: futures are large, and one that is handed on has its place
/// in each of those around it twice.
pub(super) async fn govern<F: Future>(
    clock: &Clock,
    seat: &Arc<Seat>,
    deadline: impl Fn() -> Instant,
    cpu: &mut Duration,
    mut guest: Pin<&mut Option<F>>,
) -> Result<F::Output, Elapsed> {
    // Dropped while its seat waits for the turn to end it, or has it and has not
    // taken it, a guest leaves no turn behind that nobody gives back.
    let _leave = Leave(seat);
    // Armed when the guest first waits: most end before. A poll that would wake nobody is
    // followed by one that would, if the guest still waits.
    let mut sleep = None;
    let mut expired = false;
    poll_fn(|context| {
        clock.wind();
        let (poll, used) = turns::charged(seat.share(), || {
            let may_end = if expired {
                seat.may_end(context)
            } else {
                let running = guest.as_mut().as_pin_mut();
                let running = running.expect("a guest runs until it has expired");
                if let Poll::Ready(output) = running.poll(context) {
                    return Poll::Ready(Ok(output));
                }
                if context.waker().will_wake(Waker::noop()) {
                    return Poll::Pending;
                }
                let wait = || Box::pin(tokio::time::sleep_until(deadline().into()));
                let sleep = sleep.get_or_insert_with(wait);
                std::task::ready!(sleep.as_mut().poll(context));
                // It may have moved since.
                while Instant::now() < deadline() {
                    sleep.as_mut().reset(deadline().into());
                    std::task::ready!(sleep.as_mut().poll(context));
                }
                expired = true;
                seat.expire(context)
            };
            if !may_end {
                return Poll::Pending;
            }
            // Its stack is unwound: work of its own, and part of the slice.
            guest.set(None);
            Poll::Ready(Err(Elapsed))
        });
        *cpu += used;
        poll
    })
    .await
}

impl Instance {
    pub(super) fn store(&self) -> &Store<State> {
        &self.store
    }

    /// What it holds of the memory budget, in bytes.
    pub(super) fn held(&self) -> u64 {
        self.store.data().limiter.held()
    }

    /// What its start took, if it asked for nothing that differs from one function or
    /// moment to the other: just after it was made. What its `init` asks for may differ:
    /// that is noted of one function as it is configured.
    pub(super) fn start(&self) -> Option<Note> {
        let state = self.store.data();
        let lifecycle = &state.common.lifecycle;
        let left = self.store.get_fuel().unwrap_or(0);
        let fuel = match lifecycle.runs_init() {
            // What is left is of the fuel of `init`, which has enough of its own.
            true => 0,
            false => state.common.spec.limits.fuel_units().saturating_sub(left),
        };
        (lifecycle.runs_init() || !state.asked()).then(|| Note {
            memory: state.limiter.peak(),
            fuel,
            init: lifecycle.init.clone(),
        })
    }

    /// Runs the handler for an event under the function's limits. Answers also
    /// whether the instance may be used again.
    pub async fn call(
        &mut self,
        event: Event,
        call: Box<Call>,
        deadline: Instant,
        usage: &mut Usage,
    ) -> (Result<Answer, Failure>, bool) {
        let common = Arc::clone(&self.store.data().common);
        let limits = &common.spec.limits;
        let fuel = limits.fuel_units();
        let request_id = call.request_id;
        self.served += 1;
        let runs_once = self.handlers.is_command(event.handler());
        self.store.data_mut().begin(Current { call, deadline });

        let seat = Arc::clone(&self.store.data().seat);
        let started = self.started.take();
        let ended = {
            let guest = pin!(Some(async {
                match started {
                    Some(first_slice) => arm(&mut self.store, fuel, first_slice),
                    None => {
                        let at_once = seat.start().await;
                        arm(&mut self.store, fuel, first_slice(at_once));
                    }
                }
                let limit = common.spec.limits.response.0;
                self.handlers.enter(&mut self.store, event, limit).await
            }));
            govern(&common.clock, &seat, || deadline, &mut usage.cpu, guest).await
        };

        usage.memory = self.store.data().limiter.peak();
        let result = match ended {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => Err(classify(self.store.data(), &error, request_id)),
            Err(Elapsed) => Err(timed_out(&common, request_id)),
        };
        // A guest that is broken off keeps its account in a register: what the
        // store says is right only after an orderly end.
        usage.fuel = match &result {
            _ if limits.fuel == Fuel::Unlimited => 0,
            Err(failure) if failure.kind == OutcomeKind::OutOfFuel => fuel,
            Err(failure) if failure.kind != OutcomeKind::FunctionError => 0,
            _ => fuel.saturating_sub(self.store.get_fuel().unwrap_or(0)),
        };
        // A store that saw a trap, a timeout or a cancellation takes no new work, nor one
        // whose program has run.
        let sound = match &result {
            _ if runs_once => false,
            Ok(_) => true,
            Err(failure) => failure.kind == OutcomeKind::FunctionError,
        };
        let said = self.store.data_mut().end();
        (later(result, said), sound)
    }
}

/// What an end means that was none of the guest's making.
pub(super) fn classify(
    state: &State,
    error: &wasmtime::Error,
    request_id: crate::invocation::RequestId,
) -> Failure {
    let limits = &state.common.spec.limits;
    let exited = |message: String| {
        Failure::new(
            OutcomeKind::Trap,
            "Runtime.ExitError",
            format!("RequestId: {request_id} Error: {message}"),
        )
    };
    if error.is::<DeadlinePassed>() {
        return timed_out(&state.common, request_id);
    }
    if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
        return exited(format!("Runtime exited with error: exit status {status}"));
    }
    let trap = error.downcast_ref::<Trap>().copied();
    if trap == Some(Trap::OutOfFuel) {
        return Failure::new(
            OutcomeKind::OutOfFuel,
            "Runtime.OutOfFuel",
            format!(
                "RequestId: {request_id} Error: used up its budget of {} units of fuel; raise `fuel`, or `timeout` if the budget follows from it",
                limits.fuel_units()
            ),
        );
    }
    match state.limiter.denied() {
        Some(Denied::Function) => {
            return Failure::new(
                OutcomeKind::OutOfMemory,
                "Runtime.OutOfMemory",
                format!(
                    "RequestId: {request_id} Error: needed more than its {} of memory; raise `memory`",
                    limits.memory
                ),
            );
        }
        Some(Denied::Host) => {
            return Failure::new(
                OutcomeKind::OutOfMemory,
                "Runtime.OutOfMemory",
                format!("RequestId: {request_id} Error: the host-wide memory budget was used up"),
            );
        }
        None => {}
    }
    if is_hostcall_exhausted(error) {
        return Failure::too_large(limits.response.0);
    }
    let detail = match trap {
        // The stack lies first in memory: what overflows it leaves memory.
        Some(trap @ (Trap::MemoryOutOfBounds | Trap::StackOverflow)) => format!(
            "{trap} (if its stack overflowed, give it a larger one: \
                 `-z stack-size`, see the author's guide)"
        ),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    exited(format!("Runtime exited with error: {detail}"))
}

/// What the guest said of another attempt holds where its answer says nothing.
fn later(result: Result<Answer, Failure>, said: Option<Duration>) -> Result<Answer, Failure> {
    match result {
        Ok(Answer::Batch(mut failed)) => {
            for failed in &mut failed {
                if failed.advice == Advice::Retry(None) {
                    failed.advice = Advice::Retry(said);
                }
            }
            Ok(Answer::Batch(failed))
        }
        Ok(answer) => Ok(answer),
        Err(failure) => Err(Failure {
            retry_after: failure.retry_after.or(said),
            ..failure
        }),
    }
}

pub(crate) fn timed_out(common: &Common, request_id: crate::invocation::RequestId) -> Failure {
    Failure::new(
        OutcomeKind::Timeout,
        "Sandbox.Timedout",
        format!(
            "RequestId: {request_id} Error: Task timed out after {:.2} seconds",
            common.spec.limits.timeout.as_secs_f64()
        ),
    )
}

/// wasmtime keeps this error's type to itself; the test of answers that are too
/// large fails when its text changes.
fn is_hostcall_exhausted(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .to_string()
            .contains("fuel allocated for hostcalls has been exhausted")
    })
}

/// Why there is no instance.
#[derive(Debug)]
pub enum Unavailable {
    /// No slot or no memory is free now.
    Full(String),
    /// The deadline passed before it was there.
    TooSlow,
    /// The component does not instantiate.
    Broken(Failure),
}

impl Unavailable {
    /// From what instantiation said.
    pub(super) fn from_error(error: &wasmtime::Error, state: &State) -> Self {
        if error.is::<PoolConcurrencyLimitError>() {
            return Self::Full(error.to_string());
        }
        match state.limiter.denied() {
            Some(Denied::Host) => Self::Full("the host-wide memory budget is used up".into()),
            Some(Denied::Function) => Self::Broken(Failure::new(
                OutcomeKind::OutOfMemory,
                "Runtime.OutOfMemory",
                format!(
                    "it needs more than its {} of memory to begin with; raise `memory`",
                    state.common.spec.limits.memory
                ),
            )),
            None if error.is::<DeadlinePassed>() => Self::TooSlow,
            None => {
                let kind = if error.downcast_ref::<Trap>() == Some(&Trap::OutOfFuel) {
                    OutcomeKind::OutOfFuel
                } else {
                    OutcomeKind::Trap
                };
                let message = format!("it does not instantiate: {error:#}");
                Self::Broken(Failure::new(kind, "Runtime.InitError", message))
            }
        }
    }
}

impl Instance {
    /// Makes an instance, under the same rules as a handler runs.
    pub(super) async fn make(
        pre: &InstancePre<State>,
        exports: Exports,
        common: &Arc<Common>,
        budget: &Arc<Budget>,
        need: Need,
        deadline: Instant,
        cpu: &mut Duration,
    ) -> Result<Self, Unavailable> {
        let seat = Seat::new(&common.share);
        let make = pin!(Some(async {
            let first_slice = first_slice(seat.start().await);
            let state = State::new(common, budget, need, deadline, &seat);
            let mut store = new_store(pre.engine(), state);
            arm(&mut store, common.spec.limits.fuel_units(), first_slice);
            let instance = match pre.instantiate_async(&mut store).await {
                Ok(instance) => instance,
                Err(error) => return Err(Unavailable::from_error(&error, store.data())),
            };
            if common.lifecycle.runs_init() {
                initialise(&instance, &mut store).await?;
            }
            let retires = common.lifecycle.retires;
            let shutdown = retires.then(|| lifecycle::shutdown(&instance, &mut store));
            Ok(Self {
                handlers: Handlers::of(&instance, &mut store, exports),
                store,
                served: 0,
                since: Instant::now(),
                started: Some(first_slice),
                shutdown: shutdown.flatten(),
                code: None,
            })
        }));
        match govern(&common.clock, &seat, || deadline, cpu, make).await {
            Ok(made) => made,
            Err(Elapsed) if common.lifecycle.runs_init() => {
                Err(Unavailable::Broken(lifecycle::init_too_slow()))
            }
            Err(Elapsed) => Err(Unavailable::TooSlow),
        }
    }

    /// Calls `shutdown`, if there is one, and ends the instance. The function is charged
    /// for it; how it went wrong is logged.
    pub(super) async fn shut_down(mut self) {
        let Some(shutdown) = self.shutdown else {
            return;
        };
        let state = self.store.data_mut();
        let (common, seat) = (Arc::clone(&state.common), Arc::clone(&state.seat));
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        state.outside_until(deadline);
        let mut cpu = Duration::ZERO;
        let ended = {
            let guest = pin!(Some(async {
                let first_slice = first_slice(seat.start().await);
                arm(
                    &mut self.store,
                    common.spec.limits.fuel_units(),
                    first_slice,
                );
                shutdown.call_async(&mut self.store, ()).await
            }));
            govern(&common.clock, &seat, || deadline, &mut cpu, guest).await
        };
        let too_slow = || format!("did not end within {} seconds", SHUTDOWN_TIMEOUT.as_secs());
        let wrong = match ended {
            Ok(Ok(())) => None,
            Err(Elapsed) => Some(too_slow()),
            Ok(Err(error)) if error.is::<DeadlinePassed>() => Some(too_slow()),
            Ok(Err(error)) => Some(format!("failed: {}", error.root_cause())),
        };
        self.store.data_mut().end();
        if let Some(wrong) = wrong {
            let name = &common.spec.name;
            let message = format!("function {name}: the `shutdown` of a reused instance {wrong}");
            common.telemetry.log.host(Level::Warn, &message);
        }
        cpu += turns::charged(&common.share, || drop(self)).1;
        common.metrics.spent(cpu);
    }
}

/// Calls `init`, where each instance does for itself.
async fn initialise(
    instance: &wasmtime::component::Instance,
    store: &mut Store<State>,
) -> Result<(), Unavailable> {
    let limits = store.data().common.spec.limits.clone();
    let fuel = lifecycle::init_fuel(limits.fuel_units());
    store.set_fuel(fuel).expect("the engine counts fuel");
    let init = lifecycle::init(instance, &mut *store).expect("its type was checked at deploy");
    let ended = init.call_async(&mut *store, ()).await;
    store.data_mut().end();
    match ended {
        Ok((Ok(()),)) => Ok(()),
        Ok((Err(message),)) => Err(Unavailable::Broken(lifecycle::init_refused(message))),
        Err(error) => {
            let denied = store.data().limiter.denied();
            // What is not its own doing.
            if denied == Some(Denied::Host) {
                return Err(Unavailable::from_error(&error, store.data()));
            }
            Err(Unavailable::Broken(if error.is::<DeadlinePassed>() {
                lifecycle::init_too_slow()
            } else {
                lifecycle::init_broke(&error, denied, &limits)
            }))
        }
    }
}
