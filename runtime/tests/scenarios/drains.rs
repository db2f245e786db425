//! One run is cancelled, a session or a client is drained: what it concerns ends and is reported, the rest goes on.

use crate::bench::*;
use ringback::{CallbackOp, Cancel, Error, TryRun};
use ringback_rpc::nfs4::Status;
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[test]
fn t29_a_run_is_cancelled_wherever_it_is() {
    let bench = Bench::new();
    let (mut line, client, _session) = bench.client(2);
    let keys: Vec<_> = (0..4).map(|cookie| bench.recall(client, cookie)).collect();
    let calls = [line.call(), line.call()];
    // One waits for the reply, one for a delay, one for a session slot.
    line.reply(calls[1].status(Status::NFS4ERR_DELAY));
    let third = line.call();
    assert_eq!(third.cookie(), 2);
    for (cookie, sent) in [(0, true), (1, true), (3, false)] {
        assert_eq!(bench.runtime.cancel(keys[cookie as usize]), Cancel::Asked);
        bench.until_released(cookie, 1);
        bench.assert_ended_once(cookie, &format!("Cancelled {{ sent: {sent} }}"));
        assert_eq!(bench.runtime.cancel(keys[cookie as usize]), Cancel::Idle);
    }
    line.ok(&third);
    line.ok(&calls[0]);
    bench.until_idle();
    bench.assert_ended_once(2, "Replied");
    bench.assert_slots_free();
    // The callbacks are still there.
    bench.submit(keys[3]);
    assert_eq!(line.serve(), 3);
    bench.until_released(3, 2);
    bench.runtime.remove(keys[3]);
    assert_eq!(bench.runtime.cancel(keys[3]), Cancel::Stale);
}

/// Asked right after the request, before the reactor has seen it, and among many others.
#[test]
fn t29_a_run_that_has_just_been_submitted_is_cancelled_too() {
    let bench = Bench::new();
    let (_line, client, _session) = bench.client(1);
    let keys: Vec<_> = (0..20_000).map(|cookie| bench.insert(client, CallbackOp::Recall, cookie)).collect();
    for key in &keys {
        bench.submit(*key);
        if key.index % 100 == 99 {
            assert_eq!(bench.runtime.cancel(*key), Cancel::Asked);
        }
    }
    bench.until("those are cancelled", |b| b.runtime.stats().cancelled == 200);
    assert_eq!(bench.runtime.stats().in_flight, 20_000 - 200);
}

/// The run has ended by the time the reactor looks: the next one is none of the cancellation's business.
#[test]
fn t29_a_cancellation_does_not_meet_a_later_run() {
    let bench = Bench::new();
    let (mut line, client, _session) = bench.client(2);
    let (key, _other) = (bench.recall(client, 1), bench.recall(client, 2));
    let calls = [line.call(), line.call()];
    let (posted, both) = mpsc::channel();
    // While the reactor is at the other's reply, and this one's is there too.
    bench.during(2, Stage::Done, move |runtime| {
        both.recv_timeout(PATIENCE).unwrap();
        assert_eq!(runtime.cancel(key), Cancel::Asked);
    });
    bench.during(1, Stage::DropReference, move |runtime| assert_eq!(runtime.try_run(key), TryRun::Submitted));
    line.ok(&calls[1]);
    line.ok(&calls[0]);
    posted.send(()).unwrap();
    let again = line.call();
    assert_eq!(again.cookie(), 1);
    line.ok(&again);
    bench.until_idle();
    let seen = bench.hooks.of(1);
    assert!(seen.done.len() == 2 && seen.done.iter().all(|done| done.starts_with("Replied")), "{seen:?}");
}

/// A run that was asked for again is cancelled with all that was asked (Cancelled drops REARM).
#[test]
fn a_cancelled_run_does_not_run_again() {
    let bench = Bench::new();
    let (mut line, client, _session) = bench.client(1);
    let key = bench.insert(client, CallbackOp::RecallAny, 5);
    bench.submit(key);
    let call = line.call();
    assert_eq!(bench.runtime.try_run(key), TryRun::Rearmed);
    assert_eq!(bench.runtime.cancel(key), Cancel::Asked);
    bench.until_idle();
    line.ok(&call);
    line.quiet();
    bench.assert_ended_once(5, "Cancelled { sent: true }");
}

#[test]
fn f13_one_client_is_drained_and_the_others_go_on() {
    let bench = Bench::new();
    let (mut line, client, _session) = bench.client(2);
    let (mut other_line, other, _other_session) = bench.client(2);
    let keys: Vec<_> = (0..6).map(|cookie| bench.recall(client, cookie)).collect();
    let calls = [line.call(), line.call()];
    bench.recall(other, 10);
    let other_call = other_line.call();
    line.ok(&calls[0]);
    // The next one goes out before the drain comes.
    let third = line.call();
    let begun = Instant::now();
    let report = bench.runtime.drain_client(client, Duration::from_millis(200)).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200) && begun.elapsed() < PATIENCE);
    let mut abandoned = report.abandoned.clone();
    abandoned.sort();
    assert_eq!(abandoned, [keys[calls[1].cookie() as usize], keys[third.cookie() as usize]]);
    let mut unsent = report.unsent.clone();
    unsent.sort();
    let gone = [calls[0].cookie(), calls[1].cookie(), third.cookie()].map(|cookie| keys[cookie as usize]);
    assert_eq!(unsent, keys.iter().copied().filter(|key| !gone.contains(key)).collect::<Vec<_>>());
    assert_eq!(report.in_flight, 0);
    assert_eq!(bench.runtime.try_run(keys[0]), TryRun::Closed);
    assert_eq!(bench.runtime.stats().in_flight, 1, "the other client's");
    bench.recall(other, 11);
    other_line.ok(&other_call);
    assert_eq!(other_line.serve(), 11);
    bench.until_idle();
    // A second time there is nothing to do; and a client that is gone is none.
    let again = bench.runtime.drain_client(client, PATIENCE).unwrap();
    assert_eq!((again.abandoned.len(), again.unsent.len(), again.in_flight), (0, 0, 0));
    bench.runtime.remove_client(client).unwrap();
    assert_eq!(bench.runtime.drain_client(client, PATIENCE), Err(Error::NoSuchClient));
}

/// All is answered in time: the drain does not wait for its deadline.
#[test]
fn t1_a_drain_of_a_client_ends_with_its_last_answer() {
    let bench = Bench::new();
    let (mut line, client, _session) = bench.client(2);
    for cookie in 0..2 {
        bench.recall(client, cookie);
    }
    let calls = [line.call(), line.call()];
    let runtime = bench.runtime.clone();
    let drain = std::thread::spawn(move || runtime.drain_client(client, Duration::from_secs(3600)).unwrap());
    std::thread::sleep(Duration::from_millis(20));
    calls.iter().for_each(|call| line.ok(call));
    let report = drain.join().unwrap();
    assert_eq!((report.abandoned.len(), report.unsent.len(), report.in_flight), (0, 0, 0));
    (0..2).for_each(|cookie| bench.assert_ended_once(cookie, "Replied"));
}

#[test]
fn t12_one_session_is_drained_and_its_callbacks_take_another_one() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(2);
    let keys: Vec<_> = (0..4).map(|cookie| bench.recall(client, cookie)).collect();
    let calls = [line.call(), line.call()];
    let runtime = bench.runtime.clone();
    let drain = std::thread::spawn(move || runtime.drain_session(session, Duration::from_millis(300)).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    line.ok(&calls[0]);
    line.quiet();
    let mut next = bench.line();
    let other = bench.runtime.add_session(client, session_config(2, 1)).unwrap();
    bench.runtime.bind(next.connection, other).unwrap();
    assert_eq!([next.serve(), next.serve()], [2, 3], "unsent, hence free to go");
    let report = drain.join().unwrap();
    assert_eq!((report.abandoned, report.unsent), (vec![keys[1]], vec![]));
    bench.until_idle();
    bench.assert_ended_once(1, "Cancelled { sent: true }");
    for cookie in [0, 2, 3] {
        bench.assert_ended_once(cookie, "Replied");
    }
    bench.runtime.remove_session(session).unwrap();
    bench.assert_slots_free();
    // A session that is gone has nothing out.
    assert_eq!(bench.runtime.drain_session(session, PATIENCE).unwrap().abandoned, []);
}

/// The runtime is drained while a client and a session are: each drain reports what it has ended.
#[test]
fn drains_of_a_session_a_client_and_the_runtime_at_once() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(2);
    let keys: Vec<_> = (0..2).map(|cookie| bench.recall(client, cookie)).collect();
    let _unanswered = [line.call(), line.call()];
    let patience = Duration::from_millis(300);
    let (one, two) = (bench.runtime.clone(), bench.runtime.clone());
    let of_session = std::thread::spawn(move || one.drain_session(session, patience * 10).unwrap());
    let of_client = std::thread::spawn(move || two.drain_client(client, patience * 10).unwrap());
    std::thread::sleep(patience / 3);
    let mut report = bench.runtime.drain(patience).unwrap();
    report.abandoned.sort();
    assert_eq!((report.abandoned, report.in_flight), (keys.clone(), 0));
    let mut report = of_client.join().unwrap();
    report.abandoned.sort();
    assert_eq!((report.abandoned, report.in_flight), (keys, 0));
    assert_eq!(of_session.join().unwrap().abandoned, [], "others have ended them");
}

#[test]
fn t30_a_hook_drains_nothing() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(1);
    let (told, answers) = mpsc::channel();
    let key = bench.insert(client, CallbackOp::Recall, 1);
    bench.during(1, Stage::Done, move |runtime| {
        let of_client = runtime.drain_client(client, PATIENCE).unwrap_err();
        let of_session = runtime.drain_session(session, PATIENCE).unwrap_err();
        told.send((of_client, of_session, runtime.cancel(key))).unwrap();
    });
    bench.submit(key);
    line.serve();
    let (of_client, of_session, cancel) = answers.recv_timeout(PATIENCE).unwrap();
    assert_eq!((of_client, of_session), (Error::InHook, Error::InHook));
    assert_eq!(cancel, Cancel::Idle, "it is decided");
    bench.until_idle();
    bench.assert_ended_once(1, "Replied");
    bench.submit(key);
    assert_eq!(line.serve(), 1);
}
