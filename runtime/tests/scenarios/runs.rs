//! What becomes of one callback: requests, requeues and removals at every moment of its run.

use crate::bench::*;
use ringback::{Builder, CallbackOp, ClientState, Done, Remove, Returned, Runtime, SessionConfig, TryRun};
use ringback_rpc::nfs4::Status;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

#[test]
fn t2_a_kick_during_the_rpc_is_one_submission() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(4);
    let recall = bench.recall(client, 1);
    let call = line.call();
    for _ in 0..3 {
        assert_eq!(bench.runtime.try_run(recall), TryRun::Coalesced);
    }
    line.quiet();
    line.ok(&call);
    bench.until_released(1, 1);
    line.quiet();
    bench.assert_ended_once(1, "Replied");
    // CB_NOTIFY may have more to say: one run more, however often it was asked for.
    let notify = bench.insert(client, CallbackOp::Notify, 2);
    bench.submit(notify);
    let call = line.call();
    for _ in 0..3 {
        assert_eq!(bench.runtime.try_run(notify), TryRun::Rearmed);
    }
    line.quiet();
    line.ok(&call);
    assert_eq!(line.serve(), 2);
    bench.until_idle();
    line.quiet();
    let seen = bench.hooks.of(2);
    assert_eq!(
        (seen.acquired, seen.prepared, seen.released, seen.dropped),
        (1, 2, 2, 1),
        "a rearm keeps the reference"
    );
    bench.assert_slots_free();
}

/// Of a batch that stops at its first operation the client has not seen the second: nothing is owed for that.
#[test]
fn f4_what_the_client_did_not_get_to_is_not_owed() {
    let bench = Bench::new();
    let client = bench.runtime.add_client(None).unwrap();
    let [asked, fresh, earlier] = [1, 2, 3].map(|cookie| bench.insert(client, CallbackOp::Recall, cookie));
    let session =
        bench.runtime.add_session(client, SessionConfig { operations_max: 8, ..session_config(1, 1) }).unwrap();
    let mut first = bench.line();
    bench.runtime.bind(first.connection, session).unwrap();
    bench.submit(earlier);
    assert_eq!(first.serve(), 3);
    bench.until_idle();
    bench.runtime.close_connection(first.connection);
    for key in [asked, fresh, earlier] {
        bench.submit(key);
    }
    let mut line = bench.line();
    bench.runtime.bind(line.connection, session).unwrap();
    let call = line.call();
    assert_eq!(call.ops.iter().map(|(_, cookie)| *cookie).collect::<Vec<_>>(), [1, 2, 3]);
    std::thread::scope(|threads| {
        // Nothing new is sent from here on.
        let drain = threads.spawn(|| bench.runtime.drain_session(session, PATIENCE));
        bench.until("the session is drained", |b| b.runtime.seq4_status(client, Some(session)) != 0);
        line.reply(call.status(Status::NFS4ERR_BAD_STATEID));
        drain.join().unwrap().unwrap();
    });
    bench.assert_ended_once(1, "Replied");
    assert_eq!(bench.runtime.returned(asked), Returned::Noted);
    assert_eq!(bench.runtime.returned(fresh), Returned::NotAwaited);
    assert_eq!(bench.runtime.returned(earlier), Returned::Noted, "of the run before");
    bench.runtime.remove_client(client).unwrap();
    bench.until_idle();
    bench.assert_ended_once(2, "Cancelled { sent: false }");
}

#[test]
fn t18_a_run_that_ended_in_the_queue_does_not_skip_prepare_of_the_next() {
    let bench = Bench::with(Builder::new().reactors(1).run_deadline(Duration::from_millis(300)));
    let (mut line, client, _) = bench.client(1);
    let key = bench.recall(client, 1);
    let call = line.call();
    line.reply(call.status(Status::NFS4ERR_DELAY));
    // It is sent again once or twice, and times out while it waits: REQUEUE is still set then.
    while bench.hooks.of(1).released == 0 {
        if let Some(again) = line.call_within(Duration::from_millis(20)) {
            assert_eq!(bench.hooks.of(1).prepared, 1, "a resend does not prepare");
            line.reply(again.status(Status::NFS4ERR_DELAY));
        }
    }
    bench.until_idle();
    bench.assert_ended_once(1, "TimedOut { sent: true }");
    bench.submit(key);
    let call = line.call();
    assert_eq!(bench.hooks.of(1).prepared, 2);
    line.ok(&call);
    bench.until_released(1, 2);
    bench.until_idle();
    bench.assert_slots_free();
}

#[test]
fn t19_a_courtesy_client_is_not_called_and_a_rearm_is_dropped() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(4);
    let notify = bench.insert(client, CallbackOp::Notify, 1);
    bench.submit(notify);
    let late = line.call();
    assert_eq!(bench.runtime.try_run(notify), TryRun::Rearmed);
    bench.runtime.set_client_state(client, ClientState::Courtesy).unwrap();
    bench.until_idle();
    bench.assert_ended_once(1, "Courtesy");
    bench.recall(client, 2);
    bench.until_idle();
    bench.assert_ended_once(2, "Courtesy");
    assert_eq!((bench.hooks.of(1).prepared, bench.hooks.of(2).prepared), (1, 0));
    line.quiet();
    // It comes back, answers what it had, and is called again.
    line.ok(&late);
    bench.runtime.set_client_state(client, ClientState::Active).unwrap();
    bench.recall(client, 3);
    assert_eq!(line.serve(), 3);
    bench.until_released(3, 1);
    bench.until_idle();
    bench.assert_slots_free();
}

#[test]
fn t32_a_request_after_the_outcome_is_decided_runs_again() {
    for stage in [Stage::Done, Stage::Release] {
        let bench = Bench::new();
        let (mut line, client, _) = bench.client(4);
        let key = bench.insert(client, CallbackOp::Recall, 1);
        bench.during(1, stage, move |runtime| {
            // Whatever was answered, it was answered before this request.
            assert_eq!(runtime.try_run(key), TryRun::Rearmed);
            assert_eq!(runtime.try_run(key), TryRun::Rearmed);
        });
        bench.submit(key);
        assert_eq!(line.serve(), 1);
        assert_eq!(line.serve(), 1);
        bench.until_idle();
        line.quiet();
        let seen = bench.hooks.of(1);
        assert_eq!((seen.acquired, seen.prepared, seen.released, seen.dropped), (1, 2, 2, 1), "{stage:?}");
        bench.assert_slots_free();
    }
}

#[test]
fn t33_a_remove_inside_each_hook_is_one_release() {
    use Stage::*;
    for stage in [Acquire, Prepare, Referring, Encode, Done, Release, DropReference] {
        // A request that comes before the removal goes with it. After the finish it would be a run of its own.
        for rearmed in [false, stage != DropReference] {
            let bench = Bench::new();
            let (mut line, client, _) = bench.client(4);
            let key = bench.insert(client, CallbackOp::Notify, 1);
            let answer = Arc::new(Mutex::new(None));
            let answered = Arc::clone(&answer);
            bench.during(1, stage, move |runtime| {
                if rearmed {
                    assert_eq!(runtime.try_run(key), TryRun::Rearmed);
                }
                *answered.lock().unwrap() = Some(runtime.remove(key));
                assert!(matches!(runtime.try_run(key), TryRun::Dying | TryRun::Stale));
            });
            bench.submit(key);
            assert_eq!(line.serve(), 1);
            bench.until_idle();
            bench.assert_ended_once(1, "Replied");
            line.quiet();
            let expected = if stage == DropReference { Remove::Removed } else { Remove::Deferred };
            assert_eq!(*answer.lock().unwrap(), Some(expected), "{stage:?}");
            assert_eq!(bench.runtime.try_run(key), TryRun::Stale);
            bench.assert_slots_free();
        }
    }
}

#[test]
fn t34_requeue_and_rearm_are_the_resend_and_then_a_fresh_run() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(4);
    let key = bench.insert(client, CallbackOp::Notify, 1);
    bench.submit(key);
    let call = line.call();
    assert_eq!(bench.runtime.try_run(key), TryRun::Rearmed);
    line.reply(call.status(Status::NFS4ERR_DELAY));
    let resend = line.call();
    assert_eq!((resend.cookie(), bench.hooks.of(1).prepared), (1, 1), "REQUEUE acts first");
    line.ok(&resend);
    let fresh = line.call();
    let seen = bench.hooks.of(1);
    assert_eq!((seen.prepared, seen.done.len(), seen.released, seen.dropped), (2, 1, 1, 0), "REARM has survived");
    line.ok(&fresh);
    bench.until_idle();
    line.quiet();
    let seen = bench.hooks.of(1);
    assert_eq!((seen.acquired, seen.done.len(), seen.released, seen.dropped), (1, 2, 2, 1));
    bench.assert_slots_free();
}

#[test]
fn t7_a_winner_that_is_refused_leaves_an_idle_callback() {
    // Room for one callback: one that stayed RUNNING could not make room for the next.
    let bench = Bench::with(Builder::new().reactors(1).callbacks_max(1));
    for _ in 0..3 {
        let client = bench.runtime.add_client(None).unwrap();
        let key = bench.insert(client, CallbackOp::Recall, 1);
        bench.runtime.remove_client(client).unwrap();
        for _ in 0..3 {
            assert_eq!(bench.runtime.try_run(key), TryRun::Closed);
        }
        assert_eq!(bench.runtime.remove(key), Remove::Removed);
    }
    assert_eq!(bench.hooks.of(1), Seen::default(), "no hook was called");
    assert_eq!(bench.runtime.stats().in_flight, 0);
}

/// A hook that panics was the last thing that a removal, or a drain, had to wait for, and the reactor sleeps by then.
#[test]
fn t7_a_panic_of_acquire_ends_what_waits_for_the_run() {
    let bench = Bench::with(Builder::new().reactors(1).clients_max(1));
    let panics = |key| assert!(catch_unwind(AssertUnwindSafe(|| bench.runtime.try_run(key))).is_err());
    let client = bench.runtime.add_client(None).unwrap();
    let key = bench.insert(client, CallbackOp::Recall, 1);
    bench.during(1, Stage::Acquire, move |runtime| {
        runtime.remove_client(client).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        panic!("on purpose");
    });
    panics(key);
    assert_eq!(bench.runtime.remove(key), Remove::Removed);
    let next = Mutex::new(None);
    bench.until("the place of the client is free", |b| {
        *next.lock().unwrap() = b.runtime.add_client(None).ok();
        next.lock().unwrap().is_some()
    });
    let key = bench.insert(next.lock().unwrap().unwrap(), CallbackOp::Recall, 2);
    let drain = Arc::new(Mutex::new(None));
    let begun = Arc::clone(&drain);
    bench.during(2, Stage::Acquire, move |runtime| {
        *begun.lock().unwrap() = Some(Box::pin(runtime.start_drain(Duration::from_secs(1000))));
        std::thread::sleep(Duration::from_millis(30));
        panic!("on purpose");
    });
    panics(key);
    let mut drain = drain.lock().unwrap().take().unwrap();
    let mut look = Context::from_waker(Waker::noop());
    let drain = Mutex::new((&mut drain, &mut look));
    bench.until("the drain ends", |_| {
        let (drain, look) = &mut *drain.lock().unwrap();
        drain.as_mut().poll(look).is_ready()
    });
}

/// What an embedder keeps for one directory: notifications that were not told yet, up to a limit. Beyond it the
/// delegation is recalled instead.
struct Directory {
    pending: AtomicU64,
    told: AtomicU64,
    recalls: AtomicU64,
}

const NOTIFICATIONS_MAX: u64 = 64;

impl Directory {
    fn change(&self, runtime: &Runtime, notify: ringback::CallbackKey, recall: ringback::CallbackKey) {
        if self.pending.load(SeqCst) == NOTIFICATIONS_MAX {
            match runtime.try_run(recall) {
                TryRun::Submitted => assert_eq!(self.recalls.fetch_add(1, SeqCst), 0, "one escalation"),
                other => assert_eq!(other, TryRun::Coalesced),
            }
            return;
        }
        self.pending.fetch_add(1, SeqCst);
        assert!(matches!(runtime.try_run(notify), TryRun::Submitted | TryRun::Rearmed));
    }
}

#[test]
fn t11_a_notification_overflow_at_the_limit_drains_and_escalates_once() {
    for beyond in [0, 1, 1000] {
        let bench = Bench::new();
        let (mut line, client, _) = bench.client(4);
        let directory = Arc::new(Directory { pending: 0.into(), told: 0.into(), recalls: 0.into() });
        let notify = bench.insert(client, CallbackOp::Notify, 1);
        let recall = bench.insert(client, CallbackOp::Recall, 2);
        // Each run tells all that is pending when it is prepared.
        let take = |directory: &Arc<Directory>| {
            let directory = Arc::clone(directory);
            move |_: &Runtime| {
                directory.told.fetch_add(directory.pending.swap(0, SeqCst), SeqCst);
            }
        };
        bench.during(1, Stage::Prepare, take(&directory));
        directory.change(&bench.runtime, notify, recall);
        let first = line.call();
        assert_eq!(directory.told.load(SeqCst), 1);
        // The client is slow, and the limit is reached exactly; then passed.
        bench.during(1, Stage::Prepare, take(&directory));
        for _ in 0..NOTIFICATIONS_MAX + beyond {
            directory.change(&bench.runtime, notify, recall);
        }
        let mut calls = vec![first];
        if beyond > 0 {
            calls.push(line.call());
            assert_eq!(calls[1].cookie(), 2);
        }
        line.quiet();
        assert_eq!(directory.recalls.load(SeqCst), u64::from(beyond > 0), "one escalation");
        calls.iter().for_each(|call| line.ok(call));
        assert_eq!(line.serve(), 1);
        bench.until_idle();
        line.quiet();
        assert_eq!((directory.pending.load(SeqCst), directory.told.load(SeqCst)), (0, 1 + NOTIFICATIONS_MAX));
        // 65 or 1,065 requests were two runs: nothing spins.
        assert_eq!((bench.hooks.of(1).prepared, bench.hooks.of(2).prepared), (2, u32::from(beyond > 0)));
        bench.assert_slots_free();
    }
}

/// `done` asks for another transmission while the next request is already in: neither is lost.
#[test]
fn t22_a_denial_is_asked_again_and_a_request_meanwhile_is_served() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(4);
    let key = bench.insert(client, CallbackOp::Recall, 1);
    bench.hooks.answers.lock().unwrap().push_back(Done::RequeueAfter(10_000_000));
    bench.during(1, Stage::Done, move |runtime| assert_eq!(runtime.try_run(key), TryRun::Rearmed));
    bench.submit(key);
    let call = line.call();
    line.reply(call.status(Status::NFS4ERR_BAD_STATEID));
    let again = line.call();
    assert_eq!((again.cookie(), bench.hooks.of(1).released), (1, 0));
    line.ok(&again);
    assert_eq!(line.serve(), 1, "the run that the request asked for");
    bench.until_idle();
    line.quiet();
    let seen = bench.hooks.of(1);
    assert_eq!((seen.acquired, seen.prepared, seen.done.len(), seen.released, seen.dropped), (1, 2, 3, 2, 1));
    bench.assert_slots_free();
}
