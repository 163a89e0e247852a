//! Running cargo, rustc and rustup.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use super::{BuildError, Freshness, Progress, TARGET};
use crate::config::Variables;

/// The profile that guests are built with, if their workspace defines it.
const GUEST_PROFILE: &str = "guest";
/// How many lines of what cargo printed an error repeats.
const DETAIL_LINES: usize = 100;

/// What cargo sets for the programs that it runs: it is about the host's package.
const OF_THE_HOST: [&str; 6] = [
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
];
/// As above.
const OF_THE_HOST_PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_FEATURE_"];
/// Compiler flags for the host.
const FLAGS: [&str; 3] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
];

/// The tools, and the environment that they get.
#[derive(Debug)]
pub(super) struct Cargo {
    pub(super) cargo: OsString,
    pub(super) rustc: OsString,
    pub(super) rustup: OsString,
    /// `CARGO_TARGET_DIR`, absolute.
    target_dir: Option<PathBuf>,
    /// The variables that the tools do not see.
    pub(super) removed: Vec<OsString>,
}

/// What cargo says about a package.
#[derive(Clone, Debug)]
pub(super) struct Package {
    id: String,
    name: String,
    /// The file name of its component. Empty: it builds none.
    file: String,
    binaries: Vec<String>,
    workspace: Arc<Workspace>,
    /// Its manifest and the workspace's, with the times at which they were changed.
    manifests: [(PathBuf, Option<SystemTime>); 2],
}

#[derive(Debug)]
struct Workspace {
    root: PathBuf,
    target_dir: PathBuf,
    has_guest_profile: bool,
}

/// The part of `cargo metadata` that counts here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    id: String,
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    crate_types: Vec<String>,
}

/// The part of a line of `cargo build --message-format=json` that counts here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    #[serde(default)]
    fresh: bool,
}

impl Package {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn workspace(&self) -> &Path {
        &self.workspace.root
    }

    pub(super) fn has_component(&self) -> bool {
        !self.file.is_empty()
    }

    /// Its binaries, if no library is the component.
    pub(super) fn binaries(&self) -> &[String] {
        &self.binaries
    }

    /// Where cargo puts the component.
    pub(super) fn component(&self) -> PathBuf {
        let profile = if self.workspace.has_guest_profile {
            GUEST_PROFILE
        } else {
            "release"
        };
        let folder = self.workspace.target_dir.join(TARGET).join(profile);
        folder.join(&self.file)
    }

    /// Whether the manifests are as they were.
    pub(super) fn is_current(&self) -> bool {
        self.manifests
            .iter()
            .all(|(path, time)| changed_at(path) == *time)
    }
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|m| m.modified()).ok()
}

impl Cargo {
    pub(super) fn new(variables: &Variables) -> Self {
        let program = |variable, default: &str| {
            let set = variables.get(variable).filter(|value| !value.is_empty());
            set.map_or_else(|| default.into(), OsStr::to_owned)
        };
        let is_removed = |name: &OsStr| {
            name.to_str().is_some_and(|name| {
                FLAGS.contains(&name)
                    || OF_THE_HOST.contains(&name)
                    || OF_THE_HOST_PREFIXES.iter().any(|p| name.starts_with(p))
            })
        };
        Self {
            cargo: program("CARGO", "cargo"),
            rustc: program("RUSTC", "rustc"),
            rustup: "rustup".into(),
            // Cargo runs in another folder than the one this may count from.
            target_dir: variables
                .get("CARGO_TARGET_DIR")
                .and_then(|dir| std::path::absolute(dir).ok()),
            removed: variables
                .names()
                .filter(|name| is_removed(name))
                .map(OsStr::to_owned)
                .collect(),
        }
    }

    fn command(&self, program: &OsStr, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).kill_on_drop(true);
        command.stdin(Stdio::null());
        if let Some(dir) = &self.target_dir {
            command.env("CARGO_TARGET_DIR", dir);
        }
        for name in &self.removed {
            command.env_remove(name);
        }
        command
    }

    /// The packages of the workspace that the package in this folder belongs to, by their
    /// folders.
    pub(super) async fn members(
        &self,
        folder: &Path,
    ) -> Result<BTreeMap<PathBuf, Package>, BuildError> {
        let not_a_package = |detail: String| BuildError::NotAPackage {
            folder: folder.to_owned(),
            detail,
        };
        if !folder.join("Cargo.toml").is_file() {
            return Err(not_a_package("there is no Cargo.toml".to_owned()));
        }
        let mut command = self.command(&self.cargo, folder);
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let output = command
            .output()
            .await
            .map_err(|source| no_program(&self.cargo, source))?;
        if !output.status.success() {
            let printed = String::from_utf8_lossy(&output.stderr);
            return Err(not_a_package(printed.trim().to_owned()));
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout)
            .map_err(|error| BuildError::Output(error.into()))?;
        Ok(members(metadata))
    }

    /// Makes sure that the compiler can build for Wasm: asks rustup to add the target if
    /// it is not there.
    pub(super) async fn ensure_target(
        &self,
        workspace: &Path,
        progress: Progress,
    ) -> Result<(), BuildError> {
        if self.has_target(workspace).await? {
            return Ok(());
        }
        let no_target = |detail: String| BuildError::NoTarget { detail };
        let mut command = self.command(&self.rustup, workspace);
        command.args(["target", "add", TARGET]);
        command.stdout(progress.stdio());
        let (status, printed) = match self.run(&mut command, progress, |_| ()).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(no_target(format!(
                    "there is no rustup; install Rust from https://rustup.rs, or the package of \
                     your distribution that has the standard library for {TARGET}"
                )));
            }
            result => result.map_err(BuildError::Output)?,
        };
        if !status.success() {
            return Err(no_target(format!(
                "`rustup target add {TARGET}` failed ({status}) in {}; run it there where there \
                 is network{printed}",
                workspace.display()
            )));
        }
        if self.has_target(workspace).await? {
            return Ok(());
        }
        Err(no_target(format!(
            "`rustup target add {TARGET}` ran, but `{}` still lacks it; is it another toolchain \
             than rustup's?",
            self.rustc.display()
        )))
    }

    /// Whether the compiler that cargo would use there has the standard library.
    async fn has_target(&self, workspace: &Path) -> Result<bool, BuildError> {
        let mut command = self.command(&self.rustc, workspace);
        command.args(["--print", "target-libdir", "--target", TARGET]);
        let output = command
            .output()
            .await
            .map_err(|source| no_program(&self.rustc, source))?;
        if !output.status.success() {
            return Err(BuildError::NoTarget {
                detail: format!(
                    "`{}` does not run in {}: {}",
                    self.rustc.display(),
                    workspace.display(),
                    String::from_utf8_lossy(&output.stderr).trim()
                ),
            });
        }
        let folder = String::from_utf8_lossy(&output.stdout);
        Ok(Path::new(folder.trim()).is_dir())
    }

    /// Builds packages of one workspace: their components by package id.
    pub(super) async fn build(
        &self,
        packages: &[&Package],
        progress: Progress,
    ) -> Result<BTreeMap<String, (PathBuf, Freshness)>, BuildError> {
        let workspace = &packages[0].workspace;
        let mut command = self.command(&self.cargo, &workspace.root);
        command.args(["build", "--target", TARGET]);
        if workspace.has_guest_profile {
            command.args(["--profile", GUEST_PROFILE]);
        } else {
            command.arg("--release");
        }
        command.arg("--message-format=json-render-diagnostics");
        for package in packages {
            command.args(["--package", &package.id]);
        }
        command.stdout(Stdio::piped());
        let mut built = BTreeMap::new();
        let each = |line: &str| {
            let Ok(message) = serde_json::from_str::<Message>(line) else {
                return;
            };
            let package = packages.iter().find(|p| p.id == message.package_id);
            let (Some(package), "compiler-artifact") = (package, message.reason.as_str()) else {
                return;
            };
            let is_component =
                |file: &&PathBuf| file.file_name() == Some(OsStr::new(package.file.as_str()));
            if let Some(file) = message.filenames.iter().find(is_component) {
                let freshness = if message.fresh {
                    Freshness::UpToDate
                } else {
                    Freshness::Built
                };
                built.insert(package.id.clone(), (file.clone(), freshness));
            }
        };
        let (status, detail) = self
            .run(&mut command, progress, each)
            .await
            .map_err(|source| no_program(&self.cargo, source))?;
        if status.success() {
            return Ok(built);
        }
        Err(BuildError::Failed {
            workspace: workspace.root.clone(),
            packages: packages.iter().map(|p| p.name.clone()).collect(),
            status,
            detail,
        })
    }

    /// Runs a program: each line of its stdout, if that is piped, goes to `each`, its
    /// stderr where the progress goes. Answers with the last of it if nobody saw it.
    async fn run(
        &self,
        command: &mut Command,
        progress: Progress,
        mut each: impl FnMut(&str),
    ) -> io::Result<(ExitStatus, String)> {
        let mut child = command.stderr(progress.stdio()).spawn()?;
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let mut last = VecDeque::new();
        let keep = |line: &str| {
            if last.len() == DETAIL_LINES {
                last.pop_front();
            }
            last.push_back(line.to_owned());
        };
        let (status, read, kept) =
            tokio::join!(child.wait(), lines(stdout, &mut each), lines(stderr, keep));
        read?;
        kept?;
        let detail: String = last.iter().map(|line| format!("\n{line}")).collect();
        Ok((status?, detail))
    }
}

impl Progress {
    fn stdio(self) -> Stdio {
        match self {
            Self::Stdout => Stdio::from(io::stdout()),
            Self::Stderr => Stdio::from(io::stderr()),
            Self::Quiet => Stdio::piped(),
        }
    }
}

async fn lines(pipe: Option<impl AsyncRead + Unpin>, mut each: impl FnMut(&str)) -> io::Result<()> {
    let Some(pipe) = pipe else { return Ok(()) };
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).await? > 0 {
        each(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(())
}

fn no_program(program: &OsStr, source: io::Error) -> BuildError {
    BuildError::NoProgram {
        program: program.display().to_string(),
        source,
    }
}

fn members(metadata: Metadata) -> BTreeMap<PathBuf, Package> {
    let Metadata {
        packages,
        workspace_root,
        target_directory,
    } = metadata;
    let root_manifest = workspace_root.join("Cargo.toml");
    let workspace = Arc::new(Workspace {
        has_guest_profile: has_guest_profile(&root_manifest),
        root: workspace_root,
        target_dir: target_directory,
    });
    let member = |package: MetadataPackage| {
        let folder = package.manifest_path.parent()?;
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let (file, binaries) = component_file(&package.targets);
        let manifests = [package.manifest_path.clone(), root_manifest.clone()].map(|path| {
            let time = changed_at(&path);
            (path, time)
        });
        let package = Package {
            id: package.id,
            name: package.name,
            file,
            binaries,
            workspace: workspace.clone(),
            manifests,
        };
        Some((folder, package))
    };
    packages.into_iter().filter_map(member).collect()
}

/// The file name of the component (a `cdylib` before a binary), and the binaries if one
/// of them would be it.
fn component_file(targets: &[Target]) -> (String, Vec<String>) {
    let cdylib = targets
        .iter()
        .find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"));
    if let Some(cdylib) = cdylib {
        return (
            format!("{}.wasm", cdylib.name.replace('-', "_")),
            Vec::new(),
        );
    }
    let binaries: Vec<String> = targets
        .iter()
        .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
        .map(|target| target.name.clone())
        .collect();
    let file = binaries.first().map(|name| format!("{name}.wasm"));
    (file.unwrap_or_default(), binaries)
}

fn has_guest_profile(manifest: &Path) -> bool {
    let text = std::fs::read_to_string(manifest).unwrap_or_default();
    let Ok(table) = text.parse::<toml::Table>() else {
        return false;
    };
    table
        .get("profile")
        .and_then(|profiles| profiles.get(GUEST_PROFILE))
        .is_some()
}
