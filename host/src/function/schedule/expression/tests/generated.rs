//! Generated expressions, against a plain walk from minute to minute.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::DateTime;
use proptest::prelude::*;

use super::super::Zone;
use super::{moment, parse, shown, zone};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Five fields: their texts, and for each the values that it stands for.
#[derive(Clone, Debug)]
struct Fields {
    texts: [String; 5],
    values: [Vec<i16>; 5],
}

impl Fields {
    fn text(&self) -> String {
        self.texts.join(" ")
    }

    fn interval(&self) -> bool {
        self.texts[..2].iter().any(|text| text.contains(['*', '/']))
    }

    /// Vixie's rule, from its own texts.
    fn matches(&self, local: DateTime) -> bool {
        let has = |field: usize, value: i8| self.values[field].contains(&value.into());
        let day = has(2, local.day());
        let weekday = local.weekday().to_sunday_zero_offset();
        let weekday = has(4, weekday) || (weekday == 0 && has(4, 7));
        let days = if self.texts[2].starts_with('*') || self.texts[4].starts_with('*') {
            day && weekday
        } else {
            day || weekday
        };
        has(0, local.minute()) && has(1, local.hour()) && days && has(3, local.month())
    }
}

/// An item of a list and what it stands for.
fn item(min: i16, max: i16) -> impl Strategy<Value = (String, Vec<i16>)> {
    prop_oneof![
        (min..=max).prop_map(|value| (value.to_string(), vec![value])),
        (min..=max, min..=max, 1..=max).prop_map(|(a, b, step)| {
            let (low, high) = (a.min(b), a.max(b));
            let mut text = format!("{low}-{high}");
            if step > 1 {
                write!(text, "/{step}").unwrap();
            }
            (
                text,
                (low..=high).step_by(step.unsigned_abs().into()).collect(),
            )
        }),
        (1..=max).prop_map(move |step| {
            let values = (min..=max).step_by(step.unsigned_abs().into()).collect();
            (format!("*/{step}"), values)
        }),
    ]
}

fn field(min: i16, max: i16, star: u32) -> impl Strategy<Value = (String, Vec<i16>)> {
    let list = prop::collection::vec(item(min, max), 1..4).prop_map(|items| {
        let texts: Vec<&str> = items.iter().map(|(text, _)| text.as_str()).collect();
        let values = items
            .iter()
            .flat_map(|(_, values)| values.clone())
            .collect();
        (texts.join(","), values)
    });
    prop_oneof![
        star => Just(("*".to_owned(), (min..=max).collect())),
        4 => list,
    ]
}

fn fields() -> impl Strategy<Value = Fields> {
    let all = (
        field(0, 59, 1),
        field(0, 23, 2),
        field(1, 31, 6),
        field(1, 12, 12),
        field(0, 7, 6),
    );
    all.prop_map(|(minutes, hours, day, month, weekday)| {
        let (texts, values) = [minutes, hours, day, month, weekday]
            .into_iter()
            .unzip::<_, _, Vec<_>, Vec<_>>();
        Fields {
            texts: texts.try_into().unwrap(),
            values: values.try_into().unwrap(),
        }
    })
}

/// AWS's form, with all its letters.
fn aws() -> impl Strategy<Value = String> {
    let minutes = prop::sample::select(vec!["0", "*", "0/15", "7,37", "50-10", "59"]);
    let hours = prop::sample::select(vec!["2", "1,2,3", "*", "0/6", "20-2", "0", "23"]);
    let days = prop::sample::select(vec![
        ("?", "*"),
        ("*", "?"),
        ("L", "?"),
        ("LW", "?"),
        ("1W,15W,31W", "?"),
        ("29", "?"),
        ("1/7", "?"),
        ("?", "1"),
        ("?", "3#2"),
        ("?", "1L"),
        ("?", "6#5"),
        ("?", "L"),
        ("?", "FRI-MON"),
    ]);
    let months = prop::sample::select(vec!["*", "3", "OCT-APR", "2", "1/3"]);
    let years = prop::sample::select(vec!["*", "2024-2030", "2026/4"]);
    (minutes, hours, days, months, years).prop_map(
        |(minutes, hours, (day, weekday), month, year)| {
            format!("cron({minutes} {hours} {day} {month} {weekday} {year})")
        },
    )
}

fn local(moment: i64, zone: &Zone) -> DateTime {
    zone.rules()
        .to_datetime(Timestamp::from_millisecond(moment).unwrap())
}

/// All fires in a range by walking it. For fixed times: what a clock on the wall shows
/// now and did not show before, and at a leap of it all that it left out.
fn walk(fields: &Fields, zone: &Zone, from: i64, to: i64) -> Vec<i64> {
    let mut fires = Vec::new();
    // The furthest that the clock has shown.
    let mut shown = local(from - MINUTE, zone);
    for at in (from..to).step_by(MINUTE.unsigned_abs().try_into().unwrap()) {
        let now = local(at, zone);
        if fields.interval() {
            if fields.matches(now) {
                fires.push(at);
            }
            continue;
        }
        let mut fire = false;
        while shown < now {
            shown = super::super::local::minute_after(shown).unwrap();
            fire |= fields.matches(shown);
        }
        if fire {
            fires.push(at);
        }
    }
    fires
}

fn fires(text: &str, zone: &Zone, from: i64, to: i64) -> Vec<i64> {
    let expression = parse(text, zone);
    let next = |at: &i64| expression.next(*at, 0);
    std::iter::successors(next(&(from - 1)), next)
        .take_while(|at| *at < to)
        .collect()
}

fn fires_back(text: &str, zone: &Zone, from: i64, to: i64) -> Vec<i64> {
    let expression = parse(text, zone);
    let previous = |at: &i64| expression.previous(*at - 1, 0);
    let mut fires: Vec<i64> = std::iter::successors(previous(&to), previous)
        .take_while(|at| *at >= from)
        .collect();
    fires.reverse();
    fires
}

/// Whole days around each kind of change, and a leap day.
const RANGES: &[(&str, &str)] = &[
    ("UTC", "2028-02-27T00:00Z"),
    ("America/New_York", "2026-03-07T00:00-05:00"),
    ("America/New_York", "2026-10-31T00:00-04:00"),
    ("Europe/Berlin", "2026-03-28T00:00+01:00"),
    ("Europe/Berlin", "2026-10-24T00:00+02:00"),
    ("Australia/Lord_Howe", "2026-04-04T00:00+11:00"),
    ("Australia/Lord_Howe", "2026-10-03T00:00+10:30"),
    // At midnight.
    ("Africa/Cairo", "2026-04-22T00:00+02:00"),
    ("Africa/Cairo", "2026-10-28T00:00+03:00"),
    // Two hours.
    ("Antarctica/Troll", "2026-03-28T00:00Z"),
    ("Antarctica/Troll", "2026-10-24T00:00+02:00"),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn five_fields_fire_as_a_walk_over_the_minutes_says(
        fields in fields(),
        (name, from) in prop::sample::select(RANGES),
    ) {
        let (zone, from) = (zone(name), moment(from));
        let text = fields.text();
        // Rarely one that never fires: refused, and no business of this test.
        prop_assume!(super::super::Expression::parse(&text, &zone).is_ok());
        let expected = walk(&fields, &zone, from, from + 4 * DAY);
        prop_assert_eq!(&fires(&text, &zone, from, from + 4 * DAY), &expected, "{}", text);
        prop_assert_eq!(&fires_back(&text, &zone, from, from + 4 * DAY), &expected, "{}", text);
    }

    #[test]
    fn next_goes_forward_and_previous_stays_there(
        text in prop_oneof![
            fields().prop_map(|fields| fields.text()),
            aws(),
            (2..5000).prop_map(|n| format!("rate({n} minutes)")),
        ],
        name in prop::sample::select(vec!["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Cairo"]),
        // From 2023 to 2033.
        start in 1_672_531_200_000_i64..2_000_000_000_000,
        anchor in 1_600_000_000_000_i64..1_672_531_200_000,
    ) {
        let zone = zone(name);
        let parsed = super::super::Expression::parse(&text, &zone);
        prop_assume!(parsed.is_ok());
        let expression = parsed.unwrap();
        let mut at = start;
        let mut before = expression.previous(start, anchor);
        for _ in 0..20 {
            let Some(next) = expression.next(at, anchor) else { break };
            let say = || format!("{text} after {}", shown(at, &zone));
            prop_assert!(next > at, "{}", say());
            prop_assert_eq!(expression.previous(next, anchor), Some(next), "{}", say());
            prop_assert_eq!(expression.previous(next - 1, anchor), before, "{}", say());
            (at, before) = (next, Some(next));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(cron\\(|rate\\(|at\\(|@)?[-0-9*?/,#LWA-Z :é]{0,30}\\)?") {
        let _ = super::super::Expression::parse(&text, &Zone::utc());
    }
}

/// Far more than it takes, even without optimisation: this is about not looking through
/// the minutes of two centuries.
#[test]
fn rare_fires_are_found_quickly() {
    let zone = zone("America/New_York");
    let start = std::time::Instant::now();
    for text in [
        "cron(0 0 29 2 ? 2196)",
        "cron(* * 29 2 ? 2196)",
        "cron(0/5 1 ? 2 3#5 2180)",
    ] {
        let expression = parse(text, &zone);
        for _ in 0..10 {
            let fire = expression.next(0, 0).unwrap();
            assert_eq!(expression.previous(fire, 0), Some(fire));
        }
    }
    assert!(
        start.elapsed() < std::time::Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}
