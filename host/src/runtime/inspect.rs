//! What a component says of itself, without the engine: so that everything that is
//! wrong with all components of a manifest can be told at once, before any is compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmparser::{Parser, Payload};

use super::identity::Identity;
use super::lifecycle::{INITIALISE, RETIRE};
use super::{ComponentError, Digest, MAX_COMPONENT, snapshot};
use crate::capability;
use crate::function::{FunctionSpec, Isolation, PAYLOAD_RANGE};
use crate::invocation::{Door, Doors, Handler};

/// Reads a component and checks its form, its imports and its exports. That their types
/// fit, and what is in its functions, is for the engine to say.
///
/// # Errors
/// All that is wrong with it.
pub fn inspect(file: &Path) -> Result<Inspected, Vec<ComponentError>> {
    let (bytes, identity) = read(file).map_err(|error| vec![error])?;
    let names = Names::of(&bytes).map_err(|error| vec![error])?;
    let problems = names.problems();
    if problems.is_empty() {
        Ok(Inspected {
            file: file.to_owned(),
            identity,
            digest: Digest::of(&bytes),
            doors: Doors::of(|handler| names.door(handler)),
            initialises: names.exports(INITIALISE),
            retires: names.exports(RETIRE),
        })
    } else {
        Err(problems)
    }
}

/// What [`inspect`] says of each file.
pub type Inspections = BTreeMap<PathBuf, Result<Arc<Inspected>, Arc<Vec<ComponentError>>>>;

/// Inspects each of these files once, on so many threads.
#[must_use]
pub fn inspect_all(files: BTreeSet<PathBuf>, threads: usize) -> Inspections {
    let files: Vec<PathBuf> = files.into_iter().collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((file.clone(), inspect(file).map(Arc::new).map_err(Arc::new)));
        }
        found
    };
    // A thread costs more than a few components.
    let threads = threads.min(files.len() / 16);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut found = work();
        for other in others {
            match other.join() {
                Ok(more) => found.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found.into_iter().collect()
    })
}

/// A component whose form, imports and exports are right. Its bytes are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    file: PathBuf,
    identity: Identity,
    digest: Digest,
    doors: Doors,
    initialises: bool,
    retires: bool,
}

impl Inspected {
    /// Where it is.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Which component it is.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How its handlers are called.
    #[must_use]
    pub fn doors(&self) -> Doors {
        self.doors
    }

    /// Whether it exports an `init`.
    #[must_use]
    pub fn initialises(&self) -> bool {
        self.initialises
    }

    /// Whether it exports a `shutdown`.
    #[must_use]
    pub fn retires(&self) -> bool {
        self.retires
    }

    /// Why its `init` will run in each instance, as far as its form tells. What `init`
    /// calls is seen when it is deployed. Reads the file.
    #[must_use]
    pub fn init_obstacle(&self) -> Option<String> {
        match self.initialises {
            true => snapshot::obstacle(&self.read().ok()?),
            false => None,
        }
    }

    fn door(&self, handler: Handler) -> Option<Door> {
        self.doors.of_handler(handler)
    }

    /// Whether the file is as it was when it was inspected.
    #[must_use]
    pub fn is_current(&self) -> bool {
        std::fs::metadata(&self.file).is_ok_and(|metadata| Identity::of(&metadata) == self.identity)
    }

    /// The component.
    ///
    /// # Errors
    /// If it cannot be read, or the file is another one by now.
    pub(super) fn read(&self) -> Result<Vec<u8>, ComponentError> {
        let (bytes, _) = read(&self.file)?;
        match Digest::of(&bytes) == self.digest {
            true => Ok(bytes),
            false => Err(ComponentError::Changed),
        }
    }

    /// What of the function's configuration this component cannot do: the keys, with what
    /// is wrong.
    #[must_use]
    pub fn misfits(&self, spec: &FunctionSpec) -> Vec<(&'static str, ComponentError)> {
        let mut misfits = self.unhandled(spec);
        let http = self.door(Handler::Http);
        if !http.is_some_and(Door::is_streaming) {
            let limits = [
                ("request-limit", spec.limits.request),
                ("response-limit", spec.limits.response),
            ];
            let most = *PAYLOAD_RANGE.end();
            let held = limits.into_iter().filter(|(_, limit)| *limit > most);
            misfits.extend(held.map(|(key, limit)| (key, ComponentError::Held { limit, most })));
        }
        let unfit = match spec.isolation {
            Isolation::Concurrent if http != Some(Door::Http03) => {
                Some(ComponentError::NotConcurrent)
            }
            // Whatever else it exports is called on instances of its own.
            Isolation::Reuse if self.doors.all().all(Door::is_command) => {
                Some(ComponentError::RunsOnce)
            }
            _ => None,
        };
        misfits.extend(unfit.map(|error| ("isolation", error)));
        if !spec.arguments.is_empty() && !self.doors.all().any(Door::is_command) {
            misfits.push(("arguments", ComponentError::NoProgram));
        }
        misfits
    }

    /// Checks that there is a handler for whatever brings the function events.
    fn unhandled(&self, spec: &FunctionSpec) -> Vec<(&'static str, ComponentError)> {
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
            let handled = self.door(handler).or(self.door(Handler::Invoke));
            handled
                .is_none()
                .then_some((key, ComponentError::Unhandled { handler, trigger }))
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

fn read(file: &Path) -> Result<(Vec<u8>, Identity), ComponentError> {
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
    let bytes = std::fs::read(file).map_err(unreadable)?;
    // From before it was read: a change meanwhile shows.
    Ok((bytes, Identity::of(&metadata)))
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

    fn door(&self, handler: Handler) -> Option<Door> {
        let mut interfaces = handler.interfaces().iter();
        let exported = interfaces.find(|it| self.exports.iter().any(|name| it.is(name)));
        exported.map(|interface| interface.door)
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
        if !Handler::ALL
            .into_iter()
            .any(|kind| self.door(kind).is_some())
        {
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
