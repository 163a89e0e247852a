//! Answers `GET /fetch/{path}` with what another server has there, and keeps it in a bucket:
//!
//! - as long as `max-age` says it answers from the bucket, which all instances share and
//!   which outlives the host;
//! - after that it asks again. While the other server fails, what was kept goes on being
//!   answered, up to `max-stale`;
//! - `x-cache` says which it was: `hit`, `miss` or `stale`, and `age` how many seconds ago the
//!   answer came.
//!
//! Only what is the same for everybody may be kept. So nothing of the client's request goes
//! on but the path and its query, and of what comes back is kept a 200 of no more than
//! [`MAX_BODY`], without a cookie, that its server does not want kept from caches. Errors never
//! are. Where the bucket is full, the oldest entries go.

mod entry;
mod settings;

use std::time::{Duration, SystemTime};

use dunlin_sdk::fetch::{self, FetchError};
use dunlin_sdk::key_value::{self, Bucket, KeyValueError};
use dunlin_sdk::{Error, HttpError, Request, Response, StatusCode};

use self::entry::Entry;
use self::settings::Settings;

/// The largest body that is kept, its type included: as it is written it has less than the
/// bucket's `max-value`.
const MAX_BODY: usize = 64 << 10;
/// What a bucket takes as a key, in bytes.
const MAX_KEY: usize = 1024;
/// How many entries go at once where the bucket is full.
const EVICTED: usize = 16;
/// How long each of the steps may take: to be connected, to hear the first byte, and the
/// next. The first two are less than the function's `timeout`, so that a stale answer comes
/// in time.
const PATIENCE: Duration = Duration::from_secs(3);

#[dunlin_sdk::http]
fn handle(request: Request) -> Result<Response, Error> {
    answer(&request, SystemTime::now())
}

fn answer(request: &Request, now: SystemTime) -> Result<Response, Error> {
    let settings = Settings::read()?;
    let url = target(&settings.upstream, request)?;
    let bucket = key_value::open("pages")?;
    let kept = bucket
        .get(&url)?
        .and_then(|bytes| Entry::from_bytes(&bytes));
    // An entry of the future, from before the clock was set back, has no age and is not used.
    let kept = kept.and_then(|entry| Some((entry.age(now)?, entry)));
    let kept = match kept {
        Some((age, entry)) if age < settings.max_age => {
            return Ok(entry.response(age).with_header("x-cache", "hit"));
        }
        older => older,
    };
    match ask(&url) {
        Ok(answer) => {
            if let Err(why) = keep(&bucket, &url, &answer, now) {
                log::warn!(url, why:%; "not kept");
            }
            Ok(pass_on(answer))
        }
        Err(why) => {
            log::warn!(url, why:%; "the upstream fails");
            match kept {
                Some((age, entry)) if age < settings.max_stale => {
                    Ok(entry.response(age).with_header("x-cache", "stale"))
                }
                _ => Err(failure(&why).into()),
            }
        }
    }
}

/// What is asked for: the path after `/fetch`, with its query, as the client sent it. That
/// leads nowhere above the upstream's own path: `egress` tells servers apart, not paths.
fn target(upstream: &str, request: &Request) -> Result<String, HttpError> {
    let path = request.path();
    let path = path.strip_prefix("/fetch").unwrap_or(path);
    let climbs = |part: &str| {
        let part = part.to_ascii_lowercase();
        let part = part.replace("%2e", ".").replace("%3b", ";");
        // Servers of Java take off what stands behind a `;`.
        matches!(part.split(';').next(), Some("." | ".."))
    };
    // Some servers take these for what separates parts.
    let lower = path.to_ascii_lowercase();
    let hides = lower.contains("%2f") || lower.contains("%5c") || path.contains('\\');
    if hides || path.split('/').any(climbs) {
        return Err(HttpError::bad_request(
            "the path has parts that lead elsewhere",
        ));
    }
    let path = if path.is_empty() { "/" } else { path };
    let url = match request.query() {
        Some(query) => format!("{upstream}{path}?{query}"),
        None => format!("{upstream}{path}"),
    };
    match url.len() {
        ..=MAX_KEY => Ok(url),
        _ => Err(HttpError::new(414, "the path and its query are too long")),
    }
}

/// What the upstream has said, with any status but those by which it fails.
struct Answer {
    status: StatusCode,
    content_type: String,
    location: Option<String>,
    /// Whether a cache for everybody may have it.
    is_for_all: bool,
    body: Vec<u8>,
}

fn ask(url: &str) -> Result<Answer, FetchError> {
    let response = fetch::get(url)
        .connect_timeout(PATIENCE)
        .first_byte_timeout(PATIENCE)
        .between_bytes_timeout(PATIENCE)
        .send()?;
    let status = response.status();
    let failed = FetchError::Status(status);
    if failed.is_temporary() {
        return Err(failed);
    }
    let text = |name| response.header(name).map(str::to_owned);
    Ok(Answer {
        status,
        content_type: text("content-type").unwrap_or("application/octet-stream".to_owned()),
        location: text("location"),
        is_for_all: is_for_all(&response),
        body: response.bytes()?,
    })
}

/// Whether what the upstream has said is the same for everybody, and may be kept. `vary`
/// need not be looked at: every request has the same headers.
fn is_for_all(response: &fetch::Response) -> bool {
    let mut rules = response
        .headers()
        .filter(|(name, _)| *name == "cache-control")
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .map(|rule| rule.trim_ascii().to_ascii_lowercase());
    // `private` and `no-cache` may name headers, which is more than is told apart here.
    let forbids = |rule: Vec<u8>| {
        let name = rule.split(|byte| *byte == b'=').next().unwrap_or_default();
        matches!(name, b"no-store" | b"no-cache" | b"private")
    };
    !rules.any(forbids) && response.headers().all(|(name, _)| name != "set-cookie")
}

/// Keeps an answer, or forgets what was kept if this one may not be.
fn keep(bucket: &Bucket, url: &str, answer: &Answer, now: SystemTime) -> Result<(), KeyValueError> {
    let is_small = answer.content_type.len() + answer.body.len() <= MAX_BODY;
    if answer.status != StatusCode::OK || !answer.is_for_all || !is_small {
        return bucket.delete(url);
    }
    let entry = Entry::new(now, &answer.content_type, &answer.body).to_bytes();
    match bucket.set(url, &entry) {
        Err(KeyValueError::Other(_)) => {
            // Over a limit of the bucket, most likely.
            let oldest: Result<Vec<String>, _> = bucket.keys().take(EVICTED).collect();
            bucket.delete_many(oldest?)?;
            bucket.set(url, &entry)
        }
        done => done,
    }
}

fn pass_on(answer: Answer) -> Response {
    let mut response = Response::new(answer.status)
        .with_header("content-type", answer.content_type)
        .with_header("x-cache", "miss");
    if let Some(location) = answer.location {
        response = response.with_header("location", location);
    }
    response.with_body(answer.body)
}

fn failure(why: &FetchError) -> HttpError {
    let status = match why {
        FetchError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    HttpError::new(status, format!("the upstream: {why}"))
}

#[cfg(test)]
mod tests;
