//! What was acknowledged is handled or lies with the dead letters, at whatever moments the
//! host is killed.
//!
//! The host is killed again and again while it is fed from all sides with more than a
//! thousand messages in it. What it acknowledged and what came out is noted outside of it
//! ([`ledger`]); a message is known to be handled when the function's own message about it
//! lies in another queue of the same host, which survives the kill that a log line does not.
//!
//! `DUNLIN_CRASH_ROUNDS` is how often it is killed, `DUNLIN_CRASH_SEED` repeats a run's
//! moments. The full form, whose figures stand in `docs/durability.md`:
//!
//! ```sh
//! DUNLIN_CRASH_ROUNDS=200 cargo test -p dunlin-tests --test all -- crashes --nocapture --include-ignored
//! ```

mod ledger;
mod outside;
mod poison;
mod producers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dunlin_tests::{Client, Host, PATIENCE, within};
use rustix::process::Signal;
use serde_json::json;

use super::{at, own_operation};
use crate::http::box_with;
use ledger::Ledger;
use producers::Producers;

/// Few enough for every run of the tests.
const ROUNDS: u32 = 20;
/// Messages in one queue at each kill, at least.
const ENOUGH: u64 = 1000;
/// Seconds between two fires.
const FIRES_EVERY: i64 = 2;
/// The most of them: a run of any length ends.
const MOST_FIRES: u32 = 400;

/// A queue for each rule, functions that are slow enough to be killed at work, and the queues
/// in which they say what they did.
const MANIFEST: &str = r#"
[function.worker]
component = "{consumer}"
timeout = "10s"
sends-to = ["out", "steps-out.fifo", "ticks"]
invokes = ["lambda"]
async = { max-attempts = 10, retry-delay = "50ms" }

[function.lambda]
component = "{lambda-consumer}"
async = { max-attempts = 10, retry-delay = "50ms", on-success = { queue = "told" } }

[[function.worker.queue]]
name = "crowd"
[queue.crowd]
dead-letter-queue = "dead"
max-receives = 1000

[[function.worker.queue]]
name = "narrow"
batch-size = 1
max-concurrency = 1
[queue.narrow]
dead-letter-queue = "dead"
max-receives = 1000

[[function.worker.queue]]
name = "steps.fifo"
[queue."steps.fifo"]
dead-letter-queue = "dead.fifo"
max-receives = 1000

[function.brittle]
component = "{consumer}"
timeout = "1s"
sends-to = ["out"]

[[function.brittle.queue]]
name = "poison"
batch-size = 2
[queue.poison]
visibility-timeout = "1s"
dead-letter-queue = "dead"
max-receives = 3

[[function.worker.queue]]
name = "idle"
enabled = "off"
[queue.idle]

[queue.out]
visibility-timeout = "5s"
[queue."steps-out.fifo"]
visibility-timeout = "5s"
[queue.told]
visibility-timeout = "5s"
[queue.ticks]
visibility-timeout = "5s"
[queue.dead]
[queue."dead.fifo"]
"#;

/// What functions read.
const SOURCES: [&str; 6] = [
    "crowd",
    "narrow",
    "steps.fifo",
    "poison",
    "@async:worker",
    "@async:lambda",
];
/// Where they say what they did. Most of it lies in the first, which is read by several.
const RESULTS: [&str; 6] = ["out", "out", "out", "steps-out.fifo", "told", "ticks"];
/// Where the dead letters lie.
const DEAD: [&str; 4] = ["dead", "dead.fifo", "dead-letters", "dead-letters.fifo"];

/// Splitmix64: which moments, not how hard they are to guess.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let given = std::env::var("DUNLIN_CRASH_SEED").ok();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = given.map_or_else(
            || u64::from(now.expect("it is after 1970").subsec_nanos()),
            |given| given.parse().expect("DUNLIN_CRASH_SEED is a number"),
        );
        println!("crashes: DUNLIN_CRASH_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit
    }
}

fn rounds() -> u32 {
    std::env::var("DUNLIN_CRASH_ROUNDS").map_or(ROUNDS, |given| {
        given.parse().expect("DUNLIN_CRASH_ROUNDS is a number")
    })
}

fn started(state: &std::path::Path, manifest: &str) -> Host {
    box_with(manifest)
        .args(["--insecure-admin", "--state"])
        .args([state.join("state").to_str().expect("a path of ours")])
        .start()
}

/// A queue's messages: all, and those of them that were received.
fn depth(client: &Client, queue: &str) -> Option<(u64, u64)> {
    let all = own_operation(client, "ListQueueDepths", &json!({}))?;
    let mut all = all["Queues"].as_array()?.iter();
    let depth = all.find(|it| it["Name"] == queue)?;
    let count = |name: &str| depth[name].as_u64();
    let in_flight = count("InFlight")?;
    Some((count("Waiting")? + in_flight + count("Delayed")?, in_flight))
}

/// Messages in the host at each kill.
#[derive(Default)]
struct Kills {
    crowds: Vec<(u64, u64)>,
}

impl Kills {
    /// The fewest messages of a kill, and the most that were received at one.
    fn summary(&self) -> String {
        let mut received: Vec<u64> = self.crowds.iter().map(|(_, received)| *received).collect();
        received.sort_unstable();
        let fewest = self.crowds.iter().map(|(all, _)| *all).min();
        format!(
            "{} kills, each with {} messages or more in one queue, of which functions held {} \
             (median; most {})",
            self.crowds.len(),
            fewest.unwrap_or(0),
            received.get(received.len() / 2).unwrap_or(&0),
            received.last().unwrap_or(&0),
        )
    }
}

#[test]
fn what_was_acknowledged_is_handled_whenever_the_host_is_killed() {
    let state = tempfile::tempdir().unwrap();
    let rounds = rounds();
    let mut random = Random::seeded();
    let fires = rounds.min(MOST_FIRES);
    let ledger = Ledger::default();
    let producers = Producers::default();
    let mut kills = Kills::default();

    let host = started(state.path(), MANIFEST);
    producers.fill(&host.admin, &ledger);
    drop(host);
    // Now that all is built and compiled: a host comes up in less time than the first fire.
    let mut manifest = MANIFEST.to_owned();
    for fire in 0..fires {
        let when = at(5 + FIRES_EVERY * i64::from(fire));
        manifest += &format!(
            "[[function.worker.schedule]]\nname = \"f{fire}\"\nwhen = \"{when}\"\n\
             payload = \"sleep 50; forward ticks\"\n"
        );
    }
    let begun = Instant::now();
    for round in 1..=rounds {
        ledger.begin(round);
        let mut host = started(state.path(), &manifest);
        let (client, ended) = (&host.admin, AtomicBool::new(false));
        std::thread::scope(|scope| {
            producers.run(scope, client, &ledger, &ended);
            for queue in RESULTS {
                let (ledger, ended) = (&ledger, &ended);
                scope.spawn(move || ledger.take_all(client, queue, ended));
            }
            std::thread::sleep(Duration::from_millis(300 + random.below(1300)));
            // At work long enough, functions are done with more than comes in.
            let crowd = within(PATIENCE, "a thousand messages are in flight", || {
                depth(client, "crowd").filter(|(all, _)| *all >= ENOUGH)
            });
            std::thread::sleep(Duration::from_millis(random.below(30)));
            host.signal(Signal::KILL);
            ended.store(true, Ordering::SeqCst);
            kills.crowds.push(crowd);
        });
        host.wait_for_exit(PATIENCE);
        ledger.note_lines(&host);
    }

    ledger.begin(rounds + 1);
    // Those that come later are not waited for.
    let due = begun.elapsed().as_secs().cast_signed();
    let host = started(state.path(), &manifest);
    let (client, ended) = (&host.admin, AtomicBool::new(false));
    std::thread::scope(|scope| {
        for queue in RESULTS {
            let (ledger, ended) = (&ledger, &ended);
            scope.spawn(move || ledger.take_all(client, queue, ended));
        }
        // Whatever becomes of it, those that take are told to end.
        let drained = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            within(2 * PATIENCE, "the queues are drained", || {
                let mut queues = SOURCES.iter().chain(&RESULTS);
                queues
                    .all(|queue| depth(client, queue).is_some_and(|(all, _)| all == 0))
                    .then_some(())
            });
        }));
        ended.store(true, Ordering::SeqCst);
        if let Err(panic) = drained {
            std::panic::resume_unwind(panic);
        }
    });
    for queue in DEAD.into_iter().chain(["idle"]) {
        ledger.take_once(client, queue);
    }
    ledger.note_lines(&host);
    host.stop();

    let fires = (0..fires).filter(|fire| 5 + FIRES_EVERY * i64::from(*fire) < due);
    let summary = ledger.check(rounds, fires.count());
    println!("crashes: {} in {:?}", kills.summary(), begun.elapsed());
    println!("crashes: {summary}");
}
