use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::*;
use crate::function::ComponentSource;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

fn name(name: &str) -> FunctionName {
    FunctionName::new(name).unwrap()
}

fn function(of: &str, reserved_concurrency: Option<u32>) -> FunctionSpec {
    FunctionSpec {
        reserved_concurrency,
        ..FunctionSpec::new(name(of), ComponentSource::File("x.wasm".into()))
    }
}

fn admission(concurrency: u32, wait: Duration, functions: &[(&str, Option<u32>)]) -> Admission {
    let functions: Vec<_> = functions.iter().map(|(f, r)| function(f, *r)).collect();
    Admission::new(concurrency, wait, functions.iter())
}

/// A lane that all share, of so many permits.
fn lane(concurrency: u32, wait: Duration) -> Lane {
    admission(concurrency, wait, &[]).lane(&name("any"))
}

fn gauge() -> IntGauge {
    IntGauge::new("waiting", "Events that wait").unwrap()
}

type Admitted = Result<Permit, Failure>;

/// What comes of it without any waiting.
fn at_once(admitted: impl Future<Output = Admitted>) -> Poll<Admitted> {
    poll(pin!(admitted))
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Takes so many permits, which are there.
fn take(lane: &Lane, count: usize) -> Vec<Permit> {
    let permit = |_| match at_once(lane.admit(&gauge())) {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("a permit is free: {other:?}"),
    };
    (0..count).map(permit).collect()
}

#[track_caller]
fn is_throttled(admitted: &Poll<Admitted>, reason: &str) {
    let Poll::Ready(Err(failure)) = admitted else {
        panic!("it is turned away: {admitted:?}");
    };
    assert_eq!(failure.kind, OutcomeKind::Throttled);
    assert_eq!(failure.error_type, "TooManyRequestsException");
    assert_eq!(failure.retry_after, Some(RETRY_AFTER));
    assert!(failure.message.starts_with(reason), "{failure:?}");
}

const SHARED: &str = "ConcurrentInvocationLimitExceeded";
const RESERVED: &str = "ReservedFunctionConcurrentInvocationLimitExceeded";

#[tokio::test]
async fn what_is_reserved_is_set_aside_and_is_the_most_a_function_gets() {
    let functions = [
        ("two", Some(2)),
        ("none", Some(0)),
        ("a", None),
        ("b", None),
    ];
    let admission = admission(5, Duration::ZERO, &functions);
    let [two, none, a, b] = functions.map(|(f, _)| admission.lane(&name(f)));

    // Those without a reservation share what is left.
    let mut shared = take(&a, 1);
    shared.extend(take(&b, 2));
    for lane in [&a, &b] {
        assert_eq!(lane.free(), 0);
        is_throttled(&at_once(lane.admit(&gauge())), SHARED);
    }
    // The others' turn is not theirs, and theirs not the others'.
    let reserved = take(&two, 2);
    is_throttled(&at_once(two.admit(&gauge())), RESERVED);
    drop(shared);
    is_throttled(&at_once(two.admit(&gauge())), RESERVED);
    drop(reserved);
    assert_eq!((two.free(), a.free(), b.free()), (2, 3, 3));
    is_throttled(&at_once(none.admit(&gauge())), RESERVED);
}

#[tokio::test]
async fn a_lane_without_permits_is_not_waited_for() {
    let admission = admission(2, LONG, &[("all", Some(3)), ("none", Some(0))]);
    is_throttled(
        &at_once(admission.lane(&name("none")).admit(&gauge())),
        RESERVED,
    );
    is_throttled(
        &at_once(admission.lane(&name("rest")).admit(&gauge())),
        SHARED,
    );
}

#[tokio::test]
async fn an_event_waits_for_a_permit_and_counts_as_waiting_until_it_has_one() {
    let (lane, gauge) = (lane(1, LONG), gauge());
    let taken = take(&lane, 1);
    let mut waits = pin!(lane.admit(&gauge));
    assert!(poll(waits.as_mut()).is_pending());
    assert_eq!(gauge.get(), 1);
    drop(taken);
    let permit = waits.await.expect("it is free");
    assert_eq!((gauge.get(), lane.free()), (0, 0));
    drop(permit);
    assert_eq!(lane.free(), 1);
}

#[tokio::test]
async fn an_event_that_waited_in_vain_is_throttled() {
    let wait = Duration::from_millis(30);
    let (lane, gauge) = (lane(1, wait), gauge());
    let _taken = take(&lane, 1);
    let begun = Instant::now();
    is_throttled(&Poll::Ready(lane.admit(&gauge).await), SHARED);
    assert!(begun.elapsed() >= wait);
    assert_eq!(gauge.get(), 0);
    // Without a wait it is so at once.
    let lane = self::lane(1, Duration::ZERO);
    let _taken = take(&lane, 1);
    is_throttled(&at_once(lane.admit(&gauge)), SHARED);
}

#[tokio::test]
async fn who_waits_longest_is_next_and_nobody_overtakes() {
    let (lane, gauge) = (lane(1, LONG), gauge());
    let mut running = take(&lane, 1);
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(lane.admit(&gauge))).collect();
    for event in &mut waiting {
        assert!(poll(event.as_mut()).is_pending());
    }
    while !waiting.is_empty() {
        drop(running);
        // One that comes now, before anybody was polled again.
        let late = Box::pin(lane.admit(&gauge));
        waiting.push(late);
        let newest = waiting.len() - 1;
        assert!(poll(waiting[newest].as_mut()).is_pending());
        for later in &mut waiting[1..] {
            assert!(poll(later.as_mut()).is_pending());
        }
        waiting.pop();
        running = match poll(waiting.remove(0).as_mut()) {
            Poll::Ready(Ok(permit)) => vec![permit],
            other => panic!("it is next: {other:?}"),
        };
    }
}

#[tokio::test]
async fn more_than_may_wait_are_throttled_at_once() {
    let (lane, gauge) = (lane(1, LONG), gauge());
    let _taken = take(&lane, 1);
    let mut waiting: Vec<_> = (0..MAX_WAITING)
        .map(|_| Box::pin(lane.admit(&gauge)))
        .collect();
    for event in &mut waiting {
        assert!(poll(event.as_mut()).is_pending());
    }
    assert_eq!(gauge.get(), 1000);
    for _ in 0..3 {
        is_throttled(&at_once(lane.admit(&gauge)), SHARED);
    }
    assert_eq!(gauge.get(), 1000);
    // One gives up: there is room for one.
    waiting.pop();
    let mut next = Box::pin(lane.admit(&gauge));
    assert!(poll(next.as_mut()).is_pending());
    is_throttled(&at_once(lane.admit(&gauge)), SHARED);
}

#[tokio::test]
async fn who_is_cancelled_leaves_nothing_behind() {
    let (lane, gauge) = (lane(1, LONG), gauge());
    let taken = take(&lane, 1);
    let mut gone = Box::pin(lane.admit(&gauge));
    let mut late = Box::pin(lane.admit(&gauge));
    for event in [&mut gone, &mut late] {
        assert!(poll(event.as_mut()).is_pending());
    }
    // The permit is its own, and it does not know of it yet.
    drop(taken);
    drop(gone);
    assert_eq!(gauge.get(), 1);
    let permit = match poll(late.as_mut()) {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("the permit went on: {other:?}"),
    };
    assert_eq!(gauge.get(), 0);
    drop(permit);
    assert_eq!(lane.free(), 1);
}

#[tokio::test]
async fn lanes_that_stay_as_they_were_keep_the_permits_that_are_out() {
    let before = admission(9, LONG, &[("stays", Some(2)), ("grows", Some(1))]);
    let lane = |admission: &Admission, of: &str| admission.lane(&name(of));
    let _out: Vec<_> = [("stays", 1), ("grows", 1), ("shared", 4)]
        .into_iter()
        .flat_map(|(of, count)| take(&lane(&before, of), count))
        .collect();

    let specs = [function("stays", Some(2)), function("grows", Some(3))];
    let grown = before.again(9, specs.iter());
    let free = |of| lane(&grown, of).free();
    // Six were shared and are four now: that lane is new.
    assert_eq!((free("stays"), free("grows"), free("shared")), (1, 3, 4));

    let specs = [function("stays", Some(2)), function("other", Some(1))];
    let same = before.again(9, specs.iter());
    let free = |of| lane(&same, of).free();
    assert_eq!((free("stays"), free("other"), free("shared")), (1, 1, 2));
}
