//! Tells which functions' sources have changed.
//!
//! Watched are the manifest and the files of values in it, components that are named as
//! files, and of each package `Cargo.toml`, `build.rs`, `src/` and `wit/`; of a package
//! that was built also the local packages that it depends on, as cargo's dep-info lists
//! them. So nothing that a build writes (`target/`) or the host (`.dunlin/`) comes back as
//! a change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Config;
use crate::function::FunctionName;

/// An editor saves in several steps, and several files at once.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Files that change all the time are not waited for any longer.
const DEBOUNCE_AT_MOST: Duration = Duration::from_secs(2);

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The manifest, or a file that values in it come from.
    Manifest,
    /// What this function is made from.
    Function(FunctionName),
}

/// The files cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} cannot be watched; if there are too many watches, raise the sysctl \
     fs.inotify.max_user_watches or max_user_instances", path.display()
)]
pub struct WatchError {
    path: PathBuf,
    #[source]
    source: notify::Error,
}

/// Watches a manifest and its functions until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    /// Watches as long as it lives.
    inner: RecommendedWatcher,
    folders: BTreeMap<PathBuf, RecursiveMode>,
}

/// What the watching thread works with, and what it leaves for [`Watcher::next`]. Bounded
/// by the number of functions.
#[derive(Debug, Default)]
struct Shared {
    rules: Mutex<Rules>,
    pending: Mutex<BTreeSet<Change>>,
    changed: Notify,
}

/// What a path means.
#[derive(Debug, Default)]
struct Rules {
    files: BTreeMap<PathBuf, BTreeSet<Change>>,
    /// Packages by folder.
    packages: BTreeMap<PathBuf, BTreeSet<Change>>,
}

impl Watcher {
    /// Watches what the configuration is made from. A function whose package is built
    /// already is watched with its local dependencies.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new(manifest: &Path, config: &Config) -> Result<Self, WatchError> {
        let shared = Arc::<Shared>::default();
        let each = {
            let shared = shared.clone();
            move |event| shared.take(event)
        };
        let inner = notify::recommended_watcher(each).map_err(|source| WatchError {
            path: PathBuf::from("the file system"),
            source,
        })?;
        let mut watcher = Self {
            shared,
            inner,
            folders: BTreeMap::new(),
        };
        watcher.update(manifest, config)?;
        Ok(watcher)
    }

    /// Watches what another configuration is made from. Changes that were seen and not
    /// yet taken stay, and none is missed meanwhile of what was watched before.
    ///
    /// # Errors
    /// If the system refuses a folder; the others are watched.
    pub fn update(&mut self, manifest: &Path, config: &Config) -> Result<(), WatchError> {
        let rules = Rules::new(manifest, config);
        let folders = rules.folders();
        *self.shared.rules() = rules;
        let mut refused = Ok(());
        // Also those that are watched: another folder may stand in the place of one.
        for (path, mode) in &folders {
            if let Err(source) = self.inner.watch(path, *mode) {
                let path = path.clone();
                refused = Err(WatchError { path, source });
            }
        }
        for path in self.folders.keys().filter(|&f| !folders.contains_key(f)) {
            // Refused if the folder is gone, and then it is not watched either.
            let _ = self.inner.unwatch(path);
        }
        self.folders = folders;
        refused
    }

    /// The next changes, as soon as nothing has changed for 100 ms. Cancel safe: what is
    /// not taken stays.
    pub async fn next(&self) -> BTreeSet<Change> {
        loop {
            // A permit is left over if the last call took the changes while they came.
            if self.shared.pending().is_empty() {
                self.shared.changed.notified().await;
                continue;
            }
            let end = Instant::now() + DEBOUNCE_AT_MOST;
            loop {
                let quiet = (Instant::now() + DEBOUNCE).min(end);
                let more = tokio::time::timeout_at(quiet, self.shared.changed.notified()).await;
                if more.is_err() || Instant::now() >= end {
                    return std::mem::take(&mut *self.shared.pending());
                }
            }
        }
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, BTreeSet<Change>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: notify::Result<Event>) {
        let changes = match event {
            // Events were lost: anything may have changed.
            Err(_) => self.rules().all(),
            Ok(event) if event.need_rescan() => self.rules().all(),
            Ok(event) if writes(event.kind) => {
                let rules = self.rules();
                let meanings = event.paths.iter().flat_map(|path| rules.meaning(path));
                meanings.collect()
            }
            Ok(_) => BTreeSet::new(),
        };
        if !changes.is_empty() {
            self.pending().extend(changes);
            self.changed.notify_one();
        }
    }
}

/// Whether an event is one of writing. Reading, which a build does, is none.
fn writes(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

impl Rules {
    fn new(manifest: &Path, config: &Config) -> Self {
        let mut rules = Self::default();
        rules.file(manifest, &Change::Manifest);
        for file in &config.value_files {
            rules.file(file, &Change::Manifest);
        }
        for function in &config.functions {
            let change = Change::Function(function.name.clone());
            let component = function.component.file();
            match function.component.package() {
                None => {
                    if let Some(component) = component {
                        rules.file(component, &change);
                    }
                }
                Some(package) => {
                    rules.package(package, &change);
                    for other in component.map(local_packages).unwrap_or_default() {
                        rules.package(&other, &change);
                    }
                }
            }
        }
        rules
    }

    fn file(&mut self, path: &Path, change: &Change) {
        let Some(name) = path.file_name() else { return };
        // Its folder, since the file may be replaced, or not be there yet.
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        if let Ok(folder) = folder.canonicalize() {
            let changes = self.files.entry(folder.join(name)).or_default();
            changes.insert(change.clone());
        }
    }

    fn package(&mut self, folder: &Path, change: &Change) {
        if let Ok(folder) = folder.canonicalize() {
            let changes = self.packages.entry(folder).or_default();
            changes.insert(change.clone());
        }
    }

    /// What the system is asked to watch.
    fn folders(&self) -> BTreeMap<PathBuf, RecursiveMode> {
        let mut folders = BTreeMap::new();
        let parents = self.files.keys().filter_map(|file| file.parent());
        for folder in parents.chain(self.packages.keys().map(PathBuf::as_path)) {
            folders.insert(folder.to_owned(), RecursiveMode::NonRecursive);
        }
        for package in self.packages.keys() {
            for sources in SOURCES.map(|name| package.join(name)) {
                if sources.is_dir() {
                    folders.insert(sources, RecursiveMode::Recursive);
                }
            }
        }
        folders
    }

    fn meaning(&self, path: &Path) -> BTreeSet<Change> {
        let mut changes = self.files.get(path).cloned().unwrap_or_default();
        for (package, change) in &self.packages {
            if path.strip_prefix(package).is_ok_and(is_source) {
                changes.extend(change.iter().cloned());
            }
        }
        changes
    }

    fn all(&self) -> BTreeSet<Change> {
        let changes = self.files.values().chain(self.packages.values());
        changes.flatten().cloned().collect()
    }
}

/// The folders of a package that its component is made from.
const SOURCES: [&str; 2] = ["src", "wit"];

/// Whether a component is made from a file of the package; not what editors leave beside.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_left_over = name.is_some_and(|name| name.starts_with('.') || name.ends_with('~'));
    let is_in_folder = SOURCES.iter().any(|folder| path.starts_with(folder));
    let is_file = path == Path::new("Cargo.toml") || path == Path::new("build.rs");
    !is_left_over && (is_in_folder || is_file)
}

/// The folders of the local packages whose files are in the dep-info beside a component;
/// cargo leaves those of a registry out.
fn local_packages(component: &Path) -> BTreeSet<PathBuf> {
    let dep_info = component.with_extension("d");
    let text = std::fs::read_to_string(dep_info).unwrap_or_default();
    let files = text.split_once(": ").map_or("", |(_, files)| files);
    let package = |file: PathBuf| {
        let mut folders = file.ancestors().skip(1);
        folders
            .find(|folder| folder.join("Cargo.toml").is_file())
            .map(Path::to_owned)
    };
    split(files).into_iter().filter_map(package).collect()
}

/// The paths of a Makefile rule: blanks divide them, except after a backslash.
fn split(line: &str) -> Vec<PathBuf> {
    let mut paths = vec![String::new()];
    let mut escaped = false;
    for c in line.trim_end().chars() {
        match (c, escaped) {
            ('\\', false) => escaped = true,
            (' ', false) => paths.push(String::new()),
            ('\n', _) => break,
            (c, _) => {
                if escaped && c != ' ' {
                    paths.last_mut().expect("never empty").push('\\');
                }
                paths.last_mut().expect("never empty").push(c);
                escaped = false;
            }
        }
    }
    paths
        .into_iter()
        .filter(|p| !p.is_empty())
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::function::{
        ComponentSource, DEFAULT_PROVISIONED, DEFAULT_WEIGHT, FunctionSpec, Isolation, Limits,
    };

    fn spec(name: &str, component: ComponentSource) -> FunctionSpec {
        FunctionSpec {
            name: FunctionName::new(name).unwrap(),
            component,
            limits: Limits::default(),
            isolation: Isolation::default(),
            reserved_concurrency: None,
            provisioned: DEFAULT_PROVISIONED,
            weight: DEFAULT_WEIGHT,
            environment: Vec::new(),
            secrets: Vec::new(),
            routes: Vec::new(),
        }
    }

    fn function(name: &str) -> Change {
        Change::Function(FunctionName::new(name).unwrap())
    }

    #[tokio::test]
    async fn changes_name_the_functions_that_they_concern() {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in [
            "pkg/src/deep",
            "pkg/target",
            "dep/src",
            "out",
            "pkg/.dunlin",
        ] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        for file in [
            "dunlin.toml",
            "pkg/Cargo.toml",
            "dep/Cargo.toml",
            "motd.txt",
        ] {
            fs::write(path(file), "").unwrap();
        }
        let dep = path("dep/src/lib.rs");
        fs::write(
            path("pkg/target/pkg.d"),
            format!("pkg.wasm: {}", dep.display()),
        )
        .unwrap();
        let config = Config {
            functions: vec![
                spec(
                    "built",
                    ComponentSource::Package {
                        folder: path("pkg"),
                        built: Some(path("pkg/target/pkg.wasm")),
                    },
                ),
                spec("file", ComponentSource::File(path("out/x.wasm"))),
            ],
            value_files: vec![path("motd.txt")],
            ..Config::default()
        };
        let watcher = Watcher::new(&path("dunlin.toml"), &config).unwrap();
        let table: &[(&[&str], &[Change])] = &[
            (&["pkg/src/deep/lib.rs"], &[function("built")]),
            (&["pkg/Cargo.toml"], &[function("built")]),
            (&["dep/src/lib.rs"], &[function("built")]),
            (&["out/x.wasm"], &[function("file")]),
            (&["motd.txt"], &[Change::Manifest]),
            // What means nothing is written together with something that does.
            (
                &[
                    "pkg/target/pkg.wasm",
                    "pkg/.dunlin/x",
                    "pkg/src/.lib.rs.swp",
                    "pkg/src/lib.rs~",
                    "pkg/Cargo.lock",
                    "out/other.wasm",
                    "dunlin.toml",
                ],
                &[Change::Manifest],
            ),
            (
                &["pkg/src/lib.rs", "pkg/src/other.rs", "out/x.wasm"],
                &[function("built"), function("file")],
            ),
        ];
        for (files, expected) in table {
            for file in *files {
                fs::write(path(file), "changed").unwrap();
            }
            let changes = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
            let expected: BTreeSet<Change> = expected.iter().cloned().collect();
            assert_eq!(changes, Ok(expected), "{files:?}");
        }
    }

    #[tokio::test]
    async fn an_update_watches_other_things() {
        let dir = TempDir::new().unwrap();
        let manifest = dir.path().join("dunlin.toml");
        let mut watcher = Watcher::new(&manifest, &Config::default()).unwrap();
        let component = dir.path().join("x.wasm");
        let config = Config {
            functions: vec![spec("x", ComponentSource::File(component.clone()))],
            ..Config::default()
        };
        watcher.update(&manifest, &config).unwrap();
        fs::write(component, "").unwrap();
        let changes = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
        assert_eq!(changes, Ok([function("x")].into()));
    }

    #[test]
    fn blanks_in_dep_info_are_escaped() {
        assert_eq!(
            split("/a\\ b/lib.rs /c/lib.rs\n"),
            [PathBuf::from("/a b/lib.rs"), PathBuf::from("/c/lib.rs")]
        );
    }
}
