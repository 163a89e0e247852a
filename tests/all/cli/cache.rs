//! The cache of machine code: used when it is ours, and made again when not.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::http::{PROBE, box_with};

/// A file of the cache: which one, and when and as what it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cached {
    path: PathBuf,
    inode: u64,
    modified: (i64, i64),
    bytes: Vec<u8>,
}

/// The machine code and its MAC; the note beside them names these very files.
fn cached(state: &Path) -> Vec<Cached> {
    let mut files: Vec<Cached> = fs::read_dir(state.join("compiled"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it != "note"))
        .map(|path| {
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(
                metadata.permissions().mode() & 0o7777,
                0o400,
                "{}",
                path.display()
            );
            let bytes = fs::read(&path).unwrap();
            Cached {
                path,
                inode: metadata.ino(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                bytes,
            }
        })
        .collect();
    files.sort();
    files
}

/// Starts a host on a state directory, sees that it serves, and ends it.
fn serve(state: &Path) {
    let host = box_with(PROBE)
        .args(["--state", state.to_str().unwrap()])
        .start();
    assert_eq!(host.get("/probe").status, 200);
    host.stop();
}

fn overwrite(file: &Path, bytes: &[u8]) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(file, bytes).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o400)).unwrap();
}

#[test]
fn a_second_start_does_not_compile() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    serve(&state);
    let first = cached(&state);
    assert_eq!(first.len(), 2);
    serve(&state);
    assert_eq!(
        cached(&state)
            .into_iter()
            .map(|file| (file.path, file.inode, file.modified))
            .collect::<Vec<_>>(),
        first
            .into_iter()
            .map(|file| (file.path, file.inode, file.modified))
            .collect::<Vec<_>>()
    );
}

#[test]
fn what_was_tampered_with_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    serve(&state);
    let original = cached(&state);
    let [code, mac] = [".cwasm", ".mac"].map(|suffix| {
        let named = |file: &&Cached| file.path.to_str().unwrap().ends_with(suffix);
        original.iter().find(named).expect("there is one").clone()
    });

    let mut flipped = code.bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut other_mac = mac.bytes.clone();
    other_mac[0] ^= 1;
    let changes: [(&str, &Path, Option<&[u8]>); 6] = [
        ("a bit of the code", &code.path, Some(&flipped)),
        (
            "code that is cut short",
            &code.path,
            Some(&code.bytes[..middle]),
        ),
        ("a bit of the MAC", &mac.path, Some(&other_mac)),
        ("an empty MAC", &mac.path, Some(&[])),
        ("no MAC", &mac.path, None),
        ("no code", &code.path, None),
    ];
    for (name, file, bytes) in changes {
        match bytes {
            Some(bytes) => overwrite(file, bytes),
            None => fs::remove_file(file).unwrap(),
        }
        serve(&state);
        let now = cached(&state);
        assert_eq!(now.len(), 2, "{name}");
        for (now, before) in now.iter().zip(&original) {
            assert!(
                now.bytes == before.bytes,
                "{name}: it is as it was compiled first: {}",
                now.path.display()
            );
        }
        let written = now.iter().find(|now| now.path == file).unwrap();
        let before = original.iter().find(|before| before.path == file).unwrap();
        assert_ne!(
            (written.inode, written.modified),
            (before.inode, before.modified),
            "{name}: it was written again"
        );
    }
}

#[test]
fn machine_code_of_another_host_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
    serve(&ours);
    serve(&theirs);
    let foreign = cached(&theirs);
    let before = cached(&ours);
    for (file, other) in before.iter().zip(&foreign) {
        overwrite(&file.path, &other.bytes);
    }
    serve(&ours);
    let mac = |files: &[Cached]| {
        files
            .iter()
            .find(|file| file.path.extension().is_some_and(|e| e == "mac"))
            .unwrap()
            .bytes
            .clone()
    };
    assert_ne!(mac(&foreign), mac(&before), "each has a key of its own");
    assert_eq!(
        mac(&cached(&ours)),
        mac(&before),
        "it was compiled again under its own"
    );
}

#[test]
fn a_link_in_place_of_machine_code_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    serve(&state);
    let code = cached(&state)
        .into_iter()
        .find(|file| file.path.extension().is_some_and(|e| e == "cwasm"))
        .unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&code.path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &code.path).unwrap();
    serve(&state);
    assert!(
        fs::symlink_metadata(&code.path).unwrap().is_file(),
        "a file stands there again"
    );
}
