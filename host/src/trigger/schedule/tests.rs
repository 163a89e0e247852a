use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::function::Missed;
use crate::function::schedule::{Expression, Zone};
use crate::queue::sqlite::SqliteQueues;
use crate::queue::{Delivery, Held, Owner, QueueSettings, Settlement};
use crate::telemetry::{Log, LogInvocations, Metrics};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// 2026-03-01T00:00:00Z
const START: i64 = 1_772_323_200_000;

/// A clock that a test sets.
struct Set(AtomicI64, AtomicI64);

impl Clock for Set {
    fn wall(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.1.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// What the host's log has.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A host's scheduler on the real store, which ends and starts again.
struct Host {
    folder: TempDir,
    clock: Arc<Set>,
    entries: Vec<Entry>,
    running: Option<(Scheduler, JoinHandle<()>)>,
    seen: Seen,
    log: Log,
}

fn function() -> FunctionName {
    FunctionName::new("f").unwrap()
}

fn entry(name: &str, when: &str) -> Entry {
    Entry {
        function: function(),
        schedule: Schedule {
            name: name.to_owned(),
            when: Expression::parse(when, &Zone::utc()).unwrap(),
            zone: Zone::utc(),
            payload: None,
            enabled: true,
            overlap: Overlap::Allow,
            missed: Missed::Once,
            jitter: Duration::ZERO,
        },
    }
}

impl Host {
    async fn start(entries: Vec<Entry>) -> Self {
        Self::start_at(START, entries, QueueSettings::default()).await
    }

    async fn start_at(now: i64, entries: Vec<Entry>, settings: QueueSettings) -> Self {
        let mut host = Self {
            folder: TempDir::new().unwrap(),
            clock: Arc::new(Set(AtomicI64::new(now), AtomicI64::new(0))),
            entries,
            running: None,
            seen: Seen::default(),
            log: Log::start(std::io::sink()).unwrap().0,
        };
        host.open();
        let own = vec![(queue_of(&function()), settings)];
        host.scheduler().queues.put(own, Owner::Host).await.unwrap();
        host.take_up().await;
        host
    }

    fn open(&mut self) {
        let path = self.folder.path().join("queue.db");
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let (queues, thread) = SqliteQueues::open(&path, Arc::clone(&clock)).unwrap();
        let scheduler = Scheduler {
            queues: Arc::new(queues),
            clock,
            telemetry: Telemetry {
                log: self.log.clone(),
                metrics: Arc::new(Metrics::new().unwrap()),
                log_invocations: LogInvocations::Failures,
            },
            timetable: Timetable::default(),
        };
        self.running = Some((scheduler, thread));
    }

    fn scheduler(&self) -> &Scheduler {
        &self.running.as_ref().unwrap().0
    }

    fn end(&mut self) {
        let (scheduler, thread) = self.running.take().unwrap();
        drop(scheduler);
        thread.join().unwrap();
    }

    /// What a deployment does.
    async fn take_up(&mut self) {
        let entries = self.entries.clone();
        self.scheduler().take_up(entries).await.unwrap();
        self.seen = Seen::default();
    }

    /// Ends and starts again, at the same moment.
    async fn restart(&mut self) {
        self.end();
        self.open();
        self.take_up().await;
    }

    fn now(&self) -> i64 {
        self.clock.wall()
    }

    fn set(&self, now: i64) {
        self.clock.0.store(now, Ordering::SeqCst);
    }

    fn pass(&self, time: i64) {
        self.clock.0.fetch_add(time, Ordering::SeqCst);
        self.clock.1.fetch_add(time, Ordering::SeqCst);
    }

    async fn look(&mut self) -> Duration {
        let mut seen = std::mem::take(&mut self.seen);
        let pause = self.scheduler().look(&mut seen).await;
        self.seen = seen;
        pause
    }

    async fn look_at(&mut self, now: i64) {
        self.set(now);
        self.look().await;
    }

    fn mark(&self, index: usize) -> Mark {
        self.scheduler().timetable.entries()[index].mark
    }

    async fn received(&self) -> Vec<Delivery> {
        let mut all = Vec::new();
        loop {
            let queues = &self.scheduler().queues;
            let receive = queues.receive(queue_of(&function()), 100, None, Held::Host);
            let some = receive.await.unwrap();
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    async fn settle(&self, deliveries: &[Delivery]) {
        let done = deliveries.iter().map(|d| (d.receipt, Settlement::Done));
        let settle = self.scheduler().queues.settle(done.collect(), Vec::new());
        settle.await.unwrap();
    }

    /// The fires that have come, each once.
    async fn fires(&self) -> Vec<Fire> {
        let deliveries = self.received().await;
        self.settle(&deliveries).await;
        deliveries.iter().map(fire).collect()
    }

    /// When they were scheduled, from the start, and how many were missed before each.
    async fn came(&self) -> Vec<(i64, u32)> {
        let fires = self.fires().await;
        let at = |fire: &Fire| fire.scheduled_at.cast_signed() - START;
        fires.iter().map(|fire| (at(fire), fire.missed)).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.end();
        }
    }
}

fn fire(delivery: &Delivery) -> Fire {
    Envelope::open(&delivery.message).fire.unwrap()
}

#[tokio::test]
async fn a_fire_is_an_event_of_its_function() {
    let mut with_payload = entry("daily", "0 12 * * *");
    with_payload.schedule.payload = Some("{\"a\": 1}".into());
    let mut host = Host::start(vec![entry("hourly", "0 * * * *"), with_payload]).await;
    host.look_at(START + 12 * HOUR - 1).await;
    host.fires().await;
    host.look_at(START + 12 * HOUR + 1234).await;
    let deliveries = host.received().await;
    let [hourly, daily] = &deliveries[..] else {
        panic!("{deliveries:?}");
    };
    let expected = Fire {
        schedule: "hourly".to_owned(),
        scheduled_at: (START + 12 * HOUR).unsigned_abs(),
        fired_at: (START + 12 * HOUR + 1234).unsigned_abs(),
        missed: 0,
        has_payload: false,
    };
    assert_eq!(fire(hourly), expected);
    assert!(hourly.message.body.is_empty());
    assert_eq!(fire(daily).id(), "daily@2026-03-01T12:00:00Z");
    assert!(fire(daily).has_payload);
    assert_eq!(daily.message.body, "{\"a\": 1}");
    assert_ne!(hourly.message.id, daily.message.id);
}

#[tokio::test]
async fn it_looks_again_when_something_is_due_and_every_ten_seconds() {
    let mut host = Host::start(vec![entry("s", "* * * * *")]).await;
    assert_eq!(host.look().await, LOOK);
    host.pass(MINUTE - 1500);
    assert_eq!(host.look().await, Duration::from_millis(1500));
    host.pass(1500);
    assert_eq!(host.look().await, LOOK);
    assert_eq!(host.came().await, [(MINUTE, 0)]);
    let mut idle = Host::start(Vec::new()).await;
    assert_eq!(idle.look().await, LOOK);
}

#[tokio::test]
async fn it_runs_until_it_is_stopped() {
    let mut host = Host::start(vec![entry("s", "* * * * *")]).await;
    host.pass(MINUTE - 20);
    let (scheduler, thread) = host.running.take().unwrap();
    let scheduler = Arc::new(scheduler);
    let mut arrivals = scheduler.queues.arrivals(&queue_of(&function()));
    let stop = CancellationToken::new();
    let (runs, stopped) = (Arc::clone(&scheduler), stop.clone());
    let task = tokio::spawn(async move { runs.run(stopped).await });
    host.pass(20);
    let arrived = tokio::time::timeout(Duration::from_secs(60), arrivals.changed());
    arrived.await.unwrap().unwrap();
    stop.cancel();
    task.await.unwrap();
    let scheduler = Arc::into_inner(scheduler).unwrap();
    host.running = Some((scheduler, thread));
    assert_eq!(host.came().await, [(MINUTE, 0)]);
}

#[tokio::test]
async fn a_fire_has_the_same_request_id_after_a_restart() {
    let mut host = Host::start(vec![entry("s", "0 * * * *")]).await;
    host.look_at(START + HOUR).await;
    let before = host.received().await.remove(0);
    let stood = host.mark(0);
    host.restart().await;
    assert_eq!(host.mark(0), stood);
    host.look().await;
    // Not sent again: it is the same message, which the host did not settle.
    let again = host.received().await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].message.id, before.message.id);
    assert_eq!(fire(&again[0]).id(), "s@2026-03-01T01:00:00Z");
    // Whoever computes it comes to the same id; another time or schedule to another.
    let planned = |scheduled| Planned {
        scheduled,
        kind: Kind::Fires,
        missed: 0,
    };
    let id = |name: &str, scheduled| {
        let event = entry(name, "0 * * * *").event(&planned(scheduled), 7);
        event.request_id.uuid()
    };
    assert_eq!(id("s", START + HOUR), again[0].message.id);
    assert_ne!(id("s", START + 2 * HOUR), again[0].message.id);
    assert_ne!(id("t", START + HOUR), again[0].message.id);
}

#[tokio::test]
async fn what_was_missed_while_the_host_was_down_is_counted_over_restarts() {
    let mut skipping = entry("s", "0 * * * *");
    skipping.schedule.missed = Missed::Skip;
    let mut host = Host::start(vec![skipping]).await;
    host.pass(3 * HOUR + 5 * MINUTE);
    host.restart().await;
    host.look().await;
    host.pass(3 * HOUR);
    host.restart().await;
    host.look().await;
    assert_eq!(host.came().await, []);
    assert_eq!(host.mark(0).skipped, 6);
    host.look_at(START + 7 * HOUR).await;
    host.look_at(START + 8 * HOUR).await;
    assert_eq!(host.came().await, [(7 * HOUR, 6), (8 * HOUR, 0)]);
}

#[tokio::test]
async fn with_overlap_skip_a_fire_waits_for_none_and_is_counted() {
    let mut alone = entry("s", "0 * * * *");
    alone.schedule.overlap = Overlap::Skip;
    let mut host = Host::start(vec![alone]).await;
    host.look_at(START + HOUR).await;
    let first = host.received().await;
    host.look_at(START + 2 * HOUR).await;
    // Over a restart, too.
    host.restart().await;
    host.look_at(START + 3 * HOUR).await;
    assert_eq!(host.mark(0).skipped, 2);
    let first_again = host.received().await;
    assert_eq!(first_again.len(), 1);
    assert_eq!(first_again[0].message.id, first[0].message.id);
    host.settle(&first_again).await;
    host.look_at(START + 4 * HOUR).await;
    assert_eq!(host.came().await, [(4 * HOUR, 2)]);
    host.look_at(START + 5 * HOUR).await;
    assert_eq!(host.came().await, [(5 * HOUR, 0)]);
}

/// It was: only the fire that was held counted, not those that it stood for.
#[tokio::test]
async fn a_held_fire_hands_on_what_was_missed_before_it() {
    let mut alone = entry("s", "0 * * * *");
    alone.schedule.overlap = Overlap::Skip;
    let mut host = Host::start(vec![alone]).await;
    host.look_at(START + HOUR).await;
    host.pass(4 * HOUR + 5 * MINUTE);
    host.restart().await;
    host.look().await;
    assert_eq!(host.mark(0).skipped, 4);
    host.restart().await;
    assert_eq!(host.mark(0).skipped, 4);
    assert_eq!(host.came().await, [(HOUR, 0)]);
    host.look_at(START + 6 * HOUR).await;
    assert_eq!(host.came().await, [(6 * HOUR, 4)]);
}

#[tokio::test]
async fn with_overlap_skip_a_single_one_of_those_missed_comes() {
    let mut alone = entry("s", "0 * * * *");
    alone.schedule.overlap = Overlap::Skip;
    alone.schedule.missed = Missed::UpTo(3);
    let mut host = Host::start(vec![alone]).await;
    host.look_at(START + 5 * HOUR + 5 * MINUTE).await;
    assert_eq!(host.came().await, [(3 * HOUR, 2)]);
    host.look_at(START + 6 * HOUR).await;
    assert_eq!(host.came().await, [(6 * HOUR, 2)]);
}

#[tokio::test]
async fn a_fire_waits_while_the_backlog_is_full() {
    let settings = QueueSettings {
        max_messages: 1,
        ..QueueSettings::default()
    };
    let lines = Lines::default();
    let (log, writer) = Log::start(lines.clone()).unwrap();
    let mut host = Host::start_at(START, vec![entry("s", "* * * * *")], settings).await;
    host.log = log;
    host.restart().await;
    host.look_at(START + MINUTE).await;
    host.look_at(START + 2 * MINUTE).await;
    assert_eq!(
        host.mark(0).at,
        START + MINUTE,
        "nothing was sent, nothing moved"
    );
    assert_eq!(host.look().await, PAUSE);
    for _ in 0..5 {
        host.pass(SECOND);
        host.look().await;
    }
    assert_eq!(host.came().await, [(MINUTE, 0)]);
    host.pass(SECOND);
    host.look().await;
    assert_eq!(host.came().await, [(2 * MINUTE, 0)]);
    // After a restart it is taken up where it was left.
    host.look_at(START + 3 * MINUTE).await;
    host.look_at(START + 4 * MINUTE).await;
    host.restart().await;
    assert_eq!(host.mark(0).at, START + 3 * MINUTE);
    // It waits too long: then it was missed, and the policy decides.
    host.look_at(START + 6 * MINUTE + SECOND).await;
    assert_eq!(host.came().await, [(3 * MINUTE, 0)]);
    host.pass(SECOND);
    host.look().await;
    assert_eq!(host.came().await, [(5 * MINUTE, 1)]);
    host.pass(SECOND);
    host.look().await;
    assert_eq!(host.came().await, [(6 * MINUTE, 0)]);

    drop(host);
    drop(writer);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let said = text.matches("the schedule s of f cannot fire now: the backlog of its function");
    let why = "once each time it gets stuck, and once after a restart";
    assert_eq!(said.count(), 3, "{why}:\n{text}");
}

#[tokio::test]
async fn what_cannot_be_stored_moves_no_mark() {
    let mut host = Host::start(vec![entry("s", "0 * * * *")]).await;
    let queues = Arc::clone(&host.scheduler().queues);
    queues.delete(queue_of(&function())).await.unwrap();
    drop(queues);
    host.look_at(START + HOUR).await;
    assert_eq!(host.mark(0).at, START);
    host.restart().await;
    assert_eq!(host.mark(0).at, START);
    let own = vec![(queue_of(&function()), QueueSettings::default())];
    let put = host.scheduler().queues.put(own, Owner::Host);
    put.await.unwrap();
    host.look().await;
    assert_eq!(host.came().await, [(HOUR, 0)]);
}

#[tokio::test]
async fn a_schedule_that_was_paused_begins_anew() {
    let mut host = Host::start(vec![entry("s", "rate(1 hour)")]).await;
    host.look_at(START + HOUR).await;
    host.entries[0].schedule.enabled = false;
    host.take_up().await;
    host.look_at(START + 5 * HOUR).await;
    assert_eq!(host.came().await, [(HOUR, 0)]);
    let listed = host.scheduler().timetable.list(host.now());
    assert_eq!((listed[0].last, &listed[0].next), (None, &Vec::new()));
    host.set(START + 5 * HOUR + 17 * MINUTE);
    host.entries[0].schedule.enabled = true;
    host.take_up().await;
    host.look().await;
    assert_eq!(host.came().await, [], "it was paused, not missed");
    host.look_at(START + 6 * HOUR + 17 * MINUTE).await;
    assert_eq!(host.came().await, [(6 * HOUR + 17 * MINUTE, 0)]);
}

#[tokio::test]
async fn another_expression_begins_anew_and_another_policy_goes_on() {
    let mut host = Host::start(vec![entry("s", "0 * * * *")]).await;
    host.look_at(START + HOUR).await;
    host.set(START + 3 * HOUR + 5 * MINUTE);
    host.entries[0].schedule.missed = Missed::UpTo(10);
    host.take_up().await;
    host.look().await;
    assert_eq!(host.came().await, [(HOUR, 0), (2 * HOUR, 0), (3 * HOUR, 0)]);
    host.set(START + 8 * HOUR + 5 * MINUTE);
    host.entries[0] = entry("s", "30 * * * *");
    host.take_up().await;
    host.look().await;
    assert_eq!(host.came().await, []);
    // And one that was left out meanwhile is a new one.
    let entries = std::mem::take(&mut host.entries);
    host.take_up().await;
    host.set(START + 10 * HOUR + 5 * MINUTE);
    host.entries = entries;
    host.take_up().await;
    host.look().await;
    assert_eq!(host.came().await, []);
    assert_eq!(host.mark(0).begun, START + 10 * HOUR + 5 * MINUTE);
}

#[tokio::test]
async fn a_host_that_starts_in_1970_waits_for_the_time() {
    let mut host = Host::start_at(
        5000,
        vec![entry("s", "rate(1 hour)")],
        QueueSettings::default(),
    )
    .await;
    assert_eq!(host.look().await, PAUSE);
    host.pass(10 * MINUTE);
    assert_eq!(host.look().await, PAUSE);
    host.look_at(START + 5 * MINUTE).await;
    assert_eq!(host.came().await, []);
    // It begins by the right clock, also for the next start.
    let begun = host.mark(0);
    assert_eq!(begun.begun, START + 5 * MINUTE);
    host.restart().await;
    assert_eq!(host.mark(0), begun);
    host.look_at(START + HOUR + 5 * MINUTE).await;
    assert_eq!(host.came().await, [(HOUR + 5 * MINUTE, 0)]);
}

#[tokio::test]
async fn a_host_that_ran_before_makes_up_once_its_clock_is_set() {
    let mut host = Host::start(vec![entry("s", "0 * * * *")]).await;
    host.look_at(START + HOUR).await;
    host.came().await;
    host.set(5000);
    host.restart().await;
    assert_eq!(host.look().await, PAUSE);
    host.look_at(START + 4 * HOUR + 5 * MINUTE).await;
    assert_eq!(host.came().await, [(4 * HOUR, 2)]);
}

#[tokio::test]
async fn a_clock_that_was_years_ahead_holds_up_no_schedule() {
    let mut host = Host::start_at(
        START + 40_000 * HOUR,
        vec![entry("cron", "0 * * * *"), entry("rate", "rate(1 hour)")],
        QueueSettings::default(),
    )
    .await;
    host.pass(HOUR);
    host.look().await;
    assert_eq!(host.came().await.len(), 2);
    host.look_at(START).await;
    host.look_at(START + HOUR).await;
    assert_eq!(host.came().await, [(HOUR, 0), (HOUR, 0)]);
}

#[tokio::test]
async fn a_timetable_says_what_came_and_what_comes() {
    let mut host = Host::start(vec![
        entry("hourly", "0 * * * *"),
        entry("last", "at(2026-03-01T01:00:00)"),
    ])
    .await;
    let list = |host: &Host| host.scheduler().timetable.list(host.now());
    let hours = |hours: std::ops::Range<i64>| -> Vec<i64> {
        hours.map(|hour| START + hour * HOUR).collect()
    };
    let [hourly, last] = &list(&host)[..] else {
        panic!("two");
    };
    assert_eq!(hourly.entry, host.entries[0]);
    assert_eq!((hourly.last, &hourly.next), (None, &hours(1..6)));
    assert_eq!((last.last, &last.next), (None, &hours(1..2)));
    host.look_at(START + HOUR).await;
    // Nobody looked at these.
    host.set(START + 3 * HOUR);
    let [hourly, last] = &list(&host)[..] else {
        panic!("two");
    };
    assert_eq!(
        (hourly.last, &hourly.next),
        (Some(START + HOUR), &hours(4..9))
    );
    assert_eq!((last.last, &last.next), (Some(START + HOUR), &Vec::new()));
}

/// What happens to a host.
#[derive(Clone, Debug)]
enum Operation {
    /// Time passes, and it looks.
    Pass(i64),
    /// It is down for so long.
    Outage(i64),
    /// The clock is set back, and it looks.
    SetBack(i64),
    /// It is restarted while the clock is set back.
    RestartSetBack(i64),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let short = 1..3 * MINUTE;
    let long = prop_oneof![short.clone(), 1..6 * HOUR];
    let operation = prop_oneof![
        8 => short.prop_map(Operation::Pass),
        2 => long.clone().prop_map(Operation::Pass),
        2 => long.clone().prop_map(Operation::Outage),
        1 => long.clone().prop_map(Operation::SetBack),
        1 => long.prop_map(Operation::RestartSetBack),
    ];
    prop::collection::vec(operation, 1..40)
}

fn entries() -> impl Strategy<Value = Entry> {
    let when = prop_oneof![
        Just("* * * * *"),
        Just("*/10 * * * *"),
        Just("7 * * * *"),
        Just("rate(3 minutes)"),
    ];
    let missed = prop_oneof![
        Just(Missed::Skip),
        Just(Missed::Once),
        (1_u32..20).prop_map(Missed::UpTo),
    ];
    let jitter = prop_oneof![Just(0), 1_u64..7_200_000];
    (when, missed, jitter).prop_map(|(when, missed, jitter)| {
        let mut entry = entry("s", when);
        entry.schedule.missed = missed;
        entry.schedule.jitter = Duration::from_millis(jitter);
        entry
    })
}

/// Every scheduled time is sent once or counted as missed once, whatever the clock and the
/// host do (but for a clock that is set back by more than a day).
async fn check_that_all_are_accounted_for(entry: Entry, operations: Vec<Operation>) {
    let mut host = Host::start(vec![entry.clone()]).await;
    host.look().await;
    let when = &entry.schedule.when;
    let mut latest = START;
    let mut before = START;
    for operation in operations {
        let stood = host.mark(0);
        match operation {
            Operation::Pass(time) => host.pass(time),
            Operation::Outage(time) => {
                host.pass(time);
                host.restart().await;
                assert_eq!(host.mark(0), stood, "the store knows what the host knew");
            }
            Operation::SetBack(time) => host.set((host.now() - time).max(latest - 20 * HOUR)),
            Operation::RestartSetBack(time) => {
                host.set((host.now() - time).max(latest - 20 * HOUR));
                host.restart().await;
            }
        }
        host.look().await;
        latest = latest.max(host.now());

        for fire in host.fires().await {
            let at = fire.scheduled_at.cast_signed();
            let times = std::iter::successors(when.next(before, START), |t| when.next(*t, START));
            let between = times.take_while(|time| *time < at).count();
            assert_eq!(when.previous(at, START), Some(at), "it is a scheduled time");
            assert!(at > before, "none comes twice");
            assert_eq!(
                fire.missed as usize, between,
                "what did not come is counted"
            );
            let late = fire.fired_at.cast_signed() - at - entry.jitter(at, START);
            assert!(late >= 0);
            assert!(entry.schedule.missed != Missed::Skip || late <= plan::GRACE);
            before = at;
        }
    }
    // What is counted and has not been told yet, and nothing is left that was due.
    let mark = host.mark(0);
    let times = std::iter::successors(when.next(before, START), |t| when.next(*t, START));
    let untold = times.take_while(|time| *time <= mark.at).count();
    assert_eq!(mark.skipped as usize, untold);
    let next = when.next(mark.at, START).unwrap();
    assert!(next + entry.jitter(next, START) > latest, "all was done");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_scheduled_time_is_sent_once_or_counted_once(
        entry in entries(),
        operations in operations(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check_that_all_are_accounted_for(entry, operations));
    }
}
