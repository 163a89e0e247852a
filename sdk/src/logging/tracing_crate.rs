//! The subscriber for the crate `tracing`: no filters, no layers, no timings.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::Line;

pub(super) fn install() {
    // An error means that the function has a subscriber of its own.
    let _ = tracing::subscriber::set_global_default(Lines::default());
}

#[derive(Default)]
struct Lines {
    last_id: AtomicU64,
    spans: Mutex<Spans>,
}

#[derive(Default)]
struct Spans {
    open: HashMap<u64, Span>,
    /// Those that are entered, outermost first. A function has one thread.
    entered: Vec<u64>,
}

struct Span {
    handles: usize,
    fields: Vec<(&'static str, Value)>,
}

enum Value {
    /// JSON already: a number or a bool.
    Literal(String),
    Text(String),
}

impl Lines {
    fn spans(&self) -> std::sync::MutexGuard<'_, Spans> {
        self.spans
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn line(&self, event: &Event<'_>) -> Line {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let message = fields.message.unwrap_or_default();
        let mut line = Line::new(
            level(*metadata.level()),
            metadata.target(),
            format_args!("{message}"),
        );
        let spans = self.spans();
        let of_spans = spans
            .entered
            .iter()
            .filter_map(|id| spans.open.get(id))
            .flat_map(|span| &span.fields);
        for (name, value) in of_spans.chain(&fields.fields) {
            match value {
                Value::Literal(json) => line.literal(name, format_args!("{json}")),
                Value::Text(text) => line.field(name, format_args!("{text}")),
            }
        }
        line
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let span = Span {
            handles: 1,
            fields: fields.fields,
        };
        self.spans().open.insert(id, span);
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(span) = self.spans().open.get_mut(&id.into_u64()) {
            span.fields.extend(fields.fields);
        }
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.line(event).emit();
    }

    fn enter(&self, id: &Id) {
        self.spans().entered.push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let entered = &mut self.spans().entered;
        if let Some(index) = entered.iter().rposition(|e| *e == id.into_u64()) {
            entered.remove(index);
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().open.get_mut(&id.into_u64()) {
            span.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let id = id.into_u64();
        let open = &mut self.spans().open;
        let Some(span) = open.get_mut(&id) else {
            return false;
        };
        span.handles -= 1;
        let closed = span.handles == 0;
        if closed {
            open.remove(&id);
        }
        closed
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[derive(Default)]
struct Fields {
    message: Option<String>,
    fields: Vec<(&'static str, Value)>,
}

impl Fields {
    fn text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = Some(text),
            name => self.fields.push((name, Value::Text(text))),
        }
    }

    fn literal(&mut self, field: &Field, value: impl ToString) {
        self.fields
            .push((field.name(), Value::Literal(value.to_string())));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.literal(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.literal(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.literal(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.literal(field, value);
        } else {
            self.text(field, value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// `Lines`, with the lines kept instead of printed.
    #[derive(Clone, Default)]
    struct Kept(Arc<(Lines, Mutex<Vec<String>>)>);

    impl Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            self.0.0.enabled(metadata)
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.0.0.new_span(span)
        }
        fn record(&self, id: &Id, values: &Record<'_>) {
            self.0.0.record(id, values);
        }
        fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
        fn event(&self, event: &Event<'_>) {
            self.0.1.lock().unwrap().push(self.0.0.line(event).0 + "}");
        }
        fn enter(&self, id: &Id) {
            self.0.0.enter(id);
        }
        fn exit(&self, id: &Id) {
            self.0.0.exit(id);
        }
        fn clone_span(&self, id: &Id) -> Id {
            self.0.0.clone_span(id)
        }
        fn try_close(&self, id: Id) -> bool {
            self.0.0.try_close(id)
        }
    }

    #[test]
    fn events_carry_the_fields_of_their_spans() {
        let kept = Kept::default();
        tracing::subscriber::with_default(kept.clone(), || {
            let span =
                tracing::info_span!(target: "shop", "order", id = 7, total = tracing::field::Empty);
            span.in_scope(|| {
                span.record("total", 2.5);
                tracing::warn!(target: "shop", country = "de", left = ?Some(3), "low on {}", "tea");
            });
            tracing::info!(target: "shop", done = true);
            tracing::debug!(target: "shop", "dropped");
        });
        assert_eq!(
            *kept.0.1.lock().unwrap(),
            [
                r#"{"level":"warn","target":"shop","message":"low on tea","id":7,"total":2.5,"country":"de","left":"Some(3)"}"#,
                r#"{"level":"info","target":"shop","message":"","done":true}"#,
            ]
        );
        assert!(kept.0.0.spans().open.is_empty());
    }
}
