//! What a component says of itself, without the engine: so that everything that is
//! wrong with all components of a manifest can be told at once, before any is compiled.

use std::path::Path;

use wasmparser::{Parser, Payload};

use super::lifecycle::INITIALISE;
use super::{ComponentError, MAX_COMPONENT, snapshot};
use crate::capability;
use crate::function::FunctionSpec;
use crate::invocation::Handler;

/// Reads a component and checks its form, its imports and its exports. That their types
/// fit, and what is in its functions, is for the engine to say.
///
/// # Errors
/// All that is wrong with it.
pub fn inspect(file: &Path) -> Result<Inspected, Vec<ComponentError>> {
    let bytes = read(file).map_err(|error| vec![error])?;
    let names = Names::of(&bytes).map_err(|error| vec![error])?;
    let problems = names.problems();
    if problems.is_empty() {
        let handlers = Handler::ALL.into_iter().filter(|kind| names.handles(*kind));
        Ok(Inspected {
            handlers: handlers.collect(),
            initialises: names.exports(INITIALISE),
            bytes,
        })
    } else {
        Err(problems)
    }
}

/// A component whose form, imports and exports are right.
pub struct Inspected {
    /// The component.
    pub bytes: Vec<u8>,
    handlers: Vec<Handler>,
    /// Whether it exports an `init`.
    pub(super) initialises: bool,
}

impl Inspected {
    /// Why its `init` will run in each instance, as far as its form tells. What `init`
    /// calls is seen when it is deployed.
    #[must_use]
    pub fn init_obstacle(&self) -> Option<String> {
        let obstacle = self.initialises.then(|| snapshot::obstacle(&self.bytes));
        obstacle.flatten()
    }

    /// Checks that there is a handler for whatever brings the function events. Answers the
    /// key of those that have none, with what is wrong.
    #[must_use]
    pub fn unhandled(&self, spec: &FunctionSpec) -> Vec<(&'static str, ComponentError)> {
        let routes = spec.routes.iter().map(|route| route.path.as_str());
        let queues = spec.queues.iter().map(|mapping| mapping.queue.as_str());
        let schedules = spec.schedules.iter().map(|schedule| schedule.name.as_str());
        let bound = [
            ("http", "route", Handler::Http, first(routes)),
            ("queue", "queue", Handler::Queue, first(queues)),
            ("schedule", "schedule", Handler::Schedule, first(schedules)),
        ];
        let unhandled = bound.into_iter().filter_map(|(key, noun, handler, first)| {
            let trigger = format!("{noun} {}", first?);
            // It may stand in for any other.
            let handled = [handler, Handler::Invoke].map(|kind| self.handlers.contains(&kind));
            (handled == [false; 2]).then_some((key, ComponentError::Unhandled { handler, trigger }))
        });
        unhandled.collect()
    }
}

/// The first of some names, and how many more there are.
fn first<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<String> {
    let first = names.next()?;
    Some(match names.count() {
        0 => format!("`{first}`"),
        more => format!("`{first}` and {more} more"),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, ComponentError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ComponentError::Missing,
        _ => ComponentError::Unreadable(error),
    };
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    // A pipe would block the open.
    if !metadata.is_file() {
        return Err(ComponentError::NotAFile);
    }
    if metadata.len() > MAX_COMPONENT {
        return Err(ComponentError::TooLarge(metadata.len()));
    }
    std::fs::read(file).map_err(unreadable)
}

/// What a component imports and exports, as `package/interface@version`.
#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Names {
    fn of(bytes: &[u8]) -> Result<Self, ComponentError> {
        const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
        const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";
        let head = &bytes[..bytes.len().min(8)];
        if head == MODULE {
            return Err(ComponentError::CoreModule);
        }
        if head.len() < 8 && COMPONENT.starts_with(head) {
            return Err(ComponentError::CutShort(bytes.len()));
        }
        if head != COMPONENT {
            return Err(ComponentError::NotWasm(head.escape_ascii().to_string()));
        }
        let mut names = Self::default();
        names.read(bytes).map_err(|error| {
            // A section that is said to go on behind the end.
            if error.offset() >= bytes.len() || error.message().starts_with("unexpected end") {
                ComponentError::CutShort(bytes.len())
            } else {
                ComponentError::Malformed(error.to_string())
            }
        })?;
        Ok(names)
    }

    fn read(&mut self, bytes: &[u8]) -> wasmparser::Result<()> {
        // Modules and components within have imports and exports of their own.
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        self.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        self.exports.push(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn exports(&self, name: &str) -> bool {
        self.exports.iter().any(|export| export == name)
    }

    fn handles(&self, handler: Handler) -> bool {
        handler.interfaces().iter().any(|name| self.exports(name))
    }

    fn problems(&self) -> Vec<ComponentError> {
        let mut problems = Vec::new();
        let missing: Vec<String> = self
            .imports
            .iter()
            .filter(|name| !capability::is_provided(name))
            .map(|name| format!("`{name}`"))
            .collect();
        if !missing.is_empty() {
            problems.push(ComponentError::Import(missing));
        }
        if !Handler::ALL.into_iter().any(|kind| self.handles(kind)) {
            let all: Vec<String> = self
                .exports
                .iter()
                .map(|name| format!("`{name}`"))
                .collect();
            let all = if all.is_empty() {
                "nothing".into()
            } else {
                all.join(", ")
            };
            problems.push(ComponentError::NoHandler(all));
        }
        problems
    }
}
