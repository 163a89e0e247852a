//! What a queue may be told.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::QueueName;

/// SQS's ranges and defaults, but for the depths, which SQS does not bound.
pub const VISIBILITY_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(12);
/// How long a message may be delayed.
pub const DELAY_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(15);
/// How long messages are kept.
pub const RETENTION_RANGE: RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(14 * 24);
/// How large a message may be: body and attributes together.
pub const MESSAGE_RANGE: RangeInclusive<u64> = 1024..=1 << 20;
/// How many messages a queue may hold at most.
pub const MESSAGES_RANGE: RangeInclusive<u32> = 1..=100_000_000;
/// How many bytes a queue may hold at most.
pub const BYTES_RANGE: RangeInclusive<u64> = 1024..=1 << 40;
/// How often a message may be received before it goes to the dead letters.
pub const RECEIVES_RANGE: RangeInclusive<u32> = 1..=1000;

/// The settings of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// How long a message is hidden that was received. 0–12 h, 30 s by default.
    pub visibility: Duration,
    /// How long a message is hidden that was sent without a delay of its own. 0–15 min,
    /// none by default.
    pub delay: Duration,
    /// How long messages are kept. 1 min – 14 days, 4 days by default.
    pub retention: Duration,
    /// The largest message, body and attributes together, in bytes. 1 KiB – 1 MiB, 256 KiB
    /// by default.
    pub max_message: u64,
    /// Messages at most; who sends more is told to wait. A million by default.
    pub max_messages: u64,
    /// Bytes at most, of bodies and attributes. 1 GiB by default.
    pub max_bytes: u64,
    /// Where messages go that fail.
    pub redrive: Option<Redrive>,
    /// In a FIFO queue: a message without a deduplication id of its own has the digest of
    /// its body.
    pub content_deduplication: bool,
}

/// Where messages go that fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    /// The dead-letter queue.
    pub target: QueueName,
    /// Receives after which a message that comes back goes there.
    pub max_receives: u32,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            visibility: Duration::from_secs(30),
            delay: Duration::ZERO,
            retention: Duration::from_hours(4 * 24),
            max_message: 256 << 10,
            max_messages: 1_000_000,
            max_bytes: 1 << 30,
            redrive: None,
            content_deduplication: false,
        }
    }
}

impl QueueSettings {
    /// What is wrong with them for a queue of that name: the setting, and why.
    #[must_use]
    pub fn problem(&self, name: &QueueName) -> Option<(&'static str, String)> {
        let duration = |key, value: &Duration, range: &RangeInclusive<Duration>| {
            let (least, most) = (range.start().as_secs(), range.end().as_secs());
            let text = format!(
                "{} s is not between {least} and {most} s",
                value.as_secs_f64()
            );
            (!range.contains(value)).then_some((key, text))
        };
        let number = |key, value: u64, range: RangeInclusive<u64>| {
            let text = format!(
                "{value} is not between {} and {}",
                range.start(),
                range.end()
            );
            (!range.contains(&value)).then_some((key, text))
        };
        let wide = |range: RangeInclusive<u32>| u64::from(*range.start())..=u64::from(*range.end());
        let (receives, messages) = (wide(RECEIVES_RANGE), wide(MESSAGES_RANGE));
        let redrive = self.redrive.as_ref().and_then(|redrive| {
            let target = &redrive.target;
            if target.is_fifo() != name.is_fifo() || target == name {
                let text = format!(
                    "`{target}` cannot be its dead-letter queue: name another queue, FIFO as this \
                     one or not"
                );
                return Some(("redrive", text));
            }
            number("max-receives", redrive.max_receives.into(), receives)
        });
        duration("visibility", &self.visibility, &VISIBILITY_RANGE)
            .or_else(|| duration("delay", &self.delay, &DELAY_RANGE))
            .or_else(|| duration("retention", &self.retention, &RETENTION_RANGE))
            .or_else(|| number("max-message", self.max_message, MESSAGE_RANGE))
            .or_else(|| number("max-messages", self.max_messages, messages))
            .or_else(|| number("max-bytes", self.max_bytes, BYTES_RANGE))
            .or(redrive)
            .or_else(|| {
                let fifo_only = self.content_deduplication && !name.is_fifo();
                let text = "only a FIFO queue removes duplicates".to_owned();
                fifo_only.then_some(("content-deduplication", text))
            })
    }
}

/// Who declared a queue, and so may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The manifest.
    Manifest,
    /// A client of the API.
    Api,
    /// The host itself, for asynchronous invocations.
    Host,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let redrive = |target: &str, max_receives| {
            Some(Redrive {
                target: name(target),
                max_receives,
            })
        };
        let with = |change: fn(&mut QueueSettings)| {
            let mut settings = QueueSettings::default();
            change(&mut settings);
            settings.problem(&name("q")).map(|(key, _)| key)
        };
        assert_eq!(with(|_| {}), None);
        assert_eq!(
            with(|s| s.visibility = Duration::from_secs(43_201)),
            Some("visibility")
        );
        assert_eq!(with(|s| s.delay = Duration::from_secs(901)), Some("delay"));
        assert_eq!(
            with(|s| s.retention = Duration::from_secs(59)),
            Some("retention")
        );
        assert_eq!(with(|s| s.max_message = 1 << 21), Some("max-message"));
        assert_eq!(with(|s| s.max_messages = 0), Some("max-messages"));
        assert_eq!(with(|s| s.max_bytes = 1), Some("max-bytes"));
        assert_eq!(
            with(|s| s.content_deduplication = true),
            Some("content-deduplication")
        );
        for (queue, target, receives, key) in [
            ("q", "dead", 5, None),
            ("q.fifo", "dead.fifo", 5, None),
            ("q", "dead", 0, Some("max-receives")),
            ("q", "dead", 1001, Some("max-receives")),
            ("q", "q", 5, Some("redrive")),
            ("q", "dead.fifo", 5, Some("redrive")),
            ("q.fifo", "dead", 5, Some("redrive")),
        ] {
            let settings = QueueSettings {
                redrive: redrive(target, receives),
                ..QueueSettings::default()
            };
            let problem = settings.problem(&name(queue)).map(|(key, _)| key);
            assert_eq!(problem, key, "{queue} {target} {receives}");
        }
    }

    #[test]
    fn settings_are_kept_as_json_and_what_is_new_has_its_default() {
        let settings = QueueSettings {
            delay: Duration::from_millis(1500),
            ..QueueSettings::default()
        };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(
            serde_json::from_str::<QueueSettings>(&text).unwrap(),
            settings
        );
        assert_eq!(
            serde_json::from_str::<QueueSettings>("{}").unwrap(),
            QueueSettings::default()
        );
    }
}
