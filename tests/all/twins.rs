//! The synchronous twins of the handlers serve as the handlers do.

use std::process::Command;

use dunlin_tests::{Host, dunlin, guest};

#[test]
fn a_component_with_the_synchronous_twins_is_served_like_any_other() {
    let host = Host::builder()
        .function("twin", &guest("sync-twin"), "")
        .start();
    let answer = host.get("/twin?x=1");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "GET /twin?x=1")
    );

    let line = host.stderr()[0].clone();
    let admin = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("admin="))
        .expect("the first line names the address");
    let invoke = |data: &str| {
        Command::new(dunlin())
            .args(["invoke", "twin", "--host", admin, "--data", data, "--state"])
            .arg(host.state())
            .output()
            .expect("the program runs")
    };
    let answer = invoke("{\"a\": 1}");
    assert_eq!(
        (answer.status.code(), answer.stdout.as_slice()),
        (Some(0), b"{\"a\": 1}\n".as_slice())
    );
    let failed = invoke("\"fail\"");
    assert_eq!(failed.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&failed.stdout).contains("as asked"));
    host.stop();
}
