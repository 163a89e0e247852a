//! The kinds of handler that a component may export.

/// A handler of the contract `dunlin:event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Answers HTTP requests.
    Http,
    /// Answers direct invocations; it may stand in for any other, with Lambda's JSON.
    Invoke,
    /// Handles the fires of schedules.
    Schedule,
    /// Handles batches of messages.
    Queue,
}

impl Handler {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Http, Self::Invoke, Self::Schedule, Self::Queue];

    /// The interface, and its synchronous twin.
    #[must_use]
    pub fn interfaces(self) -> [&'static str; 2] {
        match self {
            Self::Http => ["dunlin:event/http@0.1.0", "dunlin:event/http-sync@0.1.0"],
            Self::Invoke => [
                "dunlin:event/invoke@0.1.0",
                "dunlin:event/invoke-sync@0.1.0",
            ],
            Self::Schedule => [
                "dunlin:event/schedule@0.1.0",
                "dunlin:event/schedule-sync@0.1.0",
            ],
            Self::Queue => ["dunlin:event/queue@0.1.0", "dunlin:event/queue-sync@0.1.0"],
        }
    }
}
