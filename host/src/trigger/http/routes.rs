//! Which function a request goes to: by host, method and path.
//!
//! A route with a host goes before those without. Among the patterns that fit,
//! a literal segment goes before a parameter, and a parameter before a
//! catch-all, as crate `matchit` has it.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::dispatch::Function;
use crate::function::{Route, RouteMethod};
use crate::invocation::RouteMatch;

/// Where a route leads.
#[derive(Clone)]
pub struct Target {
    /// The function.
    pub function: Arc<Function>,
    /// The pattern as it stands in the manifest.
    pub pattern: Arc<str>,
}

/// Two routes that both claim a request.
#[derive(Debug, thiserror::Error)]
#[error("the route {route} conflicts with {other}")]
pub struct RouteConflict {
    /// The one that came second.
    pub route: String,
    /// The one that was there.
    pub other: String,
}

/// The routes of one host, or of every host.
#[derive(Default)]
struct Table {
    /// Routes for every method.
    any: matchit::Router<Target>,
    /// For methods with routes of their own: those and the ones for every
    /// method.
    methods: HashMap<Method, matchit::Router<Target>>,
}

/// All routes; immutable, put in force as one.
#[derive(Default)]
pub struct Routes {
    hosts: HashMap<String, Table>,
    every_host: Table,
}

/// What is known of a request's target.
pub(super) enum Found {
    /// A route matches.
    Route(Target, RouteMatch),
    /// Routes match, for these other methods.
    MethodNotAllowed(Vec<Method>),
    /// None matches.
    Nothing,
}

impl Table {
    fn insert(&mut self, routes: &[(Route, Target)]) -> Result<(), RouteConflict> {
        let mut methods: Vec<Method> = Vec::new();
        for (route, _) in routes {
            if let RouteMethod::Only(name) = &route.method
                && let Ok(method) = Method::from_bytes(name.as_bytes())
                && !methods.contains(&method)
            {
                methods.push(method);
            }
        }
        for (route, target) in routes {
            let add = |router: &mut matchit::Router<Target>| {
                router
                    .insert(route.path.clone(), target.clone())
                    .map_err(|error| RouteConflict {
                        route: format!("`{}`", route.path),
                        other: error.to_string(),
                    })
            };
            match &route.method {
                RouteMethod::Any => {
                    add(&mut self.any)?;
                    for method in &methods {
                        add(self.methods.entry(method.clone()).or_default())?;
                    }
                }
                RouteMethod::Only(name) => {
                    let method = methods.iter().find(|method| method.as_str() == name);
                    if let Some(method) = method {
                        add(self.methods.entry(method.clone()).or_default())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn find(&self, method: &Method, path: &str) -> Option<(Target, RouteMatch)> {
        let found = self
            .methods
            .get(method)
            .unwrap_or(&self.any)
            .at(path)
            .ok()?;
        let parameters = found.params.iter().map(|(name, value)| {
            let decoded = percent_decode_str(value).decode_utf8_lossy().into_owned();
            (name.to_owned(), decoded)
        });
        let matched = RouteMatch {
            pattern: Arc::clone(&found.value.pattern),
            parameters: parameters.collect(),
        };
        Some((found.value.clone(), matched))
    }

    fn allowed(&self, path: &str) -> impl Iterator<Item = Method> {
        self.methods
            .iter()
            .filter(move |(_, router)| router.at(path).is_ok())
            .map(|(method, _)| method.clone())
    }
}

impl Routes {
    /// Builds the tables.
    ///
    /// # Errors
    /// If two routes conflict; the manifest's check names both with their
    /// lines before it comes to this.
    pub fn new(routes: Vec<(Route, Target)>) -> Result<Self, RouteConflict> {
        let mut by_host: HashMap<Option<String>, Vec<(Route, Target)>> = HashMap::new();
        for (route, target) in routes {
            by_host
                .entry(route.host.clone())
                .or_default()
                .push((route, target));
        }
        let mut built = Self::default();
        for (host, routes) in by_host {
            match host {
                Some(host) => built.hosts.entry(host).or_default().insert(&routes)?,
                None => built.every_host.insert(&routes)?,
            }
        }
        Ok(built)
    }

    /// Finds the route of a request. `host` is without port, in lower case.
    pub(super) fn find(&self, host: &str, method: &Method, path: &str) -> Found {
        let own = if self.hosts.is_empty() {
            None
        } else {
            self.hosts.get(host)
        };
        let tables = own.into_iter().chain([&self.every_host]);
        // HEAD is GET without the body (RFC 9110 section 9.3.2): where nobody
        // asked for HEAD, GET answers it.
        let methods = if method == Method::HEAD {
            &[Method::HEAD, Method::GET][..]
        } else {
            std::slice::from_ref(method)
        };
        for table in tables.clone() {
            for method in methods {
                if let Some((target, matched)) = table.find(method, path) {
                    return Found::Route(target, matched);
                }
            }
        }
        let mut allowed: Vec<Method> = tables.flat_map(|table| table.allowed(path)).collect();
        if allowed.is_empty() {
            return Found::Nothing;
        }
        allowed.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        allowed.dedup();
        Found::MethodNotAllowed(allowed)
    }
}
