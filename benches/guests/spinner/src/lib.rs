//! Works hard, in a way that the path chooses:
//!
//! - `/spin`: computes for ever;
//! - `/random`: asks for ever for as many random bytes as the host gives at once;
//! - `/clock`: asks for ever what time it is;
//! - `/work`: computes for about ten milliseconds and answers.

use std::hint::black_box;
use std::time::Instant;

use dunlin_sdk::{Request, Response};

/// The most that one call of `random.get-random-bytes` may ask for.
const MOST_RANDOM_BYTES: usize = 64 << 10;
/// About ten milliseconds' worth of a core of today.
const SOME_WORK: u64 = 8_000_000;

/// Steps of a generator, each of which needs the one before it.
fn compute(steps: u64) -> u64 {
    (0..steps).fold(1, |state: u64, _| {
        black_box(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        )
    })
}

#[dunlin_sdk::http]
fn work(request: Request) -> Response {
    match request.path() {
        "/spin" => loop {
            black_box(compute(SOME_WORK));
        },
        "/random" => loop {
            let bytes = wasip2::random::random::get_random_bytes(MOST_RANDOM_BYTES as u64);
            black_box(bytes);
        },
        "/clock" => loop {
            black_box(Instant::now());
        },
        "/work" => Response::text(compute(SOME_WORK).to_string()),
        _ => Response::text("no such work\n"),
    }
}
