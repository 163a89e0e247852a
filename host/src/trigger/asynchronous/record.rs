//! What is told of an asynchronous invocation when it is over: to its destinations, and with
//! its event in a dead-letter queue.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::invocation::RequestId;
use crate::queue::message::{Attribute, Attributes};
use crate::trigger::text::text;

/// The most of an error that goes along with a dead letter, in bytes: Lambda's.
const MAX_ERROR_MESSAGE: usize = 1024;

/// Why an invocation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The function answered.
    Success,
    /// It failed as often as it may.
    RetriesExhausted,
    /// The event is as old as it may get, or would be before the next attempt.
    EventAgeExceeded,
    /// The function may not run at all.
    ZeroReservedConcurrency,
    /// The function called itself in a circle.
    RecursiveInvocation,
}

impl Condition {
    /// What it says to a person.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "the function answered",
            Self::RetriesExhausted => "it was tried as often as it may be",
            Self::EventAgeExceeded => "it is older than an event may become",
            Self::ZeroReservedConcurrency => "the function reserves no concurrency",
            Self::RecursiveInvocation => "functions invoke each other in a loop",
        }
    }

    /// As the record has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::RetriesExhausted => "RetriesExhausted",
            Self::EventAgeExceeded => "EventAgeExceeded",
            Self::ZeroReservedConcurrency => "ZeroReservedConcurrency",
            Self::RecursiveInvocation => "RecursiveInvocation",
        }
    }
}

/// What a destination is told.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When it was over, in milliseconds since 1970.
    pub time: i64,
    /// The invocation, over all its attempts.
    pub request_id: RequestId,
    /// The function, with its qualifier.
    pub function_arn: &'a str,
    /// Why it is over.
    pub condition: Condition,
    /// How often the function ran.
    pub invokes: u32,
    /// The event.
    pub request: &'a [u8],
    /// What the last attempt came to, if there was one.
    pub response: Option<Response<'a>>,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// What a caller would have got: 200 if the function ran, also if it failed.
    pub status: u16,
    /// The version that ran.
    pub version: Option<&'a str>,
    /// The kind of its failure, such as `Unhandled`; none if it answered.
    pub error: Option<&'a str>,
    /// Its answer, or what is said of its failure.
    pub payload: Option<&'a [u8]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    version: &'static str,
    timestamp: String,
    request_context: RequestContext<'a>,
    request_payload: Cow<'a, RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_context: Option<ResponseContext<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_payload: Option<Cow<'a, RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    request_id: String,
    function_arn: &'a str,
    condition: &'static str,
    approximate_invoke_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseContext<'a> {
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    executed_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_error: Option<&'a str>,
}

impl Record<'_> {
    /// As JSON. Payloads stand there as they are; one that is no JSON is a string, in base64
    /// if it is no text either, and an empty one is `null`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let Self {
            time,
            request_id,
            function_arn,
            condition,
            invokes,
            request,
            response,
        } = *self;
        let json = Json {
            version: "1.0",
            timestamp: milliseconds(time),
            request_context: RequestContext {
                request_id: request_id.to_string(),
                function_arn,
                condition: condition.as_str(),
                approximate_invoke_count: invokes,
            },
            request_payload: json(request),
            response_context: response.map(|response| ResponseContext {
                status_code: response.status,
                executed_version: response.version,
                function_error: response.error,
            }),
            response_payload: response.and_then(|response| response.payload.map(self::json)),
        };
        serde_json::to_vec(&json).expect("strings, numbers and JSON are always JSON")
    }
}

/// What goes along with an event that no attempt got done, in a dead-letter queue: the
/// message's attributes. `status` is that of the last attempt, if there was one.
#[must_use]
pub fn dead_letter(request_id: RequestId, status: Option<u16>, error_message: &str) -> Attributes {
    let end = error_message.floor_char_boundary(MAX_ERROR_MESSAGE);
    let attributes = [
        ("RequestID", "String", Some(request_id.to_string())),
        (
            "ErrorCode",
            "Number",
            status.map(|status| status.to_string()),
        ),
        // An attribute cannot be empty.
        (
            "ErrorMessage",
            "String",
            (end > 0).then(|| error_message[..end].to_owned()),
        ),
    ];
    let attributes = attributes.into_iter().filter_map(|(name, kind, value)| {
        let attribute = Attribute {
            kind: kind.to_owned(),
            value: value?.into_bytes(),
        };
        Some((name.to_owned(), attribute))
    });
    attributes.collect()
}

fn json(payload: &[u8]) -> Cow<'_, RawValue> {
    if payload.is_empty() {
        return Cow::Borrowed(RawValue::NULL);
    }
    match serde_json::from_slice::<&RawValue>(payload) {
        Ok(raw) => Cow::Borrowed(raw),
        Err(_) => Cow::Owned(
            serde_json::value::to_raw_value(&text(payload).text).expect("a string is always JSON"),
        ),
    }
}

/// `2026-11-21T00:00:00.000Z`.
fn milliseconds(millis: i64) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    // Only years that no clock shows cannot be written.
    time.ok()
        .and_then(|time| time.format(FORMAT).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
