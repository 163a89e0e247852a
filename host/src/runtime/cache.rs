//! The cache of machine code: a component is compiled once per engine.
//!
//! Machine code is what the host trusts, so it is kept in a directory that only this user
//! reads (0700, files 0400), each file with a MAC under a key that is kept elsewhere. It is
//! verified once per process, and mapped through the very descriptor that was verified.
//!
//! Code that was unmapped and is mapped again is not read as a whole again: it is the
//! verified file if the descriptor through which it is mapped shows the same
//! [`Identity`], down to the time of its last change, which the kernel keeps and nobody
//! sets. Who could change the file without a trace in it (the owner of the machine's
//! clock, or of its disk) could as well change it under a mapping that stays. A file
//! that changed within the last tick of that clock is not remembered, but verified once
//! more.
//!
//! Beside the code lies a note, authenticated by the same key: that this component was
//! linked, instantiated and found to have handlers of the right types by this very
//! program, and with how much memory and fuel. With it a version need not be
//! instantiated, nor its code be mapped, when the host starts.

use std::collections::HashMap;
use std::fs::{File, FileTimes, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compile::{Bench, CompileError, Compiler};
use super::digest::Digest;
use super::identity::Identity;
use super::lifecycle::Init;
use super::snapshot::{Order, Taken};
use crate::hex::{hex, unhex};

/// Machine code that no start asked for in this time is deleted: thirty days, so
/// that a rollback a few versions later is still quick.
const KEEP: Duration = Duration::from_secs(30 * DAY.as_secs());
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The cache of machine code.
pub(crate) struct Cache {
    directory: PathBuf,
    key: Vec<u8>,
    compiler: Compiler,
    /// Names this very program: what another one found of a component is not known to
    /// hold here.
    program: String,
    /// Held by who compiles or tidies up: each compiler uses all cores, and leaves files
    /// that are not whole yet.
    at_work: Mutex<()>,
}

/// Machine code that is mapped.
pub(crate) struct Mapping {
    pub(crate) component: Component,
    /// By which the file is known again; None if a change of it might not show.
    pub(crate) identity: Option<Identity>,
}

/// Why machine code is not mapped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    /// It is not there.
    #[error("it is gone")]
    Missing,
    /// It is not what the compiler wrote.
    #[error("it was changed")]
    Changed,
    /// The system has no room for it now.
    #[error("{0}")]
    NoRoom(std::io::Error),
    /// The engine does not take it.
    #[error("{0}")]
    Refused(String),
}

impl MapError {
    fn open(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing,
            _ => match error.raw_os_error() {
                // A symbolic link in its place.
                Some(libc::ELOOP) => Self::Changed,
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Self::NoRoom(error),
                _ => Self::Refused(error.to_string()),
            },
        }
    }
}

/// What was found of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// What its instance holds at first, in bytes.
    pub(crate) memory: u64,
    /// What its start functions used.
    pub(crate) fuel: u64,
    /// What became of its `init`.
    pub(crate) init: Init,
}

impl Init {
    /// As it stands in notes: one word.
    fn to_word(&self) -> String {
        match self {
            Self::None => "none".into(),
            Self::Kept => "kept".into(),
            Self::EachInstance(why) => format!("each:{}", hex(why.as_bytes())),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        match word {
            "none" => Some(Self::None),
            "kept" => Some(Self::Kept),
            _ => {
                let why = unhex(word.strip_prefix("each:")?)?;
                Some(Self::EachInstance(String::from_utf8(why).ok()?))
            }
        }
    }
}

impl Cache {
    /// Opens the cache in the state directory, making it if need be.
    pub(crate) fn open(state: &Path, compiler: Compiler) -> Result<Self, CompileError> {
        let directory = state.join("compiled");
        match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(CompileError::io("cannot create", &directory))?,
        }
        let key_file = state.join("compiled.key");
        let key = match std::fs::read(&key_file) {
            Ok(key) if key.len() == 32 => key,
            // Without its key nothing in the cache can be trusted: a new key
            // makes it all compile again.
            _ => {
                let mut key = uuid::Uuid::new_v4().into_bytes().to_vec();
                key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
                key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
                // Three times 122 random bits, as 256.
                let key = Sha256::digest(&key).to_vec();
                write_file(&key_file, &key, 0o600)?;
                key
            }
        };
        Ok(Self {
            directory,
            key,
            compiler,
            program: program(),
            at_work: Mutex::default(),
        })
    }

    /// The name of a component's files.
    pub(crate) fn name(engine: &Engine, digest: &Digest) -> String {
        format!("{}-{}", digest.as_str(), compatibility(engine))
    }

    /// Where the machine code of this name is.
    pub(crate) fn code_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.cwasm"))
    }

    fn mac_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.mac"))
    }

    fn note_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.note"))
    }

    /// The machine code that has this key, from the cache or the compiler, whose process
    /// ends when it is cancelled: that of a component, whose digest is the key, or of its
    /// snapshot, which is taken first and named by the order.
    pub(crate) fn get(
        &self,
        engine: &Engine,
        key: &Digest,
        component: &[u8],
        order: Option<&Order>,
        cancelled: &CancellationToken,
    ) -> Result<Mapping, CompileError> {
        let name = Self::name(engine, key);
        let mac = self.mac_file(&name);
        if let Ok(mapping) = self.map(engine, &name, None) {
            note_use(&mac);
            return Ok(mapping);
        }
        let bytes = {
            let _alone = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
            if cancelled.is_cancelled() {
                return Err(CompileError::Cancelled);
            }
            // Somebody else may have compiled it meanwhile.
            if let Ok(mapping) = self.map(engine, &name, None) {
                return Ok(mapping);
            }
            let bench = self.bench(&name);
            let compile = |bytes: &[u8]| self.compiler.compile(engine, bytes, &bench, cancelled);
            match order {
                None => compile(component)?,
                Some(order) => {
                    let taken = self
                        .compiler
                        .snapshot(order, component, &bench, cancelled)?;
                    match taken {
                        Taken::Kept(kept) => compile(&kept)?,
                        Taken::Untrue(why) => return Err(CompileError::Untrue(why)),
                    }
                }
            }
        };
        let authentic = self.mac(&name, &bytes).finalize().into_bytes();
        write_file(&mac, &authentic, 0o400)?;
        write_file(&self.code_file(&name), &bytes, 0o400)?;
        self.map(engine, &name, None).map_err(|error| {
            CompileError::Load(match error {
                MapError::Refused(why) => why,
                other => format!(
                    "what was just compiled is not what was read back: {other}; look at the disk"
                ),
            })
        })
    }

    /// Maps what the cache has, if it is whole and ours. It is not read again if it is
    /// the file that is known, and nobody has changed it since.
    pub(crate) fn map(
        &self,
        engine: &Engine,
        name: &str,
        known: Option<&Identity>,
    ) -> Result<Mapping, MapError> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.code_file(name))
            .map_err(MapError::open)?;
        let look = |file: &File| file.metadata().map(|metadata| Identity::of(&metadata));
        // Before it is read: a change while it is read shows afterwards.
        let identity = look(&file).map_err(MapError::NoRoom)?;
        let remembered = known == Some(&identity);
        if !remembered {
            let expected = std::fs::read(self.mac_file(name)).map_err(MapError::open)?;
            let mut bytes = Vec::with_capacity(usize::try_from(identity.size).unwrap_or(0));
            file.read_to_end(&mut bytes).map_err(MapError::NoRoom)?;
            let mac = self.mac(name, &bytes);
            mac.verify_slice(&expected).map_err(|_| MapError::Changed)?;
        }
        let component = map(engine, &file).map_err(MapError::Refused)?;
        let remembers = remembered || identity.shows_changes();
        Ok(Mapping {
            component,
            identity: remembers.then_some(identity),
        })
    }

    /// What this program has found of a component before, if its machine code is as it
    /// was then. The name of the note is that of the code, but where the note is about one
    /// of several functions that have it.
    pub(crate) fn note(&self, name: &str, code: &str) -> Option<Note> {
        let file = self.note_file(name);
        let text = std::fs::read_to_string(&file).ok()?;
        let (body, mac) = text.trim_end().rsplit_once(' ')?;
        let expected = unhex(mac)?;
        self.note_mac(name, body).verify_slice(&expected).ok()?;
        let words: Vec<&str> = body.split(' ').collect();
        let [program, described, memory, fuel, init] = words.as_slice() else {
            return None;
        };
        if *program != self.program || Some(*described) != self.describe(code).as_deref() {
            return None;
        }
        note_use(&self.mac_file(code));
        if name != code {
            note_use(&file);
        }
        Some(Note {
            memory: memory.parse().ok()?,
            fuel: fuel.parse().ok()?,
            init: Init::of_word(init)?,
        })
    }

    /// Which files the code and its MAC are: as they stand in a note.
    fn describe(&self, name: &str) -> Option<String> {
        let code = std::fs::symlink_metadata(self.code_file(name)).ok()?;
        let mac = std::fs::read(self.mac_file(name)).ok()?;
        Some(format!("{}:{}", Identity::of(&code), hex(&mac)))
    }

    /// Writes down what was found. If that fails, it is found again at the next start.
    pub(crate) fn write_note(&self, name: &str, code: &str, note: &Note) {
        let Some(code) = self.describe(code) else {
            return;
        };
        let Note { memory, fuel, init } = note;
        let init = init.to_word();
        let body = format!("{} {code} {memory} {fuel} {init}", self.program);
        let mac = hex(&self.note_mac(name, &body).finalize().into_bytes());
        // Half of it is none: it need not wait for the disk.
        let file = self.note_file(name);
        let _ = replace(&file, format!("{body} {mac}\n").as_bytes(), 0o400, |_| {
            Ok(())
        });
    }

    /// Deletes what no engine of this kind can use, what nobody used in a long
    /// time, and what a crash left half written.
    pub(crate) fn prune(&self, engine: &Engine) {
        let _alone = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        let suffix = format!("-{}", compatibility(engine));
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return;
        };
        let mut used = HashMap::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let stem = [".cwasm", ".mac", ".note"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending))
                .filter(|stem| stem.ends_with(&suffix));
            let kept = stem.is_some_and(|stem| {
                // The code itself is never touched: it is known by its times. Some notes
                // are about code of another name.
                let look = || {
                    was_used(&self.mac_file(stem), KEEP) || was_used(&self.note_file(stem), KEEP)
                };
                *used.entry(stem.to_owned()).or_insert_with(look)
            });
            if !kept {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn mac(&self, name: &str, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(name.as_bytes());
        mac.update(bytes);
        mac
    }

    /// Not to be taken for the MAC of code: no name begins so.
    fn note_mac(&self, name: &str, body: &str) -> Hmac<Sha256> {
        self.mac("note:", format!("{name} {body}").as_bytes())
    }

    /// Where a process of ours works on what has this name.
    fn bench(&self, name: &str) -> Bench {
        Bench {
            path: self.directory.join(name),
        }
    }
}

/// Notes that a component was of use, by the time of its MAC's file, once a day. If that
/// fails, it is compiled again in a month.
fn note_use(mac: &Path) {
    if !was_used(mac, DAY) {
        let times = FileTimes::new().set_modified(SystemTime::now());
        let _ = File::open(mac).and_then(|file| file.set_times(times));
    }
}

/// Whether a file of the cache was of use in this time. So is one of the future:
/// the machine's clock may have been set back.
fn was_used(file: &Path, within: Duration) -> bool {
    let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| at.elapsed().unwrap_or_default() < within)
}

/// Maps machine code through an open descriptor.
#[allow(
    unsafe_code,
    reason = "machine code is trusted by nature; the caller has verified its MAC"
)]
fn map(engine: &Engine, file: &File) -> Result<Component, String> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the file's content was written by this program's compiler: its
    // MAC was verified on this descriptor.
    unsafe { Component::deserialize_file(engine, path) }.map_err(|error| format!("{error:#}"))
}

/// Writes a file so that it is whole or not there: a crash leaves the old one.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CompileError> {
    replace(path, bytes, mode, File::sync_data).map_err(CompileError::io("cannot write", path))
}

fn replace(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    settle: impl FnOnce(&File) -> std::io::Result<()>,
) -> std::io::Result<()> {
    // Two may write the same at once.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.new", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    settle(&file)?;
    std::fs::rename(&temporary, path)
}

/// Names this program: a file that no other is, and that nobody has changed since.
fn program() -> String {
    match std::fs::metadata("/proc/self/exe") {
        Ok(metadata) => Identity::of(&metadata).to_string(),
        // Then nothing holds beyond this start.
        Err(_) => uuid::Uuid::new_v4().to_string(),
    }
}

/// Names the engine's settings, version and processor features: what was
/// compiled under one name runs under that name only.
fn compatibility(engine: &Engine) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sha = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut sha);
    hex(&sha.0.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_nobody_used_for_long_and_what_no_engine_can_use_is_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), Compiler::InProcess).unwrap();
        let engine = super::super::engine::compiling_engine().unwrap();
        // A component without anything, and one with a custom section.
        let used = b"\0asm\x0d\0\x01\0".to_vec();
        let unused = [used.as_slice(), b"\0\x03\x01a\0"].concat();
        let note = Note {
            memory: 1,
            fuel: 2,
            init: Init::None,
        };
        let files = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            let wanted = CancellationToken::new();
            cache.get(&engine, &digest, bytes, None, &wanted).unwrap();
            let name = Cache::name(&engine, &digest);
            cache.write_note(&name, &name, &note);
            [
                cache.code_file(&name),
                cache.mac_file(&name),
                cache.note_file(&name),
            ]
        };
        let (used_files, unused_files) = (files(&used), files(&unused));
        let long_ago = FileTimes::new().set_modified(SystemTime::now() - KEEP * 2);
        for file in used_files.iter().chain(&unused_files) {
            File::open(file).unwrap().set_times(long_ago).unwrap();
        }
        let other = cache.directory.join("0123-4567.cwasm");
        std::fs::write(&other, "of another engine").unwrap();
        // From the cache.
        files(&used);
        cache.prune(&engine);
        assert!(used_files.iter().all(|file| file.exists()));
        assert!(!unused_files.iter().any(|file| file.exists()));
        assert!(!other.exists());
    }

    /// A cache with the code of a component that has nothing in it.
    fn cache_with_code(folder: &Path) -> (Cache, Engine, String) {
        let cache = Cache::open(folder, Compiler::InProcess).unwrap();
        let engine = super::super::engine::compiling_engine().unwrap();
        let component = b"\0asm\x0d\0\x01\0";
        let digest = Digest::of(component);
        let wanted = CancellationToken::new();
        cache
            .get(&engine, &digest, component, None, &wanted)
            .unwrap();
        let name = Cache::name(&engine, &digest);
        (cache, engine, name)
    }

    fn overwrite(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(file).unwrap();
        change(&mut bytes);
        std::fs::remove_file(file).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    #[test]
    fn what_became_of_an_init_is_one_word_in_a_note() {
        let late = Init::EachInstance("it called `x`: 1 \u{e4}".into());
        for init in [Init::None, Init::Kept, late] {
            let word = init.to_word();
            assert!(!word.contains(char::is_whitespace), "{word}");
            assert_eq!(Init::of_word(&word), Some(init));
        }
        for word in ["", "each", "each:1", "each:1g", "each:ff", "each:+1"] {
            assert_eq!(Init::of_word(word), None, "{word}");
        }
    }

    #[test]
    fn a_note_holds_for_the_code_that_it_was_written_about() {
        let note = Note {
            memory: 65_536,
            fuel: 7,
            init: Init::EachInstance("it called `a b`".into()),
        };
        let noted = || {
            let folder = tempfile::tempdir().unwrap();
            let (cache, _, name) = cache_with_code(folder.path());
            assert_eq!(cache.note(&name, &name), None);
            cache.write_note(&name, &name, &note);
            assert_eq!(cache.note(&name, &name), Some(note.clone()));
            (folder, cache, name)
        };
        type Change = fn(&Cache, &str);
        let changes: [(&str, Change); 6] = [
            ("another figure", |cache, name| {
                overwrite(&cache.note_file(name), |bytes| {
                    let text = String::from_utf8(bytes.clone()).unwrap();
                    *bytes = text.replace(" 65536 ", " 1 ").into_bytes();
                });
            }),
            ("half of it", |cache, name| {
                overwrite(&cache.note_file(name), |bytes| {
                    bytes.truncate(bytes.len() / 2)
                });
            }),
            ("no code", |cache, name| {
                std::fs::remove_file(cache.code_file(name)).unwrap();
            }),
            ("a copy of the code", |cache, name| {
                overwrite(&cache.code_file(name), |_| {});
            }),
            ("another MAC", |cache, name| {
                overwrite(&cache.mac_file(name), |bytes| bytes[0] ^= 1);
            }),
            ("no MAC", |cache, name| {
                std::fs::remove_file(cache.mac_file(name)).unwrap();
            }),
        ];
        for (what, change) in changes {
            let (_folder, cache, name) = noted();
            change(&cache, &name);
            assert_eq!(cache.note(&name, &name), None, "{what}");
        }
        // Nor for another program, or with another key.
        let (folder, mut cache, name) = noted();
        let own = std::mem::replace(&mut cache.program, "another".to_owned());
        assert_eq!(cache.note(&name, &name), None);
        cache.program = own;
        assert_eq!(cache.note(&name, &name), Some(note.clone()));
        std::fs::remove_file(folder.path().join("compiled.key")).unwrap();
        let rekeyed = Cache::open(folder.path(), Compiler::InProcess).unwrap();
        assert_eq!(rekeyed.note(&name, &name), None);
    }

    #[test]
    fn code_that_is_known_is_not_read_again_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, engine, name) = cache_with_code(folder.path());
        let identity = |known| {
            let mapping = cache.map(&engine, &name, known);
            mapping.map(|mapping| mapping.identity)
        };
        assert_eq!(identity(None).unwrap(), None, "a change now may not show");
        // Two ticks of the coarsest clock that there is.
        let deadline = Instant::now() + Duration::from_secs(30);
        let known = loop {
            if let Some(known) = identity(None).unwrap() {
                break known;
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(50));
        };
        // Without its MAC it cannot be verified.
        let mac = std::fs::read(cache.mac_file(&name)).unwrap();
        std::fs::remove_file(cache.mac_file(&name)).unwrap();
        assert_eq!(identity(Some(&known)).unwrap(), Some(known));
        assert!(matches!(identity(None), Err(MapError::Missing)));

        std::fs::write(cache.mac_file(&name), mac).unwrap();
        let code = cache.code_file(&name);
        overwrite(&code, |bytes| *bytes.last_mut().unwrap() ^= 1);
        assert!(matches!(identity(Some(&known)), Err(MapError::Changed)));
        std::fs::remove_file(&code).unwrap();
        assert!(matches!(identity(Some(&known)), Err(MapError::Missing)));
    }

    #[test]
    fn what_was_compiled_for_another_engine_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), Compiler::InProcess).unwrap();
        let ours = super::super::engine::compiling_engine().unwrap();
        let theirs = Engine::new(&wasmtime::Config::new()).unwrap();
        assert_ne!(compatibility(&ours), compatibility(&theirs));
        let component = b"\0asm\x0d\0\x01\0";
        let wanted = CancellationToken::new();
        let digest = Digest::of(component);
        let files = |engine: &Engine| {
            [".cwasm", ".mac"].map(|ending| {
                let name = format!("{}-{}{ending}", digest.as_str(), compatibility(engine));
                cache.directory.join(name)
            })
        };
        cache
            .get(&theirs, &digest, component, None, &wanted)
            .unwrap();
        assert!(!files(&ours)[0].exists());
        // Not under our name either, which the MAC is about as well.
        for (from, to) in files(&theirs).iter().zip(files(&ours)) {
            std::fs::copy(from, to).unwrap();
        }
        let name = Cache::name(&ours, &digest);
        let mapped = cache.map(&ours, &name, None).map(|_| ());
        assert!(matches!(mapped, Err(MapError::Changed)), "{mapped:?}");
        cache.get(&ours, &digest, component, None, &wanted).unwrap();
        let [own, other] = [&ours, &theirs].map(|engine| std::fs::read(&files(engine)[0]).unwrap());
        assert_ne!(own, other, "it is compiled again");
        assert_eq!(own, ours.precompile_component(component).unwrap());
    }
}
