//! What a component exports beside its handlers: `init`, before an instance's first
//! event, and `shutdown`, when a reused instance ends.

use std::time::Duration;

use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, Instance, Type, TypedFunc};
use wasmtime::{AsContextMut, Trap};
use wasmtime_wasi::I32Exit;

use super::ComponentError;
use super::budget::Denied;
use crate::function::{Isolation, Limits};
use crate::invocation::{Failure, OutcomeKind};

/// What is called before the first event.
pub(super) const INITIALISE: &str = "dunlin:event/initialise@0.1.0";
/// What is called when a reused instance ends.
pub(super) const RETIRE: &str = "dunlin:event/retire@0.1.0";

/// The time of `init`, with what the component's own start functions do: Lambda's for
/// its init phase.
pub(super) const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// `init` has so many times the fuel of an invocation.
const INIT_FUEL: u64 = 10;
/// The time of `shutdown`: Lambda's for its shutdown phase. Longer than to flush what a
/// function gathers takes, and short enough for a drain.
pub(super) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// What the contract has to say of a version.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// Its `init`.
    pub init: Init,
    /// Whether `shutdown` is called.
    pub(super) retires: bool,
}

/// What became of a version's `init`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// It has none.
    None,
    /// It ran; each instance begins with the state that it left.
    Kept,
    /// It runs in each instance, for this reason.
    EachInstance(String),
}

impl Lifecycle {
    /// Of a component that exports a `shutdown`, or none. It is called under `reuse` alone:
    /// a fresh instance ends with its event.
    pub(super) fn new(init: Init, retires: bool, isolation: Isolation) -> Self {
        Self {
            init,
            retires: retires && isolation == Isolation::Reuse,
        }
    }

    /// Whether `init` is called in each instance.
    pub(super) fn runs_init(&self) -> bool {
        matches!(self.init, Init::EachInstance(_))
    }
}

/// Checks the types of what the component exports beside its handlers.
pub(super) fn check(code: &Component) -> Result<(), ComponentError> {
    check_one(code, INITIALISE, "init", |func| {
        let mut results = func.results();
        let failure = match (results.next(), results.next()) {
            (Some(Type::Result(result)), None) => (result.ok(), result.err()),
            _ => return false,
        };
        failure == (None, Some(Type::String))
    })?;
    check_one(code, RETIRE, "shutdown", |func| func.results().len() == 0)
}

/// If the interface is there, its function has to fit.
fn check_one(
    code: &Component,
    interface: &'static str,
    name: &str,
    fits: impl Fn(&ComponentFunc) -> bool,
) -> Result<(), ComponentError> {
    let wrong = |what| Err(ComponentError::WrongType(interface, what));
    let Some((_, index)) = code.get_export(None, interface) else {
        return Ok(());
    };
    match code.get_export(Some(&index), name) {
        Some((ComponentItem::ComponentFunc(func), _)) => {
            if !func.async_() && func.params().len() == 0 && fits(&func) {
                Ok(())
            } else {
                wrong(format!("its function `{name}` has another type"))
            }
        }
        _ => wrong(format!("it has no function `{name}`")),
    }
}

/// Its `init`, if it exports one.
pub(super) fn init(
    instance: &Instance,
    mut store: impl AsContextMut,
) -> Option<TypedFunc<(), (Result<(), String>,)>> {
    let interface = instance.get_export_index(&mut store, None, INITIALISE)?;
    let index = instance.get_export_index(&mut store, Some(&interface), "init")?;
    instance.get_typed_func(&mut store, index).ok()
}

/// Its `shutdown`, if it exports one.
pub(super) fn shutdown(
    instance: &Instance,
    mut store: impl AsContextMut,
) -> Option<TypedFunc<(), ()>> {
    let interface = instance.get_export_index(&mut store, None, RETIRE)?;
    let index = instance.get_export_index(&mut store, Some(&interface), "shutdown")?;
    instance.get_typed_func(&mut store, index).ok()
}

/// What `init` may compute.
pub(super) fn init_fuel(fuel: u64) -> u64 {
    fuel.saturating_mul(INIT_FUEL)
}

/// `init` took too long.
pub(super) fn init_too_slow() -> Failure {
    let seconds = INIT_TIMEOUT.as_secs();
    Failure::new(
        OutcomeKind::Timeout,
        "Sandbox.Timedout",
        format!("its `init` did not end within {seconds} seconds"),
    )
}

/// `init` said that it failed.
pub(super) fn init_refused(mut message: String) -> Failure {
    /// As much as a line shows.
    const SHOWN: usize = 4 << 10;
    message.truncate(message.floor_char_boundary(SHOWN));
    Failure::new(
        OutcomeKind::FunctionError,
        "Runtime.InitError",
        format!("its `init` failed: {message}"),
    )
}

/// `init` did not come to its end. `units` is what the function has of fuel.
pub(super) fn init_broke(
    error: &wasmtime::Error,
    denied: Option<Denied>,
    limits: &Limits,
) -> Failure {
    if denied.is_some() {
        return Failure::new(
            OutcomeKind::OutOfMemory,
            "Runtime.OutOfMemory",
            format!(
                "its `init` needed more than its {} of memory; raise `memory`",
                limits.memory
            ),
        );
    }
    if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
        let message = format!("its `init` exited with status {status}");
        return Failure::new(OutcomeKind::Trap, "Runtime.InitError", message);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Failure::new(
            OutcomeKind::OutOfFuel,
            "Runtime.OutOfFuel",
            format!(
                "its `init` used up its budget of {} units of fuel, ten times that of an \
                 invocation; raise `fuel`, or `timeout` if the budget follows from it",
                init_fuel(limits.fuel_units())
            ),
        ),
        Some(Trap::Interrupt) => init_too_slow(),
        trap => {
            let detail = match trap {
                Some(trap) => trap.to_string(),
                None => error.root_cause().to_string(),
            };
            let message = format!("its `init` trapped: {detail}");
            Failure::new(OutcomeKind::Trap, "Runtime.InitError", message)
        }
    }
}
