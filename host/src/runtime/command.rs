//! Programs: components that export `wasi:cli/run`. One run is one invocation: the event
//! is on stdin, what is written to stdout is the answer, and the exit status says how it
//! went.

use bytes::Bytes;
use wasmtime::component::TypedFunc;
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi::I32Exit;

use super::state::State;
use crate::capability::console::Spilled;
use crate::invocation::{Failure, OutcomeKind};

/// `run: func() -> result`.
pub(super) type Results = (Result<(), ()>,);

/// Runs it. The outer error is an end that was none of its making.
pub(super) async fn enter(
    run: TypedFunc<(), Results>,
    store: &mut Store<State>,
    event: Bytes,
) -> wasmtime::Result<Result<Vec<u8>, Failure>> {
    let console = store.data_mut().console();
    console.begin(event);
    let ended = store
        .run_concurrent(async |accessor| {
            let ended = run.call_concurrent(accessor, ()).await;
            // Of WASI 0.3: what it still writes.
            std::future::poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
            ended
        })
        .await
        .and_then(|ended| ended);
    let status = match ended {
        Ok((Ok(()),)) => 0,
        Ok((Err(()),)) => 1,
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(status)) => *status,
            None => return Err(error),
        },
    };
    let limit = StoreContextMut::from(&mut *store)
        .data()
        .common
        .spec
        .limits
        .response
        .0;
    Ok(match console.end() {
        _ if status != 0 => Err(Failure::new(
            OutcomeKind::FunctionError,
            "Runtime.ExitError",
            format!("the program ended with exit status {status}"),
        )),
        Ok(answer) => Ok(answer),
        Err(Spilled::TooLarge) => Err(Failure::too_large(limit)),
        Err(Spilled::NoMemory) => Err(Failure::no_memory()),
    })
}
