//! Does what the messages and ticks ask for that it receives.
//!
//! The body of a message, or the payload of a tick, is text: steps with `;`
//! between them, done in their order until one fails. A body that is empty or
//! JSON asks for nothing.
//!
//! | step | what it does |
//! |---|---|
//! | `ok` | nothing |
//! | `retry`, `retry SECONDS` | fails, to be tried again, with that delay |
//! | `error TEXT` | fails with an ordinary error |
//! | `reject TEXT` | fails for good |
//! | `twice N` | fails until the attempt N |
//! | `after SECONDS` | `context.retry-after` |
//! | `fail-batch` | fails the batch as a whole, once all of it was handled |
//! | `blame ID` | names this message as failed, whether it is in the batch or not |
//! | `trap`, `exit CODE`, `spin` | as named |
//! | `sleep MS` | sleeps |
//! | `alloc MIB` | takes that much memory, and writes to it |
//! | `forward QUEUE [GROUP [DEDUPLICATION]]` | sends the id of the event there, with its attempt as an attribute; the deduplication `each` is another one for each attempt |
//! | `forward-many QUEUE COUNT` | sends that many messages there, in batches |
//! | `invoke FUNCTION` | invokes it with `{"from":"ID"}` |
//! | `log TEXT` | prints the text |
//! | `describe` | prints what else is known of the event |
//!
//! Each message that is handled prints a line before anything else:
//! `handled id=… attempt=… body=… group=… batch=N`, and each tick
//! `tick schedule=… id=… attempt=… scheduled=MS missed=…`. A step that sends
//! prints `sent QUEUE ID`, or fails with why not.

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_sdk::producer::{self, Outgoing};
use dunlin_sdk::{Batch, BatchResult, Context, Error, Failure, Message, Tick};

const MIB: usize = 1 << 20;

#[dunlin_sdk::queue]
fn messages(batch: Batch) -> Result<BatchResult, Error> {
    let size = batch.len();
    let mut blamed = Vec::new();
    let mut fails = false;
    let mut result = batch.each(|message| {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        println!(
            "handled id={} attempt={} body={body} group={} batch={size}",
            message.id,
            message.attempt,
            message.group.as_deref().unwrap_or("-"),
        );
        for step in steps(&body) {
            match step.split_once(' ').unwrap_or((step, "")) {
                ("blame", id) => blamed.push(Message::new("").with_id(id)),
                ("fail-batch", _) => fails = true,
                ("describe", _) => describe(&message),
                _ => act(step, &message.id, message.attempt)?,
            }
        }
        Ok::<_, Failure>(())
    });
    if fails {
        return Err("as asked".into());
    }
    for message in &blamed {
        result.fail(message, Failure::retry());
    }
    Ok(result)
}

#[dunlin_sdk::schedule]
fn ticks(tick: Tick) -> Result<(), Failure> {
    println!(
        "tick schedule={} id={} attempt={} scheduled={} missed={}",
        tick.schedule,
        tick.id,
        tick.attempt,
        millis(tick.scheduled_at),
        tick.missed,
    );
    let payload = String::from_utf8_lossy(&tick.payload);
    for step in steps(&payload) {
        match step {
            "describe" => println!(
                "described fired={} max={:?} payload={payload}",
                millis(tick.fired_at),
                tick.max_attempts,
            ),
            _ => act(step, &tick.id, tick.attempt)?,
        }
    }
    Ok(())
}

fn steps(text: &str) -> impl Iterator<Item = &str> {
    let text = if text.trim_start().starts_with(['{', '[']) {
        ""
    } else {
        text
    };
    text.split(';')
        .map(str::trim)
        .filter(|step| !step.is_empty())
}

fn describe(message: &Message) {
    let attributes: Vec<String> = message
        .attributes
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    println!(
        "described queue={} max={:?} enqueued={} attributes={}",
        message.queue,
        message.max_attempts,
        millis(message.enqueued_at),
        attributes.join(","),
    );
}

fn act(step: &str, id: &str, attempt: u32) -> Result<(), Failure> {
    let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
    let number = || rest.parse::<u64>().expect("a number");
    match verb {
        "ok" => {}
        "retry" if rest.is_empty() => return Err(Failure::retry()),
        "retry" => return Err(Failure::retry_after(Duration::from_secs(number()))),
        "error" => return Err(std::io::Error::other(rest).into()),
        "reject" => return Err(Failure::reject(rest)),
        "twice" if u64::from(attempt) < number() => return Err(Failure::retry()),
        "twice" => {}
        "after" => Context::current().retry_after(Duration::from_secs(number())),
        "trap" => core::arch::wasm32::unreachable(),
        "exit" => std::process::exit(number() as i32),
        "spin" => spin(),
        "sleep" => std::thread::sleep(Duration::from_millis(number())),
        "alloc" => {
            black_box(vec![1_u8; number() as usize * MIB]);
        }
        "forward" => forward(rest, id, attempt)?,
        "forward-many" => forward_many(rest)?,
        "invoke" => {
            let request_id = producer::invoke(rest, format!(r#"{{"from":"{id}"}}"#))?;
            println!("sent {rest} {request_id}");
        }
        "log" => println!("{rest}"),
        other => return Err(Failure::reject(format!("`{other}` is nothing I do"))),
    }
    Ok(())
}

fn forward(to: &str, id: &str, attempt: u32) -> Result<(), Failure> {
    let mut words = to.split(' ');
    let queue = words.next().unwrap_or_default();
    let mut message = Outgoing::new(id)
        .attribute("from", id)
        .attribute("attempt", attempt.to_string());
    message.group = words.next().map(str::to_owned);
    message.deduplication_id = words.next().map(|word| match word {
        "each" => format!("{id}-{attempt}"),
        word => word.to_owned(),
    });
    let sent = producer::send(queue, message)?;
    println!("sent {queue} {sent}");
    Ok(())
}

fn forward_many(to: &str) -> Result<(), Failure> {
    let (queue, count) = to.split_once(' ').expect("a queue and a number");
    let count: usize = count.parse().expect("a number");
    for sent in producer::send_batch(queue, (0..count).map(|i| i.to_string())) {
        println!("sent {queue} {}", sent?);
    }
    Ok(())
}

fn spin() -> ! {
    let mut x = 0_u64;
    loop {
        x = black_box(x.wrapping_add(1));
    }
}

fn millis(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis())
}
