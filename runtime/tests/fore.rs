//! Fore-channel calls, and an embedder's own transport.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{Backend, Builder, Call, CallToken, ConnectionId, ForeChannel, Outbound, Runtime, Transport, TryRun};
use ringback_rpc::message::{CallHeader, OpaqueAuth, ReplyHeader};
use ringback_rpc::nfs4::Status;
use ringback_rpc::xdr::{Encode, Writer};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Answers calls of procedure 0 at once; hands all others to the test.
struct Handler {
    deferred: Mutex<mpsc::Sender<(CallToken, Vec<u8>)>>,
    closed: Mutex<Vec<ConnectionId>>,
}

impl ForeChannel for Handler {
    fn call(&self, call: Call<'_>) {
        if call.record()[20..24] != [0; 4] {
            self.deferred.lock().unwrap().send(call.defer()).unwrap();
            return;
        }
        let xid = u32::from_be_bytes(call.record()[..4].try_into().unwrap());
        // The first try does not fit, and changes nothing.
        let Err((call, _)) = call.reply(16, |_, w| ReplyHeader::success(xid).encode(w)) else {
            panic!("24 bytes do not fit into 16")
        };
        call.reply(64, |_, w| ReplyHeader::success(xid).encode(w)).map_err(|(_, e)| e).unwrap();
    }

    fn closed(&self, connection: ConnectionId) {
        self.closed.lock().unwrap().push(connection);
    }
}

type Deferred = mpsc::Receiver<(CallToken, Vec<u8>)>;

fn build(mode: &Mode, calls_unanswered_max: usize) -> (Runtime, Arc<Handler>, Deferred) {
    let (sender, deferred) = mpsc::channel();
    let handler = Arc::new(Handler { deferred: Mutex::new(sender), closed: Mutex::default() });
    let runtime = Builder::new()
        .backend(mode.backend)
        .reactors(1)
        .calls_unanswered_max(calls_unanswered_max)
        .build(Arc::new(Counting::default()), Arc::clone(&handler) as _)
        .unwrap();
    (runtime, handler, deferred)
}

fn call(xid: u32, procedure: u32, body: usize) -> Vec<u8> {
    let mut space = vec![0; 128];
    let mut w = Writer::new(&mut space);
    let auth = OpaqueAuth::NONE;
    CallHeader { xid, program: 100_003, version: 4, procedure, credential: auth, verifier: auth }
        .encode(&mut w)
        .unwrap();
    let mut bytes = w.written().to_vec();
    bytes.resize(bytes.len() + body, 7);
    bytes
}

fn xid_of(record: &[u8]) -> u32 {
    u32::from_be_bytes(record[..4].try_into().unwrap())
}

#[test]
fn calls_are_answered_at_once_later_and_out_of_order() {
    for mode in modes() {
        let (runtime, handler, deferred) = build(&mode, 256);
        let (server, mut stream) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        for (xid, procedure) in [(1, 1), (2, 0), (3, 1)] {
            write_record(&mut stream, &call(xid, procedure, 0));
        }
        assert_eq!(xid_of(&read_record(&mut stream).unwrap()), 2);
        let (first, record) = deferred.recv().unwrap();
        assert_eq!((record, first.connection()), (call(1, 1, 0), connection));
        let (third, _) = deferred.recv().unwrap();
        // From any thread, in any order, in several buffers.
        let later = runtime.clone();
        let answer = |xid: u32| vec![xid.to_be_bytes().to_vec(), Vec::new(), vec![9; 100_000]];
        std::thread::spawn(move || later.reply(third, answer(3))).join().unwrap();
        runtime.reply(first, answer(1));
        for xid in [3, 1] {
            let record = read_record(&mut stream).unwrap();
            assert_eq!((xid_of(&record), record.len()), (xid, 100_004));
        }
        drop(stream);
        eventually("the connection is gone", || *handler.closed.lock().unwrap() == [connection]);
    }
}

#[test]
fn a_large_record_arrives_whole() {
    for mode in modes() {
        let (runtime, _, deferred) = build(&mode, 256);
        let (server, mut stream) = pair();
        mode.add_connection(&runtime, server).unwrap();
        let large = call(5, 1, 1 << 20);
        write_record(&mut stream, &large);
        let (token, record) = deferred.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(record == large);
        runtime.reply(token, vec![vec![1; 4]]);
        assert_eq!(read_record(&mut stream).unwrap(), [1; 4]);
    }
}

#[test]
fn a_record_over_the_limit_closes_its_connection() {
    for mode in modes() {
        let (runtime, handler, _deferred) = build(&mode, 256);
        let (server, mut stream) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        stream.write_all(&0x7fff_ffffu32.to_be_bytes()).unwrap();
        // The close may reach this end as a reset while it is still writing.
        let _ = stream.write_all(&vec![0; 2 << 20]);
        eventually("the connection is gone", || *handler.closed.lock().unwrap() == [connection]);
        // Who owns the transport finds out by himself.
        assert_eq!(runtime.stats().records_malformed, u64::from(!mode.own_transport));
    }
}

#[test]
fn unanswered_calls_are_bounded() {
    // Who owns the transport is told to pause: see pressure.rs.
    for mode in backends().into_iter().map(Mode::sockets) {
        let (runtime, _, deferred) = build(&mode, 4);
        let (server, mut stream) = pair();
        mode.add_connection(&runtime, server).unwrap();
        // Each is as large as a receive buffer, so that what was received before the pause is bounded too.
        for xid in 0..100 {
            write_record(&mut stream, &call(xid, 1, 16 * 1024));
        }
        std::thread::sleep(Duration::from_millis(200));
        let mut tokens: Vec<_> = deferred.try_iter().collect();
        assert_eq!(tokens.len(), 4);
        let mut answered = 0;
        while answered < 100 {
            tokens.extend(deferred.try_iter());
            for (token, record) in tokens.drain(..) {
                runtime.reply(token, vec![record[..4].to_vec()]);
                answered += 1;
            }
        }
        for xid in 0..100 {
            assert_eq!(xid_of(&read_record(&mut stream).unwrap()), xid);
        }
    }
}

/// An embedder's transport: what is to be sent goes to a channel.
struct Channel(mpsc::Sender<Outbound>, Arc<Mutex<bool>>);

impl Transport for Channel {
    fn send(&mut self, outbound: Outbound) {
        self.0.send(outbound).unwrap();
    }

    fn close(&mut self) {
        *self.1.lock().unwrap() = true;
    }
}

#[test]
fn an_embedder_may_own_the_transport() {
    let hooks = Arc::new(Counting::default());
    let runtime =
        Builder::new().backend(Backend::Epoll).reactors(1).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let (sender, outbound) = mpsc::channel();
    let closed = Arc::new(Mutex::new(false));
    let connection = runtime.add_transport(Box::new(Channel(sender, Arc::clone(&closed)))).unwrap();
    let client = runtime.add_client(Some(connection)).unwrap();
    let session = runtime.add_session(client, session_config(1, 4)).unwrap();
    runtime.bind(connection, session).unwrap();
    for key in insert_all(&runtime, client, 0..100) {
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
    }
    let mut slots = SlotIds::default();
    let mut recalled = 0;
    while recalled < 100 {
        let sent = outbound.recv_timeout(Duration::from_secs(10)).unwrap();
        let records = records_of(sent.bytes());
        sent.complete(Ok(()));
        for call in records {
            let (_, reply) = answer_recall(&call, &mut slots, Status::NFS4_OK);
            runtime.receive(connection, reply);
            recalled += 1;
        }
    }
    eventually("all are released", || hooks.released() == 100);
    assert_clean(&runtime, &hooks, 0..100);
    runtime.close_connection(connection);
    eventually("the transport is closed", || *closed.lock().unwrap());
    // A transport that fails is closed too.
    let (sender, outbound) = mpsc::channel();
    let closed = Arc::new(Mutex::new(false));
    let connection = runtime.add_transport(Box::new(Channel(sender, Arc::clone(&closed)))).unwrap();
    runtime.bind(connection, session).unwrap();
    let key = insert_all(&runtime, client, 100..101)[0];
    assert_eq!(runtime.try_run(key), TryRun::Submitted);
    outbound.recv_timeout(Duration::from_secs(10)).unwrap().complete(Err(std::io::ErrorKind::BrokenPipe.into()));
    eventually("the failed transport is closed", || *closed.lock().unwrap());
    runtime.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn dropping_the_runtime_closes_its_connections() {
    for mode in modes() {
        let (runtime, handler, _deferred) = build(&mode, 256);
        let (server, mut stream) = pair();
        let connection = mode.add_connection(&runtime, server).unwrap();
        mode.let_go();
        drop(runtime);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(*handler.closed.lock().unwrap(), [connection]);
    }
}
