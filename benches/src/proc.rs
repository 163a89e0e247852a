//! What Linux says about a process and about the machine, from `/proc`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use dunlin::runtime::ask_for_slice;
use rustix::process::{getpriority_process, setpriority_process};

/// How far before the servers, which inherit this process's priority, the load generators go.
const AHEAD: i32 = 5;
/// How long a load generator keeps a core at a time (Linux 6.12 and later). By default it is up to
/// 3 ms, for which a server on the same core would stand still and be charged with it.
const SLICE: Duration = Duration::from_micros(500);

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that was resident.
    pub peak: u64,
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_secs_f64(count as f64 / per_second as f64)
}

/// The fields of `/proc/…/stat` behind the name, which may hold blanks; the first is field 3.
fn stat(path: &str) -> Result<Vec<u64>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let (_, fields) = text
        .rsplit_once(')')
        .with_context(|| format!("{path} has no name"))?;
    // The first is a letter, some are negative: those that are wanted here are not.
    Ok(fields
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect())
}

/// What a process used of the cores: user and system time of all its threads.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = stat(&format!("/proc/{pid}/stat"))?;
    Ok(ticks(stat[14 - 3] + stat[15 - 3]))
}

/// What the children of this process used that it has waited for.
pub fn cpu_of_children() -> Result<Duration> {
    let stat = stat("/proc/self/stat")?;
    Ok(ticks(stat[16 - 3] + stat[17 - 3]))
}

/// What this process used.
pub fn cpu_of_self() -> Result<Duration> {
    cpu(std::process::id())
}

/// What all processes used of all cores, waiting for disks not counted.
pub fn cpu_of_machine() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    // user nice system [idle iowait] irq softirq steal
    let busy = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|index| fields.get(*index));
    Ok(ticks(busy.sum()))
}

/// The memory of a process.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = |key: &str| -> u64 {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|rest| rest.trim_start_matches(':').split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    Ok(Memory {
        resident: kib("VmRSS") << 10,
        peak: kib("VmHWM") << 10,
    })
}

/// How many cores there are.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Lets the thread that calls it go before the servers, if the system allows that (to root it
/// does). Answers how far before them it goes then.
pub fn go_first() -> i32 {
    // Of the thread: on Linux each has its own, and begins with that of the one that started it.
    let inherited = getpriority_process(None).unwrap_or(0);
    let _ = setpriority_process(None, inherited - AHEAD);
    ask_for_slice(SLICE);
    inherited - getpriority_process(None).unwrap_or(inherited)
}

/// Runs something on a thread that goes first.
pub fn first<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            go_first();
            run()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The machine, in one line for the head of a report.
#[must_use]
pub fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{} cores, {model}, Linux {}, load average {} at the start",
        cores(),
        kernel.trim(),
        load.split_whitespace().next().unwrap_or("unknown"),
    )
}
