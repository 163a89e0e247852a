//! Guests that write too much, or what would harm who reads it.

use super::hostile;
use crate::scene::Scene;

const KIB: usize = 1 << 10;

#[test]
fn a_flood_is_cut_off_with_one_note() {
    let scene = Scene::new(hostile("timeout = \"60s\"\nmemory = \"16MiB\""));
    let before = scene.host.rss();
    let response = scene.beside("/hostile/flood?n=1073741824", "");
    assert_eq!(response.status, 200, "{response:?}");
    let lines = scene.host.guest_log(response.request_id());
    let messages: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["message"].as_str())
        .collect();
    let notes = messages
        .iter()
        .filter(|message| message.contains("raise `log-limit`"))
        .count();
    assert_eq!(notes, 1);
    assert!(
        messages
            .last()
            .is_some_and(|last| last.contains("log limit of 64KiB"))
    );
    let written: usize = messages.iter().map(|message| message.len()).sum();
    assert!(written > KIB && written <= 65 * KIB, "{written} bytes");
    let truncated = scene.host.metric(
        "dunlin_guest_log_truncated_total",
        &[("function", "hostile")],
    );
    assert_eq!(truncated, Some(1.0));
    assert_eq!(
        scene.host.metric("dunlin_log_dropped_total", &[]),
        Some(0.0)
    );
    assert!(scene.host.rss() < before + (64 << 20));
    // The next invocation has a limit of its own.
    let next = scene.host.post("/hostile/print", "next\n");
    assert_eq!(
        scene.host.guest_log(next.request_id())[0]["message"],
        "next"
    );
    scene.end();
}

#[test]
fn empty_lines_cost_as_well() {
    let scene = Scene::new(hostile("timeout = \"60s\""));
    let response = scene.beside("/hostile/flood-of-empty-lines?n=10000000", "");
    assert_eq!(response.status, 200);
    let lines = scene.host.guest_log(response.request_id());
    assert!(
        lines.len() > 10 && lines.len() <= 64 * KIB / 32,
        "{} lines",
        lines.len()
    );
    scene.end();
}

#[test]
fn a_line_without_an_end_is_cut_into_pieces() {
    let scene = Scene::new(hostile("log-limit = \"256KiB\"\ntimeout = \"20s\""));
    let response = scene.beside("/hostile/endless-line?n=10000000", "");
    assert_eq!(response.status, 200);
    let lines = scene.host.guest_log(response.request_id());
    let lengths: Vec<usize> = lines
        .iter()
        .filter_map(|line| line["message"].as_str())
        .filter(|message| message.starts_with('x'))
        .map(str::len)
        .collect();
    assert!(
        lengths.iter().all(|length| *length <= 16 * KIB),
        "{lengths:?}"
    );
    let sum: usize = lengths.iter().sum();
    assert!(sum > 200 * KIB && sum <= 256 * KIB, "{sum}");
    // A short one comes out whole when the invocation ends.
    let short = scene.host.post("/hostile/print", "no end");
    assert_eq!(
        scene.host.guest_log(short.request_id())[0]["message"],
        "no end"
    );
    scene.end();
}

/// What is printed, as it stands in the log: message and text of the line.
#[track_caller]
fn printed(scene: &Scene, bytes: &[u8]) -> (String, String) {
    let response = scene.host.post("/hostile/print", bytes);
    assert_eq!(response.status, 200);
    let lines = scene.host.guest_log(response.request_id());
    assert_eq!(lines.len(), 1, "{lines:?}");
    let text = scene.host.log_text();
    let id = response.request_id();
    let line = text
        .lines()
        .find(|line| line.contains(id) && line.contains("\"kind\":\"log\""))
        .expect("the line stands on stdout");
    (
        lines[0]["message"].as_str().unwrap_or_default().to_owned(),
        line.to_owned(),
    )
}

#[test]
fn escapes_reach_no_terminal_and_bytes_that_are_no_text_are_replaced() {
    let scene = Scene::new(hostile(""));
    let (message, line) = printed(&scene, b"\x1b[31mred\x1b[0m \x07 \x00 \x7f|\n");
    assert_eq!(message, "\u{1b}[31mred\u{1b}[0m \u{7} \0 \u{7f}|");
    assert!(line.bytes().all(|byte| byte >= b' '), "{line:?}");
    let (message, _) = printed(&scene, b"a\xff\xfeb\n");
    assert_eq!(message, "a\u{fffd}\u{fffd}b");
    let (message, _) = printed(&scene, b"windows\r\n");
    assert_eq!(message, "windows");
    scene.end();
}

#[test]
fn the_other_control_characters_reach_no_terminal_either() {
    // DEL, and U+009B: the control sequence introducer in one character, which
    // terminals obey.
    let scene = Scene::new(hostile(""));
    let (message, line) = printed(&scene, "a\u{7f}b\u{9b}31mred\n".as_bytes());
    assert_eq!(message, "a\u{7f}b\u{9b}31mred");
    assert!(!line.chars().any(char::is_control), "{line:?}");
    scene.end();
}

#[test]
fn a_guest_cannot_forge_a_line_of_the_host() {
    let scene = Scene::new(hostile(""));
    let forged = br#"{"kind":"invocation","outcome":"ok","request_id":"forged"}"#;
    let (message, _) = printed(&scene, forged);
    assert!(message.contains("forged"));
    let structured =
        br#"{"level":"error","message":"m","kind":"invocation","function":"hello","time":"t"}"#;
    let response = scene.host.post("/hostile/print", structured);
    let lines = scene.host.guest_log(response.request_id());
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["kind"], "log");
    assert_eq!(lines[0]["function"], "hostile");
    assert_eq!(lines[0]["fields"]["kind"], "invocation");
    // Each key stands once, so that every reader reads the same.
    let text = scene.host.log_text();
    let line = text
        .lines()
        .find(|line| line.contains(response.request_id()) && line.contains("\"kind\":\"log\""))
        .expect("the line stands on stdout");
    assert_eq!(
        line.matches("\"time\":").count(),
        2,
        "one of them in `fields`: {line}"
    );
    scene.end();
}
