//! `[host] sockets`, the operator's ceiling, and `[function.NAME] sockets`.

use super::document::Section;
use crate::function::Peer;

/// Entries of one list: a function that speaks with more has a broker for that.
const MAX_PEERS: usize = 64;

/// Reads a list of peers. Those that are wrong are named, one by one.
fn list(section: &Section<'_>) -> Vec<Peer> {
    let Some(field) = section.get("sockets") else {
        return Vec::new();
    };
    let example = "tcp://10.0.0.5:5432";
    let texts = field.strings(example).unwrap_or_default();
    if texts.len() > MAX_PEERS {
        let what = format!("{} entries", texts.len());
        field.problem(what, format!("list {MAX_PEERS} at most"));
    }
    let mut peers = Vec::new();
    for text in texts {
        match Peer::parse(text) {
            Ok(peer) => peers.push(peer),
            Err(error) => {
                let remedy = "write `tcp://ADDRESS:PORT` or `udp://ADDRESS:PORT` with the IP address of \
                     one machine";
                field.problem(format!("`{text}`: {error}"), remedy);
            }
        }
    }
    peers
}

/// Reads what functions may list.
pub(super) fn ceiling(host: &Section<'_>) -> Vec<Peer> {
    list(host)
}

/// Reads whom a function may reach.
pub(super) fn read(function: &Section<'_>, ceiling: &[Peer]) -> Vec<Peer> {
    let peers = list(function);
    if let Some(field) = function.get("sockets") {
        for peer in peers.iter().filter(|peer| !ceiling.contains(peer)) {
            field.problem(
                format!("`{peer}` is not among the host's `sockets`"),
                "leave it out, or list it in `sockets` of `[host]` too",
            );
        }
    }
    peers
}
