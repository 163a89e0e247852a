//! The handlers of a component: which it exports, what crosses when one is called, and
//! what its answer means.

use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, ComponentType, Func, Instance, Lift,
    Lower, TypedFunc,
};

use super::state::State;
use super::{ComponentError, command, streaming};
use crate::invocation::{
    Advice, Answer, Door, Event, Failed, Failure, Handler, HttpAnswer, HttpRequest, Occurrence,
    OutcomeKind, QueueMessage, Tick,
};
use crate::queue::message::MAX_REASON;

const KINDS: usize = Handler::ALL.len();

/// `dunlin:event/http.request`, borrowed from the event.
#[derive(ComponentType, Lower)]
#[component(record)]
struct RequestParam<'a> {
    method: &'a str,
    #[component(name = "path-with-query")]
    path_with_query: &'a str,
    headers: &'a [(&'a str, &'a [u8])],
    body: &'a [u8],
}

/// `dunlin:event/http.response`.
#[derive(ComponentType, Lift)]
#[component(record)]
struct ResponseResult {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// `dunlin:event/invoke.function-error`.
#[derive(ComponentType, Lift)]
#[component(record)]
struct FunctionError {
    #[component(name = "error-type")]
    error_type: String,
    message: String,
    #[component(name = "stack-trace")]
    stack_trace: Vec<String>,
}

/// `dunlin:event/types.delivery`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct DeliveryParam<'a> {
    id: &'a str,
    attempt: u32,
    #[component(name = "max-attempts")]
    max_attempts: u32,
    #[component(name = "enqueued-at")]
    enqueued_at: u64,
    source: &'a str,
}

/// `dunlin:event/queue.message`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct MessageParam<'a> {
    delivery: DeliveryParam<'a>,
    body: &'a [u8],
    attributes: &'a [(String, String)],
    group: Option<&'a str>,
}

/// `dunlin:event/schedule.tick`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct TickParam<'a> {
    delivery: DeliveryParam<'a>,
    schedule: &'a str,
    #[component(name = "scheduled-at")]
    scheduled_at: u64,
    #[component(name = "fired-at")]
    fired_at: u64,
    missed: u32,
    payload: &'a [u8],
}

/// `dunlin:event/types.failure`.
#[derive(ComponentType, Lift)]
#[component(variant)]
enum FailureResult {
    #[component(name = "retry")]
    Retry(Option<u64>),
    #[component(name = "reject")]
    Reject(String),
}

/// `dunlin:event/queue.failed`.
#[derive(ComponentType, Lift)]
#[component(record)]
struct FailedResult {
    id: String,
    failure: FailureResult,
}

type HttpParams<'a> = (RequestParam<'a>,);
type HttpResults = (ResponseResult,);
type InvokeParams<'a> = (&'a [u8],);
type InvokeResults = (Result<Vec<u8>, FunctionError>,);
type ScheduleParams<'a> = (TickParam<'a>,);
type ScheduleResults = (Result<(), FailureResult>,);
type QueueParams<'a> = (&'a [MessageParam<'a>],);
type QueueResults = (Vec<FailedResult>,);

impl<'a> From<&'a Occurrence> for DeliveryParam<'a> {
    fn from(occurrence: &'a Occurrence) -> Self {
        Self {
            id: &occurrence.id,
            attempt: occurrence.attempt,
            max_attempts: occurrence.max_attempts,
            enqueued_at: occurrence.enqueued_at,
            source: &occurrence.source,
        }
    }
}

impl From<FailureResult> for Advice {
    fn from(failure: FailureResult) -> Self {
        match failure {
            FailureResult::Retry(after) => Self::Retry(after.map(Duration::from_millis)),
            FailureResult::Reject(mut reason) => {
                reason.truncate(reason.floor_char_boundary(MAX_REASON));
                Self::Reject(reason)
            }
        }
    }
}

/// Where the handlers stand among a component's exports, and how they are called.
#[derive(Clone, Copy, Default)]
pub(super) struct Exports([Option<(Door, ComponentExportIndex)>; KINDS]);

/// What is wrong with a handler's interface without its function.
fn no_function(door: Door) -> String {
    format!("it has no function `{}`", door.function())
}

impl Exports {
    /// Finds them. Each may be exported in several forms.
    pub(super) fn of(code: &Component) -> Result<Self, ComponentError> {
        let mut exports = Self::default();
        for handler in Handler::ALL {
            for interface in handler.interfaces() {
                let Some((_, exported)) = code.get_export(None, interface.name) else {
                    continue;
                };
                let door = interface.door;
                let Some(index) = code.get_export_index(Some(&exported), door.function()) else {
                    return Err(ComponentError::WrongType(interface.name, no_function(door)));
                };
                exports.0[handler as usize] = Some((door, index));
                break;
            }
        }
        Ok(exports)
    }

    /// How the handler is called, if there is one.
    pub(super) fn door(&self, handler: Handler) -> Option<Door> {
        self.0[handler as usize].map(|(door, _)| door)
    }
}

/// The handlers of an instance.
#[derive(Clone, Copy)]
pub(super) struct Handlers([Option<(Door, Func)>; KINDS]);

impl Handlers {
    pub(super) fn of(instance: &Instance, store: &mut Store<State>, exports: Exports) -> Self {
        Self(exports.0.map(|export| {
            let (door, index) = export?;
            Some((door, instance.get_func(&mut *store, index)?))
        }))
    }

    /// Whether the handler is a program, which runs once.
    pub(super) fn is_command(&self, handler: Handler) -> bool {
        self.0[handler as usize].is_some_and(|(door, _)| door.is_command())
    }

    /// The handler of HTTP, if it is one of WASI 0.3.
    pub(super) fn http_03(&self) -> Option<TypedFunc<streaming::Params03, streaming::Results03>> {
        let (door, func) = self.0[Handler::Http as usize]?;
        (door == Door::Http03).then(|| typed(func))
    }

    /// Checks that what is exported are functions with the types of their interfaces;
    /// after this they are called without another check.
    pub(super) fn check(
        &self,
        exports: Exports,
        store: &Store<State>,
    ) -> Result<(), (&'static str, String)> {
        for handler in Handler::ALL {
            let name = handler.name();
            let Some((door, func)) = self.0[handler as usize] else {
                if let Some(door) = exports.door(handler) {
                    return Err((name, no_function(door)));
                }
                continue;
            };
            let typed = match (door, handler) {
                (Door::Contract, Handler::Http) => {
                    func.typed::<HttpParams<'static>, HttpResults>(store).err()
                }
                (Door::Contract, Handler::Invoke) => func
                    .typed::<InvokeParams<'static>, InvokeResults>(store)
                    .err(),
                (Door::Contract, Handler::Schedule) => func
                    .typed::<ScheduleParams<'static>, ScheduleResults>(store)
                    .err(),
                (Door::Contract, Handler::Queue) => func
                    .typed::<QueueParams<'static>, QueueResults>(store)
                    .err(),
                (Door::Http02, _) => func
                    .typed::<streaming::Params02, streaming::Results02>(store)
                    .err(),
                (Door::Http03, _) => func
                    .typed::<streaming::Params03, streaming::Results03>(store)
                    .err(),
                (Door::Command02 | Door::Command03, _) => {
                    func.typed::<(), command::Results>(store).err()
                }
            };
            if let Some(error) = typed {
                let mut interfaces = handler.interfaces().iter();
                let named = interfaces.rfind(|it| it.door == door);
                return Err((named.map_or(name, |it| it.name), format!("{error:#}")));
            }
        }
        Ok(())
    }

    /// Calls the handler of an event. The outer error is an end that was none of the
    /// guest's making. `limit` is how large an answer may be, in bytes.
    pub(super) async fn enter(
        &self,
        store: &mut Store<State>,
        event: Event,
        limit: u64,
    ) -> wasmtime::Result<Result<Answer, Failure>> {
        let Some((door, func)) = self.0[event.handler() as usize] else {
            return Ok(Err(Failure::host("a trigger sent what nothing handles")));
        };
        let reply = match (door, event) {
            (Door::Contract, Event::Http(request)) => {
                Ok(Reply::Http(enter_http(typed(func), store, &request).await?))
            }
            (Door::Contract, Event::Payload(payload)) => {
                let handler: TypedFunc<InvokeParams<'_>, InvokeResults> = typed(func);
                let (result,) = handler.call_async(store, (&payload,)).await?;
                result.map(Reply::Payload).map_err(|error| Failure {
                    kind: OutcomeKind::FunctionError,
                    error_type: error.error_type.into(),
                    message: error.message,
                    stack_trace: error.stack_trace,
                    retry_after: None,
                    rejected: false,
                })
            }
            (Door::Contract, Event::Tick(tick)) => {
                enter_schedule(typed(func), store, &tick).await?
            }
            (Door::Contract, Event::Batch(messages)) => {
                enter_queue(typed(func), store, &messages).await?
            }
            (Door::Http02, Event::Stream(request)) => {
                streaming::enter_02(typed(func), store, request)
                    .await?
                    .map(|()| Reply::Streamed)
            }
            (Door::Http03, Event::Stream(request)) => {
                // Larger than the others.
                Box::pin(streaming::enter_03(typed(func), store, request))
                    .await?
                    .map(|()| Reply::Streamed)
            }
            (Door::Command02 | Door::Command03, Event::Payload(payload)) => {
                Box::pin(command::enter(typed(func), store, payload))
                    .await?
                    .map(Reply::Payload)
            }
            _ => Err(Failure::host(
                "a trigger sent what the handler does not take",
            )),
        };
        Ok(reply.and_then(|reply| check(reply, limit)))
    }
}

async fn enter_http(
    handler: TypedFunc<HttpParams<'_>, HttpResults>,
    store: &mut Store<State>,
    request: &HttpRequest,
) -> wasmtime::Result<ResponseResult> {
    let headers: Vec<(&str, &[u8])> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let params = RequestParam {
        method: request.method.as_str(),
        path_with_query: request.target.as_str(),
        headers: &headers,
        body: &request.body,
    };
    let (response,) = handler.call_async(store, (params,)).await?;
    Ok(response)
}

async fn enter_schedule(
    handler: TypedFunc<ScheduleParams<'_>, ScheduleResults>,
    store: &mut Store<State>,
    tick: &Tick,
) -> wasmtime::Result<Result<Reply, Failure>> {
    let params = TickParam {
        delivery: (&tick.occurrence).into(),
        schedule: &tick.schedule,
        scheduled_at: tick.scheduled_at,
        fired_at: tick.fired_at,
        missed: tick.missed,
        payload: &tick.payload,
    };
    let (result,) = handler.call_async(store, (params,)).await?;
    Ok(result
        .map(|()| Reply::Done)
        .map_err(|failure| Failure::advised(failure.into())))
}

async fn enter_queue(
    handler: TypedFunc<QueueParams<'_>, QueueResults>,
    store: &mut Store<State>,
    messages: &[QueueMessage],
) -> wasmtime::Result<Result<Reply, Failure>> {
    let batch: Vec<MessageParam<'_>> = messages
        .iter()
        .map(|message| MessageParam {
            delivery: (&message.occurrence).into(),
            body: &message.body,
            attributes: &message.attributes,
            group: message.group.as_deref(),
        })
        .collect();
    let (failed,) = handler.call_async(store, (&batch,)).await?;
    Ok(Ok(Reply::Batch(failed)))
}

/// The handler with its types.
#[allow(
    unsafe_code,
    reason = "the types were checked when the version was loaded; again costs time on each call"
)]
fn typed<Params, Return>(handler: Func) -> TypedFunc<Params, Return>
where
    Params: ComponentNamedList + Lower,
    Return: ComponentNamedList + Lift,
{
    // SAFETY: `Handlers::check` has checked this export of this component
    // against these very types.
    unsafe { TypedFunc::new_unchecked(handler) }
}

/// What a handler returned, unchecked.
enum Reply {
    Http(ResponseResult),
    Streamed,
    Payload(Vec<u8>),
    Done,
    Batch(Vec<FailedResult>),
}

/// Makes an answer of what a handler returned, if it can be one.
fn check(reply: Reply, limit: u64) -> Result<Answer, Failure> {
    let within = |size: usize| match size as u64 > limit {
        true => Err(Failure::too_large(limit)),
        false => Ok(()),
    };
    match reply {
        Reply::Payload(payload) => {
            within(payload.len())?;
            Ok(Answer::Payload(payload))
        }
        Reply::Done => Ok(Answer::Done),
        Reply::Streamed => Ok(Answer::Streamed),
        Reply::Batch(failed) => {
            let failed = failed.into_iter().map(|failed| Failed {
                id: failed.id,
                advice: failed.failure.into(),
            });
            Ok(Answer::Batch(failed.collect()))
        }
        Reply::Http(ResponseResult {
            status,
            headers,
            body,
        }) => {
            let lines = headers.iter().map(|(name, value)| name.len() + value.len());
            within(body.len() + lines.sum::<usize>())?;
            HttpAnswer::check(status, headers.into_iter(), body)
                .map(Answer::Http)
                .map_err(|message| {
                    Failure::new(
                        OutcomeKind::FunctionError,
                        "Function.InvalidResponse",
                        format!("the response cannot be sent: {message}"),
                    )
                })
        }
    }
}
