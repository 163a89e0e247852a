use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Builder;
use wasmtime_wasi::p2::FsError;
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, HostDescriptor as _, NewTimestamp, OpenFlags, PathFlags,
};

use super::*;
use crate::function::{ByteSize, ComponentSource, FunctionName};
use crate::telemetry::{Log, LogInvocations, Metrics, Telemetry};

/// What an instance has that mounts a directory at `/data`, and has a scratch directory.
struct Bed {
    folder: TempDir,
    mounts: Mounts,
    table: ResourceTable,
    held: Held,
    budget: Arc<Budget>,
}

impl Bed {
    fn new(budget: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let [state, data] = ["state", "data"].map(|name| folder.path().join(name));
        std::fs::create_dir(&state).unwrap();
        std::fs::create_dir(&data).unwrap();
        let telemetry = Telemetry {
            log: Log::start(std::io::sink()).unwrap().0,
            metrics: Arc::new(Metrics::new().unwrap()),
            log_invocations: LogInvocations::All,
        };
        let space = Space::open(&state, 1 << 30, &telemetry).unwrap();
        let name = FunctionName::new("f").unwrap();
        let mut spec = FunctionSpec::new(name, ComponentSource::File("f.wasm".into()));
        spec.scratch = Some(ByteSize(64 << 20));
        spec.mounts.push(Mount {
            from: "data".to_owned(),
            path: data,
            to: "/data".to_owned(),
            access: Access::ReadWrite,
        });
        Self {
            mounts: Mounts::open(&spec, &state, &space).unwrap(),
            folder,
            table: ResourceTable::new(),
            held: Held::default(),
            budget: Budget::new(budget),
        }
    }

    fn view(&mut self) -> View<'_> {
        View {
            table: &mut self.table,
            mounts: &self.mounts,
            held: &mut self.held,
            budget: &self.budget,
            context: WasiFilesystemCtx::default(),
        }
    }

    /// The mounted directory and the scratch directory.
    fn directories(&mut self) -> [Resource<Descriptor>; 2] {
        let all = self.view().get_directories().unwrap();
        let all: Vec<_> = all.into_iter().map(|(directory, _)| directory).collect();
        all.try_into().unwrap()
    }

    /// A new file in a directory.
    async fn create(&mut self, directory: &Resource<Descriptor>) -> Resource<Descriptor> {
        let (directory, path) = (again(directory), "a".to_owned());
        let (create, access) = (OpenFlags::CREATE, DescriptorFlags::WRITE);
        let mut view = self.view();
        let made = view.open_at(directory, PathFlags::empty(), path, create, access);
        made.await.unwrap()
    }
}

/// For one call more.
fn again(descriptor: &Resource<Descriptor>) -> Resource<Descriptor> {
    Resource::new_borrow(descriptor.rep())
}

fn code<T>(done: Result<T, FsError>) -> Option<ErrorCode> {
    done.err().map(|error| error.downcast().unwrap())
}

#[tokio::test]
async fn what_is_written_is_charged_and_refused_without_room() {
    let mut bed = Bed::new(1 << 20);
    for directory in bed.directories() {
        let file = bed.create(&directory).await;
        let mut write = async |size: usize| bed.view().write(again(&file), vec![7; size], 0).await;
        assert_eq!(write(1 << 20).await.unwrap(), 1 << 20);
        let refused = code(write((1 << 20) + 1).await);
        assert_eq!(refused, Some(ErrorCode::InsufficientMemory));
        assert_eq!(bed.budget.used(), 0);
        let found = bed.view().stat(again(&file)).await.unwrap();
        assert_eq!(found.size, 1 << 20);
    }
    let written = std::fs::read(bed.folder.path().join("data/a")).unwrap();
    assert_eq!(written, vec![7; 1 << 20]);
}

/// Whoever asked may be ended meanwhile: the bytes are there until a thread takes them.
#[test]
fn what_waits_for_a_thread_is_charged() {
    let runtime = Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut bed = Bed::new(1 << 30);
        for directory in bed.directories() {
            let file = bed.create(&directory).await;
            let (go_on, gate) = mpsc::channel::<()>();
            let thread = tokio::task::spawn_blocking(move || gate.recv());
            let mut view = bed.view();
            let write = view.write(again(&file), vec![7; 6 << 20], 0);
            let waiting = tokio::time::timeout(Duration::from_millis(20), write).await;
            assert!(waiting.is_err(), "it has no thread yet");
            assert_eq!(bed.budget.used(), 6 << 20);
            go_on.send(()).unwrap();
            thread.await.unwrap().unwrap();
            // The thread comes to it before what is asked for later.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            assert_eq!(bed.budget.used(), 0);
        }
    });
}

#[tokio::test]
async fn a_directory_that_is_read_only_takes_no_bytes() {
    let mut bed = Bed::new(1 << 30);
    std::fs::write(bed.folder.path().join("data/a"), "as it was").unwrap();
    bed.mounts.directories[0].0.perms = FsPerms::ReadOnly;
    let [directory, _] = bed.directories();
    let mut view = bed.view();
    let opened = view
        .open_at(
            again(&directory),
            PathFlags::empty(),
            "a".to_owned(),
            OpenFlags::empty(),
            DescriptorFlags::READ,
        )
        .await;
    let file = opened.unwrap();
    let refused = code(view.write(again(&file), vec![7], 0).await);
    assert_eq!(refused, Some(ErrorCode::NotPermitted));
    let refused = code(view.write(again(&directory), vec![7], 0).await);
    assert_eq!(refused, Some(ErrorCode::BadDescriptor));
}

/// They wait for a thread as well, and nobody charges them.
#[tokio::test]
async fn no_path_is_longer_than_the_system_takes() {
    let mut bed = Bed::new(1 << 30);
    let (long, none) = ("x".repeat(4097), PathFlags::empty());
    let path = || long.clone();
    for directory in bed.directories() {
        let it = || again(&directory);
        let (now, short) = (NewTimestamp::Now, "a".to_owned());
        let mut view = bed.view();
        let flags = (OpenFlags::CREATE, DescriptorFlags::WRITE);
        let codes = [
            code(view.open_at(it(), none, path(), flags.0, flags.1).await),
            code(view.set_times_at(it(), none, path(), now, now).await),
            code(view.create_directory_at(it(), path()).await),
            code(view.stat_at(it(), none, path()).await),
            code(view.link_at(it(), none, path(), it(), short.clone()).await),
            code(view.link_at(it(), none, short.clone(), it(), path()).await),
            code(view.readlink_at(it(), path()).await),
            code(view.remove_directory_at(it(), path()).await),
            code(view.rename_at(it(), path(), it(), short.clone()).await),
            code(view.rename_at(it(), short.clone(), it(), path()).await),
            code(view.symlink_at(it(), path(), short.clone()).await),
            code(view.symlink_at(it(), short.clone(), path()).await),
            code(view.unlink_file_at(it(), path()).await),
            code(view.metadata_hash_at(it(), none, path()).await),
        ];
        for (call, code) in codes.into_iter().enumerate() {
            assert_eq!(code, Some(ErrorCode::NameTooLong), "{call}");
        }
    }
    // Nothing was awaited: not even the scratch directory was made.
    assert!(bed.held.scratch().is_none());
}

/// Which of its descriptors was used first does not matter.
#[tokio::test]
async fn times_are_set_by_any_descriptor_of_the_scratch_directory() {
    let mut bed = Bed::new(1 << 30);
    let ([_, first], [_, second]) = (bed.directories(), bed.directories());
    bed.create(&first).await;
    let (now, path) = (NewTimestamp::Now, "a".to_owned());
    let mut view = bed.view();
    let set = view.set_times_at(second, PathFlags::empty(), path, now, now);
    set.await.unwrap();
}
