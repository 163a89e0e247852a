//! `dunlin schedule`: what an operator sees of schedules.

use std::process::Output;
use std::time::{Duration, SystemTime};

use dunlin_tests::{Host, guest};
use serde_json::Value;

use super::{run, stderr, stdout};

fn ls(host: &Host, args: &[&str]) -> Output {
    let url = format!("http://{}", host.admin.address());
    let state = host.state();
    let mut all = vec!["schedule", "ls"];
    all.extend_from_slice(args);
    all.extend(["--host", &url, "--state", state.to_str().unwrap()]);
    run(host.folder(), &all)
}

#[track_caller]
fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

#[test]
fn schedules_are_listed_with_what_came_and_what_comes() {
    let soon = time::OffsetDateTime::from(SystemTime::now() + Duration::from_secs(4));
    let soon = soon.replace_nanosecond(0).unwrap();
    let form = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let soon = soon.format(form).unwrap();
    let manifest = format!(
        r#"
        [function.consumer]
        component = {:?}

        [[function.consumer.schedule]]
        name = "yearly"
        when = "cron(30 2 29 3 ? 2096-2100)"
        zone = "Europe/Berlin"

        [[function.consumer.schedule]]
        name = "soon"
        when = "at({soon})"

        [[function.consumer.schedule]]
        name = "paused"
        when = "rate(5 minutes)"
        enabled = "off"
        "#,
        guest("consumer").display().to_string()
    );
    let host = Host::builder().manifest(manifest).start();
    let years = [
        "2096-03-29T02:30:00+02:00",
        "2097-03-29T02:30:00+01:00",
        "2098-03-29T02:30:00+01:00",
        "2099-03-29T03:00:00+02:00",
        "2100-03-29T02:30:00+02:00",
    ];
    let yearly = format!(
        "consumer\tyearly\tcron(30 2 29 3 ? 2096-2100)\tEurope/Berlin\tenabled\t-\t{}\n",
        years.join(" ")
    );
    let paused = "consumer\tpaused\trate(5 minutes)\tUTC\tpaused\t-\t-\n";
    let text = said(&ls(&host, &[]));
    assert!(text.starts_with(&yearly), "{text}");
    assert!(text.ends_with(paused), "{text}");

    host.wait_for_log(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("tick schedule=soon") && message.contains(&format!("soon@{soon}Z"))
    });
    let fired = format!("consumer\tsoon\tat({soon})\tUTC\tenabled\t{soon}+00:00\t-\n");
    assert_eq!(said(&ls(&host, &[])), format!("{yearly}{fired}{paused}"));

    let text = said(&ls(&host, &["--json"]));
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["Name"], "yearly");
    assert_eq!(lines[0]["Next"], serde_json::json!(years));
    assert_eq!(lines[0]["Last"], Value::Null);
    assert_eq!(lines[1]["Last"], format!("{soon}+00:00"));
    assert_eq!(lines[2]["State"], "paused");
    host.stop();
}

#[test]
fn without_a_host_it_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        folder.path(),
        &["schedule", "ls", "--host", "http://127.0.0.1:1"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no host answers at http://127.0.0.1:1; start one with"),
        "{}",
        stderr(&output)
    );
}
