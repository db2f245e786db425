//! Code of the embedder that panics on a reactor: it ends its own call, and nothing else.

use crate::bench::*;
use ringback::{CallbackKey, CallbackOp, Event, Outbound, Runtime, SessionConfig, Transport};
use ringback_rpc::nfs4::Status;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

fn panics(_: &Runtime) {
    panic!("a panic of the embedder, on purpose")
}

#[track_caller]
fn assert_told(bench: &Bench, call: &'static str, key: Option<CallbackKey>) {
    let events = bench.hooks.events.lock().unwrap();
    let told: Vec<_> = events.iter().filter(|e| matches!(e, Event::Panicked { .. })).collect();
    assert_eq!(told, [&Event::Panicked { call, key }]);
    assert_eq!(bench.runtime.stats().embedder_panics, 1);
}

/// Rule R3: one completion, whatever the hooks do; and what else runs notices nothing.
#[test]
fn t33_a_hook_that_panics_ends_its_own_run_once() {
    for (stage, call, outcome) in [
        (Stage::Prepare, "Hooks::prepare", "Refused"),
        (Stage::Referring, "Hooks::referring_calls", "Unencodable"),
        (Stage::Encode, "Hooks::encode", "Unencodable"),
        (Stage::Done, "Hooks::done", "Replied"),
        (Stage::Release, "Hooks::release", "Replied"),
        (Stage::DropReference, "Hooks::drop_reference", "Replied"),
    ] {
        let bench = Bench::new();
        let (mut line, client, _) = bench.client(2);
        bench.during(1, stage, panics);
        let keys = [1, 2].map(|cookie| bench.recall(client, cookie));
        let sent: u64 = if outcome == "Replied" { 2 } else { 1 };
        (0..sent).for_each(|_| _ = line.serve());
        bench.until_idle();
        bench.assert_ended_once(1, outcome);
        bench.assert_ended_once(2, "Replied");
        assert_told(&bench, call, Some(keys[0]));
        // The callback is as good as before.
        bench.submit(keys[0]);
        assert_eq!(line.serve(), 1);
        bench.until_released(1, 2);
        bench.until_idle();
        bench.assert_slots_free();
    }
}

/// A call that the client may have executed cannot be written again: its session slot asks where the client stands.
#[test]
fn t36_a_panic_at_a_resend_leaves_the_slot_to_be_resynchronised() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(1);
    let key = bench.recall(client, 1);
    let sent = line.call();
    bench.during(1, Stage::Encode, panics);
    bench.runtime.close_connection(line.connection);
    let mut next = bench.line();
    bench.runtime.bind(next.connection, session).unwrap();
    let probe = next.call();
    assert_eq!((probe.op, probe.sequence), (None, sent.sequence));
    bench.assert_ended_once(1, "Unencodable");
    next.reply(probe.sequence_status(Status::NFS4ERR_RETRY_UNCACHED_REP));
    bench.until_idle();
    bench.submit(key);
    let call = next.call();
    assert_eq!(call.sequence, sent.sequence + 1);
    next.ok(&call);
    bench.until_idle();
    bench.assert_slots_free();
    assert_told(&bench, "Hooks::encode", Some(key));
}

#[test]
fn t31_a_panic_in_a_batch_costs_the_others_nothing() {
    let bench = Bench::new();
    let (line, client, _) = bench.client(1);
    let batching = SessionConfig { operations_max: 9, ..session_config(2, 1) };
    bench.runtime.close_connection(line.connection);
    let mut line = bench.line();
    bench.during(2, Stage::Encode, panics);
    let keys: Vec<_> = (1..=3).map(|cookie| bench.recall(client, cookie)).collect();
    let session = bench.runtime.add_session(client, batching).unwrap();
    bench.runtime.bind(line.connection, session).unwrap();
    for expected in [1, 3] {
        assert_eq!(line.serve(), expected);
    }
    bench.until_idle();
    bench.assert_ended_once(2, "Unencodable");
    assert_told(&bench, "Hooks::encode", Some(keys[1]));
}

#[test]
fn a_panic_of_the_event_hook_is_counted() {
    let bench = Bench::new();
    bench.hooks.event_panics.store(true, std::sync::atomic::Ordering::SeqCst);
    let (mut line, client, _) = bench.client(1);
    bench.recall(client, 1);
    assert_eq!(line.serve(), 1);
    bench.until_idle();
    // The path came up; and that this could not be told could not be told either.
    assert_eq!(bench.runtime.stats().embedder_panics, 2);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a panic of the embedder, on purpose")
    }
}

#[test]
fn t21_a_waker_that_panics_costs_the_other_waiters_nothing() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(1);
    let key = bench.recall(client, 1);
    let call = line.call();
    let waker = Waker::from(Arc::new(Panics));
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(bench.runtime.wait(key))).collect();
    for wait in &mut waits[..2] {
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    line.ok(&call);
    for wait in waits {
        let ended = std::pin::Pin::into_inner(wait).block(PATIENCE).unwrap();
        assert_eq!(ended.status(), Some(Status::NFS4_OK));
    }
    bench.until_idle();
    bench.assert_ended_once(1, "Replied");
}

#[test]
fn a_fore_channel_that_panics_closes_the_connection() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(1);
    bench.hooks.call_panics.store(true, std::sync::atomic::Ordering::SeqCst);
    // xid 7, CALL.
    line.reply(vec![0, 0, 0, 7, 0, 0, 0, 0]);
    bench.until("the connection is closed", |b| b.hooks.closed.lock().unwrap().contains(&line.connection));
    assert_told(&bench, "ForeChannel::call", None);
    bench.recall(client, 1);
    line.quiet();
    let mut next = bench.line();
    bench.runtime.bind(next.connection, session).unwrap();
    assert_eq!(next.serve(), 1);
    bench.until_idle();
}

struct Broken;

impl Transport for Broken {
    fn send(&mut self, _: Outbound) {
        panic!("a panic of the embedder, on purpose")
    }
    fn close(&mut self) {}
}

#[test]
fn f3_a_transport_that_panics_is_closed_and_the_next_one_used() {
    let bench = Bench::new();
    let broken = bench.runtime.add_transport(Box::new(Broken)).unwrap();
    let client = bench.runtime.add_client(Some(broken)).unwrap();
    let session = bench.runtime.add_session(client, session_config(1, 1)).unwrap();
    bench.runtime.bind(broken, session).unwrap();
    let key = bench.insert(client, CallbackOp::Getattr, 1);
    bench.submit(key);
    bench.until("the connection is closed", |b| b.hooks.closed.lock().unwrap().contains(&broken));
    assert_told(&bench, "Transport::send", None);
    let mut line = bench.line();
    bench.runtime.bind(line.connection, session).unwrap();
    assert_eq!(line.serve(), 1);
    bench.until_idle();
    bench.assert_ended_once(1, "Replied");
}
