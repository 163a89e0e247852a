//! The logger for the crate `log`.

use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::Line;

static LOGGER: Logger = Logger;

pub(super) fn install() {
    // An error means that the function has a logger of its own.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            line(record).emit();
        }
    }

    fn flush(&self) {}
}

fn line(record: &Record<'_>) -> Line {
    let mut line = Line::new(level(record.level()), record.target(), *record.args());
    // `Fields` never fails.
    let _ = record.key_values().visit(&mut Fields(&mut line));
    line
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

struct Fields<'a>(&'a mut Line);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        value.visit(Field {
            line: self.0,
            name: key.as_str(),
        })
    }
}

struct Field<'a> {
    line: &'a mut Line,
    name: &'a str,
}

impl<'v> VisitValue<'v> for Field<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.line.field(self.name, format_args!("{value}"));
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.line.literal(self.name, format_args!("{value}"));
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.line.literal(self.name, format_args!("{value}"));
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.line.literal(self.name, format_args!("{value}"));
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        if value.is_finite() {
            self.line.literal(self.name, format_args!("{value}"));
            Ok(())
        } else {
            self.visit_any(Value::from(value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_values_become_fields_of_their_type() {
        let pairs: [(&str, Value<'_>); 4] = [
            ("id", Value::from(7)),
            ("ratio", Value::from(f64::NAN)),
            ("done", Value::from(true)),
            ("country", Value::from("de")),
        ];
        let record = line(
            &Record::builder()
                .level(Level::Info)
                .target("shop")
                .args(format_args!("stored"))
                .key_values(&pairs)
                .build(),
        );
        assert_eq!(
            record.0 + "}",
            r#"{"level":"info","target":"shop","message":"stored","id":7,"ratio":"NaN","done":true,"country":"de"}"#
        );
    }
}
