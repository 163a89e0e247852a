//! From a request to a response: route, body, event, invocation.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use http::{Method, Request, Version};
use hyper::body::{Body as _, Incoming};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::activity::Activity;
use super::answer::{self, HttpResponse};
use super::payload;
use super::routes::{Found, Routes};
use crate::body::{self, BodyError};
use crate::dispatch::Dispatcher;
use crate::invocation::{
    Answer, Call, Door, Event, Failure, Handler, HttpRequest, RouteMatch, Trigger,
    is_connection_header, remove_headers, traceparent,
};
use crate::runtime::Budget;
use crate::telemetry::Telemetry;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What connections and requests may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For the head of a request, from its first byte, or from the connection's
    /// beginning for the first.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// For a connection on which nothing happens.
    pub idle_timeout: Duration,
    /// Bytes per second that a client must read of an answer at least, measured over
    /// the idle timeout.
    pub min_rate: u64,
    /// Connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// The size of a request's head.
    pub max_header_bytes: usize,
    /// The number of its headers.
    pub max_headers: usize,
}

/// How far the host is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draining {
    /// Not at all.
    No,
    /// What runs may end; connections close after their next answer.
    Yes,
    /// Time is up: what runs gets 503.
    Expired,
}

/// The HTTP trigger: everything its connections share.
pub struct HttpTrigger {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) telemetry: Telemetry,
    pub(super) limits: Limits,
    pub(super) draining: watch::Receiver<Draining>,
    routes: ArcSwap<Routes>,
    pub(super) budget: Arc<Budget>,
    /// Invocations that go on after their answers.
    pub(super) left: TaskTracker,
    /// The same as `draining`, for a look on each request.
    closing: AtomicBool,
}

/// Ends the activity of a request however its future ends.
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl HttpTrigger {
    /// A trigger without routes.
    #[must_use]
    pub fn new(
        dispatcher: Arc<Dispatcher>,
        telemetry: Telemetry,
        budget: Arc<Budget>,
        limits: Limits,
        draining: watch::Receiver<Draining>,
    ) -> Arc<Self> {
        Arc::new(Self {
            dispatcher,
            telemetry,
            limits,
            draining,
            routes: ArcSwap::default(),
            budget,
            left: TaskTracker::new(),
            closing: AtomicBool::new(false),
        })
    }

    /// Puts other routes in force, as one.
    pub fn route(&self, routes: Routes) {
        self.routes.store(Arc::new(routes));
    }

    /// From now on every answer closes its connection.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.left.close();
    }

    /// Waits for the invocations that go on after their answers, once it is closed.
    pub async fn wait(&self) {
        self.left.wait().await;
    }

    /// Counts a timeout: of a header, of a body, of a connection that is idle, or of an
    /// answer that is read too slowly.
    pub(super) fn timed_out(&self, what: &str) {
        let timeouts = &self.telemetry.metrics.http.timeouts;
        timeouts.with_label_values(&[what]).inc();
    }

    /// Answers a request.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: IpAddr,
        activity: &Arc<Activity>,
    ) -> HttpResponse {
        let version = request.version();
        let is_head = request.method() == Method::HEAD;
        let mut response = self.respond(request, client, activity).await;
        if version < Version::HTTP_2 && self.closing.load(Ordering::Relaxed) {
            answer::close(&mut response);
        }
        // hyper does this for HTTP/1.1 alone.
        let lacks_body = is_head || !answer::has_body(response.status());
        if lacks_body && version >= Version::HTTP_2 {
            answer::without_body(&mut response);
        }
        self.telemetry.metrics.http.answered(response.status());
        response
    }

    /// Notes that a request has come; to be dropped when it is answered. Called
    /// before the answer's first poll: the connection may meet its end between
    /// the two.
    pub(super) fn begin(request: &Request<Incoming>, activity: &Arc<Activity>) -> Busy {
        if request.version() < Version::HTTP_11 {
            activity.no_interim_responses();
        }
        activity.begin();
        if request.body().is_end_stream() {
            activity.whole();
        }
        Busy(Arc::clone(activity))
    }

    async fn respond(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: IpAddr,
        activity: &Arc<Activity>,
    ) -> HttpResponse {
        let unread = !request.body().is_end_stream();
        activity.body_unread.store(unread, Ordering::Relaxed);
        let (mut parts, incoming) = request.into_parts();
        let host = match host(&parts) {
            Ok(host) => host,
            Err(text) => return answer::bad_request(text),
        };
        let Some(target) = parts
            .uri
            .path_and_query()
            .filter(|target| target.path().starts_with('/'))
            .cloned()
        else {
            return answer::bad_request("the request target is not a path");
        };
        // What the target says goes before the header (RFC 9112 section 3.2.2),
        // and HTTP/2 has only the former: handlers find it in one place.
        if parts.uri.authority().is_some()
            && let Ok(value) = HeaderValue::from_str(&host)
        {
            parts.headers.insert(HOST, value);
        }
        // hyper bounds its buffer, and lets through what happens to fit in it.
        if head_size(&parts) > self.limits.max_header_bytes {
            return answer::head_too_large(self.limits.max_header_bytes);
        }
        let name = host_name(&host);
        let (route, matched) = match self.routes.load().find(name, &parts.method, target.path()) {
            Found::Route(route, matched) => (route, matched),
            Found::MethodNotAllowed(methods) => return answer::method_not_allowed(&methods),
            Found::Nothing => return answer::not_found(),
        };
        let version = &route.function.version;
        let mut call = Call::new(Trigger::Http);
        let request_id = call.request_id;
        call.client = Some(client);
        call.traceparent = parts
            .headers
            .get(TRACEPARENT)
            .and_then(|value| traceparent(value.to_str().ok()?));
        let door = version.door(Handler::Http);
        if door.is_some_and(Door::is_streaming) {
            call.route = Some(matched);
            let Some(request) = to_stream(parts, target, &host, incoming) else {
                return answer::bad_request("the host is none that a request can be for");
            };
            let function = &route.function;
            return self.stream(request, function, call, activity).await;
        }
        let limit = version.common.spec.limits.request.0;
        let body = match body::read(incoming, limit, self.limits.body_timeout, &self.budget).await {
            Ok(body) => body,
            Err(error) => {
                activity.body_unread.store(true, Ordering::Relaxed);
                if error == BodyError::Timeout {
                    self.timed_out("body");
                }
                return answer::of_body(&error, limit);
            }
        };

        activity.whole();
        activity.body_unread.store(false, Ordering::Relaxed);

        let event = if door.is_some() {
            strip(&mut parts.headers);
            Event::Http(Box::new(HttpRequest {
                method: parts.method,
                target,
                headers: parts.headers,
                body,
            }))
        } else {
            strip(&mut parts.headers);
            let protocol = protocol(parts.version);
            let payload =
                payload::event(&parts, &body, &host, &matched, client, protocol, request_id);
            drop(body);
            // As JSON it may be six times as large.
            let Some(payload) = self.budget.hold(payload) else {
                return answer::of_body(&BodyError::NoMemory, limit);
            };
            Event::Payload(payload)
        };
        call.route = Some(RouteMatch { ..matched });

        let budget = Arc::clone(&self.budget);
        let response_limit = version.common.spec.limits.response.0;
        let invoke = version.door(Handler::Invoke);
        let is_program = invoke.is_some_and(Door::is_command);
        let interpret = move |answer| {
            let mut answer = match answer {
                Answer::Http(answer) => answer,
                other if is_program => payload::interpret_printed(other, response_limit)?,
                other => payload::interpret(other, response_limit)?,
            };
            // Until it is written: its client may take its time.
            let held = budget.hold(answer.body);
            answer.body = held.ok_or_else(Failure::no_memory)?;
            Ok(answer)
        };
        match self
            .dispatcher
            .invoke(&route.function, event, call, interpret)
            .await
            .result
        {
            Ok(answer) => answer::of_handler(answer, request_id),
            Err(failure) => answer::of_failure(&failure, request_id),
        }
    }
}

/// The host a request is for, with its port if it has one.
fn host(parts: &http::request::Parts) -> Result<String, &'static str> {
    let named = parts.uri.authority();
    let mut values = parts.headers.get_all(HOST).iter();
    let header = match (values.next(), values.next()) {
        (Some(_), Some(_)) => return Err("there are several Host headers"),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| "the Host header is not text")?;
            let valid = text.is_empty()
                || (!text.contains('@') && text.parse::<http::uri::Authority>().is_ok());
            if !valid {
                return Err("the Host header names no host");
            }
            Some(text)
        }
        // RFC 9112 section 3.2: exactly one, whatever the target says. HTTP/1.0
        // and HTTP/2 may do without.
        (None, _) if parts.version == Version::HTTP_11 => return Err("the Host header is missing"),
        (None, _) => None,
    };
    let host = named
        .map(http::uri::Authority::as_str)
        .or(header)
        .unwrap_or_default();
    Ok(host.to_ascii_lowercase())
}

/// What the head of a request takes on the wire, about.
fn head_size(parts: &http::request::Parts) -> usize {
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let lines = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    target + lines.sum::<usize>()
}

fn host_name(host: &str) -> &str {
    // An IPv6 address has colons of its own, and brackets around them.
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The request as a standard handler gets it: whom it is for stands in its target, and
/// what is known of its length stays, because hyper holds the client to it. None if it
/// cannot be written so.
fn to_stream(
    mut parts: http::request::Parts,
    target: http::uri::PathAndQuery,
    host: &str,
    body: Incoming,
) -> Option<Request<Incoming>> {
    let length = parts.headers.get(CONTENT_LENGTH).cloned();
    strip(&mut parts.headers);
    if let Some(length) = length {
        parts.headers.insert(CONTENT_LENGTH, length);
    }
    // HTTP/1.0 may do without, the interface does not.
    let host = if host.is_empty() { "localhost" } else { host };
    let uri = http::Uri::builder().scheme("http").authority(host);
    parts.uri = uri.path_and_query(target).build().ok()?;
    Some(Request::from_parts(parts, body))
}

/// Takes out what concerns only this connection, and what `Connection` names.
fn strip(headers: &mut http::HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    remove_headers(headers, is_connection_header);
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
