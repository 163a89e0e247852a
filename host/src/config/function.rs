//! The tables `[function.NAME]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{Field, Section};
use super::events::References;
use super::routes::Routes;
use super::{HostConfig, Places, Sources, egress, mounts, sockets, values};
use crate::function::{
    ByteSize, ComponentSource, DEFAULT_LOG_BYTES, DEFAULT_MEMORY, DEFAULT_PAYLOAD, DEFAULT_TIMEOUT,
    DEFAULT_WEIGHT, Fuel, FunctionName, FunctionSpec, Isolation, LOG_RANGE, Limits, MEMORY_RANGE,
    PROVISIONED_RANGE, SCRATCH_RANGE, STREAM_RANGE, TIMEOUT_RANGE, WEIGHT_RANGE,
};
use crate::runtime::{ComponentError, Inspected, Inspections, inspect_all};

/// What the tables say.
pub(super) struct Read<'a> {
    pub(super) references: References<'a>,
    pub(super) functions: Vec<FunctionSpec>,
    pub(super) places: Places,
    pub(super) inspected: BTreeMap<PathBuf, Arc<Inspected>>,
    pub(super) value_files: Vec<PathBuf>,
}

/// Reads all functions, and checks what they promise together against the host.
pub(super) fn read_all<'a>(
    root: &Section<'a>,
    host: &HostConfig,
    folder: &Path,
    sources: Sources<'_>,
) -> Read<'a> {
    let tables = root.table("function").entries();
    let mut reader = Reader {
        places: Places::new(),
        inspections: inspect_components(&tables, folder),
        host,
        folder,
        sources,
        value_files: Vec::new(),
        routes: Routes::default(),
        reserved: Promises::default(),
        provisioned: Promises::default(),
        references: References::default(),
    };
    let mut functions = Vec::new();
    for (name, field) in tables {
        let name = FunctionName::new(name).inspect_err(|_| {
            field.secret_problem(
                "cannot name a function",
                "use 1 to 64 letters, digits, `-` and `_`",
            );
        });
        let Some(section) = field.table() else {
            continue;
        };
        // Under a bad name everything else is still checked.
        let checked = name.clone().unwrap_or_else(|_| placeholder());
        let spec = reader.function(checked, &section);
        functions.extend(name.is_ok().then_some(spec));
    }
    reader.check_promises(&functions);
    reader.routes.check(root.report());
    let inspected = reader.inspections.into_iter();
    let inspected = inspected.filter_map(|(file, it)| Some((file, it.ok()?)));
    Read {
        inspected: inspected.collect(),
        references: reader.references,
        functions,
        places: reader.places,
        value_files: reader.value_files,
    }
}

/// Inspects the components that are named, each once, however many functions have it.
fn inspect_components(tables: &[(&str, Field<'_>)], folder: &Path) -> Inspections {
    let files = tables.iter().filter_map(|(_, field)| {
        let component = field.value().get("component")?;
        Some(folder.join(component.get_ref().as_str()?))
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    inspect_all(files.collect(), threads)
}

fn placeholder() -> FunctionName {
    FunctionName::new("unnamed").expect("letters name a function")
}

struct Reader<'a, 'h> {
    host: &'h HostConfig,
    folder: &'h Path,
    sources: Sources<'h>,
    references: References<'a>,
    places: Places,
    inspections: Inspections,
    value_files: Vec<PathBuf>,
    routes: Routes,
    reserved: Promises<'a>,
    provisioned: Promises<'a>,
}

/// What functions ask for out of one store: who, how much, where.
#[derive(Default)]
struct Promises<'a>(Vec<(FunctionName, u32, Field<'a>)>);

impl<'a> Reader<'a, '_> {
    fn function(&mut self, name: FunctionName, section: &Section<'a>) -> FunctionSpec {
        let (component, inspected) = self.component(&name, section);
        let mut spec = FunctionSpec {
            component,
            limits: self.limits(section),
            isolation: section.choice(
                "isolation",
                Isolation::default(),
                &[
                    ("fresh", Isolation::Fresh),
                    ("reuse", Isolation::Reuse),
                    ("concurrent", Isolation::Concurrent),
                ],
            ),
            reserved_concurrency: self.reserved(&name, section),
            provisioned: self.provisioned(&name, section),
            weight: section.number("weight", DEFAULT_WEIGHT, WEIGHT_RANGE),
            arguments: values::arguments(section),
            environment: values::environment(section, self.folder, self.sources)
                .collect_into(&mut self.value_files),
            config: values::config(section, self.folder, self.sources)
                .collect_into(&mut self.value_files),
            secrets: values::secrets(section, self.folder, self.sources)
                .collect_into(&mut self.value_files),
            mounts: mounts::read(section, &self.host.mounts),
            egress: egress::of_function(section, &self.host.egress),
            scratch: self.scratch(section),
            sockets: sockets::read(section, &self.host.sockets),
            routes: self.routes.read(&name, section),
            ..FunctionSpec::new(name, ComponentSource::File(PathBuf::new()))
        };
        self.references.read(section, &mut spec, &self.host.egress);
        values::check_names(section, &spec);
        for (key, error) in inspected.iter().flat_map(|seen| seen.misfits(&spec)) {
            if let Some(field) = section.get(key) {
                field.problem(error.to_string(), error.remedy());
            }
        }
        section.unknown();
        spec
    }

    /// Where the component is, and what it says of itself if it is there.
    fn component(
        &mut self,
        name: &FunctionName,
        section: &Section<'_>,
    ) -> (ComponentSource, Option<Arc<Inspected>>) {
        let nowhere = (ComponentSource::File(PathBuf::new()), None);
        let source = section.get("source");
        let component = section.get("component");
        if let Some(field) = source.as_ref().or(component.as_ref()) {
            self.places.insert(name.clone(), field.place());
        }
        match (source, component) {
            (Some(source), None) => {
                let folder = self
                    .folder
                    .join(source.string("functions/hello").unwrap_or(""));
                if source.value().is_str() && !folder.join("Cargo.toml").is_file() {
                    source.problem(
                        "no cargo package there: `Cargo.toml` is missing",
                        "name the folder of one, relative to the manifest",
                    );
                }
                let built = None;
                (ComponentSource::Package { folder, built }, None)
            }
            (None, Some(component)) => {
                let file = self
                    .folder
                    .join(component.string("functions/hello.wasm").unwrap_or(""));
                let inspected = self.inspections.get(&file).and_then(|inspected| {
                    let problem = |error: &ComponentError| {
                        component.problem(error.to_string(), error.remedy());
                    };
                    match inspected {
                        Ok(inspected) => Some(Arc::clone(inspected)),
                        Err(errors) => {
                            errors.iter().for_each(problem);
                            None
                        }
                    }
                });
                (ComponentSource::File(file), inspected)
            }
            (Some(_), Some(component)) => {
                component.problem(
                    "both `source` and `component` are given",
                    "leave one of them out",
                );
                nowhere
            }
            (None, None) => {
                section.problem(
                    "neither `source` nor `component` is given",
                    "name the folder of a cargo package as `source`, or a `.wasm` file as \
                     `component`",
                );
                nowhere
            }
        }
    }

    fn limits(&self, section: &Section<'_>) -> Limits {
        Limits {
            memory: self.memory(section),
            timeout: section.duration("timeout", DEFAULT_TIMEOUT, TIMEOUT_RANGE),
            fuel: section
                .get("fuel")
                .and_then(|field| fuel(&field))
                .unwrap_or_default(),
            request: section.size("request-limit", DEFAULT_PAYLOAD, STREAM_RANGE),
            response: section.size("response-limit", DEFAULT_PAYLOAD, STREAM_RANGE),
            log: section.size("log-limit", DEFAULT_LOG_BYTES, LOG_RANGE),
        }
    }

    fn memory(&self, section: &Section<'_>) -> ByteSize {
        let ceiling = self.host.runtime.max_memory;
        let above = format!("above the host's `max-memory` of {ceiling}");
        let Some(field) = section.get("memory") else {
            if DEFAULT_MEMORY > ceiling {
                let what = format!("`memory` is {DEFAULT_MEMORY} by default, {above}");
                section.problem(what, "set `memory`, or raise `max-memory`");
            }
            return DEFAULT_MEMORY;
        };
        let memory = field.size(MEMORY_RANGE);
        if memory.is_some_and(|memory| memory > ceiling) {
            field.problem(above, "lower it, or raise `max-memory`");
        }
        memory.unwrap_or(DEFAULT_MEMORY)
    }

    fn scratch(&self, section: &Section<'_>) -> Option<ByteSize> {
        let field = section.get("scratch")?;
        let scratch = field.size(SCRATCH_RANGE)?;
        let budget = self.host.runtime.scratch_budget;
        if scratch > budget {
            field.problem(
                format!("above the host's `scratch-budget` of {budget}"),
                "lower it, or raise `scratch-budget`",
            );
        }
        Some(scratch)
    }

    fn reserved(&mut self, name: &FunctionName, section: &Section<'a>) -> Option<u32> {
        let field = section.get("reserved-concurrency")?;
        let reserved = field.number(0..=self.host.admission.concurrency)?;
        self.reserved.0.push((name.clone(), reserved, field));
        Some(reserved)
    }

    fn provisioned(&mut self, name: &FunctionName, section: &Section<'a>) -> Option<u32> {
        let field = section.get("provisioned")?;
        let provisioned = field.number(PROVISIONED_RANGE)?;
        self.provisioned.0.push((name.clone(), provisioned, field));
        Some(provisioned)
    }

    fn check_promises(&self, functions: &[FunctionSpec]) {
        let concurrency = self.host.admission.concurrency;
        // Only what the operator wrote is a promise: the others keep ready what there is
        // room for.
        self.provisioned
            .check(self.host.runtime.ready, "provisioned", "ready");
        self.reserved
            .check(concurrency, "reserved-concurrency", "concurrency");
        let unreserved = functions
            .iter()
            .find(|function| function.reserved_concurrency.is_none());
        if self.reserved.sum() == u64::from(concurrency)
            && let (Some(unreserved), Some((_, _, field))) = (unreserved, self.reserved.0.last())
        {
            field.problem(
                format!(
                    "nothing of the host's `concurrency` of {concurrency} is left for \
                     function `{}`, which reserves none",
                    unreserved.name
                ),
                "lower it, or raise `concurrency`",
            );
        }
    }
}

impl Promises<'_> {
    fn sum(&self) -> u64 {
        self.0.iter().map(|(_, amount, _)| u64::from(*amount)).sum()
    }

    /// Reports the function with which the sum goes above what there is.
    fn check(&self, available: u32, key: &str, host_key: &str) {
        let mut sum = 0;
        for (_, amount, field) in &self.0 {
            sum += u64::from(*amount);
            if sum <= u64::from(available) {
                continue;
            }
            let all: Vec<String> = self
                .0
                .iter()
                .map(|(name, amount, _)| format!("{name} {amount}"))
                .collect();
            field.problem(
                format!(
                    "all `{key}` together ({}) are {}, more than the host's `{host_key}` of \
                     {available}",
                    all.join(", "),
                    self.sum(),
                ),
                format!("lower one, or raise `{host_key}`"),
            );
            return;
        }
    }
}

fn fuel(field: &Field<'_>) -> Option<Fuel> {
    let remedy = "write `\"auto\"`, `\"off\"` or a number of units, 1 or more";
    match field.value().as_str() {
        Some("auto") => Some(Fuel::FromTimeout),
        Some("off") => Some(Fuel::Unlimited),
        Some(_) => {
            field.problem("unknown word", remedy);
            None
        }
        None => match field.integer("1 or more, or `\"auto\"` or `\"off\"`")? {
            0 => {
                field.problem("too small", remedy);
                None
            }
            units => Some(Fuel::Units(units)),
        },
    }
}
