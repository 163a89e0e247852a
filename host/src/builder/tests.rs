use std::ffi::OsString;
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::function::{ComponentSource, FunctionName};

const GUEST: &str = "#[unsafe(no_mangle)] pub extern \"C\" fn answer() -> u32 { 42 }";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A package without dependencies; `rest` of its manifest says what it builds.
    fn package(&self, folder: &str, name: &str, rest: &str) -> PathBuf {
        self.file(
            &format!("{folder}/Cargo.toml"),
            &format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n{rest}"),
        );
        self.file(&format!("{folder}/src/lib.rs"), GUEST);
        self.path(folder)
    }
}

const CDYLIB: &str = "[lib]\ncrate-type = [\"cdylib\"]\n";

/// The tools of this machine, with a target folder that nobody else uses.
fn builder(folder: &Folder) -> Builder {
    let ours = [("CARGO_TARGET_DIR".into(), folder.path("target").into())];
    let theirs = std::env::vars_os().filter(|(name, _)| name != "CARGO_TARGET_DIR");
    Builder::new(&theirs.chain(ours).collect())
}

#[tokio::test]
async fn packages_of_several_workspaces_become_components() {
    let folder = Folder::new();
    folder.file(
        "ws/Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"*\"]\nexclude = [\"target\"]\n\
         [profile.guest]\ninherits = \"release\"\nopt-level = 0\n",
    );
    let first = folder.package("ws/first-one", "first-one", CDYLIB);
    let second = folder.package("ws/second", "second", CDYLIB);
    let alone = folder.package(
        "alone",
        "alone",
        "[[bin]]\nname = \"a-bin\"\npath = \"src/main.rs\"",
    );
    folder.file("alone/src/main.rs", "fn main() {}");
    let folders = [second.clone(), alone.clone(), first.clone()];

    let mut builder = builder(&folder);
    let artifacts = builder.build(&folders, Progress::Quiet).await.unwrap();
    let expected = [
        (&second, "guest/second.wasm"),
        (&alone, "release/a-bin.wasm"),
        (&first, "guest/first_one.wasm"),
    ];
    for (artifact, (package, file)) in artifacts.iter().zip(expected) {
        assert_eq!(artifact.package, *package);
        assert_eq!(
            artifact.component,
            folder.path("target").join(TARGET).join(file)
        );
        assert_eq!(artifact.freshness, Freshness::Built);
        let bytes = fs::read(&artifact.component).unwrap();
        assert!(bytes.starts_with(b"\0asm\x0d\0\x01\0"), "a component");
    }

    // Nothing to do, then something for one.
    let again = builder.build(&folders, Progress::Quiet).await.unwrap();
    assert!(again.iter().all(|a| a.freshness == Freshness::UpToDate));
    folder.file("ws/second/src/lib.rs", &format!("{GUEST} // changed"));
    let again = builder.build(&folders, Progress::Quiet).await.unwrap();
    let freshness: Vec<Freshness> = again.iter().map(|a| a.freshness).collect();
    assert_eq!(
        freshness,
        [Freshness::Built, Freshness::UpToDate, Freshness::UpToDate]
    );
    assert!(
        folder
            .path("target")
            .join(TARGET)
            .join("guest/second.d")
            .is_file(),
        "the watcher reads cargo's dep-info"
    );

    // Another builder finds what is there without building.
    let mut functions = vec![function(&alone), function(&second)];
    let mut other = self::builder(&folder);
    other.locate_functions(&mut functions).await.unwrap();
    assert_eq!(
        functions[0].component.file(),
        Some(artifacts[1].component.as_path())
    );
    fs::remove_file(&artifacts[0].component).unwrap();
    let error = other.locate_functions(&mut functions).await.unwrap_err();
    assert!(matches!(error, BuildError::NotBuilt { .. }), "{error}");
}

fn function(folder: &Path) -> FunctionSpec {
    FunctionSpec::new(
        FunctionName::new("f").unwrap(),
        ComponentSource::Package {
            folder: folder.to_owned(),
            built: None,
        },
    )
}

#[tokio::test]
async fn functions_learn_where_their_components_are() {
    let folder = Folder::new();
    let package = folder.package("p", "p", CDYLIB);
    let mut builder = builder(&folder);
    let mut functions = vec![function(&package), function(&package)];
    functions[1].component = ComponentSource::File("other.wasm".into());
    builder
        .build_functions(&mut functions, Progress::Quiet)
        .await
        .unwrap();
    let built = folder.path("target").join(TARGET).join("release/p.wasm");
    assert_eq!(functions[0].component.file(), Some(built.as_path()));
    assert_eq!(functions[1].component.file(), Some(Path::new("other.wasm")));
}

#[tokio::test]
async fn a_changed_manifest_is_read_again() {
    let folder = Folder::new();
    let package = folder.package("p", "p", "");
    let mut builder = builder(&folder);
    let packages = [package];
    let error = builder.build(&packages, Progress::Quiet).await.unwrap_err();
    assert!(matches!(error, BuildError::NoComponent(_)), "{error}");
    folder.package("p", "p", CDYLIB);
    builder.build(&packages, Progress::Quiet).await.unwrap();
}

#[tokio::test]
async fn errors_say_what_is_missing_and_what_to_do() {
    let folder = Folder::new();
    let library = folder.package("library", "library", "");
    let broken = folder.package("broken", "broken", CDYLIB);
    folder.file("broken/src/lib.rs", "fn f() { no_such_thing }");
    let invalid = folder.path("invalid");
    folder.file("invalid/Cargo.toml", "[package");
    let two = folder.package("two", "two", "");
    for bin in ["a", "b"] {
        folder.file(&format!("two/src/bin/{bin}.rs"), "fn main() {}");
    }
    let none = folder.path("none");
    for (package, says) in [
        (
            &library,
            &["no component comes out of", "crate-type = [\"cdylib\"]"][..],
        ),
        (
            &broken,
            &[
                "cargo failed (exit status: 101) to build broken in",
                "no_such_thing",
            ],
        ),
        (&invalid, &["cargo cannot read the package"]),
        (
            &two,
            &["several components", "(a, b)", "make it a `cdylib`"],
        ),
        (&none, &["there is no Cargo.toml"]),
    ] {
        let packages = [package.clone()];
        let result = builder(&folder).build(&packages, Progress::Quiet).await;
        let error = result.unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part), "{error}");
        }
    }
}

/// With tools that are not there, or do not work.
#[tokio::test]
async fn missing_tools_are_named_with_the_remedy() {
    let folder = Folder::new();
    let package = folder.package("p", "p", CDYLIB);
    let missing: OsString = "/nonexistent/tool".into();
    let fails: OsString = "false".into();
    let works: OsString = "true".into();
    // Prints what it was asked, which is no folder.
    let lacks_target: OsString = "echo".into();
    type Tool = (fn(&mut Builder) -> &mut OsString, OsString);
    let cargo: fn(&mut Builder) -> &mut OsString = |b| &mut b.cargo.cargo;
    let rustc: fn(&mut Builder) -> &mut OsString = |b| &mut b.cargo.rustc;
    let rustup: fn(&mut Builder) -> &mut OsString = |b| &mut b.cargo.rustup;
    let table: Vec<(Vec<Tool>, &[&str])> = vec![
        (
            vec![(cargo, missing.clone())],
            &["`/nonexistent/tool` cannot be run", "install Rust"],
        ),
        (
            vec![(rustc, missing.clone())],
            &["`/nonexistent/tool` cannot be run", "install Rust"],
        ),
        (vec![(rustc, fails.clone())], &["`false` does not run in"]),
        (
            vec![(rustc, lacks_target.clone()), (rustup, missing)],
            &[
                "wasm32-wasip2 is not installed",
                "there is no rustup; install Rust from",
            ],
        ),
        (
            vec![(rustc, lacks_target.clone()), (rustup, fails)],
            &[
                "`rustup target add wasm32-wasip2` failed",
                "where there is network",
            ],
        ),
        (
            vec![(rustc, lacks_target), (rustup, works)],
            &["still lacks it; is it another toolchain than rustup's?"],
        ),
    ];
    for (tools, says) in table {
        let mut builder = builder(&folder);
        for (tool, program) in tools {
            *tool(&mut builder) = program;
        }
        let result = builder
            .build(std::slice::from_ref(&package), Progress::Quiet)
            .await;
        let error = result.unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part), "{error}");
        }
    }
}

/// With a compiler that lacks the target until rustup has been there.
#[tokio::test]
async fn a_missing_target_is_added() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let package = folder.package("p", "p", CDYLIB);
    let library = folder.path("library");
    let tool = |name: &str, script: String| {
        let path = folder.file(name, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    };
    let asked = folder.path("asked");
    let rustc = tool("rustc", format!("echo '{}'", library.display()));
    let rustup = tool(
        "rustup",
        format!(
            "echo \"$@\" > '{}'; mkdir '{}'",
            asked.display(),
            library.display()
        ),
    );
    let mut builder = builder(&folder);
    builder.cargo.rustc = rustc.into();
    builder.cargo.rustup = rustup.into();
    let packages = std::slice::from_ref(&package);
    builder.build(packages, Progress::Quiet).await.unwrap();
    assert_eq!(
        fs::read_to_string(asked).unwrap(),
        "target add wasm32-wasip2\n"
    );
}

#[test]
fn the_host_s_own_variables_are_kept_from_guests() {
    let variables = [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_PKG_NAME",
        "CARGO_TARGET_DIR",
        "CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS",
        "CARGO_PROFILE_RELEASE_LTO",
        "RUSTUP_TOOLCHAIN",
        "PATH",
    ];
    let builder = Builder::new(&variables.map(|name| (name, "x")).into_iter().collect());
    assert_eq!(
        builder.cargo.removed,
        [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_NAME",
            "RUSTFLAGS"
        ]
    );
    let variables: Variables = [("CARGO", "/opt/cargo")].into_iter().collect();
    assert_eq!(Builder::new(&variables).cargo.cargo, "/opt/cargo");
    assert_eq!(Builder::new(&Variables::default()).cargo.cargo, "cargo");
}
