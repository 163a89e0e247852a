//! `wasi:keyvalue@0.2.0-draft2`: with compare-and-swap.

use wasmtime::component::{HasSelf, Linker, Resource};

use super::{Answer, Bucket, Cas, Operation, Page, Problem, serve};
use crate::key_value::KeyValueError;
use crate::runtime::State;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/deps/keyvalue-0.2.0-draft2",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::capability::key_value::Bucket,
            "wasi:keyvalue/atomics.cas": crate::capability::key_value::Cas,
        },
        trappable_error_type: { "wasi:keyvalue/store.error" => crate::capability::key_value::Problem },
    });
}

use bindings::wasi::keyvalue::{atomics, batch, store};

serve!(cursor: String, |cursor| cursor.parse().ok(), |next| next.to_string());

impl atomics::HostCas for State {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        self.begin_cas(&bucket, key).await
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        State::current(self, &cas).await
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> Answer<i64> {
        let bounds = (i64::MIN.into(), i64::MAX.into());
        let sum = State::increment(self, &bucket, key, delta.into(), bounds).await?;
        Ok(i64::try_from(sum).expect("it is within the bounds"))
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), atomics::CasError>> {
        match State::swap(self, cas, value).await {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(again)) => Ok(Err(atomics::CasError::CasFailed(again))),
            Err(problem) => {
                let error = store::Host::convert_error(self, problem)?;
                Ok(Err(atomics::CasError::StoreError(error)))
            }
        }
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    atomics::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    batch::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
