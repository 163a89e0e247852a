//! What `init` may ask while its state is kept as a snapshot: what every instance of
//! the version would be told, too. Any other call ends the attempt, by the name of the
//! import; `init` then runs in each instance, where all of it is there.
//!
//! | answered | because |
//! |---|---|
//! | `wasi:cli/environment` | its values, and a program's arguments, name the snapshot |
//! | `wasi:random/insecure-seed` | it seeds hash tables, and may be the same each time |
//! | `wasi:cli/exit` | it ends `init`, and the deploy |
//! | of `dunlin:event/context`, the function's names and its memory | they name the snapshot |
//! | `secret` of `dunlin:event/context` | there is none outside an invocation |
//!
//! Clocks are refused, the wall clock as well: a monotonic instant means nothing in
//! another instance, and what follows from the time of day, such as a date or when
//! something expires, would be as old as the deployed version.

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceTable, ResourceType};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::p2::bindings as p2;
use wasmtime_wasi::p3::bindings as p3;
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::runtime::MemoryLimiter;

/// The interfaces that are answered as a whole.
const ANSWERED: [&str; 3] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:random/insecure-seed",
];

/// What `init` is told of its function.
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) arn: String,
    /// In bytes.
    pub(crate) memory: u64,
}

/// The data of a store whose state is kept.
pub(crate) struct Frozen {
    pub(crate) limiter: MemoryLimiter,
    facts: Facts,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Frozen {
    pub(crate) fn new(
        limiter: MemoryLimiter,
        facts: Facts,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Self {
        Self {
            limiter,
            facts,
            wasi: WasiCtx::builder().args(arguments).envs(environment).build(),
            table: ResourceTable::new(),
        }
    }
}

impl WasiView for Frozen {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// A call whose answer or effect must not be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it called `{interface}.{function}`, {}", why(interface))]
pub(crate) struct Called {
    /// `package/interface`, without a version.
    interface: String,
    function: String,
}

/// What would be wrong with it.
fn why(interface: &str) -> &'static str {
    let opens = ["wasi:cli/", "wasi:filesystem/", "wasi:io/"];
    let acts = [
        "dunlin:event/metrics",
        "dunlin:event/producer",
        "wasi:http/",
        "wasi:keyvalue/",
        "wasi:logging/",
        "wasi:sockets/",
    ];
    let is_of = |prefixes: &[&str]| prefixes.iter().any(|prefix| interface.starts_with(prefix));
    if is_of(&["wasi:random/"]) {
        "whose numbers all instances would share"
    } else if is_of(&["wasi:clocks/"]) {
        "and a moment that is kept gets old"
    } else if is_of(&opens) {
        "and what it opens is not open in another instance"
    } else if is_of(&acts) {
        "which would happen once for all instances"
    } else {
        "whose answer belongs to one instance"
    }
}

/// Provides what the component imports: answers, and for all others the end.
pub(crate) fn add_to_linker(
    linker: &mut Linker<Frozen>,
    component: &Component,
) -> wasmtime::Result<()> {
    let l = linker;
    p2::cli::environment::add_to_linker::<Frozen, WasiCli>(l, Frozen::cli)?;
    p2::cli::exit::add_to_linker::<Frozen, WasiCli>(l, Frozen::cli)?;
    p2::random::insecure_seed::add_to_linker::<Frozen, WasiRandom>(l, |frozen| {
        frozen.ctx().ctx.random()
    })?;
    p3::cli::environment::add_to_linker::<Frozen, WasiCli>(l, Frozen::cli)?;
    p3::cli::exit::add_to_linker::<Frozen, WasiCli>(l, Frozen::cli)?;
    p3::random::insecure_seed::add_to_linker::<Frozen, WasiRandom>(l, |frozen| {
        frozen.ctx().ctx.random()
    })?;
    let engine = component.engine().clone();
    for (import, item) in component.component_type().imports(&engine) {
        let interface = import.split('@').next().unwrap_or(import);
        if let ComponentItem::ComponentInstance(instance) = item.ty
            && !ANSWERED.contains(&interface)
        {
            let mut provided = l.instance(import)?;
            for (name, item) in instance.exports(&engine) {
                provide(&mut provided, interface, name, &item.ty)?;
            }
        }
    }
    Ok(())
}

fn provide(
    linker: &mut LinkerInstance<'_, Frozen>,
    interface: &str,
    name: &str,
    item: &ComponentItem,
) -> wasmtime::Result<()> {
    match item {
        ComponentItem::ComponentFunc(func) => {
            if interface == "dunlin:event/context" && answer(linker, name)? {
                return Ok(());
            }
            let called = Arc::new(Called {
                interface: interface.to_owned(),
                function: name.to_owned(),
            });
            if func.async_() {
                linker.func_new_concurrent(name, move |_, _, _, _| {
                    let called = Called::clone(&called);
                    Box::pin(async move { Err(called.into()) })
                })
            } else {
                linker.func_new(name, move |_, _, _, _| Err(Called::clone(&called).into()))
            }
        }
        // None is ever made, so they need not be told from each other.
        ComponentItem::Resource(_) => {
            linker.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))
        }
        _ => Ok(()),
    }
}

/// Provides a function of `dunlin:event/context` if all instances get the same answer.
fn answer(linker: &mut LinkerInstance<'_, Frozen>, name: &str) -> wasmtime::Result<bool> {
    let text = |linker: &mut LinkerInstance<'_, Frozen>, tell: fn(&Facts) -> String| {
        linker.func_wrap(name, move |store: StoreContextMut<'_, Frozen>, (): ()| {
            Ok((tell(&store.data().facts),))
        })
    };
    match name {
        "function-name" => text(linker, |facts| facts.name.clone())?,
        "function-version" => text(linker, |facts| facts.version.clone())?,
        "invoked-as" => text(linker, |facts| facts.arn.clone())?,
        "log-group" => text(linker, |facts| super::context::log_group(&facts.name))?,
        "memory-limit" => {
            linker.func_wrap(name, |store: StoreContextMut<'_, Frozen>, (): ()| {
                Ok((store.data().facts.memory,))
            })?;
        }
        "secret" => {
            linker.func_wrap(name, |_: StoreContextMut<'_, Frozen>, (_,): (String,)| {
                Ok((None::<String>,))
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}
