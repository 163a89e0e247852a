//! What a function's table says of events beside HTTP: `async`, `queue`, `schedule`, and
//! what it may send to; and whatever else it names that must be in the manifest.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;

use super::EgressConfig;
use super::document::{Field, Section};
use super::key_value;
use super::queue::OWN;
use crate::function::egress::{Endpoint, InvalidEndpoint};
use crate::function::events::{
    ATTEMPTS_RANGE, BACKLOG_RANGE, BATCH_RANGE, BATCHES_RANGE, CATCH_UP_RANGE, DEAD_LETTERS,
    DEAD_LETTERS_FIFO, DEFAULT_BATCH, EVENT_AGE_RANGE, EVENT_RANGE, JITTER_RANGE, MAX_FIFO_BATCH,
    MAX_TRIGGERS, RETRY_DELAY_RANGE, WINDOW_RANGE,
};
use crate::function::pattern::Filter;
use crate::function::schedule::{Expression, Zone};
use crate::function::{
    AsyncPolicy, Destination, FunctionName, FunctionSpec, Missed, Overlap, QueueMapping, Schedule,
};
use crate::key_value::{BucketName, Quota};
use crate::queue::{QueueName, QueueSettings, Redrive};

/// How often a message is received before it is a dead letter, where its queue says nothing
/// and a function reads it.
const DEFAULT_RECEIVES: u32 = 5;
/// The longest name of a schedule: EventBridge's.
const MAX_NAME: usize = 64;

/// What functions name that must be somewhere in the manifest.
#[derive(Default)]
pub(super) struct References<'a> {
    queues: Vec<(QueueName, Field<'a>)>,
    functions: Vec<(FunctionName, Field<'a>)>,
    /// Mappings, with the time that a batch may take.
    mappings: Vec<(QueueName, Duration, Field<'a>)>,
    buckets: Vec<(BucketName, Field<'a>)>,
}

impl<'a> References<'a> {
    /// Reads it into a function whose limits are known.
    pub(super) fn read(
        &mut self,
        section: &Section<'a>,
        spec: &mut FunctionSpec,
        egress: &EgressConfig,
    ) {
        let sends_to = section.get("sends-to");
        let sends_to = sends_to.iter().flat_map(|field| self.queues_in(field));
        spec.sends_to = sends_to.collect();
        let invokes = section.get("invokes");
        let invokes = invokes.iter().flat_map(|field| self.functions_in(field));
        spec.invokes = invokes.collect();
        spec.events = self.policy(&section.table("async"), egress);
        spec.queues = self.mappings(section, spec.limits.timeout);
        spec.schedules = schedules(section);
        spec.buckets = key_value::grants(section, &mut self.buckets);
    }

    fn queues_in(&mut self, field: &Field<'a>) -> Vec<QueueName> {
        let names = field.strings("orders").unwrap_or_default();
        let queues = names.into_iter().filter_map(|name| queue_name(name, field));
        let queues: Vec<QueueName> = queues.collect();
        self.queues
            .extend(queues.iter().map(|name| (name.clone(), field.clone())));
        queues
    }

    fn functions_in(&mut self, field: &Field<'a>) -> Vec<FunctionName> {
        let names = field.strings("thumbnail").unwrap_or_default();
        let functions = names
            .into_iter()
            .filter_map(|name| function_name(name, field));
        let functions: Vec<FunctionName> = functions.collect();
        self.functions
            .extend(functions.iter().map(|name| (name.clone(), field.clone())));
        functions
    }

    /// A queue that is named by itself.
    fn queue(&mut self, field: &Field<'a>) -> Option<QueueName> {
        let name = queue_name(field.string("orders")?, field)?;
        self.queues.push((name.clone(), field.clone()));
        Some(name)
    }

    fn policy(&mut self, section: &Section<'a>, egress: &EgressConfig) -> AsyncPolicy {
        let default = AsyncPolicy::default();
        let standard = |field: &Field<'a>, queue: &QueueName| {
            if queue.is_fifo() {
                field.problem(
                    "a FIFO queue, which takes no records of outcomes",
                    "name one without `.fifo`",
                );
            }
        };
        let dead_letters = section.get("dead-letter-queue").and_then(|field| {
            let queue = self.queue(&field)?;
            standard(&field, &queue);
            Some(queue)
        });
        let mut destination = |key: &'static str| {
            let field = section.get(key)?;
            let table = field.table()?;
            let queue = table.get("queue");
            let function = table.get("function");
            let http = table.get("http");
            table.unknown();
            match (queue, function, http) {
                (Some(field), None, None) => {
                    let queue = self.queue(&field)?;
                    standard(&field, &queue);
                    Some(Destination::Queue(queue))
                }
                (None, Some(field), None) => {
                    let name = function_name(field.string("audit")?, &field)?;
                    self.functions.push((name.clone(), field.clone()));
                    Some(Destination::Function(name))
                }
                (None, None, Some(field)) => {
                    let endpoint = endpoint(&field, egress)?;
                    Some(Destination::Http(Box::new(endpoint)))
                }
                _ => {
                    table.problem(
                        "it does not name exactly one destination",
                        "write `{ queue = \"NAME\" }`, `{ function = \"NAME\" }` or \
                         `{ http = \"https://…\" }`",
                    );
                    None
                }
            }
        };
        let (on_success, on_failure) = (destination("on-success"), destination("on-failure"));
        let policy = AsyncPolicy {
            max_attempts: section.number("max-attempts", default.max_attempts, ATTEMPTS_RANGE),
            max_age: section.duration("max-age", default.max_age, EVENT_AGE_RANGE),
            retry_delay: section.duration("retry-delay", default.retry_delay, RETRY_DELAY_RANGE),
            event_limit: section.size("event-limit", default.event_limit, EVENT_RANGE),
            backlog: section.number("backlog", default.backlog, BACKLOG_RANGE),
            dead_letters,
            on_success,
            on_failure,
        };
        section.unknown();
        policy
    }

    fn mappings(&mut self, section: &Section<'a>, timeout: Duration) -> Vec<QueueMapping> {
        let mut mappings: Vec<QueueMapping> = Vec::new();
        for table in tables(section, "queue") {
            let Some(field) = table.get("name") else {
                table.problem("`name` is missing", "name the queue: `name = \"orders\"`");
                continue;
            };
            let Some(queue) = self.queue(&field) else {
                continue;
            };
            if mappings.iter().any(|other| other.queue == queue) {
                field.problem(
                    "the function reads this queue already",
                    "leave one of them out",
                );
            }
            let batch_size = table.number("batch-size", DEFAULT_BATCH, BATCH_RANGE);
            if queue.is_fifo()
                && batch_size > MAX_FIFO_BATCH
                && let Some(field) = table.get("batch-size")
            {
                field.problem(
                    "too large for a FIFO queue",
                    format!("use 1 to {MAX_FIFO_BATCH}"),
                );
            }
            let batch_window = table.duration("batch-window", Duration::ZERO, WINDOW_RANGE);
            if queue.is_fifo()
                && !batch_window.is_zero()
                && let Some(field) = table.get("batch-window")
            {
                field.problem("a FIFO queue has no batching window", "leave it out");
            }
            mappings.push(QueueMapping {
                enabled: enabled(&table),
                batch_size,
                batch_window,
                max_concurrency: table
                    .get("max-concurrency")
                    .and_then(|field| field.number(BATCHES_RANGE)),
                filter: filter(&table),
                report_failures: table.choice(
                    "report-batch-item-failures",
                    false,
                    &[("on", true), ("off", false)],
                ),
                queue: queue.clone(),
            });
            self.mappings.push((queue, timeout, field));
            table.unknown();
        }
        mappings
    }

    /// Checks that all is there that was named, and gives queues that functions read a
    /// place for their dead letters.
    pub(super) fn check(
        self,
        functions: &[FunctionSpec],
        queues: &mut [(QueueName, QueueSettings)],
        buckets: &[(BucketName, Quota)],
    ) {
        key_value::check(self.buckets, buckets);
        for (name, field) in self.queues {
            let is_there = queues.iter().any(|(queue, _)| *queue == name);
            if !is_there && !OWN.contains(&name.as_str()) {
                field.problem(
                    format!("no queue `{name}`"),
                    format!("declare it as `[queue.{}]`", name.toml_key()),
                );
            }
        }
        for (name, field) in self.functions {
            if !functions.iter().any(|function| function.name == name) {
                field.problem(
                    format!("no function `{name}`"),
                    format!("declare it as `[function.{name}]`"),
                );
            }
        }
        for (name, timeout, field) in self.mappings {
            let Some((_, settings)) = queues.iter_mut().find(|(queue, _)| *queue == name) else {
                continue;
            };
            if settings.visibility < timeout {
                field.problem(
                    format!(
                        "the queue's `visibility-timeout` of {} s is less than the function's \
                         `timeout` of {} s: as at Lambda, it must not be",
                        settings.visibility.as_secs_f64(),
                        timeout.as_secs_f64()
                    ),
                    format!(
                        "set `visibility-timeout` of `[queue.{name}]` to six times the timeout"
                    ),
                );
            }
            if settings.redrive.is_none() && !OWN.contains(&name.as_str()) {
                let target = if name.is_fifo() {
                    DEAD_LETTERS_FIFO
                } else {
                    DEAD_LETTERS
                };
                settings.redrive = Some(Redrive {
                    target: QueueName::new(target).expect("it names a queue"),
                    max_receives: DEFAULT_RECEIVES,
                });
            }
        }
    }
}

/// A URL to which records are posted. It may hold a secret, and is not shown.
fn endpoint(field: &Field<'_>, egress: &EgressConfig) -> Option<Endpoint> {
    let Some(url) = field.value().as_str() else {
        let what = format!("of type {}, but a text is needed", field.value().type_str());
        field.problem(what, "write `\"https://hooks.example.com/path\"`");
        return None;
    };
    let endpoint = Endpoint::parse(url, &egress.ceiling);
    let problem = |error: &_| match error {
        InvalidEndpoint::Url(why) => field.secret_problem(
            format!("no URL to post to: {why}"),
            "write one such as `\"https://hooks.example.com/path\"`",
        ),
        InvalidEndpoint::Above(rule) => field.secret_problem(
            format!("`{rule}` is more than the host allows"),
            format!("add `\"{rule}\"` to `egress` of `[host]`"),
        ),
    };
    endpoint.inspect_err(problem).ok()
}

fn tables<'a>(section: &Section<'a>, key: &'static str) -> Vec<Section<'a>> {
    let Some(field) = section.get(key) else {
        return Vec::new();
    };
    let tables = field.tables();
    if tables.len() > MAX_TRIGGERS {
        field.problem(
            format!("{} of them, more than {MAX_TRIGGERS}", tables.len()),
            "split the function",
        );
    }
    tables
}

fn enabled(table: &Section<'_>) -> bool {
    table.choice("enabled", true, &[("on", true), ("off", false)])
}

fn queue_name(name: &str, field: &Field<'_>) -> Option<QueueName> {
    let checked = QueueName::new(name).inspect_err(|_| {
        field.problem(
            format!("`{}` cannot name a queue", name.escape_debug()),
            "use 1 to 80 letters, digits, `-` and `_`, and `.fifo` at the end for a FIFO queue",
        );
    });
    checked.ok()
}

fn function_name(name: &str, field: &Field<'_>) -> Option<FunctionName> {
    let checked = FunctionName::new(name).inspect_err(|_| {
        field.problem(
            format!("`{}` cannot name a function", name.escape_debug()),
            "use 1 to 64 letters, digits, `-` and `_`",
        );
    });
    checked.ok()
}

/// The patterns of `filter`, as Lambda's filter criteria.
fn filter(table: &Section<'_>) -> Filter {
    let Some(field) = table.get("filter") else {
        return Filter::default();
    };
    let example = r#"{ \"body\": { \"kind\": [\"order\"] } }"#;
    let patterns = field.strings(example).unwrap_or_default();
    Filter::for_messages(patterns)
        .inspect_err(|error| {
            let why = error.source().map(|source| format!(": {source}"));
            field.problem(
                format!("{error}{}", why.unwrap_or_default()),
                "see the operator's guide, \"Filters\"",
            );
        })
        .unwrap_or_default()
}

fn schedules(section: &Section<'_>) -> Vec<Schedule> {
    let mut names = BTreeSet::new();
    let mut schedules = Vec::new();
    for table in tables(section, "schedule") {
        let name = match table.get("name") {
            Some(field) => field.string("nightly").map(|name| {
                check_name(name, &field, names.insert(name.to_owned()));
                name.to_owned()
            }),
            None => {
                table.problem("`name` is missing", "name it: `name = \"nightly\"`");
                None
            }
        };
        let zone = table.get("zone").and_then(|field| {
            let zone = Zone::parse(field.string("Europe/Berlin")?);
            zone.inspect_err(|error| {
                let remedy = format!("use an IANA name such as `{}`", error.suggestion);
                field.problem("no time zone", remedy);
            })
            .ok()
        });
        let zone = zone.unwrap_or_else(Zone::utc);
        let when = match table.get("when") {
            Some(field) => field.string("cron(0 3 * * ? *)").and_then(|text| {
                Expression::parse(text, &zone)
                    .inspect_err(|error| {
                        let what = match error.field {
                            Some(part) => format!(
                                "its {part} `{}` is {}",
                                error.value.escape_debug(),
                                error.what
                            ),
                            None => error.what.clone(),
                        };
                        field.problem(what, error.remedy.clone());
                    })
                    .ok()
            }),
            None => {
                let remedy = "write `when = \"cron(0 3 * * ? *)\"` or `\"rate(5 minutes)\"`";
                table.problem("`when` is missing", remedy);
                None
            }
        };
        let payload = table.get("payload").and_then(|field| {
            let text = field.string("{}")?;
            if text.len() as u64 > EVENT_RANGE.end().0 {
                field.problem("too large", "use 1 MiB at most");
            }
            Some(Bytes::copy_from_slice(text.as_bytes()))
        });
        let enabled = enabled(&table);
        let overlap = table.choice(
            "overlap",
            Overlap::default(),
            &[("allow", Overlap::Allow), ("skip", Overlap::Skip)],
        );
        let missed = table
            .get("missed")
            .map_or(Missed::default(), |field| missed(&field));
        let jitter = table.duration("jitter", Duration::ZERO, JITTER_RANGE);
        table.unknown();
        if let (Some(name), Some(when)) = (name, when) {
            schedules.push(Schedule {
                name,
                when,
                zone,
                payload,
                enabled,
                overlap,
                missed,
                jitter,
            });
        }
    }
    schedules
}

fn check_name(name: &str, field: &Field<'_>, is_new: bool) {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
        field.problem(
            "cannot name a schedule",
            format!("use 1 to {MAX_NAME} letters, digits, `.`, `-` and `_`"),
        );
    }
    if !is_new {
        field.problem(
            "the function has a schedule of this name",
            "name it otherwise",
        );
    }
}

fn missed(field: &Field<'_>) -> Missed {
    let remedy = format!(
        "write `\"skip\"`, `\"once\"` or a number, {} to {}",
        CATCH_UP_RANGE.start(),
        CATCH_UP_RANGE.end()
    );
    let value = field.value();
    match value.as_str() {
        Some("skip") => Missed::Skip,
        Some("once") => Missed::Once,
        None if value.as_integer().is_some() => field
            .number(CATCH_UP_RANGE)
            .map_or(Missed::default(), Missed::UpTo),
        other => {
            let what = other.map_or("neither a word nor a number", |_| "unknown word");
            field.problem(what, remedy);
            Missed::default()
        }
    }
}
