//! Takes every message and every tick, and does nothing: what is measured is the host.

use std::hint::black_box;

use dunlin_sdk::{Batch, BatchResult, Error, Failure, Tick};

#[dunlin_sdk::queue]
fn messages(batch: Batch) -> Result<BatchResult, Error> {
    Ok(batch.each(|message| {
        black_box(message.body);
        Ok::<_, Failure>(())
    }))
}

#[dunlin_sdk::schedule]
fn ticks(tick: Tick) -> Result<(), Failure> {
    black_box(tick.payload);
    Ok(())
}
