//! Scratch directories and sockets: what a function may use up, and whom it may reach.

use super::*;

#[test]
fn scratch_has_a_range_and_fits_into_the_hosts_budget() {
    let folder = Folder::new();
    for (budget, scratch, expected) in [
        ("1GiB", "1MiB", Ok(ByteSize::mib(1))),
        ("10GiB", "10GiB", Ok(ByteSize::mib(10 << 10))),
        (
            "10GiB",
            "1048575B",
            Err("1048575B\": too small; allowed is 1MiB to 10GiB"),
        ),
        (
            "16GiB",
            "10241MiB",
            Err("10241MiB\": too large; allowed is 1MiB to 10GiB"),
        ),
        (
            "512MiB",
            "513MiB",
            Err(
                "513MiB\": above the host's `scratch-budget` of 512MiB; lower it, or raise \
                 `scratch-budget`",
            ),
        ),
        (
            "0B",
            "1MiB",
            Err(
                "1MiB\": above the host's `scratch-budget` of 0B; lower it, or raise \
                 `scratch-budget`",
            ),
        ),
    ] {
        let host = host(&format!("scratch-budget = \"{budget}\""));
        let text = format!("{host}{}", function(&format!("scratch = \"{scratch}\"")));
        match expected {
            Ok(size) => assert_eq!(folder.ok(&text).functions[0].scratch, Some(size), "{text}"),
            Err(what) => {
                let expected = format!("dunlin.toml:5: function.f.scratch: \"{what}");
                assert_eq!(folder.problems(&text), [expected], "{text}");
            }
        }
    }
    assert_eq!(folder.ok(&function("")).functions[0].scratch, None);
}

#[test]
fn nothing_is_mounted_where_scratch_is() {
    let folder = Folder::new();
    for (scratch, to, meets) in [
        ("scratch = \"1MiB\"\n", "/tmp", true),
        ("scratch = \"1MiB\"\n", "/tmp/logs", true),
        ("scratch = \"1MiB\"\n", "/tmp2", false),
        ("", "/tmp", false),
    ] {
        let text = format!(
            "[host.mount.seen]\npath = \".\"\n{}{scratch}mount = [{{ from = \"seen\", to = {to:?} }}]\n",
            function("")
        );
        if meets {
            let expected = format!(
                "dunlin.toml:7: function.f.mount[0].to: {to:?}: `scratch` is at `/tmp`; mount it \
                 elsewhere, or leave `scratch` out"
            );
            assert_eq!(folder.problems(&text), [expected], "{text}");
        } else {
            assert_eq!(folder.ok(&text).functions[0].mounts[0].to, to);
        }
    }
}

#[test]
fn sockets_are_listed_within_what_the_host_lists() {
    let folder = Folder::new();
    let with = |host_list: &str, list: &str| {
        let host = host(&format!("sockets = {host_list}"));
        format!("{host}{}", function(&format!("sockets = {list}")))
    };
    let both = "[\"tcp://10.0.0.5:5432\", \"udp://10.0.0.53:53\"]";
    let config = folder.ok(&with(both, "\"udp://10.0.0.53:53\""));
    assert_eq!(config.functions[0].sockets, [peer("udp://10.0.0.53:53")]);
    for other in [
        "udp://10.0.0.5:5432",
        "tcp://10.0.0.5:5433",
        "tcp://10.0.0.6:5432",
    ] {
        let expected = format!(
            "dunlin.toml:5: function.f.sockets: {other:?}: `{other}` is not among the host's \
             `sockets`; leave it out, or list it in `sockets` of `[host]` too"
        );
        let found = folder.problems(&with(both, &format!("{other:?}")));
        assert_eq!(found, [expected]);
    }
}

#[test]
fn a_socket_that_names_nobody_is_named() {
    let folder = Folder::new();
    for (entry, what) in [
        ("db:5432", "it does not begin with `tcp://` or `udp://`"),
        (
            "tcp://db:5432",
            "no IP address and port behind the protocol (names are not looked up)",
        ),
        ("tcp://10.0.0.5:0", "port 0"),
        ("tcp://0.0.0.0:1", "not the address of one machine"),
        (
            "tcp://[::ffff:1.2.3.4]:1",
            "an IPv4 address written as IPv6",
        ),
    ] {
        let expected = format!(
            "dunlin.toml:2: host.sockets: {entry:?}: `{entry}`: {what}; write \
             `tcp://ADDRESS:PORT` or `udp://ADDRESS:PORT` with the IP address of one machine"
        );
        let found = folder.problems(&host(&format!("sockets = {entry:?}")));
        assert_eq!(found, [expected]);
    }
    let many = vec!["\"tcp://10.0.0.5:1\""; 65].join(", ");
    let found = folder.problems(&host(&format!("sockets = [{many}]")));
    assert!(
        found[0].contains("65 entries; list 64 at most"),
        "{found:?}"
    );
    let found = folder.problems(&host("sockets = 5432"));
    assert!(found[0].contains("write a text such as"), "{found:?}");
}
