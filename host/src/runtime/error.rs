//! Why the runtime does not start, or a component is not deployed.

use super::{CompileError, MAX_COMPONENT, PagemapUnsafe};
use crate::function::ByteSize;
use crate::invocation::Handler;

/// Why the runtime does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Asked for what this machine cannot do safely.
    #[error("memory-reset: pagemap cannot be had; use \"auto\" or \"memset\"")]
    Pagemap(#[from] PagemapUnsafe),
    /// wasmtime cannot set up its pool.
    #[error(
        "cannot reserve address space for {slots} instances: {message}; lower `concurrency`, `ready` or `max-memory`"
    )]
    Engine {
        /// How many were asked for.
        slots: u32,
        /// What wasmtime said.
        message: String,
    },
    /// The cache cannot be opened.
    #[error(transparent)]
    Cache(#[from] CompileError),
    /// The directory for scratch cannot be had.
    #[error(
        "`scratch` in the state directory: {0}; see that it is a directory of the host's user, or remove it"
    )]
    Scratch(std::io::Error),
    /// The clock's thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// What is wrong with a component. The text says what; [`Self::remedy`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// There is no such file.
    #[error("no such file")]
    Missing,
    /// It is a folder, a pipe, or another thing that has no fixed content.
    #[error("not a file")]
    NotAFile,
    /// The file is not readable.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// It is larger than a component may be.
    #[error("its {0} bytes are more than the {MAX_COMPONENT} that a component may have")]
    TooLarge(u64),
    /// It is a core module.
    #[error("a core WebAssembly module, no component")]
    CoreModule,
    /// It ends before it should.
    #[error("cut short after {0} bytes")]
    CutShort(usize),
    /// It is no WebAssembly at all.
    #[error("no WebAssembly component: it begins with \"{0}\"")]
    NotWasm(String),
    /// Its sections are not those of a component.
    #[error("no WebAssembly component that can be read: {0}")]
    Malformed(String),
    /// The file is another one than was looked at before.
    #[error("it was changed while it was deployed")]
    Changed,
    /// It cannot be compiled.
    #[error("{0}")]
    Compile(CompileError),
    /// It asks for something that is not granted.
    #[error("it imports {}, which nothing provides", .0.join(", "))]
    Import(Vec<String>),
    /// An import is provided, but with another type.
    #[error("it does not link: {0}")]
    Link(String),
    /// It exports no handler.
    #[error("it exports no handler that Dunlin knows; what it exports: {0}")]
    NoHandler(String),
    /// It exports no handler for something that brings its function events.
    #[error("the component exports no handler for the {trigger}")]
    Unhandled {
        /// The one that is missing.
        handler: Handler,
        /// What brings the events, such as "queue `orders`".
        trigger: String,
    },
    /// It holds bodies as a whole, and is to hold too much.
    #[error("it is {limit}, and a component that gets its requests as a whole has {most} at most")]
    Held {
        /// What is asked for.
        limit: ByteSize,
        /// What may be held.
        most: ByteSize,
    },
    /// It cannot serve several requests at once.
    #[error("`concurrent` is for components that export `wasi:http/handler` of WASI 0.3")]
    NotConcurrent,
    /// It cannot serve a second invocation.
    #[error("`reuse` is not for programs: a `wasi:cli/run` component runs once")]
    RunsOnce,
    /// It has no use for arguments.
    #[error("`arguments` are for programs (`wasi:cli/run`)")]
    NoProgram,
    /// Its `init` failed.
    #[error("{0}")]
    Init(String),
    /// A handler has another type than the contract's.
    #[error("its `{0}` is not that of the contract: {1}")]
    WrongType(&'static str, String),
    /// A directory is not mounted.
    #[error("{what}")]
    Mount {
        /// What stands in the way.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It does not instantiate.
    #[error("{0}")]
    Instantiate(String),
}

impl ComponentError {
    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> String {
        let build = "build it with `cargo build --target wasm32-wasip2`, or give its package as \
                     `source`";
        match self {
            Self::Missing | Self::NotAFile => format!("correct the path, or {build}"),
            Self::Unreadable(_) => "make it readable".into(),
            Self::Changed => "deploy it again once it is whole".into(),
            Self::TooLarge(_) => "make it smaller: strip debug information and unused code".into(),
            Self::CoreModule => format!("{build}, or wrap it with `wasm-tools component new`"),
            Self::CutShort(_) | Self::NotWasm(_) | Self::Malformed(_) => build.into(),
            Self::Compile(CompileError::Untrue(_)) => {
                "deploy it again: its `init` runs in each instance then".into()
            }
            Self::Compile(_) => "see that the file is whole, and build it again".into(),
            Self::Import(_) => {
                "remove what needs it; the author's guide lists what a function may import".into()
            }
            Self::Init(_) => {
                "see what its `init` does; the author's guide says what it may take".into()
            }
            Self::Link(_) | Self::WrongType(..) => "build it against the current wit/".into(),
            Self::NoHandler(_) => {
                let names = Handler::ALL.map(|handler| format!("`{}`", handler.name()));
                format!(
                    "export one of {}, or `wasi:http/handler`, `wasi:http/incoming-handler` or \
                     `wasi:cli/run`",
                    names.join(", ")
                )
            }
            Self::Unhandled { handler, .. } => {
                let [needed, invoke] = [*handler, Handler::Invoke].map(Handler::name);
                let standard = match handler {
                    Handler::Http => ", `wasi:http`",
                    _ => "",
                };
                format!("export `{needed}`{standard} or `{invoke}`, or leave it out")
            }
            Self::Held { .. } => "lower it, or export `wasi:http` to stream bodies".into(),
            Self::NotConcurrent => "use `fresh` or `reuse`".into(),
            Self::RunsOnce => "use `fresh`".into(),
            Self::NoProgram => "leave them out, or set `environment` or `config`".into(),
            Self::Mount { remedy, .. } => (*remedy).into(),
            Self::Instantiate(_) => "see what its start functions do".into(),
        }
    }
}
