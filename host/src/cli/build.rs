//! `dunlin build`

use std::path::{Path, PathBuf};

use super::Exit;
use crate::builder::{Builder, Progress};
use crate::config::{Config, MANIFEST, Overrides, Sources, Values, Variables, manifest_path};

/// Build functions into components.
///
/// Builds what a manifest names as `source`, or one cargo package. Prints where the
/// components are, one on each line of stdout; what cargo says goes to stderr. Secrets
/// need not be there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest, its folder, or the folder of a cargo package
    #[arg(value_name = "PATH", default_value = ".")]
    pub path: PathBuf,
}

/// Builds, and prints `NAME: COMPONENT` for each function, or the component of the package.
///
/// # Errors
/// If the manifest is wrong, or cargo fails.
pub async fn run(args: &Args, variables: &Variables) -> anyhow::Result<Exit> {
    let mut builder = Builder::new(variables);
    let lines = if is_package(&args.path) {
        let folders = [args.path.clone()];
        let artifacts = builder.build(&folders, Progress::Stderr).await?;
        let line = |a: &crate::builder::Artifact| format!("{}\n", a.component.display());
        artifacts.iter().map(line).collect()
    } else {
        build_functions(&mut builder, &args.path, variables).await?
    };
    super::print(lines.as_bytes())?;
    Ok(Exit::Ok)
}

fn is_package(path: &Path) -> bool {
    !path.join(MANIFEST).is_file() && path.join("Cargo.toml").is_file()
}

async fn build_functions(
    builder: &mut Builder,
    path: &Path,
    variables: &Variables,
) -> anyhow::Result<String> {
    let sources = Sources {
        overrides: &Overrides::default(),
        variables,
        values: Values::Skip,
    };
    let mut config = Config::load(&manifest_path(path), sources)?;
    builder
        .build_functions(&mut config.functions, Progress::Stderr)
        .await?;
    let mut lines = String::new();
    for function in &config.functions {
        if let Some(component) = function.component.file() {
            lines += &format!("{}: {}\n", function.name, component.display());
        }
    }
    Ok(lines)
}
