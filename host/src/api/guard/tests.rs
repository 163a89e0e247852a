use http::Request;
use http::request::Parts;

use super::*;

fn guard(bound: &str, names: &[&str]) -> Guard {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    Guard::new(bound.parse().expect("an address"), &names).expect("valid names")
}

fn request(target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = Request::builder().uri(target);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let request = builder.body(()).expect("the test's request is valid");
    request.into_parts().0
}

fn check(guard: &Guard, headers: &[(&str, &str)]) -> Result<(), Refusal> {
    let parts = request("/x", headers);
    guard.check(&parts.uri, &parts.headers)
}

#[track_caller]
fn check_hosts(bound: &str, names: &[&str], own: &[&str], foreign: &[&str]) {
    let guard = guard(bound, names);
    for host in own {
        assert_eq!(check(&guard, &[("host", host)]), Ok(()), "{host}");
    }
    for host in foreign {
        let result = check(&guard, &[("host", host)]);
        assert!(
            matches!(result, Err(Refusal::HostForeign { .. })),
            "{host}: {result:?}"
        );
    }
}

#[test]
fn a_loopback_address_has_the_names_of_loopback() {
    for bound in ["127.0.0.1:7100", "[::1]:7100"] {
        check_hosts(
            bound,
            &[],
            &[
                "127.0.0.1:7100",
                "localhost:7100",
                "LocalHost:7100",
                "[::1]:7100",
                "[0:0:0:0:0:0:0:1]:7100",
                "[::ffff:127.0.0.1]:7100",
            ],
            &[
                "",
                "localhost",
                "localhost:7101",
                "localhost:",
                "127.0.0.1",
                "127.0.0.2:7100",
                "10.0.0.1:7100",
                "[::2]:7100",
                "evil.example:7100",
                "localhost.evil.example:7100",
                "evil-localhost:7100",
                "localhost.:7100",
                "0.0.0.0:7100",
                "user@localhost:7100",
                "localhost:7100@evil.example",
                "localhost:7100:7100",
                "localhost:+7100",
                "localhost:7100 ",
                "localhost:72636", // 7100 + 2^16
                "127.0.0.1.:7100",
                "127.1:7100",
                "0177.0.0.1:7100",
                "2130706433:7100",
                "::1:7100",
                "[::1]7100",
                "[::1",
                "[::1%25lo]:7100",
                "[localhost]:7100",
                "local%68ost:7100",
                "localhost,evil.example:7100",
            ],
        );
    }
    check_hosts(
        "127.0.0.2:7100",
        &[],
        &["127.0.0.2:7100", "localhost:7100"],
        &["127.0.0.3:7100"],
    );
}

#[test]
fn another_address_has_only_its_own_name() {
    check_hosts(
        "192.0.2.7:7100",
        &[],
        &["192.0.2.7:7100", "[::ffff:192.0.2.7]:7100"],
        &[
            "localhost:7100",
            "127.0.0.1:7100",
            "[::1]:7100",
            "192.0.2.8:7100",
            "box.local:7100",
        ],
    );
    check_hosts(
        "[2001:db8::7]:7100",
        &[],
        &["[2001:DB8:0::7]:7100"],
        &["[2001:db8::8]:7100"],
    );
}

#[test]
fn a_mapped_ipv4_address_counts_as_ipv4() {
    check_hosts(
        "[::ffff:192.0.2.7]:7100",
        &[],
        &["192.0.2.7:7100", "[::ffff:192.0.2.7]:7100"],
        &["localhost:7100"],
    );
}

#[test]
fn a_wildcard_has_every_address_and_no_foreign_name() {
    for bound in ["0.0.0.0:7100", "[::]:7100"] {
        check_hosts(
            bound,
            &["box.local"],
            &[
                "192.0.2.7:7100",
                "127.0.0.1:7100",
                "[2001:db8::7]:7100",
                "localhost:7100",
                "box.local:7100",
            ],
            &[
                "192.0.2.7:7101",
                "192.0.2.7",
                "evil.example:7100",
                "box.local:7101",
                "192.0.2.7.evil.example:7100",
            ],
        );
    }
}

#[test]
fn names_of_the_configuration_count_with_the_port_that_they_say() {
    check_hosts(
        "127.0.0.1:7100",
        &[
            "Box.Local",
            "tunnel.example:9000",
            "192.0.2.7",
            "192.0.2.8:9000",
            "[2001:db8::7]",
        ],
        &[
            "box.local:7100",
            "BOX.local:7100",
            "tunnel.example:9000",
            "192.0.2.7:7100",
            "192.0.2.8:9000",
            "[2001:db8::7]:7100",
        ],
        &[
            "box.local:9000",
            "tunnel.example:7100",
            "192.0.2.7:9000",
            "192.0.2.8:7100",
        ],
    );
    for name in [
        "",
        "http://box.local",
        "box.local/",
        "a b",
        "*.local",
        "box.local:",
        "box:70000",
        "::1",
    ] {
        let error = Guard::new(
            "127.0.0.1:7100".parse().expect("an address"),
            &[name.to_owned()],
        )
        .expect_err("no name");
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
    }
}

#[test]
fn the_port_of_the_scheme_may_be_left_out() {
    check_hosts(
        "127.0.0.1:80",
        &[],
        &["localhost", "localhost:80"],
        &["localhost:443"],
    );
    check_hosts(
        "0.0.0.0:443",
        &["box.local"],
        &["box.local", "192.0.2.7"],
        &["evil.example"],
    );
}

#[test]
fn the_host_header_comes_exactly_once() {
    let guard = guard("127.0.0.1:7100", &[]);
    let error = check(&guard, &[]).expect_err("missing");
    assert_eq!(
        error.to_string(),
        "the request has no Host header: send the address's own name, such as 127.0.0.1:7100"
    );
    for second in ["localhost:7100", "evil.example"] {
        assert_eq!(
            check(&guard, &[("host", "localhost:7100"), ("host", second)]),
            Err(Refusal::HostRepeated { count: 2 })
        );
    }
}

#[test]
fn the_authority_of_the_target_counts_as_well() {
    let guard = guard("127.0.0.1:7100", &[]);
    let check = |target: &str, headers: &[(&str, &str)]| {
        let parts = request(target, headers);
        guard.check(&parts.uri, &parts.headers)
    };
    let own = ("host", "localhost:7100");
    assert_eq!(check("http://localhost:7100/x", &[]), Ok(()), "HTTP/2");
    assert_eq!(check("http://127.0.0.1:7100/x", &[own]), Ok(()));
    for (target, headers) in [
        ("http://evil.example:7100/x", &[][..]),
        ("http://evil.example:7100/x", &[own]),
        ("http://localhost:7100/x", &[("host", "evil.example")]),
        ("http://user@localhost:7100/x", &[own]),
    ] {
        let result = check(target, headers);
        assert!(
            matches!(result, Err(Refusal::HostForeign { .. })),
            "{target}: {result:?}"
        );
    }
}

#[test]
fn web_pages_are_refused() {
    let guard = guard("127.0.0.1:7100", &[]);
    let check = |name: &str, values: &[&str]| {
        let mut headers = vec![("host", "localhost:7100")];
        headers.extend(values.iter().map(|&value| (name, value)));
        check(&guard, &headers)
    };
    for origin in ["https://evil.example", "null", "", "http://localhost:7100"] {
        let refusal = check("origin", &[origin]).expect_err("a web page");
        assert!(matches!(refusal, Refusal::Origin { .. }), "{refusal:?}");
    }
    for own in ["same-origin", "none"] {
        assert_eq!(check("sec-fetch-site", &[own]), Ok(()));
    }
    for foreign in [
        &["cross-site"][..],
        &["same-site"],
        &[""],
        &["None"],
        &["same-origin, cross-site"],
        &["none", "cross-site"],
        &["something-new"],
    ] {
        let refusal = check("sec-fetch-site", foreign).expect_err("a web page");
        assert!(matches!(refusal, Refusal::CrossSite { .. }), "{refusal:?}");
    }
}

#[test]
fn a_refusal_says_what_was_wrong_and_what_to_do() {
    let guard = guard("127.0.0.1:7100", &[]);
    let refusal = check(&guard, &[("host", "box.local:7100")]).expect_err("foreign");
    assert_eq!(
        refusal.to_string(),
        "Host \"box.local:7100\" is not a name of the admin address: use 127.0.0.1:7100"
    );
    assert_eq!(refusal.status(), StatusCode::FORBIDDEN);
    assert_eq!(refusal.code(), "AccessDeniedException");
}

#[test]
fn what_is_repeated_of_a_request_is_short_and_harmless() {
    let guard = guard("127.0.0.1:7100", &[]);
    let mut parts = request("/x", &[]);
    let mut host = b"\"\xff\t".to_vec();
    host.resize(10_000, b'a');
    let host = http::HeaderValue::from_bytes(&host).expect("valid");
    parts.headers.insert(HOST, host);
    let text = guard
        .check(&parts.uri, &parts.headers)
        .expect_err("foreign")
        .to_string();
    assert!(text.contains(r#"Host "\"�\taaa"#), "{text}");
    assert!(text.len() < 400, "{text}");
}
