//! Clients of minor version 0, whose paths and connections go over; and from a file, where only their paths do.

use super::*;
use crate::{CallbackAddress, Event, PathConfig, PathState, Security, SessionKey};
use ringback_rpc::message::ReplyHeader;
use ringback_rpc::nfs4::callback::{CB_NULL, CallbackOp};
use ringback_rpc::xdr::{Encode, Writer};
use std::net::TcpListener;

fn config(address: CallbackAddress) -> PathConfig {
    let security = Security::Sys { stamp: 7, machine_name: b"server".to_vec(), uid: 0, gid: 0, gids: vec![] };
    PathConfig { program: 0x4000_0000, callback_ident: 70, security, address, window: 2 }
}

fn at(listener: &TcpListener) -> CallbackAddress {
    let address = listener.local_addr().unwrap();
    CallbackAddress::Connect { address, peer: address }
}

fn word(call: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(call[at..at + 4].try_into().unwrap())
}

/// Answers a call: CB_NULL, or one operation.
fn answer(stream: &mut TcpStream, call: &[u8]) {
    let mut space = [0; 64];
    let mut w = Writer::new(&mut space);
    ReplyHeader::success(word(call, 0)).encode(&mut w).unwrap();
    if word(call, 20) != CB_NULL {
        [0, 0, 1, CallbackOp::Recall as u32, 0].iter().for_each(|word| w.u32(*word).unwrap());
    }
    write_record(stream, w.written());
}

/// The next call is CB_NULL, which is answered.
fn answer_probe(stream: &mut TcpStream) {
    let probe = read_record(stream).unwrap();
    assert_eq!(word(&probe, 20), CB_NULL);
    answer(stream, &probe);
}

struct Client0 {
    id: ClientId,
    path: SessionKey,
    keys: Vec<CallbackKey>,
}

/// A client with a confirmed path and callbacks of these cookies, which are asked for.
fn client(runtime: &Runtime, address: CallbackAddress, cookies: std::ops::Range<u64>) -> Client0 {
    let id = runtime.add_client(None).unwrap();
    let path = runtime.set_client_id(id, config(address)).unwrap();
    runtime.confirm(path).unwrap();
    let keys = insert_all(runtime, id, cookies);
    keys.iter().for_each(|key| assert_eq!(runtime.try_run(*key), TryRun::Submitted));
    Client0 { id, path, keys }
}

fn is_up(hooks: &Counting, client: ClientId) -> bool {
    hooks.events.lock().unwrap().contains(&Event::PathState { client, state: PathState::Up })
}

#[test]
fn a_path_goes_over_with_its_connection() {
    for ((from, reactors), (to, next)) in pairs() {
        let bed = Bed::new(builder(from, reactors), 0, 0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = client(&bed.runtime, at(&listener), 0..3);
        let (mut stream, _) = listener.accept().unwrap();
        answer_probe(&mut stream);
        // As many as the window has, and one that waits.
        let sent = [read_record(&mut stream).unwrap(), read_record(&mut stream).unwrap()];
        let unconfirmed = bed.runtime.set_client_id(client.id, config(at(&listener))).unwrap();
        let (socket, thread) = successor(builder(to, next), None);
        let given = bed.runtime.upgrade_to(socket, &[], PATIENCE).unwrap();
        assert_eq!((given.connections, given.in_flight), (1, 3));
        let Next { runtime, hooks, .. } = thread.join().unwrap().unwrap();
        // An answer to the old process is nothing to the new one: any call of minor version 0 may come twice.
        answer(&mut stream, &sent[0]);
        answer_probe(&mut stream);
        let mut cookies = Vec::new();
        for _ in 0..3 {
            let call = read_record(&mut stream).unwrap();
            assert_eq!(word(&call, 20), 1, "CB_COMPOUND");
            let xid = word(&call, 0);
            assert!(sent.iter().all(|before| word(before, 0) != xid));
            cookies.push(call);
            answer(&mut stream, &cookies[cookies.len() - 1]);
        }
        eventually("all have ended", || runtime.stats().in_flight == 0);
        for cookie in 0..3 {
            let (here, there) = (hooks.of(cookie), bed.hooks.of(cookie));
            assert_eq!((here.done.len(), here.released, there.prepared + here.prepared), (1, 1, 1));
        }
        eventually("it is known to be up", || is_up(&hooks, client.id) && !runtime.is_path_down(client.id));
        assert_eq!(runtime.stats().connects, bed.runtime.stats().connects, "it has not been connected to once more");
        // What was not confirmed has to be set again: the client is told that it is stale.
        assert!(runtime.confirm(unconfirmed).is_err() && runtime.confirm(client.path).is_err());
        // It is the path of that client: another takes its place.
        let again = runtime.set_client_id(client.id, config(at(&listener))).unwrap();
        runtime.confirm(again).unwrap();
        assert_eq!(read_record(&mut stream), None, "the former connection is of no use");
        let (mut stream, _) = listener.accept().unwrap();
        answer_probe(&mut stream);
        assert_eq!(runtime.try_run(client.keys[1]), TryRun::Submitted);
        let call = read_record(&mut stream).unwrap();
        answer(&mut stream, &call);
        eventually("it has ended", || runtime.stats().in_flight == 0);
    }
}

/// No socket comes with a file: the client is connected to, or the embedder asked for a connection.
#[test]
fn a_path_comes_back_from_a_file() {
    for backend in backends() {
        let bed = Bed::new(builder(backend, 2), 0, 0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reached = client(&bed.runtime, at(&listener), 0..1);
        let supplied = client(&bed.runtime, CallbackAddress::Supplied, 1..2);
        let (mut stream, _) = listener.accept().unwrap();
        answer_probe(&mut stream);
        read_record(&mut stream).unwrap();
        let suspended = bed.runtime.suspend().unwrap();
        let mut bytes = Vec::new();
        suspended.checkpoint(&mut bytes).unwrap();
        assert_eq!(suspended.leave(), 0);
        assert_eq!(read_record(&mut stream), None);
        let checkpoint = crate::Checkpoint::from_bytes(&bytes).unwrap();
        let hooks = Arc::new(Counting::default());
        let next = builder(backend, 1).restore(&checkpoint);
        let runtime = next.build(Arc::clone(&hooks) as _, Arc::new(Fore::default())).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let wanted = Event::ConnectionWanted { path: supplied.path };
        eventually("it is asked for", || hooks.events.lock().unwrap().contains(&wanted));
        let (ours, mut other) = pair();
        runtime.bind(runtime.add_connection(ours).unwrap(), supplied.path).unwrap();
        for stream in [&mut stream, &mut other] {
            answer_probe(stream);
            let call = read_record(stream).unwrap();
            answer(stream, &call);
        }
        eventually("all have ended", || runtime.stats().in_flight == 0);
        assert!(is_up(&hooks, reached.id) && is_up(&hooks, supplied.id));
        assert_eq!((hooks.of(0).released, hooks.of(1).released), (1, 1));
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}
