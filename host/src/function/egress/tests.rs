use super::*;

fn target(scheme: Scheme, authority: &str) -> Target {
    Target::new(scheme, authority).unwrap_or_else(|error| panic!("{authority}: {error}"))
}

fn egress(rules: &[&str]) -> Egress {
    Egress {
        rules: rules
            .iter()
            .map(|rule| Rule::parse(rule).unwrap())
            .collect(),
        ..Egress::default()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn hosts_are_compared_in_one_form() {
    let https = |authority: &str| target(Scheme::Https, authority).to_string();
    for (authority, expected) in [
        ("API.Example.COM", "https://api.example.com"),
        ("api.example.com.", "https://api.example.com"),
        ("api.example.com:443", "https://api.example.com"),
        ("api.example.com:", "https://api.example.com"),
        ("api.example.com:8443", "https://api.example.com:8443"),
        ("xn--mnchen-3ya.de", "https://xn--mnchen-3ya.de"),
        ("10.0.0.5", "https://10.0.0.5"),
        ("10.0.0.5.", "https://10.0.0.5"),
        ("[::1]:80", "https://[::1]:80"),
        ("[0:0::0:1]", "https://[::1]"),
        ("[::ffff:127.0.0.1]", "https://127.0.0.1"),
        ("[::FFFF:7f00:1]", "https://127.0.0.1"),
        ("_sip.example.com", "https://_sip.example.com"),
    ] {
        assert_eq!(https(authority), expected, "{authority}");
    }
    assert_eq!(target(Scheme::Http, "a").port, 80);
}

#[test]
fn what_some_would_read_as_another_host_is_no_target() {
    for authority in [
        "",
        ".",
        "a..b",
        "user@example.com",
        "user:password@example.com",
        "127.0.0.1@example.com",
        "example.com@127.0.0.1:80",
        "example.com:0",
        "example.com:65536",
        "example.com:+80",
        "example.com:80:80",
        "example.com: 80",
        "exam ple.com",
        "example.com/path",
        "example.com#@a",
        "example.com?a",
        "example.com\\a",
        "ex%61mple.com",
        "münchen.de",
        "ｅxample.com",
        "127.1",
        "127.0.0.01",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "1.2.3.4.5",
        "::1",
        "[::1",
        "[::1]x",
        "[127.0.0.1]",
        "[fe80::1%25eth0]",
        "[v1.a]",
        "-a.example.com",
        "a-.example.com",
    ] {
        let target = Target::new(Scheme::Http, authority);
        assert!(target.is_err(), "{authority}: {target:?}");
    }
    let long = format!("{}.example.com", "a".repeat(64));
    assert!(Target::new(Scheme::Http, &long).is_err());
    let long = ["a".repeat(63).as_str(); 4].join(".");
    assert!(Target::new(Scheme::Http, &long).is_err());
}

#[test]
fn an_address_is_public_special_or_nowhere() {
    for public in [
        "8.8.8.8",
        "1.1.1.1",
        "172.15.255.255",
        "172.32.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "2606:4700::1111",
        "2a00::1",
        "::ffff:8.8.8.8",
        "2002:808:808::1",
        "64:ff9b::8.8.8.8",
    ] {
        assert_eq!(kind(address(public)), Kind::Public, "{public}");
    }
    for special in [
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "169.254.0.1",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
        "240.0.0.1",
        "::1",
        "fd00:ec2::254",
        "fc00::1",
        "fdff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "100::1",
        "4000::1",
        // IPv4 in IPv6: mapped, compatible, translated, 6to4, NAT64.
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:127.0.0.1",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
    ] {
        let kind = kind(address(special));
        assert!(matches!(kind, Kind::Special(_)), "{special}: {kind:?}");
    }
    for never in [
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "::",
        "ff02::1",
        "::ffff:0.0.0.0",
        "2002:e000:1::1",
        "64:ff9b::0.0.0.0",
    ] {
        let kind = kind(address(never));
        // 255.255.255.255 lies in a reserved block, too.
        assert!(matches!(kind, Kind::Never(_)), "{never}: {kind:?}");
    }
}

#[test]
fn a_rule_allows_its_scheme_host_and_port() {
    let allowed = [
        "https://api.example.com",
        "http://api.example.com:8080",
        "https://*.example.org",
        "https://any.example.net:*",
        "http://10.0.0.5:8080",
        "http://[fd00::/8]:8080",
    ];
    let egress = egress(&allowed);
    let admits = |scheme, authority| egress.admits(&target(scheme, authority));
    for authority in [
        "api.example.com",
        "API.EXAMPLE.COM.:443",
        "a.example.org",
        "b.a.example.org",
        "any.example.net:1",
        "any.example.net:65535",
    ] {
        assert!(admits(Scheme::Https, authority), "{authority}");
    }
    for authority in ["api.example.com:8080", "10.0.0.5:8080", "[fd01::1]:8080"] {
        assert!(admits(Scheme::Http, authority), "{authority}");
    }
    for authority in [
        "api.example.com:8443",
        "example.com",
        "x.api.example.com",
        "api.example.com.evil.net",
        "evilapi.example.com",
        "example.org",
        "evilexample.org",
        "example.org.evil.net",
        "10.0.0.5:8080",
    ] {
        assert!(!admits(Scheme::Https, authority), "{authority}");
    }
    for authority in [
        "api.example.com",
        "a.example.org",
        "10.0.0.5",
        "10.0.0.6:8080",
        "[fe80::1]:8080",
        "[::ffff:10.0.0.6]:8080",
    ] {
        assert!(!admits(Scheme::Http, authority), "{authority}");
    }
    assert!(admits(Scheme::Http, "[::ffff:10.0.0.5]:8080"));
}

#[test]
fn a_name_leads_to_public_addresses_and_to_those_that_are_listed() {
    let only_name = egress(&["http://db.example.com:8080"]);
    let with_net = egress(&["http://db.example.com:8080", "http://10.1.0.0/16:8080"]);
    let db = target(Scheme::Http, "db.example.com:8080");
    assert!(only_name.admits(&db) && with_net.admits(&db));
    assert!(only_name.admits_address(&db, address("8.8.8.8")).is_ok());
    for inside in ["10.1.2.3", "::ffff:10.1.2.3"] {
        let inside = address(inside);
        assert_eq!(
            only_name.admits_address(&db, inside),
            Err("a private address")
        );
        assert_eq!(with_net.admits_address(&db, inside), Ok(()));
    }
    for (outside, what) in [
        ("10.2.0.1", "a private address"),
        ("127.0.0.1", "a loopback address"),
        ("169.254.169.254", "a cloud's metadata address"),
        ("fd00:ec2::254", "a cloud's metadata address"),
        ("0.0.0.0", "an unspecified address"),
        // A translator may lead there, but this is not what was listed.
        ("64:ff9b::10.1.2.3", "a private address"),
    ] {
        assert_eq!(with_net.admits_address(&db, address(outside)), Err(what));
    }
    // What is listed for one port is listed for that port.
    let other = egress(&["http://db.example.com:*", "http://10.1.0.0/16:8080"]);
    let ssh = target(Scheme::Http, "db.example.com:22");
    assert!(other.admits(&ssh));
    assert!(other.admits_address(&ssh, address("10.1.2.3")).is_err());
    // Nothing lists an address that nobody has.
    let all = egress(&["http://0.0.0.0/0:*", "http://[::/0]:*"]);
    let it = target(Scheme::Http, "a:1");
    assert!(all.admits_address(&it, address("10.0.0.1")).is_ok());
    assert!(all.admits_address(&it, address("0.0.0.0")).is_err());
    assert!(all.admits_address(&it, address("::")).is_err());
    assert!(all.admits_address(&it, address("224.0.0.1")).is_err());
}

#[test]
fn any_host_is_any_public_one() {
    let any = egress(&["https://*"]);
    assert!(any.admits(&target(Scheme::Https, "example.com")));
    assert!(any.admits(&target(Scheme::Https, "8.8.8.8")));
    assert!(!any.admits(&target(Scheme::Https, "127.0.0.1")));
    assert!(!any.admits(&target(Scheme::Https, "[::ffff:169.254.169.254]")));
    assert!(!any.admits(&target(Scheme::Https, "example.com:8443")));
    let localhost = target(Scheme::Https, "localhost");
    assert!(
        any.admits_address(&localhost, address("127.0.0.1"))
            .is_err()
    );
}

#[test]
fn nothing_is_allowed_by_default() {
    let none = Egress::default();
    assert!(!none.admits(&target(Scheme::Https, "example.com")));
}

#[test]
fn rules_say_what_is_wrong_with_them() {
    for (rule, what) in [
        ("example.com", "no scheme"),
        ("ftp://example.com", "another scheme"),
        ("https://", "no host name"),
        ("https://example.com/", "a path"),
        ("https://example.com/v1", "a path"),
        ("https://user@example.com", "a user in it"),
        ("https://example.com:99999", "no port from 1 to 65535"),
        (
            "https://a.*.example.com",
            "a `*` that is not the first part",
        ),
        ("https://*example.com", "a `*` that is not the first part"),
        ("https://*.10.0.0.1", "an address below which"),
        ("https://10.0.0.5/8", "no block of addresses"),
        ("https://10.0.0.0/33", "no block of addresses"),
        ("https://[fd00::1/8]", "no block of addresses"),
        ("https://[10.0.0.0/8]", "a path"),
        ("https://fd00::1", "no port"),
        (
            "http://0.0.0.0:3000",
            "an unspecified address, which is never reached",
        ),
        ("http://224.0.0.0/8", "a multicast address, which is never"),
        ("http://127.1", "no IPv4 address"),
        ("https://münchen.de", "punycode"),
    ] {
        let error = Rule::parse(rule).expect_err(rule);
        assert!(
            error.what.starts_with(what) || error.what.contains("punycode"),
            "{rule}: {error}"
        );
    }
}

#[test]
fn rules_are_spelled_as_they_are_read() {
    for rule in [
        "https://api.example.com",
        "http://api.example.com:8080",
        "https://*.example.com",
        "https://*",
        "http://*:*",
        "http://10.0.0.5:8080",
        "http://10.0.0.0/8:8080",
        "http://[::1]",
        "http://[fd00::/8]:*",
    ] {
        assert_eq!(Rule::parse(rule).unwrap().to_string(), rule);
    }
}

#[test]
fn a_ceiling_covers_what_lies_in_it() {
    let covers = |ceiling: &str, rule: &str| {
        let (ceiling, rule) = (Rule::parse(ceiling).unwrap(), Rule::parse(rule).unwrap());
        ceiling.covers(&rule)
    };
    for (ceiling, rule) in [
        ("https://*", "https://example.com"),
        ("https://*", "https://*.example.com"),
        ("https://*", "https://8.8.8.8"),
        ("https://*", "https://8.8.8.0/24"),
        ("https://*", "https://[2606:4700::/32]"),
        ("https://*:*", "https://example.com:8443"),
        ("https://*:*", "https://*:*"),
        ("https://*.example.com", "https://a.example.com"),
        ("https://*.example.com", "https://*.example.com"),
        ("https://*.example.com", "https://*.a.example.com"),
        ("http://10.0.0.0/8", "http://10.1.0.0/16"),
        ("http://10.0.0.0/8", "http://10.0.0.5"),
        ("http://0.0.0.0/0:*", "http://127.0.0.1:80"),
    ] {
        assert!(covers(ceiling, rule), "{ceiling} covers {rule}");
    }
    for (ceiling, rule) in [
        ("https://*", "http://example.com"),
        ("https://*", "https://example.com:8443"),
        ("https://*", "https://*:*"),
        ("https://*", "https://127.0.0.1"),
        ("https://*", "https://0.0.0.0/0"),
        ("https://*", "https://8.0.0.0/6"),
        ("https://*", "https://168.0.0.0/8"),
        ("https://*", "https://[::/0]"),
        ("https://*", "https://[2000::/3]"),
        ("https://*", "https://[2002::/16]"),
        ("https://*", "https://[64:ff9b::/96]"),
        ("https://*.example.com", "https://example.com"),
        ("https://*.a.example.com", "https://*.example.com"),
        ("https://*.example.com", "https://evilexample.com"),
        ("https://*.example.com", "https://8.8.8.8"),
        ("http://10.1.0.0/16", "http://10.0.0.0/8"),
        ("http://10.0.0.0/8", "http://example.com"),
    ] {
        assert!(!covers(ceiling, rule), "{ceiling} does not cover {rule}");
    }
}
