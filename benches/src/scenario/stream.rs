//! A large body through a function that answers with it as it comes: how fast, and what
//! the host holds of it meanwhile.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Setup, TARGET_HEADER, target_row};
use crate::manifest::Manifest;
use crate::proc;
use crate::server::Server;
use crate::stats::{Spread, table};

/// The host goes through at least so many times as fast as hyper alone.
const LEAST_RATE: f64 = 0.5;
/// What is flat: a host holds no more of a body, whatever its size.
const FLAT: u64 = 16 << 20;
const PIECE: usize = 64 << 10;
/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(120);

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// The size of the body.
    pub bytes: u64,
}

/// One body that went through.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Bytes per second.
    rate: f64,
    /// Of the server, in seconds.
    cpu: f64,
    /// The most that was resident beyond what was before, in bytes.
    held: u64,
}

/// Sends the body and reads it back, both at once; answers how long that took.
fn echo(address: SocketAddr, bytes: u64) -> Result<Duration> {
    let mut to = TcpStream::connect(address)?;
    to.set_nodelay(true)?;
    to.set_read_timeout(Some(PATIENCE))?;
    to.set_write_timeout(Some(PATIENCE))?;
    let from = to.try_clone()?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<()> {
            write!(
                to,
                "POST /echo HTTP/1.1\r\nhost: bench\r\ncontent-length: {bytes}\r\n\r\n"
            )?;
            let piece = vec![b'x'; PIECE];
            let mut left = bytes;
            while left > 0 {
                let now = left.min(PIECE as u64) as usize;
                to.write_all(&piece[..now])?;
                left -= now as u64;
            }
            Ok(())
        });
        let received = receive(BufReader::with_capacity(PIECE, from))?;
        sender.join().expect("the sender does not panic")?;
        ensure!(received == bytes, "{received} of {bytes} bytes came back");
        Ok(began.elapsed())
    })
}

/// Reads an answer; says how large its body is.
fn receive(mut from: BufReader<TcpStream>) -> Result<u64> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "the answer is {line:?}");
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        chunked |= header == "transfer-encoding: chunked";
        if let Some(text) = header.strip_prefix("content-length: ") {
            length = Some(text.parse::<u64>()?);
        }
    }
    if !chunked {
        let length = length.context("the answer has no length")?;
        return skip(&mut from, length);
    }
    let mut all = 0;
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16).context("no size of a chunk")?;
        all += skip(&mut from, size)?;
        line.clear();
        from.read_line(&mut line)?;
        if size == 0 {
            return Ok(all);
        }
    }
}

fn skip(from: &mut BufReader<TcpStream>, bytes: u64) -> Result<u64> {
    Ok(std::io::copy(&mut from.take(bytes), &mut std::io::sink())?)
}

fn measure(server: &Server, bytes: u64) -> Result<Sample> {
    // Once before: what is made at first use is no part of it.
    echo(server.http, 1 << 20)?;
    let before = proc::memory(server.pid())?.resident;
    let cpu = proc::cpu(server.pid())?;
    let done = AtomicBool::new(false);
    let (took, most) = std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                let now = proc::memory(server.pid()).map_or(0, |memory| memory.resident);
                most = now.max(most);
                std::thread::sleep(LOOK);
            }
            most
        });
        let took = echo(server.http, bytes);
        done.store(true, Ordering::Relaxed);
        (took, looks.join().expect("looking does not panic"))
    });
    Ok(Sample {
        rate: bytes as f64 / took?.as_secs_f64(),
        cpu: (proc::cpu(server.pid())? - cpu).as_secs_f64(),
        held: most.saturating_sub(before),
    })
}

/// Runs it and answers its report.
pub fn run(setup: &Setup, plan: Plan) -> Result<String> {
    let limit = format!("{}B", plan.bytes);
    let manifest = Manifest::new(&[&format!("memory-reset = \"{}\"", setup.memory_reset)])
        .function(
            "echo",
            &setup.guests.wasi_http_echo,
            &[],
            &[
                "http = [{ path = \"/echo\" }]",
                "timeout = \"120s\"",
                &format!("request-limit = \"{limit}\""),
                &format!("response-limit = \"{}B\"", plan.bytes + (64 << 10)),
            ],
        );
    let (mut hyper, mut host) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let server = Server::bare_hyper(&setup.bare_hyper)?;
        let alone = measure(&server, plan.bytes).context("bare hyper failed")?;
        drop(server);
        let folder = setup.scratch.path();
        let server = Server::dunlin(&setup.dunlin, &manifest, folder, setup.backtraces)?;
        let through = measure(&server, plan.bytes).context("the host failed")?;
        server.stop()?;
        eprintln!(
            "round {} of {}: bare hyper {:.0} MiB/s, host {:.0} MiB/s, held {} KiB",
            round + 1,
            plan.rounds,
            alone.rate / f64::from(1 << 20),
            through.rate / f64::from(1 << 20),
            through.held >> 10
        );
        hyper.push(alone);
        host.push(through);
    }
    Ok(report(&hyper, &host))
}

fn report(hyper: &[Sample], host: &[Sample]) -> String {
    let mebibytes = |value: f64| value / f64::from(1 << 20);
    let row = |name: &str, samples: &[Sample]| {
        let of = |figure: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
        vec![
            name.to_owned(),
            of(&|sample| mebibytes(sample.rate)).with_range(0),
            of(&|sample| sample.cpu * 1e3).with_range(0),
            of(&|sample| mebibytes(sample.held as f64)).with_range(1),
        ]
    };
    let rows = [
        row("bare hyper", hyper),
        row("dunlin `wasi:http` 0.2", host),
    ];
    let header = ["server", "MiB/s", "CPU ms", "held, MiB"];
    let pairs = host.iter().zip(hyper);
    let rate = Spread::of(pairs.map(|(host, hyper)| host.rate / hyper.rate));
    let held = Spread::of(host.iter().map(|sample| sample.held as f64));
    let targets = [
        target_row(
            "rate",
            format!("≥ {LEAST_RATE} × bare hyper"),
            rate.with_range(2),
            rate.median >= LEAST_RATE,
        ),
        target_row(
            "memory flat",
            format!("≤ {} MiB", FLAT >> 20),
            format!("{:.1} MiB at most", mebibytes(held.max)),
            held.max <= FLAT as f64,
        ),
    ];
    format!(
        "{}\n{}",
        table(&header, &rows),
        table(&TARGET_HEADER, &targets)
    )
}
