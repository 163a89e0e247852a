//! The JSON form of HTTP: what Lambda sends a function behind a function URL
//! or an HTTP API (payload format 2.0), and what it makes of the answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, USER_AGENT};
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::invocation::{Answer, Failure, HttpAnswer, OutcomeKind, RequestId, RouteMatch};

/// As many header lines as [`http::HeaderMap`] can hold.
const MAX_HEADERS: usize = 1 << 15;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'static str,
    route_key: String,
    raw_path: &'a str,
    raw_query_string: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<Cow<'a, str>>,
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query_string_parameters: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    path_parameters: BTreeMap<&'a str, &'a str>,
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    account_id: &'static str,
    api_id: &'a str,
    domain_name: &'a str,
    domain_prefix: &'a str,
    http: Http<'a>,
    request_id: String,
    route_key: String,
    stage: &'static str,
    time: String,
    time_epoch: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'a> {
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    source_ip: String,
    user_agent: Cow<'a, str>,
}

/// Whether a body of this type travels as text. AWS sends text, JSON, XML,
/// JavaScript and forms as they are, and everything else in base64.
fn is_text(parts: &Parts) -> bool {
    let Some(value) = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || matches!(
            essence.as_str(),
            "application/json"
                | "application/xml"
                | "application/javascript"
                | "application/x-www-form-urlencoded"
        )
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

/// The event for a request.
pub(super) fn event(
    parts: &Parts,
    body: &Bytes,
    host: &str,
    route: &RouteMatch,
    client: IpAddr,
    protocol: &'static str,
    request_id: RequestId,
) -> Bytes {
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        if name == COOKIE {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str())
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    headers
        .entry(HOST.as_str())
        .or_insert_with(|| host.to_owned());
    headers.insert("x-forwarded-for", client.to_string());
    headers
        .entry("x-forwarded-proto")
        .or_insert_with(|| "http".to_owned());
    let port = host.rsplit_once(':').map(|(_, port)| port);
    let port = port
        .filter(|port| port.bytes().all(|b| b.is_ascii_digit()))
        .unwrap_or("80");
    headers
        .entry("x-forwarded-port")
        .or_insert_with(|| port.to_owned());
    headers.entry("x-amzn-trace-id").or_insert_with(trace_id);

    let cookies = parts.headers.get_all(COOKIE).iter().flat_map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        text.split(';')
            .map(|cookie| Cow::Owned(cookie.trim().to_owned()))
            .collect::<Vec<_>>()
    });
    let query = parts.uri.query().unwrap_or_default();
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value);
        parameters
            .entry(decode(name))
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert(value);
    }
    let text = if is_text(parts) {
        std::str::from_utf8(body).ok()
    } else {
        None
    };
    let (encoded, is_base64_encoded) = match (body.is_empty(), text) {
        (true, _) => (None, false),
        (false, Some(text)) => (Some(Cow::Borrowed(text)), false),
        (false, None) => (Some(Cow::Owned(STANDARD.encode(body))), true),
    };
    let now = SystemTime::now();
    let route_key = format!("{} {}", parts.method, route.pattern);
    let event = Event {
        version: "2.0",
        route_key: route_key.clone(),
        raw_path: parts.uri.path(),
        raw_query_string: query,
        cookies: cookies.collect(),
        headers,
        query_string_parameters: parameters,
        path_parameters: route
            .parameters
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect(),
        request_context: RequestContext {
            account_id: "anonymous",
            api_id: "dunlin",
            domain_name: host,
            domain_prefix: host.split('.').next().unwrap_or_default(),
            http: Http {
                method: parts.method.as_str(),
                path: parts.uri.path(),
                protocol,
                source_ip: client.to_string(),
                user_agent: parts
                    .headers
                    .get(USER_AGENT)
                    .map(|value| String::from_utf8_lossy(value.as_bytes()))
                    .unwrap_or_default(),
            },
            request_id: request_id.to_string(),
            route_key,
            stage: "$default",
            time: common_log_time(now),
            time_epoch: now.duration_since(UNIX_EPOCH).map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }),
        },
        body: encoded,
        is_base64_encoded,
    };
    serde_json::to_vec(&event)
        .expect("strings, numbers and maps of strings are always JSON")
        .into()
}

/// A new trace in X-Ray's form: the time in seconds and 96 random bits.
fn trace_id() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("Root=1-{seconds:08x}-{}", &random[..24])
}

/// `21/Nov/2026:00:00:00 +0000`.
fn common_log_time(now: SystemTime) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000"
    );
    time::OffsetDateTime::from(now)
        .format(FORMAT)
        .unwrap_or_default()
}

fn invalid(message: String) -> Failure {
    Failure::new(
        OutcomeKind::FunctionError,
        "Function.InvalidResponse",
        message,
    )
}

/// The parts of a response, each as it is written: only what is used is read. The last
/// of several with the same name counts, as everywhere in JSON.
#[derive(Default)]
struct Response<'a> {
    status: Option<&'a str>,
    headers: Option<&'a str>,
    multi_value_headers: Option<&'a str>,
    cookies: Option<&'a str>,
    body: Option<&'a str>,
    is_base64: bool,
}

impl<'de> Deserialize<'de> for Response<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Response<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut response = Response::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    let value = map.next_value::<&RawValue>()?.get();
                    match &*key {
                        "statusCode" => response.status = Some(value),
                        "headers" => response.headers = Some(value),
                        "multiValueHeaders" => response.multi_value_headers = Some(value),
                        "cookies" => response.cookies = Some(value),
                        "body" => response.body = Some(value),
                        "isBase64Encoded" => response.is_base64 = value == "true",
                        _ => {}
                    }
                }
                Ok(response)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The entries of an object, or none of anything else.
#[derive(Default)]
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() == MAX_HEADERS {
                        return Err(too_many());
                    }
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The elements of a list.
#[derive(Default)]
struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    if elements.len() == MAX_HEADERS {
                        return Err(too_many());
                    }
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// The header lines of a response, together no larger than the function's answer may be:
/// a name with many values is sent with each of them.
struct Lines<'a> {
    lines: Vec<(&'a str, Cow<'a, str>)>,
    limit: u64,
    size: u64,
}

impl<'a> Lines<'a> {
    fn add(&mut self, name: &'a str, value: &'a str) -> Result<(), Failure> {
        let value = text(value)?;
        self.size += (name.len() + value.len()) as u64;
        if self.size > self.limit {
            return Err(Failure::too_large(self.limit));
        }
        if self.lines.len() == MAX_HEADERS {
            return Err(invalid("it has too many headers".to_owned()));
        }
        self.lines.push((name, value));
        Ok(())
    }
}

fn too_many<E: serde::de::Error>() -> E {
    E::custom(format_args!("there are more than {MAX_HEADERS}"))
}

/// Reads a part of a response that begins like this; anything else is as if it were
/// not there.
fn part<'a, T: Deserialize<'a> + Default>(
    json: Option<&'a str>,
    begin: char,
) -> Result<T, Failure> {
    match json.filter(|json| json.starts_with(begin)) {
        Some(json) => serde_json::from_str(json)
            .map_err(|error| invalid(format!("its headers cannot be read: {error}"))),
        None => Ok(T::default()),
    }
}

/// A string without its quotes, anything else as it is written.
fn text(json: &str) -> Result<Cow<'_, str>, Failure> {
    if json.starts_with('"') {
        let text = serde_json::from_str(json);
        text.map(Cow::Owned).map_err(|error| not_json(&error))
    } else {
        Ok(Cow::Borrowed(json))
    }
}

fn not_json(error: &serde_json::Error) -> Failure {
    invalid(format!(
        "the answer is not JSON, as an answer to HTTP must be: {error}"
    ))
}

/// What a program printed, as a response: what is JSON means what it means for any
/// function, anything else is the body.
pub(super) fn interpret_printed(answer: Answer, limit: u64) -> Result<HttpAnswer, Failure> {
    match answer {
        Answer::Payload(printed) if !is_json(&printed) => {
            let content_type = match std::str::from_utf8(&printed) {
                Ok(_) => "text/plain; charset=utf-8",
                Err(_) => "application/octet-stream",
            };
            let headers = [("content-type", content_type)].into_iter();
            HttpAnswer::check(200, headers, printed).map_err(invalid)
        }
        answer => interpret(answer, limit),
    }
}

fn is_json(bytes: &[u8]) -> bool {
    bytes.is_empty() || serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// What the answer means as a response. An object with a status is taken apart;
/// anything else is the body, as JSON.
///
/// `limit` is the function's `response-limit`. What this takes meanwhile is a few times
/// that at most: values that nobody asks for are passed over.
pub(super) fn interpret(answer: Answer, limit: u64) -> Result<HttpAnswer, Failure> {
    let payload = match answer {
        Answer::Http(answer) => return Ok(answer),
        // Lambda's `null`: a function that answers nothing.
        Answer::Payload(payload) if payload.is_empty() => b"null".to_vec(),
        Answer::Payload(payload) => payload,
        Answer::Done | Answer::Batch(_) | Answer::Streamed => {
            return Err(Failure::host("a request had the answer of another event"));
        }
    };
    let json = std::str::from_utf8(&payload)
        .map_err(|error| invalid(format!("the answer is not JSON: it is not UTF-8: {error}")))?
        .trim_ascii();
    let response = if json.starts_with('{') {
        serde_json::from_str::<Response<'_>>(json).map_err(|error| not_json(&error))?
    } else {
        serde_json::from_str::<IgnoredAny>(json).map_err(|error| not_json(&error))?;
        Response::default()
    };
    let Some(status) = response.status else {
        // What is no response is the body: a string without its quotes, anything
        // else byte for byte.
        let body = match json.starts_with('"') {
            true => text(json)?.into_owned().into_bytes(),
            false => payload,
        };
        let headers = [("content-type", "application/json")].into_iter();
        return HttpAnswer::check(200, headers, body).map_err(invalid);
    };
    let status = text(status)?
        .parse()
        .map_err(|_| invalid(format!("`statusCode` is {status}, not a number")))?;

    let Entries(single) = part(response.headers, '{')?;
    let Entries(several) = part(response.multi_value_headers, '{')?;
    let Elements(cookies) = part(response.cookies, '[')?;
    let mut lines = Lines {
        lines: Vec::new(),
        limit,
        size: 0,
    };
    for (name, value) in &single {
        lines.add(name, value.get())?;
    }
    for (name, values) in &several {
        let Elements(values) = part(Some(values.get()), '[')?;
        for value in values {
            lines.add(name, value.get())?;
        }
    }
    for cookie in cookies {
        lines.add(SET_COOKIE.as_str(), cookie.get())?;
    }
    let mut headers = lines.lines;
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        headers.push(("content-type", "application/json".into()));
    }
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let body = match response.body {
        None | Some("null") => Vec::new(),
        Some(body) if body.starts_with('"') && response.is_base64 => STANDARD
            .decode(&*text(body)?)
            .map_err(|error| invalid(format!("`body` is not base64: {error}")))?,
        Some(body) => text(body)?.into_owned().into_bytes(),
    };
    HttpAnswer::check(status, headers, body).map_err(invalid)
}

#[cfg(test)]
mod tests;
