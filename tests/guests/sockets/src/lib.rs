//! Does with sockets what the second segment of the path says:
//! `/sockets/talk?to=127.0.0.1:7&say=hello`. By the standard library, as any program does.
//! Answers `{ "ok": … }` or `{ "error": … }`.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};

use dunlin_sdk::{Request, Response};
use serde_json::{Value, json};

#[dunlin_sdk::http]
fn handle(request: Request) -> Response {
    let query = |name: &str| {
        let value = request.query_param(name);
        value.map_or_else(String::new, |value| value.into_owned())
    };
    let what = request.path().split('/').nth(2).unwrap_or_default();
    let n = query("n").parse().unwrap_or(0);
    Response::json(&match does(what, &query("to"), &query("say"), n) {
        Ok(ok) => json!({ "ok": ok }),
        Err(error) => json!({ "error": error.kind().to_string() }),
    })
}

fn does(what: &str, to: &str, say: &str, n: usize) -> io::Result<Value> {
    Ok(match what {
        "connect" => TcpStream::connect(to).map(drop)?.into(),
        // Says something, and answers what was said then.
        "talk" => {
            let mut stream = TcpStream::connect(to)?;
            stream.write_all(say.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            answer.into()
        }
        // Waits for what never comes.
        "wait" => {
            let read = TcpStream::connect(to)?.read(&mut [0])?;
            read.into()
        }
        // Says more than anybody reads.
        "push" => {
            let mut stream = TcpStream::connect(to)?;
            loop {
                stream.write_all(&[1; 64 << 10])?;
            }
        }
        // Holds so many, and says how many it got.
        "many" => {
            let mut held = Vec::new();
            let then = (0..n).find_map(|_| match TcpStream::connect(to) {
                Ok(stream) => {
                    held.push(stream);
                    None
                }
                Err(error) => Some(error.kind().to_string()),
            });
            json!({ "got": held.len(), "then": then })
        }
        // One after the other.
        "again" => {
            for _ in 0..n {
                TcpStream::connect(to)?;
            }
            n.into()
        }
        "listen" => TcpListener::bind(to).map(drop)?.into(),
        "bind" => UdpSocket::bind(to).map(drop)?.into(),
        "look-up" => {
            let found = (to, 80).to_socket_addrs()?;
            found
                .map(|it| it.ip().to_string())
                .collect::<Vec<_>>()
                .into()
        }
        // A datagram, and the first that comes back.
        "send" => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(say.as_bytes(), to)?;
            received(&socket)?
        }
        "send-connected" => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            socket.send(say.as_bytes())?;
            received(&socket)?
        }
        _ => "nothing was asked for".into(),
    })
}

fn received(socket: &UdpSocket) -> io::Result<Value> {
    let mut buffer = [0; 1500];
    let (size, from) = socket.recv_from(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..size]).into_owned();
    Ok(json!([text, from.to_string()]))
}
