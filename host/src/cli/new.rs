//! `dunlin new`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::Exit;
use crate::function::FunctionName;

/// Make a folder with a new function.
///
/// It has a cargo package, a manifest, and nothing that must be changed before
/// `dunlin up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the function handles
    #[arg(value_enum)]
    pub template: Template,

    /// Its name, which is the folder's too
    #[arg(value_parser = package_name)]
    pub name: String,
}

/// What the function handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Template {
    /// HTTP requests
    Http,
    /// Invocations with a payload, as on AWS Lambda
    Invoke,
}

/// Name in the new folder, and content.
type File = (&'static str, &'static str);

macro_rules! template {
    ($folder:literal: $($name:literal = $file:literal),+ $(,)?) => {
        &[$((
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/", $folder, "/", $file)),
        )),+]
    };
}

// In `templates/`, files have names that neither cargo nor git take for their own.
const HTTP: &[File] = template!("http":
    "Cargo.toml" = "Cargo.toml.tmpl",
    ".cargo/config.toml" = "cargo-config.toml",
    ".gitignore" = "gitignore",
    "README.md" = "README.md",
    "dunlin.toml" = "dunlin.toml",
    "src/lib.rs" = "src/lib.rs",
);
const INVOKE: &[File] = template!("invoke":
    "Cargo.toml" = "Cargo.toml.tmpl",
    ".cargo/config.toml" = "cargo-config.toml",
    ".gitignore" = "gitignore",
    "README.md" = "README.md",
    "dunlin.toml" = "dunlin.toml",
    "src/lib.rs" = "src/lib.rs",
);

/// Names that cargo or rustc refuse for a package: keywords and what std has.
const TAKEN: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Writes the folder, and prints what to do next.
///
/// # Errors
/// If something of that name is there, or it cannot be written.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let folder = PathBuf::from(&args.name);
    create(args.template, &args.name, &folder, &sdk(&sdk_folder()))?;
    super::print(next_steps(args.template, &args.name).as_bytes())?;
    Ok(Exit::Ok)
}

fn next_steps(template: Template, name: &str) -> String {
    let try_it = match template {
        Template::Http => "curl http://127.0.0.1:3000/hello/ada".to_owned(),
        Template::Invoke => format!("dunlin invoke {name} --data '{{\"name\":\"ada\"}}'"),
    };
    format!(
        "created {name}\n\nnext:\n  cd {name}\n  dunlin up\nand in another terminal, in the same \
         folder:\n  {try_it}\n"
    )
}

/// Fills in the template. An existing folder is left alone, even an empty one.
pub(super) fn create(
    template: Template,
    name: &str,
    folder: &Path,
    sdk: &str,
) -> anyhow::Result<()> {
    let files = match template {
        Template::Http => HTTP,
        Template::Invoke => INVOKE,
    };
    fs::create_dir(folder).with_context(|| {
        format!(
            "cannot create the folder {}; choose another name, or remove what is there",
            folder.display()
        )
    })?;
    for (file, content) in files {
        let path = folder.join(file);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            let content = content.replace("{{name}}", name).replace("{{sdk}}", sdk);
            fs::write(&path, content)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A name must do for a function, a cargo package and a folder.
fn package_name(name: &str) -> anyhow::Result<String> {
    FunctionName::new(name)?;
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.contains(char::is_uppercase) {
        bail!("use lower-case letters, digits, `-` and `_`, with a letter first");
    }
    if TAKEN.contains(&name) {
        bail!("Rust has something of that name; choose another");
    }
    Ok(name.to_owned())
}

/// The SDK beside the host's sources, on a machine that has them.
fn sdk_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk")
}

/// What the package's Cargo.toml says of the SDK: where it is, or its version.
pub(super) fn sdk(folder: &Path) -> String {
    let version = concat!(
        env!("CARGO_PKG_VERSION_MAJOR"),
        ".",
        env!("CARGO_PKG_VERSION_MINOR")
    );
    match folder.canonicalize() {
        Ok(folder) if folder.join("Cargo.toml").is_file() => {
            let path = toml::Value::from(folder.display().to_string());
            format!("{{ path = {path} }}")
        }
        _ => format!("\"{version}\""),
    }
}
