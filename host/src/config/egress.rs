//! `egress` and `ca-file` of `[host]`, the operator's ceiling, and `egress` of a function.

use std::ops::RangeInclusive;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::document::{Field, Section};
use super::{EgressConfig, Values};
use crate::function::Egress;
use crate::function::egress::{
    CONNECTIONS_RANGE, MAX_RULES, REQUESTS_RANGE, RESPONSE_RANGE, Rule, TIMEOUTS_RANGE,
};

/// Linux gives a process about a million file descriptors at most; each is one.
const ALL_CONNECTIONS_RANGE: RangeInclusive<u32> = 1..=100_000;
/// A file of roots: the largest bundles have a few hundred KiB.
const MAX_CA_FILE: u64 = 16 << 20;

/// Reads what functions may reach.
pub(super) fn of_host(section: &Section<'_>, folder: &Path, values: Values) -> EgressConfig {
    let default = EgressConfig::default();
    let roots = section
        .get("ca-file")
        .and_then(|field| roots(&field, folder, values));
    EgressConfig {
        ceiling: section
            .get("egress")
            .map_or(default.ceiling, |field| rules(&field)),
        connections: section.number(
            "egress-connections",
            default.connections,
            ALL_CONNECTIONS_RANGE,
        ),
        roots: roots.unwrap_or_default(),
    }
}

/// Reads what a function may reach: a list, or a table with the list as `allow`.
pub(super) fn of_function(function: &Section<'_>, host: &EgressConfig) -> Egress {
    let default = Egress::default();
    let Some(field) = function.get("egress") else {
        return default;
    };
    if field.value().as_array().is_some() {
        let rules = within(&field, host);
        return Egress { rules, ..default };
    }
    if !field.value().is_table() {
        field.problem(
            "neither a list nor a table",
            "write `egress = [\"https://api.example.com\"]`, or a table with `allow`",
        );
        return default;
    }
    let Some(table) = field.table() else {
        return default;
    };
    let Some(allow) = table.get("allow") else {
        table.problem(
            "`allow` is missing",
            "write `allow = [\"https://api.example.com\"]`",
        );
        table.unknown();
        return default;
    };
    let timeout = |name, default| table.duration(name, default, TIMEOUTS_RANGE);
    let egress = Egress {
        rules: within(&allow, host),
        connections: table.number("connections", default.connections, CONNECTIONS_RANGE),
        requests: table.number("requests", default.requests, REQUESTS_RANGE),
        response: table.size("response-limit", default.response, RESPONSE_RANGE),
        connect_timeout: timeout("connect-timeout", default.connect_timeout),
        first_byte_timeout: timeout("first-byte-timeout", default.first_byte_timeout),
        between_bytes_timeout: timeout("between-bytes-timeout", default.between_bytes_timeout),
    };
    table.unknown();
    egress
}

/// Those of a list that the host allows; the others are problems.
fn within(field: &Field<'_>, host: &EgressConfig) -> Vec<Rule> {
    let rules = rules(field);
    for rule in &rules {
        check(rule, field, host);
    }
    rules
}

/// Whether the host allows it.
pub(super) fn check(rule: &Rule, field: &Field<'_>, host: &EgressConfig) {
    if !host.ceiling.iter().any(|ceiling| ceiling.covers(rule)) {
        field.problem(
            format!("`{rule}` is more than the host allows"),
            format!(
                "add `\"{rule}\"` to `egress` of `[host]`, which allows public addresses only \
                 where it is not set"
            ),
        );
    }
}

fn rules(field: &Field<'_>) -> Vec<Rule> {
    let texts = field.strings("https://api.example.com").unwrap_or_default();
    if texts.len() > MAX_RULES {
        field.problem(
            format!("{} of them, more than {MAX_RULES}", texts.len()),
            "join some with `*.` or a block of addresses",
        );
    }
    let rule = |text: &str| {
        let problem = |error: &_| {
            let crate::function::egress::InvalidRule { what, remedy } = error;
            let what = format!("`{}` cannot be listed: {what}", text.escape_debug());
            field.problem(what, *remedy);
        };
        Rule::parse(text).inspect_err(problem).ok()
    };
    texts.into_iter().filter_map(rule).collect()
}

fn roots(field: &Field<'_>, folder: &Path, values: Values) -> Option<Vec<CertificateDer<'static>>> {
    let text = field.string("/etc/ssl/our-ca.pem")?;
    if values == Values::Skip {
        return None;
    }
    let path = folder.join(text);
    let remedy = "name a file of certificates in PEM form; the path counts from the manifest's \
                  folder";
    match std::fs::metadata(&path) {
        Ok(found) if !found.is_file() => {
            field.problem("not a file", remedy);
            return None;
        }
        Ok(found) if found.len() > MAX_CA_FILE => {
            field.problem("larger than 16 MiB", remedy);
            return None;
        }
        Ok(_) => {}
        Err(error) => {
            field.problem(format!("cannot be read: {error}"), remedy);
            return None;
        }
    }
    let read = CertificateDer::pem_file_iter(&path);
    let read = read.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let roots = match read {
        Ok(roots) => roots,
        Err(error) => {
            field.problem(format!("cannot be read: {error}"), remedy);
            return None;
        }
    };
    let mut store = RootCertStore::empty();
    if roots.is_empty() {
        field.problem("no certificate in it", remedy);
    } else if let Some(error) = roots.iter().find_map(|root| store.add(root.clone()).err()) {
        field.problem(
            format!("a certificate that nobody can use: {error}"),
            remedy,
        );
    }
    Some(roots)
}
