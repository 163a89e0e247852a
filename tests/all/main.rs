//! One binary with all tests: it links once, and they run side by side.

mod admin;
mod capabilities;
mod cli;
mod concurrent;
mod density;
mod doors;
mod drain;
mod egress;
mod events;
mod examples;
mod harness;
mod hostile;
mod http;
mod key_value;
mod languages;
mod lifecycle;
mod limits;
mod mounts;
mod scene;
mod scratch;
mod sockets;
mod structure;
mod told;
mod twins;
mod wat;
mod watch;
