//! `dunlin up`

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use crate::app::{App, AppError, StateDir, raise_file_limit};
use crate::builder::{Builder, Change, Progress, Watcher};
use crate::config::{
    Config, HostConfig, Overrides, Signatures, Sources, Values, Variables, manifest_path,
    parse_address,
};
use crate::function::{FunctionSpec, RouteMethod, parse_duration};
use crate::runtime::Compiler;
use crate::telemetry::Log;

/// Build the functions of a manifest and serve them.
///
/// When all are loaded and the addresses are bound, the first line on stderr says so:
/// `listening http=http://… admin=http://… metrics=http://…`. SIGTERM and SIGINT end it
/// after the events in flight; a second one ends it at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest, or its folder
    #[arg(value_name = "DIR|dunlin.toml", default_value = ".")]
    pub path: PathBuf,

    /// Address of the HTTP trigger; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "DUNLIN_HTTP", value_parser = parse_address)]
    pub http: Option<SocketAddr>,

    /// Address of the Lambda API, on loopback; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "DUNLIN_ADMIN", value_parser = parse_address)]
    pub admin: Option<SocketAddr>,

    /// Address of /health, /ready and /metrics, if not the Lambda API's
    #[arg(long, value_name = "ADDR", env = "DUNLIN_METRICS", value_parser = parse_address)]
    pub metrics: Option<SocketAddr>,

    /// Folder of the host's state; by default `.dunlin` beside the manifest
    #[arg(long, value_name = "DIR", env = "DUNLIN_STATE")]
    pub state: Option<PathBuf>,

    /// Build and swap in what changes
    #[arg(long)]
    pub watch: bool,

    /// How long events in flight may take to end, such as `30s`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub drain_timeout: Option<Duration>,

    /// Take unsigned requests to the Lambda API: whoever reaches this machine's loopback
    /// may invoke and change functions
    #[arg(long)]
    pub insecure_admin: bool,

    /// Serve the components that are there, without cargo
    #[arg(long)]
    pub no_build: bool,
}

impl Args {
    /// What wins over the manifest.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            http: self.http,
            admin: self.admin,
            metrics: self.metrics,
            drain_timeout: self.drain_timeout,
            signatures: if self.insecure_admin {
                Signatures::Waived
            } else {
                Signatures::Required
            },
        }
    }

    /// The folder of the host's state.
    #[must_use]
    pub fn state_dir(&self, manifest: &Path) -> PathBuf {
        let beside = || manifest.with_file_name(super::STATE_DIR);
        self.state.clone().unwrap_or_else(beside)
    }
}

/// Builds, serves, and ends with a signal.
///
/// # Errors
/// If the host does not start.
pub async fn run(args: &Args, variables: &Variables) -> anyhow::Result<Exit> {
    let manifest = manifest_path(&args.path);
    let overrides = args.overrides();
    let sources = Sources {
        overrides: &overrides,
        variables,
        values: Values::Read,
    };
    let mut config = Config::load(&manifest, sources)?;
    let mut source = Source {
        args,
        manifest: &manifest,
        sources,
        host: config.host.clone(),
        builder: Builder::new(variables),
    };
    // The signals are caught before anything is begun: none ends a host that serves
    // without its drain, and none leaves a compiler behind.
    let mut signals = Signals::new()?;
    // From before the build: what changes while it runs is built again.
    let mut watcher = match args.watch {
        true => Some(Watcher::new(&manifest, &config)?),
        false => None,
    };
    let begun = SystemTime::now();
    tokio::select! {
        // Cargo gets a signal of the terminal, too, and may end first.
        biased;
        () = signals.next() => return Ok(Exit::Ok),
        built = source.build(&mut config.functions) => built?,
    }

    raise_file_limit();
    let state = StateDir::open(&args.state_dir(&manifest))?;
    let (log, _writer) = Log::start(std::io::stdout())?;
    let compiler = Compiler::Process(std::env::current_exe()?);
    let started = tokio::select! {
        () = signals.next() => return Ok(Exit::Ok),
        started = App::start(&config, &state, compiler, log) => started,
    };
    let mut app = match started {
        Err(AppError::Problems(problems)) => return Err(problems.into()),
        started => started?,
    };
    say(&format!(
        "{}\n{}{}",
        listening(&app),
        routes(&app),
        notes(&app)
    ));
    let mut broken = std::pin::pin!(app.broken());
    let gave_up = |why: String| {
        Err(anyhow::anyhow!(
            "{why}: nothing can be accepted any more, and the host ends; what was acknowledged \
             is kept. See what the kernel says of the disk, repair it, and start the host again"
        ))
    };

    if let Some(watcher) = &mut watcher {
        // Now also the local dependencies, which the build has told.
        source.watch(watcher, &config, begun);
        loop {
            tokio::select! {
                () = signals.next() => break,
                why = &mut broken => return gave_up(why),
                changes = watcher.next() => {
                    tokio::select! {
                        () = signals.next() => break,
                        swapped = source.swap(&mut app, watcher, &changes) => match swapped {
                            Ok(()) => {
                                let names = names(&changes);
                                say(&format!("swapped in: {names}\n{}", notes(&app)));
                            }
                            Err(error) => say(&format!("what was serving goes on serving: {error:#}\n")),
                        },
                    }
                }
            }
        }
    } else {
        tokio::select! {
            () = signals.next() => {}
            why = &mut broken => return gave_up(why),
        }
    }

    tokio::select! {
        why = &mut broken => gave_up(why),
        in_time = app.drain() => Ok(if in_time { Exit::Ok } else { Exit::Failed }),
        () = signals.next() => Ok(Exit::Failed),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What is served comes from.
struct Source<'a> {
    args: &'a Args,
    manifest: &'a Path,
    sources: Sources<'a>,
    /// The settings that were read last.
    host: HostConfig,
    builder: Builder,
}

impl Source<'_> {
    async fn build(&mut self, functions: &mut [FunctionSpec]) -> anyhow::Result<()> {
        if self.args.no_build {
            self.builder.locate_functions(functions).await?;
        } else {
            self.builder
                .build_functions(functions, Progress::Stdout)
                .await?;
        }
        Ok(())
    }

    /// Watches what this is made from, by a build that began then. A host that serves goes on if the system refuses
    /// to watch all of it.
    fn watch(&self, watcher: &mut Watcher, config: &Config, begun: SystemTime) {
        if let Err(error) = watcher.update(self.manifest, config, begun) {
            say(&format!("{:#}\n", anyhow::Error::from(error)));
        }
    }

    /// Builds what the manifest says now and puts it in force.
    async fn swap(
        &mut self,
        app: &mut App,
        watcher: &mut Watcher,
        changes: &std::collections::BTreeSet<Change>,
    ) -> anyhow::Result<()> {
        let mut config = Config::load(self.manifest, self.sources)?;
        // What may be mounted or reached counts with the functions that do it.
        self.host.mounts.clone_from(&config.host.mounts);
        self.host.sockets.clone_from(&config.host.sockets);
        if config.host != self.host {
            say("`[host]` has changed: that takes effect with the next start\n");
            self.host = config.host.clone();
        }
        if changes.contains(&Change::Manifest) {
            self.watch(watcher, &config, SystemTime::now());
        }
        let begun = SystemTime::now();
        self.build(&mut config.functions).await?;
        self.watch(watcher, &config, begun);
        app.swap(&config).await?;
        Ok(())
    }
}

fn names(changes: &std::collections::BTreeSet<Change>) -> String {
    let names: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::Manifest => "the manifest".to_owned(),
            Change::Function(name) => name.to_string(),
        })
        .collect();
    names.join(", ")
}

fn listening(app: &App) -> String {
    let addresses = app.addresses();
    format!(
        "listening http=http://{} admin=http://{} metrics=http://{}",
        addresses.http, addresses.admin, addresses.metrics
    )
}

/// A table of what brings the functions events, by path.
fn routes(app: &App) -> String {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for function in app.functions() {
        for route in &function.routes {
            let method = match &route.method {
                RouteMethod::Any => "ANY",
                RouteMethod::Only(method) => method,
            };
            let host = route.host.as_deref().unwrap_or("*");
            rows.push([
                route.path.clone(),
                method.to_owned(),
                host.to_owned(),
                function.name.to_string(),
            ]);
        }
        let row = |kind: &str, from: String, is_on: bool| {
            let note = if is_on { "" } else { "paused" };
            let name = function.name.to_string();
            [from, kind.to_owned(), note.to_owned(), name]
        };
        let queues = function.queues.iter();
        rows.extend(queues.map(|it| row("QUEUE", it.queue.to_string(), it.enabled)));
        let schedules = function.schedules.iter();
        rows.extend(schedules.map(|it| row("SCHEDULE", it.when.to_string(), it.enabled)));
    }
    rows.sort();
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let [path, method, host, _] = widths;
    rows.iter()
        .map(|[p, m, h, f]| format!("  {m:method$}  {h:host$}  {p:path$}  {f}\n"))
        .collect()
}

/// What whoever deploys had better know, a line each.
fn notes(app: &App) -> String {
    app.initialised_late()
        .map(|(name, why)| super::init_note(name.as_str(), why))
        .collect()
}

fn say(text: &str) {
    // Nobody may be left to read it; the host goes on.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
