//! The HTTP trigger: routes, connections, and the way from a request to an
//! event and from an outcome to a response.

mod activity;
mod answer;
mod connection;
mod io;
mod listener;
mod payload;
mod routes;
mod service;
mod stream;

pub use listener::{Listener, bind};
pub use routes::{RouteConflict, Routes, Target};
pub use service::{Draining, HttpTrigger, Limits};
