//! Tells which functions' sources have changed.
//!
//! Watched are the manifest and the files of values in it, components that are named as
//! files, and of each package `Cargo.toml`, `build.rs`, `src/` and `wit/`. Of a package
//! that was built also what cargo's dep-info beside the component names: every file that
//! the build read, wherever it is, every folder that a build script asked for, and with
//! them the local packages that they belong to; and the manifest and `Cargo.lock` of its
//! workspace.
//!
//! Nothing below the build's own folder (`target/`), and no hidden folder (`.dunlin/`), is
//! a source, so that no build comes back as a change. But one that has to write `Cargo.lock`
//! does, once: cargo finds nothing to do in the next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

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

/// How far the times of files may be behind the clock: file systems count them coarsely.
const COARSE: Duration = Duration::from_secs(1);

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
    /// The components of the packages, as they were built last: a configuration that was
    /// just read knows of none.
    built: BTreeMap<PathBuf, PathBuf>,
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
    /// Folders with all that is in them, whether they are there yet or not.
    trees: BTreeMap<PathBuf, BTreeSet<Change>>,
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
            built: BTreeMap::new(),
        };
        watcher.follow(manifest, config).1?;
        Ok(watcher)
    }

    /// Watches what another configuration is made from. Changes that were seen and not
    /// yet taken stay. Of files that were not watched before, those are changes that were
    /// written after `begun`, when the build began that says it has read them: it may have
    /// been before.
    ///
    /// # Errors
    /// If the system refuses a folder; the others are watched.
    pub fn update(
        &mut self,
        manifest: &Path,
        config: &Config,
        begun: SystemTime,
    ) -> Result<(), WatchError> {
        let (before, followed) = self.follow(manifest, config);
        self.shared.compare(&before, begun);
        followed
    }

    /// Watches what a configuration is made from. Answers what was watched before.
    fn follow(&mut self, manifest: &Path, config: &Config) -> (Rules, Result<(), WatchError>) {
        let sources = || config.functions.iter().map(|function| &function.component);
        self.built
            .retain(|package, _| sources().any(|source| source.package() == Some(package)));
        for source in sources() {
            if let (Some(package), Some(component)) = (source.package(), source.file()) {
                self.built.insert(package.to_owned(), component.to_owned());
            }
        }
        let rules = Rules::new(manifest, config, &self.built);
        let folders = rules.folders();
        let before = std::mem::replace(&mut *self.shared.rules(), rules);
        // First, since one that is watched with all that is in it takes that with it.
        for path in self.folders.keys().filter(|&f| !folders.contains_key(f)) {
            // Refused if the folder is gone, and then it is not watched either.
            let _ = self.inner.unwatch(path);
        }
        let mut refused = Ok(());
        // Also those that are watched: another folder may stand in the place of one.
        for (path, mode) in &folders {
            if let Err(source) = self.inner.watch(path, *mode) {
                let path = path.clone();
                refused = Err(WatchError { path, source });
            }
        }
        self.folders = folders;
        (before, refused)
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

    /// Notes what was written before it was watched.
    fn compare(&self, before: &Rules, begun: SystemTime) {
        let since = begun - COARSE;
        let written = |path: &Path| {
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
            modified.is_ok_and(|at| at >= since)
        };
        let rules = self.rules();
        let new = rules
            .files
            .iter()
            .filter(|(path, _)| before.meaning(path).is_empty());
        let changes: BTreeSet<Change> = new
            .filter(|(path, _)| written(path))
            .flat_map(|(_, changes)| changes.iter().cloned())
            .collect();
        drop(rules);
        self.note(changes);
    }

    fn note(&self, changes: BTreeSet<Change>) {
        if !changes.is_empty() {
            self.pending().extend(changes);
            self.changed.notify_one();
        }
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
        self.note(changes);
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
    /// `built` has the components of packages.
    fn new(manifest: &Path, config: &Config, built: &BTreeMap<PathBuf, PathBuf>) -> Self {
        let mut rules = Self::default();
        rules.file(manifest, &Change::Manifest);
        for file in &config.value_files {
            rules.file(file, &Change::Manifest);
        }
        for function in &config.functions {
            let change = Change::Function(function.name.clone());
            if let Some(package) = function.component.package() {
                rules.package(package, &change);
                if let Some(component) = built.get(package) {
                    rules.build(package, component, &change);
                }
            } else if let Some(component) = function.component.file() {
                rules.file(component, &change);
            }
        }
        rules
    }

    fn file(&mut self, path: &Path, change: &Change) {
        if let Some(path) = real(path) {
            self.files.entry(path).or_default().insert(change.clone());
        }
    }

    fn tree(&mut self, path: &Path, change: &Change) {
        if let Some(path) = real(path) {
            self.trees.entry(path).or_default().insert(change.clone());
        }
    }

    /// What cargo looks for in every package.
    fn package(&mut self, folder: &Path, change: &Change) {
        for name in ["Cargo.toml", "build.rs"] {
            self.file(&folder.join(name), change);
        }
        for name in ["src", "wit"] {
            self.tree(&folder.join(name), change);
        }
    }

    /// What a package's last build read.
    fn build(&mut self, package: &Path, component: &Path, change: &Change) {
        let mut packages = BTreeSet::new();
        for path in dep_info(component) {
            packages.extend(holding(&path, "Cargo.toml"));
            if path.is_dir() {
                self.tree(&path, change);
            } else {
                self.file(&path, change);
            }
        }
        for folder in packages {
            self.package(&folder, change);
        }
        if let Some(workspace) = holding(&package.join("Cargo.toml"), "Cargo.lock") {
            for name in ["Cargo.toml", "Cargo.lock"] {
                self.file(&workspace.join(name), change);
            }
        }
    }

    /// What the system is asked to watch.
    fn folders(&self) -> BTreeMap<PathBuf, RecursiveMode> {
        let inside = |folder: &Path| self.trees.keys().any(|tree| folder.starts_with(tree));
        let mut folders = BTreeMap::new();
        for path in self.files.keys().chain(self.trees.keys()) {
            // Its folder, since it may be replaced, or not be there yet.
            if let Some(folder) = path.parent().filter(|folder| !inside(folder)) {
                folders.insert(folder.to_owned(), RecursiveMode::NonRecursive);
            }
        }
        for tree in self.trees.keys() {
            if tree.is_dir() && !tree.parent().is_some_and(inside) {
                folders.insert(tree.clone(), RecursiveMode::Recursive);
            }
        }
        folders
    }

    fn meaning(&self, path: &Path) -> BTreeSet<Change> {
        let mut changes = self.files.get(path).cloned().unwrap_or_default();
        for (tree, change) in &self.trees {
            if path.strip_prefix(tree).is_ok_and(is_source) {
                changes.extend(change.iter().cloned());
            }
        }
        changes
    }

    fn all(&self) -> BTreeSet<Change> {
        let changes = self.files.values().chain(self.trees.values());
        changes.flatten().cloned().collect()
    }
}

/// A path as the system tells of it. It may be of something that is not there yet, in a
/// folder that is.
fn real(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    Some(folder.canonicalize().ok()?.join(name))
}

/// The nearest folder around a path that has such a file.
fn holding(path: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = path.ancestors().skip(1);
    let folder = folders.find(|folder| folder.join(name).is_file())?;
    Some(folder.to_owned())
}

/// Whether a path in a folder of sources is one; not what is hidden, or what editors leave
/// beside.
fn is_source(path: &Path) -> bool {
    path.iter().all(|name| {
        let name = name.as_encoded_bytes();
        !name.starts_with(b".") && !name.ends_with(b"~")
    })
}

/// What the dep-info beside a component names. Cargo leaves the packages of a registry out;
/// left out here are what the build itself writes, and folders around that.
fn dep_info(component: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(component.with_extension("d")).unwrap_or_default();
    let files = text.split_once(": ").map_or("", |(_, files)| files);
    let mut paths = split(files);
    // TARGET_DIR/wasm32-wasip2/PROFILE/NAME.wasm
    if let Some(target) = component.ancestors().nth(3) {
        paths.retain(|path| !path.starts_with(target) && !target.starts_with(path));
    }
    paths
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
    use crate::function::{ComponentSource, FunctionSpec};

    /// After all that a test writes.
    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    fn spec(name: &str, component: ComponentSource) -> FunctionSpec {
        FunctionSpec::new(FunctionName::new(name).unwrap(), component)
    }

    fn function(name: &str) -> Change {
        Change::Function(FunctionName::new(name).unwrap())
    }

    /// A folder with these files, all empty.
    fn folder(files: &[&str]) -> TempDir {
        let dir = TempDir::new().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    /// A package, and a component that its build has left, from these files and folders.
    fn built(dir: &TempDir, package: &str, read: &[&str]) -> FunctionSpec {
        let path = |name: &str| dir.path().join(name);
        let component = path(package).join("target/wasm32-wasip2/guest/x.wasm");
        fs::create_dir_all(component.parent().unwrap()).unwrap();
        let read: String = read
            .iter()
            .map(|name| format!(" {}", path(name).display()))
            .collect();
        let dep_info = format!("{}:{read}\n", component.display());
        fs::write(component.with_extension("d"), dep_info).unwrap();
        let source = ComponentSource::Package {
            folder: path(package),
            built: Some(component),
        };
        spec("built", source)
    }

    /// Writes files, and answers what that is taken for.
    async fn write(dir: &TempDir, files: &[&str], watcher: &Watcher) -> BTreeSet<Change> {
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "changed").unwrap();
        }
        tokio::time::timeout(Duration::from_secs(10), watcher.next())
            .await
            .unwrap_or_else(|_| panic!("{files:?} are seen"))
    }

    #[tokio::test]
    async fn changes_name_the_functions_that_they_concern() {
        let dir = folder(&[
            "dunlin.toml",
            "motd.txt",
            "out/x.wasm",
            "Cargo.toml",
            "Cargo.lock",
            "words.txt",
            "other.txt",
            "far/off.txt",
            "proto/deep/a.proto",
            "dep/Cargo.toml",
            "dep/src/lib.rs",
            "pkg/Cargo.toml",
            "pkg/Cargo.lock.orig",
            "pkg/src/deep/lib.rs",
            "pkg/.dunlin/x",
        ]);
        let read = [
            "dep/src/lib.rs",
            "pkg/src/deep/lib.rs",
            "pkg/src/deep/../../../words.txt",
            "pkg/.hidden",
            "far/off.txt",
            "proto",
            // A build script may ask for all, and may write what is then included.
            "pkg",
            "pkg/target/wasm32-wasip2/guest/build/pkg/out/made.rs",
        ];
        let made = read[7];
        let config = Config {
            functions: vec![
                built(&dir, "pkg", &read),
                spec("file", ComponentSource::File(dir.path().join("out/x.wasm"))),
            ],
            value_files: vec![dir.path().join("motd.txt")],
            ..Config::default()
        };
        fs::create_dir_all(dir.path().join(made).parent().unwrap()).unwrap();
        let manifest = dir.path().join("dunlin.toml");
        let watcher = Watcher::new(&manifest, &config).unwrap();
        let table: &[(&[&str], &[Change])] = &[
            (&["pkg/src/deep/lib.rs"], &[function("built")]),
            (&["pkg/Cargo.toml"], &[function("built")]),
            (&["pkg/build.rs"], &[function("built")]),
            (&["dep/src/new.rs"], &[function("built")]),
            (&["dep/Cargo.toml"], &[function("built")]),
            // What the build read, wherever it is, under whatever name.
            (&["words.txt"], &[function("built")]),
            (&["pkg/.hidden"], &[function("built")]),
            (&["far/off.txt"], &[function("built")]),
            (&["proto/deep/b.proto"], &[function("built")]),
            // Its workspace.
            (&["Cargo.lock"], &[function("built")]),
            (&["Cargo.toml"], &[function("built")]),
            (&["out/x.wasm"], &[function("file")]),
            (&["motd.txt"], &[Change::Manifest]),
            // What means nothing is written together with something that does.
            (
                &[
                    made,
                    "pkg/target/wasm32-wasip2/guest/x.wasm",
                    "pkg/.dunlin/x",
                    "pkg/README.md",
                    "pkg/src/.lib.rs.swp",
                    "pkg/src/lib.rs~",
                    "proto/.git/index",
                    "pkg/Cargo.lock.orig",
                    "other.txt",
                    "far/other.txt",
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
            let changes = write(&dir, files, &watcher).await;
            let expected: BTreeSet<Change> = expected.iter().cloned().collect();
            assert_eq!(changes, expected, "{files:?}");
        }
    }

    #[tokio::test]
    async fn an_update_watches_other_things() {
        let dir = folder(&[]);
        let manifest = dir.path().join("dunlin.toml");
        let mut watcher = Watcher::new(&manifest, &Config::default()).unwrap();
        let config = Config {
            functions: vec![spec("x", ComponentSource::File(dir.path().join("x.wasm")))],
            ..Config::default()
        };
        watcher.update(&manifest, &config, later()).unwrap();
        let changes = write(&dir, &["x.wasm"], &watcher).await;
        assert_eq!(changes, [function("x")].into());
    }

    #[tokio::test]
    async fn what_was_written_between_the_build_and_the_watch_is_a_change() {
        let dir = folder(&["pkg/Cargo.toml", "old.txt", "new.txt"]);
        let manifest = dir.path().join("dunlin.toml");
        let begun = SystemTime::now();
        let long_ago = begun - Duration::from_secs(60);
        let old = fs::File::open(dir.path().join("old.txt")).unwrap();
        old.set_modified(long_ago).unwrap();
        let cargo_toml = fs::File::open(dir.path().join("pkg/Cargo.toml")).unwrap();
        cargo_toml.set_modified(long_ago).unwrap();
        // After that: to set a time is a change, too.
        let mut watcher = Watcher::new(&manifest, &Config::default()).unwrap();
        let config = |read: &[&str]| Config {
            functions: vec![built(&dir, "pkg", read)],
            ..Config::default()
        };
        watcher
            .update(&manifest, &config(&["old.txt"]), begun)
            .unwrap();
        assert!(watcher.shared.pending().is_empty());
        watcher
            .update(&manifest, &config(&["old.txt", "new.txt"]), begun)
            .unwrap();
        assert_eq!(watcher.next().await, [function("built")].into());
        // Once: it is watched now.
        watcher
            .update(&manifest, &config(&["old.txt", "new.txt"]), begun)
            .unwrap();
        assert!(watcher.shared.pending().is_empty());
    }

    #[tokio::test]
    async fn what_the_last_build_read_is_watched_until_the_next_says_otherwise() {
        let dir = folder(&["pkg/Cargo.toml", "a/b/c.txt", "z.txt"]);
        let manifest = dir.path().join("dunlin.toml");
        let config = |function| Config {
            functions: vec![function],
            ..Config::default()
        };
        let seen = [function("built")].into();
        let mut watcher = Watcher::new(&manifest, &config(built(&dir, "pkg", &["a"]))).unwrap();
        assert_eq!(write(&dir, &["a/new.txt"], &watcher).await, seen);
        // The manifest as it is read anew: nothing is built yet.
        let mut unbuilt = built(&dir, "pkg", &["a"]);
        unbuilt.component = ComponentSource::Package {
            folder: dir.path().join("pkg"),
            built: None,
        };
        watcher
            .update(&manifest, &config(unbuilt), later())
            .unwrap();
        assert_eq!(write(&dir, &["a/b/c.txt"], &watcher).await, seen);
        // A part of what was watched as a whole.
        let next = built(&dir, "pkg", &["a/b/c.txt", "z.txt"]);
        watcher.update(&manifest, &config(next), later()).unwrap();
        assert_eq!(write(&dir, &["a/b/c.txt"], &watcher).await, seen);
        let both = ["a/new.txt", "dunlin.toml"];
        assert_eq!(
            write(&dir, &both, &watcher).await,
            [Change::Manifest].into()
        );
    }

    #[test]
    fn blanks_in_dep_info_are_escaped() {
        assert_eq!(
            split("/a\\ b/lib.rs /c/lib.rs\n"),
            [PathBuf::from("/a b/lib.rs"), PathBuf::from("/c/lib.rs")]
        );
    }
}
