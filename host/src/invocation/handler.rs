//! The kinds of handler that a component may export, and the interfaces for each.

/// A kind of handler: what takes one kind of event.
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

/// How an event comes to a handler, and how its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// An interface of the contract `dunlin:event`: one call in, one record out.
    Contract,
    /// `wasi:http` 0.2: bodies go both ways as the guest reads and writes them.
    Http02,
    /// `wasi:http` 0.3: the same.
    Http03,
    /// `wasi:cli/run` 0.2: the event on stdin, the answer on stdout.
    Command02,
    /// `wasi:cli/run` 0.3: the same.
    Command03,
}

impl Door {
    /// The function of the interface.
    #[must_use]
    pub fn function(self) -> &'static str {
        match self {
            Self::Contract | Self::Http02 | Self::Http03 => "handle",
            Self::Command02 | Self::Command03 => "run",
        }
    }

    /// Whether bodies of HTTP go through as they come.
    #[must_use]
    pub fn is_streaming(self) -> bool {
        matches!(self, Self::Http02 | Self::Http03)
    }

    /// Whether the guest is a program that runs once.
    #[must_use]
    pub fn is_command(self) -> bool {
        matches!(self, Self::Command02 | Self::Command03)
    }
}

/// How each handler of a component is called, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doors([Option<Door>; Handler::ALL.len()]);

impl Doors {
    /// What is said of each handler.
    #[must_use]
    pub fn of(door: impl Fn(Handler) -> Option<Door>) -> Self {
        Self(Handler::ALL.map(door))
    }

    /// How this one is called.
    #[must_use]
    pub fn of_handler(&self, handler: Handler) -> Option<Door> {
        self.0[handler as usize]
    }

    /// Those that there are.
    pub fn all(&self) -> impl Iterator<Item = Door> + use<> {
        self.0.into_iter().flatten()
    }
}

/// An interface that a component may export for a kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name with the first version that will do.
    pub name: &'static str,
    /// How it is called.
    pub door: Door,
}

impl Interface {
    const fn new(name: &'static str, door: Door) -> Self {
        Self { name, door }
    }

    /// Whether an export of this name is this interface: of the contract the very
    /// version, of WASI any that is compatible.
    #[must_use]
    pub fn is(&self, export: &str) -> bool {
        if self.door == Door::Contract {
            return export == self.name;
        }
        // What it was before it was final is another interface.
        let line = self
            .name
            .rsplit_once('.')
            .map_or(self.name, |(line, _)| line);
        let patch = export
            .strip_prefix(line)
            .and_then(|it| it.strip_prefix('.'));
        patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
    }
}

impl Handler {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Http, Self::Invoke, Self::Schedule, Self::Queue];

    /// The interfaces for it. The first that a component exports is the one that is
    /// called. Those of the contract have synchronous twins.
    #[must_use]
    pub fn interfaces(self) -> &'static [Interface] {
        use Door::{Command02, Command03, Contract, Http02, Http03};
        const HTTP: &[Interface] = &[
            Interface::new("dunlin:event/http@0.1.0", Contract),
            Interface::new("dunlin:event/http-sync@0.1.0", Contract),
            Interface::new("wasi:http/handler@0.3.0", Http03),
            Interface::new("wasi:http/incoming-handler@0.2.0", Http02),
        ];
        const INVOKE: &[Interface] = &[
            Interface::new("dunlin:event/invoke@0.1.0", Contract),
            Interface::new("dunlin:event/invoke-sync@0.1.0", Contract),
            Interface::new("wasi:cli/run@0.3.0", Command03),
            Interface::new("wasi:cli/run@0.2.0", Command02),
        ];
        const SCHEDULE: &[Interface] = &[
            Interface::new("dunlin:event/schedule@0.1.0", Contract),
            Interface::new("dunlin:event/schedule-sync@0.1.0", Contract),
        ];
        const QUEUE: &[Interface] = &[
            Interface::new("dunlin:event/queue@0.1.0", Contract),
            Interface::new("dunlin:event/queue-sync@0.1.0", Contract),
        ];
        match self {
            Self::Http => HTTP,
            Self::Invoke => INVOKE,
            Self::Schedule => SCHEDULE,
            Self::Queue => QUEUE,
        }
    }

    /// The interface of the contract, as it is named in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.interfaces()[0].name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_wasi_any_compatible_version_is_the_interface_of_the_contract_only_its_own() {
        let named = |name: &str| {
            Handler::ALL
                .iter()
                .flat_map(|handler| handler.interfaces())
                .find(|interface| interface.is(name))
                .map(|interface| interface.door)
        };
        assert_eq!(named("dunlin:event/http@0.1.0"), Some(Door::Contract));
        assert_eq!(
            named("wasi:http/incoming-handler@0.2.12"),
            Some(Door::Http02)
        );
        assert_eq!(named("wasi:http/handler@0.3.1"), Some(Door::Http03));
        assert_eq!(named("wasi:cli/run@0.2.3"), Some(Door::Command02));
        for other in [
            "dunlin:event/http@0.1.1",
            "wasi:http/handler@0.3.0-rc-2026-01-01",
            "wasi:http/handler@0.30.0",
            "wasi:http/incoming-handler@0.2",
            "wasi:http/incoming-handler@0.2.",
            "wasi:http/incoming-handler",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
