//! The admin address: the Lambda API, behind its guard and its signatures, and
//! the operator's endpoints. Served from a runtime of its own, so that it
//! answers also while guests hold every core.

pub mod credentials;
pub mod guard;
pub mod lambda;
pub mod operator;
pub mod schedules;
pub mod server;
pub mod sigv4;
pub mod sqs;
