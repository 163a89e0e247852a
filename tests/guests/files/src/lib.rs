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
        None => simply(what, &path, &to).map_err(|error| error.kind().to_string()),
        Some(what) => rawly(what, &path, &to, n).map_err(|error| error.name().to_owned()),
    };
    Response::json(&match done {
        Ok(ok) => json!({ "ok": ok }),
        Err(error) => json!({ "error": error }),
    })
}

/// As any program does.
fn simply(what: &str, path: &str, to: &str) -> io::Result<Value> {
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
        _ => "nothing was asked for".into(),
    })
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
