//! The dispatcher: from an event for a function to an outcome. Knows names,
//! versions and concurrency; knows nothing of HTTP or SQL.

mod admission;
mod catalogue;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::task::JoinError;

pub use admission::{Admission, Lane, Permit};
pub use catalogue::{Catalogue, Function};

use crate::function::FunctionName;
use crate::invocation::{Answer, Call, Event, Failure, OutcomeKind, Usage};
use crate::runtime::{Unavailable, Version, charged, elsewhere, timed_out};
use crate::telemetry::{FunctionMetrics, Record, Telemetry};

pub use crate::telemetry::Ended;

/// To read a payload up to this size takes about as long as to measure how long it
/// took: a microsecond or two.
const SHORT_PAYLOAD: usize = 1 << 10;

/// Takes events to instances.
pub struct Dispatcher {
    catalogue: ArcSwap<Catalogue>,
    telemetry: Telemetry,
}

/// A name or a qualifier that nothing answers to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no function `{name}`{} is deployed", qualifier.as_ref().map(|q| format!(" with the version or alias `{q}`")).unwrap_or_default())]
pub struct NotFound {
    /// The name.
    pub name: String,
    /// The qualifier, if one was given.
    pub qualifier: Option<String>,
}

impl Dispatcher {
    /// A dispatcher that knows no function yet.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        Self {
            catalogue: ArcSwap::default(),
            telemetry,
        }
    }

    /// Puts another catalogue in force, as one. Events under way end on what
    /// they began with.
    pub fn deploy(&self, catalogue: Catalogue) {
        let old = self.catalogue.swap(Arc::new(catalogue));
        let new = self.catalogue.load();
        for (name, function) in old.iter() {
            let stays = new
                .get(name)
                .is_some_and(|now| Arc::ptr_eq(&now.version, &function.version));
            if !stays {
                function.version.retire();
            }
        }
    }

    /// What is deployed.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// Resolves a name and a qualifier to what answers to them now.
    ///
    /// # Errors
    /// If nothing does.
    pub fn resolve(&self, name: &str, qualifier: Option<&str>) -> Result<Arc<Function>, NotFound> {
        let not_found = || NotFound {
            name: name.to_owned(),
            qualifier: qualifier.map(str::to_owned),
        };
        let name = FunctionName::new(name).map_err(|_| not_found())?;
        let catalogue = self.catalogue.load();
        let function = catalogue.get(&name).ok_or_else(not_found)?;
        match qualifier {
            Some(qualifier) if qualifier != function.version.common.version => Err(not_found()),
            _ => Ok(Arc::clone(function)),
        }
    }

    /// Runs one invocation: admits it, leases an instance, runs the handler and
    /// records the outcome. `interpret` makes of the handler's answer what the
    /// trigger needs; an answer that it cannot use fails the invocation.
    ///
    /// `interpret` runs on the core of the instance, and its function is charged for it.
    ///
    /// Dropping the future cancels the invocation and drops its instance.
    ///
    /// Answers every outcome but `ok` as a failure.
    pub async fn invoke<T: Send + 'static>(
        &self,
        function: &Function,
        event: Event,
        call: Call,
        interpret: impl FnOnce(Answer) -> Result<T, Failure> + Send + 'static,
    ) -> Ended<T> {
        // Dropped last: if this future is, the record is that of a cancelled
        // invocation whose instance and permit are gone already, or are about to
        // go on the core where it started.
        let record = self.begin(function, &call);
        let permit = match function
            .lane
            .admit(&self.telemetry.metrics.admission_waiting)
            .await
        {
            Ok(permit) => permit,
            Err(failure) => {
                return record.failed(failure);
            }
        };
        run(record, function, permit, event, Box::new(call), interpret).await
    }

    /// Runs one invocation that has been admitted. As [`Self::invoke`] else.
    pub async fn invoke_admitted<T: Send + 'static>(
        &self,
        function: &Function,
        permit: Permit,
        event: Event,
        call: Call,
        interpret: impl FnOnce(Answer) -> Result<T, Failure> + Send + 'static,
    ) -> Ended<T> {
        let record = self.begin(function, &call);
        run(record, function, permit, event, Box::new(call), interpret).await
    }

    fn begin<'a>(&'a self, function: &'a Function, call: &Call) -> Record<'a> {
        let common = &function.version.common;
        Record::begin(
            &self.telemetry,
            &common.metrics,
            &common.spec.name,
            &common.version,
            call,
        )
    }
}

/// Runs one invocation, here or on a core where less stands before it.
async fn run<T: Send + 'static>(
    mut record: Record<'_>,
    function: &Function,
    permit: Permit,
    event: Event,
    call: Box<Call>,
    interpret: impl FnOnce(Answer) -> Result<T, Failure> + Send + 'static,
) -> Ended<T> {
    let version = &function.version;
    let common = &version.common;
    // It was accepted for another version, perhaps.
    if !version.handles(event.handler()) {
        let handler = event.handler().name();
        let what = format!("{} exports no `{handler}`", common.spec.name);
        return record.failed(Failure::host(what));
    }
    record.leased();
    // The wait for an instance counts: a client's time passes all the same.
    let deadline = Instant::now() + common.spec.limits.timeout;
    let share = &common.share;
    let result = match elsewhere(share) {
        None => {
            let usage = &mut record.usage;
            serve(version, event, call, deadline, permit, usage, interpret).await
        }
        Some(core) => {
            let version = Arc::clone(version);
            let task = core.run(async move {
                let mut spent = Spent::new(&version.common.metrics);
                let usage = &mut spent.usage;
                let result = serve(&version, event, call, deadline, permit, usage, interpret).await;
                (result, spent.take())
            });
            match task.await {
                Ok((result, usage)) => {
                    record.usage = usage;
                    result
                }
                Err(error) => Err(lost(&error)),
            }
        }
    };
    match result {
        Ok(answer) => record.ok(answer),
        Err(failure) => record.failed(failure),
    }
}

/// Leases an instance, runs the handler and interprets its answer, on this core. The
/// permit goes before the answer is known: who reads that nothing runs any more may
/// count on it.
async fn serve<T>(
    version: &Arc<Version>,
    event: Event,
    call: Box<Call>,
    deadline: Instant,
    permit: Permit,
    usage: &mut Usage,
    interpret: impl FnOnce(Answer) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // However this ends, another instance takes the place of the leased one.
    let _refill = Refill(version);
    let request_id = call.request_id;
    let unavailable = |unavailable| match unavailable {
        Unavailable::Full(message) => {
            admission::throttled(format!("no room for another instance: {message}"))
        }
        Unavailable::TooSlow => timed_out(&version.common, request_id),
        Unavailable::Broken(failure) => failure,
    };
    let event = match event {
        Event::Stream(request) if version.is_concurrent() => {
            let hold = Box::new(permit);
            let shared = version.share(request, call, deadline, hold, &mut usage.cpu);
            return shared.await.map_err(unavailable)?.and_then(interpret);
        }
        event => event,
    };
    let _permit = permit;
    let lease = version.lease(deadline, &mut usage.cpu).await;
    let mut lease = lease.map_err(unavailable)?;
    let deadline = lease.deadline(deadline);
    let (result, sound) = lease.instance().call(event, call, deadline, usage).await;
    version.give_back(lease, sound, &mut usage.cpu);
    let answer = result?;
    if matches!(&answer, Answer::Payload(payload) if payload.len() > SHORT_PAYLOAD) {
        let (interpreted, took) = charged(&version.common.share, || interpret(answer));
        usage.cpu += took;
        interpreted
    } else {
        interpret(answer)
    }
}

/// The end of an invocation that another core did not bring to its end.
fn lost(error: &JoinError) -> Failure {
    if error.is_cancelled() {
        return Failure::new(
            OutcomeKind::Cancelled,
            "ServiceException",
            "the host has ended",
        );
    }
    Failure::host(format!("the core failed: {error}"))
}

/// What an invocation took on another core. If it is broken off there, its function
/// is charged all the same.
struct Spent<'a> {
    metrics: &'a FunctionMetrics,
    usage: Usage,
}

impl<'a> Spent<'a> {
    fn new(metrics: &'a FunctionMetrics) -> Self {
        Self {
            metrics,
            usage: Usage::default(),
        }
    }

    /// It ended: the record has it from here.
    fn take(mut self) -> Usage {
        std::mem::take(&mut self.usage)
    }
}

impl Drop for Spent<'_> {
    fn drop(&mut self) {
        self.metrics.spent(self.usage.cpu);
    }
}

/// Makes up for a leased instance when the invocation is over.
struct Refill<'a>(&'a Arc<Version>);

impl Drop for Refill<'_> {
    fn drop(&mut self) {
        self.0.refill();
    }
}

impl Failure {
    /// The host could not do its part.
    #[must_use]
    pub fn host(message: impl Into<String>) -> Self {
        Self::new(OutcomeKind::HostError, "ServiceException", message)
    }
}
