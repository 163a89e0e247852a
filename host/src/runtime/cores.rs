//! Cores: one thread each, with a tokio runtime of its own, that polls
//! connections and guests. A connection stays on its core, and so does an
//! invocation that has started; but it may start on another.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::slice;
use super::turns::{self, Share};
use crate::telemetry::Log;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
    /// All cores, on one of them.
    static PEERS: OnceCell<Arc<[Handle]>> = const { OnceCell::new() };
}

/// Threads for files beside each core: enough to keep a disk busy, few enough that their
/// work in the kernel leaves the cores to guests and connections.
const FILE_THREADS: usize = 4;
/// How long a host that ends waits for them: a file system that hangs must not hold it.
const FILES_END: Duration = Duration::from_secs(1);

/// The number of the core this thread is; 0 if it is none.
pub(crate) fn current() -> usize {
    INDEX.get()
}

/// Another core, where an invocation may start.
pub(crate) struct Elsewhere(Handle);

/// Where an invocation of this function had better start, if not here: where it
/// would have to wait here, and less stands before it there.
pub(crate) fn elsewhere(share: &Arc<Share>) -> Option<Elsewhere> {
    if turns::may_start(share) {
        return None;
    }
    let core = share.core_with_less(current())?;
    PEERS.with(|peers| {
        let handle = peers.get()?.get(core)?;
        Some(Elsewhere(handle.clone()))
    })
}

impl Elsewhere {
    /// Runs it there. Dropping the future ends it.
    ///
    /// # Errors
    /// If it panicked, or the core has ended.
    pub(crate) fn run<F>(self, task: F) -> AbortOnDropHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        AbortOnDropHandle::new(self.0.spawn(task))
    }
}

/// The threads that run guests.
pub struct Cores {
    cores: Vec<Core>,
}

struct Core {
    handle: Handle,
    /// Connections and background invocations that live here.
    load: Arc<AtomicUsize>,
    /// What stops it, until it is stopped.
    ends: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

/// Counts as load on a core while it lives.
pub struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cores {
    /// Starts so many.
    ///
    /// # Errors
    /// If a thread or its runtime cannot be started.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let runtime = |_| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder
                .enable_all()
                .max_blocking_threads(FILE_THREADS)
                .thread_name("dunlin-files")
                .on_thread_start(slice::go_behind)
                .build()
        };
        let runtimes: Vec<Runtime> = (0..count).map(runtime).collect::<Result<_, _>>()?;
        let peers: Arc<[Handle]> = runtimes.iter().map(|it| it.handle().clone()).collect();
        let mut cores = Vec::with_capacity(count);
        for (index, runtime) in runtimes.into_iter().enumerate() {
            let (stop, stopped) = oneshot::channel::<()>();
            let handle = runtime.handle().clone();
            let peers = Arc::clone(&peers);
            let thread = std::thread::Builder::new()
                .name(format!("dunlin-core-{index}"))
                .spawn(move || {
                    INDEX.set(index);
                    // Nothing else sets it.
                    let _ = PEERS.with(|own| own.set(peers));
                    slice::ask_for(slice::CORE_SLICE);
                    Log::use_buffer(index + 1);
                    runtime.block_on(async {
                        tokio::spawn(turns::give_out(index));
                        let _ = stopped.await;
                    });
                    runtime.shutdown_timeout(FILES_END);
                })?;
            cores.push(Core {
                handle,
                load: Arc::default(),
                ends: Mutex::new(Some((stop, thread))),
            });
        }
        Ok(Self { cores })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.cores.len()
    }

    /// Runs a task on the core with the least load. `task` gets the guard that
    /// counts it.
    pub fn spawn<F>(&self, task: impl FnOnce(Load) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let core = self
            .cores
            .iter()
            .min_by_key(|core| core.load.load(Ordering::Relaxed))
            .expect("there is a core");
        core.load.fetch_add(1, Ordering::Relaxed);
        core.handle.spawn(task(Load(Arc::clone(&core.load))));
    }

    /// Ends the threads, and with them every task that is left on them.
    pub fn stop(&self) {
        let mut threads = Vec::new();
        for core in &self.cores {
            let ends = core
                .ends
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some((stop, thread)) = ends {
                // A core that is gone has nothing left to stop.
                let _ = stop.send(());
                threads.push(thread);
            }
        }
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    use super::*;

    /// Sends from a core and from its thread for files, which then hangs.
    fn hang<T: Send + 'static>(cores: &Cores, what: fn() -> T) -> Receiver<T> {
        let (send, received) = channel();
        cores.spawn(|_load| async move {
            send.send(what()).unwrap();
            let hangs = tokio::task::spawn_blocking(move || {
                send.send(what()).unwrap();
                std::thread::park_timeout(Duration::from_mins(1));
            });
            hangs.await.unwrap();
        });
        received
    }

    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The name, in parentheses, may hold anything.
        let fields = stat.rsplit(')').next().unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn threads_for_files_go_behind_and_hold_no_host_that_ends() {
        let cores = Cores::start(1).unwrap();
        let received = hang(&cores, nice);
        let (core, files) = (received.recv().unwrap(), received.recv().unwrap());
        assert_eq!(core, nice());
        assert!(files > core, "{files} behind {core}");
        let begun = Instant::now();
        cores.stop();
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
