//! The tables `[[function.NAME.http]]`, and conflicts between them.

use std::collections::{BTreeMap, BTreeSet};

use matchit::{InsertError, Router};

use super::document::{Field, Report, Section};
use crate::function::{FunctionName, Route, RouteMethod};

/// Those that a handler of a route can expect. `CONNECT` and `TRACE` are not for it.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// All routes of the manifest, with their places.
#[derive(Default)]
pub(super) struct Routes(Vec<Placed>);

struct Placed {
    function: FunctionName,
    route: Route,
    at: usize,
    key: String,
}

impl Routes {
    /// Reads the routes of a function: one for each method that a table lists.
    pub(super) fn read(&mut self, function: &FunctionName, section: &Section<'_>) -> Vec<Route> {
        let before = self.0.len();
        let tables = section.get("http").map(|field| field.tables());
        for table in tables.into_iter().flatten() {
            self.read_one(function, &table);
            table.unknown();
        }
        self.0[before..].iter().map(|p| p.route.clone()).collect()
    }

    fn read_one(&mut self, function: &FunctionName, table: &Section<'_>) {
        let host = table.get("host").and_then(|field| host(&field));
        let methods = table.get("method").map(|field| methods(&field));
        let Some(field) = table.get("path") else {
            let remedy = "write a pattern such as `path = \"/users/{id}\"`";
            return table.problem("`path` is missing", remedy);
        };
        let Some(path) = path(&field) else { return };
        for method in methods.unwrap_or_else(|| vec![RouteMethod::Any]) {
            self.0.push(Placed {
                function: function.clone(),
                route: Route {
                    host: host.clone(),
                    method,
                    path: path.to_owned(),
                },
                at: field.at(),
                key: table.key("path"),
            });
        }
    }

    /// Reports routes that the same request could mean: of the same host, with a method
    /// in common, and patterns that matchit does not take together.
    pub(super) fn check(&self, report: &Report) {
        let mut hosts: BTreeMap<&Option<String>, Vec<&Placed>> = BTreeMap::new();
        for placed in &self.0 {
            hosts.entry(&placed.route.host).or_default().push(placed);
        }
        for routes in hosts.values() {
            check_host(report, routes);
        }
    }
}

fn check_host(report: &Report, routes: &[&Placed]) {
    let methods: BTreeSet<&RouteMethod> = routes.iter().map(|p| &p.route.method).collect();
    // A route for every method meets those of each; report the pair once.
    let mut reported = BTreeSet::new();
    for method in methods {
        let mut router = Router::new();
        let mut earlier: Vec<&Placed> = Vec::new();
        let alike = |placed: &&&Placed| [&RouteMethod::Any, method].contains(&&placed.route.method);
        for placed in routes.iter().filter(alike) {
            if router.insert(&placed.route.path, ()).is_ok() {
                earlier.push(placed);
                continue;
            }
            // Should matchit refuse for the sake of several, the last one is named.
            let pair = earlier.iter().find(|earlier| conflict(earlier, placed));
            let Some(with) = pair.or(earlier.last()) else {
                continue;
            };
            if reported.insert((with.at, placed.at)) {
                report_conflict(report, with, placed);
            }
        }
    }
}

fn conflict(a: &Placed, b: &Placed) -> bool {
    let mut router = Router::new();
    router.insert(&a.route.path, ()).is_ok() && router.insert(&b.route.path, ()).is_err()
}

fn report_conflict(report: &Report, with: &Placed, placed: &Placed) {
    let show = |route: &Route| {
        let method = match &route.method {
            RouteMethod::Any => "every method",
            RouteMethod::Only(method) => method,
        };
        let host = route.host.as_deref().unwrap_or("");
        format!("{method} {host}{}", route.path)
    };
    report.add(
        placed.at,
        &placed.key,
        Some(format!("{:?}", placed.route.path)),
        format!(
            "{} of function `{}` conflicts with {} of function `{}` ({})",
            show(&placed.route),
            placed.function,
            show(&with.route),
            with.function,
            report.place(with.at),
        ),
        "change the host, the method or the path of one",
    );
}

fn host(field: &Field<'_>) -> Option<String> {
    let host = field.string("api.example.com")?.to_ascii_lowercase();
    let remedy = "write a name such as `api.example.com`, or leave `host` out for every one";
    let name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if address.is_some_and(|a| a.parse::<std::net::Ipv6Addr>().is_ok()) {
        return Some(host);
    }
    let what = if host.contains('*') {
        "a host with a wildcard, which is not supported"
    } else if host.contains("//") || host.contains('/') {
        "a host with a scheme or path"
    } else if host.contains(':') {
        "a host with a port"
    } else if host.is_empty() || !host.bytes().all(name) || host.split('.').any(str::is_empty) {
        "no host name"
    } else {
        return Some(host);
    };
    field.problem(what, remedy);
    None
}

fn methods(field: &Field<'_>) -> Vec<RouteMethod> {
    let remedy = format!(
        "use {}, or leave `method` out for every one",
        METHODS.join(", ")
    );
    let Some(names) = field.strings("GET") else {
        return Vec::new();
    };
    if names.is_empty() {
        field.problem("an empty list", &remedy);
    }
    let mut seen = BTreeSet::new();
    let mut methods = Vec::new();
    for name in names {
        if !METHODS.contains(&name) {
            field.problem(format!("the method `{name}` is unknown"), &remedy);
        } else if !seen.insert(name) {
            field.problem(format!("the method `{name}` stands twice"), "remove one");
        } else {
            methods.push(RouteMethod::Only(name.to_owned()));
        }
    }
    methods
}

fn path<'a>(field: &Field<'a>) -> Option<&'a str> {
    let path = field.string("/users/{id}")?;
    let braces = "write `/users/{id}` for a part, `/files/{*rest}` for all that follows";
    let (what, remedy) = if !path.starts_with('/') {
        (
            "it does not begin with `/`",
            "write a path such as `/users/{id}`",
        )
    } else if path.contains(['?', '#']) {
        (
            "a query or fragment",
            "leave it out: a route matches the path only",
        )
    } else if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        ("a space in the path", "remove it")
    } else if path.contains("/:") || path.contains("/*") || path.contains("/<") {
        ("a parameter in another syntax", braces)
    } else {
        match Router::new().insert(path, ()) {
            Ok(()) => return Some(path),
            Err(InsertError::InvalidParamSegment) => {
                ("two parameters in one part of the path", braces)
            }
            Err(InsertError::InvalidCatchAll) => {
                ("a parameter `{*…}` before the end of the path", braces)
            }
            Err(_) => ("no path pattern", braces),
        }
    };
    field.problem(what, remedy);
    None
}
