//! `environment` and `secrets`, and where their values are.

use super::*;

#[test]
fn one_newline_at_the_end_of_a_file_is_cut() {
    for (content, value) in [
        ("a", "a"),
        ("a\n", "a"),
        ("a\r\n", "a"),
        ("a\n\n", "a\n"),
        ("a\r", "a\r"),
        ("", ""),
    ] {
        let folder = Folder::new();
        folder.file("s", content.as_bytes());
        let config = folder.ok(&function("secrets = { AB = { file = \"s\" } }"));
        assert_eq!(config.functions[0].secrets[0].value, value);
    }
}

#[test]
fn a_secret_has_up_to_64_kib_and_the_environment_4_kib() {
    let folder = Folder::new();
    let secret = function("secrets = { AB = { file = \"s\" } }");
    let mut content = vec![b'x'; 64 << 10];
    content.extend(b"\r\n");
    folder.file("s", &content);
    assert_eq!(
        folder.ok(&secret).functions[0].secrets[0].value.len(),
        64 << 10
    );
    folder.file("s", &vec![b'x'; (64 << 10) + 1]);
    assert_eq!(
        folder.problems(&secret),
        [
            "dunlin.toml:3: function.f.secrets.AB.file: \"s\": the file is too large; allowed is 64KiB"
        ]
    );

    let environment = |bytes| {
        let value = "x".repeat(bytes - "AB".len());
        function(&format!("environment = {{ AB = \"{value}\" }}"))
    };
    folder.ok(&environment(4096));
    assert_eq!(
        folder.problems(&environment(4097)),
        [
            "dunlin.toml:3: function.f.environment: names and values together are 4097 bytes; \
          allowed is 4KiB, as in Lambda; read more from a `secrets` entry"
        ]
    );
}

#[test]
fn without_values_nothing_needs_to_be_there() {
    let mut folder = Folder::new();
    folder.values = Values::Skip;
    let config = folder.ok(&function(
        "environment = { AB = { env = \"NONE\" } }\nsecrets = { CD = { file = \"none\" } }",
    ));
    assert_eq!(config.functions[0].secrets[0].value, "");
}

#[test]
fn a_secret_is_in_no_message_and_no_debug() {
    let folder = Folder::new();
    folder.file("s", b"hunter2");
    let config = folder.ok(&function(
        "secrets = { AB = { file = \"s\" }, CD = { env = \"KEY\" } }",
    ));
    assert!(!format!("{config:?} {:?}", folder.variables).contains("hunter2"));

    for wrong in [
        "secrets = { AB = \"hunter2\" }",
        "secrets = \"hunter2\"",
        "secrets = [\"hunter2\"]",
        "secret = \"hunter2\"",
        "secrets = { AB = { value = \"hunter2\" } }",
        "secrets = { AB = { env = \"hunter2\" } }",
        "secrets = { AB = { env = [\"hunter2\"] } }",
        "secrets = { AB = \"hunter2",
        "secrets = { AB = hunter2 }",
        "secrets = { AB = \"hunter2\", AB = \"hunter2\" }",
    ] {
        let problems = folder.load(&function(wrong)).expect_err(wrong);
        let shown = format!("{problems} {problems:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
