//! How full the queues are. Nothing is kept for them: who scrapes asks the store.

use std::fmt::Write as _;

use crate::queue::Glance;

/// The families, with what they say.
pub(super) const FAMILIES: [(&str, &str); 3] = [
    (
        "dunlin_queue_messages",
        "Messages in the queue, those in flight too.",
    ),
    (
        "dunlin_queue_bytes",
        "Bytes of the messages in the queue, with their attributes.",
    ),
    (
        "dunlin_queue_oldest_age_seconds",
        "How long ago the oldest message was sent, while the host ran.",
    ),
];

/// Adds the queues' gauges to a text in Prometheus' form.
pub fn render_queues(out: &mut Vec<u8>, queues: &[Glance]) {
    if queues.is_empty() {
        return;
    }
    let mut text = String::new();
    for (family, (name, help)) in FAMILIES.iter().enumerate() {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for glance in queues {
            let Glance {
                name: queue,
                messages,
                bytes,
                oldest,
            } = glance;
            // Names of queues have nothing that needs an escape.
            let _ = write!(text, "{name}{{queue=\"{queue}\"}} ");
            let _ = match family {
                0 => writeln!(text, "{messages}"),
                1 => writeln!(text, "{bytes}"),
                _ => writeln!(text, "{}", oldest.as_secs_f64()),
            };
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::queue::QueueName;

    #[test]
    fn a_family_has_a_line_for_each_queue() {
        let glance = |name: QueueName, messages| Glance {
            name,
            messages,
            bytes: 10 * messages,
            oldest: Duration::from_millis(1500 * messages),
        };
        let queues = [
            glance(QueueName::internal("async", "f"), 3),
            glance(QueueName::new("steps.fifo").unwrap(), 0),
        ];
        let mut out = Vec::new();
        render_queues(&mut out, &queues);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "dunlin_queue_messages{queue=\"@async:f\"} 3",
                "dunlin_queue_messages{queue=\"steps.fifo\"} 0",
                "dunlin_queue_bytes{queue=\"@async:f\"} 30",
                "dunlin_queue_bytes{queue=\"steps.fifo\"} 0",
                "dunlin_queue_oldest_age_seconds{queue=\"@async:f\"} 4.5",
                "dunlin_queue_oldest_age_seconds{queue=\"steps.fifo\"} 0",
            ]
        );
    }
}
