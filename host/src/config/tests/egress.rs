use std::time::Duration;

use super::*;
use crate::function::{ByteSize, Destination};

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts
        .iter()
        .map(|text| Rule::parse(text).unwrap())
        .collect()
}

#[test]
fn a_function_lists_what_it_reaches() {
    let folder = Folder::new();
    let listed = |text: &str| folder.ok(text).functions[0].egress.clone();
    assert_eq!(listed(&function("")), Egress::default());
    let short = r#"egress = ["https://api.example.com", "http://*.example.com:8080"]"#;
    let expected = Egress {
        rules: rules(&["https://api.example.com", "http://*.example.com:8080"]),
        ..Egress::default()
    };
    assert_eq!(listed(&function(short)), expected);
    let table = r#"
        [function.f.egress]
        allow = ["https://api.example.com"]
        connections = 4
        requests = 5
        response-limit = "1MiB"
        connect-timeout = "1s"
        first-byte-timeout = "2s"
        between-bytes-timeout = "3s"
    "#;
    let expected = Egress {
        rules: rules(&["https://api.example.com"]),
        connections: 4,
        requests: 5,
        response: ByteSize::mib(1),
        connect_timeout: Duration::from_secs(1),
        first_byte_timeout: Duration::from_secs(2),
        between_bytes_timeout: Duration::from_secs(3),
    };
    assert_eq!(listed(&function(table)), expected);
}

#[test]
fn public_addresses_are_the_ceiling_unless_the_host_says_otherwise() {
    let folder = Folder::new();
    for rule in [
        "https://*",
        "http://*:*",
        "https://8.8.8.8",
        "http://[2606:4700::1]:81",
    ] {
        folder.ok(&function(&format!("egress = [{rule:?}]")));
    }
    for rule in [
        "http://127.0.0.1:8080",
        "http://10.0.0.0/8",
        "http://[::1]",
        "http://0.0.0.0/0",
    ] {
        let text = function(&format!("egress = [{rule:?}]"));
        let [problem] = &folder.problems(&text)[..] else {
            panic!("{rule}");
        };
        let what = format!(
            "`{rule}` is more than the host allows; add `\"{rule}\"` to `egress` of `[host]`"
        );
        assert!(problem.contains(&what), "{problem}");
        assert!(problem.contains("function.f.egress"), "{problem}");
        let granted = host(&format!("egress = [{rule:?}]")) + &text;
        folder.ok(&granted);
    }
    let ceiling = host(r#"egress = ["https://*.example.com"]"#);
    folder.ok(&(ceiling.clone() + &function(r#"egress = ["https://a.example.com"]"#)));
    for rule in ["https://example.net", "http://a.example.com", "https://*"] {
        let text = ceiling.clone() + &function(&format!("egress = {{ allow = [{rule:?}] }}"));
        assert!(
            folder.problems(&text)[0].contains("more than the host allows"),
            "{rule}"
        );
    }
    let nothing = host("egress = []") + &function(r#"egress = ["https://a.example.com"]"#);
    assert!(folder.problems(&nothing)[0].contains("more than the host allows"));
}

#[test]
fn what_is_wrong_with_egress_is_said() {
    let folder = Folder::new();
    for (line, what) in [
        (r#"egress = "https://a""#, "neither a list nor a table"),
        ("egress = {}", "`allow` is missing"),
        ("egress = [1]", "function.f.egress"),
        (
            r#"egress = ["a.example.com"]"#,
            "`a.example.com` cannot be listed: no scheme",
        ),
        (r#"egress = ["https://a/b"]"#, "cannot be listed: a path"),
        ("egress = { allow = [], connections = 0 }", "1 to 1000"),
        ("egress = { allow = [], connections = 1001 }", "1 to 1000"),
        ("egress = { allow = [], requests = 0 }", "1 to 10000"),
        ("egress = { allow = [], requests = 10001 }", "1 to 10000"),
        (
            r#"egress = { allow = [], response-limit = "1B" }"#,
            "egress.response-limit",
        ),
        (
            r#"egress = { allow = [], response-limit = "2TiB" }"#,
            "egress.response-limit",
        ),
        (
            r#"egress = { allow = [], connect-timeout = "0" }"#,
            "egress.connect-timeout",
        ),
        (
            r#"egress = { allow = [], first-byte-timeout = "16m" }"#,
            "egress.first-byte-timeout",
        ),
        (
            r#"egress = { allow = [], between-bytes-timeout = "0" }"#,
            "between-bytes-timeout",
        ),
        ("egress = { allow = [], redirects = 3 }", "redirects"),
    ] {
        let problems = folder.problems(&function(line));
        assert!(
            problems.iter().any(|it| it.contains(what)),
            "{line}: {problems:?}"
        );
    }
    for (line, what) in [
        (r#"egress = ["gopher://a"]"#, "another scheme"),
        ("egress-connections = 0", "1 to 100000"),
        ("egress-connections = 100001", "1 to 100000"),
    ] {
        let problems = folder.problems(&host(line));
        assert!(problems[0].contains(what), "{line}: {problems:?}");
    }
}

#[test]
fn roots_of_trust_come_from_a_file_beside_the_manifest() {
    let folder = Folder::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap();
    folder.file("tls/ca.pem", root.pem().as_bytes());
    let config = folder.ok(&host(r#"ca-file = "tls/ca.pem""#));
    assert_eq!(config.host.egress.roots, [root.der().clone()]);
    folder.file("empty.pem", b"nothing");
    folder.file(
        "bad.pem",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    for (file, what) in [
        ("none.pem", "cannot be read"),
        ("tls", "not a file"),
        ("empty.pem", "no certificate in it"),
        ("bad.pem", "a certificate that nobody can use"),
    ] {
        let problems = folder.problems(&host(&format!("ca-file = {file:?}")));
        assert!(problems[0].contains(what), "{file}: {problems:?}");
        assert!(problems[0].contains("host.ca-file"), "{file}: {problems:?}");
    }
}

#[test]
fn a_destination_may_be_a_url_within_the_ceiling() {
    let folder = Folder::new();
    let policy = |text: &str| folder.ok(text).functions[0].events.clone();
    let text = |url: &str| {
        function(&format!(
            "[function.f.async]\non-success = {{ http = {url:?} }}"
        ))
    };
    let public = policy(&text("https://hooks.example.com:8443/a/b?c=d"));
    assert!(public.posts());
    let Some(Destination::Http(endpoint)) = public.on_success else {
        panic!("{public:?}");
    };
    assert_eq!(endpoint.url(), "https://hooks.example.com:8443/a/b?c=d");
    assert_eq!(
        endpoint.target().to_string(),
        "https://hooks.example.com:8443"
    );
    // It reaches itself, and nothing inside.
    assert_eq!(
        endpoint.reach().rules,
        rules(&["https://hooks.example.com:8443"])
    );
    assert!(!format!("{endpoint:?}").contains("c=d"));
    // A name leads to those addresses inside that the host lists.
    let inside = host(r#"egress = ["http://hooks.lan", "http://10.0.0.0/8", "https://*"]"#);
    let inside = policy(&(inside + &text("http://hooks.lan/")));
    let Some(Destination::Http(endpoint)) = inside.on_success else {
        panic!("{inside:?}");
    };
    let expected = rules(&["http://10.0.0.0/8", "http://hooks.lan"]);
    assert_eq!(endpoint.reach().rules, expected);
    // It says nothing of what the function reaches.
    assert_eq!(
        folder.ok(&text("https://a/")).functions[0].egress,
        Egress::default()
    );
    let failure = function("[function.f.async]\non-failure = { http = \"https://a/\" }");
    assert!(policy(&failure).posts());
    assert!(!policy(&function("")).posts());
    for (url, what) in [
        (
            "http://10.0.0.1/",
            "`http://10.0.0.1` is more than the host allows",
        ),
        ("hooks.example.com", "no URL to post to: no scheme"),
        ("https://a b/", "no URL to post to: no host name"),
        ("https://a/b c", "no URL to post to: no path"),
        ("https://a/#b", "no URL to post to: a `#`"),
        ("https://u:p@a/", "no URL to post to: a user in it"),
    ] {
        let problems = folder.problems(&text(url));
        assert!(problems[0].contains(what), "{url}: {problems:?}");
    }
    let both =
        function("[function.f.async]\non-failure = { http = \"https://a\", function = \"f\" }");
    assert!(folder.problems(&both)[0].contains("exactly one destination"));
}
