//! Several callbacks in one call, over real sockets, on each back end.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{Backend, BuildError, Builder, Runtime, SessionConfig, TryRun};
use ringback_rpc::nfs4::Status;
use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const RUNS: u64 = 1000;

fn build(backend: Backend, batch_max: u32, hooks: &Arc<Counting>) -> Runtime {
    let builder = Builder::new().backend(backend).reactors(1).batch_max(batch_max);
    builder.build(Arc::clone(hooks) as _, Arc::new(Deaf)).unwrap()
}

fn session(slots: u32, operations_max: u32) -> SessionConfig {
    SessionConfig { operations_max, ..session_config(1, slots) }
}

/// Answers until the connection ends. Each tenth cookie is asked to come again, once. Gives how many calls there were.
fn answer_batches(mut stream: TcpStream) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let (mut slots, mut delayed, mut calls) = (SlotIds::default(), HashSet::new(), 0);
        while let Some(call) = read_record(&mut stream) {
            let status = |cookie: u64| {
                if cookie % 10 == 3 && delayed.insert(cookie) { Status::NFS4ERR_DELAY } else { Status::NFS4_OK }
            };
            let (_, reply) = answer_recalls(&call, &mut slots, status);
            write_record(&mut stream, &reply);
            calls += 1;
        }
        calls
    })
}

#[test]
fn t31_every_callback_of_a_batch_completes_once() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 8, &hooks);
        let (server, stream) = pair();
        let client_thread = answer_batches(stream);
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session(4, 100)).unwrap();
        // Bound when all wait, so that there is something to put together.
        for key in insert_all(&runtime, client, 0..RUNS) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
        eventually("all wait", || runtime.stats().started == RUNS);
        runtime.bind(connection, session).unwrap();
        eventually("all are released", || hooks.released() == RUNS as u32);
        assert_clean(&runtime, &hooks, 0..RUNS);
        let stats = runtime.stats();
        // Each batch that is stopped is sent on in parts.
        assert!(stats.calls_sent >= RUNS / 8 && stats.calls_sent < RUNS / 2, "{stats:?}");
        assert!(stats.callbacks_sent >= RUNS + RUNS / 10, "{stats:?}");
        assert_eq!((stats.replied, stats.resent), (RUNS, 0));
        let census = runtime.census().unwrap();
        assert_eq!((census.slots, census.free), (4, 4));
        runtime.shutdown(Duration::from_secs(5)).unwrap();
        assert_eq!(client_thread.join().unwrap(), stats.calls_sent);
    }
}

/// A connection is cut with batches outstanding: they go out again, the same, on the next one.
#[test]
fn t20_batches_survive_their_connection() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 16, &hooks);
        let (server, mut first) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session(4, 6)).unwrap();
        for key in insert_all(&runtime, client, 0..100) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
        eventually("all wait", || runtime.stats().started == 100);
        runtime.bind(connection, session).unwrap();
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
        let mut answer = |call: &[u8], stream: &mut TcpStream| {
            let (cookies, reply) = answer_recalls(call, &mut slots, |_| Status::NFS4_OK);
            assert_eq!(cookies.len(), 5);
            write_record(stream, &reply);
        };
        again.iter().for_each(|call| answer(call, &mut second));
        for _ in 4..20 {
            let call = read_record(&mut second).unwrap();
            answer(&call, &mut second);
        }
        eventually("all are released", || hooks.released() == 100);
        assert_clean(&runtime, &hooks, 0..100);
        let stats = runtime.stats();
        assert_eq!((stats.callbacks_sent, stats.calls_sent, stats.resent), (100, 20, 4));
    }
}

#[test]
fn batches_can_be_switched_off() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let runtime = build(mode.backend, 1, &hooks);
        let (server, stream) = pair();
        let client_thread = answer_all(stream);
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session(4, 100)).unwrap();
        runtime.bind(connection, session).unwrap();
        for key in insert_all(&runtime, client, 0..100) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
        eventually("all are released", || hooks.released() == 100);
        let stats = runtime.stats();
        assert_eq!((stats.callbacks_sent, stats.calls_sent), (100, 100));
        runtime.shutdown(Duration::from_secs(5)).unwrap();
        assert_eq!(client_thread.join().unwrap().len(), 100);
    }
    for batch_max in [0, 65] {
        let built = Builder::new().batch_max(batch_max).build(Arc::new(Counting::default()), Arc::new(Deaf));
        assert!(matches!(built, Err(BuildError::Setting { name: "batch_max", .. })));
    }
}
