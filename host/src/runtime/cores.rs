//! Cores: one thread each, with a tokio runtime of its own, that polls
//! connections and guests. What starts on a core stays on it.

use std::cell::Cell;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{slice, turns};
use crate::telemetry::Log;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The number of the core this thread is; 0 if it is none.
pub(crate) fn current() -> usize {
    INDEX.get()
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
        let mut cores = Vec::with_capacity(count);
        for index in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            let (stop, stopped) = oneshot::channel::<()>();
            let thread = std::thread::Builder::new()
                .name(format!("dunlin-core-{index}"))
                .spawn(move || {
                    INDEX.set(index);
                    slice::ask_for(slice::CORE_SLICE);
                    Log::use_buffer(index + 1);
                    runtime.block_on(async {
                        tokio::spawn(turns::give_out());
                        let _ = stopped.await;
                    });
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
}

impl Cores {
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
