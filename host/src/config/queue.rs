//! The tables `[queue.NAME]`.

use super::document::{Field, Section};
use crate::function::ByteSize;
use crate::function::events::{DEAD_LETTERS, DEAD_LETTERS_FIFO};
use crate::queue::settings::{
    BYTES_RANGE, DELAY_RANGE, MESSAGE_RANGE, MESSAGES_RANGE, RECEIVES_RANGE, RETENTION_RANGE,
    VISIBILITY_RANGE,
};
use crate::queue::{QueueName, QueueSettings, Redrive};

/// How often a message is received before it is a dead letter, where only the queue for
/// them is named: what AWS recommends for queues that functions read.
const DEFAULT_RECEIVES: u32 = 5;

/// The queues that are there without being declared.
pub(super) const OWN: [&str; 2] = [DEAD_LETTERS, DEAD_LETTERS_FIFO];

/// Reads all queues, and checks that those for dead letters are among them.
pub(super) fn read_all(root: &Section<'_>) -> Vec<(QueueName, QueueSettings)> {
    let mut queues = Vec::new();
    let mut targets = Vec::new();
    for (name, field) in root.table("queue").entries() {
        let checked = QueueName::new(name).inspect_err(|error| {
            field.secret_problem("cannot name a queue", remedy(&error.to_string()));
        });
        let Some(section) = field.table() else {
            continue;
        };
        let (settings, target) = read(&section);
        let Ok(name) = checked else { continue };
        if let Some((key, problem)) = settings.problem(&name) {
            let place = target.as_ref().filter(|_| key == "redrive");
            match place.or(section.get("content-based-deduplication").as_ref()) {
                Some(field) => field.problem(problem, "choose another value"),
                None => section.problem(problem, "choose another value"),
            }
        }
        targets.extend(settings.redrive.clone().zip(target));
        queues.push((name, settings));
    }
    for (redrive, field) in targets {
        let is_own = OWN.contains(&redrive.target.as_str());
        if !is_own && !queues.iter().any(|(name, _)| *name == redrive.target) {
            field.problem(
                "no queue of that name",
                format!("declare it as `[queue.{}]`", redrive.target.toml_key()),
            );
        }
    }
    queues
}

/// The rule, without the name that the message has already.
fn remedy(error: &str) -> String {
    error
        .split_once(": ")
        .map_or(error, |(_, rule)| rule)
        .to_owned()
}

fn read<'a>(section: &Section<'a>) -> (QueueSettings, Option<Field<'a>>) {
    let default = QueueSettings::default();
    let target = section.get("dead-letter-queue");
    let receives = section.get("max-receives");
    let redrive = target.as_ref().and_then(|field| {
        let name = field.string("orders-dead")?;
        let target = QueueName::new(name).map_err(|error| {
            field.problem("cannot name a queue", remedy(&error.to_string()));
        });
        Some(Redrive {
            target: target.ok()?,
            max_receives: receives
                .as_ref()
                .and_then(|field| field.number(RECEIVES_RANGE))
                .unwrap_or(DEFAULT_RECEIVES),
        })
    });
    if let (None, Some(receives)) = (&target, &receives) {
        receives.problem(
            "there is no `dead-letter-queue` for what was received so often",
            "name one, or leave this out",
        );
    }
    let size =
        |range: std::ops::RangeInclusive<u64>| ByteSize(*range.start())..=ByteSize(*range.end());
    let settings = QueueSettings {
        visibility: section.duration("visibility-timeout", default.visibility, VISIBILITY_RANGE),
        delay: section.duration("delay", default.delay, DELAY_RANGE),
        retention: section.duration("retention", default.retention, RETENTION_RANGE),
        max_message: section
            .size(
                "max-message",
                ByteSize(default.max_message),
                size(MESSAGE_RANGE),
            )
            .0,
        max_messages: section
            .get("max-messages")
            .and_then(|field| field.number(MESSAGES_RANGE))
            .map_or(default.max_messages, u64::from),
        max_bytes: section
            .size("max-bytes", ByteSize(default.max_bytes), size(BYTES_RANGE))
            .0,
        redrive,
        content_deduplication: section.choice(
            "content-based-deduplication",
            default.content_deduplication,
            &[("on", true), ("off", false)],
        ),
    };
    section.unknown();
    (settings, target)
}
