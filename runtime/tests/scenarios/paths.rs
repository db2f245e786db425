//! Sessions and connections come and go under the runtime.

use crate::bench::*;
use ringback::{CallbackOp, Event, PathState};
use ringback_rpc::nfs4::{SessionId, Status};
use std::time::Duration;

#[test]
fn t15_parked_callbacks_cost_nothing_and_a_bind_wakes_them() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(4);
    for cookie in 0..8 {
        bench.recall(client, cookie);
    }
    let calls: Vec<_> = (0..4).map(|_| line.call()).collect();
    // The session goes while four runs wait for one of its slots.
    bench.runtime.remove_session(session).unwrap();
    line.quiet();
    let before = bench.runtime.stats();
    std::thread::sleep(Duration::from_millis(300));
    let after = bench.runtime.stats();
    assert_eq!((after.syscalls, after.wakes), (before.syscalls, before.wakes), "the reactor sleeps");
    calls.iter().for_each(|call| line.ok(call));
    // Sessions come and go; each wakes them, whatever it is that they wait for.
    for round in 2..6 {
        let next = bench.runtime.add_session(client, session_config(round, 4)).unwrap();
        line.quiet();
        bench.runtime.bind(line.connection, next).unwrap();
        assert_eq!(line.call().sequence, 1);
        (0..3).for_each(|_| drop(line.call()));
        bench.runtime.remove_session(next).unwrap();
    }
    let last = bench.runtime.add_session(client, session_config(9, 4)).unwrap();
    bench.runtime.bind(line.connection, last).unwrap();
    let mut served: Vec<_> = (0..8).map(|_| line.serve()).collect();
    served.sort_unstable();
    assert_eq!(served, (0..8).collect::<Vec<_>>());
    bench.until_idle();
    for cookie in 0..8 {
        bench.assert_ended_once(cookie, "Replied");
        assert_eq!(bench.hooks.of(cookie).prepared, 1);
    }
    bench.assert_slots_free();
}

#[test]
fn t13_replies_for_a_destroyed_session_are_dropped() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(4);
    for cookie in 0..4 {
        bench.recall(client, cookie);
    }
    let old: Vec<_> = (0..4).map(|_| line.call()).collect();
    bench.runtime.remove_session(session).unwrap();
    old.iter().for_each(|call| line.ok(call));
    line.quiet();
    assert_eq!(bench.runtime.stats().in_flight, 4, "nobody has answered them");
    let next = bench.runtime.add_session(client, session_config(2, 4)).unwrap();
    bench.runtime.bind(line.connection, next).unwrap();
    let new: Vec<_> = (0..4).map(|_| line.call()).collect();
    // Again, now that the slots of the new session are in use.
    old.iter().for_each(|call| line.ok(call));
    line.quiet();
    assert_eq!(bench.runtime.stats().in_flight, 4);
    assert_eq!(bench.runtime.census().unwrap().with_run, 4);
    new.iter().for_each(|call| line.ok(call));
    bench.until_idle();
    (0..4).for_each(|cookie| bench.assert_ended_once(cookie, "Replied"));
    bench.assert_slots_free();
}

/// What is out on a session that is destroyed, and what waits for its slots, goes over another one: that which the client
/// has, or the next.
#[test]
fn f7_recalls_of_a_destroyed_session_go_over_another_one() {
    for has_another in [false, true] {
        let bench = Bench::new();
        let (mut line, client, session) = bench.client(2);
        for cookie in 0..5 {
            bench.recall(client, cookie);
        }
        let lost = [line.call(), line.call()];
        let mut next = bench.line();
        let other = has_another.then(|| bench.runtime.add_session(client, session_config(2, 8)).unwrap());
        bench.runtime.remove_session(session).unwrap();
        line.quiet();
        let other = other.unwrap_or_else(|| bench.runtime.add_session(client, session_config(2, 8)).unwrap());
        bench.runtime.bind(next.connection, other).unwrap();
        let calls: Vec<_> = (0..5).map(|_| next.call()).collect();
        assert!(calls.iter().all(|call| call.session == SessionId([2; 16]) && call.sequence == 1));
        let mut cookies: Vec<_> = calls.iter().map(Called::cookie).collect();
        cookies.sort_unstable();
        assert_eq!(cookies, [0, 1, 2, 3, 4]);
        lost.iter().for_each(|call| line.ok(call));
        calls.iter().for_each(|call| next.ok(call));
        bench.until_idle();
        next.quiet();
        for cookie in 0..5 {
            bench.assert_ended_once(cookie, "Replied");
            assert_eq!(bench.hooks.of(cookie).prepared, 1);
        }
        bench.assert_slots_free();
    }
}

#[test]
fn t17_a_session_without_slots_is_a_fault_and_the_next_one_takes_over() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(3);
    for cookie in 0..6 {
        bench.recall(client, cookie);
    }
    for _ in 0..3 {
        let call = line.call();
        line.reply(call.sequence_status(Status::NFS4ERR_SEQ_MISORDERED));
    }
    line.quiet();
    const BACKCHANNEL_FAULT: u32 = 0x400;
    bench.until("the client is told", |b| b.runtime.seq4_status(client, Some(session)) & BACKCHANNEL_FAULT != 0);
    assert_eq!(bench.runtime.stats().in_flight, 6, "parked");
    let faults =
        bench.hooks.events.lock().unwrap().iter().filter(|e| matches!(e, Event::BackchannelFault { .. })).count();
    assert_eq!(faults, 1);
    bench.runtime.remove_session(session).unwrap();
    let next = bench.runtime.add_session(client, session_config(2, 3)).unwrap();
    bench.runtime.bind(line.connection, next).unwrap();
    let mut served: Vec<_> = (0..6).map(|_| line.serve()).collect();
    served.sort_unstable();
    assert_eq!(served, [0, 1, 2, 3, 4, 5]);
    bench.until_idle();
    (0..6).for_each(|cookie| bench.assert_ended_once(cookie, "Replied"));
    bench.assert_slots_free();
}

/// Nothing is probed: a bound path is up, and the first call that is needed shows whether it is.
#[test]
fn f5_a_thousand_new_sessions_send_nothing() {
    let bench = Bench::new();
    let mut line = bench.line();
    for n in 0..1000u32 {
        let client = bench.runtime.add_client(Some(line.connection)).unwrap();
        let session = bench.runtime.add_session(client, session_config(n as u8, 16)).unwrap();
        bench.runtime.bind(line.connection, session).unwrap();
    }
    let is_up = |e: &&Event| matches!(e, Event::PathState { state: PathState::Up, .. });
    bench.until("every path is up", |b| b.hooks.events.lock().unwrap().iter().filter(is_up).count() == 1000);
    line.quiet();
    let stats = bench.runtime.stats();
    assert_eq!((stats.callbacks_sent, stats.resynchronised, stats.sends), (0, 0, 0));
    assert_eq!(bench.runtime.census().unwrap().slots, 16_000);
}

/// A second connection of a client is idle while its first one works; when that goes, no new session is needed.
#[test]
fn f3_dead_connections_are_passed_over() {
    let bench = Bench::new();
    let (mut first, client, session) = bench.client(1);
    let (mut second, mut third) = (bench.line(), bench.line());
    bench.runtime.bind(second.connection, session).unwrap();
    bench.runtime.bind(third.connection, session).unwrap();
    bench.recall(client, 1);
    let call = first.call();
    bench.runtime.close_connection(first.connection);
    let again = second.call();
    bench.runtime.close_connection(second.connection);
    let last = third.call();
    assert!(call.bytes == again.bytes && call.bytes == last.bytes, "the identical call");
    third.ok(&last);
    bench.until_idle();
    bench.assert_ended_once(1, "Replied");
    bench.assert_slots_free();
}

/// The same for what was never sent: it goes wherever the client can be reached.
#[test]
fn t37_an_unsent_callback_goes_where_the_client_can_be_reached() {
    let bench = Bench::new();
    let (mut first, client, session) = bench.client(1);
    let mut second = bench.line();
    let other = bench.runtime.add_session(client, session_config(2, 1)).unwrap();
    bench.recall(client, 1);
    let pinned = first.call();
    bench.recall(client, 2);
    bench.runtime.close_connection(first.connection);
    bench.runtime.bind(second.connection, other).unwrap();
    assert_eq!(second.serve(), 2);
    second.quiet();
    const CB_PATH_DOWN_SESSION: u32 = 0x200;
    assert_eq!(bench.runtime.seq4_status(client, Some(session)), CB_PATH_DOWN_SESSION);
    assert_eq!(bench.runtime.seq4_status(client, Some(other)), 0);
    let mut third = bench.line();
    bench.runtime.bind(third.connection, session).unwrap();
    let again = third.call();
    assert_eq!(again.bytes, pinned.bytes);
    third.ok(&again);
    bench.until_idle();
    (1..3).for_each(|cookie| bench.assert_ended_once(cookie, "Replied"));
    bench.assert_slots_free();
}

/// Every operation, lost with its connection and sent again on the next one.
#[test]
fn t20_every_kind_arrives_after_a_reconnect() {
    let ops = CallbackOp::ALL.iter().filter(|op| !matches!(op, CallbackOp::Sequence | CallbackOp::Illegal));
    for (n, op) in ops.enumerate() {
        let bench = Bench::new();
        let (mut line, client, session) = bench.client(1);
        let (lost, unsent) = (bench.insert(client, *op, 1), bench.insert(client, *op, 2));
        bench.submit(lost);
        let first = line.call();
        bench.submit(unsent);
        bench.runtime.close_connection(line.connection);
        let mut line = bench.line();
        bench.runtime.bind(line.connection, session).unwrap();
        let again = line.call();
        assert_eq!(again.bytes, first.bytes, "{op} ({n})");
        line.ok(&again);
        assert_eq!(line.serve(), 2);
        bench.until_idle();
        (1..3).for_each(|cookie| bench.assert_ended_once(cookie, "Replied"));
        bench.assert_slots_free();
    }
}
