//! Manifests for the host.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A manifest under construction.
#[derive(Clone, Debug, Default)]
pub struct Manifest(String);

impl Manifest {
    /// With these lines under `[host]`.
    #[must_use]
    pub fn new(host: &[&str]) -> Self {
        Self(format!("[host]\n{}\n", host.join("\n")))
    }

    /// Adds a function with routes for GET, and these lines.
    #[must_use]
    pub fn function(
        mut self,
        name: &str,
        component: &Path,
        paths: &[&str],
        lines: &[&str],
    ) -> Self {
        let _ = writeln!(
            self.0,
            "\n[function.{name}]\ncomponent = {:?}\n{}",
            component.display().to_string(),
            lines.join("\n")
        );
        for path in paths {
            let _ = writeln!(
                self.0,
                "[[function.{name}.http]]\nmethod = \"GET\"\npath = {path:?}"
            );
        }
        self
    }

    /// Adds whatever else it is to say.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        let _ = writeln!(self.0, "\n{lines}");
        self
    }

    /// Writes it to a file.
    pub fn write(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        let file = folder.join(format!("{name}.toml"));
        std::fs::write(&file, &self.0)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}
