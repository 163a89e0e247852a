use super::*;
use std::cell::Cell;
use std::rc::Rc;

/// Takes `slices` slices of a millisecond each, as a busy guest does.
async fn busy(share: Arc<Share>, used: Rc<Cell<u64>>, stop: Rc<Cell<bool>>) {
    let mut first = true;
    let seat = Seat::new(&share);
    while !stop.get() {
        if !(first && may_start(&share)) {
            let mut turn = seat.turn();
            poll_fn(|context| {
                let poll = Pin::new(&mut turn).poll(context);
                if poll.is_ready() {
                    let taken = TAKEN.replace(0);
                    with_core(|core| core.charge(&share, Duration::from_millis(1)));
                    with_core(|core| core.turn_over(taken));
                    used.set(used.get() + 1);
                }
                poll
            })
            .await;
        }
        first = false;
    }
}

fn on_a_core<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::task::spawn_local(give_out(0));
        tokio::task::yield_now().await;
        test.await;
    });
    CORE.set(None);
}

#[test]
fn a_flood_of_one_function_costs_its_neighbour_a_share_and_no_more() {
    on_a_core(async {
        let (flood, lone) = (Share::new(100, 1), Share::new(100, 1));
        let stop = Rc::new(Cell::new(false));
        let used = [Rc::new(Cell::new(0)), Rc::new(Cell::new(0))];
        for _ in 0..50 {
            tokio::task::spawn_local(busy(
                Arc::clone(&flood),
                Rc::clone(&used[0]),
                Rc::clone(&stop),
            ));
        }
        tokio::task::spawn_local(busy(
            Arc::clone(&lone),
            Rc::clone(&used[1]),
            Rc::clone(&stop),
        ));
        while used[0].get() + used[1].get() < 1000 {
            tokio::task::yield_now().await;
        }
        stop.set(true);
        let share = used[1].get() as f64 / 1000.0;
        assert!((0.45..=0.55).contains(&share), "{share}");
    });
}

#[test]
fn shares_follow_the_weights() {
    on_a_core(async {
        let (light, heavy) = (Share::new(100, 1), Share::new(300, 1));
        let stop = Rc::new(Cell::new(false));
        let used = [Rc::new(Cell::new(0)), Rc::new(Cell::new(0))];
        for (share, used) in [(&light, &used[0]), (&heavy, &used[1])] {
            for _ in 0..4 {
                tokio::task::spawn_local(busy(
                    Arc::clone(share),
                    Rc::clone(used),
                    Rc::clone(&stop),
                ));
            }
        }
        while used[0].get() + used[1].get() < 1000 {
            tokio::task::yield_now().await;
        }
        stop.set(true);
        let share = used[1].get() as f64 / 1000.0;
        assert!((0.72..=0.78).contains(&share), "{share}");
    });
}

#[test]
fn a_turn_that_is_given_up_goes_to_the_next() {
    on_a_core(async {
        let share = Share::new(100, 1);
        let mut first = Seat::new(&share).turn();
        let mut second = Seat::new(&share).turn();
        poll_fn(|context| {
            assert!(Pin::new(&mut first).poll(context).is_pending());
            assert!(Pin::new(&mut second).poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        // Granted while nobody polls it, then dropped; and one dropped while it waits.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        drop(first);
        tokio::time::timeout(Duration::from_secs(5), second)
            .await
            .unwrap();
    });
}

/// Charges a function, with the sockets polled right after.
fn charge(share: &Arc<Share>, millis: u64) {
    with_core(|core| {
        core.charge(share, Duration::from_millis(millis));
        core.since_poll = 0;
    });
}

/// Makes a guest of this function wait for its turn.
async fn wait_for_a_turn(share: &Arc<Share>) -> Turn {
    let mut turn = Seat::new(share).turn();
    poll_fn(|context| {
        assert!(Pin::new(&mut turn).poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    turn
}

#[test]
fn a_function_that_is_not_ahead_starts_at_once_and_one_that_is_queues() {
    on_a_core(async {
        let (quiet, busy) = (Share::new(100, 1), Share::new(100, 1));
        assert!(may_start(&busy));
        charge(&busy, 5);
        let _turn = wait_for_a_turn(&busy).await;
        assert!(!may_start(&busy), "its own invocations wait already");
        assert!(may_start(&quiet), "it had less than those that wait");
        charge(&quiet, 20);
        assert!(!may_start(&quiet), "now it had more");
    });
}

#[test]
fn what_a_function_left_unused_goes_first_up_to_its_bound() {
    on_a_core(async {
        let (quiet, busy) = (Share::new(100, 1), Share::new(100, 1));
        charge(&quiet, 1);
        // A second of the core, turn by turn.
        for _ in 0..100 {
            charge(&busy, 10);
        }
        let _turn = wait_for_a_turn(&busy).await;
        let credit = CREDIT / 1_000_000;
        charge(&quiet, credit);
        assert!(may_start(&quiet), "it saved that up");
        // The other began its last turn 10 ms earlier, and one slice is no matter.
        charge(&quiet, 12);
        assert!(!may_start(&quiet), "and no more");
    });
}

#[test]
fn after_a_slice_of_work_the_sockets_come_before_another_start() {
    on_a_core(async {
        let share = Share::new(100, 1);
        with_core(|core| core.charge(&share, Duration::from_micros(500)));
        assert!(may_start(&share));
        with_core(|core| core.charge(&share, Duration::from_millis(1)));
        assert!(!may_start(&share));
        // The granter lets the sockets be polled.
        while !may_start(&share) {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_function_starts_on_the_core_where_it_has_least_before_it() {
    let share = Share::new(100, 3);
    let waits = |millis: [u64; 3]| {
        for (core, value) in share.pressure.iter().zip(millis) {
            core.store(value * 1_000_000, Ordering::Relaxed);
        }
    };
    assert_eq!(share.core_with_less(0), None);
    waits([2, 2, 3]);
    assert_eq!(share.core_with_less(0), None, "nowhere less");
    assert_eq!(share.core_with_less(2), Some(0));
    waits([2, 1, 0]);
    assert_eq!(share.core_with_less(0), Some(2));
    assert_eq!(share.core_with_less(7), None, "no core");
    share.pressure[0].store(WORTH_MOVING - 1, Ordering::Relaxed);
    share.pressure[2].store(0, Ordering::Relaxed);
    assert_eq!(share.core_with_less(0), None, "not worth it");
}

#[test]
fn who_left_does_not_keep_others_from_their_turn() {
    on_a_core(async {
        let (first, second) = (Share::new(100, 1), Share::new(100, 1));
        charge(&second, 5);
        let running = wait_for_a_turn(&first).await;
        let mut leaves = Some(wait_for_a_turn(&first).await);
        let waits = wait_for_a_turn(&second).await;
        let mut running = Box::pin(running);
        poll_fn(|context| {
            let turn = || {
                let poll = running.as_mut().poll(context);
                if poll.is_ready() {
                    leaves.take();
                }
                poll
            };
            charged(&first, turn).0
        })
        .await;
        tokio::time::timeout(Duration::from_secs(5), waits)
            .await
            .unwrap();
    });
}

#[test]
fn what_waits_is_seen_by_the_other_cores() {
    on_a_core(async {
        let share = Share::new(100, 2);
        // Turns of about a millisecond.
        charge(&share, 8);
        let turn = with_core(|core| core.queue(&share).turn).unwrap();
        assert!(turn > 0);
        let pressure = || share.pressure[0].load(Ordering::Relaxed);
        let first = wait_for_a_turn(&share).await;
        let second = wait_for_a_turn(&share).await;
        assert_eq!(pressure(), 2 * turn);
        drop(first);
        tokio::time::timeout(Duration::from_secs(5), second)
            .await
            .unwrap();
        assert_eq!(pressure(), 0);
    });
}

#[test]
fn a_slice_that_panics_ends_its_turn() {
    on_a_core(async {
        let share = Share::new(100, 1);
        let turn = wait_for_a_turn(&share).await;
        let mut turn = Box::pin(turn);
        let panicked = poll_fn(|context| {
            if with_core(|core| core.outstanding) == Some(0) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let panics = std::panic::AssertUnwindSafe(|| {
                charged(&share, || {
                    assert!(turn.as_mut().poll(context).is_ready());
                    panic!("a fault of the host")
                })
            });
            Poll::Ready(std::panic::catch_unwind(panics))
        });
        assert!(panicked.await.is_err());
        assert_eq!(with_core(|core| core.outstanding), Some(0));
    });
}

#[test]
fn an_expired_guest_ends_before_the_others_of_its_function_run() {
    on_a_core(async {
        let share = Share::new(100, 1);
        let (busy, expired) = (Seat::new(&share), Seat::new(&share));
        let mut waiting: Vec<_> = (0..3).map(|_| Seat::new(&share).turn()).collect();
        let mut own = expired.turn();
        poll_fn(|context| {
            for turn in &mut waiting {
                assert!(Pin::new(turn).poll(context).is_pending());
            }
            assert!(Pin::new(&mut own).poll(context).is_pending());
            assert!(!expired.expire(context), "others contend");
            Poll::Ready(())
        })
        .await;
        tokio::time::timeout(
            Duration::from_secs(5),
            poll_fn(|context| {
                if expired.may_end(context) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }),
        )
        .await
        .unwrap();
        poll_fn(|context| {
            for turn in &mut waiting {
                assert!(Pin::new(turn).poll(context).is_pending(), "they come after");
            }
            Poll::Ready(())
        })
        .await;
        drop(busy);
    });
}

#[test]
fn an_expired_guest_that_is_dropped_holds_up_nobody() {
    on_a_core(async {
        let share = Share::new(100, 1);
        let (expired, other) = (Seat::new(&share), Seat::new(&share));
        let mut waiting = Seat::new(&share).turn();
        poll_fn(|context| {
            assert!(Pin::new(&mut waiting).poll(context).is_pending());
            assert!(!expired.expire(context), "another contends");
            Poll::Ready(())
        })
        .await;
        // Granted by now, and never taken.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        expired.leave();
        drop(waiting);
        tokio::time::timeout(Duration::from_secs(5), other.turn())
            .await
            .unwrap();
    });
}

#[test]
fn what_the_kernel_gives_to_others_is_charged_to_nobody_where_others_wait() {
    let nap = Duration::from_millis(50);
    let slept = |contended| {
        let watch = Stopwatch::start(contended);
        std::thread::sleep(nap);
        watch.elapsed()
    };
    assert!(slept(false) >= nap);
    assert!(slept(true) < nap / 2);
    // Where it works itself, it is charged with that.
    let watch = Stopwatch::start(true);
    let before = read_thread_time(Instant::now());
    while read_thread_time(Instant::now()) - before < nap {}
    assert!(watch.elapsed() >= nap);
}
