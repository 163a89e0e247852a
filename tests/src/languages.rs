//! The examples in other languages, built as their READMEs say.
//!
//! Their tools come from the registries, in exact versions, and need no rights: each into a folder
//! of its own below the folder for builds, where the next run finds them. What was built is built
//! again when its sources, the contract or its tools change.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::repository;

/// How long one of the tools may take: many times what it does on a quiet machine, where the
/// longest, the build of wit-bindgen, takes a minute or two.
const TOOL_PATIENCE: Duration = Duration::from_secs(1200);

const WIT_BINDGEN: &str = "wit-bindgen-cli@0.61.1";
/// What Debian calls them, and where its packages put them.
const LLVM: &str = "lib/llvm-19";
const C_PACKAGES: [&str; 8] = [
    "clang-19",
    "libclang-cpp19",
    "libclang-common-19-dev",
    "libllvm19",
    "lld-19",
    "llvm-19-linker-tools",
    "libclang-rt-19-dev-wasm32",
    "wasi-libc",
];

/// A language, and the engine that its function runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// clang, lld and wasi-libc.
    C,
    /// SpiderMonkey, by componentize-js.
    JavaScript,
    /// QuickJS, by componentize-qjs; the same sources.
    QuickJs,
    /// CPython, by componentize-py.
    Python,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::C, Self::JavaScript, Self::QuickJs, Self::Python];

    /// The folder of its example in `guest-examples`.
    #[must_use]
    pub fn example(self) -> &'static str {
        match self {
            Self::C => "c-iban",
            Self::JavaScript | Self::QuickJs => "javascript-webhook",
            Self::Python => "python-statistics",
        }
    }

    /// The component, as the example's manifest names it.
    #[must_use]
    pub fn component(self) -> &'static str {
        match self {
            Self::C => "iban.wasm",
            Self::JavaScript | Self::QuickJs => "webhook.wasm",
            Self::Python => "statistics.wasm",
        }
    }

    /// The manifest of its example, with this file as its component.
    ///
    /// # Errors
    /// If it cannot be read, or names another component.
    pub fn manifest(self, component: &Path) -> Result<String, String> {
        let file = repository()
            .join("guest-examples")
            .join(self.example())
            .join("dunlin.toml");
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{file:?}: {error}"))?;
        let line = format!("component = {:?}", self.component());
        match text.contains(&line) {
            true => Ok(text.replace(&line, &format!("component = {component:?}"))),
            false => Err(format!("{file:?} has no line `{line}`")),
        }
    }

    /// Builds its example, unless that was done before; answers the component. `target` is the
    /// folder that cargo builds into.
    ///
    /// # Errors
    /// What is missing, or what a tool said.
    pub fn build(self, target: &Path) -> Result<PathBuf, String> {
        let folder = target.join("tmp/languages").join(self.example());
        let describe = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(describe)?;
        // Another run, or another engine's test, may be at it.
        let lock = File::create(folder.join(".lock")).map_err(describe)?;
        lock.lock().map_err(describe)?;
        let sources = self.copy(&folder).map_err(describe)?;
        let component = folder.join(format!("{self:?}.wasm"));
        let marker = folder.join(format!(".{self:?}"));
        let built = |marker: &Path| std::fs::read_to_string(marker).unwrap_or_default() == sources;
        if component.is_file() && built(&marker) {
            return Ok(component);
        }
        match self {
            Self::C => c(&folder, target),
            Self::JavaScript => javascript(&folder, "starlingmonkey"),
            Self::QuickJs => javascript(&folder, "quickjs"),
            Self::Python => {
                has(
                    "python3",
                    &["-c", "import ensurepip, venv"],
                    "python3 with its module venv",
                )?;
                run(&mut in_folder(&folder, "./build.sh"))
            }
        }
        .map_err(|error| format!("{} does not build: {error}", self.example()))?;
        std::fs::rename(folder.join(self.component()), &component).map_err(describe)?;
        std::fs::write(marker, sources).map_err(describe)?;
        Ok(component)
    }

    /// Copies the example's own files, so that nothing is built in the repository; answers what
    /// names their state, the contract's and the tools'.
    fn copy(self, into: &Path) -> std::io::Result<String> {
        let mut files = BTreeMap::new();
        for from in [self.example_folder(), repository().join("wit")] {
            for entry in std::fs::read_dir(from)? {
                let path = entry?.path();
                // Not what somebody built there.
                let is_built = path.extension().is_some_and(|end| end == "wasm");
                if path.is_file() && !is_built {
                    files.insert(path.clone(), std::fs::read(path)?);
                }
            }
        }
        let mut hash = DefaultHasher::new();
        (WIT_BINDGEN, C_PACKAGES).hash(&mut hash);
        for (path, contents) in files {
            contents.hash(&mut hash);
            if let (true, Some(name)) = (path.starts_with(self.example_folder()), path.file_name())
            {
                // With its mode: scripts are run.
                std::fs::copy(&path, into.join(name))?;
            }
        }
        Ok(format!("{:016x}", hash.finish()))
    }

    fn example_folder(self) -> PathBuf {
        repository().join("guest-examples").join(self.example())
    }
}

fn javascript(folder: &Path, engine: &str) -> Result<(), String> {
    has("node", &["--version"], "node")?;
    has("npm", &["--version"], "npm")?;
    let packages = std::fs::read_to_string(folder.join("package.json")).unwrap_or_default();
    let marker = folder.join("node_modules/.installed");
    if std::fs::read_to_string(&marker).unwrap_or_default() != packages {
        run(in_folder(folder, "npm")
            .args(["install", "--no-package-lock", "--no-audit", "--no-fund"])
            .arg("--ignore-scripts"))?;
        std::fs::write(marker, packages).map_err(|error| error.to_string())?;
    }
    run(in_folder(folder, "node").args(["build.js", engine]))
}

fn c(folder: &Path, target: &Path) -> Result<(), String> {
    let bindgen = wit_bindgen(target)?;
    let sysroot = clang(target)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(
        std::iter::once(bindgen.join("bin")).chain(std::env::split_paths(&path)),
    );
    run(in_folder(folder, "./build.sh")
        .env("PATH", path.map_err(|error| error.to_string())?)
        .env("SYSROOT", &sysroot)
        .env("LD_LIBRARY_PATH", libraries(&sysroot)?))
}

/// Where the tools' own libraries are, if they were not installed, only unpacked: in the folder
/// that Debian names after the machine, such as `lib/x86_64-linux-gnu`.
fn libraries(sysroot: &Path) -> Result<OsString, String> {
    let io = |error: std::io::Error| format!("{}: {error}", sysroot.display());
    let mut folders = vec![sysroot.join(LLVM).join("lib")];
    for entry in std::fs::read_dir(sysroot.join("lib")).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().contains("-linux-") {
            folders.push(entry.path());
        }
    }
    std::env::join_paths(folders).map_err(|error| error.to_string())
}

/// The folder that wit-bindgen is installed into.
fn wit_bindgen(target: &Path) -> Result<PathBuf, String> {
    let folder = target.join("tmp/languages/wit-bindgen");
    let marker = folder.join("installed");
    if std::fs::read_to_string(&marker).unwrap_or_default() == WIT_BINDGEN {
        return Ok(folder);
    }
    let build = folder.join("build");
    // What it does takes milliseconds, also without optimisation.
    run(Command::new(env!("CARGO"))
        .current_dir(repository())
        .args(["install", "--quiet", "--locked", "--debug", "--force"])
        .args(["--no-default-features", "--features", "c,async", "--root"])
        .arg(&folder)
        .arg(WIT_BINDGEN)
        .env("CARGO_TARGET_DIR", &build)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    let _ = std::fs::remove_dir_all(build);
    std::fs::write(marker, WIT_BINDGEN).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// Whether clang, its linker and the libraries for Wasm are there, as Debian lays them out.
fn has_clang(sysroot: &Path) -> bool {
    let llvm = sysroot.join(LLVM);
    [
        llvm.join("bin/clang"),
        llvm.join("bin/wasm-ld"),
        llvm.join("lib/clang/19/lib/wasi/libclang_rt.builtins-wasm32.a"),
        sysroot.join("include/wasm32-wasi/stdio.h"),
        sysroot.join("lib/wasm32-wasi/libc.a"),
    ]
    .iter()
    .all(|file| file.exists())
}

/// Where clang is: the machine's own, or Debian's packages in a folder.
fn clang(target: &Path) -> Result<PathBuf, String> {
    if has_clang(Path::new("/usr")) {
        return Ok("/usr".into());
    }
    let folder = target.join("tmp/languages/debian");
    let sysroot = folder.join("usr");
    if has_clang(&sysroot) {
        return Ok(sysroot);
    }
    let wanted = C_PACKAGES.join(" ");
    let io = |error: std::io::Error| format!("{}: {error}", folder.display());
    for part in ["lists/partial", "cache/archives/partial", "packages"] {
        std::fs::create_dir_all(folder.join(part)).map_err(io)?;
    }
    // With lists of its own apt-get needs no rights. What it was told to do afterwards it leaves.
    let apt = || {
        let mut apt = in_folder(&folder.join("packages"), "apt-get");
        apt.args(["-qq", "-o", "Dir::State::status=/var/lib/dpkg/status"])
            .args(["-o", "APT::Sandbox::User="])
            .args([
                "-o",
                "APT::Update::Post-Invoke=",
                "-o",
                "DPkg::Post-Invoke=",
            ])
            .arg("-o")
            .arg(format!(
                "Dir::State::lists={}",
                folder.join("lists").display()
            ))
            .arg("-o")
            .arg(format!("Dir::Cache={}", folder.join("cache").display()));
        apt
    };
    run(apt().arg("update"))
        .and_then(|()| run(apt().arg("download").args(C_PACKAGES)))
        .map_err(|error| {
            format!("{wanted} are not installed, and Debian's apt-get does not get them: {error}")
        })?;
    for package in std::fs::read_dir(folder.join("packages")).map_err(io)? {
        let package = package.map_err(io)?.path();
        run(Command::new("dpkg").arg("-x").arg(package).arg(&folder))?;
    }
    for part in ["lists", "cache", "packages"] {
        let _ = std::fs::remove_dir_all(folder.join(part));
    }
    match has_clang(&sysroot) {
        true => Ok(sysroot),
        false => Err(format!(
            "{wanted} do not lie in {} as expected",
            sysroot.display()
        )),
    }
}

/// Says what is missing, where a program does not run.
fn has(program: &str, args: &[&str], what: &str) -> Result<(), String> {
    run(Command::new(program).args(args)).map_err(|error| format!("{what} is needed: {error}"))
}

fn in_folder(folder: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env("WIT", repository().join("wit"))
        // Else pip and npm ask.
        .env("CI", "true");
    command
}

/// Runs a tool to its end; an error has what it said.
fn run(command: &mut Command) -> Result<(), String> {
    let describe = |error: std::io::Error| format!("{command:?}: {error}");
    let said = tempfile::tempfile().map_err(describe)?;
    let also = said.try_clone().map_err(describe)?;
    let read = |mut said: File| {
        use std::io::{Read as _, Seek as _};
        let mut text = Vec::new();
        let _ = said.rewind().and_then(|()| said.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    };
    let named = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(said.try_clone().map_err(|error| error.to_string())?)
        .stderr(also)
        .spawn()
        .map_err(|error| format!("{named}: {error}"))?;
    let deadline = Instant::now() + TOOL_PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{named}: {status}\n{}", read(said))),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            outcome => {
                let _ = child.kill();
                let _ = child.wait();
                let why = match outcome {
                    Err(error) => error.to_string(),
                    Ok(_) => format!("it did not end within {TOOL_PATIENCE:?}"),
                };
                return Err(format!("{named}: {why}\n{}", read(said)));
            }
        }
    }
}
