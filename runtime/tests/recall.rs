//! The whole way of a callback, over real sockets, on each back end.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{Backend, Builder, ClientId, ConnectionId, Done, Event, Hooks, Outcome, Remove, Run, Runtime, TryRun};
use ringback_rpc::nfs4::Status;
use ringback_rpc::xdr::{self, Writer};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn build(backend: Backend, reactors: usize, hooks: &Arc<Counting>) -> Runtime {
    Builder::new().backend(backend).reactors(reactors).build(Arc::clone(hooks) as _, Arc::new(Deaf)).unwrap()
}

#[test]
fn every_callback_completes_once() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 1, &hooks);
        let (server, stream) = pair();
        let client_thread = answer_all(stream);
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 8)).unwrap();
        runtime.bind(connection, session).unwrap();
        let keys = insert_all(&runtime, client, 0..1000);
        for key in &keys {
            assert_eq!(runtime.try_run(*key), TryRun::Submitted);
        }
        eventually("all are released", || hooks.released() == 1000);
        assert_clean(&runtime, &hooks, 0..1000);
        assert_eq!((runtime.stats().callbacks_sent, runtime.stats().resent), (1000, 0));
        let census = runtime.census().unwrap();
        assert_eq!((census.slots, census.free, census.with_run), (8, 8, 0));
        for key in keys {
            assert_eq!(runtime.remove(key), Remove::Removed);
            assert_eq!(runtime.try_run(key), TryRun::Stale);
        }
        let report = runtime.shutdown(Duration::from_secs(5)).unwrap();
        assert_eq!((report.abandoned.len(), report.in_flight), (0, 0));
        let mut received = client_thread.join().unwrap();
        received.sort_unstable();
        assert_eq!(received, (0..1000).collect::<Vec<_>>());
        assert!(hooks.of(7).done[0].contains("Replied"));
    }
}

/// A client whose home is one reactor, and its connection, which another one drives. The other socket keeps a connection to the
/// home.
fn client_from_elsewhere(mode: &Mode, runtime: &Runtime) -> (ClientId, ConnectionId, JoinHandle<Vec<u64>>, TcpStream) {
    let (server, stream) = pair();
    let (other, keep) = pair();
    let client_thread = answer_all(stream);
    let connection = mode.add_connection(runtime, server).unwrap();
    let elsewhere = mode.add_connection(runtime, other).unwrap();
    assert_ne!(connection.reactor(), elsewhere.reactor());
    (runtime.add_client(Some(elsewhere)).unwrap(), connection, client_thread, keep)
}

/// The client's home is one reactor, its connection is driven by another, which carries the bytes.
#[test]
fn f12_a_connection_of_another_reactor_carries_the_callbacks() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 2, &hooks);
        let (client, connection, client_thread, _keep) = client_from_elsewhere(&mode, &runtime);
        let session = runtime.add_session(client, session_config(1, 16)).unwrap();
        runtime.bind(connection, session).unwrap();
        for key in insert_all(&runtime, client, 0..5000) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
        eventually("all are released", || hooks.released() == 5000);
        assert_clean(&runtime, &hooks, 0..5000);
        runtime.shutdown(Duration::from_secs(5)).unwrap();
        assert_eq!(client_thread.join().unwrap().len(), 5000);
    }
}

/// Of two bindings of one connection one comes too late, its session is gone: the other one holds.
#[test]
fn f12_a_binding_that_is_refused_leaves_the_others_alone() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 2, &hooks);
        let (client, connection, client_thread, _keep) = client_from_elsewhere(&mode, &runtime);
        let gone = runtime.add_session(client, session_config(1, 4)).unwrap();
        let session = runtime.add_session(client, session_config(2, 4)).unwrap();
        runtime.remove_session(gone).unwrap();
        runtime.bind(connection, gone).unwrap();
        runtime.bind(connection, session).unwrap();
        let refused = |e: &Event| matches!(e, Event::SessionRefused { session, .. } if *session == gone);
        eventually("one is refused", || hooks.events.lock().unwrap().iter().any(refused));
        for key in insert_all(&runtime, client, 0..100) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
        eventually("all are released", || hooks.released() == 100);
        assert_clean(&runtime, &hooks, 0..100);
        assert_eq!(runtime.stats().connections_condemned, 0);
        runtime.shutdown(Duration::from_secs(5)).unwrap();
        assert_eq!(client_thread.join().unwrap().len(), 100);
    }
}

/// A connection is cut with calls outstanding: they go out again, the same, on the next one.
#[test]
fn t20_calls_survive_their_connection() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 1, &hooks);
        let (server, mut first) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 4)).unwrap();
        runtime.bind(connection, session).unwrap();
        for key in insert_all(&runtime, client, 0..100) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
        // Four calls fill the session slots; they are read and not answered.
        let unanswered: Vec<_> = (0..4).map(|_| read_record(&mut first).unwrap()).collect();
        drop(first);
        let (server, mut second) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        runtime.bind(connection, session).unwrap();
        let again: Vec<_> = (0..4).map(|_| read_record(&mut second).unwrap()).collect();
        let sorted = |mut calls: Vec<Vec<u8>>| {
            calls.sort();
            calls
        };
        assert_eq!(sorted(unanswered), sorted(again.clone()), "a resend is the identical call");
        let mut slots = SlotIds::default();
        for call in &again {
            let (_, reply) = answer_recall(call, &mut slots, Status::NFS4_OK);
            write_record(&mut second, &reply);
        }
        for _ in 4..100 {
            let call = read_record(&mut second).unwrap();
            let (_, reply) = answer_recall(&call, &mut slots, Status::NFS4_OK);
            write_record(&mut second, &reply);
        }
        eventually("all are released", || hooks.released() == 100);
        assert_clean(&runtime, &hooks, 0..100);
        assert_eq!(runtime.census().unwrap().free, 4);
        assert_eq!((runtime.stats().callbacks_sent, runtime.stats().resent), (100, 4));
    }
}

/// TCP may cut a reply anywhere, in the record mark too.
#[test]
fn t28_a_reply_split_at_every_byte() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 1, &hooks);
        let (server, mut stream) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 1)).unwrap();
        runtime.bind(connection, session).unwrap();
        let (mut slots, mut cookie, mut received) = (SlotIds::default(), 0, 0);
        loop {
            let key = insert_all(&runtime, client, cookie..cookie + 1)[0];
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
            let call = read_record(&mut stream).unwrap();
            let (_, reply) = answer_recall(&call, &mut slots, Status::NFS4_OK);
            let mark = reply.len() as u32 | ringback_rpc::record::LAST_FRAGMENT;
            let bytes = [&mark.to_be_bytes()[..], &reply].concat();
            let (first, rest) = bytes.split_at(1 + cookie as usize);
            stream.write_all(first).unwrap();
            // Each part is a receive of its own; in the last round there is no rest.
            received += first.len() as u64;
            eventually("the first part is there", || mode.received_bytes(&runtime) == received);
            received += rest.len() as u64;
            if !rest.is_empty() {
                assert_eq!(hooks.of(cookie).released, 0, "not answered yet");
                stream.write_all(rest).unwrap();
            }
            eventually("it is answered", || runtime.stats().in_flight == 0);
            cookie += 1;
            if rest.is_empty() {
                break;
            }
        }
        assert!(cookie > 80, "{cookie} splits");
        assert_clean(&runtime, &hooks, 0..cookie);
        runtime.shutdown(Duration::from_secs(5)).unwrap();
    }
}

/// A client that never answers: the drain ends at its deadline and says what it gave up.
#[test]
fn t1_a_drain_ends_and_reports_what_it_abandoned() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 1, &hooks);
        let (server, _never_reads) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 4)).unwrap();
        runtime.bind(connection, session).unwrap();
        let keys = insert_all(&runtime, client, 0..100);
        for key in &keys {
            assert_eq!(runtime.try_run(*key), TryRun::Submitted);
        }
        eventually("four are sent", || runtime.stats().in_flight == 100 && runtime.census().unwrap().with_run == 4);
        let begun = Instant::now();
        let report = runtime.drain(Duration::from_millis(200)).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!((report.abandoned.len(), report.unsent.len(), report.in_flight), (4, 96, 0));
        let mut reported: Vec<_> = report.abandoned.iter().chain(&report.unsent).copied().collect();
        reported.sort_unstable();
        assert_eq!(reported, keys, "each of them, once");
        assert_clean(&runtime, &hooks, 0..100);
        assert_eq!(runtime.try_run(keys[0]), TryRun::Closed);
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}

/// Without a drain, what is in flight is cancelled all the same.
#[test]
fn a_dropped_runtime_completes_every_run() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 2, &hooks);
        let (server, _never_reads) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 4)).unwrap();
        runtime.bind(connection, session).unwrap();
        for key in insert_all(&runtime, client, 0..20_000) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
        mode.let_go();
        drop(runtime);
        for cookie in 0..20_000 {
            let seen = hooks.of(cookie);
            assert_eq!((seen.done.len(), seen.released, seen.dropped), (1, 1, 1), "{cookie}: {seen:?}");
        }
    }
}

/// A removed client's callbacks end, and its place is used again only when nothing names it.
#[test]
fn t29_a_removed_client_leaves_nothing_behind() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 1, &hooks);
        let client = runtime.add_client(None).unwrap();
        let keys = insert_all(&runtime, client, 0..10);
        for key in &keys {
            assert_eq!(runtime.try_run(*key), TryRun::Submitted);
        }
        runtime.remove_client(client).unwrap();
        eventually("all are released", || hooks.released() == 10);
        assert_clean(&runtime, &hooks, 0..10);
        assert!(hooks.of(3).done[0].contains("Cancelled"));
        assert_eq!(runtime.try_run(keys[0]), TryRun::Closed);
        let next = runtime.add_client(None).unwrap();
        assert_ne!(next, client);
        for key in keys {
            runtime.remove(key);
        }
        assert!(runtime.add_session(client, session_config(1, 4)).is_err());
    }
}

/// Always asks for another transmission.
struct Insistent(Counting);

impl Hooks for Insistent {
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.0.encode(run, args)
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        self.0.done(run, outcome);
        Done::RequeueAfter(1_000_000)
    }

    fn release(&self, run: &Run) {
        self.0.release(run);
    }
}

/// `done` asks for another transmission for ever: the run ends by its deadline, or by a drain, and once.
#[test]
fn t22_asking_again_for_ever_ends_by_deadline_or_drain() {
    for mode in modes() {
        for drained in [false, true] {
            let hooks = Arc::new(Insistent(Counting::default()));
            let deadline = Duration::from_millis(if drained { 60_000 } else { 300 });
            let builder = Builder::new().backend(mode.backend).reactors(1).run_deadline(deadline);
            let runtime = builder.build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
            let (server, stream) = pair();
            let client_thread = answer_all(stream);
            let connection = mode.add_connection(&runtime, server).unwrap();
            let client = runtime.add_client(Some(connection)).unwrap();
            let session = runtime.add_session(client, session_config(1, 4)).unwrap();
            runtime.bind(connection, session).unwrap();
            for key in insert_all(&runtime, client, 0..50) {
                assert_eq!(runtime.try_run(key), TryRun::Submitted);
            }
            eventually("some were answered", || runtime.stats().requeued > 50);
            if drained {
                assert_eq!(runtime.drain(Duration::from_secs(5)).unwrap().in_flight, 0);
            }
            eventually("all are released", || hooks.0.released() == 50);
            for cookie in 0..50 {
                let seen = hooks.0.of(cookie);
                let last = seen.done.last().unwrap();
                assert!(last.contains(if drained { "Cancelled" } else { "TimedOut" }), "{cookie}: {last}");
                assert_eq!(seen.released, 1);
            }
            runtime.shutdown(Duration::ZERO).unwrap();
            client_thread.join().unwrap();
        }
    }
}

/// A hook that keeps its reactor busy, after it has asked for another run.
#[derive(Default)]
struct Busy {
    other: std::sync::OnceLock<(Runtime, ringback::CallbackKey)>,
    ages: std::sync::Mutex<Vec<(u64, u64)>>,
}

impl Hooks for Busy {
    fn prepare(&self, run: &Run) -> ringback::Prepare {
        if run.cookie == 0
            && let Some((runtime, other)) = self.other.get()
        {
            assert_eq!(runtime.try_run(*other), TryRun::Submitted);
            std::thread::sleep(Duration::from_millis(100));
        }
        ringback::Prepare::Refuse
    }

    fn encode(&self, _: &Run, _: &mut Writer<'_>) -> xdr::Result<()> {
        Ok(())
    }

    fn done(&self, run: &Run, _: &Outcome<'_>) -> Done {
        self.ages.lock().unwrap().push((run.cookie, run.age_ns));
        Done::Finish
    }
}

#[test]
fn a_run_is_as_old_as_its_accepted_request() {
    for mode in modes() {
        let hooks = Arc::new(Busy::default());
        let runtime = Builder::new().backend(mode.backend).reactors(1).build(hooks.clone(), Arc::new(Deaf)).unwrap();
        let (server, _keep) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 4)).unwrap();
        runtime.bind(connection, session).unwrap();
        let keys = insert_all(&runtime, client, 0..2);
        assert!(hooks.other.set((runtime.clone(), keys[1])).is_ok());
        assert_eq!(runtime.try_run(keys[0]), TryRun::Submitted);
        eventually("both are done", || hooks.ages.lock().unwrap().len() == 2);
        let ages = hooks.ages.lock().unwrap().clone();
        assert!(matches!(ages[..], [(0, _), (1, 100_000_000..)]), "{ages:?}");
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}
