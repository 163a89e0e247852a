//! Why the runtime does not start, or a component is not deployed.

use std::path::PathBuf;

use super::{CompileError, HTTP, INVOKE, MAX_COMPONENT, PagemapUnsafe};

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
    /// The clock's thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// Why a function cannot be deployed. The text says what is wrong with which
/// component; [`Self::remedy`] what to do.
#[derive(Debug, thiserror::Error)]
#[error("component {}: {kind}", path.display())]
pub struct LoadError {
    /// The component.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: LoadErrorKind,
}

/// What is wrong with a component.
#[derive(Debug, thiserror::Error)]
pub enum LoadErrorKind {
    /// The file is not there or not readable.
    #[error("{0}")]
    Unreadable(std::io::Error),
    /// It is larger than a component may be.
    #[error("its {0} bytes are more than the {MAX_COMPONENT} that a component may have")]
    TooLarge(u64),
    /// It is a core module.
    #[error("this is a core module, not a component")]
    CoreModule,
    /// It is no WebAssembly at all.
    #[error("this is not WebAssembly: it begins with {0}")]
    NotWasm(String),
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
    /// It counts on something that is not done yet.
    #[error("it exports {}, which this version of Dunlin does not call yet", .0.join(" and "))]
    NotCalled(Vec<String>),
    /// A handler has another type than the contract's.
    #[error("its `{0}` is not that of the contract: {1}")]
    WrongType(&'static str, String),
    /// It does not instantiate.
    #[error("{0}")]
    Instantiate(String),
}

impl LoadError {
    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> String {
        match &self.kind {
            LoadErrorKind::Unreadable(_) => "build it, or correct `component`".into(),
            LoadErrorKind::TooLarge(_) => {
                "make it smaller: strip debug information and unused code".into()
            }
            LoadErrorKind::CoreModule => {
                "build it for the target wasm32-wasip2, or wrap it with `wasm-tools component new`"
                    .into()
            }
            LoadErrorKind::NotWasm(_) => "name the `.wasm` file that the build makes".into(),
            LoadErrorKind::Compile(_) => "see that the file is whole, and build it again".into(),
            LoadErrorKind::Import(_) => {
                "remove what needs it; the author's guide lists what a function may import".into()
            }
            LoadErrorKind::NotCalled(_) => {
                "do what it does in the handler, and remove the export".into()
            }
            LoadErrorKind::Link(_) | LoadErrorKind::WrongType(..) => {
                "build it against the current wit/".into()
            }
            LoadErrorKind::NoHandler(_) => format!("export `{}` or `{}`", HTTP[0], INVOKE[0]),
            LoadErrorKind::Instantiate(_) => "see what its start functions do".into(),
        }
    }
}
