//! Guests that take resources of the host and never give them back.

use super::hostile;
use crate::scene::{Scene, TIMEOUT, trap};

#[test]
fn a_million_handles_end_at_the_cap() {
    let scene = Scene::new(hostile("timeout = \"20s\""));
    let before = scene.host.rss();
    assert_eq!(scene.host.get("/hostile/handles?n=1000").text(), "1000");
    let record = scene.ends("/hostile/handles?n=1000000", &trap(""));
    let message = record["message"].as_str().unwrap_or_default();
    // An author can tell what went wrong.
    assert!(
        message.contains("table") || message.contains("handle"),
        "{record}"
    );
    for _ in 0..20 {
        let response = scene.host.get("/hostile/handles?n=1000000");
        assert_eq!(response.status, 502);
    }
    assert!(
        scene.host.rss() < before + (64 << 20),
        "{before}, then {}",
        scene.host.rss()
    );
    scene.end();
}

#[test]
fn ten_thousand_timers_one_after_another_are_no_harm() {
    let scene = Scene::new(hostile("timeout = \"20s\""));
    assert_eq!(scene.beside("/hostile/timers?n=10000", "").text(), "done\n");
    scene.end();
}

#[test]
fn who_waits_for_many_timers_is_ended_at_the_deadline() {
    // Each timer is two entries in the table, which has 4096.
    let scene = Scene::new(hostile("timeout = \"1s\""));
    scene.ends("/hostile/wait-for-many?n=2000", &TIMEOUT);
    scene.end();
}

#[test]
fn a_list_of_a_million_handles_to_poll_is_ended() {
    let scene = Scene::new(hostile("timeout = \"2s\""));
    let before = scene.host.rss();
    // A trap or the deadline, whichever comes first.
    let response = scene.beside("/hostile/poll-one-often?n=1000000", "");
    assert!(matches!(response.status, 502 | 504), "{response:?}");
    assert_eq!(scene.host.get("/hostile/ok").status, 200);
    assert!(
        scene.host.rss() < before + (256 << 20),
        "{before}, then {}",
        scene.host.rss()
    );
    scene.end();
}
