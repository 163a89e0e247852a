//! Requests as they should be: connections, routes, headers, answers.

use std::collections::HashSet;

use super::wire::{Wire, get};
use super::{PROBE, up};

#[test]
fn a_connection_serves_many_requests() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    for number in 0..20 {
        let answer = wire.get(&format!("/probe?n={number}"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["query"], format!("n={number}"));
        assert!(!answer.closes());
    }
    assert_eq!(host.metric("dunlin_http_accepted_total", &[]), Some(1.0));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    let mut requests = Vec::new();
    for number in 0..16 {
        // The first are slow: those behind them must not overtake.
        let sleep = if number < 2 { 100 } else { 0 };
        requests.extend_from_slice(
            format!("GET /probe?n={number}&sleep={sleep} HTTP/1.1\r\nhost: box.test\r\n\r\n")
                .as_bytes(),
        );
    }
    wire.send(requests);
    for number in 0..16 {
        let query = wire.answer().json()["query"].as_str().unwrap().to_owned();
        assert!(
            query.starts_with(&format!("n={number}&")),
            "{query} at {number}"
        );
    }
}

#[test]
fn a_pipelined_request_behind_a_body_is_answered() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    wire.send("POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhelloGET /probe?n=2 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(wire.answer().json()["body"], "hello");
    assert_eq!(wire.answer().json()["query"], "n=2");
}

#[test]
fn a_connection_ends_when_the_client_asks() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    wire.send("GET /probe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.status, 200);
    assert!(answer.closes());
    wire.closed();

    let mut wire = Wire::connect(host.http.address());
    wire.send("GET /probe HTTP/1.0\r\n\r\n");
    assert_eq!(wire.answer().status, 200, "HTTP/1.0 may do without a Host");
    wire.closed();
}

#[test]
fn answers_have_a_date_a_length_and_a_request_id_of_their_own() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    let mut ids = HashSet::new();
    for _ in 0..50 {
        let answer = wire.get("/probe");
        let date = answer.header("date").expect("a date");
        assert!(
            date.ends_with(" GMT") && date.len() == "Sat, 21 Nov 2026 03:27:15 GMT".len(),
            "{date}"
        );
        assert_eq!(
            answer.header("content-length"),
            Some(answer.body.len().to_string().as_str())
        );
        let id = answer
            .header("x-amzn-requestid")
            .expect("a request id")
            .to_owned();
        assert_eq!(
            answer.json()["request_id"],
            id.as_str(),
            "the guest knows the same"
        );
        assert!(ids.insert(id), "each has its own");
    }
}

#[test]
fn the_host_answers_for_what_has_no_route() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    let answer = wire.get("/nothing/here");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(wire.get("/probe").status, 200, "the connection goes on");
}

const METHODS: &str = r#"
[function.probe]
component = "{probe}"

[[function.probe.http]]
method = ["GET", "PUT"]
path = "/things/{id}"

[[function.probe.http]]
method = "HEAD"
path = "/head"

[[function.probe.http]]
path = "/every"
"#;

#[test]
fn a_route_takes_its_methods_only() {
    let host = up(METHODS);
    let mut wire = Wire::connect(host.http.address());
    let answer = wire.post("/things/7", b"x");
    assert_eq!(answer.status, 405);
    let allowed: HashSet<&str> = answer
        .header("allow")
        .expect("RFC 9110 asks for Allow")
        .split(", ")
        .collect();
    assert!(
        allowed.contains("GET") && allowed.contains("PUT"),
        "{allowed:?}"
    );
    assert!(!allowed.contains("POST"), "{allowed:?}");
    let mut wire = Wire::connect(host.http.address());
    assert_eq!(wire.get("/things/7").status, 200);
    assert_eq!(wire.post("/every", b"x").json()["method"], "POST");
    wire.send("BREW /every HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(
        wire.answer().json()["method"],
        "BREW",
        "a route for every method means every method"
    );
}

#[test]
fn head_is_get_without_the_body() {
    let host = up(METHODS);
    let mut wire = Wire::connect(host.http.address());
    let got = wire.get("/things/7");
    wire.send("HEAD /things/7 HTTP/1.1\r\nhost: box.test\r\n\r\n");
    let head = wire.head_answer();
    assert_eq!(head.status, 200);
    let length: usize = head
        .header("content-length")
        .expect("the length that GET has")
        .parse()
        .unwrap();
    // The guest saw `HEAD` in place of `GET`.
    assert_eq!(length, got.body.len() + 1);
    assert_eq!(
        wire.get("/things/8").status,
        200,
        "no body came that would be taken for the next answer"
    );

    wire.send("HEAD /head HTTP/1.1\r\nhost: box.test\r\n\r\n");
    assert_eq!(
        wire.head_answer().status,
        200,
        "a route for HEAD answers it"
    );
    assert_eq!(wire.get("/head").status, 405, "but not GET");

    wire.send("HEAD /nothing HTTP/1.1\r\nhost: box.test\r\n\r\n");
    assert_eq!(wire.head_answer().status, 404);
    assert_eq!(wire.get("/things/9").status, 200);
}

const HOSTS: &str = r#"
[function.every]
component = "{probe}"

[[function.every.http]]
path = "/where"

[[function.every.http]]
path = "/only-every"

[[function.every.http]]
path = "/{*rest}"

[function.own]
component = "{probe}"

[[function.own.http]]
host = "api.example.com"
path = "/where"

[[function.own.http]]
host = "api.example.com"
method = "POST"
path = "/only-post"
"#;

#[test]
fn a_route_with_a_host_goes_before_those_without() {
    let host = up(HOSTS);
    let ask = |name: &str, request: &str| {
        let mut wire = Wire::connect(host.http.address());
        wire.send(format!("{request} HTTP/1.1\r\nhost: {name}\r\n\r\n"));
        let answer = wire.answer();
        let id = answer
            .header("x-amzn-requestid")
            .unwrap_or_else(|| panic!("{name} {request}: {answer:?}"))
            .to_owned();
        host.record(&id)["function"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask("api.example.com", "GET /where"), "own");
    assert_eq!(
        ask("API.Example.COM", "GET /where"),
        "own",
        "names have no case"
    );
    assert_eq!(
        ask("api.example.com:8080", "GET /where"),
        "own",
        "the port does not count"
    );
    assert_eq!(ask("www.example.com", "GET /where"), "every");
    assert_eq!(ask("api.example.com.evil", "GET /where"), "every");
    assert_eq!(ask("[::1]:3000", "GET /where"), "every");
    assert_eq!(
        ask("api.example.com", "GET /only-every"),
        "every",
        "what the host lacks, every host has"
    );
    assert_eq!(
        ask("api.example.com", "GET /only-post"),
        "every",
        "a method that its host does not take"
    );
    assert_eq!(
        ask("www.example.com", "GET http://api.example.com/where"),
        "own",
        "the target's authority wins"
    );
}

const PATTERNS: &str = r#"
[function.probe]
component = "{probe}"

[[function.probe.http]]
path = "/users/{id}"

[[function.probe.http]]
path = "/users/me"

[[function.probe.http]]
path = "/users/{id}/files/{*path}"
"#;

#[test]
fn patterns_match_and_parameters_are_decoded() {
    let host = up(PATTERNS);
    let mut wire = Wire::connect(host.http.address());
    let mut ask = |target: &str| {
        let answer = wire.get(target);
        if answer.status != 200 {
            return (answer.status.to_string(), serde_json::Value::Null);
        }
        let json = answer.json();
        assert_eq!(
            json["path"],
            target.split('?').next().unwrap(),
            "the path itself stays as it was sent"
        );
        (
            json["route"].as_str().unwrap().to_owned(),
            json["parameters"].clone(),
        )
    };
    let id = |value: &str| ("/users/{id}".to_owned(), serde_json::json!([["id", value]]));
    assert_eq!(ask("/users/7"), id("7"));
    assert_eq!(
        ask("/users/me"),
        ("/users/me".to_owned(), serde_json::json!([])),
        "a literal goes first"
    );
    assert_eq!(ask("/users/caf%C3%A9"), id("café"));
    assert_eq!(
        ask("/users/a%2Fb"),
        id("a/b"),
        "an encoded slash divides nothing"
    );
    assert_eq!(ask("/users/a+b"), id("a+b"), "plus is plus in a path");
    assert_eq!(ask("/users/%zz"), id("%zz"), "what is no encoding stays");
    assert_eq!(ask("/users/7?id=8"), id("7"));
    assert_eq!(
        ask("/users/7/files/a/b%20c.txt"),
        (
            "/users/{id}/files/{*path}".to_owned(),
            serde_json::json!([["id", "7"], ["path", "a/b c.txt"]])
        )
    );
    assert_eq!(ask("/users/").0, "404");
    assert_eq!(ask("/users/7/").0, "404");
    assert_eq!(ask("/Users/7").0, "404", "paths have case");
}

#[test]
fn a_request_in_absolute_form_is_served() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    wire.send("GET http://box.test:81/probe?x=1 HTTP/1.1\r\nhost: other.test\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(
        (&json["path"], &json["query"]),
        (&"/probe".into(), &"x=1".into()),
        "the guest sees path and query"
    );
    let hosts: Vec<String> = headers(&json)
        .into_iter()
        .filter(|(name, _)| name == "host")
        .map(|(_, v)| v)
        .collect();
    assert_eq!(
        hosts,
        ["box.test:81"],
        "RFC 9112 section 3.2.2: the target's authority replaces the Host header"
    );
}

fn headers(json: &serde_json::Value) -> Vec<(String, String)> {
    serde_json::from_value(json["headers"].clone()).unwrap()
}

#[test]
fn headers_of_the_connection_do_not_reach_the_guest() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    wire.send(
        "POST /probe HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, X-Private\r\nkeep-alive: timeout=5\r\n\
         x-private: secret\r\nte: trailers\r\nproxy-connection: keep-alive\r\nupgrade: websocket\r\n\
         x-kept: 1\r\nX-Kept: 2\r\ntransfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n\
         2\r\nhi\r\n0\r\nx-late: 1\r\n\r\n",
    );
    let json = wire.answer().json();
    assert_eq!(json["body"], "hi");
    let names: Vec<String> = headers(&json).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["host", "x-kept", "x-kept"]);
}

#[test]
fn headers_of_the_connection_do_not_reach_the_client() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    let answer = wire.get(
        "/probe?size=3&header=Connection:close&header=Transfer-Encoding:chunked&header=Content-Length:9999\
         &header=Keep-Alive:timeout%3D1&header=Upgrade:h2c&header=Trailer:x&header=x-kept:1&header=x-kept:2",
    );
    assert_eq!(
        answer.body, b"xxx",
        "framed by the host, whatever the guest said"
    );
    for name in [
        "connection",
        "transfer-encoding",
        "keep-alive",
        "upgrade",
        "trailer",
    ] {
        assert_eq!(answer.header(name), None);
    }
    assert_eq!(answer.values("x-kept"), ["1", "2"]);
    assert_eq!(wire.get("/probe").status, 200, "the connection goes on");
}

#[test]
fn a_guest_cannot_give_its_invocation_another_name() {
    let host = up(PROBE);
    let answer = get(host.http.address(), "/probe?header=x-amzn-requestid:mine");
    let id = answer.header("x-amzn-requestid").expect("one").to_owned();
    assert_eq!(host.record(&id)["outcome"], "ok");
}

#[test]
fn bodies_arrive_whole_in_either_framing() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    let body = vec![b'b'; 1 << 20];
    assert_eq!(wire.post("/probe", &body).json()["length"], body.len());

    wire.send("POST /probe HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n");
    for piece in ["one ", "two ", "three"] {
        wire.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    wire.send("0\r\n\r\n");
    assert_eq!(wire.answer().json()["body"], "one two three");

    wire.send("POST /probe HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    wire.send("5;name=value;quoted=\"a b\"\r\nhello\r\n0;last\r\nx-trailer: 1\r\n\r\n");
    assert_eq!(
        wire.answer().json()["body"],
        "hello",
        "chunk extensions are passed over"
    );
    assert_eq!(wire.get("/probe").json()["body"], "");
}

#[test]
fn a_body_that_is_expected_is_asked_for() {
    let host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    wire.send(
        "POST /probe HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    );
    assert_eq!(wire.answer().status, 100);
    wire.send("hello");
    assert_eq!(wire.answer().json()["body"], "hello");
}

#[test]
fn a_box_without_functions_answers_404() {
    let host = up("");
    assert_eq!(get(host.http.address(), "/").status, 404);
}
