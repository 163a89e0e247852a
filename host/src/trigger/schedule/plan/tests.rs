use std::time::{Duration, Instant};

use super::*;
use crate::function::schedule::{Expression, Zone};
use crate::function::{FunctionName, Missed, Overlap, Schedule};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A moment, such as `2026-03-01T00:00:00Z`.
fn at(text: &str) -> i64 {
    let moment: jiff::Timestamp = text.parse().unwrap();
    moment.as_millisecond()
}

/// Midnight of a day in which no clock changes.
fn midnight() -> i64 {
    at("2026-03-01T00:00:00Z")
}

fn entry_in(zone: &str, when: &str, missed: Missed) -> Entry {
    let zone = Zone::parse(zone).unwrap();
    Entry {
        function: FunctionName::new("f").unwrap(),
        schedule: Schedule {
            name: "s".to_owned(),
            when: Expression::parse(when, &zone).unwrap(),
            zone,
            payload: None,
            enabled: true,
            overlap: Overlap::Allow,
            missed,
            jitter: Duration::ZERO,
        },
    }
}

fn entry(when: &str, missed: Missed) -> Entry {
    entry_in("UTC", when, missed)
}

fn jittered(when: &str, missed: Missed, jitter: Duration) -> Entry {
    let mut entry = entry(when, missed);
    entry.schedule.jitter = jitter;
    entry
}

fn begun(moment: i64) -> Mark {
    Mark {
        begun: moment,
        at: moment,
        skipped: 0,
    }
}

fn fires(scheduled: i64, missed: u32) -> Planned {
    Planned {
        scheduled,
        kind: Kind::Fires,
        missed,
    }
}

fn skips(scheduled: i64, missed: u32) -> Planned {
    Planned {
        scheduled,
        kind: Kind::Skips,
        missed,
    }
}

fn begins(scheduled: i64) -> Planned {
    Planned {
        scheduled,
        kind: Kind::Begins,
        missed: 0,
    }
}

/// What is done at a moment, and where the mark stands then.
fn done(entry: &Entry, mark: &mut Mark, now: i64) -> Vec<Planned> {
    let steps = plan(entry, *mark, now).steps;
    for step in &steps {
        mark.at = step.scheduled;
        if step.kind == Kind::Begins {
            *mark = begun(step.scheduled);
        }
    }
    steps
}

#[test]
fn a_fire_comes_when_the_clock_has_reached_its_time_and_once() {
    let entry = entry("* * * * *", Missed::Skip);
    let mut mark = begun(midnight());
    assert_eq!(
        next_look(&entry, mark, midnight()),
        Some(midnight() + MINUTE)
    );
    assert_eq!(done(&entry, &mut mark, midnight() + MINUTE - 1), []);
    let now = midnight() + MINUTE;
    assert_eq!(done(&entry, &mut mark, now), [fires(now, 0)]);
    assert_eq!(done(&entry, &mut mark, now), []);
    assert_eq!(done(&entry, &mut mark, now + MINUTE - 1), []);
    assert_eq!(next_look(&entry, mark, now), Some(now + MINUTE));
}

#[test]
fn a_minute_late_is_in_time_and_a_millisecond_more_is_not() {
    let entry = entry("0 * * * *", Missed::Skip);
    let fire = midnight() + HOUR;
    let plan_at = |now| plan(&entry, begun(midnight()), now).steps;
    assert_eq!(plan_at(fire + GRACE), [fires(fire, 0)]);
    assert_eq!(plan_at(fire + GRACE + 1), [skips(fire, 1)]);
}

#[test]
fn fires_that_were_missed_come_as_the_policy_says_and_the_others_are_counted() {
    let hour = |hour: i64| midnight() + hour * HOUR;
    let now = hour(5) + 30 * MINUTE;
    for (missed, expected) in [
        (Missed::Skip, vec![skips(hour(5), 5)]),
        (Missed::Once, vec![fires(hour(5), 4)]),
        (Missed::UpTo(1), vec![fires(hour(5), 4)]),
        (
            Missed::UpTo(3),
            vec![fires(hour(3), 2), fires(hour(4), 0), fires(hour(5), 0)],
        ),
        (
            Missed::UpTo(5),
            (1..=5).map(|each| fires(hour(each), 0)).collect(),
        ),
        (
            Missed::UpTo(1000),
            (1..=5).map(|each| fires(hour(each), 0)).collect(),
        ),
    ] {
        let entry = entry("0 * * * *", missed);
        let mut mark = begun(midnight());
        assert_eq!(done(&entry, &mut mark, now), expected, "{missed:?}");
        assert_eq!(mark.at, hour(5), "{missed:?}");
        assert_eq!(done(&entry, &mut mark, now), [], "{missed:?}");
        let next = done(&entry, &mut mark, hour(6));
        assert_eq!(next, [fires(hour(6), 0)], "{missed:?}");
    }
}

#[test]
fn a_fire_that_is_due_now_comes_beside_those_that_were_missed() {
    let hour = |hour: i64| midnight() + hour * HOUR;
    let now = hour(3) + 30 * SECOND;
    for (missed, expected) in [
        (Missed::Skip, vec![skips(hour(2), 2), fires(hour(3), 0)]),
        (Missed::Once, vec![fires(hour(2), 1), fires(hour(3), 0)]),
    ] {
        let entry = entry("0 * * * *", missed);
        assert_eq!(
            plan(&entry, begun(midnight()), now).steps,
            expected,
            "{missed:?}"
        );
    }
}

#[test]
fn a_single_time_that_was_missed_comes_unless_it_is_to_be_skipped() {
    let moment = at("2026-03-01T12:00:00Z");
    for (missed, expected) in [
        (Missed::Skip, skips(moment, 1)),
        (Missed::Once, fires(moment, 0)),
        (Missed::UpTo(7), fires(moment, 0)),
    ] {
        let entry = entry("at(2026-03-01T12:00:00)", missed);
        let mut mark = begun(midnight());
        assert_eq!(next_look(&entry, mark, midnight()), Some(moment));
        let now = midnight() + 3 * DAY;
        assert_eq!(done(&entry, &mut mark, now), [expected], "{missed:?}");
        assert_eq!(next_look(&entry, mark, now), None, "{missed:?}");
        assert_eq!(done(&entry, &mut mark, now), [], "{missed:?}");
    }
}

#[test]
fn a_single_time_before_the_schedule_was_there_never_comes() {
    let entry = entry("at(2026-02-01T12:00:00)", Missed::Once);
    let mark = begun(midnight());
    assert_eq!(next_look(&entry, mark, midnight()), None);
    assert_eq!(plan(&entry, mark, midnight() + DAY), Plan::default());
}

#[test]
fn a_schedule_that_fired_for_the_last_time_does_nothing_more() {
    let entry = entry("cron(0 12 1 3 ? 2026)", Missed::Once);
    let mut mark = begun(midnight());
    let last = midnight() + 12 * HOUR;
    assert_eq!(done(&entry, &mut mark, last), [fires(last, 0)]);
    for now in [last, last + DAY, last + 365 * DAY] {
        assert_eq!(next_look(&entry, mark, now), None);
        assert_eq!(done(&entry, &mut mark, now), []);
    }
}

#[test]
fn a_rate_counts_from_when_the_schedule_began() {
    let entry = entry("rate(7 minutes)", Missed::Once);
    let start = midnight() + 12_345;
    let mut mark = begun(start);
    let mut now = start;
    for count in 1..=5 {
        let next = next_look(&entry, mark, now).unwrap();
        assert_eq!(next, start + count * 7 * MINUTE);
        now = next;
        assert_eq!(done(&entry, &mut mark, now), [fires(now, 0)]);
    }
    // It keeps its beat over an outage.
    now = start + 20 * 7 * MINUTE + 2 * MINUTE;
    let last = start + 20 * 7 * MINUTE;
    assert_eq!(done(&entry, &mut mark, now), [fires(last, 14)]);
}

#[test]
fn the_same_fire_has_the_same_jitter_and_others_have_others() {
    let hourly = jittered("0 * * * *", Missed::Skip, Duration::from_mins(10));
    let jitters = || -> Vec<i64> {
        let fires = (0..100).map(|hour| midnight() + hour * HOUR);
        fires.map(|fire| hourly.jitter(fire, midnight())).collect()
    };
    let (jitters, again) = (jitters(), jitters());
    assert_eq!(jitters, again);
    let allowed = 0..10 * MINUTE;
    assert!(jitters.iter().all(|jitter| allowed.contains(jitter)));
    // They are spread, not all at one end.
    for part in 0..5 {
        let within = part * 2 * MINUTE..(part + 1) * 2 * MINUTE;
        let count = jitters.iter().filter(|jitter| within.contains(jitter));
        assert!(count.count() > 5, "{jitters:?}");
    }
    let mut other = hourly.clone();
    other.schedule.name = "t".to_owned();
    assert_ne!(
        other.jitter(midnight(), midnight()),
        hourly.jitter(midnight(), midnight())
    );
}

#[test]
fn a_fire_waits_for_its_jitter_and_is_late_only_after_it() {
    let hourly = jittered("0 * * * *", Missed::Skip, Duration::from_mins(30));
    let fire = midnight() + HOUR;
    let comes = fire + hourly.jitter(fire, midnight());
    let mark = begun(midnight());
    assert_eq!(next_look(&hourly, mark, midnight()), Some(comes));
    assert_eq!(plan(&hourly, mark, comes - 1).steps, []);
    assert_eq!(plan(&hourly, mark, comes).steps, [fires(fire, 0)]);
    assert_eq!(plan(&hourly, mark, comes + GRACE).steps, [fires(fire, 0)]);
    assert_eq!(
        plan(&hourly, mark, comes + GRACE + 1).steps,
        [skips(fire, 1)]
    );
}

/// It was: later fires overtook earlier ones, which then counted as missed.
#[test]
fn jitter_longer_than_the_period_loses_no_fire_and_changes_no_order() {
    for when in ["* * * * *", "rate(2 minutes)"] {
        let entry = jittered(when, Missed::Skip, Duration::from_hours(1));
        let mut mark = begun(midnight());
        let mut expected = midnight();
        for _ in 0..500 {
            let now = next_look(&entry, mark, expected).unwrap();
            expected = entry.schedule.when.next(expected, midnight()).unwrap();
            assert_eq!(done(&entry, &mut mark, now), [fires(expected, 0)]);
        }
    }
}

#[test]
fn nothing_is_sent_twice_when_the_clock_is_set_back_by_up_to_a_day() {
    let entry = entry("0 * * * *", Missed::Once);
    let stood = midnight() + 40 * HOUR;
    let mark = begun(stood);
    for back in [1, HOUR, 5 * HOUR, SET_BACK] {
        let mut now = stood - back;
        assert_eq!(next_look(&entry, mark, now), Some(stood + HOUR));
        while now <= stood {
            assert_eq!(plan(&entry, mark, now), Plan::default(), "{back}");
            now += 10 * MINUTE;
        }
    }
    let next = plan(&entry, mark, stood + HOUR).steps;
    assert_eq!(next, [fires(stood + HOUR, 0)]);
}

#[test]
fn a_clock_that_is_set_back_by_more_than_a_day_was_wrong_before() {
    let stood = midnight() + 40 * DAY;
    let now = stood - SET_BACK - 1;
    for missed in [Missed::Skip, Missed::Once, Missed::UpTo(1000)] {
        let entry = entry("0 * * * *", missed);
        let mut mark = begun(stood);
        assert_eq!(next_look(&entry, mark, now), Some(now));
        assert_eq!(done(&entry, &mut mark, now), [begins(now)]);
        let next = now + HOUR - now.rem_euclid(HOUR);
        assert_eq!(next_look(&entry, mark, now), Some(next));
        assert_eq!(done(&entry, &mut mark, next), [fires(next, 0)]);
    }
}

/// It was: a rate waited until the wrong time at which it had begun.
#[test]
fn a_rate_that_began_by_a_wrong_clock_begins_anew() {
    let entry = entry("rate(1 hour)", Missed::Once);
    for wrong in [at("2031-05-05T05:05:05Z"), 12_345] {
        let mut mark = begun(wrong);
        let now = midnight();
        assert_eq!(done(&entry, &mut mark, now), [begins(now)]);
        assert_eq!(next_look(&entry, mark, now), Some(now + HOUR), "{wrong}");
    }
}

#[test]
fn what_was_due_while_the_clock_was_in_1970_is_not_made_up_for() {
    let entry = entry("* * * * *", Missed::UpTo(1000));
    for there in [0, DAY, at("2025-12-31T23:59:59.999Z")] {
        assert!(!is_sane(there));
        let mut mark = begun(there);
        let now = midnight() + 5 * SECOND;
        assert_eq!(next_look(&entry, mark, now), Some(now));
        assert_eq!(done(&entry, &mut mark, now), [begins(now)]);
        let next = midnight() + MINUTE;
        assert_eq!(done(&entry, &mut mark, next), [fires(next, 0)]);
    }
    assert!(is_sane(at("2026-01-01T00:00:00Z")));
}

#[test]
fn a_start_in_1970_forgets_nothing_that_was_reached_by_a_right_clock() {
    let entry = entry("0 * * * *", Missed::Once);
    let mut mark = begun(midnight());
    // As far as it looked while the clock was wrong, it had to look at once.
    assert_eq!(next_look(&entry, mark, 5000), Some(5000));
    let now = midnight() + 3 * HOUR + 5 * MINUTE;
    let last = midnight() + 3 * HOUR;
    assert_eq!(done(&entry, &mut mark, now), [fires(last, 2)]);
}

#[test]
fn half_a_century_of_minutes_is_planned_at_once() {
    let now = midnight() + 56 * 365 * DAY;
    for when in ["* * * * *", "rate(1 minute)", "cron(0/1 * * * ? *)"] {
        for missed in [Missed::Skip, Missed::Once, Missed::UpTo(1000)] {
            let mut entry = entry_in("Europe/Berlin", when, missed);
            entry.schedule.jitter = Duration::from_hours(1);
            let begin = Instant::now();
            let plan = plan(&entry, begun(midnight()), now);
            assert!(
                begin.elapsed() < Duration::from_secs(2),
                "{when}, {missed:?}"
            );
            let first = plan.steps[0];
            assert_eq!(first.missed, MOST_COUNTED, "{when}, {missed:?}");
            // And beside those that were missed what is due now.
            let most = missed.most().max(1);
            let count = plan.steps.len();
            assert!((most..most + 4).contains(&count), "{when}, {missed:?}");
        }
    }
}

#[test]
fn a_local_time_that_is_left_out_or_repeated_fires_once() {
    let entry = entry_in("Europe/Berlin", "30 2 * * *", Missed::UpTo(10));
    for (day, expected) in [
        // Clocks go from 2:00 to 3:00: at the first moment after.
        ("2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
        // Clocks go from 3:00 back to 2:00: the first half past two.
        ("2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
    ] {
        let (start, expected) = (at(day), at(expected));
        let mut mark = begun(start);
        let mut all = Vec::new();
        let mut now = start;
        while now < start + DAY {
            all.extend(done(&entry, &mut mark, now));
            now += MINUTE;
        }
        assert_eq!(all, [fires(expected, 0)]);
        // And if it was missed.
        let late = plan(&entry, begun(start), start + DAY).steps;
        assert_eq!(late, [fires(expected, 0)]);
    }
}

#[test]
fn a_day_has_as_many_hours_as_it_has() {
    let entry = entry_in("Europe/Berlin", "0 * * * *", Missed::Skip);
    for (first, last, hours) in [
        ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23),
        ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25),
    ] {
        let steps = plan(&entry, begun(at(first)), at(last) + 2 * MINUTE).steps;
        assert_eq!(steps, [skips(at(last), hours)]);
    }
}
