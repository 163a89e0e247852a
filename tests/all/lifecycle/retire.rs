//! `shutdown`: told to reused instances that end in good health, and to no other.

use std::time::{Duration, Instant};

use dunlin_tests::{Builder, Host, guest};
use rustix::process::Signal;
use serde_json::Value;

use super::ask;
use crate::drain::Load;

/// The guest `prepared` under `reuse`, ending so.
fn reused(retire: &str, keys: &str) -> Builder {
    let keys = format!("environment = {{ RETIRE = {retire:?} }}\nisolation = \"reuse\"\n{keys}");
    Host::builder().function("prepared", &guest("prepared"), &keys)
}

/// What instances said when they ended.
fn goodbyes(log: &[Value]) -> Vec<String> {
    let messages = log.iter().filter_map(|line| line["message"].as_str());
    let goodbyes = messages.filter(|message| message.starts_with("goodbye after "));
    goodbyes.map(str::to_owned).collect()
}

#[test]
fn a_reused_instance_is_told_at_the_end_of_the_host() {
    // There is but one: none is ready beside it.
    let host = reused("", "provisioned = 0").start();
    for n in 1..=3 {
        assert_eq!(ask(&host)["served"], n);
    }
    // Its line belongs to no invocation.
    let log = host.stop();
    assert_eq!(goodbyes(&log), ["goodbye after 3"]);
    let line = log.iter().find(|line| line["message"] == "goodbye after 3");
    assert!(line.unwrap()["request_id"].is_null(), "{line:?}");
}

#[test]
fn an_instance_that_has_served_nobody_says_nothing() {
    let host = reused("", "provisioned = 4").start();
    // Whichever of them has it.
    let _ = ask(&host);
    assert_eq!(goodbyes(&host.stop()), ["goodbye after 1"]);
}

#[test]
fn neither_a_fresh_instance_is_told_nor_one_that_trapped() {
    let host = Host::builder()
        .function("prepared", &guest("prepared"), "")
        .start();
    let _ = ask(&host);
    assert_eq!(goodbyes(&host.stop()), [""; 0]);

    let host = reused("", "provisioned = 0").start();
    assert_eq!(ask(&host)["served"], 1);
    assert_eq!(host.get("/prepared/fail").status, 502);
    assert_eq!(ask(&host)["served"], 1, "another");
    assert_eq!(goodbyes(&host.stop()), ["goodbye after 1"]);
}

#[test]
fn an_instance_that_has_served_its_number_is_told() {
    let host = reused("", "").start();
    let load = Load::start(host.http.address(), 2, "/prepared");
    let line = host.wait_for_log(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("goodbye after ")
    });
    assert_eq!(load.stop(), [""; 0]);
    let served = line["message"]
        .as_str()
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap();
    let served: u32 = served.parse().unwrap();
    assert!((500..1500).contains(&served), "{served}");
    host.stop();
}

#[test]
fn an_instance_that_gets_nothing_any_more_is_told() {
    let host = reused("", "provisioned = 0").start();
    assert_eq!(ask(&host)["served"], 1);
    // It waits a minute.
    let limit = Duration::from_secs(120);
    host.wait_for_log_within(limit, |line| line["message"] == "goodbye after 1");
    assert_eq!(ask(&host)["served"], 1, "another");
    host.stop();
}

#[test]
fn an_instance_of_a_version_that_is_replaced_is_told() {
    let manifest = |timeout: &str| {
        let component = guest("prepared").display().to_string();
        format!(
            "[function.prepared]\ncomponent = {component:?}\nisolation = \"reuse\"\n\
             timeout = {timeout:?}\n[[function.prepared.http]]\npath = \"/prepared\"\n"
        )
    };
    let host = Host::builder()
        .manifest(manifest("3s"))
        .args(["--watch"])
        .start();
    assert_eq!(ask(&host)["served"], 1);
    let beside = host.manifest().with_extension("new");
    std::fs::write(&beside, manifest("4s")).unwrap();
    std::fs::rename(&beside, host.manifest()).unwrap();
    host.wait_for_log(|line| line["message"] == "goodbye after 1");
    assert_eq!(ask(&host)["served"], 1, "of the new version");
    host.stop();
}

#[test]
fn a_shutdown_is_outside_of_any_invocation() {
    let host = reused("secret", "secrets = { key = { env = \"THE_KEY\" } }")
        .env("THE_KEY", "hush")
        .start();
    assert_eq!(ask(&host)["secret-now"], "hush");
    let log = host.stop();
    assert!(log.iter().any(|line| line["message"] == "secret: None"));
}

/// The host ends in order, and says what became of the `shutdown`.
#[track_caller]
fn ends_all_the_same(retire: &str, keys: &str, what: &str) {
    let host = reused(retire, keys).start();
    assert_eq!(ask(&host)["served"], 1);
    let begun = Instant::now();
    let log = host.stop();
    assert!(begun.elapsed() < Duration::from_secs(30), "{retire}");
    let told = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        line["kind"] == "host"
            && line["level"] == "warn"
            && message.contains("function prepared: the `shutdown`")
            && message.contains(what)
    };
    assert!(log.iter().any(told), "{retire}: {log:?}");
}

#[test]
fn a_shutdown_that_goes_wrong_does_not_hold_the_host() {
    ends_all_the_same("spin", "fuel = \"off\"", "did not end within 2 seconds");
    ends_all_the_same("spin", "fuel = 1000000", "fuel");
    ends_all_the_same("trap", "", "unreachable");
    ends_all_the_same("hoard", "memory = \"32MiB\"", "unreachable");
}

#[test]
fn a_drain_waits_for_it_no_longer_than_its_own_time() {
    let mut host = reused("spin", "fuel = \"off\"")
        .args(["--drain-timeout", "200ms"])
        .start();
    assert_eq!(ask(&host)["served"], 1);
    host.signal(Signal::TERM);
    // Without a word of the `shutdown`: it was not waited for.
    let status = host.wait_for_exit(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0), "{status}");
    let warned = host.log().iter().any(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("`shutdown`")
    });
    assert!(!warned);
}
