//! The end of a host by a signal: nothing in flight fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dunlin_tests::{Host, PATIENCE};
use rustix::process::Signal;

use crate::http::wire::{Wire, is_end};
use crate::http::{PROBE, box_with, up};

/// Clients that keep their connections and send one request after another until
/// the host is gone.
pub(crate) struct Load {
    clients: Vec<JoinHandle<Result<(), String>>>,
    answered: Arc<AtomicU64>,
    /// From now on a connection that is refused is no failure.
    pub(crate) leaving: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, clients: usize, target: &'static str) -> Self {
        let mut load = Self {
            clients: Vec::new(),
            answered: Arc::default(),
            leaving: Arc::default(),
            stop: Arc::default(),
        };
        for number in 0..clients {
            let (answered, leaving, stop) = (
                Arc::clone(&load.answered),
                Arc::clone(&load.leaving),
                Arc::clone(&load.stop),
            );
            let client = move || {
                let refused = |error: &dyn std::fmt::Display| match leaving.load(Ordering::SeqCst) {
                    true => Ok(()),
                    false => Err(format!("client {number}: refused: {error}")),
                };
                'connections: while !stop.load(Ordering::SeqCst) {
                    let mut wire = match std::net::TcpStream::connect(address) {
                        Ok(stream) => Wire::over(stream),
                        Err(error) => return refused(&error),
                    };
                    for request in 0.. {
                        if stop.load(Ordering::SeqCst) {
                            return Ok(());
                        }
                        let sent =
                            wire.try_send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
                        let answer = match sent.and_then(|()| wire.next(true)) {
                            Ok(answer) => answer,
                            // A connection that the host never took.
                            Err(error) if request == 0 && is_end(&error) => return refused(&error),
                            Err(error) => {
                                return Err(format!("client {number}, request {request}: {error}"));
                            }
                        };
                        if answer.status != 200 {
                            return Err(format!("client {number}, request {request}: {answer:?}"));
                        }
                        answered.fetch_add(1, Ordering::SeqCst);
                        if answer.closes() {
                            continue 'connections;
                        }
                    }
                }
                Ok(())
            };
            load.clients.push(std::thread::spawn(client));
        }
        load
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits for so many more answers.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, more: u64) {
        let goal = self.answered() + more;
        dunlin_tests::eventually("the load goes on", || {
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            (self.answered() >= goal || failed).then_some(())
        });
    }

    /// Ends the clients; answers what failed.
    pub(crate) fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.join()
    }

    /// Waits for the clients to end; answers what failed.
    pub(crate) fn join(self) -> Vec<String> {
        let ends = self
            .clients
            .into_iter()
            .map(|client| client.join().expect("clients do not panic"));
        ends.filter_map(Result::err).collect()
    }
}

#[track_caller]
fn drains_under_load(signal: Signal) {
    let mut host = up(PROBE);
    let fast = Load::start(host.http.address(), 8, "/probe");
    let slow = Load::start(host.http.address(), 8, "/probe?sleep=500");
    fast.wait_for_more(500);
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n >= 8.0);
    for load in [&fast, &slow] {
        load.leaving.store(true, Ordering::SeqCst);
    }
    host.signal(signal);
    assert_eq!(host.wait_for_exit(PATIENCE).code(), Some(0));
    assert_eq!(fast.join(), Vec::<String>::new());
    assert!(slow.answered() >= 8, "{}", slow.answered());
    assert_eq!(slow.join(), Vec::<String>::new());
    let failed: Vec<_> = host
        .log()
        .into_iter()
        .filter(|line| line["kind"] == "invocation" && line["outcome"] != "ok")
        .collect();
    assert_eq!(failed, Vec::<serde_json::Value>::new());
}

#[test]
fn sigterm_fails_nothing_in_flight() {
    drains_under_load(Signal::TERM);
}

#[test]
fn sigint_fails_nothing_in_flight() {
    drains_under_load(Signal::INT);
}

#[test]
fn while_it_drains_a_host_is_not_ready_and_takes_nothing_new() {
    let mut host = up(PROBE);
    assert_eq!(host.metrics.get("/ready").status, 200);
    let mut long = Wire::connect(host.http.address());
    long.send("GET /probe?sleep=3000 HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut idle = Wire::connect(host.http.address());
    assert_eq!(idle.get("/probe").status, 200);
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
    host.signal(Signal::TERM);

    dunlin_tests::eventually("it is not ready", || {
        (host.metrics.get("/ready").status == 503).then_some(())
    });
    assert_eq!(host.metrics.get("/health").status, 200, "it is alive");
    dunlin_tests::eventually("new connections are refused", || {
        let error = host.http.try_connect().err()?;
        (error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    });
    idle.closed();
    let answer = long.answer();
    assert_eq!(answer.status, 200);
    assert!(answer.closes());
    assert_eq!(host.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_request_that_an_idle_connection_sends_into_the_drain_is_served() {
    let mut host = up(PROBE);
    let mut long = Wire::connect(host.http.address());
    long.send("GET /probe?sleep=2000 HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut idle = Wire::connect(host.http.address());
    assert_eq!(idle.get("/probe").status, 200);
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
    // It was sent before the signal, but its rest comes after.
    idle.send("GET /probe?late HTTP/1.1\r\n");
    host.signal(Signal::TERM);
    dunlin_tests::eventually("it is not ready", || {
        (host.metrics.get("/ready").status == 503).then_some(())
    });
    idle.send("host: a\r\n\r\n");
    let answer = idle.answer();
    assert_eq!((answer.status, answer.closes()), (200, true));
    assert_eq!(long.answer().status, 200);
    assert_eq!(host.wait_for_exit(PATIENCE).code(), Some(0));
}

/// What an end that is not waited for may take beyond its timeout.
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn after_the_drain_timeout_what_runs_is_answered_with_503() {
    let timeout = Duration::from_secs(1);
    let mut host = box_with(PROBE).args(["--drain-timeout", "1s"]).start();
    let mut waits = Wire::connect(host.http.address());
    waits.send("GET /probe?sleep=19000 HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut spins = Wire::connect(host.http.address());
    spins.send("GET /probe?spin HTTP/1.1\r\nhost: a\r\n\r\n");
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 2.0);
    let began = Instant::now();
    host.signal(Signal::TERM);
    for wire in [&mut waits, &mut spins] {
        let answer = wire.answer();
        assert_eq!(answer.status, 503);
        assert!(answer.closes());
        assert!(answer.header("retry-after").is_some());
    }
    assert!(began.elapsed() >= timeout, "they had their time");
    host.wait_for_exit((timeout + SLACK).saturating_sub(began.elapsed()));
}

#[test]
fn a_connection_that_never_said_anything_does_not_hold_up_the_drain() {
    let mut host = up(PROBE);
    let mut silent = Wire::connect(host.http.address());
    host.wait_for_metric("dunlin_http_connections", &[], |n| n >= 1.0);
    host.signal(Signal::TERM);
    assert_eq!(host.wait_for_exit(SLACK).code(), Some(0));
    silent.closed();
}

#[test]
fn the_drain_timeout_may_stand_in_the_manifest() {
    let mut host = up(&format!("[host]\ndrain-timeout = \"1s\"\n{PROBE}"));
    let mut wire = Wire::connect(host.http.address());
    wire.send("GET /probe?sleep=19000 HTTP/1.1\r\nhost: a\r\n\r\n");
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
    host.signal(Signal::TERM);
    assert_eq!(wire.answer().status, 503);
    host.wait_for_exit(SLACK);
}

#[test]
fn a_client_that_does_not_read_does_not_hold_the_drain_beyond_its_timeout() {
    let timeout = Duration::from_secs(1);
    let mut host = box_with(PROBE).args(["--drain-timeout", "1s"]).start();
    let mut wire = Wire::connect(host.http.address());
    wire.send("GET /probe?size=6000000 HTTP/1.1\r\nhost: a\r\n\r\n".repeat(8));
    host.wait_for_metric("dunlin_invocations_total", &[("outcome", "ok")], |n| {
        n >= 1.0
    });
    host.signal(Signal::TERM);
    host.wait_for_exit(timeout + SLACK);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut host = up(PROBE);
    let mut wire = Wire::connect(host.http.address());
    wire.send("GET /probe?sleep=19000 HTTP/1.1\r\nhost: a\r\n\r\n");
    host.wait_for_metric("dunlin_invocations_running", &[], |n| n == 1.0);
    host.signal(Signal::TERM);
    host.wait_for_log(|line| line["message"] == "draining");
    host.signal(Signal::INT);
    assert_eq!(
        host.wait_for_exit(SLACK).code(),
        Some(1),
        "it did not end as it should"
    );
    wire.closed();
}

#[test]
fn a_host_without_work_ends_at_once() {
    let mut host: Host = up(PROBE);
    let mut idle = Wire::connect(host.http.address());
    assert_eq!(idle.get("/probe").status, 200);
    host.signal(Signal::TERM);
    idle.closed();
    assert_eq!(host.wait_for_exit(SLACK).code(), Some(0));
}
