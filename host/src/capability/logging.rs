//! `wasi:logging`: records that go where the function's output goes, within the same limit
//! ([`super::stdio`]).

use wasmtime::component::{HasSelf, Linker};

use super::stdio::Severity;
use crate::runtime::State;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/deps/logging-0.1.0-draft",
        world: "wasi:logging/imports",
    });
}

use bindings::wasi::logging::logging;

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, context: String, message: String) {
        let severity = match level {
            logging::Level::Trace => Severity::Trace,
            logging::Level::Debug => Severity::Debug,
            logging::Level::Info => Severity::Info,
            logging::Level::Warn => Severity::Warn,
            logging::Level::Error => Severity::Error,
            logging::Level::Critical => Severity::Critical,
        };
        self.output().log(severity, &context, &message);
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    logging::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
