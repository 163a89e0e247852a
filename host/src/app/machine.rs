//! What this machine has.

/// The part of the machine's memory that guests may hold together: the rest is
/// for machine code, connections and everything else that runs here.
const BUDGET_PERCENT: u64 = 60;
/// Assumed where the system does not say.
const UNKNOWN_MEMORY: u64 = 1 << 30;

/// 60 % of the machine's memory, or of the cgroup's limit where that is less.
#[must_use]
pub fn default_memory_budget() -> u64 {
    let total = total_memory().unwrap_or(UNKNOWN_MEMORY);
    total.min(cgroup_limit().unwrap_or(u64::MAX)) / 100 * BUDGET_PERCENT
}

fn total_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The least limit on the way from our cgroup to the root.
fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut folder = std::path::PathBuf::from(format!("/sys/fs/cgroup{path}"));
    let mut least = None;
    while folder.starts_with("/sys/fs/cgroup") {
        let limit = std::fs::read_to_string(folder.join("memory.max")).ok();
        let limit: Option<u64> = limit.and_then(|text| text.trim().parse().ok());
        least = match (least, limit) {
            (Some(a), Some(b)) => Some(u64::min(a, b)),
            (a, b) => a.or(b),
        };
        if !folder.pop() {
            break;
        }
    }
    least
}

/// Lets the process open as many files as the system allows it: each
/// connection is one, and shells give out 1024.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused, it stays as it is; accepting pauses when they are used up.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_budget_is_a_part_of_what_is_there() {
        let budget = super::default_memory_budget();
        let total = super::total_memory().expect("Linux says how much there is");
        assert!(budget > 0 && budget <= total / 100 * 60);
    }
}
