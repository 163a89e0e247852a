use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasmtime_wasi::{FsPerms, OpenMode};

use super::super::open::Request;
use super::*;
use crate::telemetry::{Log, LogInvocations, Metrics, Telemetry};

const KIB: u64 = 1 << 10;

/// The state directory, and all of scratch in it.
struct Bed {
    state: TempDir,
    space: Arc<Space>,
    telemetry: Telemetry,
}

fn telemetry() -> Telemetry {
    Telemetry {
        log: Log::start(std::io::sink()).unwrap().0,
        metrics: Arc::new(Metrics::new().unwrap()),
        log_invocations: LogInvocations::All,
    }
}

impl Bed {
    fn new(budget: u64) -> Self {
        Self::over(TempDir::new().unwrap(), budget)
    }

    fn over(state: TempDir, budget: u64) -> Self {
        let telemetry = telemetry();
        let space = Space::open(state.path(), budget, &telemetry).unwrap();
        Self {
            state,
            space,
            telemetry,
        }
    }

    fn used(&self) -> u64 {
        self.telemetry.metrics.scratch_used.get().cast_unsigned()
    }

    async fn scratch(&self, quota: u64) -> Work {
        let allowance = Allowance::new(&self.space, quota);
        Work::new(allowance.make().await.unwrap())
    }

    /// The directories that are there.
    fn names(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.state.path().join("scratch")).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[track_caller]
    fn is_empty_soon(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.used() > 0 || !self.names().is_empty() {
            assert!(
                Instant::now() < deadline,
                "{} in {:?}",
                self.used(),
                self.names()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A scratch directory as a guest works in it.
struct Work {
    scratch: Arc<Scratch>,
    top: Arc<File>,
}

type Done<T = ()> = Result<T, ErrorCode>;

impl Work {
    fn new(scratch: Arc<Scratch>) -> Self {
        let top = Arc::clone(scratch.root());
        Self { scratch, top }
    }

    fn used(&self) -> u64 {
        // Takes note of what was closed.
        drop(self.scratch.begin());
        let free = (0..).step_by(4096).find(|more| {
            let fits = self.scratch.account.take(*more);
            if fits {
                self.scratch.account.give_back(*more);
            }
            !fits
        });
        self.scratch.account.limit() + 4096 - free.unwrap()
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Done<(File, Hold)> {
        let parent = Dir::new(
            self.top.try_clone().unwrap(),
            FsPerms::ReadWrite,
            OpenMode::READ | OpenMode::WRITE,
            false,
        );
        let access = DescriptorFlags::READ | DescriptorFlags::WRITE;
        let follow = PathFlags::SYMLINK_FOLLOW;
        let request = Request::check(&parent, follow, path.to_owned(), flags, access)?;
        let (file, _, hold) = self.scratch.open(&self.top, &request)?;
        Ok((file, hold))
    }

    fn create(&self, path: &str) -> Done<(File, Hold)> {
        self.open(path, OpenFlags::CREATE)
    }

    fn make(&self, path: &str) -> Done {
        self.scratch.create_directory(&self.top, path)
    }

    fn rename(&self, from: &str, to: &str) -> Done {
        self.scratch.rename((&self.top, from), (&self.top, to))
    }

    fn link(&self, from: &str, to: &str) -> Done {
        self.scratch.link((&self.top, from), (&self.top, to))
    }

    fn remove(&self, path: &str) -> Done {
        self.scratch.remove_file(&self.top, path)
    }

    fn remove_directory(&self, path: &str) -> Done {
        self.scratch.remove_directory(&self.top, path)
    }

    fn write(&self, file: &File, size: usize, mode: Mode) -> io::Result<()> {
        self.scratch.write(file, &vec![b'x'; size], mode).1
    }
}

#[track_caller]
fn full<T>(done: Result<T, ErrorCode>) {
    assert_eq!(done.err(), Some(ErrorCode::InsufficientSpace));
}

#[track_caller]
fn full_to_write(done: io::Result<()>) {
    full(done.map_err(ErrorCode::from));
}

#[tokio::test]
async fn a_file_counts_its_size_whichever_way_it_gets_it() {
    let bed = Bed::new(1 << 30);
    let work = bed.scratch(256 * KIB).await;
    assert_eq!(work.used(), 16 * KIB, "the directory itself");
    let (file, hold) = work.create("a").unwrap();
    assert_eq!(work.used(), 32 * KIB, "an empty file");
    work.write(&file, 16 << 10, Mode::At(0)).unwrap();
    assert_eq!(work.used(), 32 * KIB, "as much as it counts anyway");
    work.write(&file, 1, Mode::Append).unwrap();
    assert_eq!(work.used(), 36 * KIB, "a block more");
    // A hole counts.
    work.write(&file, 1, Mode::At(100 << 10)).unwrap();
    assert_eq!(work.used(), (16 + 104) * KIB);
    work.scratch.set_size(&file, 200 << 10).unwrap();
    assert_eq!(work.used(), (16 + 200) * KIB);
    // What is written again is not counted again.
    work.write(&file, 200 << 10, Mode::At(0)).unwrap();
    assert_eq!(work.used(), (16 + 200) * KIB);
    // Beyond the quota nothing happens, by whichever way.
    full_to_write(work.write(&file, 1, Mode::At(240 << 10)));
    full_to_write(work.write(&file, 41 << 10, Mode::Append));
    full_to_write(work.write(&file, 1, Mode::At(1 << 50)));
    full(work.scratch.set_size(&file, (240 << 10) + 1));
    full(work.scratch.set_size(&file, u64::MAX));
    let beyond = work
        .write(&file, 2, Mode::At(u64::MAX))
        .map_err(ErrorCode::from);
    assert_eq!(beyond.err(), Some(ErrorCode::FileTooLarge));
    assert_eq!(file.metadata().unwrap().len(), 200 << 10);
    assert_eq!(work.used(), (16 + 200) * KIB);
    // To the last byte.
    work.write(&file, 40 << 10, Mode::Append).unwrap();
    assert_eq!(work.used(), 256 * KIB);
    work.scratch.set_size(&file, 0).unwrap();
    assert_eq!(work.used(), 32 * KIB);
    drop(file);
    drop(hold);
    let (file, _hold) = work.open("a", OpenFlags::empty()).unwrap();
    work.write(&file, 100 << 10, Mode::At(0)).unwrap();
    let _again = work.open("a", OpenFlags::TRUNCATE).unwrap();
    assert_eq!(work.used(), 32 * KIB, "emptied by opening it");
}

#[tokio::test]
async fn what_is_removed_counts_until_it_is_closed() {
    let bed = Bed::new(1 << 30);
    let work = bed.scratch(256 * KIB).await;
    let (file, hold) = work.create("a").unwrap();
    work.write(&file, 100 << 10, Mode::At(0)).unwrap();
    let (again, held_again) = work.open("a", OpenFlags::empty()).unwrap();
    work.remove("a").unwrap();
    assert_eq!(work.used(), 116 * KIB);
    // It may still grow, as far as there is room.
    work.write(&file, 100 << 10, Mode::Append).unwrap();
    assert_eq!(work.used(), 216 * KIB);
    full_to_write(work.write(&file, 100 << 10, Mode::Append));
    drop(file);
    drop(hold);
    assert_eq!(work.used(), 216 * KIB);
    drop(again);
    drop(held_again);
    assert_eq!(work.used(), 16 * KIB);
    // So does a file whose name another takes, and a directory.
    let (file, hold) = work.create("a").unwrap();
    work.write(&file, 100 << 10, Mode::At(0)).unwrap();
    drop(work.create("b").unwrap());
    work.rename("b", "a").unwrap();
    assert_eq!(work.used(), (16 + 100 + 16) * KIB);
    drop(file);
    drop(hold);
    assert_eq!(work.used(), 32 * KIB);
    work.make("d").unwrap();
    let held = work.open("d", OpenFlags::DIRECTORY);
    // Not to write: no directory is.
    assert!(held.is_err());
    work.remove_directory("d").unwrap();
    work.remove("a").unwrap();
    assert_eq!(work.used(), 16 * KIB);
}

#[tokio::test]
async fn a_file_counts_once_whatever_its_names() {
    let bed = Bed::new(1 << 30);
    let work = bed.scratch(256 * KIB).await;
    let (file, hold) = work.create("a").unwrap();
    work.write(&file, 64 << 10, Mode::At(0)).unwrap();
    drop(file);
    drop(hold);
    let level = work.used();
    work.link("a", "b").unwrap();
    work.make("d").unwrap();
    work.link("b", "d/c").unwrap();
    assert_eq!(work.used(), level + 16 * KIB, "a directory more");
    // Two names of one file: nothing happens.
    work.rename("a", "b").unwrap();
    work.remove("a").unwrap();
    work.rename("b", "d/b").unwrap();
    work.remove("d/b").unwrap();
    assert_eq!(work.used(), level + 16 * KIB);
    work.remove("d/c").unwrap();
    work.remove_directory("d").unwrap();
    assert_eq!(work.used(), 16 * KIB);
}

#[tokio::test]
async fn names_alone_fill_it_too() {
    let bed = Bed::new(1 << 30);
    type Make = fn(&Work, &str) -> Done;
    let makes: [Make; 4] = [
        |work, name| work.create(name).map(drop),
        |work, name| work.make(name),
        |work, name| work.scratch.symlink("to", &work.top, name),
        |work, name| work.link("first", name),
    ];
    for make in makes {
        let work = bed.scratch(1024 * KIB).await;
        drop(work.create("first").unwrap());
        let mut made = 0;
        let ended = loop {
            match make(&work, &format!("{made:0200}")) {
                Ok(()) => made += 1,
                Err(error) => break error,
            }
            assert!(made < 70_000, "it never ends");
        };
        // A file system may allow fewer links to a file.
        let fits = [ErrorCode::InsufficientSpace, ErrorCode::TooManyLinks];
        assert!(fits.contains(&ended), "{ended:?}");
        assert!(work.used() <= 1024 * KIB);
        assert!(made >= 50, "{made}");
        // And all of it comes back: only the directory may stay as large as it was.
        for name in 0..made {
            let name = format!("{name:0200}");
            work.remove(&name)
                .or_else(|_| work.remove_directory(&name))
                .unwrap();
        }
        work.remove("first").unwrap();
        let metadata = work.top.metadata().unwrap();
        let top = metadata.len().max(metadata.blocks() * 512);
        assert_eq!(work.used(), cost(top));
    }
}

/// What a directory grew by stays with it when its names are gone, on some file systems.
#[tokio::test]
async fn directories_do_not_grow_uncounted() {
    let bed = Bed::new(1 << 30);
    let work = bed.scratch(64 << 20).await;
    for name in ["d", "e"] {
        work.make(name).unwrap();
        for number in 0..1000 {
            drop(work.create(&format!("{name}/{number:0200}")).unwrap());
        }
        for number in 0..1000 {
            work.remove(&format!("{name}/{number:0200}")).unwrap();
        }
    }
    let on_disk: u64 = ["", "d", "e"]
        .iter()
        .map(|name| {
            let path = bed.state.path().join("scratch").join(&work.scratch.name);
            let found = path.join(name).metadata().unwrap();
            cost(found.len().max(found.blocks() * 512))
        })
        .sum();
    assert_eq!(work.used(), on_disk);
}

#[tokio::test]
async fn paths_stay_within_and_mean_what_they_say() {
    let bed = Bed::new(1 << 30);
    let work = bed.scratch(1024 * KIB).await;
    std::fs::write(bed.state.path().join("secret"), "x").unwrap();
    work.make("d/").unwrap();
    drop(work.create("d/a").unwrap());
    work.scratch.symlink("d", &work.top, "to-d").unwrap();
    work.scratch
        .symlink("nothing", &work.top, "dangling")
        .unwrap();
    drop(work.open("to-d/a", OpenFlags::empty()).unwrap());
    drop(work.create("to-d/../b").unwrap());
    for path in [
        "",
        "/",
        "/a",
        "..",
        "../secret",
        "../../secret",
        "d/../../secret",
        ".",
        "d/..",
        "no/such",
        "d/a/b",
        "a\0b",
        "dangling",
    ] {
        assert!(work.create(path).is_err(), "create {path:?}");
        if path != "dangling" {
            assert!(work.remove(path).is_err(), "remove {path:?}");
            assert!(work.link("b", path).is_err(), "link to {path:?}");
            assert!(work.rename("b", path).is_err(), "rename to {path:?}");
            assert!(work.rename(path, "c").is_err(), "rename {path:?}");
            assert!(work.link(path, "c").is_err(), "link {path:?}");
        }
        assert!(work.make(path).is_err(), "make {path:?}");
        assert!(work.remove_directory(path).is_err(), "rmdir {path:?}");
        assert!(
            work.scratch.symlink("b", &work.top, path).is_err(),
            "symlink at {path:?}"
        );
    }
    assert!(work.create("e/").is_err());
    assert!(work.rename("b/", "c").is_err(), "not a directory");
    assert!(work.scratch.symlink("/etc", &work.top, "root").is_err());
    // What failed took nothing: two directories, two files, two links.
    assert_eq!(work.used(), 6 * 16 * KIB);
    assert!(bed.state.path().join("secret").exists());
}

#[tokio::test]
async fn one_function_leaves_half_to_the_others() {
    let bed = Bed::new(1024 * KIB);
    let allowance = Allowance::new(&bed.space, 300 * KIB);
    let other = Allowance::new(&bed.space, 300 * KIB);
    let fill = |work: &Work| {
        let (file, _hold) = work.create("a").unwrap();
        work.scratch.set_size(&file, 200 * KIB)
    };
    let one = Work::new(allowance.make().await.unwrap());
    let two = Work::new(allowance.make().await.unwrap());
    fill(&one).unwrap();
    fill(&two).unwrap();
    let three = Work::new(allowance.make().await.unwrap());
    full(fill(&three));
    let theirs = Work::new(other.make().await.unwrap());
    fill(&theirs).unwrap();
    assert_eq!(bed.used(), (216 * 3 + 32) * KIB);
    // One instance has its quota in any case.
    let large = Allowance::new(&bed.space, 1024 * KIB);
    drop((one, two, three, theirs));
    bed.is_empty_soon();
    let work = Work::new(large.make().await.unwrap());
    let (file, _hold) = work.create("a").unwrap();
    work.scratch.set_size(&file, 1008 * KIB).unwrap();
    assert_eq!(large.make().await.err(), Some(ErrorCode::InsufficientSpace));
}

#[tokio::test]
async fn what_an_instance_leaves_goes_and_counts_until_it_is_gone() {
    let bed = Bed::new(1 << 30);
    let work = bed.scratch(256 << 20).await;
    let (mut file, hold) = work.create("a").unwrap();
    file.write_all(&vec![1; 1 << 20]).unwrap();
    work.make("d").unwrap();
    for number in 0..2000 {
        work.make(&format!("d/{number}")).unwrap();
    }
    assert!(bed.used() > 30 << 20);
    // A descriptor that is closed late keeps all of it.
    drop(work);
    std::thread::sleep(Duration::from_millis(50));
    assert!(bed.used() > 30 << 20);
    assert_eq!(bed.names().len(), 1);
    drop(file);
    drop(hold);
    bed.is_empty_soon();
}

/// A name that is no UTF-8, which no guest makes: it stands for what passes, such as a host
/// that has no descriptors left.
fn unfit() -> &'static OsStr {
    OsStr::from_bytes(b"\xff")
}

#[tokio::test]
async fn what_could_not_be_emptied_is_tried_again() {
    let bed = Bed::new(1 << 30);
    let work = bed.scratch(1 << 20).await;
    work.make("d").unwrap();
    drop(work.create("d/a").unwrap());
    let path = bed.state.path().join("scratch");
    let inner = path.join(&work.scratch.name).join("d");
    std::fs::create_dir(inner.join(unfit())).unwrap();
    let held = bed.used();
    drop(work);
    // Emptied after it.
    drop(bed.scratch(1 << 20).await);
    let deadline = Instant::now() + Duration::from_secs(20);
    while bed.used() > held {
        assert!(Instant::now() < deadline, "{}", bed.used());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(bed.used(), held, "it counts as long as it is there");
    // Under the name that `d` was given.
    let mut all = bed.names().into_iter();
    let found = all.find_map(|name| Some(path.join(name).join(unfit())).filter(|it| it.exists()));
    let found = found.expect("it is there still");
    std::fs::rename(&found, found.with_file_name("fit")).unwrap();
    bed.is_empty_soon();
}

#[tokio::test]
async fn what_a_crash_left_is_tried_again() {
    let state = TempDir::new().unwrap();
    let old = state.path().join("scratch").join("of-0");
    std::fs::create_dir_all(old.join(unfit())).unwrap();
    let bed = Bed::over(state, 1 << 30);
    assert!(!bed.space.is_clear().await);
    let allowance = Allowance::new(&bed.space, 1 << 20);
    assert_eq!(allowance.make().await.err(), Some(ErrorCode::Io));
    std::fs::rename(old.join(unfit()), old.join("fit")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !bed.space.is_clear().await {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(bed.scratch(1 << 20).await);
    bed.is_empty_soon();
}

#[tokio::test]
async fn nobody_gets_a_directory_before_what_a_crash_left_is_gone() {
    let state = TempDir::new().unwrap();
    let old = state.path().join("scratch/of-0/sub/sub");
    std::fs::create_dir_all(&old).unwrap();
    for number in 0..3000 {
        std::fs::write(old.join(number.to_string()), "x").unwrap();
    }
    std::fs::create_dir(state.path().join("kept")).unwrap();
    std::os::unix::fs::symlink(state.path().join("kept"), old.join("link")).unwrap();
    std::fs::write(state.path().join("kept/file"), "x").unwrap();
    let bed = Bed::over(state, 1 << 30);
    let work = bed.scratch(1 << 20).await;
    assert_eq!(bed.names(), std::slice::from_ref(&work.scratch.name));
    assert!(bed.state.path().join("kept/file").exists());
    drop(work);
    bed.is_empty_soon();
}

#[test]
fn a_link_in_the_place_of_the_directory_is_refused() {
    let state = TempDir::new().unwrap();
    std::fs::create_dir(state.path().join("elsewhere")).unwrap();
    std::fs::write(state.path().join("elsewhere/file"), "x").unwrap();
    std::os::unix::fs::symlink("elsewhere", state.path().join("scratch")).unwrap();
    assert!(Space::open(state.path(), 1 << 30, &telemetry()).is_err());
    assert!(state.path().join("elsewhere/file").exists());
}

/// Until it is made, nothing is in it and nothing can be put there.
#[tokio::test]
async fn what_stands_for_it_until_it_is_made_is_nowhere() {
    let bed = Bed::new(1 << 30);
    let nowhere = Allowance::new(&bed.space, 1 << 20).nowhere().clone();
    assert!(bed.space.is_clear().await);
    assert!(bed.names().is_empty());
    for path in ["a", "..", "../secret", "."] {
        let made = rustix::fs::mkdirat(&*nowhere.dir, "a", rustix::fs::Mode::RWXU);
        assert!(made.is_err(), "{path}");
    }
    assert!(cap_primitives::fs::open_dir(&nowhere.dir, "..".as_ref()).is_err());
}

/// Writes by many threads at once, as streams do it, with removals between.
#[tokio::test]
async fn the_account_is_right_whatever_happens_at_once() {
    let bed = Bed::new(1 << 30);
    let work = Arc::new(bed.scratch(1024 * KIB).await);
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|seed: u64| {
            let (work, over) = (Arc::clone(&work), Arc::clone(&over));
            std::thread::spawn(move || {
                let mut random = seed + 1;
                for _ in 0..500 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let name = format!("f{}", (random >> 33) % 6);
                    let size = (random >> 40) % (300 << 10);
                    match (random >> 60) % 5 {
                        0 => drop(work.remove(&name)),
                        1 => drop(work.rename(&name, "f0")),
                        2 => drop(work.link(&name, "f1")),
                        _ => {
                            if let Ok((file, hold)) = work.create(&name) {
                                let _ = work.write(&file, 4096, Mode::At(size));
                                let _ = work.scratch.set_size(&file, size);
                                drop(file);
                                drop(hold);
                            }
                        }
                    }
                    let largest = (0..6).filter_map(|n| stat(&work, &format!("f{n}")));
                    let on_disk = largest.map(|it| it.st_size).max().unwrap_or(0);
                    over.fetch_or(on_disk > 1 << 20, std::sync::atomic::Ordering::Relaxed);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!over.load(std::sync::atomic::Ordering::Relaxed));
    let mut inodes = FxHashMap::default();
    for n in 0..6 {
        if let Some(found) = stat(&work, &format!("f{n}")) {
            inodes.insert(found.st_ino, cost_of(&found));
        }
    }
    let top = cost_of(&rustix::fs::fstat(&*work.top).unwrap());
    assert_eq!(work.used(), top + inodes.values().sum::<u64>());
}

fn stat(work: &Work, name: &str) -> Option<Stat> {
    use rustix::fs::{AtFlags, statat};
    statat(&*work.top, name, AtFlags::SYMLINK_NOFOLLOW).ok()
}
