//! What is counted of buckets: what functions do with them, and how full they are.

use std::fmt::Write as _;

use crate::key_value::Fill;

/// What a function does with a bucket. A closed set: it is a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyValueOperation {
    /// It opens one.
    Open,
    /// It reads a value.
    Get,
    /// It writes a value.
    Set,
    /// It deletes a key.
    Delete,
    /// It asks for a key.
    Exists,
    /// It reads a page of keys.
    ListKeys,
    /// It counts up.
    Increment,
    /// It begins a compare-and-swap, or reads its value.
    Compare,
    /// It swaps.
    Swap,
    /// It reads several values.
    GetMany,
    /// It writes several values.
    SetMany,
    /// It deletes several keys.
    DeleteMany,
}

impl KeyValueOperation {
    /// As it stands in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Get => "get",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Exists => "exists",
            Self::ListKeys => "list_keys",
            Self::Increment => "increment",
            Self::Compare => "compare",
            Self::Swap => "swap",
            Self::GetMany => "get_many",
            Self::SetMany => "set_many",
            Self::DeleteMany => "delete_many",
        }
    }

    /// Whether it needs more than to read. A swap that is begun is to be done.
    #[must_use]
    pub fn writes(self) -> bool {
        match self {
            Self::Open | Self::Get | Self::Exists | Self::ListKeys | Self::GetMany => false,
            Self::Set
            | Self::Delete
            | Self::Increment
            | Self::Compare
            | Self::Swap
            | Self::SetMany
            | Self::DeleteMany => true,
        }
    }
}

/// How an operation ended. A closed set: it is a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyValueOutcome {
    /// It was done.
    Ok,
    /// The value had changed: nothing was swapped.
    Conflict,
    /// It was not granted, or above a limit, or makes no sense.
    Refused,
    /// The host could not: no memory, or the disk.
    Failed,
}

impl KeyValueOutcome {
    /// As it stands in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The families of gauges, with what they say.
pub(super) const FAMILIES: [(&str, &str); 2] = [
    ("dunlin_key_value_keys", "Keys in the bucket."),
    (
        "dunlin_key_value_bytes",
        "Bytes of the keys and values in the bucket.",
    ),
];

/// Adds the buckets' gauges to a text in Prometheus' form.
pub fn render_buckets(out: &mut Vec<u8>, buckets: &[Fill]) {
    if buckets.is_empty() {
        return;
    }
    let mut text = String::new();
    for (family, (name, help)) in FAMILIES.iter().enumerate() {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for fill in buckets {
            let Fill {
                name: bucket,
                keys,
                bytes,
            } = fill;
            // Names of buckets have nothing that needs an escape.
            let value = if family == 0 { keys } else { bytes };
            let _ = writeln!(text, "{name}{{bucket=\"{bucket}\"}} {value}");
        }
    }
    out.extend_from_slice(text.as_bytes());
}
