//! What brings functions events beside HTTP: `async`, `queue`, `schedule`, and what they
//! may send to.

use bytes::Bytes;

use super::*;
use crate::function::pattern::Filter;
use crate::function::schedule::{Expression, Zone};
use crate::function::{Destination, Missed, Overlap, QueueMapping, Schedule};
use crate::queue::Redrive;

/// The queues and the second function that the tests name.
const OTHERS: &str = "
[function.other]
component = \"any.wasm\"
[queue.orders]
[queue.audit]
[queue.\"steps.fifo\"]
";

/// A folder with `any.wasm`, which handles whatever comes.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.file("any.wasm", &component("dunlin:event/invoke@0.1.0"));
    folder
}

/// A function whose lines begin at line 3, and what it may name.
fn manifest(lines: &str) -> String {
    format!("[function.f]\ncomponent = \"any.wasm\"\n{lines}\n{OTHERS}")
}

/// A mapping whose name is in line 4.
fn mapping(queue: &str, lines: &str) -> String {
    manifest(&format!(
        "[[function.f.queue]]\nname = \"{queue}\"\n{lines}"
    ))
}

/// A schedule whose name is in line 4 and whose expression is in line 5.
fn schedule(when: &str, lines: &str) -> String {
    manifest(&format!(
        "[[function.f.schedule]]\nname = \"s\"\nwhen = \"{when}\"\n{lines}"
    ))
}

fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn name(name: &str) -> FunctionName {
    FunctionName::new(name).unwrap()
}

#[test]
fn every_key_of_events_counts() {
    let config = folder().ok(&manifest(
        r#"
        timeout = "5s"
        sends-to = ["orders", "steps.fifo", "dead-letters"]
        invokes = "other"

        [function.f.async]
        max-attempts = 5
        max-age = "2h"
        retry-delay = "10s"
        event-limit = "1MiB"
        backlog = 500
        dead-letter-queue = "audit"
        on-success = { queue = "audit" }
        on-failure = { function = "other" }

        [[function.f.queue]]
        name = "orders"
        enabled = "off"
        batch-size = 100
        batch-window = "2s"
        max-concurrency = 3
        filter = ['{"body": {"kind": ["order"]}}', '{"body": {"kind": ["refund"]}}']
        report-batch-item-failures = "on"

        [[function.f.queue]]
        name = "steps.fifo"

        [[function.f.schedule]]
        name = "nightly.1"
        when = "cron(0 3 * * ? *)"
        zone = "europe/berlin"
        payload = '{"a": 1}'
        enabled = "off"
        overlap = "skip"
        missed = 10
        jitter = "5m"

        [[function.f.schedule]]
        name = "often"
        when = "rate(5 minutes)"
        missed = "skip"
        "#,
    ));
    let spec = &config.functions[0];
    assert_eq!(
        spec.sends_to,
        [queue("orders"), queue("steps.fifo"), queue("dead-letters")]
    );
    assert_eq!(spec.invokes, [name("other")]);
    assert_eq!(
        spec.events,
        AsyncPolicy {
            max_attempts: 5,
            max_age: Duration::from_hours(2),
            retry_delay: Duration::from_secs(10),
            event_limit: ByteSize::mib(1),
            backlog: 500,
            dead_letters: Some(queue("audit")),
            on_success: Some(Destination::Queue(queue("audit"))),
            on_failure: Some(Destination::Function(name("other"))),
        }
    );
    let kinds = [
        r#"{"body": {"kind": ["order"]}}"#,
        r#"{"body": {"kind": ["refund"]}}"#,
    ];
    assert_eq!(
        spec.queues,
        [
            QueueMapping {
                queue: queue("orders"),
                enabled: false,
                batch_size: 100,
                batch_window: Duration::from_secs(2),
                max_concurrency: Some(3),
                filter: Filter::for_messages(kinds).unwrap(),
                report_failures: true,
            },
            QueueMapping {
                queue: queue("steps.fifo"),
                enabled: true,
                batch_size: 10,
                batch_window: Duration::ZERO,
                max_concurrency: None,
                filter: Filter::default(),
                report_failures: false,
            },
        ]
    );
    let berlin = Zone::parse("Europe/Berlin").unwrap();
    assert_eq!(
        spec.schedules,
        [
            Schedule {
                name: "nightly.1".to_owned(),
                when: Expression::parse("cron(0 3 * * ? *)", &berlin).unwrap(),
                zone: berlin,
                payload: Some(Bytes::from_static(b"{\"a\": 1}")),
                enabled: false,
                overlap: Overlap::Skip,
                missed: Missed::UpTo(10),
                jitter: Duration::from_mins(5),
            },
            Schedule {
                name: "often".to_owned(),
                when: Expression::parse("rate(5 minutes)", &Zone::utc()).unwrap(),
                zone: Zone::utc(),
                payload: None,
                enabled: true,
                overlap: Overlap::Allow,
                missed: Missed::Skip,
                jitter: Duration::ZERO,
            },
        ]
    );
}

#[test]
fn a_function_that_says_nothing_has_the_defaults() {
    let config = folder().ok(&manifest(""));
    let spec = &config.functions[0];
    assert_eq!(spec.events, AsyncPolicy::default());
    assert_eq!((&spec.queues, &spec.schedules), (&vec![], &vec![]));
    assert_eq!((&spec.sends_to, &spec.invokes), (&vec![], &vec![]));
    let config = folder().ok(&schedule("0 3 * * *", ""));
    let [only] = &config.functions[0].schedules[..] else {
        panic!("one");
    };
    assert_eq!(only.missed, Missed::Once);
    assert_eq!(only.overlap, Overlap::Allow);
    assert!(only.enabled);
}

#[test]
fn both_ends_of_each_range_of_events_are_allowed_and_nothing_beyond() {
    let in_async = |key: &str, value: &str| manifest(&format!("async = {{ {key} = {value} }}"));
    let in_queue = |key: &str, value: &str| mapping("orders", &format!("{key} = {value}"));
    let in_fifo = |key: &str, value: &str| mapping("steps.fifo", &format!("{key} = {value}"));
    let in_schedule =
        |key: &str, value: &str| schedule("rate(1 hour)", &format!("{key} = {value}"));
    type Wrap<'w> = &'w dyn Fn(&str, &str) -> String;
    let table: &[(Wrap<'_>, &str, &[&str], &[&str])] = &[
        (&in_async, "max-attempts", &["1", "10"], &["0", "11"]),
        (
            &in_async,
            "max-age",
            &["\"1m\"", "\"336h\""],
            &["\"59999ms\"", "\"1209601s\"", "0"],
        ),
        (
            &in_async,
            "retry-delay",
            &["\"1ms\"", "\"1h\""],
            &["\"999us\"", "\"3601s\"", "0"],
        ),
        (
            &in_async,
            "event-limit",
            &["\"1KiB\"", "\"1MiB\""],
            &["\"1023B\"", "\"1048577B\""],
        ),
        (
            &in_async,
            "backlog",
            &["1", "10_000_000"],
            &["0", "10_000_001"],
        ),
        (&in_queue, "batch-size", &["1", "10_000"], &["0", "10_001"]),
        (&in_fifo, "batch-size", &["1", "10"], &["0", "11"]),
        (
            &in_queue,
            "batch-window",
            &["0", "\"5m\""],
            &["\"300001ms\""],
        ),
        (&in_fifo, "batch-window", &["0"], &["\"1s\""]),
        (
            &in_queue,
            "max-concurrency",
            &["1", "10_000"],
            &["0", "10_001"],
        ),
        (&in_schedule, "missed", &["1", "1000"], &["0", "1001", "-1"]),
        (&in_schedule, "jitter", &["0", "\"1h\""], &["\"3600001ms\""]),
    ];
    let folder = folder();
    for (wrap, key, good, bad) in table {
        for value in *good {
            folder.ok(&wrap(key, value));
        }
        for value in *bad {
            let problems = folder.problems(&wrap(key, value));
            assert_eq!(problems.len(), 1, "{key} = {value}: {problems:?}");
            let shown = format!("{key}: {}: ", value.replace('_', ""));
            assert!(problems[0].contains(&shown), "{shown}: {problems:?}");
        }
    }
}

#[test]
fn a_problem_of_events_names_the_thing_the_value_and_the_remedy() {
    let folder = folder();
    folder.file("http.wasm", &component("dunlin:event/http@0.1.0"));
    folder.file("queue.wasm", &component("dunlin:event/queue-sync@0.1.0"));
    let on = |component: &str, lines: &str| manifest(lines).replacen("any.wasm", component, 1);
    let named = |name: &str| {
        manifest(&format!(
            "[[function.f.schedule]]\nname = \"{name}\"\nwhen = \"rate(1 hour)\""
        ))
    };
    let large = "x".repeat((1 << 20) + 1);
    let table: Vec<(String, &str)> = vec![
        (manifest("sends-to = \"none\""),
            "3: function.f.sends-to: \"none\": no queue `none`; declare it as `[queue.none]`",
        ),
        (manifest("sends-to = [\"orders\", \"a b\"]"),
            "3: function.f.sends-to: `a b` cannot name a queue; use 1 to 80 letters, digits, \
             `-` and `_`, and `.fifo` at the end for a FIFO queue",
        ),
        (manifest("sends-to = [\"orders\", 5]"),
            "3: function.f.sends-to: a list of other things than texts; write `[\"orders\"]`",
        ),
        (manifest("sends-to = 5"),
            "3: function.f.sends-to: 5: an integer; write a text such as `\"orders\"`",
        ),
        (manifest("invokes = [\"none\"]"),
            "3: function.f.invokes: no function `none`; declare it as `[function.none]`",
        ),
        (manifest("invokes = \"a b\""),
            "3: function.f.invokes: \"a b\": `a b` cannot name a function; use 1 to 64 letters, \
             digits, `-` and `_`",
        ),
        (manifest("async = 5"),
            "3: function.f.async: no table but of type integer; write `[function.f.async]` or \
             `{ KEY = … }`",
        ),
        (manifest("async = { attempts = 5 }"),
            "3: function.f.async.attempts: unknown key; did you mean `max-attempts`?",
        ),
        (manifest("async = { dead-letter-queue = \"none\" }"),
            "3: function.f.async.dead-letter-queue: \"none\": no queue `none`; declare it as \
             `[queue.none]`",
        ),
        (manifest("async = { dead-letter-queue = \"steps.fifo\" }"),
            "3: function.f.async.dead-letter-queue: \"steps.fifo\": a FIFO queue, which takes \
             no records of outcomes; name one without `.fifo`",
        ),
        (manifest("async = { dead-letter-queue = \"a b\" }"),
            "3: function.f.async.dead-letter-queue: \"a b\": `a b` cannot name a queue; use 1 \
             to 80 letters, digits, `-` and `_`, and `.fifo` at the end for a FIFO queue",
        ),
        (manifest("async = { on-success = { queue = \"steps.fifo\" } }"),
            "3: function.f.async.on-success.queue: \"steps.fifo\": a FIFO queue, which takes no \
             records of outcomes; name one without `.fifo`",
        ),
        (manifest("async = { on-success = { queue = \"none\" } }"),
            "3: function.f.async.on-success.queue: \"none\": no queue `none`; declare it as \
             `[queue.none]`",
        ),
        (manifest("async = { on-failure = { function = \"none\" } }"),
            "3: function.f.async.on-failure.function: \"none\": no function `none`; declare it \
             as `[function.none]`",
        ),
        (manifest("async = { on-failure = { function = \"a b\" } }"),
            "3: function.f.async.on-failure.function: \"a b\": `a b` cannot name a function; \
             use 1 to 64 letters, digits, `-` and `_`",
        ),
        (manifest("async = { on-failure = { queue = \"audit\", function = \"other\" } }"),
            "3: function.f.async.on-failure: it does not name exactly one destination; write `{ \
             queue = \"NAME\" }`, `{ function = \"NAME\" }` or `{ http = \"https://…\" }`",
        ),
        (manifest("async = { on-failure = { } }"),
            "3: function.f.async.on-failure: it does not name exactly one destination; write `{ \
             queue = \"NAME\" }`, `{ function = \"NAME\" }` or `{ http = \"https://…\" }`",
        ),
        (manifest("async = { on-failure = \"audit\" }"),
            "3: function.f.async.on-failure: no table but of type string; write \
             `[function.f.async.on-failure]` or `{ KEY = … }`",
        ),
        (manifest("queue = \"orders\""),
            "3: function.f.queue: \"orders\": a string; write `[[function.f.queue]]`, once for \
             each",
        ),
        (manifest("queue = [\"orders\"]"),
            "3: function.f.queue[0]: no table but of type string; write `[function.f.queue[0]]` \
             or `{ KEY = … }`",
        ),
        (manifest("[[function.f.queue]]\nbatch-size = 5"),
            "3: function.f.queue[0]: `name` is missing; name the queue: `name = \"orders\"`",
        ),
        (mapping("none", ""),
            "4: function.f.queue[0].name: \"none\": no queue `none`; declare it as \
             `[queue.none]`",
        ),
        (mapping("a b", ""),
            "4: function.f.queue[0].name: \"a b\": `a b` cannot name a queue; use 1 to 80 \
             letters, digits, `-` and `_`, and `.fifo` at the end for a FIFO queue",
        ),
        (mapping("orders", "batchsize = 5"),
            "5: function.f.queue[0].batchsize: unknown key; did you mean `batch-size`?",
        ),
        (mapping("orders", "enabled = false"),
            "5: function.f.queue[0].enabled: false: a boolean; write a text such as `\"on\"`",
        ),
        (mapping("orders", "report-batch-item-failures = \"yes\""),
            "5: function.f.queue[0].report-batch-item-failures: \"yes\": unknown word; use `on` \
             or `off`",
        ),
        (mapping("steps.fifo", "batch-size = 11"),
            "5: function.f.queue[0].batch-size: 11: too large for a FIFO queue; use 1 to 10",
        ),
        (mapping("steps.fifo", "batch-window = \"1s\""),
            "5: function.f.queue[0].batch-window: \"1s\": a FIFO queue has no batching window; \
             leave it out",
        ),
        (mapping("orders", "[[function.f.queue]]\nname = \"orders\""),
            "6: function.f.queue[1].name: \"orders\": the function reads this queue already; \
             leave one of them out",
        ),
        (mapping("orders", "filter = 5"),
            "5: function.f.queue[0].filter: 5: an integer; write a text such as `\"{ \
             \\\"body\\\": { \\\"kind\\\": [\\\"order\\\"] } }\"`",
        ),
        (mapping("orders", "filter = \"{\""),
            "5: function.f.queue[0].filter: \"{\": pattern 1 of the filter: the event pattern \
             is not valid at `$`: `{` is not JSON: EOF while parsing an object at line 1 column \
             1; see the operator's guide, \"Filters\"",
        ),
        (mapping("orders", "filter = '{\"body\": {\"a\": [{\"prefixx\": \"b\"}]}}'"),
            "5: function.f.queue[0].filter: \"{\\\"body\\\": {\\\"a\\\": [{\\\"prefixx\\\": \
             \\\"b\\\"}]}}\": pattern 1 of the filter: the event pattern is not valid at \
             `$.body.a[0].prefixx`: there is no operator `prefixx`; use one of anything-but, \
             cidr, equals-ignore-case, exists, numeric, prefix, suffix, wildcard; see the \
             operator's guide, \"Filters\"",
        ),
        (mapping("orders", "filter = ['{\"body\": [\"a\"]}', '{\"body\": {\"a\": \"b\"}}']"),
            "5: function.f.queue[0].filter: pattern 2 of the filter: the event pattern is not \
             valid at `$.body.a`: `\"b\"` is neither an object nor a list of tests; put it in \
             `[` and `]`; see the operator's guide, \"Filters\"",
        ),
        (mapping("orders", "[function.f.async]").replace("[function.f]", "[function.f]\ntimeout = \"31s\""),
            "5: function.f.queue[0].name: \"orders\": the queue's `visibility-timeout` of 30 s \
             is less than the function's `timeout` of 31 s: as at Lambda, it must not be; set `visibility-timeout` of `[queue.orders]` to six times the \
             timeout",
        ),
        (named("a b"),
            "4: function.f.schedule[0].name: \"a b\": cannot name a schedule; use 1 to 64 \
             letters, digits, `.`, `-` and `_`",
        ),
        (named(""),
            "4: function.f.schedule[0].name: \"\": cannot name a schedule; use 1 to 64 letters, \
             digits, `.`, `-` and `_`",
        ),
        (named(&"n".repeat(65)),
            "4: function.f.schedule[0].name: \
             \"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\": cannot name \
             a schedule; use 1 to 64 letters, digits, `.`, `-` and `_`",
        ),
        (manifest("[[function.f.schedule]]\nwhen = \"rate(1 hour)\""),
            "3: function.f.schedule[0]: `name` is missing; name it: `name = \"nightly\"`",
        ),
        (manifest("[[function.f.schedule]]\nname = \"s\""),
            "3: function.f.schedule[0]: `when` is missing; write `when = \"cron(0 3 * * ? *)\"` \
             or `\"rate(5 minutes)\"`",
        ),
        (schedule("rate(1 hour)", "[[function.f.schedule]]\nname = \"s\"\nwhen = \"rate(1 hour)\""),
            "7: function.f.schedule[1].name: \"s\": the function has a schedule of this name; \
             name it otherwise",
        ),
        (schedule("61 * * * *", ""),
            "5: function.f.schedule[0].when: \"61 * * * *\": its minutes `61` is not between 0 \
             and 59; use 0 to 59, `*`, lists, ranges and steps",
        ),
        (schedule("0 24 * * *", ""),
            "5: function.f.schedule[0].when: \"0 24 * * *\": its hours `24` is not between 0 \
             and 23; use 0 to 23, `*`, lists, ranges and steps",
        ),
        (schedule("0 0 31 2 *", ""),
            "5: function.f.schedule[0].when: \"0 0 31 2 *\": its day-of-month `31` is never a \
             day of month 2, so the schedule can never fire; choose a day that the month has, \
             such as `L` in `cron(…)` for its last",
        ),
        (schedule("* * * *", ""),
            "5: function.f.schedule[0].when: \"* * * *\": of 4 fields, not 5; write five fields \
             (`minutes hours day-of-month month day-of-week`), `cron(…)`, `rate(…)` or `at(…)`",
        ),
        (schedule("cron(0 3 * * *)", ""),
            "5: function.f.schedule[0].when: \"cron(0 3 * * *)\": of 5 fields, not 6; write \
             `cron(minutes hours day-of-month month day-of-week year)`; five fields go without \
             `cron(…)`",
        ),
        (schedule("cron(0 3 ? * FUNDAY *)", ""),
            "5: function.f.schedule[0].when: \"cron(0 3 ? * FUNDAY *)\": its day-of-week \
             `FUNDAY` is neither a number nor a name; use 1 (Sunday) to 7 or SUN to SAT, `*`, \
             `?`, `L`, `5L`, `3#2`, lists, ranges and steps",
        ),
        (schedule("rate(5 minute)", ""),
            "5: function.f.schedule[0].when: \"rate(5 minute)\": its unit `minute` is the wrong \
             number for 5; write `rate(5 minutes)`",
        ),
        (schedule("rate(0 minutes)", ""),
            "5: function.f.schedule[0].when: \"rate(0 minutes)\": its value `0` is no period; \
             use a whole number, 1 or more",
        ),
        (schedule("at(2026-13-01T00:00:00)", ""),
            "5: function.f.schedule[0].when: \"at(2026-13-01T00:00:00)\": its date `2026-13-01` \
             is no day of the calendar; use a month from 01 to 12 and a day that it has in that \
             year",
        ),
        (schedule("hourly", ""),
            "5: function.f.schedule[0].when: \"hourly\": no schedule; write five fields \
             (`minutes hours day-of-month month day-of-week`), `cron(…)`, `rate(…)` or `at(…)`",
        ),
        (schedule("rate(1 hour)", "zone = \"Berlin\""),
            "6: function.f.schedule[0].zone: \"Berlin\": no time zone; use an IANA name such as \
             `Europe/Berlin`",
        ),
        (schedule("rate(1 hour)", "zone = \"Mars/Phobos\""),
            "6: function.f.schedule[0].zone: \"Mars/Phobos\": no time zone; use an IANA name \
             such as `Europe/Berlin`",
        ),
        (schedule("rate(1 hour)", "zone = 1"),
            "6: function.f.schedule[0].zone: 1: an integer; write a text such as \
             `\"Europe/Berlin\"`",
        ),
        (schedule("rate(1 hour)", "missed = \"all\""),
            "6: function.f.schedule[0].missed: \"all\": unknown word; write `\"skip\"`, \
             `\"once\"` or a number, 1 to 1000",
        ),
        (schedule("rate(1 hour)", "missed = true"),
            "6: function.f.schedule[0].missed: true: neither a word nor a number; write \
             `\"skip\"`, `\"once\"` or a number, 1 to 1000",
        ),
        (schedule("rate(1 hour)", "overlap = \"queue\""),
            "6: function.f.schedule[0].overlap: \"queue\": unknown word; use `allow` or `skip`",
        ),
        (schedule("rate(1 hour)", "enabled = \"yes\""),
            "6: function.f.schedule[0].enabled: \"yes\": unknown word; use `on` or `off`",
        ),
        (schedule("rate(1 hour)", "payload = 5"),
            "6: function.f.schedule[0].payload: 5: an integer; write a text such as `\"{}\"`",
        ),
        (schedule("rate(1 hour)", &format!("payload = \"{large}\"")),
            "6: function.f.schedule[0].payload: \
             \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"…: \
             too large; use 1 MiB at most",
        ),
        (schedule("rate(1 hour)", "time-zone = \"UTC\""),
            "6: function.f.schedule[0].time-zone: unknown key; the keys here are `name`, \
             `zone`, `when`, `payload`, `enabled`, `overlap`, `missed` and `jitter`",
        ),
        (on("http.wasm", "[[function.f.schedule]]\nname = \"s\"\nwhen = \"rate(1 hour)\""),
            "3: function.f.schedule: the component exports no handler for the schedule `s`; \
             export `dunlin:event/schedule@0.1.0` or `dunlin:event/invoke@0.1.0`, or leave it \
             out",
        ),
        (on("http.wasm", "[[function.f.queue]]\nname = \"orders\"\n[[function.f.queue]]\nname = \"steps.fifo\"\n[[function.f.queue]]\nname = \"audit\""),
            "3: function.f.queue: the component exports no handler for the queue `orders` and 2 \
             more; export `dunlin:event/queue@0.1.0` or `dunlin:event/invoke@0.1.0`, or leave \
             it out",
        ),
        (on("queue.wasm", "[[function.f.queue]]\nname = \"orders\"\n[[function.f.http]]\npath = \"/a\""),
            "5: function.f.http: the component exports no handler for the route `/a`; export \
             `dunlin:event/http@0.1.0`, `wasi:http` or `dunlin:event/invoke@0.1.0`, or leave \
             it out",
        ),
        ("[queue.a]\ndead-letter-queue = \"dead-letters\"\n[queue.b]\ndead-letter-queue = \"dead-letters.fifo\"".to_owned(),
            "4: queue.b.dead-letter-queue: \"dead-letters.fifo\": `dead-letters.fifo` cannot be \
             its dead-letter queue: name another queue, FIFO as this one or not; choose another \
             value",
        ),
    ];
    for (text, expected) in table {
        let expected = format!("dunlin.toml:{expected}");
        assert_eq!(folder.problems(&text), [expected], "{text}");
    }
}

#[test]
fn a_destination_that_is_none_is_said_with_the_key_that_it_has() {
    let found = folder().problems(&manifest("async = { on-failure = { topic = \"audit\" } }"));
    let [destination, key] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(destination.contains("does not name exactly one destination"));
    assert!(key.contains(
        "on-failure.topic: unknown key; the keys here are `queue`, `function` and `http`"
    ));
}

#[test]
fn a_function_has_up_to_a_thousand_triggers_of_a_kind() {
    let schedules = |count: usize| {
        let each = |index| {
            format!("[[function.f.schedule]]\nname = \"s{index}\"\nwhen = \"rate(1 hour)\"\n")
        };
        manifest(&(0..count).map(each).collect::<String>())
    };
    let config = folder().ok(&schedules(1000));
    assert_eq!(config.functions[0].schedules.len(), 1000);
    let expected = "dunlin.toml:3: function.f.schedule: 1001 of them, more than 1000; split the \
                    function";
    assert_eq!(folder().problems(&schedules(1001)), [expected]);
}

#[test]
fn a_queue_that_a_function_reads_has_a_place_for_dead_letters() {
    let text = manifest(
        "[[function.f.queue]]\nname = \"orders\"\n[[function.f.queue]]\nname = \"steps.fifo\"\n\
         [[function.f.queue]]\nname = \"own\"\n[[function.f.queue]]\nname = \"dead-letters\"",
    );
    let text = format!("{text}[queue.own]\ndead-letter-queue = \"audit\"\nmax-receives = 2\n");
    let config = folder().ok(&text);
    let redrive = |name: &str| {
        let named = config
            .queues
            .iter()
            .find(|(queue, _)| queue.as_str() == name);
        named.unwrap().1.redrive.clone()
    };
    let to = |target: &str, max_receives| {
        Some(Redrive {
            target: queue(target),
            max_receives,
        })
    };
    assert_eq!(redrive("orders"), to("dead-letters", 5));
    assert_eq!(redrive("steps.fifo"), to("dead-letters.fifo", 5));
    assert_eq!(redrive("own"), to("audit", 2));
    assert_eq!(redrive("audit"), None, "nobody reads it");
}

#[test]
fn the_hosts_own_queues_may_be_named_without_being_declared() {
    let config = folder().ok(
        "[queue.a]\ndead-letter-queue = \"dead-letters\"\n[queue.\"b.fifo\"]\n\
         dead-letter-queue = \"dead-letters.fifo\"\n",
    );
    let targets = config.queues.iter().map(|(_, settings)| {
        let redrive = settings.redrive.as_ref().unwrap();
        redrive.target.as_str()
    });
    assert!(targets.eq(["dead-letters", "dead-letters.fifo"]));
}

#[test]
fn a_handler_for_invocations_stands_in_for_any_other() {
    let folder = folder();
    let text = schedule(
        "rate(1 hour)",
        "[[function.f.queue]]\nname = \"orders\"\n\
                        [[function.f.http]]\npath = \"/a\"",
    );
    folder.ok(&text);
    for (export, missing) in [
        ("dunlin:event/schedule-sync@0.1.0", vec!["queue", "http"]),
        ("dunlin:event/queue@0.1.0", vec!["schedule", "http"]),
        ("dunlin:event/http-sync@0.1.0", vec!["schedule", "queue"]),
    ] {
        folder.file("any.wasm", &component(export));
        let found = folder.problems(&text);
        assert_eq!(found.len(), 2, "{found:?}");
        for key in missing {
            let expected = format!("function.f.{key}: the component exports no handler");
            assert!(
                found.iter().any(|line| line.contains(&expected)),
                "{found:?}"
            );
        }
    }
}
