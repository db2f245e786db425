//! Connections that are full, slow, shared or misused: the callbacks of others go on, and what waits stays bounded.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{Backend, Builder, Call, CallToken, CallbackOp, ConnectionId, Event, ForeChannel, Hooks, InsertError};
use ringback::{Outbound, Runtime, Transport, TryRun};
use ringback_rpc::message::{CallHeader, MessageType, OpaqueAuth, peek};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::fore::seq4_status;
use ringback_rpc::xdr::{Encode, Writer};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Hands all calls to the test.
struct Deferring(Mutex<mpsc::Sender<CallToken>>);

impl ForeChannel for Deferring {
    fn call(&self, call: Call<'_>) {
        let _ = self.0.lock().unwrap().send(call.defer().0);
    }
}

fn deferring() -> (Arc<Deferring>, mpsc::Receiver<CallToken>) {
    let (sender, tokens) = mpsc::channel();
    (Arc::new(Deferring(Mutex::new(sender))), tokens)
}

fn fore_call(xid: u32) -> Vec<u8> {
    let mut space = [0; 64];
    let mut w = Writer::new(&mut space);
    let auth = OpaqueAuth::NONE;
    CallHeader { xid, program: 100_003, version: 4, procedure: 1, credential: auth, verifier: auth }
        .encode(&mut w)
        .unwrap();
    w.written().to_vec()
}

fn is_callback(record: &[u8]) -> bool {
    matches!(peek(record), Ok((_, MessageType::Call)))
}

/// What an embedder's transport is told.
enum Told {
    Send(Outbound),
    Pause,
    Resume,
}

struct Channel(mpsc::Sender<Told>);

impl Transport for Channel {
    fn send(&mut self, outbound: Outbound) {
        let _ = self.0.send(Told::Send(outbound));
    }

    fn pause(&mut self) {
        let _ = self.0.send(Told::Pause);
    }

    fn resume(&mut self) {
        let _ = self.0.send(Told::Resume);
    }

    fn close(&mut self) {}
}

fn transport(runtime: &Runtime) -> (ConnectionId, mpsc::Receiver<Told>) {
    let (sender, told) = mpsc::channel();
    (runtime.add_transport(Box::new(Channel(sender))).unwrap(), told)
}

fn next_send(told: &mpsc::Receiver<Told>) -> Outbound {
    loop {
        if let Told::Send(outbound) = told.recv_timeout(Duration::from_secs(10)).expect("something to send") {
            return outbound;
        }
    }
}

/// The connection of another reactor always has a reply to send: the callbacks that it carries go on.
#[test]
fn f12_replies_without_end_do_not_starve_carried_callbacks() {
    let (fore, tokens) = deferring();
    let hooks = Arc::new(Counting::default());
    let runtime = Builder::new()
        .backend(Backend::Epoll)
        .reactors(2)
        .calls_unanswered_max(1 << 20)
        .build(Arc::clone(&hooks) as _, fore)
        .unwrap();
    let (near, _told) = transport(&runtime);
    let (connection, told) = transport(&runtime);
    assert_ne!(near.reactor(), connection.reactor());
    let client = runtime.add_client(Some(near)).unwrap();
    let session = runtime.add_session(client, session_config(1, 4)).unwrap();
    runtime.bind(connection, session).unwrap();
    for xid in 0..20_000 {
        runtime.receive(connection, fore_call(xid));
    }
    let reply = || {
        let token = tokens.recv_timeout(Duration::from_secs(10)).expect("a call to answer");
        runtime.reply(token, vec![vec![0, 0, 0, 0, 0, 0, 0, 1]]);
    };
    for key in insert_all(&runtime, client, 0..100) {
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
    }
    reply();
    let mut slots = SlotIds::default();
    let begun = Instant::now();
    while hooks.released() < 100 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} of 100 were sent", hooks.released());
        let outbound = next_send(&told);
        // Before this is out, there is something else to send.
        reply();
        for call in records_of(outbound.bytes()).into_iter().filter(|r| is_callback(r)) {
            let (_, answer) = answer_recall(&call, &mut slots, Status::NFS4_OK);
            runtime.receive(connection, answer);
        }
        outbound.complete(Ok(()));
    }
    assert_clean(&runtime, &hooks, 0..100);
}

/// Many clients behind one connection. By its number, a reply to one looks like an old one of another.
#[test]
fn t28_a_reply_finds_its_client_among_those_of_its_connection() {
    let hooks = Arc::new(Counting::default());
    let runtime =
        Builder::new().backend(Backend::Epoll).reactors(1).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let (connection, told) = transport(&runtime);
    let mut slots: Vec<_> = (0..60).map(|_| SlotIds::default()).collect();
    let mut clients = Vec::new();
    let mut cookie = 0;
    // One callback after the other, so that it is clear whose it is. Gives its xid.
    let mut call = |runtime: &Runtime, client: ringback::ClientId, slots: &mut SlotIds| {
        let key = insert_all(runtime, client, cookie..cookie + 1)[0];
        cookie += 1;
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
        let outbound = next_send(&told);
        let records = records_of(outbound.bytes());
        outbound.complete(Ok(()));
        let (_, answer) = answer_recall(&records[0], slots, Status::NFS4_OK);
        runtime.receive(connection, answer);
        let begun = Instant::now();
        while hooks.released() < cookie as u32 {
            assert!(begun.elapsed() < Duration::from_secs(5), "the reply to callback {cookie} was dropped");
            std::thread::yield_now();
        }
        u32::from_be_bytes(records[0][..4].try_into().unwrap())
    };
    for (number, slots) in slots.iter_mut().enumerate() {
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(number as u8, 1)).unwrap();
        runtime.bind(connection, session).unwrap();
        clients.push((call(&runtime, client, slots) >> 12, client));
    }
    let ahead = |a: usize, b: usize| clients[b].0.wrapping_sub(clients[a].0) & 0xf_ffff;
    let pairs = (0..60).flat_map(|a| (0..60).map(move |b| (a, b))).filter(|(a, b)| a < b);
    let (behind, front) = pairs.min_by_key(|(a, b)| ahead(*a, *b)).unwrap();
    let gap = ahead(behind, front);
    assert!(gap < 10_000, "the nearest clients are {gap} calls apart");
    for _ in 0..gap + 2 {
        call(&runtime, clients[behind].1, &mut slots[behind]);
    }
    call(&runtime, clients[front].1, &mut slots[front]);
}

/// A reply in several pieces, and several replies, leave together.
#[test]
fn replies_that_wait_leave_in_one_piece() {
    let (fore, tokens) = deferring();
    let runtime =
        Builder::new().backend(Backend::Epoll).reactors(1).build(Arc::new(Counting::default()), fore).unwrap();
    let (connection, told) = transport(&runtime);
    for xid in 0..50 {
        runtime.receive(connection, fore_call(xid));
    }
    let first = tokens.recv().unwrap();
    runtime.reply(first, vec![vec![1; 8], vec![2; 8]]);
    let outbound = next_send(&told);
    assert_eq!(outbound.bytes(), [&[0x80, 0, 0, 16][..], &[1; 8], &[2; 8]].concat(), "mark and bytes in one send");
    for token in tokens.iter().take(49) {
        runtime.reply(token, vec![vec![3; 4], vec![4; 4]]);
    }
    // Commands run in order: once this has gone, the replies are there.
    runtime.census().unwrap();
    outbound.complete(Ok(()));
    assert_eq!(records_of(next_send(&told).bytes()).len(), 49);
}

/// An embedder's transport is held back like a socket.
#[test]
fn a_transport_is_told_to_pause_and_to_go_on() {
    let (fore, tokens) = deferring();
    let runtime = Builder::new()
        .backend(Backend::Epoll)
        .reactors(1)
        .calls_unanswered_max(4)
        .build(Arc::new(Counting::default()), fore)
        .unwrap();
    let (connection, told) = transport(&runtime);
    for xid in 0..5 {
        runtime.receive(connection, fore_call(xid));
    }
    let tokens: Vec<_> = tokens.iter().take(5).collect();
    assert!(matches!(told.recv_timeout(Duration::from_secs(10)), Ok(Told::Pause)));
    assert!(told.try_recv().is_err(), "it is told once");
    for token in tokens {
        runtime.reply(token, vec![vec![0; 8]]);
    }
    let mut resumed = 0;
    while let Ok(told) = told.recv_timeout(Duration::from_millis(200)) {
        match told {
            Told::Send(outbound) => outbound.complete(Ok(())),
            Told::Resume => resumed += 1,
            Told::Pause => panic!("nothing more came in"),
        }
    }
    assert_eq!(resumed, 1);
}

/// A client whose calls the embedder does not answer for a while has its reply read late, for no fault of its own.
#[test]
fn a_connection_that_is_held_back_is_not_taken_for_dead() {
    for reactors in [1, 2] {
        let (fore, tokens) = deferring();
        let hooks = Arc::new(Counting::default());
        let runtime = Builder::new()
            .backend(Backend::Epoll)
            .reactors(reactors)
            .calls_unanswered_max(1)
            .rpc_timeout(Duration::from_millis(100))
            .build(Arc::clone(&hooks) as _, fore)
            .unwrap();
        let (server, mut stream): (TcpStream, TcpStream) = pair();
        let connection = runtime.add_connection(server).unwrap();
        let (elsewhere, _told) = transport(&runtime);
        let client = runtime.add_client(Some(elsewhere)).unwrap();
        let session = runtime.add_session(client, session_config(1, 4)).unwrap();
        runtime.bind(connection, session).unwrap();
        write_record(&mut stream, &fore_call(1));
        let token = tokens.recv_timeout(Duration::from_secs(10)).unwrap();
        let key = insert_all(&runtime, client, 0..1)[0];
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
        let call = read_record(&mut stream).unwrap();
        let (_, answer) = answer_recall(&call, &mut SlotIds::default(), Status::NFS4_OK);
        write_record(&mut stream, &answer);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!((hooks.released(), runtime.stats().connections_condemned), (0, 0));
        runtime.reply(token, vec![vec![0; 8]]);
        eventually("the reply is read", || hooks.released() == 1);
        assert!(hooks.of(0).done[0].contains("Replied"), "{:?}", hooks.of(0).done);
        // From now on silence means what it always means.
        let key = insert_all(&runtime, client, 1..2)[0];
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
        eventually("the silent connection is given up", || runtime.stats().connections_condemned == 1);
    }
}

/// Calls that come in over an embedder's transport show that the client is alive, as those on a socket do.
#[test]
fn calls_keep_a_transport_alive() {
    let (fore, _tokens) = deferring();
    let hooks = Arc::new(Counting::default());
    let runtime = Builder::new()
        .backend(Backend::Epoll)
        .reactors(1)
        .rpc_timeout(Duration::from_millis(200))
        .build(Arc::clone(&hooks) as _, fore)
        .unwrap();
    let (connection, told) = transport(&runtime);
    let client = runtime.add_client(Some(connection)).unwrap();
    let session = runtime.add_session(client, session_config(1, 4)).unwrap();
    runtime.bind(connection, session).unwrap();
    let key = insert_all(&runtime, client, 0..1)[0];
    assert_eq!(runtime.try_run(key), TryRun::Submitted);
    let outbound = next_send(&told);
    let call = records_of(outbound.bytes()).remove(0);
    outbound.complete(Ok(()));
    for xid in 0..30 {
        std::thread::sleep(Duration::from_millis(20));
        runtime.receive(connection, fore_call(xid));
    }
    assert_eq!(runtime.stats().connections_condemned, 0);
    let (_, answer) = answer_recall(&call, &mut SlotIds::default(), Status::NFS4_OK);
    runtime.receive(connection, answer);
    eventually("the reply counts", || hooks.released() == 1);
}

/// A session that the core refuses does not stand in the way of the others' SEQ4_STATUS bits.
#[test]
fn a_refused_session_is_not_shown() {
    let hooks = Arc::new(Counting::default());
    let runtime =
        Builder::new().backend(Backend::Epoll).reactors(1).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let client = runtime.add_client(None).unwrap();
    for id in 1..=4 {
        runtime.add_session(client, session_config(id, 1000)).unwrap();
    }
    // All sessions of a client together have at most 4,096 slots.
    let refused = runtime.add_session(client, session_config(5, 1000)).unwrap();
    eventually("it is refused", || {
        hooks
            .events
            .lock()
            .unwrap()
            .iter()
            .any(|e| matches!(e, Event::SessionRefused { session, .. } if *session == refused))
    });
    let session = runtime.add_session(client, session_config(6, 1)).unwrap();
    let (server, stream) = pair();
    let connection = runtime.add_connection(server).unwrap();
    runtime.bind(connection, session).unwrap();
    eventually("the path is up", || runtime.seq4_status(client, Some(session)) == 0 && runtime.stats().receives == 0);
    eventually("the client has a path", || runtime.seq4_status(client, None) == 0);
    drop(stream);
    let down = seq4_status::CB_PATH_DOWN | seq4_status::CB_PATH_DOWN_SESSION;
    eventually("the session's path is down", || runtime.seq4_status(client, Some(session)) == down);
}

/// What is no callback of its own would take the reactor down.
#[test]
fn only_callbacks_are_inserted() {
    let hooks: Arc<dyn Hooks> = Arc::new(Counting::default());
    let runtime = Builder::new().backend(Backend::Epoll).reactors(1).build(hooks, Arc::new(Deaf)).unwrap();
    let client = runtime.add_client(None).unwrap();
    for op in [CallbackOp::Sequence, CallbackOp::Illegal] {
        assert_eq!(runtime.insert(client, op, 0), Err(InsertError::NotACallback));
    }
}

/// Times that follow from the lease are within their own limits.
#[test]
fn any_lease_will_do() {
    for seconds in [1, 3600, 24 * 3600, 1 << 20] {
        let builder = Builder::new().backend(Backend::Epoll).reactors(1).lease(Duration::from_secs(seconds));
        assert!(builder.build(Arc::new(Counting::default()), Arc::new(Deaf)).is_ok(), "{seconds} s");
    }
    let builder = Builder::new().run_deadline(Duration::MAX);
    assert!(builder.build(Arc::new(Counting::default()), Arc::new(Deaf)).is_err());
}
