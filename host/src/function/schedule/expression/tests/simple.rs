//! `rate(…)`, `at(…)`, zones, and the text itself.

use super::super::{Expression, Zone};
use super::{moment, parse, shown, zone};

#[test]
fn a_rate_counts_whole_periods_from_its_anchor() {
    let utc = Zone::utc();
    let rate = parse("rate(5 minutes)", &utc);
    let period = 300_000;
    for anchor in [0, 1_767_225_661_234, -7] {
        let (first, second) = (anchor + period, anchor + 2 * period);
        assert_eq!(rate.next(i64::MIN, anchor), Some(first));
        assert_eq!(rate.next(anchor - 1, anchor), Some(first));
        assert_eq!(rate.next(anchor, anchor), Some(first));
        assert_eq!(rate.next(first - 1, anchor), Some(first));
        assert_eq!(rate.next(first, anchor), Some(second));
        assert_eq!(rate.previous(first - 1, anchor), None);
        assert_eq!(rate.previous(anchor - 1, anchor), None);
        assert_eq!(rate.previous(first, anchor), Some(first));
        assert_eq!(rate.previous(second - 1, anchor), Some(first));
    }
    for (text, period) in [
        ("rate(1 minute)", 60_000),
        ("rate(1 hour)", 3_600_000),
        ("rate( 12  hours )", 43_200_000),
        ("rate(1 day)", 86_400_000),
        ("rate(36525 days)", 3_155_760_000_000),
    ] {
        assert_eq!(parse(text, &utc).next(0, 0), Some(period), "{text}");
    }
    // The ends of time: no fire, and no panic.
    for after in [i64::MIN, i64::MAX] {
        for anchor in [i64::MIN, i64::MAX] {
            let _ = (rate.next(after, anchor), rate.previous(after, anchor));
        }
    }
    assert_eq!(rate.next(i64::MAX, 0), None);
}

#[test]
fn a_rate_knows_no_zone() {
    let rate = parse("rate(1 day)", &zone("America/New_York"));
    let anchor = moment("2026-03-07T12:00-05:00");
    assert_eq!(
        rate.next(anchor, anchor),
        Some(moment("2026-03-08T13:00-04:00"))
    );
}

#[test]
fn at_fires_once() {
    let berlin = zone("Europe/Berlin");
    for (text, fire) in [
        ("at(2026-11-20T13:00:00)", "2026-11-20T13:00:00+01:00"),
        ("at(2026-07-20T13:00:59)", "2026-07-20T13:00:59+02:00"),
        // In the gap, at its end; in the overlap, at the first occurrence.
        ("at(2026-03-29T02:30:00)", "2026-03-29T03:00:00+02:00"),
        ("at(2026-10-25T02:30:00)", "2026-10-25T02:30:00+02:00"),
    ] {
        let at = parse(text, &berlin);
        let fire = moment(fire);
        assert_eq!(at.next(fire - 1, 0), Some(fire), "{text}");
        assert_eq!(at.next(fire, 0), None, "{text}");
        assert_eq!(at.previous(fire, 0), Some(fire), "{text}");
        assert_eq!(at.previous(fire - 1, 0), None, "{text}");
    }
}

#[test]
fn an_expression_prints_as_written() {
    let utc = Zone::utc();
    for text in [
        "  */5 *  * * *",
        "cron(0 10 * * ? *)",
        "rate(1 day)",
        "@daily",
    ] {
        assert_eq!(parse(text, &utc).to_string(), text);
    }
    assert_eq!(parse("@daily", &utc), parse("@daily", &utc));
    assert_ne!(parse("@daily", &utc), parse("@daily", &zone("Asia/Tokyo")));
    let minutes: Vec<String> = (0..60).map(|minute| minute.to_string()).collect();
    parse(&format!("{} 0 1 1 *", minutes.join(",")), &utc);
}

#[test]
fn zones_have_iana_names() {
    assert_eq!(Zone::utc().name(), "UTC");
    for name in [
        "UTC",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "Asia/Kolkata",
        "Etc/GMT-2",
    ] {
        assert_eq!(zone(name).name(), name);
    }
    assert_eq!(zone("europe/berlin"), zone("Europe/Berlin"));
    for (name, suggestion) in [
        ("Berlin", "Europe/Berlin"),
        ("new york", "America/New_York"),
        ("Europe/Tokyo", "Asia/Tokyo"),
        ("+02:00", "Europe/Berlin"),
        ("", "Europe/Berlin"),
        ("Etc/Unknown", "Europe/Berlin"),
    ] {
        let error = Zone::parse(name).unwrap_err();
        assert_eq!(
            (error.name.as_str(), error.suggestion.as_str()),
            (name, suggestion)
        );
    }
    assert_eq!(
        Zone::parse("Berlin").unwrap_err().to_string(),
        "`Berlin` is no time zone: use an IANA name such as `Europe/Berlin`"
    );
}

/// Half an hour and three quarters from UTC, and a day that an island left out.
#[test]
fn odd_zones() {
    for (name, from, expected) in [
        (
            "Asia/Kolkata",
            "2026-01-01T00:00+05:30",
            "2026-01-01T12:00+05:30",
        ),
        (
            "Asia/Kathmandu",
            "2026-01-01T00:00+05:45",
            "2026-01-01T12:00+05:45",
        ),
        (
            "Pacific/Apia",
            "2011-12-29T12:00-10:00",
            "2011-12-31T00:00+14:00",
        ),
        // Clocks went from midnight to one.
        (
            "America/Sao_Paulo",
            "2018-11-03T12:00-03:00",
            "2018-11-04T12:00-02:00",
        ),
    ] {
        let zone = zone(name);
        let noon: Expression = parse("0 12 * * *", &zone);
        let fire = noon.next(moment(from), 0).unwrap();
        assert_eq!(shown(fire, &zone), expected);
        assert_eq!(noon.previous(fire, 0), Some(fire));
    }
    super::check(
        "@daily",
        &zone("America/Sao_Paulo"),
        "2018-11-03T12:00-03:00",
        &["2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00"],
    );
}
