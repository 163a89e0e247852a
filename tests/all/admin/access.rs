//! Who may come: signatures, web pages, names.

use std::time::{Duration, SystemTime};

use dunlin_tests::{Host, Response};

use super::sign::Key;
use super::{Api, PROBE, is_error};
use crate::http::{box_with, up};

const TARGET: &str = "/2015-03-31/functions/probe/invocations";

/// Signs one request and sends another.
fn send(host: &Host, key: &Key, signed: &[u8], sent: &[u8]) -> Response {
    let authority = host.admin.address().to_string();
    let headers = [("host", authority.as_str())];
    let signature = key.sign("POST", TARGET, &headers, signed);
    let mut all = headers.to_vec();
    all.extend(
        signature
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    host.admin.request("POST", TARGET, &all, sent)
}

#[test]
fn an_invocation_must_be_signed_by_the_hosts_key() {
    let host = up(PROBE);
    let key = Key::read(&host.state().join("admin.key"));
    assert_eq!(send(&host, &key, b"{}", b"{}").status, 200);

    let response = host.admin.request("POST", TARGET, &[], b"{}");
    let error = is_error(&response, 403, "MissingAuthenticationTokenException");
    assert_eq!(error["message"], "Missing Authentication Token");

    let other = Key {
        id: "AKIAIOSFODNN7EXAMPLE".into(),
        ..key.clone()
    };
    let error = is_error(
        &send(&host, &other, b"{}", b"{}"),
        403,
        "UnrecognizedClientException",
    );
    assert_eq!(
        error["message"],
        "The security token included in the request is invalid."
    );

    let other = Key {
        secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        ..key.clone()
    };
    let error = is_error(
        &send(&host, &other, b"{}", b"{}"),
        403,
        "InvalidSignatureException",
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with(
        "The request signature we calculated does not match the signature you provided."
    ));

    let error = is_error(
        &send(&host, &key, b"{\"a\":1}", b"{\"a\":2}"),
        403,
        "InvalidSignatureException",
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("The request signature we calculated does not match")
    );

    let other = Key {
        service: "sqs",
        ..key.clone()
    };
    is_error(
        &send(&host, &other, b"{}", b"{}"),
        403,
        "InvalidSignatureException",
    );
    let other = Key {
        token: Some("token".into()),
        ..key.clone()
    };
    is_error(
        &send(&host, &other, b"{}", b"{}"),
        403,
        "UnrecognizedClientException",
    );

    assert_eq!(
        host.metric("dunlin_invocations_total", &[]),
        Some(1.0),
        "only the first one ran"
    );
    let text: String = host.log().iter().map(ToString::to_string).collect();
    assert!(!text.contains(&key.secret) && !host.stderr().concat().contains(&key.secret));
}

#[test]
fn a_signature_is_good_for_five_minutes_either_way() {
    let host = up(PROBE);
    let key = Key::read(&host.state().join("admin.key"));
    let at = |time| Key {
        time: Some(time),
        ..key.clone()
    };
    let minutes = |n: u64| Duration::from_secs(60 * n);

    assert_eq!(
        send(&host, &at(SystemTime::now() - minutes(4)), b"{}", b"{}").status,
        200
    );
    assert_eq!(
        send(&host, &at(SystemTime::now() + minutes(4)), b"{}", b"{}").status,
        200
    );
    let error = is_error(
        &send(&host, &at(SystemTime::now() - minutes(6)), b"{}", b"{}"),
        403,
        "InvalidSignatureException",
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("Signature expired: "),
        "{error}"
    );
    let error = is_error(
        &send(&host, &at(SystemTime::now() + minutes(6)), b"{}", b"{}"),
        403,
        "InvalidSignatureException",
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("Signature not yet current: "),
        "{error}"
    );
}

#[test]
fn a_body_without_signature_is_not_read() {
    let host = up(PROBE);
    let mut connection = host.admin.connect();
    let address = host.admin.address();
    // The body never comes: the answer does.
    connection.send(format!(
        "POST {TARGET} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 60000\r\n\r\n"
    ));
    assert_eq!(connection.read_response().status, 403);
}

/// What a web page could send, or somebody who has bent a name to this address.
const FOREIGN: [(&str, &str); 5] = [
    ("origin", "https://evil.example"),
    ("origin", "null"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-site", "same-site"),
    ("host", "evil.example"),
];

#[test]
fn web_pages_and_foreign_names_are_refused_also_when_signed() {
    let host = up(PROBE);
    let api = Api::of(&host);
    for header in FOREIGN {
        let authority = host.admin.address().to_string();
        let mut headers = vec![header];
        if header.0 != "host" {
            headers.insert(0, ("host", authority.as_str()));
        }
        let signature = api.key.sign("POST", TARGET, &headers, b"{}");
        headers.extend(
            signature
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let response = host.admin.request("POST", TARGET, &headers, b"{}");
        let error = is_error(&response, 403, "AccessDeniedException");
        assert!(
            error["Message"].as_str().unwrap().contains(header.1),
            "it says what it took offence at: {error}"
        );
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(0.0));
}

#[test]
fn the_guard_stands_before_the_operators_endpoints_too() {
    let host = up(PROBE);
    for path in ["/metrics", "/health", "/ready"] {
        for header in FOREIGN {
            let response = host.admin.request("GET", path, &[header], b"");
            is_error(&response, 403, "AccessDeniedException");
        }
        assert_eq!(host.admin.get(path).status, 200);
    }
}

#[test]
fn the_addresss_own_names_are_taken() {
    let host = up(PROBE);
    let port = host.admin.address().port();
    for (name, status) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("127.0.0.1".to_owned(), 403),
        (format!("127.0.0.1:{}", port ^ 1), 403),
        (format!("127.0.0.1.evil.example:{port}"), 403),
        (format!("127.0.0.2:{port}"), 403),
    ] {
        let response = host
            .admin
            .request("GET", "/health", &[("host", &name)], b"");
        assert_eq!(response.status, status, "{name}");
    }
    let mut connection = host.admin.connect();
    connection.send("GET /health HTTP/1.1\r\n\r\n");
    assert_eq!(connection.read_response().status, 403, "no Host at all");
}

#[test]
fn insecure_admin_waives_signatures_and_nothing_else() {
    let host = box_with(PROBE).args(["--insecure-admin"]).start();
    let response = host
        .admin
        .request("POST", TARGET, &[], b"{\"do\":\"echo\",\"value\":7}");
    assert_eq!((response.status, response.text().as_str()), (200, "7"));
    for header in FOREIGN {
        is_error(
            &host.admin.request("POST", TARGET, &[header], b"{}"),
            403,
            "AccessDeniedException",
        );
    }
    let warned = host.wait_for_log(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("--insecure-admin"))
    });
    assert_eq!(warned["level"], "warn");
    // Clients that sign nevertheless, with whatever key, are served as well.
    let key = Key {
        id: "AKIAIOSFODNN7EXAMPLE".into(),
        ..Key::read(&host.state().join("admin.key"))
    };
    assert_eq!(send(&host, &key, b"{}", b"{}").status, 200);
}

#[test]
fn the_admin_address_is_on_loopback_only() {
    for address in ["0.0.0.0:0", "192.0.2.1:7001", "[::]:0"] {
        let failure = box_with(PROBE)
            .args(["--admin", address])
            .start_expecting_failure();
        assert_eq!(failure.code, 64, "{failure:?}");
        assert!(
            failure.stderr.contains("--admin") && failure.stderr.contains("loopback"),
            "{failure:?}"
        );
    }
}
