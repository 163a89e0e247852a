//! How many connections there may be.

use std::time::Duration;

use super::up;
use super::wire::Wire;

const TWO: &str = r#"
[host]
max-connections = 2

[function.probe]
component = "{probe}"

[[function.probe.http]]
path = "/probe"
"#;

#[test]
fn connections_beyond_the_most_wait_for_one_to_close() {
    let host = up(TWO);
    let mut first = Wire::connect(host.http.address());
    let mut second = Wire::connect(host.http.address());
    assert_eq!(first.get("/probe").status, 200);
    assert_eq!(second.get("/probe").status, 200);

    let mut third = Wire::connect(host.http.address());
    third.send("GET /probe?third HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(
        third.is_silent_for(Duration::from_millis(300)),
        "it is served although two are"
    );
    assert_eq!(
        second.get("/probe").status,
        200,
        "those that are there go on"
    );
    assert_eq!(host.metric("dunlin_http_connections", &[]), Some(2.0));
    drop(first);
    assert_eq!(third.answer().json()["query"], "third");
    assert_eq!(second.get("/probe").status, 200);
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let host = up(super::PROBE);
    for number in 0..300 {
        let mut wire = Wire::connect(host.http.address());
        match number % 4 {
            0 => assert_eq!(wire.get("/probe").status, 200),
            1 => wire.send("GET /probe HTTP/1.1\r\n"),
            2 => wire.reset(),
            _ => {}
        }
    }
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
    host.wait_until_quiet();
    assert_eq!(host.metric("dunlin_http_accepted_total", &[]), Some(300.0));
}
