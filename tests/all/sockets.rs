//! Sockets of functions: to whom they list, within what the operator lists, and no further.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use dunlin_tests::{Builder, Host, eventually, guest};
use serde_json::{Value, json};

use crate::http::wire::Wire;
use crate::scene::{Scene, TIMEOUT};
use crate::told::{does, ok, refused};

const PATIENCE: Duration = Duration::from_secs(20);
const DENIED: &str = "permission denied";

/// The guest `sockets`, which lists these peers; so does the host.
fn sockets(peers: &[String], keys: &str) -> Builder {
    Host::builder()
        .manifest(format!("[host]\nsockets = {peers:?}"))
        .function(
            "sockets",
            &guest("sockets"),
            &format!("sockets = {peers:?}\n{keys}"),
        )
}

fn tcp(address: SocketAddr) -> String {
    format!("tcp://{address}")
}

/// A server that gives each connection to the test. It ends with the process.
fn server(at: &str) -> (SocketAddr, Receiver<TcpStream>) {
    let listener = TcpListener::bind(at).expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    let (send, accepted) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
            if send.send(stream).is_err() {
                break;
            }
        }
    });
    (address, accepted)
}

/// A server that says what it is told.
fn echo(at: &str) -> SocketAddr {
    let (address, accepted) = server(at);
    std::thread::spawn(move || {
        for mut stream in accepted {
            std::thread::spawn(move || {
                let mut said = String::new();
                let _ = stream.read_to_string(&mut said);
                let _ = stream.write_all(said.as_bytes());
            });
        }
    });
    address
}

/// It ends: whoever had it has closed it.
#[track_caller]
fn ends(stream: &mut TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                return;
            }
        }
    }
}

#[test]
fn a_function_talks_to_whom_it_lists() {
    let echo = echo("127.0.0.1:0");
    let host = sockets(&[tcp(echo)], "").start();
    for _ in 0..3 {
        let target = format!("/sockets/talk?to={echo}&say=hello");
        ok(&host, &target, "hello");
    }
    let large = "x".repeat(6000);
    let target = format!("/sockets/talk?to={echo}&say={large}");
    ok(&host, &target, large);
    host.stop();
}

/// What merely imports sockets runs, and gets none.
#[test]
fn who_lists_nobody_gets_no_socket() {
    let (address, accepted) = server("127.0.0.1:0");
    let host = sockets(&[tcp(address)], "")
        .function("other", &guest("sockets"), "")
        .start();
    ok(&host, "/other/nothing", "nothing was asked for");
    for what in ["connect", "listen", "bind", "send", "send-connected"] {
        refused(&host, &format!("/other/{what}?to={address}"), DENIED);
    }
    let found = does(&host, "/other/look-up?to=localhost");
    assert!(found["error"].is_string(), "{found}");
    assert!(accepted.try_recv().is_err(), "nobody came");
    host.stop();
}

#[test]
fn nobody_else_is_reached_and_nothing_listens() {
    let (listed, _) = server("127.0.0.1:0");
    let (other, came) = server("127.0.0.1:0");
    // The same port of another address.
    let port = listed.port();
    let (_, came_too) = server(&format!("127.0.0.2:{port}"));
    let host = sockets(&[tcp(listed)], "").start();
    ok(&host, &format!("/sockets/connect?to={listed}"), Value::Null);
    for to in [
        other.to_string(),
        format!("127.0.0.2:{port}"),
        format!("[::1]:{port}"),
    ] {
        refused(&host, &format!("/sockets/connect?to={to}"), DENIED);
    }
    // The kernel would take it for loopback.
    for to in [
        format!("0.0.0.0:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
    ] {
        let got = does(&host, &format!("/sockets/connect?to={to}"));
        assert!(got["error"].is_string(), "{to}: {got}");
    }
    for at in ["0.0.0.0:0", "127.0.0.1:0", &*listed.to_string()] {
        refused(&host, &format!("/sockets/listen?to={at}"), DENIED);
    }
    // TCP is not UDP.
    for what in ["bind", "send", "send-connected"] {
        refused(&host, &format!("/sockets/{what}?to={listed}"), DENIED);
    }
    let found = does(&host, "/sockets/look-up?to=localhost");
    assert!(found["error"].is_string(), "{found}");
    ok(&host, "/sockets/look-up?to=127.0.0.1", json!(["127.0.0.1"]));
    assert!(came.try_recv().is_err() && came_too.try_recv().is_err());
    host.stop();
}

#[test]
fn the_hosts_own_addresses_are_refused_though_listed() {
    let held: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has ports"))
        .collect();
    let port = |it: &TcpListener| it.local_addr().expect("it is bound").port();
    let free: Vec<u16> = held.iter().map(port).collect();
    drop(held);
    let [http, admin, metrics] = free[..] else {
        unreachable!("three were asked for")
    };
    let peers: Vec<String> = ["127.0.0.1", "127.0.0.9"]
        .iter()
        .flat_map(|ip| [http, admin, metrics].map(|port| format!("tcp://{ip}:{port}")))
        .collect();
    let host = sockets(&peers, "")
        .args([
            "--http".to_owned(),
            format!("0.0.0.0:{http}"),
            "--admin".to_owned(),
            format!("127.0.0.1:{admin}"),
            "--metrics".to_owned(),
            format!("127.0.0.1:{metrics}"),
        ])
        .start();
    for to in [
        format!("127.0.0.1:{http}"),
        format!("127.0.0.9:{http}"),
        format!("127.0.0.1:{admin}"),
        format!("127.0.0.1:{metrics}"),
    ] {
        refused(&host, &format!("/sockets/connect?to={to}"), DENIED);
    }
    // Another address of this machine is not the host's, if it does not serve there.
    let target = format!("/sockets/connect?to=127.0.0.9:{admin}");
    refused(&host, &target, "connection refused");
    host.stop();
}

#[test]
fn who_waits_for_a_socket_ends_at_its_deadline_and_with_its_client() {
    let (address, accepted) = server("127.0.0.1:0");
    let scene = Scene::new(sockets(&[tcp(address)], "timeout = \"1s\"").function(
        "patient",
        &guest("sockets"),
        &format!("sockets = {:?}\ntimeout = \"10m\"", tcp(address)),
    ));
    let host = &scene.host;
    for what in ["wait", "push"] {
        scene.ends(&format!("/sockets/{what}?to={address}"), &TIMEOUT);
        let mut stream = accepted.recv_timeout(PATIENCE).expect("it came");
        ends(&mut stream);
        let mut wire = Wire::connect(host.http.address());
        let request = format!("GET /patient/{what}?to={address} HTTP/1.1\r\nhost: a\r\n\r\n");
        wire.send(&*request);
        let mut stream = accepted.recv_timeout(PATIENCE).expect("it came");
        drop(wire);
        ends(&mut stream);
    }
    scene.end();
}

#[test]
fn sockets_are_counted_and_all_are_closed_at_the_end() {
    let (address, accepted) = server("127.0.0.1:0");
    let scene = Scene::new(sockets(&[tcp(address)], "timeout = \"20s\""));
    let host = &scene.host;
    for _ in 0..3 {
        let got = &does(host, &format!("/sockets/many?to={address}&n=100"))["ok"];
        assert_eq!(got["got"], 32, "{got}");
        assert!(got["then"].is_string(), "{got}");
        let mut open: Vec<TcpStream> = (0..32)
            .map(|_| accepted.recv_timeout(PATIENCE).expect("it came"))
            .collect();
        open.iter_mut().for_each(ends);
    }
    // Those that are closed do not count.
    ok(host, &format!("/sockets/again?to={address}&n=100"), 100);
    eventually("all were accepted", || accepted.try_iter().last().map(drop));
    scene.end();
}

#[test]
fn datagrams_go_to_whom_it_lists_and_come_from_nobody_else() {
    let [friend, stranger] = [(); 2].map(|()| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        socket
    });
    let [ours, theirs] = [&friend, &stranger].map(|it| it.local_addr().expect("it is bound"));
    let host = sockets(&[format!("udp://{ours}")], "timeout = \"20s\"").start();
    let answering = std::thread::spawn(move || {
        for _ in 0..2 {
            let mut buffer = [0; 100];
            let (size, from) = friend.recv_from(&mut buffer).expect("it comes");
            // The stranger is first, and often.
            for _ in 0..10 {
                stranger
                    .send_to(b"stranger", from)
                    .expect("loopback takes it");
            }
            friend
                .send_to(&buffer[..size], from)
                .expect("loopback takes it");
        }
        stranger
    });
    for what in ["send", "send-connected"] {
        let target = format!("/sockets/{what}?to={ours}&say=hello");
        ok(&host, &target, json!(["hello", ours.to_string()]));
    }
    let stranger = answering.join().expect("both came");
    for what in ["send", "send-connected"] {
        refused(
            &host,
            &format!("/sockets/{what}?to={theirs}&say=hello"),
            DENIED,
        );
    }
    // No port is chosen, and UDP is not TCP.
    for at in [&*ours.to_string(), "0.0.0.0:40000", "127.0.0.1:0"] {
        refused(&host, &format!("/sockets/bind?to={at}"), DENIED);
    }
    refused(&host, &format!("/sockets/connect?to={ours}"), DENIED);
    stranger.set_nonblocking(true).expect("it is a socket");
    assert!(
        stranger.recv(&mut [0; 10]).is_err(),
        "nothing was sent to it"
    );
    host.stop();
}

#[test]
fn another_list_is_another_deployment() {
    let (one, other) = (echo("127.0.0.1:0"), echo("127.0.0.1:0"));
    let host = sockets(&[tcp(one)], "").args(["--watch"]).start();
    refused(&host, &format!("/sockets/connect?to={other}"), DENIED);
    let text = std::fs::read_to_string(host.manifest()).expect("it is there");
    let text = text.replace(&tcp(one), &tcp(other));
    std::fs::write(host.manifest(), text).expect("it can be written");
    eventually("the other is listed", || {
        let got = does(&host, &format!("/sockets/talk?to={other}&say=hello"));
        (got["ok"] == "hello").then_some(())
    });
    refused(&host, &format!("/sockets/connect?to={one}"), DENIED);
    host.stop();
}
