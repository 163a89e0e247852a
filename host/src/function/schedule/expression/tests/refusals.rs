//! What is refused, and which field is to blame.

use super::super::{Expression, Zone};

#[track_caller]
fn refused(text: &str) -> super::super::InvalidExpression {
    match Expression::parse(text, &Zone::utc()) {
        Ok(_) => panic!("{text} is taken"),
        Err(error) => error,
    }
}

#[test]
fn the_field_and_its_value_are_named() {
    for (text, field, value) in [
        ("cron(60 0 * * ? *)", "minutes", "60"),
        ("cron(0 25 * * ? *)", "hours", "25"),
        ("cron(0 0 32 * ? *)", "day-of-month", "32"),
        ("cron(0 0 0 * ? *)", "day-of-month", "0"),
        ("cron(0 0 * 13 ? *)", "month", "13"),
        ("cron(0 0 * JUNE ? *)", "month", "JUNE"),
        ("cron(0 0 ? * 0 *)", "day-of-week", "0"),
        ("cron(0 0 ? * 8 *)", "day-of-week", "8"),
        ("cron(0 0 ? * 8L *)", "day-of-week", "8"),
        ("cron(0 0 ? * 3#6 *)", "day-of-week", "3#6"),
        ("cron(0 0 ? * 3#0 *)", "day-of-week", "3#0"),
        ("cron(0 0 ? * 3#1,6#3 *)", "day-of-week", "3#1,6#3"),
        ("cron(0 0 ? * 15W *)", "day-of-week", "15W"),
        ("cron(0 0 32W * ? *)", "day-of-month", "32"),
        ("cron(0 0 3#2 * ? *)", "day-of-month", "3#2"),
        ("cron(0 0 5L * ? *)", "day-of-month", "5L"),
        ("cron(0 0 L-3 * ? *)", "day-of-month", "L"),
        ("cron(0 0 * * ? 1969)", "year", "1969"),
        ("cron(0 0 * * ? 2200)", "year", "2200"),
        ("cron(0 0 * * ? 2030-2029)", "year", "2030-2029"),
        ("cron(? 0 * * ? *)", "minutes", "?"),
        ("cron(0 L * * ? *)", "hours", "L"),
        ("cron(0/0 0 * * ? *)", "minutes", "0/0"),
        ("cron(0/61 0 * * ? *)", "minutes", "0/61"),
        ("cron(/5 0 * * ? *)", "minutes", ""),
        ("cron(0,,5 0 * * ? *)", "minutes", ""),
        ("cron(-5 0 * * ? *)", "minutes", ""),
        ("cron(+5 0 * * ? *)", "minutes", "+5"),
        ("cron(0 99999999 * * ? *)", "hours", "99999999"),
        // One of the two is to be `?`.
        ("cron(0 0 * * * *)", "day-of-month", "*"),
        ("cron(0 0 * * MON *)", "day-of-month", "*"),
        ("cron(0 0 1 * * *)", "day-of-week", "*"),
        ("cron(0 0 1 * MON *)", "day-of-week", "MON"),
        ("cron(0 0 ? * ? *)", "day-of-month", "?"),
        // Never.
        ("cron(0 0 30 2 ? *)", "day-of-month", "30"),
        ("cron(0 0 31 4 ? *)", "day-of-month", "31"),
        ("cron(0 0 31 2,4,6,9,11 ? *)", "day-of-month", "31"),
        ("cron(0 0 30W 2 ? *)", "day-of-month", "30W"),
        ("cron(0 0 29 2 ? 2027)", "year", "2027"),
        ("cron(0 0 ? 2 3#5 2030)", "year", "2030"),
        ("0 0 31 4 *", "day-of-month", "31"),
        // Five fields.
        ("60 * * * *", "minutes", "60"),
        ("* 24 * * *", "hours", "24"),
        ("* * * * 8", "day-of-week", "8"),
        ("5/15 * * * *", "minutes", "5/15"),
        ("0 22-4 * * *", "hours", "22-4"),
        ("0 0 * * FRI-SUN", "day-of-week", "FRI-SUN"),
        ("*/90 * * * *", "minutes", "*/90"),
        ("1-2-3 * * * *", "minutes", "2-3"),
        ("0 0 L * *", "day-of-month", "L"),
        ("0 0 ? * 1", "day-of-month", "?"),
        ("0 0 * * 3#2", "day-of-week", "3#2"),
        ("0 0 * * WEDL", "day-of-week", "WEDL"),
        // The others.
        ("rate(0 minutes)", "value", "0"),
        ("rate(-1 minutes)", "value", "-1"),
        ("rate(1.5 hours)", "value", "1.5"),
        (
            "rate(99999999999999999999 days)",
            "value",
            "99999999999999999999",
        ),
        ("rate(36526 days)", "value", "36526"),
        ("rate(1 minutes)", "unit", "minutes"),
        ("rate(5 minute)", "unit", "minute"),
        ("rate(5 seconds)", "unit", "seconds"),
        ("at(1969-12-31T23:59:59)", "year", "1969"),
        ("at(2026-02-30T00:00:00)", "date", "2026-02-30"),
        ("at(2026-02-01T24:00:00)", "time", "24:00:00"),
    ] {
        let error = refused(text);
        assert_eq!(
            (error.field, error.value.as_str()),
            (Some(field), value),
            "{text}: {error}"
        );
    }
}

#[test]
fn what_is_no_schedule_at_all() {
    let long = format!("{}0 0 * * *", "0,".repeat(200));
    for text in [
        "",
        "   ",
        "hello",
        "@reboot",
        "@every 5m",
        "* * * *",
        "0 12 * * ? *",
        "cron(0 12 * * ?)",
        "cron(*/5 * * * *)",
        "cron(0 12 * * ? *",
        "cron()",
        "rate()",
        "rate(5)",
        "rate(5minutes)",
        "rate(5 minutes more)",
        "at(2026-11-20)",
        "at(2026-11-20 13:00:00)",
        "at(2026-11-20T13:00)",
        "at(2026-11-20T13:00:00Z)",
        "at(26-11-20T13:00:00)",
        "at(2026-1é-20T13:00:00)",
        &long,
    ] {
        let error = refused(text);
        assert_eq!(error.field, None, "{text}: {error}");
        assert!(!error.what.is_empty() && !error.remedy.is_empty());
        assert!(error.value.chars().count() <= 65, "{text}");
    }
}

#[test]
fn an_error_says_it_all() {
    for (text, message) in [
        (
            "cron(0 25 * * ? *)",
            "`25` in the field hours is not between 0 and 23: use 0 to 23, `*`, lists, ranges and steps",
        ),
        (
            "cron(0 9 * * MON *)",
            "`*` in the field day-of-month is given beside day-of-week `MON`: put `?` in one of the two, AWS takes only one of them",
        ),
        (
            "cron(0 0 30 2 ? *)",
            "`30` in the field day-of-month is never a day of month 2, so the schedule can never fire: choose a day that the month has, such as `L` in `cron(…)` for its last",
        ),
        (
            "rate(1 minutes)",
            "`minutes` in the field unit is the wrong number for 1: write `rate(1 minute)`",
        ),
        (
            "0 12 * * ? *",
            "`0 12 * * ? *` is of 6 fields, not 5: if it is AWS's form, write `cron(0 12 * * ? *)`",
        ),
        (
            "5/15 * * * *",
            "`5/15` in the field minutes is a step without a range: say where it ends, as `5-59/15`",
        ),
    ] {
        assert_eq!(refused(text).to_string(), message);
    }
}
