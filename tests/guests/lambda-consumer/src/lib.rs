//! Exports `dunlin:event/invoke` alone: from a queue it receives the event of
//! SQS, from a schedule that of EventBridge, and asynchronous invocations as
//! they are.
//!
//! Each invocation prints `invoked id=REQUEST attempt=N payload=JSON`. What it
//! does, the event says:
//!
//! - SQS: it answers the batch item failures of the messages with the body
//!   `fail`. A body `answer TEXT` makes the text the whole answer, and the body
//!   `error` fails the invocation; `sleep MS` sleeps first. Each message prints
//!   `record id=… body=…`.
//! - An object with `do`: see [`Task`].
//! - Any other: it answers the event.
//!
//! It is an `async fn`, as handlers for Lambda are, and sends by the asynchronous ABI.

use std::time::Duration;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent};
use dunlin_sdk::producer::asynchronous as producer;
use dunlin_sdk::{Context, FunctionError, Raw};
use serde::Deserialize;
use serde_json::{Value, json};

#[dunlin_sdk::invoke]
async fn handle(Raw(payload): Raw, context: Context) -> Result<Raw, FunctionError> {
    println!(
        "invoked id={} attempt={} payload={}",
        context.request_id(),
        context.attempt(),
        String::from_utf8_lossy(&payload),
    );
    let event: Value = serde_json::from_slice(&payload)?;
    if event["Records"].is_array() {
        return batch(serde_json::from_value(event)?);
    }
    let answer = match serde_json::from_value(event.clone()) {
        Ok(task) => act(task, &context).await?,
        // Nothing of ours: the event itself is the answer.
        Err(_) => event,
    };
    Ok(Raw(serde_json::to_vec(&answer)?))
}

fn batch(event: SqsEvent) -> Result<Raw, FunctionError> {
    let mut response = SqsBatchResponse::default();
    for record in event.records {
        let id = record.message_id.unwrap_or_default();
        let body = record.body.unwrap_or_default();
        println!("record id={id} body={body}");
        if let Some(answer) = body.strip_prefix("answer ") {
            return Ok(Raw(answer.as_bytes().to_vec()));
        }
        if let Some(ms) = body.strip_prefix("sleep ") {
            std::thread::sleep(Duration::from_millis(ms.parse()?));
        }
        match body.as_str() {
            "error" => return Err(failed()),
            "fail" => {
                let mut failure = BatchItemFailure::default();
                failure.item_identifier = id;
                response.batch_item_failures.push(failure);
            }
            _ => {}
        }
    }
    Ok(Raw(serde_json::to_vec(&response)?))
}

/// What an invocation asks for.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Task {
    /// Answers with this value.
    Ok {
        #[serde(default)]
        value: Value,
    },
    /// Fails as a handler does.
    Fail,
    /// Fails until this attempt.
    FailUntil {
        attempt: u32,
    },
    /// Fails, and says when to try again.
    RetryAfter {
        seconds: u64,
    },
    /// Invokes the function with this same event.
    Loop {
        function: String,
    },
    /// Sends a message.
    Send {
        queue: String,
        body: String,
    },
    Trap,
    Spin,
    Sleep {
        ms: u64,
    },
}

async fn act(task: Task, context: &Context) -> Result<Value, FunctionError> {
    match task {
        Task::Ok { value } => Ok(value),
        Task::Fail => Err(failed()),
        Task::FailUntil { attempt } if context.attempt() < attempt => Err(failed()),
        Task::FailUntil { .. } => Ok(json!({ "attempt": context.attempt() })),
        Task::RetryAfter { seconds } => {
            context.retry_after(Duration::from_secs(seconds));
            Err(failed())
        }
        Task::Loop { function } => {
            let event = json!({ "do": "loop", "function": function });
            let request_id = producer::invoke_json(&function, &event).await?;
            Ok(json!({ "requestId": request_id }))
        }
        Task::Send { queue, body } => {
            let id = producer::send(&queue, body).await?;
            Ok(json!({ "messageId": id }))
        }
        Task::Trap => core::arch::wasm32::unreachable(),
        Task::Spin => spin(),
        Task::Sleep { ms } => {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(json!({ "slept": ms }))
        }
    }
}

fn failed() -> FunctionError {
    FunctionError::new("Failed", "as asked")
}

fn spin() -> ! {
    let mut x = 0_u64;
    loop {
        x = std::hint::black_box(x.wrapping_add(1));
    }
}
