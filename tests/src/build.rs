//! Building the binary and the guests, each once per run of the tests.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::repository;

const TARGET: &str = "wasm32-wasip2";

/// The folder that cargo builds into, and the profile of this very program.
fn own_build() -> (PathBuf, String) {
    let exe = std::env::current_exe().expect("a running program has a path");
    // TARGET_DIR/PROFILE/deps/all-HASH
    let folder = exe.ancestors().nth(2).expect("tests run from `deps`");
    let name = folder.file_name().expect("a profile's folder has a name");
    let profile = match name.to_str().expect("profiles are named in ASCII") {
        "debug" => "dev",
        other => other,
    };
    let target_dir = folder.parent().expect("a profile's folder has a parent");
    (target_dir.to_owned(), profile.to_owned())
}

/// The folder that cargo builds into.
#[must_use]
pub fn target_dir() -> PathBuf {
    own_build().0
}

/// Cargo, without what the cargo that runs the tests set for them.
fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(repository())
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_this_package = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_FEATURE_",
        ];
        if of_this_package
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The name of a target, and the files that cargo made for it.
type Artifact = (String, Vec<PathBuf>);

/// Runs cargo; answers what it built, and whether that is all.
fn run(mut command: Command, what: &str) -> (Vec<Artifact>, Result<(), String>) {
    let output = command
        .arg("--message-format=json-render-diagnostics")
        .output()
        .expect("cargo runs: it runs the tests");
    let built = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .map(|message| {
            let files = message["filenames"].as_array().into_iter().flatten();
            let name = message["target"]["name"].as_str().unwrap_or_default();
            (
                name.to_owned(),
                files.filter_map(Value::as_str).map(PathBuf::from).collect(),
            )
        })
        .collect();
    let result = if output.status.success() {
        Ok(())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("cannot build {what}:\n{stderr}"))
    };
    (built, result)
}

/// The binary, built in the profile of the tests.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn dunlin() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let (target_dir, profile) = own_build();
        let mut command = cargo();
        command
            .args(["build", "--package", "dunlin", "--bin", "dunlin"])
            .args(["--profile", &profile, "--target-dir"])
            .arg(target_dir);
        let (built, result) = run(command, "the binary");
        result.unwrap_or_else(|error| panic!("{error}"));
        built
            .into_iter()
            .flat_map(|(_, files)| files)
            .find(|file| file.file_name().is_some_and(|name| name == "dunlin"))
            .expect("cargo names the binary that it built")
    })
}

/// Guests that ask for other features of the SDK than the others: of packages that are
/// built together, cargo gives to each what any of them asks for.
const APART: [&str; 1] = ["tracer"];

/// The names of guest packages, in the groups that are built together. A package is named
/// as its folder.
fn packages() -> Vec<Vec<String>> {
    let root = repository();
    let all = ["guest-examples", "tests/guests"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).expect("guests have folders"))
        .map(|entry| entry.expect("a folder can be read").path())
        .filter(|path| path.join("Cargo.toml").is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let (apart, together): (Vec<String>, Vec<String>) =
        all.partition(|name| APART.contains(&name.as_str()));
    let groups = apart.into_iter().map(|name| vec![name]);
    std::iter::once(together).chain(groups).collect()
}

type Guests = (BTreeMap<String, PathBuf>, Result<(), String>);

fn guests() -> &'static Guests {
    static GUESTS: OnceLock<Guests> = OnceLock::new();
    GUESTS.get_or_init(|| {
        if let Err(error) = ensure_target() {
            return (BTreeMap::new(), Err(error));
        }
        let manifest = std::fs::read_to_string(repository().join("Cargo.toml"))
            .expect("the workspace has a manifest");
        let profile = if manifest.contains("[profile.guest]") {
            "guest"
        } else {
            "release"
        };
        let mut built = Vec::new();
        let mut result = Ok(());
        for packages in packages() {
            let (more, ended) = build_guests(&packages, profile);
            built.extend(more);
            result = result.and(ended);
        }
        let components = built
            .into_iter()
            .flat_map(|(name, files)| files.into_iter().map(move |file| (name.clone(), file)))
            .filter(|(_, file)| {
                file.extension()
                    .is_some_and(|extension| extension == "wasm")
            })
            .map(|(name, file)| (name.replace('_', "-"), file))
            .collect();
        (components, result)
    })
}

/// Builds guest packages together.
fn build_guests(packages: &[String], profile: &str) -> (Vec<Artifact>, Result<(), String>) {
    let mut command = cargo();
    // Flags for the host's processor are none for Wasm; those for guests
    // stand in `.cargo/config.toml`.
    for flags in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
    ] {
        command.env_remove(flags);
    }
    command
        .args([
            "build",
            "--keep-going",
            "--target",
            TARGET,
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(target_dir());
    for package in packages {
        command.args(["--package", package]);
    }
    run(command, "the guests")
}

/// Adds the Wasm target to the toolchain if it is missing.
fn ensure_target() -> Result<(), String> {
    let there = || {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc)
            .current_dir(repository())
            .args(["--print", "target-libdir", "--target", TARGET])
            .output();
        output.is_ok_and(|output| {
            let folder = String::from_utf8_lossy(&output.stdout);
            output.status.success() && Path::new(folder.trim()).is_dir()
        })
    };
    if there() {
        return Ok(());
    }
    let added = Command::new("rustup")
        .current_dir(repository())
        .args(["target", "add", TARGET])
        .output();
    let detail = match added {
        Ok(output) if output.status.success() && there() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("rustup does not run: {error}"),
    };
    Err(format!(
        "the toolchain has no standard library for {TARGET}, and it cannot be added: {detail}\n\
         run `rustup target add {TARGET}`, or install your distribution's package of it"
    ))
}

/// The component of a guest package, by its folder's name: one of
/// `tests/guests` or `guest-examples`.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    let (components, result) = guests();
    match (components.get(name), result) {
        (Some(component), _) => component.clone(),
        (None, Err(error)) => panic!("{error}"),
        (None, Ok(())) => panic!("there is no guest `{name}`, but {:?}", components.keys()),
    }
}

/// The component of an example, by its folder's name.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    guest(name)
}

/// A component from its text: a file that stays in the folder for builds.
///
/// # Panics
/// If the text is none of a component.
#[must_use]
#[track_caller]
pub fn wat_component(text: &str) -> PathBuf {
    let bytes = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    let folder = target_dir().join("tmp").join("dunlin-tests");
    std::fs::create_dir_all(&folder).expect("the folder for builds is writable");
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&bytes);
    let path = folder.join(format!("{hash:016x}.wasm"));
    // Renamed into place: tests run at once, and may share a component.
    let file = tempfile::NamedTempFile::new_in(&folder).expect("the folder is writable");
    std::fs::write(file.path(), bytes).expect("the file is writable");
    file.persist(&path).expect("a file replaces one beside it");
    path
}
