//! AWS's `cron(…)`: the examples of its guides, and each letter. 2026-01-01 is a Thursday.

use super::super::Zone;
use super::{check, check_utc, parse};

#[test]
fn the_examples_of_awss_guides() {
    for (text, expected) in [
        (
            "cron(0 10 * * ? *)",
            ["2026-01-01T10:00", "2026-01-02T10:00"],
        ),
        (
            "cron(15 12 * * ? *)",
            ["2026-01-01T12:15", "2026-01-02T12:15"],
        ),
        (
            "cron(0 18 ? * MON-FRI *)",
            ["2026-01-01T18:00", "2026-01-02T18:00"],
        ),
        (
            "cron(0 8 1 * ? *)",
            ["2026-01-01T08:00", "2026-02-01T08:00"],
        ),
        (
            "cron(0/15 * * * ? *)",
            ["2026-01-01T00:00", "2026-01-01T00:15"],
        ),
        (
            "cron(0/10 * ? * MON-FRI *)",
            ["2026-01-01T00:00", "2026-01-01T00:10"],
        ),
        (
            "cron(0/5 8-17 ? * MON-FRI *)",
            ["2026-01-01T08:00", "2026-01-01T08:05"],
        ),
        (
            "cron(1/10 * * * ? *)",
            ["2026-01-01T00:01", "2026-01-01T00:11"],
        ),
        (
            "cron(0 9 ? * 2#1 *)",
            ["2026-01-05T09:00", "2026-02-02T09:00"],
        ),
        (
            "cron(15 10 ? * 6L 2026-2027)",
            ["2026-01-30T10:15", "2026-02-27T10:15"],
        ),
        (
            "cron(0 12 3W * ? *)",
            ["2026-01-02T12:00", "2026-02-03T12:00"],
        ),
        (
            "cron(0 21 LW * ? *)",
            ["2026-01-30T21:00", "2026-02-27T21:00"],
        ),
    ] {
        check_utc(text, &expected);
    }
    // From Monday's first hours over the evening to the next day's.
    check(
        "cron(0/30 20-2 ? * MON-FRI *)",
        &Zone::utc(),
        "2026-01-04T12:00Z",
        &[
            "2026-01-05T00:00+00:00",
            "2026-01-05T00:30+00:00",
            "2026-01-05T01:00+00:00",
            "2026-01-05T01:30+00:00",
            "2026-01-05T02:00+00:00",
            "2026-01-05T02:30+00:00",
            "2026-01-05T20:00+00:00",
        ],
    );
}

#[test]
fn the_last_day_of_a_month() {
    check_utc(
        "cron(0 0 L * ? *)",
        &[
            "2026-01-31T00:00",
            "2026-02-28T00:00",
            "2026-03-31T00:00",
            "2026-04-30T00:00",
        ],
    );
    check_utc(
        "cron(0 0 L 2 ? *)",
        &["2026-02-28T00:00", "2027-02-28T00:00", "2028-02-29T00:00"],
    );
    // In lists, each by itself. January's last day is a Saturday.
    check_utc(
        "cron(0 0 15,L,LW * ? *)",
        &[
            "2026-01-15T00:00",
            "2026-01-30T00:00",
            "2026-01-31T00:00",
            "2026-02-15T00:00",
        ],
    );
}

#[test]
fn the_last_weekday_of_a_month() {
    let thursdays = [
        "2026-01-29T00:00",
        "2026-02-26T00:00",
        "2026-03-26T00:00",
        "2026-04-30T00:00",
    ];
    for text in [
        "cron(0 0 ? * 5L *)",
        "cron(0 0 ? * THUL *)",
        "cron(0 0 ? * thul *)",
    ] {
        check_utc(text, &thursdays);
    }
    // Alone it is Saturday.
    check_utc(
        "cron(0 0 ? * L *)",
        &["2026-01-03T00:00", "2026-01-10T00:00", "2026-01-17T00:00"],
    );
}

#[test]
fn the_nearest_workday_stays_in_its_month() {
    // A Thursday, a Sunday, a Sunday, a Wednesday.
    check_utc(
        "cron(0 0 15W * ? *)",
        &[
            "2026-01-15T00:00",
            "2026-02-16T00:00",
            "2026-03-16T00:00",
            "2026-04-15T00:00",
        ],
    );
    // A Saturday goes back to Friday.
    check_utc(
        "cron(0 0 15W 8 ? *)",
        &["2026-08-14T00:00", "2027-08-16T00:00"],
    );
    // The 1st: a Sunday, a Sunday, a Wednesday; in August a Saturday, which goes on to Monday.
    check_utc(
        "cron(0 0 1W 2-4 ? *)",
        &["2026-02-02T00:00", "2026-03-02T00:00", "2026-04-01T00:00"],
    );
    check_utc(
        "cron(0 0 1W 8 ? *)",
        &["2026-08-03T00:00", "2027-08-02T00:00"],
    );
    // The 31st: a Saturday; no 31st in February; in May a Sunday, which goes back to Friday.
    check_utc(
        "cron(0 0 31W 1-5 ? *)",
        &["2026-01-30T00:00", "2026-03-31T00:00", "2026-05-29T00:00"],
    );
}

#[test]
fn the_nth_weekday_of_a_month() {
    for text in ["cron(0 0 ? * 3#2 *)", "cron(0 0 ? * TUE#2 *)"] {
        check_utc(
            text,
            &["2026-01-13T00:00", "2026-02-10T00:00", "2026-03-10T00:00"],
        );
    }
    // Few months have a fifth.
    check_utc(
        "cron(0 0 ? * 5#5 *)",
        &["2026-01-29T00:00", "2026-04-30T00:00", "2026-07-30T00:00"],
    );
    // February has one in leap years only, and a fifth Tuesday once in 28.
    check_utc(
        "cron(0 0 ? 2 3#5 *)",
        &["2028-02-29T00:00", "2056-02-29T00:00"],
    );
}

#[test]
fn weekdays_count_from_sunday_as_1() {
    for (day, name, first) in [
        (1, "SUN", "2026-01-04T00:00"),
        (2, "MON", "2026-01-05T00:00"),
        (3, "TUE", "2026-01-06T00:00"),
        (4, "WED", "2026-01-07T00:00"),
        (5, "THU", "2026-01-01T00:00"),
        (6, "FRI", "2026-01-02T00:00"),
        (7, "SAT", "2026-01-03T00:00"),
    ] {
        check_utc(&format!("cron(0 0 ? * {day} *)"), &[first]);
        check_utc(&format!("cron(0 0 ? * {name} *)"), &[first]);
    }
    // Ranges go on past the week's end, and the year's.
    check_utc(
        "cron(0 0 ? * FRI-MON *)",
        &[
            "2026-01-02T00:00",
            "2026-01-03T00:00",
            "2026-01-04T00:00",
            "2026-01-05T00:00",
            "2026-01-09T00:00",
        ],
    );
    check_utc(
        "cron(0 0 1 nov-Feb/2 ? *)",
        &["2026-01-01T00:00", "2026-11-01T00:00", "2027-01-01T00:00"],
    );
    check_utc(
        "cron(0 0 ? * 2/2 *)",
        &["2026-01-02T00:00", "2026-01-05T00:00", "2026-01-07T00:00"],
    );
}

#[test]
fn years() {
    check_utc(
        "cron(0 0 1 1 ? 2031,2030)",
        &["2030-01-01T00:00", "2031-01-01T00:00"],
    );
    check_utc(
        "cron(0 0 1 1 ? 2025/3)",
        &["2028-01-01T00:00", "2031-01-01T00:00"],
    );
    check_utc("cron(59 23 31 12 ? 2199)", &["2199-12-31T23:59"]);
    let utc = Zone::utc();
    let now = 1_767_225_600_000;
    // In the past alone: no error, and no fire.
    let past = parse("cron(0 12 * * ? 2020-2021)", &utc);
    assert_eq!(past.next(now, 0), None);
    assert_eq!(past.previous(now, 0), Some(1_640_952_000_000));
    for text in ["cron(0 0 1 1 ? 2030)", "cron(0/5 * 1 1 ? 2030)"] {
        let future = parse(text, &utc);
        assert_eq!(future.previous(now, 0), None);
        assert_eq!(future.next(now, 0), Some(1_893_456_000_000));
    }
}

#[test]
fn the_leap_day_skips_2100() {
    check(
        "cron(0 0 29 2 ? *)",
        &Zone::utc(),
        "2096-01-01T00:00Z",
        &["2096-02-29T00:00+00:00", "2104-02-29T00:00+00:00"],
    );
}

#[test]
fn the_first_and_last_of_all_fires_and_beyond() {
    for name in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        let zone = super::zone(name);
        for text in [
            "cron(0 0 1 1 ? *)",
            "cron(* * * * ? *)",
            "* * * * *",
            "59 23 * * *",
        ] {
            let expression = parse(text, &zone);
            let first = expression.next(i64::MIN, 0).unwrap();
            assert!(
                super::shown(first, &zone).starts_with("1970-01-01"),
                "{text}"
            );
            assert_eq!(expression.previous(first, 0), Some(first));
            assert_eq!(expression.previous(first - 1, 0), None);
            let last = expression.previous(i64::MAX, 0).unwrap();
            assert!(super::shown(last, &zone).starts_with("2199-"), "{text}");
            assert_eq!(expression.next(last - 1, 0), Some(last));
            assert_eq!(expression.next(last, 0), None);
            assert_eq!(expression.next(i64::MAX, 0), None);
            assert_eq!(expression.previous(i64::MIN, 0), None);
        }
    }
}
