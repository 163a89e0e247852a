//! Does with files what the second segment of the path says: `/files/read?path=/data/a`.
//! `raw-…` calls the host past the standard library, on paths below the first directory
//! that is there. Answers `{ "ok": … }` or `{ "error": … }`.

#![allow(unsafe_code, reason = "the bindings are generated")]

use std::io;

use dunlin_sdk::{Request, Response};
use serde_json::{Value, json};

// Of a version that no library here has: so a part of each interface is enough.
mod host {
    wit_bindgen::generate!({
        inline: "
            package dunlin:files;

            world host-calls {
                import wasi:filesystem/preopens@0.2.1;
                import wasi:filesystem/types@0.2.1;
            }

            package wasi:io@0.2.1 {
                interface error {
                    resource error;
                }
                interface streams {
                    use error.{error};
                    variant stream-error { last-operation-failed(error), closed }
                    resource input-stream {
                        read: func(len: u64) -> result<list<u8>, stream-error>;
                        blocking-read: func(len: u64) -> result<list<u8>, stream-error>;
                    }
                }
            }

            package wasi:clocks@0.2.1 {
                interface wall-clock {
                    record datetime { seconds: u64, nanoseconds: u32 }
                }
            }

            package wasi:filesystem@0.2.1 {
                interface types {
                    use wasi:io/streams@0.2.1.{input-stream};
                    use wasi:clocks/wall-clock@0.2.1.{datetime};
                    type filesize = u64;
                    flags descriptor-flags {
                        read, write, file-integrity-sync, data-integrity-sync,
                        requested-write-sync, mutate-directory,
                    }
                    flags path-flags { symlink-follow }
                    flags open-flags { create, directory, exclusive, truncate }
                    variant new-timestamp { no-change, now, timestamp(datetime) }
                    enum error-code {
                        access, would-block, already, bad-descriptor, busy, deadlock, quota,
                        exist, file-too-large, illegal-byte-sequence, in-progress, interrupted,
                        invalid, io, is-directory, loop, too-many-links, message-size,
                        name-too-long, no-device, no-entry, no-lock, insufficient-memory,
                        insufficient-space, not-directory, not-empty, not-recoverable,
                        unsupported, no-tty, no-such-device, overflow, not-permitted, pipe,
                        read-only, invalid-seek, text-file-busy, cross-device,
                    }
                    resource directory-entry-stream;
                    resource descriptor {
                        read-via-stream: func(offset: filesize) -> result<input-stream, error-code>;
                        read-directory: func() -> result<directory-entry-stream, error-code>;
                        set-times-at: func(path-flags: path-flags, path: string,
                            data-access-timestamp: new-timestamp,
                            data-modification-timestamp: new-timestamp) -> result<_, error-code>;
                        open-at: func(path-flags: path-flags, path: string,
                            open-flags: open-flags, %flags: descriptor-flags)
                            -> result<descriptor, error-code>;
                        symlink-at: func(old-path: string, new-path: string)
                            -> result<_, error-code>;
                        create-directory-at: func(path: string) -> result<_, error-code>;
                        link-at: func(old-path-flags: path-flags, old-path: string,
                            new-descriptor: borrow<descriptor>, new-path: string)
                            -> result<_, error-code>;
                        rename-at: func(old-path: string,
                            new-descriptor: borrow<descriptor>, new-path: string)
                            -> result<_, error-code>;
                    }
                }
                interface preopens {
                    use types.{descriptor};
                    get-directories: func() -> list<tuple<descriptor, string>>;
                }
            }
        ",
        world: "dunlin:files/host-calls",
        generate_all,
    });
}

use host::wasi::filesystem::preopens::get_directories;
use host::wasi::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};

#[dunlin_sdk::http]
fn handle(request: Request) -> Response {
    let query = |name: &str| {
        let value = request.query_param(name);
        value.map_or_else(String::new, |value| value.into_owned())
    };
    let what = request.path().split('/').nth(2).unwrap_or_default();
    let (path, to) = (query("path"), query("to"));
    let n = query("n").parse().unwrap_or(0);
    let done = match what.strip_prefix("raw-") {
        None => simply(what, &path, &to, n).map_err(|error| error.kind().to_string()),
        Some(what) => rawly(what, &path, &to, n).map_err(|error| error.name().to_owned()),
    };
    Response::json(&match done {
        Ok(ok) => json!({ "ok": ok }),
        Err(error) => json!({ "error": error }),
    })
}

/// As any program does.
fn simply(what: &str, path: &str, to: &str, n: usize) -> io::Result<Value> {
    use std::fs;
    Ok(match what {
        "read" => fs::read_to_string(path)?.into(),
        "size" => fs::metadata(path)?.len().into(),
        "list" => {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            names.into()
        }
        "count" => fs::read_dir(path)?.count().into(),
        "write" => fs::write(path, to)?.into(),
        "append" => {
            let mut file = fs::OpenOptions::new().append(true).open(path)?;
            io::Write::write_all(&mut file, to.as_bytes())?.into()
        }
        "truncate" => fs::OpenOptions::new()
            .write(true)
            .open(path)?
            .set_len(0)?
            .into(),
        "rename" => fs::rename(path, to)?.into(),
        "link" => fs::hard_link(path, to)?.into(),
        "remove" => fs::remove_file(path)?.into(),
        "make-folder" => fs::create_dir(path)?.into(),
        "remove-folder" => fs::remove_dir(path)?.into(),
        // Writes much, removes it, and leaves the end of it to the host.
        "fill-and-remove" => {
            let mut file = fs::File::create(path)?;
            for _ in 0..to.parse().unwrap_or(0) {
                io::Write::write_all(&mut file, &[1; 1 << 20])?;
            }
            fs::remove_file(path)?.into()
        }
        // Writes until it may not, `n` KiB at most.
        "fill" => fill(&mut fs::File::create(path)?, n),
        "fill-and-trap" => {
            fill(&mut fs::File::create(path)?, n);
            panic!("as it was told")
        }
        "fill-and-wait" => {
            fill(&mut fs::File::create(path)?, n);
            std::thread::sleep(std::time::Duration::from_secs(600));
            Value::Null
        }
        "write-at" => {
            let mut file = fs::File::create(path)?;
            io::Seek::seek(&mut file, io::SeekFrom::Start(n as u64))?;
            io::Write::write_all(&mut file, to.as_bytes())?;
            io::Write::flush(&mut file)?.into()
        }
        "set-size" => fs::File::create(path)?.set_len(n as u64)?.into(),
        "sync" => {
            let file = fs::File::create(path)?;
            file.sync_data()?;
            file.sync_all()?.into()
        }
        // Files, directories and links until it may not, `n` of each at most.
        "make-many" => {
            let mut made = 0;
            let then = (0..n).find_map(|number| {
                let name = |kind| format!("{path}/{kind}{number}");
                let one = fs::File::create(name("file"))
                    .and_then(|_| fs::create_dir(name("folder")))
                    .and_then(|()| fs::hard_link(name("file"), name("link")));
                made += 1;
                one.err()
            });
            json!({ "made": made, "then": then.map(|error| error.kind().to_string()) })
        }
        // What is removed and open, and what there is room for before and after its end.
        "hold-removed" => {
            let mut file = fs::File::create(path)?;
            let held = fill(&mut file, n);
            fs::remove_file(path)?;
            let before = fill(&mut fs::File::create(to)?, n);
            fs::remove_file(to)?;
            drop(file);
            let after = fill(&mut fs::File::create(to)?, n);
            json!([held["wrote"], before["wrote"], after["wrote"]])
        }
        // What was read in `n` attempts, and how many failed.
        "read-again" => {
            let mut read = std::collections::BTreeSet::new();
            let mut failed = 0;
            for _ in 0..n {
                match fs::read_to_string(path) {
                    Ok(text) => _ = read.insert(text),
                    Err(_) => failed += 1,
                }
            }
            json!({ "read": read, "failed": failed })
        }
        "write-again" => (0..n)
            .filter(|_| fs::write(path, to).is_ok())
            .count()
            .into(),
        _ => "nothing was asked for".into(),
    })
}

/// Writes up to so many KiB; answers how many bytes that were, and what ended it.
fn fill(file: &mut std::fs::File, kib: usize) -> Value {
    let mut wrote = 0;
    let then = (0..kib.div_ceil(16)).find_map(|_| {
        let done = io::Write::write_all(file, &[1; 16 << 10]);
        wrote += if done.is_ok() { 16 << 10 } else { 0 };
        done.err()
    });
    json!({ "wrote": wrote, "then": then.map(|error| error.kind().to_string()) })
}

/// As a program does that means harm.
fn rawly(what: &str, path: &str, to: &str, n: usize) -> Result<Value, ErrorCode> {
    let directories = get_directories();
    if what == "directories" {
        let names = directories.iter().map(|(_, name)| name.as_str());
        return Ok(names.collect::<Vec<_>>().into());
    }
    let directory = &directories.first().ok_or(ErrorCode::NoEntry)?.0;
    let open = |flags| {
        let none = OpenFlags::empty();
        directory.open_at(PathFlags::SYMLINK_FOLLOW, path, none, flags)
    };
    match what {
        "open" => open(DescriptorFlags::READ).map(|_| true.into()),
        "open-to-write" => open(DescriptorFlags::WRITE).map(|_| true.into()),
        "create" => {
            let (flags, access) = (OpenFlags::CREATE, DescriptorFlags::WRITE);
            let made = directory.open_at(PathFlags::SYMLINK_FOLLOW, path, flags, access);
            made.map(|_| true.into())
        }
        "touch" => {
            let (follow, now) = (PathFlags::SYMLINK_FOLLOW, NewTimestamp::Now);
            let touched = directory.set_times_at(follow, path, now, now);
            touched.map(|()| true.into())
        }
        "symlink" => directory.symlink_at(to, path).map(|()| true.into()),
        // From the second directory to the first.
        "link-across" | "rename-across" => {
            let second = &directories.get(1).ok_or(ErrorCode::NoEntry)?.0;
            let done = match what {
                "link-across" => second.link_at(PathFlags::empty(), path, directory, to),
                _ => second.rename_at(path, directory, to),
            };
            done.map(|()| true.into())
        }
        // Deeper than any path goes.
        "nest" => {
            let mut inner = directory.open_at(
                PathFlags::empty(),
                ".",
                OpenFlags::DIRECTORY,
                DescriptorFlags::READ,
            )?;
            for depth in 0..n {
                if let Err(error) = inner.create_directory_at("d") {
                    return Ok(json!({ "depth": depth, "then": error.name() }));
                }
                inner = inner.open_at(
                    PathFlags::empty(),
                    "d",
                    OpenFlags::DIRECTORY,
                    DescriptorFlags::READ,
                )?;
            }
            Ok(json!({ "depth": n }))
        }
        // Takes so many, and says how many it got.
        "open-many" => Ok(take(n, || open(DescriptorFlags::READ))),
        "list-many" => Ok(take(n, || directory.read_directory())),
        "read-much" => {
            let file = open(DescriptorFlags::READ)?;
            Ok(take(n, || begin(&file)))
        }
        _ => Err(ErrorCode::Unsupported),
    }
}

/// A stream with a read that nobody asks for.
fn begin(file: &Descriptor) -> Result<host::wasi::io::streams::InputStream, ErrorCode> {
    let stream = file.read_via_stream(0)?;
    // What comes at once is empty.
    let _ = stream.read(64 << 10);
    Ok(stream)
}

fn take<T>(n: usize, one: impl Fn() -> Result<T, ErrorCode>) -> Value {
    let mut held = Vec::new();
    for _ in 0..n {
        match one() {
            Ok(one) => held.push(one),
            Err(error) => return json!({ "got": held.len(), "then": error.name() }),
        }
    }
    json!({ "got": held.len() })
}
