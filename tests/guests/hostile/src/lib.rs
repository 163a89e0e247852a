//! Does what no function should. The second segment of the path says what, the
//! query `n` how much: `/anything/spin`, `/anything/large?n=7000000`. With
//! `signed` in the query it first prints which instance this is.

#![allow(unsafe_code, reason = "some of it is only possible so")]

use std::hint::black_box;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dunlin_sdk::{Request, Response};

mod host {
    wit_bindgen::generate!({
        inline: "
            package dunlin:hostile;

            world host-calls {
                import wasi:io/poll@0.2.0;
                import wasi:clocks/monotonic-clock@0.2.0;
                import wasi:random/random@0.2.0;
            }

            package wasi:io@0.2.0 {
                interface poll {
                    resource pollable {
                        ready: func() -> bool;
                        block: func();
                    }
                    poll: func(in: list<borrow<pollable>>) -> list<u32>;
                }
            }

            package wasi:clocks@0.2.0 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.0.{pollable};
                    type instant = u64;
                    type duration = u64;
                    now: func() -> instant;
                    resolution: func() -> duration;
                    subscribe-instant: func(when: instant) -> pollable;
                    subscribe-duration: func(when: duration) -> pollable;
                }
            }

            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                    get-random-u64: func() -> u64;
                }
            }
        ",
        world: "dunlin:hostile/host-calls",
        generate_all,
    });
}

use host::wasi::clocks::monotonic_clock;
use host::wasi::io::poll;
use host::wasi::random::random;

/// Invocations that this instance has served.
static SERVED: AtomicU32 = AtomicU32::new(0);

/// Names this instance.
static INSTANCE: OnceLock<u64> = OnceLock::new();

const SECRET: &[u8] = b"the-secret-of-the-one-before";
const MIB: usize = 1 << 20;

#[dunlin_sdk::http]
fn handle(request: Request) -> Response {
    let served = SERVED.fetch_add(1, Ordering::Relaxed);
    let n: usize = request
        .query_param("n")
        .map_or(0, |n| n.parse().expect("a number"));
    let text = request.query_param("text").unwrap_or_default();
    let instance = || INSTANCE.get_or_init(random::get_random_u64);
    if request.query_param("signed").is_some() {
        println!("{}", instance());
    }
    match request.path().split('/').nth(2).unwrap_or_default() {
        "" | "ok" => Response::text("ok\n"),
        "instance" => Response::text(instance().to_string()),
        "length" => Response::text(request.body().len().to_string()),

        "spin" => spin(),
        // So much work, then an answer.
        "work" => {
            for i in 0..n {
                black_box(i);
            }
            Response::text("done\n")
        }
        "recurse" => Response::text(recurse(black_box(0)).to_string()),
        "sleep" => {
            std::thread::sleep(Duration::from_millis(n as u64));
            Response::text("slept\n")
        }

        "unreachable" => core::arch::wasm32::unreachable(),
        "out-of-bounds" => {
            let beyond = black_box(0xffff_fff0_usize as *const u8);
            // SAFETY: none; that is the point. The sandbox makes it a trap.
            Response::text(unsafe { beyond.read_volatile() }.to_string())
        }
        "panic" => panic!("{text}"),
        "exit" => std::process::exit(n as i32),
        "abort" => std::process::abort(),

        "hoard" => hoard(usize::MAX),
        // So many MiB, written to, held for so many ms.
        "hold" => {
            let held = vec![1_u8; n * MIB];
            let ms = request
                .query_param("ms")
                .map_or(0, |ms| ms.parse().expect("a number"));
            std::thread::sleep(Duration::from_millis(ms));
            Response::text(black_box(&held).len().to_string())
        }
        // As much as it gets, then an answer all the same.
        "modest" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            while kept.len() < n {
                let mut piece = Vec::new();
                if piece.try_reserve_exact(MIB).is_err() {
                    break;
                }
                piece.resize(MIB, 1);
                kept.push(piece);
            }
            Response::text(black_box(&kept).len().to_string())
        }

        "large" => Response::new(200).with_body(vec![b'x'; n]),
        "status" => Response::new(n as u16),
        "headers" => (0..n).fold(Response::new(200), |response, i| {
            response.append_header(&format!("x-{i}"), "value")
        }),
        "large-header" => Response::new(200).append_header("x-large", vec![b'x'; n]),
        "header-name" => Response::new(200).append_header(&text, "value"),
        "header-value" => Response::new(200).append_header("x-value", text.as_bytes()),
        "header-bytes" => Response::new(200).append_header("x-value", [n as u8]),
        "framing" => Response::text("framed")
            .append_header("content-length", "1")
            .append_header("transfer-encoding", "chunked")
            .append_header("connection", "close, x-mine")
            .append_header("keep-alive", "timeout=1")
            .append_header("te", "trailers")
            .append_header("trailer", "x-mine")
            .append_header("upgrade", "websocket")
            .append_header("proxy-connection", "close")
            .append_header("x-mine", "stays"),
        "names-of-the-host" => Response::text("named")
            .append_header("x-amzn-requestid", "forged")
            .append_header("x-dunlin-outcome", "forged"),

        "flood" => flood(n, b"a line of many\n".repeat(273).as_slice()),
        "flood-of-empty-lines" => flood(n, &[b'\n'; 4096]),
        "endless-line" => flood(n, &[b'x'; 4096]),
        "print" => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(request.body()).expect("stdout takes it");
            stdout.flush().expect("stdout takes it");
            Response::text("printed\n")
        }

        "handles" => {
            let mut held = Vec::new();
            for _ in 0..n {
                held.push(monotonic_clock::subscribe_duration(u64::MAX / 2));
            }
            Response::text(held.len().to_string())
        }
        "timers" => {
            for _ in 0..n {
                drop(monotonic_clock::subscribe_duration(3_600_000_000_000));
            }
            Response::text("done\n")
        }
        "wait-for-many" => {
            let held: Vec<_> = (0..n)
                .map(|_| monotonic_clock::subscribe_duration(3_600_000_000_000))
                .collect();
            let all: Vec<_> = held.iter().collect();
            Response::text(poll::poll(&all).len().to_string())
        }
        // One handle, many times over.
        "poll-one-often" => {
            let one = monotonic_clock::subscribe_duration(3_600_000_000_000);
            Response::text(poll::poll(&vec![&one; n]).len().to_string())
        }
        "random" => {
            let bytes = random::get_random_bytes(n as u64);
            Response::text(bytes.len().to_string())
        }
        "huge-random" => {
            let bytes = random::get_random_bytes(1 << 63);
            Response::text(bytes.len().to_string())
        }
        "random-for-ever" => loop {
            black_box(random::get_random_bytes(n as u64));
        },
        "now-for-ever" => loop {
            black_box(monotonic_clock::now());
        },
        "copy-for-ever" => {
            let mut bytes = vec![1_u8; n * MIB];
            loop {
                let half = bytes.len() / 2;
                bytes.copy_within(..half, half);
                black_box(&mut bytes);
            }
        }
        "fill-for-ever" => {
            let mut bytes = vec![1_u8; n * MIB];
            loop {
                bytes.fill(black_box(7));
                black_box(&mut bytes);
            }
        }

        // Leaves something in a static and all over the heap and the stack.
        "leave-secret" => {
            let mut heap = vec![0_u8; 4 * MIB];
            for place in heap.chunks_exact_mut(64) {
                place[..SECRET.len()].copy_from_slice(SECRET);
            }
            std::mem::forget(black_box(heap));
            leave_on_stack(black_box(64));
            Response::text(served.to_string())
        }
        // Looks for it in every byte of its memory.
        "find-secret" => {
            // So many more pages: they come from where another's heap was.
            let before = core::arch::wasm32::memory_grow::<0>(n);
            assert_ne!(before, usize::MAX, "memory does not grow");
            let found = find(SECRET);
            Response::text(format!("served {served} found {found}"))
        }
        other => Response::text(format!("`{other}` is nothing I do")).with_status(404),
    }
}

fn spin() -> ! {
    let mut x = 0_u64;
    loop {
        x = black_box(x.wrapping_add(1));
    }
}

fn recurse(depth: u64) -> u64 {
    let here = black_box([depth; 16]);
    if depth == u64::MAX {
        return 0;
    }
    here[(depth % 16) as usize] + recurse(black_box(depth + 1))
}

fn hoard(most: usize) -> ! {
    let mut kept = Vec::new();
    while kept.len() < most {
        kept.push(black_box(vec![1_u8; MIB]));
    }
    unreachable!("no memory is so large")
}

fn flood(bytes: usize, piece: &[u8]) -> Response {
    let mut stdout = std::io::stdout().lock();
    let mut written = 0;
    while written < bytes {
        stdout.write_all(piece).expect("stdout takes it");
        written += piece.len();
    }
    let _ = stdout.flush();
    Response::text("flooded\n")
}

#[inline(never)]
fn leave_on_stack(depth: u32) -> u32 {
    let mut here = [0_u8; 256];
    for place in here.chunks_exact_mut(64) {
        place[..SECRET.len()].copy_from_slice(SECRET);
    }
    let last = black_box(&here)[0];
    if depth == 0 {
        u32::from(last)
    } else {
        leave_on_stack(depth - 1) + 1
    }
}

/// How often the bytes stand in this instance's memory, but for where the
/// program itself keeps them.
fn find(secret: &[u8]) -> usize {
    let pages = core::arch::wasm32::memory_size::<0>();
    let end = pages * 65536;
    let first = secret[0];
    let own = secret.as_ptr() as usize;
    let mut found = 0;
    let mut at = 1024;
    while at + secret.len() <= end {
        // SAFETY: below the end of memory every address can be read.
        let byte = unsafe { (at as *const u8).read_volatile() };
        if byte == first && at != own {
            let same = (0..secret.len())
                // SAFETY: as above.
                .all(|i| unsafe { ((at + i) as *const u8).read_volatile() } == secret[i]);
            found += usize::from(same);
        }
        at += 1;
    }
    found
}
