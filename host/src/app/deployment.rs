//! What is deployed: functions are loaded, all problems found, and then all of it is
//! switched to at once.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::{Config, Problem, Problems};
use crate::dispatch::{Admission, Catalogue, Dispatcher, Function};
use crate::function::{Destination, FunctionName, FunctionSpec};
use crate::invocation::Handler;
use crate::runtime::{ComponentError, Inspected, LOADED_AT_ONCE, Runtime, Share, Version, inspect};
use crate::telemetry::Telemetry;
use crate::trigger::http::{HttpTrigger, Routes, Target};

/// The version that the manifest's functions run as.
const LATEST: &str = "$LATEST";

/// What a deployment needs.
pub(super) struct Parts {
    pub(super) runtime: Arc<Runtime>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) telemetry: Telemetry,
    pub(super) concurrency: u32,
    pub(super) cores: usize,
}

/// What is deployed now.
pub(super) struct Deployed {
    pub(super) admission: Admission,
    pub(super) functions: Vec<(FunctionSpec, Arc<Version>)>,
}

impl Parts {
    /// Loads what is not loaded yet, and finds every problem. Several at once: most of it
    /// is to wait for the disk.
    pub(super) async fn load(
        &self,
        config: &Config,
        before: &[(FunctionSpec, Arc<Version>)],
    ) -> Result<Vec<(FunctionSpec, Arc<Version>)>, Problems> {
        let before: HashMap<&FunctionName, _> = before
            .iter()
            .map(|(spec, old)| (&spec.name, (spec, old)))
            .collect();
        let mut loaded = BTreeMap::new();
        let mut problems = BTreeMap::new();
        let mut loading = JoinSet::new();
        let mut specs = config.functions.iter().enumerate();
        loop {
            while loading.len() < self.cores * LOADED_AT_ONCE
                && let Some((index, spec)) = specs.next()
            {
                let Some(path) = spec.component.file() else {
                    let place = &config.places[&spec.name];
                    let problem = place.problem("it is not built", "run `dunlin build`");
                    problems.insert(index, vec![problem]);
                    continue;
                };
                let old = before.get(&spec.name).map(|(old, version)| {
                    let same = *old == spec;
                    (same, old.weight, Arc::clone(version))
                });
                let inspected = config.inspected.get(path).map(Arc::clone);
                let (runtime, cores) = (Arc::clone(&self.runtime), self.cores);
                let (spec, path) = (spec.clone(), path.to_owned());
                loading.spawn(async move {
                    (
                        index,
                        load_one(&runtime, spec, path, inspected, old, cores).await,
                    )
                });
            }
            match loading.join_next().await {
                Some(Ok((index, Ok(version)))) => {
                    loaded.insert(index, (config.functions[index].clone(), version));
                }
                Some(Ok((index, Err(errors)))) => {
                    let place = &config.places[&config.functions[index].name];
                    let problem =
                        |error: &ComponentError| place.problem(error.to_string(), error.remedy());
                    problems.insert(index, errors.iter().map(problem).collect());
                }
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                None => break,
            }
        }
        let versions: Vec<_> = loaded.into_values().collect();
        let mut problems: Vec<Problem> = problems.into_values().flatten().collect();
        problems.extend(deaf(config, &versions));
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let is_new = |(spec, version): &&(FunctionSpec, Arc<Version>)| {
            let old = before.get(&spec.name);
            old.is_none_or(|(_, old)| !Arc::ptr_eq(old, version))
        };
        let new = versions.iter().filter(is_new).map(|(_, version)| version);
        let deployed = versions.iter().map(|(_, version)| version);
        self.runtime.expect_events(deployed, new).await;
        Ok(versions)
    }

    pub(super) fn deploy(
        &self,
        deployed: &Deployed,
        trigger: &HttpTrigger,
    ) -> Result<(), Problems> {
        let mut catalogue = Catalogue::default();
        let mut routes = Vec::new();
        for (spec, version) in &deployed.functions {
            catalogue.insert(Function {
                version: Arc::clone(version),
                lane: deployed.admission.lane(&spec.name),
            });
            let function = catalogue.get(&spec.name).expect("it was just put in");
            routes.extend(spec.routes.iter().map(|route| {
                let target = Target {
                    function: Arc::clone(function),
                    pattern: route.path.as_str().into(),
                };
                (route.clone(), target)
            }));
        }
        let routes = Routes::new(routes).map_err(|conflict| {
            Problems(vec![Problem {
                at: None,
                key: "http".into(),
                value: None,
                what: conflict.to_string(),
                remedy: "change one of them".into(),
            }])
        })?;
        // Routes hold their functions: whichever of the two is newer for a
        // moment, each request runs on one of them.
        trigger.route(routes);
        self.dispatcher.deploy(catalogue);
        Ok(())
    }
}

/// Loads the version of a function, if it is not the old one: that with whether its
/// configuration is the same, and its weight.
async fn load_one(
    runtime: &Runtime,
    spec: FunctionSpec,
    path: PathBuf,
    inspected: Option<Arc<Inspected>>,
    old: Option<(bool, u32, Arc<Version>)>,
    cores: usize,
) -> Result<Arc<Version>, Vec<ComponentError>> {
    // It was built since, or has changed since it was looked at.
    let look = move || match inspected.filter(|inspected| inspected.is_current()) {
        Some(inspected) => Ok(inspected),
        None => inspect(&path).map(Arc::new),
    };
    let inspected = tokio::task::spawn_blocking(look)
        .await
        .expect("inspecting does not panic")?;
    if let Some((true, _, version)) = &old
        && version.digest() == inspected.digest()
    {
        return Ok(Arc::clone(version));
    }
    let share = match old {
        Some((_, weight, version)) if weight == spec.weight => Arc::clone(&version.common.share),
        _ => Share::new(spec.weight, cores),
    };
    runtime.load(spec, &inspected, LATEST, share).await
}

/// Functions that others are to invoke, and that cannot be.
fn deaf(config: &Config, versions: &[(FunctionSpec, Arc<Version>)]) -> Vec<Problem> {
    let by_name: HashMap<&FunctionName, &Arc<Version>> = versions
        .iter()
        .map(|(spec, version)| (&spec.name, version))
        .collect();
    let cannot = |name: &FunctionName| {
        let found = by_name.get(name);
        found.is_some_and(|version| !version.handles(Handler::Invoke))
    };
    let mut problems = Vec::new();
    for spec in &config.functions {
        let destinations = [&spec.events.on_success, &spec.events.on_failure];
        let destinations = destinations.into_iter().flatten();
        let destinations = destinations.filter_map(|destination| match destination {
            Destination::Function(name) => Some(name),
            Destination::Queue(_) | Destination::Http(_) => None,
        });
        for name in destinations
            .chain(&spec.invokes)
            .filter(|name| cannot(name))
        {
            let what = format!(
                "it sends events to the function `{name}`, which exports no `{}`",
                Handler::Invoke.name()
            );
            problems.push(config.places[&spec.name].problem(what, "name another function"));
        }
    }
    problems
}
