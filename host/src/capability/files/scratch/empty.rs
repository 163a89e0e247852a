//! Emptying a tree: however deep, however wide, with two open directories, without
//! following a link, and without the guest's names for directories.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::path::Path;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens the directory at a path of the host, not a link to one.
pub(super) fn open(path: &Path) -> std::io::Result<std::fs::File> {
    let opened = openat(CWD, path, OFlags::RDONLY | DIRECTORY, Mode::empty())?;
    Ok(opened.into())
}

/// Removes a directory in `root` with all that is in it. Stopped at any time, it leaves only
/// things to remove.
pub(super) fn remove(root: impl AsFd, name: &str) -> Result<(), Errno> {
    remove_all(root, &mut vec![name.to_owned()])
}

/// Removes directories in `root` with all that is in them. Directories further down are
/// first moved up into `root`, under numbers: so it needs neither a stack nor a path that
/// grows with their depth. If it fails, `waiting` has what is left to remove.
pub(super) fn remove_all(root: impl AsFd, waiting: &mut Vec<String>) -> Result<(), Errno> {
    let root = root.as_fd();
    let mut numbers = 0..;
    while let Some(name) = waiting.pop() {
        if let Err(error) = remove_one(root, &name, waiting, &mut numbers) {
            waiting.push(name);
            return Err(error);
        }
    }
    Ok(())
}

/// Removes a directory; those in it are added to the ones that wait.
fn remove_one(
    root: BorrowedFd<'_>,
    name: &str,
    waiting: &mut Vec<String>,
    numbers: &mut impl Iterator<Item = u64>,
) -> Result<(), Errno> {
    let directory = match openat(root, name, OFlags::RDONLY | DIRECTORY, Mode::empty()) {
        Ok(directory) => directory,
        // Empty, another one took its name.
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    // Once more after a pass that removed something: it may have missed others.
    while pass(&directory, |inner| {
        let up = move_up(&directory, inner, root, numbers)?;
        waiting.push(up);
        Ok(())
    })? {}
    drop(directory);
    unlinkat(root, name, AtFlags::REMOVEDIR)
}

/// Removes all that is in `root`.
pub(super) fn clear(root: impl AsFd) -> Result<(), Errno> {
    let root = root.as_fd();
    loop {
        let mut directories = Vec::new();
        let found = pass(root, |name| {
            directories.push(name.to_owned());
            Ok(())
        })?;
        if !found {
            return Ok(());
        }
        for name in directories {
            match remove(root, &name) {
                // One that was moved up took the name of one that was empty.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Looks through a directory: tells of each directory in it, and removes all else. Answers
/// whether there was anything.
fn pass(
    directory: impl AsFd,
    mut each: impl FnMut(&str) -> Result<(), Errno>,
) -> Result<bool, Errno> {
    let mut found = false;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        found = true;
        let kind = match entry.file_type() {
            // Some file systems do not say.
            FileType::Unknown => {
                let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        match (kind, name.to_str()) {
            (FileType::Directory, Ok(name)) => each(name)?,
            // No guest made it: their names are UTF-8.
            (FileType::Directory, Err(_)) => return Err(Errno::ILSEQ),
            _ => unlinkat(&directory, name, AtFlags::empty())?,
        }
    }
    Ok(found)
}

/// Moves a directory up, under a number that nothing has.
fn move_up(
    from: impl AsFd,
    name: &str,
    root: impl AsFd,
    numbers: &mut impl Iterator<Item = u64>,
) -> Result<String, Errno> {
    for number in numbers {
        let up = format!("gone-{number}");
        match renameat(&from, name, &root, &*up) {
            Ok(()) => return Ok(up),
            // Left over from before a crash.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::OVERFLOW)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::mkdirat;
    use tempfile::TempDir;

    use super::*;

    fn names(folder: &TempDir) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder.path().join("root"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn folder() -> TempDir {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join("root/one/sub/sub")).unwrap();
        fs::write(folder.path().join("outside"), "kept").unwrap();
        for name in ["a", "sub/b", "sub/sub/c", "gone-0"] {
            fs::write(folder.path().join("root/one").join(name), "x").unwrap();
        }
        folder
    }

    #[test]
    fn all_goes_but_what_links_lead_to() {
        let folder = folder();
        let one = folder.path().join("root/one");
        for (link, target) in [("file", "outside"), ("folder", ".")] {
            symlink(folder.path().join(target), one.join(link)).unwrap();
            symlink(folder.path().join(target), one.join("sub").join(link)).unwrap();
        }
        fs::create_dir(folder.path().join("root/another")).unwrap();
        fs::write(folder.path().join("root/another/gone-0"), "kept").unwrap();
        let root = open(&folder.path().join("root")).unwrap();
        remove(&root, "one").unwrap();
        assert_eq!(names(&folder), ["another"]);
        assert_eq!(
            fs::read_to_string(folder.path().join("outside")).unwrap(),
            "kept"
        );
        // A link in the place of what is to go is not followed.
        symlink(folder.path(), folder.path().join("root/link")).unwrap();
        assert!(remove(&root, "link").is_err());
        assert!(open(&folder.path().join("root/link")).is_err());
        clear(&root).unwrap();
        assert_eq!(names(&folder), [""; 0]);
        assert!(folder.path().join("outside").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let folder = folder();
        let root = open(&folder.path().join("root")).unwrap();
        let mut inner = open(&folder.path().join("root/one")).unwrap();
        for _ in 0..5000 {
            mkdirat(&inner, "d", Mode::RWXU).unwrap();
            let next = openat(&inner, "d", OFlags::RDONLY | DIRECTORY, Mode::empty());
            inner = next.unwrap().into();
        }
        drop(inner);
        remove(&root, "one").unwrap();
        assert_eq!(names(&folder), [""; 0]);
    }

    #[test]
    fn what_a_crash_left_half_emptied_goes() {
        let folder = folder();
        for (name, file) in [("gone-0", "x"), ("gone-1", ""), ("gone-3", "y")] {
            let left = folder.path().join("root").join(name);
            fs::create_dir(&left).unwrap();
            if !file.is_empty() {
                fs::write(left.join(file), "x").unwrap();
            }
        }
        fs::write(folder.path().join("root/gone-2"), "a file").unwrap();
        clear(open(&folder.path().join("root")).unwrap()).unwrap();
        assert_eq!(names(&folder), [""; 0]);
    }
}
