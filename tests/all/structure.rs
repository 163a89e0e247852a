//! What the source promises as a whole, where no compiler looks.

use std::path::{Path, PathBuf};

use dunlin_tests::repository;

/// The files below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)
        .expect("the folder is there")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    found
}

/// Lines of the host's source with one of these, outside of tests and of the folders.
fn lines_with(texts: &[&str], but_in: &[&str]) -> Vec<String> {
    let source = repository().join("host/src");
    let mut found = Vec::new();
    for file in files(&source, "rs") {
        let name = file.strip_prefix(&source).unwrap().display().to_string();
        if name.contains("tests") || but_in.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            if texts.iter().any(|text| line.contains(text)) {
                found.push(format!("{name}: {}", line.trim()));
            }
        }
    }
    found
}

#[test]
fn only_the_runtime_and_the_capabilities_name_the_engine() {
    let engine = ["wasmtime::", "use wasmtime", "wasmtime_wasi", "wasmparser"];
    assert_eq!(lines_with(&engine, &["runtime", "capability"]), [""; 0]);
    assert!(
        !lines_with(&engine, &[]).is_empty(),
        "it looks at the right files"
    );
}

#[test]
fn queues_know_nothing_of_http() {
    let http = ["http::", "hyper", "crate::api", "crate::trigger"];
    let found = lines_with(
        &http,
        &["api", "app", "body", "builder", "capability", "cli"],
    );
    let theirs: Vec<&String> = found
        .iter()
        .filter(|line| line.starts_with("queue") || line.starts_with("store"))
        .collect();
    assert!(theirs.is_empty(), "{theirs:?}");
    assert!(!found.is_empty(), "it looks at the right files");
}

#[test]
fn the_environment_is_read_in_main_alone() {
    let reads = ["env::var", "env::vars", "env::args"];
    let found = lines_with(&reads, &["main.rs"]);
    assert_eq!(found, [""; 0]);
    assert!(
        !lines_with(&reads, &[]).is_empty(),
        "it looks at the right files"
    );
}

#[test]
fn every_item_of_the_contract_is_documented() {
    let mut items = 0;
    for file in files(&repository().join("wit"), "wit") {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut documented = false;
        // Within the parentheses of a function there are parameters.
        let mut depth = 0_i32;
        for line in text.lines().map(str::trim) {
            let is_part = depth > 0;
            let count = |c: char| line.matches(c).count() as i32;
            if line.starts_with("///") {
                documented = true;
                continue;
            }
            depth += count('(') - count(')');
            let keyword = line
                .split([' ', ':', ',', '(', '{', '.'])
                .next()
                .unwrap_or_default();
            let is_frame = matches!(
                keyword,
                "" | "}"
                    | "package"
                    | "use"
                    | "import"
                    | "export"
                    | "include"
                    | "//"
                    | "@since"
                    | ")"
            );
            if is_frame || is_part || line.starts_with("//") {
                documented = false;
                continue;
            }
            items += 1;
            assert!(documented, "{}: {line}", file.display());
            documented = false;
        }
    }
    assert!(items > 60, "it looks at the right files: {items}");
}
