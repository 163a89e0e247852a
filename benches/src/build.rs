//! Building what is compared: the programs, and the guests that they serve.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Rust's default, where the workspace links guests with 64 KiB.
const DEFAULT_STACK: &str = "-Clink-arg=-zstack-size=1048576";
const TARGET: &str = "wasm32-wasip2";

/// The guests, built.
#[derive(Clone, Debug)]
pub struct Guests {
    /// `guest-examples/hello` as the template builds it: a stack of 64 KiB.
    pub hello: PathBuf,
    /// The same with Rust's default stack of 1 MiB.
    pub hello_default_stack: PathBuf,
    /// The same greeting through `wasi:http`.
    pub wasi_http_hello: PathBuf,
    /// The same through `wasi:http` 0.3.
    pub wasi_http_hello_03: PathBuf,
    /// `benches/guests/wasi-http-echo`.
    pub wasi_http_echo: PathBuf,
    /// `guest-examples/dictionary`, whose `init` indexes 5 000 words.
    pub dictionary: PathBuf,
    /// hello, with its greeting among 5 000 that its `init` has put into a map.
    pub hello_prepared: PathBuf,
    /// `benches/guests/spinner`.
    pub spinner: PathBuf,
    /// `benches/guests/sink`.
    pub sink: PathBuf,
    /// The other examples that answer a plain GET: function and path.
    pub examples: Vec<(PathBuf, &'static str)>,
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}

fn cargo(folder: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    // The flags of the guests are those of `.cargo/config.toml`.
    command
        .current_dir(folder)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .arg("build");
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo failed: {command:?}");
    Ok(())
}

/// Builds the host and the bare server, as one build.
pub fn programs() -> Result<()> {
    run(cargo(&root()).args([
        "--release",
        "--package=dunlin",
        "--package=dunlin-benches",
        "--bin=dunlin",
        "--bin=bare-hyper",
    ]))
}

/// Where the programs of this build are.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    Ok(own.with_file_name(name))
}

/// The folder that cargo builds into.
#[must_use]
pub fn target_dir() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(folder)
}

fn built(target: &Path, name: &str) -> Result<PathBuf> {
    let file = target.join(TARGET).join("guest").join(name);
    ensure!(file.is_file(), "{} is not built", file.display());
    Ok(file)
}

/// The compact hello, built before.
pub fn compact_hello() -> Result<PathBuf> {
    built(&target_dir(), "hello.wasm")
}

/// Builds the guests, unless they are taken as they are.
pub fn guests(build: bool) -> Result<Guests> {
    let root = root();
    let target = target_dir();
    let for_benches = target.join("benches");
    let default_stack = target.join("benches-default-stack");
    let profile = ["--profile=guest", "--target", TARGET];
    if build {
        let examples = [
            "hello",
            "dictionary",
            "users-api",
            "thumbnail",
            "lambda-port",
        ];
        run(cargo(&root)
            .args(profile)
            .args(examples.map(|name| format!("--package={name}"))))?;
        run(cargo(&root)
            .args(profile)
            .arg("--package=hello")
            .arg("--target-dir")
            .arg(&default_stack)
            .env("RUSTFLAGS", DEFAULT_STACK))?;
        run(cargo(&root.join("benches/guests"))
            .args(profile)
            .arg("--target-dir")
            .arg(&for_benches))?;
    }
    Ok(Guests {
        hello: compact_hello()?,
        hello_default_stack: built(&default_stack, "hello.wasm")?,
        wasi_http_hello: built(&for_benches, "wasi_http_hello.wasm")?,
        wasi_http_hello_03: built(&for_benches, "wasi_http_hello_03.wasm")?,
        wasi_http_echo: built(&for_benches, "wasi_http_echo.wasm")?,
        dictionary: built(&target, "dictionary.wasm")?,
        hello_prepared: built(&for_benches, "hello_prepared.wasm")?,
        spinner: built(&for_benches, "spinner.wasm")?,
        sink: built(&for_benches, "sink.wasm")?,
        examples: vec![
            (built(&target, "users_api.wasm")?, "/users"),
            (built(&target, "lambda_port.wasm")?, "/lambda"),
            (built(&target, "thumbnail.wasm")?, "/thumbnail"),
        ],
    })
}

/// A copy of a component that is another one to the host: with a custom section of its own.
pub fn variant(component: &Path, number: usize, into: &Path) -> Result<PathBuf> {
    let mut bytes =
        std::fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    let name = format!("variant-{number}");
    // id 0, size, then the name with its length; all are below 128 and so one byte each.
    let length = u8::try_from(name.len())?;
    bytes.extend_from_slice(&[0, length + 1, length]);
    bytes.extend_from_slice(name.as_bytes());
    let file = into.join(format!("{name}.wasm"));
    std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
