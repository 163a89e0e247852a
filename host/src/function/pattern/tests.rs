use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn pattern(pattern: &Value) -> Pattern {
    Pattern::parse(&pattern.to_string()).unwrap()
}

#[track_caller]
fn check(tests: Value, wanted: &[Value], unwanted: &[Value]) {
    let pattern = pattern(&json!({ "a": tests }));
    for value in wanted {
        assert!(pattern.matches(&json!({ "a": value })), "{value}");
        // As an element too.
        assert!(pattern.matches(&json!({ "a": [{}, value] })), "[{value}]");
    }
    for value in unwanted {
        assert!(!pattern.matches(&json!({ "a": value })), "{value}");
    }
}

/// The event of EventBridge's user guide, "Amazon EventBridge event patterns".
fn state_change() -> Value {
    json!({
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": "EC2 Instance State-change Notification",
        "source": "aws.ec2",
        "account": "111122223333",
        "time": "2017-12-22T18:43:48Z",
        "region": "us-west-1",
        "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
        "detail": {"instance-id": "i-1234567890abcdef0", "state": "terminated"}
    })
}

#[test]
fn an_event_matches_if_all_fields_do() {
    for (pattern_json, expected) in [
        (
            json!({
                "source": ["aws.ec2"],
                "detail-type": ["EC2 Instance State-change Notification"],
                "detail": {"state": ["terminated"]}
            }),
            true,
        ),
        (json!({"source": ["aws.ec2", "aws.s3"]}), true),
        (
            json!({"resources": [{"prefix": "arn:aws:ec2:us-west-1:"}]}),
            true,
        ),
        (json!({"time": [{"prefix": "2017-12-22"}]}), true),
        (json!({"detail": {"state": ["running"]}}), false),
        (
            json!({"source": ["aws.ec2"], "detail": {"state": ["running"]}}),
            false,
        ),
        (json!({"Source": ["aws.ec2"]}), false),
        // No object there.
        (json!({"detail": ["terminated"]}), false),
        (json!({"source": {"state": ["aws.ec2"]}}), false),
        // A dot is a character.
        (json!({"detail.state": ["terminated"]}), false),
    ] {
        let matches = pattern(&pattern_json).matches(&state_change());
        assert_eq!(matches, expected, "{pattern_json}");
    }
    for event in [json!(null), json!("aws.ec2"), json!([])] {
        assert!(!pattern(&json!({"source": ["aws.ec2"]})).matches(&event));
    }
}

#[test]
fn values_match_exactly() {
    check(
        json!(["x"]),
        &[json!("x")],
        &[json!("X"), json!("xx"), json!(null), json!({"x": 1})],
    );
    check(
        json!([""]),
        &[json!("")],
        &[json!(null), json!(" "), json!([])],
    );
    check(
        json!([null]),
        &[json!(null)],
        &[json!(""), json!(0), json!([])],
    );
    check(
        json!([true]),
        &[json!(true)],
        &[json!(false), json!("true")],
    );
    check(
        json!([300]),
        &[json!(300), json!(300.0), json!(3e2)],
        &[json!("300"), json!(301)],
    );
    // Longer than what a float holds.
    check(
        json!([9_007_199_254_740_993_u64]),
        &[json!(9_007_199_254_740_993_u64)],
        &[json!(9_007_199_254_740_992_u64)],
    );
    check(
        json!(["x", 1]),
        &[json!("x"), json!(1), json!(["y", 1])],
        &[json!(["y", 2])],
    );
}

#[test]
fn operators_do_what_eventbridge_documents() {
    check(
        json!([{"prefix": "us-"}]),
        &[json!("us-east-1"), json!("us-")],
        &[json!("eu-us-"), json!(1), json!(null)],
    );
    check(
        json!([{"prefix": {"equals-ignore-case": "EventB"}}]),
        &[json!("EVENTBridge"), json!("eventb")],
        &[json!("event")],
    );
    check(
        json!([{"suffix": ".png"}]),
        &[json!("a.png")],
        &[json!("a.png.txt"), json!("a.PNG")],
    );
    check(
        json!([{"suffix": {"equals-ignore-case": "tBridge"}}]),
        &[json!("EventBRIDGE")],
        &[json!("bridges")],
    );
    check(
        json!([{"equals-ignore-case": "Alice"}]),
        &[json!("alice"), json!("ALICE")],
        &[json!("alice "), json!(7)],
    );
    check(
        json!([{"equals-ignore-case": "ΟΔΟΣ"}]),
        &[json!("οδοσ")],
        &[json!("οδ")],
    );
    check(
        json!([{"exists": true}]),
        &[json!("x"), json!(null), json!(0), json!([1])],
        &[json!([]), json!({"b": 1}), json!([{"b": 1}])],
    );
}

#[test]
fn what_is_not_there_matches_only_exists_false() {
    let absent = pattern(&json!({"detail": {"c-count": [{"exists": false}]}}));
    for event in [
        json!({"detail": {"state": ["initializing", "running"]}}),
        json!({"detail": {"c-count": {"c1": 100}}}),
        json!({"detail": {"c-count": []}}),
        json!({"detail": "text"}),
        json!({}),
        json!({"detail": [{"x": 1}, {}]}),
    ] {
        assert!(absent.matches(&event), "{event}");
    }
    for event in [
        json!({"detail": {"c-count": null}}),
        json!({"detail": {"c-count": [1]}}),
        // In one element of the list it is there.
        json!({"detail": [{"x": 1}, {"c-count": 5}]}),
    ] {
        assert!(!absent.matches(&event), "{event}");
    }
    for tests in [
        json!([{"anything-but": "x"}]),
        json!([{"anything-but": {"prefix": "x"}}]),
        json!([null]),
        json!([{"exists": true}]),
        json!([{"wildcard": "*"}]),
    ] {
        assert!(
            !pattern(&json!({ "a": tests })).matches(&json!({"b": 1})),
            "{tests}"
        );
    }
    // Beside other tests of the field, it is one of them.
    let either = pattern(&json!({"a": [{"exists": false}, "x"]}));
    assert!(either.matches(&json!({})) && either.matches(&json!({"a": "x"})));
    assert!(!either.matches(&json!({"a": "y"})));
}

#[test]
fn anything_but_takes_all_others() {
    check(
        json!([{"anything-but": "initializing"}]),
        &[
            json!("running"),
            json!(1),
            json!(null),
            json!(true),
            json!(["initializing", "x"]),
        ],
        &[json!("initializing"), json!(["initializing"])],
    );
    check(
        json!([{"anything-but": 123}]),
        &[json!(124), json!("123")],
        &[json!(123), json!(123.0)],
    );
    check(
        json!([{"anything-but": ["stopped", "overloaded"]}]),
        &[json!("running")],
        &[json!("stopped"), json!("overloaded")],
    );
    check(
        json!([{"anything-but": [100, 200]}]),
        &[json!(300)],
        &[json!(100), json!(200.0)],
    );
    check(
        json!([{"anything-but": {"prefix": "init"}}]),
        &[json!("running"), json!(12)],
        &[json!("initializing")],
    );
    check(
        json!([{"anything-but": {"prefix": ["init", "error"]}}]),
        &[json!("running")],
        &[json!("initializing"), json!("error-1")],
    );
    check(
        json!([{"anything-but": {"suffix": [".txt", ".rtf"]}}]),
        &[json!("a.pdf")],
        &[json!("a.txt"), json!("a.rtf")],
    );
    check(
        json!([{"anything-but": {"equals-ignore-case": ["initializing", "stopped"]}}]),
        &[json!("running")],
        &[json!("INITIALIZING"), json!("Stopped")],
    );
    check(
        json!([{"anything-but": {"wildcard": ["*/init/*", "*/bin/*"]}}]),
        &[json!("/usr/lib/x"), json!(1)],
        &[json!("/etc/init/x"), json!("/usr/bin/x")],
    );
    check(
        json!([{"anything-but": {"wildcard": ""}}]),
        &[json!("x")],
        &[json!("")],
    );
}

#[test]
fn numbers_are_compared_with_bounds() {
    check(
        json!([{"numeric": ["=", 3.018e2]}]),
        &[json!(301.8)],
        &[json!(301), json!("301.8")],
    );
    check(
        json!([{"numeric": ["<", 10]}]),
        &[json!(9.99), json!(-1e12)],
        &[json!(10), json!(null)],
    );
    check(
        json!([{"numeric": ["<=", 10]}]),
        &[json!(10)],
        &[json!(10.01)],
    );
    check(
        json!([{"numeric": [">", 0, "<=", 5]}]),
        &[json!(5), json!(0.1)],
        &[json!(0), json!(6)],
    );
    check(
        json!([{"numeric": ["=", 0.3]}]),
        &[json!(0.1 + 0.2)],
        &[json!(0.300_000_000_001)],
    );
    check(
        json!([{"numeric": ["<", 0.3]}]),
        &[json!(0.29)],
        &[json!(0.1 + 0.2), json!(0.3)],
    );
    check(
        json!([{"numeric": [">=", 0, "<", 5]}]),
        &[json!(0)],
        &[json!(5), json!(-1)],
    );
    check(
        json!([{"numeric": [">", 9_000_000_000_u64]}]),
        &[json!(9_000_000_001_u64)],
        &[json!(9)],
    );
}

#[test]
fn addresses_are_in_networks() {
    check(
        json!([{"cidr": "10.0.0.0/24"}]),
        &[json!("10.0.0.0"), json!("10.0.0.255")],
        &[
            json!("10.0.1.0"),
            json!("::a00:0"),
            json!("xx.11.xx.8"),
            json!(10),
        ],
    );
    check(
        json!([{"cidr": "10.0.0.7/24"}]),
        &[json!("10.0.0.1")],
        &[json!("10.0.1.7")],
    );
    check(
        json!([{"cidr": "0.0.0.0/0"}]),
        &[json!("255.0.0.1")],
        &[json!("::1")],
    );
    check(
        json!([{"cidr": "10.0.0.1/32"}]),
        &[json!("10.0.0.1")],
        &[json!("10.0.0.2")],
    );
    check(
        json!([{"cidr": "2001:db8:1234:1a00::/56"}]),
        &[json!("2001:db8:1234:1aff::1")],
        &[json!("2001:db8:1234:1b00::"), json!("10.0.0.1")],
    );
    check(
        json!([{"cidr": "::/0"}]),
        &[json!("ff::1")],
        &[json!("1.2.3.4")],
    );
}

#[test]
fn wildcards_match_in_one_pass() {
    for (wildcard, wanted, unwanted) in [
        (
            "dir/*.png",
            vec!["dir/a.png", "dir/.png", "dir/b/c.png"],
            vec!["dir/a.pn", "xdir/a.png"],
        ),
        ("*", vec!["", "x"], vec![]),
        ("a*a", vec!["aa", "aba", "aaa"], vec!["a", "ab"]),
        ("*ab*ab*", vec!["abab", "xabyabz"], vec!["ab", "aab"]),
        ("a*bc*c", vec!["abcc", "abcbcc"], vec!["abc"]),
        (r"a\*b", vec!["a*b"], vec!["axb", r"a\*b"]),
        (r"a\\*", vec![r"a\", r"a\b"], vec!["a"]),
        ("ü*é", vec!["üé", "ü€é"], vec!["ü"]),
        ("plain", vec!["plain"], vec!["plainer"]),
        ("", vec![""], vec!["x"]),
    ] {
        let pattern = pattern(&json!({"a": [{ "wildcard": wildcard }]}));
        for text in wanted {
            assert!(pattern.matches(&json!({ "a": text })), "{wildcard} {text}");
        }
        for text in unwanted {
            assert!(!pattern.matches(&json!({ "a": text })), "{wildcard} {text}");
        }
    }
    // What a backtracking search would not live to see.
    let hard = pattern(&json!({"a": [{"wildcard": "*a".repeat(200) + "b"}]}));
    assert!(!hard.matches(&json!({"a": "a".repeat(1 << 20)})));
}

#[test]
fn or_has_branches_at_every_level() {
    let nested = pattern(&json!({
        "source": ["aws.cloudwatch"],
        "$or": [
            {"metricName": ["CPUUtilization", "ReadLatency"]},
            {
                "metricType": ["MetricType"],
                "namespace": ["AWS/EC2", "AWS/ES"],
                "$or": [{"metricId": [1234]}, {"spaceId": [1000]}]
            },
            {"scope": ["Service"]}
        ]
    }));
    for (event, expected) in [
        (
            json!({"source": "aws.cloudwatch", "metricName": "ReadLatency"}),
            true,
        ),
        (
            json!({"source": "aws.cloudwatch", "scope": "Service"}),
            true,
        ),
        (
            json!({"source": "aws.cloudwatch", "metricType": "MetricType", "namespace": "AWS/ES", "spaceId": 1000}),
            true,
        ),
        (
            json!({"source": "aws.cloudwatch", "metricType": "MetricType", "namespace": "AWS/ES"}),
            false,
        ),
        (json!({"source": "aws.cloudwatch"}), false),
        (json!({"source": "x", "scope": "Service"}), false),
    ] {
        assert_eq!(nested.matches(&event), expected, "{event}");
    }
    // The documentation's example with numbers, in an object.
    let inner = pattern(&json!({"detail": {"$or": [
        {"c-count": [{"numeric": [">", 0, "<=", 5]}]},
        {"d-count": [{"numeric": ["<", 10]}]},
        {"x-limit": [{"numeric": ["=", 3.018e2]}]}
    ]}}));
    assert!(inner.matches(&json!({"detail": {"c-count": 9, "d-count": 9}})));
    assert!(!inner.matches(&json!({"detail": {"c-count": 9, "d-count": 10}})));
}

#[test]
fn fields_of_one_object_match_in_one_element() {
    let event = json!({"employees": [
        [{"firstName": "John", "lastName": "Doe"}, {"firstName": "Anna", "lastName": "Smith"}],
        [{"firstName": "Peter", "lastName": "Jones"}]
    ]});
    let named = |first: &str, last: &str| {
        pattern(&json!({"employees": {"firstName": [first], "lastName": [last]}}))
    };
    assert!(named("Anna", "Smith").matches(&event));
    assert!(named("Peter", "Jones").matches(&event));
    assert!(!named("Anna", "Jones").matches(&event));
}

#[test]
fn a_pattern_that_is_none_says_where_and_why() {
    for (text, path, problem) in [
        ("", "$", "is not JSON"),
        ("{", "$", "is not JSON"),
        ("[1]", "$", "`[1]` is not an object"),
        ("{}", "$", "asks for nothing"),
        (r#"{"a": {}}"#, "$.a", "asks for nothing"),
        (r#"{"a": 5}"#, "$.a", "`5` is neither an object nor a list"),
        (r#"{"a": []}"#, "$.a", "`[]` matches nothing"),
        (r#"{"a": [1, [2]]}"#, "$.a[1]", "`[2]` is a list in a list"),
        (r#"{"a": [{}]}"#, "$.a[0]", "is not one operator"),
        (
            r#"{"a": [{"prefix": "a", "suffix": "b"}]}"#,
            "$.a[0]",
            "is not one operator",
        ),
        (
            r#"{"a": [{"regex": "x"}]}"#,
            "$.a[0].regex",
            "no operator `regex`; use one of anything-but",
        ),
        (
            r#"{"a": {"b": [{"prefix": 5}]}}"#,
            "$.a.b[0].prefix",
            "`5` is not a text",
        ),
        (
            r#"{"a": [{"prefix": {"suffix": "x"}}]}"#,
            "$.a[0].prefix",
            "equals-ignore-case",
        ),
        (
            r#"{"a": [{"suffix": {"equals-ignore-case": 1}}]}"#,
            "$.a[0].suffix",
            "`1` is not a text",
        ),
        (
            r#"{"a": [{"equals-ignore-case": ["x"]}]}"#,
            "$.a[0].equals-ignore-case",
            "is not a text",
        ),
        (
            r#"{"a": [{"exists": "true"}]}"#,
            "$.a[0].exists",
            "`\"true\"` is neither true nor false",
        ),
        (
            r#"{"a": [{"wildcard": "a**b"}]}"#,
            "$.a[0].wildcard",
            "`\"a**b\"` has `**`",
        ),
        (
            r#"{"a": [{"wildcard": "a\\b"}]}"#,
            "$.a[0].wildcard",
            "before another character",
        ),
        (
            r#"{"a": [{"wildcard": "a\\"}]}"#,
            "$.a[0].wildcard",
            "before another character",
        ),
        (
            r#"{"a": [{"anything-but": null}]}"#,
            "$.a[0].anything-but",
            "`null` cannot follow",
        ),
        (
            r#"{"a": [{"anything-but": []}]}"#,
            "$.a[0].anything-but",
            "excludes nothing",
        ),
        (
            r#"{"a": [{"anything-but": ["x", 1]}]}"#,
            "$.a[0].anything-but[1]",
            "`1` cannot follow",
        ),
        (
            r#"{"a": [{"anything-but": [1, "x"]}]}"#,
            "$.a[0].anything-but[1]",
            "is not a number",
        ),
        (
            r#"{"a": [{"anything-but": {"numeric": [1]}}]}"#,
            "$.a[0].anything-but.numeric",
            "cannot follow",
        ),
        (
            r#"{"a": [{"anything-but": {"prefix": ""}}]}"#,
            "$.a[0].anything-but.prefix",
            "in every text",
        ),
        (
            r#"{"a": [{"anything-but": {"prefix": ["x", 1]}}]}"#,
            "$.a[0].anything-but.prefix[1]",
            "is not a text",
        ),
        (
            r#"{"a": [{"numeric": 5}]}"#,
            "$.a[0].numeric",
            "`5` is not a list",
        ),
        (
            r#"{"a": [{"numeric": []}]}"#,
            "$.a[0].numeric",
            "one comparison or two",
        ),
        (
            r#"{"a": [{"numeric": [">"]}]}"#,
            "$.a[0].numeric",
            "one comparison or two",
        ),
        (
            r#"{"a": [{"numeric": [">", "1"]}]}"#,
            "$.a[0].numeric",
            "not a number",
        ),
        (
            r#"{"a": [{"numeric": ["<>", 1]}]}"#,
            "$.a[0].numeric",
            "unknown, or not in its place",
        ),
        (
            r#"{"a": [{"numeric": ["<", 1, ">", 0]}]}"#,
            "$.a[0].numeric",
            "not in its place",
        ),
        (
            r#"{"a": [{"numeric": ["=", 1, "<", 2]}]}"#,
            "$.a[0].numeric",
            "not in its place",
        ),
        (
            r#"{"a": [{"numeric": [">", 5, "<", 5]}]}"#,
            "$.a[0].numeric",
            "not below",
        ),
        (
            r#"{"a": [{"cidr": "10.0.0.0"}]}"#,
            "$.a[0].cidr",
            "has no `/`",
        ),
        (
            r#"{"a": [{"cidr": "bad/8"}]}"#,
            "$.a[0].cidr",
            "has no IP address",
        ),
        (
            r#"{"a": [{"cidr": "10.0.0.0/33"}]}"#,
            "$.a[0].cidr",
            "has no length",
        ),
        (
            r#"{"a": [{"cidr": "10.0.0.0/+8"}]}"#,
            "$.a[0].cidr",
            "has no length",
        ),
        (
            r#"{"$or": {"a": [1]}}"#,
            "$.$or",
            "is not a list of two objects",
        ),
        (
            r#"{"$or": [{"a": [1]}]}"#,
            "$.$or",
            "is not a list of two objects",
        ),
        (
            r#"{"$or": [{"a": [1]}, 5]}"#,
            "$.$or[1]",
            "`5` is not an object",
        ),
        (
            r#"{"$or": [{"a": [1]}, {"prefix": ["x"]}]}"#,
            "$.$or[1].prefix",
            "cannot name a field",
        ),
    ] {
        let error = Pattern::parse(text).unwrap_err();
        assert_eq!(error.path, path, "{text}");
        assert!(error.problem.contains(problem), "{text}: {error}");
    }
    let long = Pattern::parse(r#"{"a": [{"regex": "x"}]}"#).unwrap_err();
    assert_eq!(
        long.to_string(),
        "the event pattern is not valid at `$.a[0].regex`: there is no operator `regex`; use one \
         of anything-but, cidr, equals-ignore-case, exists, numeric, prefix, suffix, wildcard"
    );
}

#[test]
fn patterns_have_bounds() {
    // Not JSON's white space alone: characters, not bytes.
    let of_length = |length: usize| format!(r#"{{"a":["{}"]}}"#, "ü".repeat(length - 10));
    Pattern::parse(&of_length(Pattern::MAX_LENGTH)).unwrap();
    let error = Pattern::parse(&of_length(Pattern::MAX_LENGTH + 1)).unwrap_err();
    assert!(
        error.problem.starts_with("it has 4097 characters"),
        "{error}"
    );

    let deep = |depth: usize| format!("{}[1]{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    Pattern::parse(&deep(Pattern::MAX_DEPTH)).unwrap();
    let error = Pattern::parse(&deep(Pattern::MAX_DEPTH + 1)).unwrap_err();
    assert!(error.problem.starts_with("more than 32 objects"), "{error}");
    assert!(error.path.ends_with(".a.a"), "{error}");

    let wide = |tests: usize| {
        let tests = vec!["1"; tests - 1].join(",");
        format!(r#"{{"a":[{tests}],"b":[1]}}"#)
    };
    Pattern::parse(&wide(Pattern::MAX_TESTS)).unwrap();
    let error = Pattern::parse(&wide(Pattern::MAX_TESTS + 1)).unwrap_err();
    assert_eq!(error.path, "$.b[0]");
    assert!(error.problem.contains("more than 300 tests"), "{error}");

    // An error shows no more of a value than is read at a glance.
    let error = Pattern::parse(&format!(r#"{{"a":"{}"}}"#, "x".repeat(4000))).unwrap_err();
    assert!(error.problem.len() < 200, "{error}");
}

#[test]
fn the_last_of_equal_names_counts() {
    let text = r#"{"data": {"k": ["hello"], "u": ["test123"], "k": ["world"]}}"#;
    let pattern = Pattern::parse(text).unwrap();
    assert!(pattern.matches(&json!({"data": {"k": "world", "u": "test123"}})));
    assert!(!pattern.matches(&json!({"data": {"k": "hello", "u": "test123"}})));
}

#[test]
fn patterns_are_equal_by_their_text() {
    let parse = |text| Pattern::parse(text).unwrap();
    assert_eq!(parse(r#"{"a":[1]}"#), parse(r#"{"a":[1]}"#));
    assert_ne!(parse(r#"{"a":[1]}"#), parse(r#"{"a": [1]}"#));
}

/// The table of "Properly filtering Amazon SQS messages" in Lambda's developer guide.
#[test]
fn messages_match_by_lambdas_table() {
    let plain = r#"{"body": [{"prefix": "Result: "}]}"#;
    let json_form = r#"{"body": {"RequestCode": ["BBBB"]}}"#;
    let none = r#"{"messageAttributes": {"kind": {"stringValue": ["order"]}}}"#;
    let record = json!({"messageAttributes": {"kind": {"stringValue": "order"}}});
    for (body, pattern, expected) in [
        // Plain string, plain string.
        ("Result: 5", plain, true),
        ("5", plain, false),
        // Plain string, no pattern for the body: the others only.
        ("anything", none, true),
        // Plain string, valid JSON: dropped.
        ("RequestCode: BBBB", json_form, false),
        // Valid JSON, plain string: dropped.
        (r#"{"Result: ": 1}"#, plain, false),
        // Valid JSON, no pattern for the body.
        ("{}", none, true),
        // Valid JSON, valid JSON.
        (
            r#"{"RecordNumber": 1234, "RequestCode": "BBBB"}"#,
            json_form,
            true,
        ),
        (r#" [{"RequestCode": "BBBB"}]"#, json_form, true),
        (
            r#"{"RecordNumber": 1234, "RequestCode": "AAAA"}"#,
            json_form,
            false,
        ),
        // Dropped, though what it asks for is so.
        ("plain", r#"{"body": {"x": [{"exists": false}]}}"#, false),
        ("{}", r#"{"body": [{"exists": false}]}"#, false),
        ("{}", r#"{"body": {"x": [{"exists": false}]}}"#, true),
        // Numbers alone are texts, and so is what only begins like JSON.
        ("42", r#"{"body": ["42"]}"#, true),
        ("42", r#"{"body": [42]}"#, false),
        (
            "[info] started",
            r#"{"body": [{"prefix": "[info]"}]}"#,
            true,
        ),
        // Either of them.
        (
            "Result: 1",
            r#"{"$or": [{"body": {"a": [1]}}, {"body": ["Result: 1"]}]}"#,
            true,
        ),
        (
            "Result: 2",
            r#"{"$or": [{"body": {"a": [1]}}, {"body": ["Result: 1"]}]}"#,
            false,
        ),
    ] {
        let pattern = Pattern::for_messages(pattern).unwrap();
        let matches = pattern.matches_message(body, &record);
        assert_eq!(matches, expected, "{body} {pattern:?}");
    }
    let other = Pattern::for_messages(none).unwrap();
    assert!(!other.matches_message("anything", &json!({"messageAttributes": {}})));
}

#[test]
fn patterns_for_messages_name_what_messages_have() {
    for text in [
        r#"{"RequestCode": ["BBBB"]}"#,
        r#"{"$or": [{"body": ["x"]}, {"RequestCode": [1]}]}"#,
    ] {
        let error = Pattern::for_messages(text).unwrap_err();
        assert_eq!(error.path, "$.RequestCode");
        assert!(error.problem.contains("use `{\"body\": …}`"), "{error}");
    }
    Pattern::for_messages(r#"{"body": {"RequestCode": ["BBBB"]}, "messageId": ["x"]}"#).unwrap();
}

#[test]
fn one_pattern_of_a_filter_is_enough() {
    let filter = Filter::for_messages([r#"{"body": ["a"]}"#, r#"{"body": ["b"]}"#]).unwrap();
    let unused = || -> Value { panic!("only the body is looked at") };
    assert!(filter.matches_message("a", unused) && filter.matches_message("b", unused));
    assert!(!filter.matches_message("c", unused));
    let ids = Filter::for_messages([r#"{"messageId": ["1"]}"#]).unwrap();
    assert!(ids.matches_message("c", || json!({"messageId": "1"})));
    assert!(Filter::default().matches_message("c", unused));
    assert!(Filter::default().matches(&json!(1)));
    assert!(
        Filter::parse([r#"{"x": [1]}"#])
            .unwrap()
            .matches(&json!({"x": 1}))
    );

    let many = vec![r#"{"body": ["a"]}"#; Filter::MAX_PATTERNS];
    assert_eq!(
        Filter::parse(many).unwrap().patterns().len(),
        Filter::MAX_PATTERNS
    );
    let error = Filter::parse(vec!["{}"; Filter::MAX_PATTERNS + 1]).unwrap_err();
    assert_eq!(error, InvalidFilter::TooMany(11));
    let error = Filter::parse([r#"{"x": [1]}"#, "{}"]).unwrap_err();
    assert_eq!(error.to_string(), "pattern 2 of the filter");
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ]
}

fn event() -> impl Strategy<Value = Value> {
    let value = leaf().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z$.]{1,3}", inner, 1..3)
                .prop_map(|map| map.into_iter().collect()),
        ]
    });
    prop::collection::btree_map("[a-z]{1,3}", value, 1..3).prop_map(|map| map.into_iter().collect())
}

/// The pattern that asks for one element of each list of an event, and all fields of it.
fn of(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), of(value)))
            .collect(),
        Value::Array(list) => of(list.last().expect("lists have elements here")),
        leaf => json!([leaf]),
    }
}

proptest! {
    #[test]
    fn an_event_matches_its_own_values(event in event()) {
        let pattern = Pattern::parse(&of(&event).to_string()).unwrap();
        prop_assert!(pattern.matches(&event));
        // As text and back, as events come.
        let event: Value = serde_json::from_str(&event.to_string()).unwrap();
        prop_assert!(pattern.matches(&event));
        prop_assert!(pattern.matches_message("", &event) || event.get("body").is_some());
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]{}\":,a$1. *\\\\-]{0,40}") {
        let _ = Pattern::parse(&text);
    }

    #[test]
    fn a_wildcard_is_what_a_backtracking_search_says(
        wildcard in "[ab]{0,3}(\\*[ab]{1,2}){0,3}\\*?",
        text in "[ab]{0,10}",
    ) {
        fn slow(wildcard: &[u8], text: &[u8]) -> bool {
            match wildcard.split_first() {
                None => text.is_empty(),
                Some((b'*', rest)) => (0..=text.len()).any(|at| slow(rest, &text[at..])),
                Some((first, rest)) => text.split_first().is_some_and(|(char, text)| {
                    char == first && slow(rest, text)
                }),
            }
        }
        let pattern = pattern(&json!({"a": [{"wildcard": &wildcard}]}));
        let expected = slow(wildcard.as_bytes(), text.as_bytes());
        prop_assert_eq!(pattern.matches(&json!({"a": text})), expected);
    }
}
