//! Guests that spend their time in the host's own calls: their deadline, and their neighbours.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::neighbour::{self, FLOOD};
use super::{Setup, TARGET_HEADER, target_row};
use crate::client::Closed;
use crate::proc;
use crate::server::Server;
use crate::stats::{millis, table};

pub use neighbour::Plan;

/// For a deadline of one second.
const MAX_LATE: Duration = Duration::from_millis(1100);

/// The deadlines of so many invocations at once: the longest, as the client and as the log has it.
fn deadlines(server: &Server, path: &str, at_once: usize, time: Duration) -> Result<Vec<String>> {
    // Those of whatever came before.
    drop(server.take_timeouts());
    let latencies = if at_once == FLOOD {
        let flood = neighbour::flood(server, path)?;
        std::thread::sleep(time);
        neighbour::ebb(server, flood)?
    } else {
        let seen = Closed::run(server.endpoint(path), at_once, time)?;
        seen.only(&[504])?;
        seen.latencies
    };
    // The log is written now and then.
    std::thread::sleep(Duration::from_millis(200));
    let logged = server
        .take_timeouts()
        .iter()
        .filter_map(|line| line["duration_ms"].as_f64())
        .fold(0.0, f64::max);
    ensure!(logged > 0.0, "no deadline was logged for {path}");
    let longest = latencies.iter().max().context("there was no answer")?;
    Ok(target_row(
        &format!(
            "deadline of 1 s, {at_once} × `{path}` at once, the longest of {}",
            latencies.len()
        ),
        format!("≤ {} ms", MAX_LATE.as_millis()),
        format!(
            "{:.0} ms at the client, {logged:.0} ms in the log",
            millis(*longest)
        ),
        *longest <= MAX_LATE && logged <= millis(MAX_LATE),
    ))
}

/// Runs it and answers its report.
pub fn run(setup: &Setup, plan: Plan) -> Result<String> {
    let mut rows = Vec::new();
    for path in ["/random", "/clock"] {
        let server = neighbour::start(setup, (100, 100))?;
        // At least three deadlines each.
        let time = plan.time.max(Duration::from_millis(3500));
        for at_once in [1, 2 * proc::cores(), FLOOD] {
            rows.push(deadlines(&server, path, at_once, time)?);
        }
        rows.extend(neighbour::paired(&server, plan, path)?.rows(path));
        server.stop()?;
    }
    Ok(format!(
        "{}\n{}",
        table(&TARGET_HEADER, &rows),
        neighbour::remark()
    ))
}
