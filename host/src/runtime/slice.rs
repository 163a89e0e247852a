//! The slices that the kernel gives our threads.
//!
//! Linux's scheduler lets a thread that wakes preempt one that runs only when
//! its own slice is the shorter (EEVDF, Linux 6.12 and later); else it waits up
//! to 3 ms. The clock that makes guests yield must not wait for the guests, and
//! whoever shares the machine with busy guests should not wait long either.

use std::time::Duration;

/// How many steps of `nice` the clock goes before the rest of the host.
const AHEAD: libc::c_int = 10;
/// And threads for files behind it: against a core, such a thread has a tenth of the weight.
const BEHIND: libc::c_int = 10;
/// For the clock: the shortest that the kernel takes.
pub(super) const CLOCK_SLICE: Duration = Duration::from_micros(100);
/// For a core: half a tick.
pub(super) const CORE_SLICE: Duration = Duration::from_micros(500);

/// `struct sched_attr` of sched_setattr(2), as of its first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Lets the calling thread go before the others where the system allows that: to
/// root, or with `CAP_SYS_NICE` or a limit on `nice`.
#[allow(unsafe_code, reason = "no crate wraps it for a thread")]
pub(super) fn go_first() {
    // SAFETY: neither has memory to touch; 0 means the calling thread.
    unsafe {
        let nice = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, nice - AHEAD);
    }
}

/// Lets the calling thread go after the others. Anybody may.
#[allow(unsafe_code, reason = "no crate wraps it for a thread")]
pub(crate) fn go_behind() {
    // SAFETY: neither has memory to touch; 0 means the calling thread.
    unsafe {
        let nice = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, nice + BEHIND);
    }
    ask_for(CORE_SLICE);
}

/// Asks for slices of this length for the calling thread. Kernels before 6.12
/// take no notice, and nothing is lost where it is refused.
#[allow(
    unsafe_code,
    reason = "no crate wraps sched_setattr for the normal policy"
)]
pub fn ask_for(slice: Duration) {
    // SAFETY: getpriority has no memory to touch; 0 means the calling thread.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX),
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of a struct that has them; 0 means
    // the calling thread, and the last argument must be 0.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}
