//! The engine: wasmtime's settings, and the clock that makes guests yield.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::budget::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLES};

/// How often the epoch advances: a guest yields its core after one to two of
/// these.
const TICK: Duration = Duration::from_millis(1);
/// The same while functions share a core: their answers wait for each other's
/// slices.
const SHARED_TICK: Duration = Duration::from_micros(250);
/// For so many ticks after one function's guest has followed another's, a core
/// counts as shared.
const SHARED_TICKS: u32 = 32;

/// What a guest's own calls may use of the stack. wasmtime's default.
const MAX_WASM_STACK: usize = 512 << 10;
/// The whole fiber: the guest's part and what host calls need above it.
const ASYNC_STACK: usize = 2 << 20;

/// What is kept resident of a memory's start and reset by copying, when the
/// kernel cannot tell which pages were written: twice a compact guest.
const MEMSET_RESIDENT: usize = 128 << 10;
/// What is kept resident at most, when it can.
const PAGEMAP_RESIDENT: usize = 2 << 20;
/// The same for tables.
const PAGEMAP_TABLE_RESIDENT: usize = 512 << 10;

/// Initial memory up to this size is an image that instances map, whatever is in it; of
/// more, what is mostly zero is copied piece by piece. Snapshots are to be images.
const DENSE_IMAGE: u64 = 64 << 20;
/// Memories of 4 GiB that fit into the address space of a process in one piece. On x86-64
/// (47 bits) the largest lies below the program, which Linux puts at two thirds, 85 TiB;
/// of that the allocator takes places of its own choice up to 6 TiB from the bottom. With the
/// most that `concurrency` and `ready` may be, one for each slot, it is 79 TiB.
const MEMORIES_IN_ALL: u32 = 18_432;

/// How an instance's memory is made new again for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MemoryReset {
    /// [`Self::Pagemap`] where it is safe, else [`Self::Memset`].
    #[default]
    Auto,
    /// Copy over the first 128 KiB and give the rest back to the kernel. Best
    /// for compact guests, and works everywhere.
    Memset,
    /// Ask the kernel which pages were written and copy over those.
    Pagemap,
}

/// Why `memory-reset = "pagemap"` cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PagemapUnsafe {
    /// The kernel is too old or the call is filtered.
    #[error("the kernel does not offer PAGEMAP_SCAN (Linux 6.7 or later does)")]
    Missing,
    /// A page that was swapped out is not seen by the scan and would keep the
    /// last guest's data (wasmtime 48 looks only for pages that are present).
    #[error(
        "swap is in use, and a swapped-out page would not be cleaned: switch it off, or set the cgroup's memory.swap.max to 0"
    )]
    Swap,
}

fn swap_is_off() -> bool {
    let listed = std::fs::read_to_string("/proc/swaps")
        .unwrap_or_default()
        .lines()
        .count()
        > 1;
    // The process's own cgroup: the mount seen from inside a container or unit.
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/")
        .trim_end_matches('/')
        .to_owned();
    let barred = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.swap.max"));
    !listed || barred.is_ok_and(|max| max.trim() == "0")
}

impl MemoryReset {
    /// What it comes to on this machine.
    ///
    /// # Errors
    /// If pagemap is asked for and cannot be had.
    pub fn resolve(self) -> Result<Self, PagemapUnsafe> {
        let pagemap = if !PoolingAllocationConfig::is_pagemap_scan_available() {
            Err(PagemapUnsafe::Missing)
        } else if !swap_is_off() {
            Err(PagemapUnsafe::Swap)
        } else {
            Ok(Self::Pagemap)
        };
        match self {
            Self::Memset => Ok(Self::Memset),
            Self::Pagemap => pagemap,
            Self::Auto => Ok(pagemap.unwrap_or(Self::Memset)),
        }
    }

    /// As it stands in the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Memset => "memset",
            Self::Pagemap => "pagemap",
        }
    }
}

/// Everything that decides what machine code looks like; the compiler process
/// and the host must agree on it.
fn code_config() -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(MAX_WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .wasm_component_model_async(true)
        .wasm_memory64(false)
        .relaxed_simd_deterministic(true)
        .memory_guaranteed_dense_image_size(DENSE_IMAGE)
        .memory_may_move(false);
    config
}

/// An engine that only compiles.
///
/// # Errors
/// If this machine is not supported.
pub(super) fn compiling_engine() -> wasmtime::Result<Engine> {
    Engine::new(&code_config())
}

/// The engine that runs guests, with room for so many instances.
pub(crate) fn running_engine(
    slots: u32,
    max_memory: u64,
    reset: MemoryReset,
) -> wasmtime::Result<Engine> {
    let memories = (MEMORIES_IN_ALL / slots.max(1)).clamp(1, MAX_MEMORIES);
    let mut pool = PoolingAllocationConfig::new();
    // As many for each slot as one component may have: no function takes another's.
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(MAX_CORE_INSTANCES))
        .total_memories(slots.saturating_mul(memories))
        .total_tables(slots.saturating_mul(MAX_TABLES))
        .total_stacks(slots)
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(memories)
        .max_tables_per_component(MAX_TABLES)
        .max_memories_per_module(memories)
        .max_tables_per_module(MAX_TABLES)
        .max_memory_size(usize::try_from(max_memory).unwrap_or(usize::MAX))
        .table_elements(100_000)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .max_unused_warm_slots(slots.min(200));
    match reset {
        MemoryReset::Pagemap => {
            pool.linear_memory_keep_resident(PAGEMAP_RESIDENT)
                .table_keep_resident(PAGEMAP_TABLE_RESIDENT)
                .pagemap_scan(Enabled::Yes);
        }
        MemoryReset::Auto | MemoryReset::Memset => {
            pool.linear_memory_keep_resident(MEMSET_RESIDENT)
                .table_keep_resident(MEMSET_RESIDENT)
                .pagemap_scan(Enabled::No);
        }
    }
    let mut config = code_config();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .force_memory_init_memfd(true);
    Engine::new(&config)
}

/// An engine that runs one `init` for its snapshot. Its memories take the address space
/// that they have, not what they might grow to: the process is held to a bound.
///
/// # Errors
/// If this machine is not supported.
pub(super) fn snapshot_engine() -> wasmtime::Result<Engine> {
    let mut config = code_config();
    config
        .memory_may_move(true)
        .memory_reservation(0)
        .memory_reservation_for_growth(0);
    Engine::new(&config)
}

/// Ticks without a guest after which the clock stands still, so that a host
/// without events costs nothing. A guest that runs so long without yielding is past
/// its slice: it yields as soon as it looks.
const IDLE_TICKS: u32 = 20;

/// The clock of an engine's guests.
#[derive(Default)]
pub(crate) struct Clock {
    /// A guest has run since the last tick.
    running: AtomicBool,
    /// No tick comes until the thread is woken.
    standing: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Clock {
    /// Sets the clock going, if it stands. To be called before each piece of a
    /// guest.
    pub(super) fn wind(&self) {
        // Mostly a look at what nobody writes. The rest pairs with `stand`:
        // either that sees the mark, or this sees that the clock stands.
        if self.running.load(Ordering::Relaxed) {
            return;
        }
        self.running.store(true, Ordering::SeqCst);
        if self.standing.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Waits for a guest.
    fn stand(&self, stopped: &AtomicBool) {
        self.standing.store(true, Ordering::SeqCst);
        while !self.running.load(Ordering::SeqCst) && !stopped.load(Ordering::Relaxed) {
            std::thread::park();
        }
        self.standing.store(false, Ordering::SeqCst);
    }

    /// Advances the epoch while guests run, until it is stopped.
    fn run(&self, engine: &Engine, stopped: &AtomicBool) {
        let mut idle = 0;
        // Ticks since functions shared a core.
        let mut alone = SHARED_TICKS;
        while !stopped.load(Ordering::Relaxed) {
            let shared = super::turns::SHARED.swap(false, Ordering::Relaxed);
            alone = if shared { 0 } else { alone.saturating_add(1) };
            let is_shared = alone < SHARED_TICKS;
            std::thread::sleep(if is_shared { SHARED_TICK } else { TICK });
            engine.increment_epoch();
            if self.running.swap(false, Ordering::SeqCst) {
                idle = 0;
            } else if idle < IDLE_TICKS {
                idle += 1;
            } else {
                self.stand(stopped);
                idle = 0;
            }
        }
    }
}

/// Drives the clock until it is dropped. A thread of its own: a task would
/// stand still just when guests hold every core.
pub(crate) struct Ticker {
    clock: Arc<Clock>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let (clock, stop) = (Arc::<Clock>::default(), Arc::<AtomicBool>::default());
        let (driven, stopped) = (Arc::clone(&clock), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("dunlin-epoch".into())
            .spawn(move || {
                super::slice::go_first();
                super::slice::ask_for(super::slice::CLOCK_SLICE);
                // Nothing else sets it.
                let _ = driven.thread.set(std::thread::current());
                driven.run(&engine, &stopped);
            })?;
        Ok(Self {
            clock,
            stop,
            thread: Some(thread),
        })
    }

    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_without_guests_and_goes_with_them() {
        let engine = compiling_engine().unwrap();
        let ticker = Ticker::start(engine).unwrap();
        let clock = ticker.clock();
        let until = |what: &str, reached: &dyn Fn() -> bool| {
            let began = std::time::Instant::now();
            while !reached() {
                assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        for _ in 0..3 {
            until("it stands", &|| clock.standing.load(Ordering::SeqCst));
            // However late this thread looks.
            until("it goes", &|| {
                clock.wind();
                !clock.standing.load(Ordering::SeqCst)
            });
        }
    }
}
