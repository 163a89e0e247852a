//! `dunlin check`

use std::path::{Path, PathBuf};

use super::Exit;
use crate::config::{Config, Overrides, Problems, Sources, Values, Variables, manifest_path};
use crate::function::FunctionSpec;

/// Say everything that is wrong with a manifest.
///
/// Each problem is a line on stderr, `FILE:LINE: KEY: VALUE: what is wrong; remedy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest, or its folder
    #[arg(value_name = "DIR|dunlin.toml", default_value = ".")]
    pub path: PathBuf,

    /// Do not look for the values of environment variables, `config` and secrets, nor for
    /// directories to mount: for a machine that does not have them
    #[arg(long)]
    pub no_values: bool,
}

/// Checks a manifest and prints what is in it.
///
/// # Errors
/// [`Problems`], if anything is wrong.
pub fn run(args: &Args, variables: &Variables) -> anyhow::Result<Exit> {
    let values = if args.no_values {
        Values::Skip
    } else {
        Values::Read
    };
    let summary = check(&args.path, variables, values)?;
    super::print(format!("{summary}\n").as_bytes())?;
    Ok(Exit::Ok)
}

pub(super) fn check(
    path: &Path,
    variables: &Variables,
    values: Values,
) -> Result<String, Problems> {
    let sources = Sources {
        overrides: &Overrides::default(),
        variables,
        values,
    };
    let config = Config::load(&manifest_path(path), sources)?;
    let functions = config.functions.len();
    let routes = config.functions.iter().map(|f| f.routes.len()).sum();
    Ok(format!(
        "{}ok: {}, {}",
        notes(&config),
        count(functions, "function"),
        count(routes, "route")
    ))
}

/// What is not wrong and still worth to know, a line each.
fn notes(config: &Config) -> String {
    let note = |function: &FunctionSpec| {
        let inspected = config.inspected.get(function.component.file()?)?;
        let why = inspected.init_obstacle()?;
        Some(super::init_note(function.name.as_str(), &why))
    };
    config.functions.iter().filter_map(note).collect()
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
