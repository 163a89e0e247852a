//! What a function is: names, limits and policy. Plain data, no I/O.

mod bucket;
pub mod egress;
pub mod events;
mod mount;
mod name;
pub mod pattern;
mod peer;
pub mod schedule;
mod spec;
mod units;

pub use bucket::Grant;
pub use egress::Egress;
pub use events::{AsyncPolicy, Destination, Missed, Overlap, QueueMapping, Schedule};
pub use mount::{Access, Mount};
pub use name::{FunctionName, InvalidName};
pub use peer::{InvalidPeer, Peer, Protocol};
pub use spec::{
    ComponentSource, DEFAULT_LOG_BYTES, DEFAULT_MEMORY, DEFAULT_PAYLOAD, DEFAULT_TIMEOUT,
    DEFAULT_WEIGHT, FUEL_PER_SECOND, Fuel, FunctionSpec, Isolation, LOG_RANGE, Limits,
    MAX_ARGUMENTS, MAX_CONFIG, MAX_ENVIRONMENT, MAX_SECRET, MEMORY_RANGE, PAYLOAD_RANGE,
    PROVISIONED_RANGE, Route, RouteMethod, SCRATCH_PATH, SCRATCH_RANGE, STREAM_RANGE, Secret,
    TIMEOUT_RANGE, WEIGHT_RANGE,
};
pub use units::{ByteSize, InvalidUnit, parse_duration, rfc3339};
