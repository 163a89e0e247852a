//! The handlers of a component: which it exports, what crosses when one is called, and
//! what its answer means.

use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, ComponentType, Func, Instance, Lift,
    Lower, TypedFunc,
};

use super::ComponentError;
use super::state::State;
use crate::invocation::{
    Advice, Answer, Event, Failed, Failure, Handler, HttpAnswer, HttpRequest, Occurrence,
    OutcomeKind, QueueMessage, Tick,
};
use crate::queue::message::MAX_REASON;

/// What is wrong with a handler's interface without it.
const NO_HANDLE: &str = "it has no function `handle`";
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

/// Where the handlers stand among a component's exports.
#[derive(Clone, Copy, Default)]
pub(super) struct Exports([Option<ComponentExportIndex>; KINDS]);

impl Exports {
    /// Finds them. Each may be exported in either of two forms.
    pub(super) fn of(code: &Component) -> Result<Self, ComponentError> {
        let mut exports = Self::default();
        for handler in Handler::ALL {
            let exported = handler.interfaces().into_iter().find_map(|name| {
                let (_, interface) = code.get_export(None, name)?;
                Some((name, code.get_export_index(Some(&interface), "handle")))
            });
            exports.0[handler as usize] = match exported {
                Some((name, None)) => {
                    return Err(ComponentError::WrongType(name, NO_HANDLE.into()));
                }
                Some((_, handle)) => handle,
                None => None,
            };
        }
        Ok(exports)
    }

    pub(super) fn has(&self, handler: Handler) -> bool {
        self.0[handler as usize].is_some()
    }
}

/// The handlers of an instance.
#[derive(Clone, Copy)]
pub(super) struct Handlers([Option<Func>; KINDS]);

impl Handlers {
    pub(super) fn of(instance: &Instance, store: &mut Store<State>, exports: Exports) -> Self {
        Self(
            exports
                .0
                .map(|index| index.and_then(|index| instance.get_func(&mut *store, index))),
        )
    }

    /// Checks that what is exported are functions with the types of the contract; after
    /// this they are called without another check.
    pub(super) fn check(
        &self,
        exports: Exports,
        store: &Store<State>,
    ) -> Result<(), (&'static str, String)> {
        for handler in Handler::ALL {
            let name = handler.interfaces()[0];
            let Some(func) = self.0[handler as usize] else {
                if exports.has(handler) {
                    return Err((name, NO_HANDLE.to_owned()));
                }
                continue;
            };
            let typed = match handler {
                Handler::Http => func.typed::<HttpParams<'static>, HttpResults>(store).err(),
                Handler::Invoke => func
                    .typed::<InvokeParams<'static>, InvokeResults>(store)
                    .err(),
                Handler::Schedule => func
                    .typed::<ScheduleParams<'static>, ScheduleResults>(store)
                    .err(),
                Handler::Queue => func
                    .typed::<QueueParams<'static>, QueueResults>(store)
                    .err(),
            };
            if let Some(error) = typed {
                return Err((name, format!("{error:#}")));
            }
        }
        Ok(())
    }

    fn get<Params, Return>(&self, handler: Handler) -> TypedFunc<Params, Return>
    where
        Params: ComponentNamedList + Lower,
        Return: ComponentNamedList + Lift,
    {
        let func = self.0[handler as usize];
        typed(func.expect("a trigger sends a function only what it handles"))
    }

    /// Calls the handler of an event. The outer error is an end that was none of the
    /// guest's making. `limit` is how large an answer may be, in bytes.
    pub(super) async fn enter(
        &self,
        store: &mut Store<State>,
        event: &Event,
        limit: u64,
    ) -> wasmtime::Result<Result<Answer, Failure>> {
        let reply = self.call(store, event).await?;
        Ok(reply.and_then(|reply| check(reply, limit)))
    }

    async fn call(
        &self,
        store: &mut Store<State>,
        event: &Event,
    ) -> wasmtime::Result<Result<Reply, Failure>> {
        match event {
            Event::Http(request) => self
                .enter_http(store, request)
                .await
                .map(|reply| Ok(Reply::Http(reply))),
            Event::Payload(payload) => {
                let handler = self.get::<InvokeParams<'_>, InvokeResults>(Handler::Invoke);
                let (result,) = handler.call_async(store, (payload,)).await?;
                Ok(result.map(Reply::Payload).map_err(|error| Failure {
                    kind: OutcomeKind::FunctionError,
                    error_type: error.error_type.into(),
                    message: error.message,
                    stack_trace: error.stack_trace,
                    retry_after: None,
                    rejected: false,
                }))
            }
            Event::Tick(tick) => self.enter_schedule(store, tick).await,
            Event::Batch(messages) => self.enter_queue(store, messages).await,
        }
    }

    async fn enter_http(
        &self,
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
        let handler = self.get::<HttpParams<'_>, HttpResults>(Handler::Http);
        let (response,) = handler.call_async(store, (params,)).await?;
        Ok(response)
    }

    async fn enter_schedule(
        &self,
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
        let handler = self.get::<ScheduleParams<'_>, ScheduleResults>(Handler::Schedule);
        let (result,) = handler.call_async(store, (params,)).await?;
        Ok(result
            .map(|()| Reply::Done)
            .map_err(|failure| Failure::advised(failure.into())))
    }

    async fn enter_queue(
        &self,
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
        let handler = self.get::<QueueParams<'_>, QueueResults>(Handler::Queue);
        let (failed,) = handler.call_async(store, (&batch,)).await?;
        Ok(Ok(Reply::Batch(failed)))
    }
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
