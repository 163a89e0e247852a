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
