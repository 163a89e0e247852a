//! `dunlin:event/producer`: a function sends to queues, and invokes others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wasmtime::component::{Accessor, HasSelf};

use super::producer_bindings::dunlin::event::producer;
use crate::invocation::{Letter, Refused};
use crate::queue::message::Attribute;
use crate::queue::settings::DELAY_RANGE;
use crate::queue::{NewMessage, QueueName};
use crate::runtime::{Charge, State};

/// Messages of one `send-batch`: SQS's limit.
const MAX_BATCH: usize = 10;
/// Calls that one instance may have under way: their arguments are held by the host.
const MAX_CALLS: usize = 16;
/// Attributes of a message: SQS's limit.
const MAX_ATTRIBUTES: usize = 10;
/// The longest name of an attribute: SQS's limit.
const MAX_NAME: usize = 256;
/// The longest group and deduplication id: SQS's limit.
const MAX_ID: usize = 128;

impl From<Refused> for producer::Error {
    fn from(refused: Refused) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match refused {
            Refused::NotFound(name) => Self::NotFound(name),
            Refused::TooLarge(most) => Self::TooLarge(most),
            Refused::Invalid(what) => Self::Invalid(what),
            Refused::Throttled(after) => Self::Throttled(after.map(millis)),
            Refused::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

/// The length of the chain that what is sent now stands in.
fn depth(state: &State) -> u32 {
    let current = state.current.as_ref();
    current.map_or(0, |current| current.call.depth.saturating_add(1))
}

/// What is wrong with a message for any queue, by SQS's rules.
fn problem(outgoing: &producer::Outgoing) -> Option<String> {
    let longest = u64::try_from(DELAY_RANGE.end().as_millis()).unwrap_or(u64::MAX);
    if outgoing.delay > longest {
        return Some(format!(
            "a delay of {} ms is more than {longest} ms",
            outgoing.delay
        ));
    }
    if outgoing.attributes.len() > MAX_ATTRIBUTES {
        let count = outgoing.attributes.len();
        return Some(format!("{count} attributes are more than {MAX_ATTRIBUTES}"));
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    for (name, value) in &outgoing.attributes {
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(good) {
            return Some(format!(
                "`{}` cannot name an attribute: use 1 to {MAX_NAME} letters, digits, `_`, `-` and `.`",
                name[..name.floor_char_boundary(MAX_ID)].escape_debug()
            ));
        }
        if value.is_empty() {
            return Some(format!("the attribute `{name}` is empty"));
        }
    }
    let ids = [
        ("group", outgoing.group.as_ref()),
        ("deduplication id", outgoing.deduplication_id.as_ref()),
    ];
    for (what, id) in ids {
        if let Some(id) = id
            && (id.is_empty() || id.len() > MAX_ID || !id.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Some(format!(
                "`{}` is no {what}: use 1 to {MAX_ID} visible ASCII characters",
                id[..id.floor_char_boundary(MAX_ID)].escape_debug()
            ));
        }
    }
    None
}

fn message(outgoing: producer::Outgoing, depth: u32) -> NewMessage {
    let attributes = outgoing.attributes.into_iter().map(|(name, value)| {
        let kind = "String".to_owned();
        let value = value.into_bytes();
        (name, Attribute { kind, value })
    });
    NewMessage {
        body: outgoing.body.into(),
        attributes: attributes.collect(),
        delay: (outgoing.delay > 0).then(|| Duration::from_millis(outgoing.delay)),
        group: outgoing.group,
        deduplication: outgoing.deduplication_id,
        depth,
        id: None,
    }
}

/// A call that is under way, with what the host holds for it.
struct Posting {
    calls: Arc<AtomicUsize>,
    _charge: Charge,
}

impl Posting {
    /// One more call of this instance, with arguments of so many bytes.
    fn begin(state: &State, bytes: usize) -> Result<Self, producer::Error> {
        let throttled = || producer::Error::Throttled(None);
        let calls = Arc::clone(&state.posting);
        if calls.fetch_add(1, Ordering::Relaxed) >= MAX_CALLS {
            calls.fetch_sub(1, Ordering::Relaxed);
            return Err(throttled());
        }
        let mut charge = state.limiter.budget().charge();
        let has_room = charge.grow(bytes as u64);
        let posting = Self {
            calls,
            _charge: charge,
        };
        has_room.then_some(posting).ok_or_else(throttled)
    }
}

impl Drop for Posting {
    fn drop(&mut self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a message takes in memory, about.
fn weight(outgoing: &producer::Outgoing) -> usize {
    let attributes = outgoing.attributes.iter();
    let attributes = attributes.map(|(name, value)| name.len() + value.len());
    outgoing.body.len() + attributes.sum::<usize>()
}

/// A queue that the function may send to.
fn allowed(state: &State, queue: &str) -> Result<QueueName, producer::Error> {
    let sends_to = &state.common.spec.sends_to;
    let found = sends_to.iter().find(|name| name.as_str() == queue);
    let not_allowed = || producer::Error::NotAllowed(format!("`{queue}` is not in its `sends-to`"));
    found.cloned().ok_or_else(not_allowed)
}

impl<T: Send + 'static> producer::HostWithStore<T> for HasSelf<State> {
    async fn send(
        accessor: &Accessor<T, Self>,
        queue: String,
        message: producer::Outgoing,
    ) -> Result<String, producer::Error> {
        let mut sent = post(accessor, queue, vec![message]).await;
        sent.pop().expect("there is an answer for each message")
    }

    async fn send_batch(
        accessor: &Accessor<T, Self>,
        queue: String,
        messages: Vec<producer::Outgoing>,
    ) -> Vec<Result<String, producer::Error>> {
        post(accessor, queue, messages).await
    }

    async fn invoke(
        accessor: &Accessor<T, Self>,
        function: String,
        payload: Vec<u8>,
    ) -> Result<String, producer::Error> {
        let (outbox, letter, _posting) = accessor.with(|mut access| {
            let state: &State = access.get();
            let posting = Posting::begin(state, payload.len())?;
            let (name, qualifier) = match function.split_once(':') {
                Some((name, qualifier)) => (name, Some(qualifier.to_owned())),
                None => (function.as_str(), None),
            };
            let invokes = &state.common.spec.invokes;
            let Some(name) = invokes.iter().find(|other| other.as_str() == name) else {
                let why = format!("`{name}` is not in its `invokes`");
                return Err(producer::Error::NotAllowed(why));
            };
            let letter = Letter {
                function: name.clone(),
                qualifier,
                payload: payload.into(),
                depth: depth(state),
                traceparent: state
                    .current
                    .as_ref()
                    .and_then(|current| current.call.traceparent.clone()),
            };
            Ok((state.common.outbox.clone(), letter, posting))
        })?;
        Ok(outbox.invoke(letter).await?)
    }
}

/// Sends those that can be sent; each is answered for itself, in their order.
async fn post<T: Send + 'static>(
    accessor: &Accessor<T, HasSelf<State>>,
    queue: String,
    outgoing: Vec<producer::Outgoing>,
) -> Vec<Result<String, producer::Error>> {
    let count = outgoing.len();
    let ready = accessor.with(|mut access| {
        let state: &State = access.get();
        let queue = allowed(state, &queue)?;
        if count > MAX_BATCH {
            let what = format!("{count} messages at once, more than {MAX_BATCH}");
            return Err(producer::Error::Invalid(what));
        }
        let posting = Posting::begin(state, outgoing.iter().map(weight).sum())?;
        Ok((state.common.outbox.clone(), queue, depth(state), posting))
    });
    let (outbox, queue, depth, _posting) = match ready {
        Ok(ready) => ready,
        Err(error) => return vec![Err(error); count],
    };
    let problems: Vec<Option<String>> = outgoing.iter().map(problem).collect();
    let good = outgoing.into_iter().zip(&problems);
    let good = good.filter(|(_, problem)| problem.is_none());
    let messages = good.map(|(outgoing, _)| message(outgoing, depth)).collect();
    let mut sent = outbox.send(queue, messages).await.into_iter();
    let answers = problems.into_iter().map(|problem| match problem {
        Some(problem) => Err(producer::Error::Invalid(problem)),
        None => {
            let sent = sent.next().expect("there is an answer for each message");
            sent.map_err(Into::into)
        }
    });
    answers.collect()
}

impl producer::Host for State {}
