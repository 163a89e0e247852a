//! `wasi:keyvalue@0.2.0-draft`: cursors and counts are numbers, and there is no
//! compare-and-swap.

use wasmtime::component::{HasSelf, Linker, Resource};

use super::{Answer, Bucket, Operation, Page, Problem, serve};
use crate::key_value::KeyValueError;
use crate::runtime::State;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/deps/keyvalue-0.2.0-draft",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": crate::capability::key_value::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => crate::capability::key_value::Problem },
    });
}

use bindings::wasi::keyvalue::{atomics, batch, store};

serve!(cursor: u64, Some, |next| next);

impl atomics::Host for State {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: u64,
    ) -> Answer<u64> {
        let bounds = (0, u64::MAX.into());
        let sum = State::increment(self, &bucket, key, delta.into(), bounds).await?;
        Ok(u64::try_from(sum).expect("it is within the bounds"))
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    atomics::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    batch::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
