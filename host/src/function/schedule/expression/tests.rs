//! Tests of all forms, by what they are about.

mod aws;
mod changes;
mod crontab;
mod generated;
mod refusals;
mod simple;

use jiff::Timestamp;

use super::{Expression, Zone};

fn zone(name: &str) -> Zone {
    Zone::parse(name).unwrap()
}

fn parse(text: &str, zone: &Zone) -> Expression {
    Expression::parse(text, zone).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Milliseconds of a local time with its offset: `2026-03-08T03:00-04:00`.
fn moment(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

/// A moment as `moment` reads it, in a zone.
fn shown(moment: i64, zone: &Zone) -> String {
    let moment = Timestamp::from_millisecond(moment).unwrap();
    let local = moment.to_zoned(zone.rules().clone());
    local.strftime("%Y-%m-%dT%H:%M%:z").to_string()
}

/// The expression's fires strictly after `from` begin like this; and going back from the
/// last one they are the same.
#[track_caller]
fn check(text: &str, zone: &Zone, from: &str, expected: &[&str]) {
    let expression = parse(text, zone);
    let mut at = moment(from);
    let mut fires = Vec::new();
    for _ in expected {
        at = expression.next(at, 0).expect("another fire");
        fires.push(at);
    }
    let found: Vec<String> = fires.iter().map(|fire| shown(*fire, zone)).collect();
    assert_eq!(found, expected, "{text} in {}", zone.name());

    let back = |at: i64| expression.previous(at, 0).map(|fire| shown(fire, zone));
    for pair in fires.windows(2) {
        // At it, just before the next, and anywhere between.
        let [fire, next] = pair.try_into().unwrap();
        for at in [fire, fire + 1, i64::midpoint(fire, next), next - 1] {
            let at_text = shown(at, zone);
            assert_eq!(
                back(at),
                Some(shown(fire, zone)),
                "{text}, back from {at_text}"
            );
        }
    }
    if let Some(last) = fires.last() {
        assert_eq!(back(*last), Some(shown(*last, zone)), "{text}");
    }
}

/// As `check`, in UTC from the start of 2026, and without the offsets.
#[track_caller]
fn check_utc(text: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|e| format!("{e}+00:00")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(text, &Zone::utc(), "2025-12-31T23:59:59Z", &expected);
}
