//! The tables `[key-value.NAME]`, the operator's buckets, and `[[function.NAME.key-value]]`.

use super::document::{Field, Section};
use super::mounts::ACCESS;
use crate::function::{Access, ByteSize, Grant};
use crate::key_value::{BYTES_RANGE, BucketName, KEYS_RANGE, Quota, VALUE_RANGE};

/// The longest name by which a function opens a bucket.
const MAX_NAME: usize = 64;
/// Buckets of one function.
const MAX_GRANTS: usize = 100;

/// Reads all buckets.
pub(super) fn read_all(root: &Section<'_>) -> Vec<(BucketName, Quota)> {
    let mut buckets = Vec::new();
    for (name, field) in root.table("key-value").entries() {
        let name = BucketName::new(name).inspect_err(|_| {
            field.secret_problem(
                "cannot name a bucket",
                "use 1 to 64 letters, digits, `-` and `_`",
            );
        });
        let Some(section) = field.table() else {
            continue;
        };
        let quota = quota(&section);
        section.unknown();
        buckets.extend(name.ok().map(|name| (name, quota)));
    }
    buckets
}

fn quota(section: &Section<'_>) -> Quota {
    let default = Quota::default();
    let size = |name, default, range: std::ops::RangeInclusive<u64>| {
        let range = ByteSize(*range.start())..=ByteSize(*range.end());
        section.size(name, ByteSize(default), range).0
    };
    Quota {
        max_keys: section
            .get("max-keys")
            .and_then(|field| field.number(KEYS_RANGE))
            .map_or(default.max_keys, u64::from),
        max_value: size("max-value", default.max_value, VALUE_RANGE),
        max_bytes: size("max-bytes", default.max_bytes, BYTES_RANGE),
    }
}

/// Reads the buckets that a function may use; each is noted with its place, to be looked for.
pub(super) fn grants<'a>(
    function: &Section<'a>,
    named: &mut Vec<(BucketName, Field<'a>)>,
) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    let Some(field) = function.get("key-value") else {
        return grants;
    };
    let tables = field.tables();
    if tables.len() > MAX_GRANTS {
        let what = format!("{} of them, more than {MAX_GRANTS}", tables.len());
        field.problem(what, "split the function");
    }
    for table in tables {
        let access = table.choice("access", Access::ReadWrite, &ACCESS);
        let bucket = bucket(&table, named);
        let as_name = table.get("name");
        let name = match &as_name {
            Some(field) => field
                .string("default")
                .filter(|name| check_name(name, field))
                .map(str::to_owned),
            None => bucket.as_ref().map(ToString::to_string),
        };
        table.unknown();
        let (Some(bucket), Some(name)) = (bucket, name) else {
            continue;
        };
        if grants.iter().any(|other| other.name == name) {
            let what = "the function opens another bucket by this name";
            let remedy = "give each a `name` of its own";
            match as_name.or_else(|| table.get("bucket")) {
                Some(field) => field.problem(what, remedy),
                None => table.problem(what, remedy),
            }
            continue;
        }
        grants.push(Grant {
            name,
            bucket,
            access,
        });
    }
    grants
}

fn bucket<'a>(table: &Section<'a>, named: &mut Vec<(BucketName, Field<'a>)>) -> Option<BucketName> {
    let Some(field) = table.get("bucket") else {
        table.problem("`bucket` is missing", "name a bucket: `bucket = \"carts\"`");
        return None;
    };
    let name = BucketName::new(field.string("carts")?);
    let name = name.inspect_err(|_| {
        field.problem(
            "cannot name a bucket",
            "use 1 to 64 letters, digits, `-` and `_`",
        );
    });
    let name = name.ok()?;
    named.push((name.clone(), field));
    Some(name)
}

/// What a guest opens may be any text: programs that were not written for this host have
/// theirs built in, the empty one among them.
fn check_name(name: &str, field: &Field<'_>) -> bool {
    let is_good = name.len() <= MAX_NAME && !name.contains(char::is_control);
    if !is_good {
        field.problem(
            "no name to open a bucket by",
            format!("use {MAX_NAME} bytes at most, without control characters"),
        );
    }
    is_good
}

/// Checks that all buckets are there that functions name.
pub(super) fn check(named: Vec<(BucketName, Field<'_>)>, buckets: &[(BucketName, Quota)]) {
    for (name, field) in named {
        if !buckets.iter().any(|(bucket, _)| *bucket == name) {
            field.problem(
                format!("no bucket `{name}`"),
                format!("declare it as `[key-value.{name}]`"),
            );
        }
    }
}
