//! The examples in other languages, built from source with the tools of their registries,
//! deployed by their own manifests, and doing their work.

use dunlin_tests::{Host, Language, Response, target_dir};
use serde_json::{Value, json};

#[track_caller]
fn deploy(language: Language) -> Host {
    let component = language.build(&target_dir());
    let component = component.unwrap_or_else(|error| panic!("{error}"));
    let manifest = language.manifest(&component);
    // Kept, so that the next run finds the machine code: that of the large ones takes a core
    // half a minute.
    let state = component.with_extension("state");
    Host::builder()
        .manifest(manifest.unwrap_or_else(|error| panic!("{error}")))
        .args(["--state", state.to_str().expect("a path of ours")])
        .start()
}

/// The status of an answer in JSON, and its value.
#[track_caller]
fn answered(response: &Response) -> (u16, Value) {
    assert_eq!(
        response.header("content-type"),
        Some("application/json"),
        "{response:?}"
    );
    (response.status, response.json())
}

fn error(status: u16, text: &str) -> (u16, Value) {
    (status, json!({ "error": text }))
}

#[test]
fn c_checks_ibans() {
    let host = deploy(Language::C);
    let iban = |number: &str| answered(&host.get(&format!("/iban?number={number}")));
    let checked = |iban: &str, country: &str, valid: bool| {
        (
            200,
            json!({ "iban": iban, "country": country, "valid": valid }),
        )
    };
    assert_eq!(
        iban("GB82+WEST+1234+5698+7654+32"),
        checked("GB82WEST12345698765432", "GB", true)
    );
    assert_eq!(
        iban("d%6589%20370400440532013000&more=1"),
        checked("DE89370400440532013000", "DE", true)
    );
    assert_eq!(
        iban("GB83WEST12345698765432"),
        checked("GB83WEST12345698765432", "GB", false)
    );
    for (number, why) in [
        ("GB82", "an IBAN has 15 characters at least"),
        (
            "82GBWEST12345698765432",
            "an IBAN begins with a country's letters",
        ),
        (
            "GBXXWEST12345698765432",
            "the country is followed by two digits",
        ),
        (
            "GB82%C3%84EST12345698765432",
            "an IBAN has letters and digits only",
        ),
        (
            "GB82%00EST12345698765432",
            "an IBAN has letters and digits only",
        ),
        ("GB82%4", "a % is not followed by two hexadecimal digits"),
        (&"A".repeat(5000), "an IBAN has 34 characters at most"),
    ] {
        assert_eq!(iban(number), error(422, why), "{number}");
    }
    let missing = host.get("/iban?numbers=1&number");
    assert_eq!(
        answered(&missing),
        error(400, "the parameter `number` is missing")
    );
    // What it prints is in the log; two pages of memory are enough for an answer.
    let lines = host.guest_log(missing.request_id());
    assert_eq!(
        (&lines[0]["message"], &lines[0]["level"]),
        (&json!("refused"), &json!("warn")),
        "{lines:?}"
    );
    let good = host.get("/iban?number=GB82WEST12345698765432");
    let record = host.record(good.request_id());
    assert!(
        record["memory_bytes"].as_u64().unwrap() < 3 << 16,
        "{record}"
    );
    let post = host.post("/iban", "");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET")));
    host.stop();
}

#[test]
fn javascript_on_starlingmonkey_makes_messages_of_webhooks() {
    let host = deploy(Language::JavaScript);
    webhooks(&host);
    // What it writes to the console is in the log.
    let refused = host.post("/webhook", "{}");
    let lines = host.guest_log(refused.request_id());
    assert_eq!(lines[0]["message"], "refused", "{lines:?}");
    assert_eq!(
        lines[0]["fields"],
        json!({ "status": 400, "id": refused.request_id() })
    );
    host.stop();
}

#[test]
fn javascript_on_quickjs_makes_messages_of_webhooks() {
    let host = deploy(Language::QuickJs);
    webhooks(&host);
    host.stop();
}

fn webhooks(host: &Host) {
    let send = |method: &str, target: &str, event: &str, body: &str| {
        let headers = [("x-github-event", event)];
        host.http.request(method, target, &headers, body.as_bytes())
    };
    let push = json!({
        "ref": "refs/heads/main",
        "repository": { "full_name": "ada/kites" },
        "pusher": { "name": "ada" },
        "commits": [
            { "id": "0123456789abcdef", "message": "Größe • fix\n\nwhy" },
            { "id": "fedcba9876543210", "message": "two" },
        ],
    })
    .to_string();
    let pushed = send("POST", "/webhook?channel=ops+room%21", "push", &push);
    assert_eq!(
        answered(&pushed),
        (
            200,
            json!({
                "channel": "ops room!",
                "text": "ada pushed 2 commits to main of ada/kites\n\
                         • 0123456 Größe • fix\n• fedcba9 two",
            })
        )
    );
    let issue = json!({
        "action": "opened",
        "issue": { "number": 7, "title": "It falls" },
        "sender": { "login": "eve" },
    });
    let opened = send("POST", "/webhook", "issues", &issue.to_string());
    assert_eq!(
        answered(&opened),
        (
            200,
            json!({ "channel": "general", "text": "eve opened #7: It falls" })
        )
    );
    // One fresh instance after another answers the same.
    for _ in 0..20 {
        let again = send("POST", "/webhook?channel=ops+room%21", "push", &push);
        assert_eq!(again.body, pushed.body);
    }

    let refused = |event: &str, body: &str| answered(&send("POST", "/webhook", event, body));
    for body in ["", "{", "no JSON", "{\"a\": \u{fffd}"] {
        let (status, why) = refused("push", body);
        let why = why["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(status, 400, "{body}: {why}");
        assert!(why.starts_with("the body is no JSON: "), "{body}: {why}");
    }
    for (body, why) in [
        ("{}", "`commits` is no array"),
        ("null", "`commits` is no array"),
        (r#"{"commits": []}"#, "`pusher.name` is no string"),
        (
            r#"{"commits": [], "pusher": {"name": 7}}"#,
            "`pusher.name` is no string",
        ),
    ] {
        assert_eq!(refused("push", body), error(422, why), "{body}");
    }
    assert_eq!(
        refused("star", "{}"),
        error(
            400,
            "the header x-github-event is star, not one of ping, push, issues"
        )
    );
    assert_eq!(refused("constructor", "{}").0, 400);
    let wrong = send("PUT", "/webhook", "push", &push);
    assert_eq!(wrong.header("allow"), Some("POST"));
    assert_eq!(answered(&wrong), error(405, "PUT is not answered here"));
    let too_large = host.post("/webhook", vec![b' '; (1 << 20) + 1]);
    assert_eq!(too_large.status, 413);
}

#[test]
fn python_sums_up_tables() {
    let host = deploy(Language::Python);
    let send = |method: &str, target: &str, body: &[u8]| {
        answered(&host.http.request(method, target, &[], body))
    };
    let table = "thing,price\nkite,42\nboat,8.5\nball,\n\"a, b\",10\n";
    let summary = json!({
        "column": "price", "count": 3, "min": 8.5, "max": 42.0, "mean": 20.166_666_666_666_668,
        "median": 10.0, "deviation": 18.923_089_952_048_88,
    });
    // One fresh instance after another answers the same.
    for _ in 0..5 {
        let (status, mut answer) = send("POST", "/statistics?column=price", table.as_bytes());
        let mut expected = summary.clone();
        for name in ["mean", "deviation"] {
            let (found, wanted) = (answer[name].take(), expected[name].take());
            let difference = found.as_f64().unwrap() - wanted.as_f64().unwrap();
            assert!(difference.abs() < 1e-9, "{name}: {found}, not {wanted}");
        }
        assert_eq!((status, answer), (200, expected));
    }
    host.wait_for_metric(
        "dunlin_guest_counter_total",
        &[("name", "statistics_numbers")],
        |n| n == 15.0,
    );
    let one = send("POST", "/statistics?column=%C3%A4", "ä\n1\n".as_bytes());
    assert_eq!((one.0, &one.1["deviation"]), (200, &Value::Null));

    let refused = |target: &str, body: &[u8]| send("POST", target, body);
    assert_eq!(
        refused("/statistics", table.as_bytes()),
        error(400, "the parameter `column` is missing")
    );
    assert_eq!(
        refused("/statistics?column=size", table.as_bytes()),
        error(422, "there is no column `size`, but ['thing', 'price']")
    );
    assert_eq!(
        refused("/statistics?column=thing", table.as_bytes()),
        error(422, "line 2: `kite` is no number")
    );
    assert_eq!(
        refused("/statistics?column=price", b"price\n1\nnan\n"),
        error(422, "line 3: `nan` is no number")
    );
    assert_eq!(
        refused("/statistics?column=price", b""),
        error(422, "there is no column `price`, but no table")
    );
    assert_eq!(
        refused("/statistics?column=price", b"price\n\xff\n"),
        error(400, "the body is not UTF-8: invalid start byte at byte 6")
    );
    let wrong = host
        .http
        .request("PUT", "/statistics?column=price", &[], table.as_bytes());
    // What it prints is in the log.
    let lines = host.guest_log(wrong.request_id());
    assert_eq!(
        (&lines[0]["message"], &lines[0]["level"]),
        (&json!("refused"), &json!("warn")),
        "{lines:?}"
    );
    assert_eq!(
        lines[0]["fields"],
        json!({ "why": "PUT is not answered here" })
    );
    assert_eq!(wrong.header("allow"), Some("POST"));
    assert_eq!(answered(&wrong), error(405, "PUT is not answered here"));
    host.stop();
}
