//! The tables `[host.mount.NAME]`, the operator's ceiling, and `[[function.NAME.mount]]`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::document::{Field, Section};
use super::{Mountable, Values};
use crate::function::{Access, Mount, SCRATCH_PATH};

pub(super) const ACCESS: [(&str, Access); 2] = [
    ("read-only", Access::ReadOnly),
    ("read-write", Access::ReadWrite),
];
const MAX_NAME: usize = 64;
/// The longest path of a directory for a guest: what one name of a file may have.
const MAX_TO: usize = 255;

/// Reads what may be mounted. A directory that has a problem still has its name.
pub(super) fn mountable(
    host: &Section<'_>,
    folder: &Path,
    values: Values,
) -> BTreeMap<String, Mountable> {
    let mut mountable = BTreeMap::new();
    let table = host.get("mount").and_then(|field| field.table());
    for (name, field) in table.iter().flat_map(Section::entries) {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            field.secret_problem(
                "cannot name a directory to mount",
                "use 1 to 64 letters, digits, `-` and `_`",
            );
        }
        let Some(section) = field.table() else {
            continue;
        };
        let path = path(&section, folder, values).unwrap_or_default();
        let access = section.choice("access", Access::default(), &ACCESS);
        section.unknown();
        mountable.insert(name.to_owned(), Mountable { path, access });
    }
    mountable
}

fn path(section: &Section<'_>, folder: &Path, values: Values) -> Option<PathBuf> {
    let Some(field) = section.get("path") else {
        section.problem("`path` is missing", "name a directory of this machine");
        return None;
    };
    let text = field.string("/srv/uploads")?;
    let path = folder.join(text);
    if text.is_empty() {
        field.problem("an empty path", "name a directory of this machine");
    } else if values == Values::Read {
        let remedy = "create it, or correct the path, which counts from the manifest's folder";
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => field.problem("not a directory", remedy),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                field.problem("no such directory", remedy);
            }
            Err(error) => {
                let what = format!("cannot be looked at: {error}");
                field.problem(what, "let the host's user reach it");
            }
        }
    }
    Some(path)
}

/// Reads what a function mounts.
pub(super) fn read(function: &Section<'_>, mountable: &BTreeMap<String, Mountable>) -> Vec<Mount> {
    let mut mounts = Vec::new();
    let tables = function.get("mount").map(|field| field.tables());
    let has_scratch = function.get("scratch").is_some();
    for table in tables.into_iter().flatten() {
        mounts.extend(read_one(&table, mountable, &mounts, has_scratch));
        table.unknown();
    }
    mounts
}

fn read_one(
    table: &Section<'_>,
    mountable: &BTreeMap<String, Mountable>,
    before: &[Mount],
    has_scratch: bool,
) -> Option<Mount> {
    let from = from(table, mountable);
    let to = to(table, before, has_scratch);
    let access = table.choice("access", Access::default(), &ACCESS);
    let (name, host) = from?;
    if access > host.access
        && let Some(field) = table.get("access")
    {
        field.problem(
            format!(
                "more than the host allows: `{name}` is {}",
                host.access.as_str()
            ),
            format!("leave it out, or set `access` of `[host.mount.{name}]`"),
        );
    }
    Some(Mount {
        from: name.to_owned(),
        path: host.path.clone(),
        to: to?.to_owned(),
        access,
    })
}

fn from<'a, 'm>(
    table: &Section<'a>,
    mountable: &'m BTreeMap<String, Mountable>,
) -> Option<(&'a str, &'m Mountable)> {
    let Some(field) = table.get("from") else {
        table.problem("`from` is missing", "name a directory of `[host.mount]`");
        return None;
    };
    let name = field.string("uploads")?;
    let found = mountable.get(name);
    if found.is_none() {
        field.problem(
            "the host has no directory of that name to mount",
            format!("declare it as `[host.mount.{name}]`"),
        );
    }
    Some((name, found?))
}

fn to<'a>(table: &Section<'a>, before: &[Mount], has_scratch: bool) -> Option<&'a str> {
    let Some(field) = table.get("to") else {
        let remedy = "write where the function finds it, such as `to = \"/data\"`";
        table.problem("`to` is missing", remedy);
        return None;
    };
    let to = clean(&field)?;
    if has_scratch && is_within(to, SCRATCH_PATH) {
        let what = format!("`scratch` is at `{SCRATCH_PATH}`");
        field.problem(what, "mount it elsewhere, or leave `scratch` out");
        return None;
    }
    let meets = |mount: &&Mount| is_within(to, &mount.to) || is_within(&mount.to, to);
    if let Some(other) = before.iter().find(meets) {
        let what = if other.to == to {
            format!("`{}` is mounted there already", other.from)
        } else if is_within(to, &other.to) {
            format!("it lies within `{}`", other.to)
        } else {
            format!("`{}` lies within it", other.to)
        };
        field.problem(what, "mount them beside each other");
        return None;
    }
    Some(to)
}

fn is_within(inner: &str, outer: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An absolute path that says what it means: no guest's library reads it otherwise.
fn clean<'a>(field: &Field<'a>) -> Option<&'a str> {
    let to = field.string("/data")?;
    let what = if !to.starts_with('/') {
        "it does not begin with `/`"
    } else if to == "/" {
        "the root itself cannot be mounted"
    } else if to.len() > MAX_TO {
        "longer than 255 bytes"
    } else if to.contains(char::is_control) {
        "a control character in the path"
    } else if to[1..].split('/').any(|part| matches!(part, "." | "..")) {
        "a part `.` or `..` in the path"
    } else if to[1..].split('/').any(str::is_empty) {
        "an empty part in the path"
    } else {
        return Some(to);
    };
    field.problem(what, "write an absolute path such as `/data`");
    None
}
