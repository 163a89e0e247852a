//! `[host.mount.NAME]` and `[[function.NAME.mount]]`.

use super::*;

fn mountable(path: PathBuf, access: Access) -> Mountable {
    Mountable { path, access }
}

#[test]
fn every_key_of_a_mount_counts() {
    let folder = Folder::new();
    folder.file("up/x", b"");
    let path = folder.path("up");
    let text = format!(
        "[host.mount.up]\npath = \"up\"\naccess = \"read-write\"\n\
         [host.mount.Seen_1]\npath = {:?}\n\
         {}[[function.f.mount]]\nfrom = \"up\"\nto = \"/data\"\naccess = \"read-write\"\n\
         [[function.f.mount]]\nfrom = \"Seen_1\"\nto = \"/data-2/x\"\n\
         [[function.f.mount]]\nfrom = \"up\"\nto = \"/..data\"\n",
        path.display().to_string(),
        function("")
    );
    let config = folder.ok(&text);
    assert_eq!(
        config.host.mounts,
        [
            ("Seen_1", mountable(path.clone(), Access::ReadOnly)),
            ("up", mountable(path.clone(), Access::ReadWrite)),
        ]
        .map(|(name, it)| (name.to_owned(), it))
        .into()
    );
    let mount = |from: &str, to: &str, access| Mount {
        from: from.to_owned(),
        path: path.clone(),
        to: to.to_owned(),
        access,
    };
    assert_eq!(
        config.functions[0].mounts,
        [
            mount("up", "/data", Access::ReadWrite),
            mount("Seen_1", "/data-2/x", Access::ReadOnly),
            mount("up", "/..data", Access::ReadOnly),
        ]
    );
}

#[test]
fn a_directory_to_mount_need_not_be_there_to_build() {
    let mut folder = Folder::new();
    folder.values = Values::Skip;
    let config = folder.ok("[host.mount.up]\npath = \"/nowhere/at/all\"");
    assert_eq!(
        config.host.mounts["up"],
        mountable("/nowhere/at/all".into(), Access::ReadOnly)
    );
}

#[test]
fn problems_of_what_the_host_lets_be_mounted_are_named() {
    let folder = Folder::new();
    for (text, expected) in [
        (
            "[host.mount]\n\"a b\" = { path = \".\" }",
            "2: host.mount.\"a b\": cannot name a directory to mount; use 1 to 64 letters, digits, \
             `-` and `_`",
        ),
        (
            "[host]\nmount = 1",
            "2: host.mount: no table but of type integer; write `[host.mount]` or `{ KEY = … }`",
        ),
        (
            "[host.mount.a]",
            "1: host.mount.a: `path` is missing; name a directory of this machine",
        ),
        (
            "[host.mount.a]\npath = \"\"",
            "2: host.mount.a.path: \"\": an empty path; name a directory of this machine",
        ),
        (
            "[host.mount.a]\npath = \"nowhere\"",
            "2: host.mount.a.path: \"nowhere\": no such directory; create it, or correct the path, \
             which counts from the manifest's folder",
        ),
        (
            "[host.mount.a]\npath = \"ok.wasm\"",
            "2: host.mount.a.path: \"ok.wasm\": not a directory; create it, or correct the path, \
             which counts from the manifest's folder",
        ),
        (
            "[host.mount.a]\npath = \"ok.wasm/x\"",
            "2: host.mount.a.path: \"ok.wasm/x\": cannot be looked at: Not a directory (os error \
             20); let the host's user reach it",
        ),
        (
            "[host.mount.a]\npath = \".\"\naccess = \"all\"",
            "3: host.mount.a.access: \"all\": unknown word; use `read-only` or `read-write`",
        ),
        (
            "[host.mount.a]\npath = \".\"\nto = \"/data\"",
            "3: host.mount.a.to: unknown key; the keys here are `path` and `access`",
        ),
    ] {
        let expected = [format!("dunlin.toml:{expected}")];
        assert_eq!(folder.problems(text), expected, "{text}");
    }
}

#[test]
fn problems_of_what_a_function_mounts_are_named() {
    let folder = Folder::new();
    let host = "[host.mount.seen]\npath = \".\"\n";
    let long = format!("/{}", "x".repeat(255));
    for (keys, expected) in [
        (
            "to = \"/data\"",
            "5: function.f.mount[0]: `from` is missing; name a directory of `[host.mount]`".into(),
        ),
        (
            "from = \"seen\"",
            "5: function.f.mount[0]: `to` is missing; write where the function finds it, such as \
             `to = \"/data\"`"
                .into(),
        ),
        (
            "to = \"/data\"\nfrom = \"sene\"",
            "7: function.f.mount[0].from: \"sene\": the host has no directory of that name to \
             mount; declare it as `[host.mount.sene]`"
                .into(),
        ),
        (
            "to = \"/data\"\nfrom = \"seen\"\naccess = \"read-write\"",
            "8: function.f.mount[0].access: \"read-write\": more than the host allows: `seen` is \
             read-only; leave it out, or set `access` of `[host.mount.seen]`"
                .into(),
        ),
        (
            "to = \"/data\"\nfrom = \"seen\"\npath = \"/srv\"",
            "8: function.f.mount[0].path: unknown key; the keys here are `from`, `to` and `access`"
                .to_owned(),
        ),
    ]
    .into_iter()
    .chain(
        [
            ("data", "it does not begin with `/`"),
            ("", "it does not begin with `/`"),
            ("/", "the root itself cannot be mounted"),
            ("/a/../b", "a part `.` or `..` in the path"),
            ("/a/.", "a part `.` or `..` in the path"),
            ("/a/", "an empty part in the path"),
            ("//a", "an empty part in the path"),
            ("/a\\u0000", "a control character in the path"),
            (&*long, "longer than 255 bytes"),
        ]
        .map(|(to, what)| {
            let keys = &*format!("from = \"seen\"\nto = \"{to}\"").leak();
            let shown = match to.len() {
                81.. => format!("\"{}\"…", &to[..80]),
                _ => format!("\"{}\"", to.replace("\\u0000", "\\0")),
            };
            let expected = format!(
                "7: function.f.mount[0].to: {shown}: {what}; write an absolute path such as `/data`"
            );
            (keys, expected)
        }),
    ) {
        let text = format!("{host}{}[[function.f.mount]]\n{keys}\n", function(""));
        let text = text.replace("\n\n", "\n");
        let expected = [format!("dunlin.toml:{expected}")];
        assert_eq!(folder.problems(&text), expected, "{text}");
    }
}

#[test]
fn directories_are_mounted_beside_each_other() {
    let folder = Folder::new();
    for (first, second, what) in [
        ("/data", "/data", "`seen` is mounted there already"),
        ("/data", "/data/logs", "it lies within `/data`"),
        ("/data/logs", "/data", "`/data/logs` lies within it"),
    ] {
        let text = format!(
            "[host.mount.seen]\npath = \".\"\n{}\
             mount = [{{ from = \"seen\", to = {first:?} }}, {{ from = \"seen\", to = {second:?} }}]\n",
            function("")
        );
        let found = folder.problems(&text);
        let expected = format!(
            "dunlin.toml:6: function.f.mount[1].to: {second:?}: {what}; mount them beside each other"
        );
        assert_eq!(found, [expected], "{text}");
    }
}

#[test]
fn problems_of_mounts_are_reported_all_at_once() {
    let text = format!(
        "[host.mount.a]\npath = \"nowhere\"\n\
         {}[[function.f.mount]]\nfrom = \"a\"\nto = \"data\"\naccess = \"read-write\"\n\
         [[function.f.mount]]\nfrom = \"b\"\nto = \"/b\"\n",
        function("")
    );
    let found = Folder::new().problems(&text);
    let lines: Vec<&str> = found
        .iter()
        .filter_map(|line| line.split(':').nth(2))
        .collect();
    assert_eq!(
        lines,
        [
            " host.mount.a.path",
            " function.f.mount[0].to",
            " function.f.mount[0].access",
            " function.f.mount[1].from",
        ],
        "{found:?}"
    );
}
