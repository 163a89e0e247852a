//! One binary with all tests: it links once, and they run side by side.

mod admin;
mod capabilities;
mod cli;
mod drain;
mod egress;
mod events;
mod examples;
mod harness;
mod hostile;
mod http;
mod limits;
mod mounts;
mod scene;
mod structure;
mod twins;
mod wat;
mod watch;
