//! Builds functions with cargo, and watches what they are built from.
//!
//! All packages of a cargo workspace are built by one `cargo build`, for `wasm32-wasip2`,
//! with the profile `guest` if the workspace defines it and `release` otherwise. Whether
//! anything is to do is for cargo to decide.
//!
//! Cargo runs in the workspace's root folder (whose `.cargo/config.toml` and
//! `rust-toolchain.toml` count) and sees the environment of the host, except for
//! - `RUSTFLAGS` and its kin: they are meant for the host (`-C target-cpu=native` means
//!   nothing to Wasm), and would replace the flags that the workspace sets for guests.
//!   `CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS` is there for guests, and counts;
//! - what `cargo run` and `cargo test` say about the *host's* package
//!   (`CARGO_MANIFEST_DIR`, `CARGO_PKG_…`): a build script that looks at one would run
//!   again whenever the host was started the other way.
//!
//! `CARGO_TARGET_DIR`, `RUSTUP_TOOLCHAIN`, `RUSTC_WRAPPER`, `CARGO_PROFILE_…` and the rest
//! count as they always do.
//!
//! Not here: what the component exports and imports; the runtime checks that.

mod cargo;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

pub use watch::{Change, WatchError, Watcher};

use crate::config::Variables;
use crate::function::FunctionSpec;
use cargo::{Cargo, Package};

/// The target that components are built for.
pub const TARGET: &str = "wasm32-wasip2";

/// Builds packages, and remembers what cargo said about them.
#[derive(Debug)]
pub struct Builder {
    cargo: Cargo,
    packages: BTreeMap<PathBuf, Package>,
}

/// A component that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The folder of the package, as it was given.
    pub package: PathBuf,
    /// The `.wasm` file.
    pub component: PathBuf,
    /// Whether cargo had anything to do.
    pub freshness: Freshness,
}

/// Whether cargo had anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It compiled the package.
    Built,
    /// The component was up to date.
    UpToDate,
}

/// Where cargo's own messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// To the host's stdout, as cargo prints them.
    Stdout,
    /// To the host's stderr, as cargo prints them.
    Stderr,
    /// Nowhere; the error has the last of them.
    Quiet,
}

/// Why functions could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no such program.
    #[error(
        "`{program}` cannot be run; install Rust from https://rustup.rs, or build the \
         components elsewhere and name them as `component`"
    )]
    NoProgram {
        /// cargo, rustc or rustup.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Cargo does not understand the package.
    #[error("{}: cargo cannot read the package: {detail}", folder.display())]
    NotAPackage {
        /// Its folder.
        folder: PathBuf,
        /// What cargo said.
        detail: String,
    },
    /// The packages build nothing that could be a component.
    #[error(
        "no component comes out of {}; add `[lib]` with `crate-type = [\"cdylib\"]` to its \
         Cargo.toml", folders(.0)
    )]
    NoComponent(Vec<PathBuf>),
    /// The package builds several programs.
    #[error(
        "{}: several components come out of the package ({}); make it a `cdylib` library, or \
         one package for each", folder.display(), names.join(", ")
    )]
    Ambiguous {
        /// Its folder.
        folder: PathBuf,
        /// The names of its binaries.
        names: Vec<String>,
    },
    /// The compiler cannot build for Wasm and could not be taught.
    #[error("the target {TARGET} is not installed and cannot be added: {detail}")]
    NoTarget {
        /// What stood in the way, and the remedy.
        detail: String,
    },
    /// Cargo failed; what it printed says why.
    #[error(
        "cargo failed ({status}) to build {} in {}{detail}", packages.join(", "),
        workspace.display()
    )]
    Failed {
        /// The workspace's folder.
        workspace: PathBuf,
        /// The packages' names.
        packages: Vec<String>,
        /// How cargo ended.
        status: ExitStatus,
        /// The last of what it printed, if nobody saw it yet.
        detail: String,
    },
    /// There is no component yet, and nothing may be built.
    #[error(
        "{}: the package is not built: there is no {}; run `dunlin build`",
        package.display(), component.display()
    )]
    NotBuilt {
        /// The package's folder.
        package: PathBuf,
        /// Where its component would be.
        component: PathBuf,
    },
    /// What cargo printed could not be read.
    #[error("what cargo prints cannot be read")]
    Output(#[source] io::Error),
}

fn folders(folders: &[PathBuf]) -> String {
    let shown: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    shown.join(", ")
}

impl Builder {
    /// A builder that runs the program of the variable `CARGO`, or else `cargo`.
    #[must_use]
    pub fn new(variables: &Variables) -> Self {
        Self {
            cargo: Cargo::new(variables),
            packages: BTreeMap::new(),
        }
    }

    /// Builds the packages in these folders, and answers in their order. Adds the Wasm
    /// target to the compiler if it is missing.
    ///
    /// Dropping the future ends cargo.
    ///
    /// # Errors
    /// If something that is needed is missing, or cargo fails.
    pub async fn build(
        &mut self,
        folders: &[PathBuf],
        progress: Progress,
    ) -> Result<Vec<Artifact>, BuildError> {
        self.look_up(folders).await?;
        let mut workspaces: BTreeMap<&Path, Vec<&Package>> = BTreeMap::new();
        for folder in folders {
            let package = self.package(folder);
            let members = workspaces.entry(package.workspace()).or_default();
            if !members.iter().any(|member| member.id() == package.id()) {
                members.push(package);
            }
        }
        let mut built = BTreeMap::new();
        for packages in workspaces.values() {
            // A component of an earlier build proves that the target is there.
            if packages
                .iter()
                .any(|package| !package.component().is_file())
            {
                self.cargo
                    .ensure_target(packages[0].workspace(), progress)
                    .await?;
            }
            built.extend(self.cargo.build(packages, progress).await?);
        }
        let artifact = |folder: &PathBuf| {
            let package = self.package(folder);
            let (component, freshness) = built
                .get(package.id())
                .cloned()
                .ok_or_else(|| BuildError::NoComponent(vec![folder.clone()]))?;
            Ok(Artifact {
                package: folder.clone(),
                component,
                freshness,
            })
        };
        folders.iter().map(artifact).collect()
    }

    /// Builds what the functions need, and notes the components in them. Functions that
    /// name a `.wasm` file are left as they are.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn build_functions(
        &mut self,
        functions: &mut [FunctionSpec],
        progress: Progress,
    ) -> Result<(), BuildError> {
        let folders = packages(functions);
        if folders.is_empty() {
            return Ok(());
        }
        let artifacts = self.build(&folders, progress).await?;
        for artifact in artifacts {
            note(functions, &artifact.package, &artifact.component);
        }
        Ok(())
    }

    /// Notes the components that an earlier build left, and builds nothing.
    ///
    /// # Errors
    /// If one is not there, or cargo cannot say where it would be.
    pub async fn locate_functions(
        &mut self,
        functions: &mut [FunctionSpec],
    ) -> Result<(), BuildError> {
        let folders = packages(functions);
        self.look_up(&folders).await?;
        for folder in folders {
            let component = self.package(&folder).component();
            if !component.is_file() {
                return Err(BuildError::NotBuilt {
                    package: folder,
                    component,
                });
            }
            note(functions, &folder, &component);
        }
        Ok(())
    }

    /// Asks cargo about the packages that are unknown or have changed: once for each
    /// workspace, since the answer is about all its members.
    async fn look_up(&mut self, folders: &[PathBuf]) -> Result<(), BuildError> {
        self.packages.retain(|_, package| package.is_current());
        for folder in folders {
            if !self.packages.contains_key(&key(folder)) {
                self.packages.extend(self.cargo.members(folder).await?);
            }
            let Some(package) = self.packages.get(&key(folder)) else {
                return Err(BuildError::NotAPackage {
                    folder: folder.clone(),
                    detail: "it is a workspace without a package of its own".to_owned(),
                });
            };
            if package.binaries().len() > 1 {
                return Err(BuildError::Ambiguous {
                    folder: folder.clone(),
                    names: package.binaries().to_vec(),
                });
            }
        }
        let lacks_component = |folder: &&PathBuf| !self.package(folder).has_component();
        let without: Vec<PathBuf> = folders.iter().filter(lacks_component).cloned().collect();
        if without.is_empty() {
            Ok(())
        } else {
            Err(BuildError::NoComponent(without))
        }
    }

    fn package(&self, folder: &Path) -> &Package {
        self.packages
            .get(&key(folder))
            .expect("`look_up` has found each of them")
    }
}

/// The same folder may be given in several ways.
fn key(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

fn packages(functions: &[FunctionSpec]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = functions
        .iter()
        .filter_map(|function| function.component.package())
        .map(Path::to_owned)
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

fn note(functions: &mut [FunctionSpec], package: &Path, component: &Path) {
    use crate::function::ComponentSource::Package;
    for function in functions {
        if let Package { folder, built } = &mut function.component
            && folder == package
        {
            *built = Some(component.to_owned());
        }
    }
}
