//! What triggers cost that have nothing to do.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use time::OffsetDateTime;

use super::super::{Setup, target_row};
use super::host::Home;
use crate::manifest::Manifest;
use crate::proc;

const SCHEDULES: usize = 1000;
const MAPPINGS: usize = 100;
const REST: Duration = Duration::from_secs(10);
const TIME: Duration = Duration::from_secs(20);
/// Of a core.
const MOST: f64 = 0.01;

pub(super) fn run(setup: &Setup) -> Result<Vec<Vec<String>>> {
    let mut lines = String::new();
    // Once a day, half a day from now.
    let hour = (OffsetDateTime::now_utc().hour() + 12) % 24;
    for number in 0..SCHEDULES {
        let minute = number % 60;
        let _ = writeln!(
            lines,
            "[[function.sink.schedule]]\nname = \"s{number}\"\n\
             when = \"cron({minute} {hour} * * ? *)\""
        );
    }
    for number in 0..MAPPINGS {
        let _ = writeln!(
            lines,
            "[queue.q{number}]\n[[function.sink.queue]]\nname = \"q{number}\""
        );
    }
    let reset = format!("memory-reset = \"{}\"", setup.memory_reset);
    let manifest = Manifest::new(&[&reset])
        .function("sink", &setup.guests.sink, &[], &[])
        .with(&lines);
    let server = Home::of(setup, manifest)?.start(setup)?;
    std::thread::sleep(REST);
    let cpu = proc::cpu(server.pid())?;
    std::thread::sleep(TIME);
    let cpu = proc::cpu(server.pid())? - cpu;
    let memory = proc::memory(server.pid())?.resident;
    server.stop()?;
    let share = cpu.as_secs_f64() / TIME.as_secs_f64();
    Ok(vec![target_row(
        &format!("CPU of {SCHEDULES} schedules and {MAPPINGS} mappings without an event"),
        format!("< {:.0} % of a core", MOST * 100.0),
        format!(
            "{:.2} %, {:.1} MiB resident",
            share * 100.0,
            memory as f64 / f64::from(1 << 20)
        ),
        share < MOST,
    )])
}
