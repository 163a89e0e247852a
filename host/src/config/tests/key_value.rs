//! `[key-value.NAME]`, `[[function.NAME.key-value]]` and `[function.NAME.config]`.

use super::*;
use crate::function::{Grant, MAX_CONFIG};
use crate::key_value::{BucketName, Quota};

fn bucket(name: &str) -> BucketName {
    BucketName::new(name).unwrap()
}

#[test]
fn every_key_of_a_bucket_counts() {
    let config = Folder::new().ok(
        "[key-value.carts]\n[key-value.Small_1]\nmax-keys = 10\nmax-value = \"2KiB\"\n\
         max-bytes = \"1MiB\"",
    );
    let small = Quota {
        max_keys: 10,
        max_value: 2048,
        max_bytes: 1 << 20,
    };
    let expected = [
        (bucket("carts"), Quota::default()),
        (bucket("Small_1"), small),
    ];
    assert_eq!(config.buckets, expected);
}

#[test]
fn every_key_of_a_grant_counts() {
    let text = function(
        "[[function.f.key-value]]\nbucket = \"carts\"\n\
         [[function.f.key-value]]\nbucket = \"rates\"\nname = \"default\"\n\
         access = \"read-only\"\n\
         [[function.f.key-value]]\nbucket = \"rates\"\nname = \"\"\naccess = \"read-write\"\n\
         [key-value.carts]\n[key-value.rates]",
    );
    let grant = |name: &str, bucket_name, access| Grant {
        name: name.to_owned(),
        bucket: bucket(bucket_name),
        access,
    };
    assert_eq!(
        Folder::new().ok(&text).functions[0].buckets,
        [
            grant("carts", "carts", Access::ReadWrite),
            grant("default", "rates", Access::ReadOnly),
            grant("", "rates", Access::ReadWrite),
        ]
    );
}

#[test]
fn both_ends_of_each_range_of_a_bucket_are_allowed_and_nothing_beyond() {
    let keys: [(&str, &[&str], &[&str]); 3] = [
        ("max-keys", &["1", "100_000_000"], &["0", "100_000_001"]),
        ("max-value", &["\"1B\"", "\"4MiB\""], &["0", "\"4097KiB\""]),
        (
            "max-bytes",
            &["\"1KiB\"", "\"1024GiB\""],
            &["\"1023B\"", "\"1025GiB\""],
        ),
    ];
    for (key, good, bad) in keys {
        for value in good {
            Folder::new().ok(&format!("[key-value.b]\n{key} = {value}"));
        }
        for value in bad {
            let problems = Folder::new().problems(&format!("[key-value.b]\n{key} = {value}"));
            assert!(
                problems[0].contains(&format!("dunlin.toml:2: key-value.b.{key}: ")),
                "{problems:?}"
            );
        }
    }
}

#[test]
fn problems_of_buckets_and_grants_are_named_with_their_lines() {
    let grant = |lines: &str| {
        function(&format!(
            "[[function.f.key-value]]\n{lines}\n[key-value.carts]"
        ))
    };
    let long = "x".repeat(65);
    for (text, expected) in [
        (
            "[key-value.\"a b\"]".to_owned(),
            "1: key-value.\"a b\": cannot name a bucket; use 1 to 64 letters, digits, `-` and `_`"
                .to_owned(),
        ),
        (
            "[key-value]\ncarts = 1".to_owned(),
            "2: key-value.carts: no table but of type integer; write `[key-value.carts]` or \
             `{ KEY = … }`"
                .to_owned(),
        ),
        (
            "[key-value.carts]\nsize = 1".to_owned(),
            "2: key-value.carts.size: unknown key; the keys here are `max-keys`, `max-value` and \
             `max-bytes`"
                .to_owned(),
        ),
        (
            grant("name = \"default\""),
            "3: function.f.key-value[0]: `bucket` is missing; name a bucket: `bucket = \"carts\"`"
                .to_owned(),
        ),
        (
            grant("bucket = \"cards\""),
            "4: function.f.key-value[0].bucket: \"cards\": no bucket `cards`; declare it as \
             `[key-value.cards]`"
                .to_owned(),
        ),
        (
            grant("bucket = \"@x\""),
            "4: function.f.key-value[0].bucket: \"@x\": cannot name a bucket; use 1 to 64 letters, \
             digits, `-` and `_`"
                .to_owned(),
        ),
        (
            grant(&format!("bucket = \"carts\"\nname = {long:?}")),
            format!(
                "5: function.f.key-value[0].name: {long:?}: no name to open a bucket by; use 64 \
                 bytes at most, without control characters"
            ),
        ),
        (
            grant("bucket = \"carts\"\naccess = \"all\""),
            "5: function.f.key-value[0].access: \"all\": unknown word; use `read-only` or \
             `read-write`"
                .to_owned(),
        ),
        (
            grant("bucket = \"carts\"\n[[function.f.key-value]]\nbucket = \"carts\""),
            "6: function.f.key-value[1].bucket: \"carts\": the function opens another bucket by \
             this name; give each a `name` of its own"
                .to_owned(),
        ),
    ] {
        let problems = Folder::new().problems(&text);
        assert_eq!(problems[0], format!("dunlin.toml:{expected}"), "{text}");
    }
}

#[test]
fn values_of_config_come_from_the_manifest_a_file_or_the_environment() {
    let folder = Folder::new();
    folder.file("motd", b"hi\n");
    let text = function(
        "[function.f.config]\n\"feature/dark mode\" = \"on\"\nregion = { env = \"EDGE_REGION\" }\n\
         motd = { file = \"motd\" }\nempty = \"\"",
    );
    let config = folder.ok(&text);
    let spec = &config.functions[0];
    let expected = [
        ("empty", ""),
        ("feature/dark mode", "on"),
        ("motd", "hi"),
        ("region", "north"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(spec.config, expected);
    assert_eq!(spec.environment, [], "the two are apart");
    assert_eq!(config.value_files, [folder.path("motd")]);
}

#[test]
fn problems_of_config_are_named_with_their_lines() {
    let config = |lines: &str| function(&format!("[function.f.config]\n{lines}"));
    let fits = "x".repeat(MAX_CONFIG.as_usize() - 1);
    Folder::new().ok(&config(&format!("a = \"{fits}\"")));
    for (lines, expected) in [
        (
            "a = 1",
            "4: function.f.config.a: 1: of type integer, but a value of `config` is a text; put \
             it in quotes, or write `{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
        ),
        (
            "\"\" = \"x\"",
            "4: function.f.config.\"\": cannot name a value of `config`; use 1 to 128 bytes of \
             text without control characters",
        ),
        (
            &format!("b = \"x{fits}\""),
            "3: function.f.config: names and values together are 65537 bytes; allowed is 64KiB; \
             read more from a file that the function mounts",
        ),
        (
            "a = { env = \"MISSING\" }",
            "4: function.f.config.a.env: \"MISSING\": no such variable in the host's environment; \
             set it before `dunlin` starts",
        ),
    ] {
        let problems = Folder::new().problems(&config(lines));
        assert_eq!(problems[0], format!("dunlin.toml:{expected}"));
    }
}
