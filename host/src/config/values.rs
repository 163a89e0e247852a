//! Environment variables, configuration and secrets: their names, and where their values
//! are.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Sources;
use super::document::{Field, Section};
use crate::function::{
    ByteSize, FunctionSpec, MAX_ARGUMENTS, MAX_CONFIG, MAX_ENVIRONMENT, MAX_SECRET, Secret,
};

/// Whether the values of environment variables and secrets are read, and directories to
/// mount looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// They are, and one that is missing is a problem.
    Read,
    /// They stay empty: to build functions on a machine that has no secrets
    /// and no such directories.
    Skip,
}

/// Names that Lambda's runtimes set; who reads them must not meet another's value.
const RESERVED_PREFIXES: [&str; 2] = ["AWS_", "LAMBDA_"];
/// As above.
const RESERVED: [&str; 2] = ["_HANDLER", "_X_AMZN_TRACE_ID"];

/// The longest name of a value of `config`.
const MAX_CONFIG_NAME: usize = 128;

/// What was read, and the files it came from.
pub(super) struct Found<T> {
    values: Vec<T>,
    files: Vec<PathBuf>,
}

impl<T> Found<T> {
    /// The values; the files are added to others.
    pub(super) fn collect_into(self, files: &mut Vec<PathBuf>) -> Vec<T> {
        files.extend(self.files);
        self.values
    }
}

/// Reads `environment`, sorted by name.
pub(super) fn environment(
    section: &Section<'_>,
    folder: &Path,
    sources: Sources<'_>,
) -> Found<(String, String)> {
    let texts = Texts {
        key: "environment",
        what: "a variable",
        most: MAX_ENVIRONMENT,
        remedy: ", as in Lambda; read more from a `secrets` entry",
    };
    texts.read(section, folder, sources, |name, value, text| {
        let is_reserved = RESERVED.contains(&name)
            || RESERVED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix));
        if is_reserved {
            value.secret_problem("a name that Lambda reserves", "choose another");
        } else {
            check_name(name, value);
        }
        if text.contains('\0') {
            value.secret_problem("a NUL byte in the value", "remove it");
        }
    })
}

/// Reads `arguments`.
pub(super) fn arguments(section: &Section<'_>) -> Vec<String> {
    let Some(field) = section.get("arguments") else {
        return Vec::new();
    };
    let arguments = field.strings("--verbose").unwrap_or_default();
    let total: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
    if total > MAX_ARGUMENTS.as_usize() {
        field.problem(
            format!("together they are {total} bytes, with an end for each"),
            format!("allowed is {MAX_ARGUMENTS}; send more with the event, or in a file"),
        );
    }
    if let Some(argument) = arguments.iter().find(|argument| argument.contains('\0')) {
        field.problem(
            format!("{argument:?} has a NUL, which ends an argument for most programs"),
            "take it out",
        );
    }
    arguments.into_iter().map(str::to_owned).collect()
}

/// Reads `config`, sorted by name.
pub(super) fn config(
    section: &Section<'_>,
    folder: &Path,
    sources: Sources<'_>,
) -> Found<(String, String)> {
    let texts = Texts {
        key: "config",
        what: "a value of `config`",
        most: MAX_CONFIG,
        remedy: "; read more from a file that the function mounts",
    };
    texts.read(section, folder, sources, |name, value, _| {
        if name.is_empty() || name.len() > MAX_CONFIG_NAME || name.contains(char::is_control) {
            let remedy =
                format!("use 1 to {MAX_CONFIG_NAME} bytes of text without control characters");
            value.secret_problem("cannot name a value of `config`", remedy);
        }
    })
}

/// A table of texts that have names.
struct Texts {
    key: &'static str,
    /// What one of them is.
    what: &'static str,
    /// Of all names and values together.
    most: ByteSize,
    /// What to do about more, after the number of bytes allowed.
    remedy: &'static str,
}

impl Texts {
    /// Reads them, sorted by name. `check` says what is wrong with one.
    fn read(
        &self,
        section: &Section<'_>,
        folder: &Path,
        sources: Sources<'_>,
        check: impl Fn(&str, &Field<'_>, &str),
    ) -> Found<(String, String)> {
        let mut files = Vec::new();
        let mut values = Vec::new();
        let Some(field) = section.get(self.key) else {
            return Found { values, files };
        };
        for (name, value) in field.table().iter().flat_map(Section::entries) {
            let text = text_or_elsewhere(&value, self.what, folder, sources, &mut files);
            let text = text.unwrap_or_default();
            check(name, &value, &text);
            values.push((name.to_owned(), text));
        }
        let sizes = values.iter().map(|(name, text)| name.len() + text.len());
        let total: usize = sizes.sum();
        if total > self.most.as_usize() {
            field.secret_problem(
                format!("names and values together are {total} bytes"),
                format!("allowed is {}{}", self.most, self.remedy),
            );
        }
        values.sort();
        Found { values, files }
    }
}

/// Reads a text, or from where it is to be read.
fn text_or_elsewhere(
    value: &Field<'_>,
    what: &str,
    folder: &Path,
    sources: Sources<'_>,
    files: &mut Vec<PathBuf>,
) -> Option<String> {
    match value.value().as_str() {
        Some(text) => Some(text.to_owned()),
        None if value.value().is_table() => from_elsewhere(value, folder, sources, files),
        None => {
            value.problem(
                format!("of type {}, but {what} is a text", value.value().type_str()),
                "put it in quotes, or write `{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
            );
            None
        }
    }
}

/// Reads `secrets`, sorted by name.
pub(super) fn secrets(section: &Section<'_>, folder: &Path, sources: Sources<'_>) -> Found<Secret> {
    let mut files = Vec::new();
    let mut values = Vec::new();
    let table = section.get("secrets").and_then(|field| field.table());
    for (name, field) in table.iter().flat_map(Section::entries) {
        check_name(name, &field);
        let value = if field.value().is_table() {
            from_elsewhere(&field, folder, sources, &mut files)
        } else {
            field.secret_problem(
                "a secret's value does not belong in the manifest",
                "write `{ file = \"PATH\" }` or `{ env = \"NAME\" }`, and change the secret \
                 if others could read it here",
            );
            None
        };
        values.push(Secret {
            name: name.to_owned(),
            value: value.unwrap_or_default(),
        });
    }
    values.sort_by(|a, b| a.name.cmp(&b.name));
    Found { values, files }
}

/// A name for both would leave open which one the guest means.
pub(super) fn check_names(section: &Section<'_>, spec: &FunctionSpec) {
    let names: BTreeSet<&str> = spec.environment.iter().map(|(n, _)| n.as_str()).collect();
    let secrets = section
        .get("secrets")
        .filter(|field| field.value().is_table());
    let table = secrets.and_then(|field| field.table());
    for (name, field) in table.iter().flat_map(Section::entries) {
        if names.contains(name) {
            let remedy = "rename one, or leave it out of `environment`";
            field.secret_problem("an environment variable of that name exists too", remedy);
        }
    }
}

/// Lambda's pattern for environment variables: `[a-zA-Z]([a-zA-Z0-9_])+`.
fn check_name(name: &str, field: &Field<'_>) {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let goes_on = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !begins || !goes_on || name.len() < 2 {
        field.secret_problem(
            "cannot name a variable or secret",
            "use 2 or more letters, digits and `_`, with a letter first",
        );
    }
}

/// Reads `{ env = … }` or `{ file = … }`.
fn from_elsewhere(
    field: &Field<'_>,
    folder: &Path,
    sources: Sources<'_>,
    files: &mut Vec<PathBuf>,
) -> Option<String> {
    let table = field.table()?;
    let env = table.get("env");
    let file = table.get("file");
    table.unknown();
    match (env, file) {
        (Some(env), None) => from_variable(&env, text(&env)?, sources),
        (None, Some(file)) => {
            let path = folder.join(text(&file)?);
            files.push(path.clone());
            match sources.values {
                Values::Read => from_file(&file, &path),
                Values::Skip => Some(String::new()),
            }
        }
        (Some(_), Some(_)) => {
            field.secret_problem("both `env` and `file` are given", "leave one of them out");
            None
        }
        (None, None) => {
            field.secret_problem(
                "neither `env` nor `file` is given",
                "write `{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
            );
            None
        }
    }
}

/// The text of `env` or `file`. What is no text is not shown, since it may be the secret.
fn text<'a>(field: &Field<'a>) -> Option<&'a str> {
    let text = field.value().as_str();
    if text.is_none() {
        let what = format!("of type {}, but a text is needed", field.value().type_str());
        field.secret_problem(what, "put the name of the variable or file in quotes");
    }
    text
}

fn from_variable(field: &Field<'_>, name: &str, sources: Sources<'_>) -> Option<String> {
    if sources.values == Values::Skip {
        return Some(String::new());
    }
    let Some(value) = sources.variables.get(name) else {
        let what = "no such variable in the host's environment";
        let remedy = "set it before `dunlin` starts";
        // Something else than a usual name may be the secret itself, put here by mistake.
        let usual = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if name.bytes().all(usual) {
            field.problem(what, remedy);
        } else {
            field.secret_problem(what, remedy);
        }
        return None;
    };
    let Some(value) = value.to_str() else {
        field.problem("the variable's value is not UTF-8", "set it to a text");
        return None;
    };
    if value.len() > MAX_SECRET.as_usize() {
        field.problem(
            format!("the variable's value is {} bytes", value.len()),
            format!("allowed is {MAX_SECRET}"),
        );
        return None;
    }
    Some(value.to_owned())
}

fn from_file(field: &Field<'_>, path: &Path) -> Option<String> {
    // A pipe would block the open.
    if !path.is_file() {
        let what = if path.exists() {
            "not a file"
        } else {
            "no such file"
        };
        let remedy = "create it, or correct the path, which counts from the manifest's folder";
        field.problem(what, remedy);
        return None;
    }
    let most = MAX_SECRET.as_usize();
    let mut bytes = Vec::new();
    // One more tells "too large", two are the line's end.
    let limit = MAX_SECRET.0 + 3;
    let read = std::fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes));
    if let Err(error) = read {
        field.problem(format!("cannot be read: {error}"), "make it readable");
        return None;
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.len() > most {
        field.problem("the file is too large", format!("allowed is {MAX_SECRET}"));
        return None;
    }
    let value = String::from_utf8(bytes).ok();
    if value.is_none() {
        field.problem("the file is not UTF-8", "encode it, for example as base64");
    }
    value
}
