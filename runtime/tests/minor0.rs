//! Clients of minor version 0, whom the runtime connects to, over real sockets: IPv4 and IPv6.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{
    Backend, Builder, CallbackAddress, CallbackOp, ClientId, ConnectPolicy, Error, Event, PathConfig, PathState,
    Runtime, Security, SessionKey, TryRun,
};
use ringback_rpc::message::{AcceptStatus, AuthStatus, CallHeader, OpaqueAuth, Rejected, ReplyBody, ReplyHeader};
use ringback_rpc::nfs4::callback::{CB_COMPOUND, CB_NULL, CbArgs, CbCompoundArgs, CbCompoundRes, CbRes};
use ringback_rpc::nfs4::{Status, UniversalAddress};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PROGRAM: u32 = 0x4000_0000;

/// What a client does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Answer,
    /// Hangs up instead of the first answer to CB_COMPOUND.
    HangUpOnce,
    /// Has no such program.
    NoProgram,
}

/// What a client was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Null,
    /// The cookie of a CB_RECALL, and the call as it came.
    Recall(u64, Vec<u8>),
    /// A connection.
    Connection,
}

/// The callback service of a client, by the Linux client's rules: another callback_ident than its own is refused, and
/// AUTH_NONE for anything but CB_NULL.
struct Service {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    manner: Arc<Mutex<Manner>>,
}

impl Service {
    fn start(listener: TcpListener, ident: u32, manner: Manner) -> Service {
        let address = listener.local_addr().unwrap();
        let (got, manner) = (Arc::default(), Arc::new(Mutex::new(manner)));
        let service = Service { address, got: Arc::clone(&got), manner: Arc::clone(&manner) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                got.lock().unwrap().push(Got::Connection);
                let (got, manner) = (Arc::clone(&got), Arc::clone(&manner));
                std::thread::spawn(move || serve(stream, ident, &got, &manner));
            }
        });
        service
    }

    fn on(host: &str, ident: u32) -> Option<Service> {
        match TcpListener::bind((host, 0)) {
            Ok(listener) => Some(Service::start(listener, ident, Manner::Answer)),
            Err(error) => {
                eprintln!("skipped: no {host} on this host ({error})");
                None
            }
        }
    }

    fn count(&self, what: impl Fn(&Got) -> bool) -> usize {
        self.got.lock().unwrap().iter().filter(|got| what(got)).count()
    }

    fn recalls(&self) -> Vec<(u64, Vec<u8>)> {
        let got = self.got.lock().unwrap().clone();
        got.into_iter()
            .filter_map(|got| if let Got::Recall(cookie, call) = got { Some((cookie, call)) } else { None })
            .collect()
    }
}

fn serve(mut stream: TcpStream, ident: u32, got: &Mutex<Vec<Got>>, manner: &Mutex<Manner>) {
    while let Some(call) = read_record(&mut stream) {
        let Some(reply) = answer(&call, ident, got, manner) else { return };
        write_record(&mut stream, &reply);
    }
}

/// `None`: it hangs up.
fn answer(call: &[u8], ident: u32, got: &Mutex<Vec<Got>>, manner: &Mutex<Manner>) -> Option<Vec<u8>> {
    let mut r = Reader::new(call);
    let header = CallHeader::decode(&mut r).unwrap();
    assert_eq!((header.program, header.version), (PROGRAM, 1));
    let body = |body| Some(encoded(&ReplyHeader { xid: header.xid, body }, &[]));
    let denied = || body(ReplyBody::Denied(Rejected::AuthError(AuthStatus::BadCred)));
    let no_program = ReplyBody::Accepted { verifier: OpaqueAuth::NONE, status: AcceptStatus::ProgUnavail };
    let mut manner = manner.lock().unwrap();
    match header.procedure {
        CB_NULL => {
            got.lock().unwrap().push(Got::Null);
            let header = ReplyHeader::success(header.xid);
            if *manner == Manner::NoProgram { body(no_program) } else { Some(encoded(&header, &[])) }
        }
        CB_COMPOUND => {
            let compound = CbCompoundArgs::decode(&mut r).unwrap();
            assert_eq!((compound.minor_version, compound.count), (0, 1));
            let CbArgs::Recall(recall) = CbArgs::decode(&mut r).unwrap() else { panic!("a CB_RECALL") };
            r.finish("call").unwrap();
            let cookie = u64::from_be_bytes(recall.stateid.other[..8].try_into().unwrap());
            got.lock().unwrap().push(Got::Recall(cookie, call.to_vec()));
            match *manner {
                Manner::HangUpOnce => {
                    *manner = Manner::Answer;
                    None
                }
                Manner::NoProgram => body(no_program),
                Manner::Answer if compound.callback_ident != ident || header.credential.flavor != 1 => denied(),
                Manner::Answer => {
                    let results = CbCompoundRes { status: Status::NFS4_OK, tag: b"", count: 1 };
                    Some(encoded(&ReplyHeader::success(header.xid), &[&results, &CbRes::Recall(Status::NFS4_OK)]))
                }
            }
        }
        other => panic!("procedure {other}"),
    }
}

fn encoded(header: &ReplyHeader<'_>, rest: &[&dyn Encode]) -> Vec<u8> {
    let mut space = [0; 512];
    let mut w = Writer::new(&mut space);
    header.encode(&mut w).unwrap();
    rest.iter().for_each(|part| part.encode(&mut w).unwrap());
    w.written().to_vec()
}

fn config(address: CallbackAddress, callback_ident: u32) -> PathConfig {
    let security = Security::Sys { stamp: 7, machine_name: b"server".to_vec(), uid: 0, gid: 0, gids: vec![] };
    PathConfig { program: PROGRAM, callback_ident, security, address, window: 8 }
}

/// The client's own connection comes from the same address, from another port.
fn at(address: SocketAddr) -> CallbackAddress {
    CallbackAddress::Connect { address, peer: SocketAddr::new(address.ip(), 700) }
}

struct Server {
    runtime: Runtime,
    hooks: Arc<Counting>,
}

impl Server {
    fn start(builder: Builder) -> Server {
        let hooks = Arc::new(Counting::default());
        let runtime = builder.reactors(2).build(hooks.clone(), Arc::new(Deaf)).unwrap();
        Server { runtime, hooks }
    }

    fn each() -> impl Iterator<Item = Server> {
        backends().into_iter().map(|backend| Server::start(Builder::new().backend(backend)))
    }

    fn client(&self) -> ClientId {
        self.runtime.add_client(None).unwrap()
    }

    /// SETCLIENTID and its confirmation.
    fn confirm(&self, client: ClientId, address: CallbackAddress, ident: u32) -> SessionKey {
        let path = self.runtime.set_client_id(client, config(address, ident)).unwrap();
        self.runtime.confirm(path).unwrap();
        path
    }

    fn recall(&self, client: ClientId, cookie: u64) {
        let key = self.runtime.insert(client, CallbackOp::Recall, cookie).unwrap();
        assert_eq!(self.runtime.try_run(key), TryRun::Submitted);
    }

    fn released(&self, count: u32) {
        eventually("the runs are over", || self.hooks.released() == count);
    }

    fn path_states(&self) -> Vec<PathState> {
        let events = self.hooks.events.lock().unwrap();
        events.iter().filter_map(|e| if let Event::PathState { state, .. } = e { Some(*state) } else { None }).collect()
    }

    fn has_been(&self, state: PathState) {
        eventually("the path state is told", || self.path_states().last() == Some(&state));
    }

    fn finish(self, cookies: std::ops::Range<u64>) {
        assert_clean(&self.runtime, &self.hooks, cookies);
        assert!(self.runtime.shutdown(Duration::from_secs(5)).unwrap().abandoned.is_empty());
    }
}

const OK: &str = "Replied { status: NFS4_OK, results: [] }";

#[test]
fn f11_recalls_reach_clients_over_ipv4_and_ipv6_with_their_callback_ident() {
    for server in Server::each() {
        let services: Vec<_> =
            ["127.0.0.1", "::1"].into_iter().zip(70..).filter_map(|(h, i)| Some((i, Service::on(h, i)?))).collect();
        for (ident, service) in &services {
            // As the client writes it in SETCLIENTID.
            let written = UniversalAddress::new(service.address);
            let read = UniversalAddress::parse(written.netid().as_bytes(), written.to_string().as_bytes()).unwrap();
            let client = server.client();
            server.confirm(client, at(read.socket_address()), *ident);
            (0..100).for_each(|i| server.recall(client, u64::from(*ident) * 1000 + i));
        }
        server.released(100 * services.len() as u32);
        for (ident, service) in &services {
            let mut cookies: Vec<_> = service.recalls().iter().map(|(cookie, _)| *cookie).collect();
            cookies.sort_unstable();
            assert_eq!(cookies, (0..100).map(|i| u64::from(*ident) * 1000 + i).collect::<Vec<_>>());
            assert_eq!((service.count(|g| *g == Got::Null), service.count(|g| *g == Got::Connection)), (1, 1));
        }
        assert!(server.hooks.seen.lock().unwrap().values().all(|seen| seen.done == [OK]));
        assert_eq!(server.runtime.stats().connects, services.len() as u64);
        server.finish(0..0);
    }
}

#[test]
fn f2_a_wrong_callback_ident_is_refused_and_told() {
    for server in Server::each() {
        let service = Service::on("127.0.0.1", 70).unwrap();
        let client = server.client();
        let path = server.confirm(client, at(service.address), 71);
        server.recall(client, 1);
        server.released(1);
        assert!(server.hooks.of(1).done[0].starts_with("Fault"), "{:?}", server.hooks.of(1));
        server.has_been(PathState::Fault);
        let is_told = |e: &Event| matches!(e, Event::BackchannelFault { session, .. } if *session == path);
        assert!(server.hooks.events.lock().unwrap().iter().any(is_told));
        eventually("RENEW tells", || server.runtime.is_path_down(client));
        server.finish(1..2);
    }
}

#[test]
fn f16_an_unconfirmed_address_is_not_connected_to() {
    for server in Server::each() {
        let unconfirmed = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Service::on("127.0.0.1", 70).unwrap();
        let client = server.client();
        let set = |address, ident| server.runtime.set_client_id(client, config(at(address), ident)).unwrap();
        let first = set(unconfirmed.local_addr().unwrap(), 69);
        server.recall(client, 1);
        let second = set(service.address, 70);
        assert_eq!(server.runtime.confirm(first), Err(Error::NotUnconfirmed), "replaced");
        assert_eq!(server.runtime.confirm(second), Ok(()));
        assert_eq!(server.runtime.confirm(second), Err(Error::NotUnconfirmed), "confirmed already");
        // One more SETCLIENTID that is never confirmed changes nothing.
        set(unconfirmed.local_addr().unwrap(), 68);
        server.released(1);
        server.recall(client, 2);
        server.released(2);
        assert_eq!(service.recalls().len(), 2);
        assert_eq!(server.runtime.stats().connects, 1, "only to the one that was confirmed");
        unconfirmed.set_nonblocking(true).unwrap();
        assert_eq!(unconfirmed.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        server.finish(1..3);
    }
}

#[test]
fn f16_a_client_that_is_gone_confirms_nothing() {
    let server = Server::start(Builder::new().backend(Backend::Epoll));
    let client = server.client();
    let address = at("127.0.0.1:9".parse().unwrap());
    let path = server.runtime.set_client_id(client, config(address, 1)).unwrap();
    server.runtime.remove_client(client).unwrap();
    assert_eq!(server.runtime.confirm(path), Err(Error::NoSuchClient));
    assert_eq!(server.runtime.set_client_id(client, config(address, 1)), Err(Error::NoSuchClient));
    server.finish(0..0);
}

#[test]
fn f9_new_parameters_are_probed_anew_and_old_verdicts_are_dropped() {
    for server in Server::each() {
        let old = Service::on("127.0.0.1", 70).unwrap();
        let new = Service::on("127.0.0.1", 71).unwrap();
        *old.manner.lock().unwrap() = Manner::NoProgram;
        let client = server.client();
        server.confirm(client, at(old.address), 70);
        server.has_been(PathState::Fault);
        assert!(old.count(|g| *g == Got::Null) > 0);
        server.confirm(client, at(new.address), 71);
        server.recall(client, 1);
        server.released(1);
        assert_eq!(server.hooks.of(1).done, [OK]);
        server.has_been(PathState::Up);
        assert_eq!(server.path_states(), [PathState::Fault, PathState::Unknown, PathState::Up]);
        assert_eq!((old.recalls().len(), new.recalls().len(), new.count(|g| *g == Got::Null)), (0, 1, 1));
        server.finish(1..2);
    }
}

#[test]
fn t20_after_a_lost_connection_the_same_call_is_sent_with_the_same_xid() {
    for server in Server::each() {
        let service = Service::on("127.0.0.1", 70).unwrap();
        *service.manner.lock().unwrap() = Manner::HangUpOnce;
        let client = server.client();
        server.confirm(client, at(service.address), 70);
        server.recall(client, 1);
        server.released(1);
        let recalls = service.recalls();
        assert_eq!(recalls.len(), 2, "at least once");
        assert_eq!(recalls[0], recalls[1], "the same bytes, xid and all");
        assert_eq!((server.hooks.of(1).done, server.hooks.of(1).prepared), (vec![OK.to_owned()], 1));
        assert_eq!(server.runtime.stats().connects, 2);
        server.finish(1..2);
    }
}

#[test]
fn a_client_whose_service_starts_late_is_found() {
    for server in Server::each() {
        let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = reserved.local_addr().unwrap();
        drop(reserved);
        let client = server.client();
        server.confirm(client, at(address), 70);
        server.recall(client, 1);
        server.has_been(PathState::Down);
        eventually("RENEW tells", || server.runtime.is_path_down(client));
        eventually("it is tried again", || server.runtime.stats().connects_failed >= 2);
        let service = Service::start(TcpListener::bind(address).unwrap(), 70, Manner::Answer);
        server.released(1);
        server.has_been(PathState::Up);
        eventually("RENEW tells", || !server.runtime.is_path_down(client));
        assert_eq!(service.recalls().len(), 1);
        server.finish(1..2);
    }
}

#[test]
fn the_policy_decides_to_where_connections_are_made() {
    let peer: SocketAddr = "192.0.2.1:700".parse().unwrap();
    let set = |server: &Server, address: &str| {
        let address = CallbackAddress::Connect { address: address.parse().unwrap(), peer };
        server.runtime.set_client_id(server.client(), config(address, 1)).map(drop)
    };
    let refused = |address: &str| Err(Error::AddressRefused { address: address.parse().unwrap() });
    let server = Server::start(Builder::new().backend(Backend::Epoll));
    assert_eq!(set(&server, "127.0.0.1:22"), refused("127.0.0.1:22"), "not where the client is");
    assert_eq!(set(&server, "192.0.2.1:22"), Ok(()));
    server.finish(0..0);
    let only = ConnectPolicy::Ask(Arc::new(|address, peer| address.port() == 2049 && peer.port() == 700));
    let server = Server::start(Builder::new().backend(Backend::Epoll).connect_policy(only));
    assert_eq!(set(&server, "127.0.0.1:2049"), Ok(()));
    assert_eq!(set(&server, "127.0.0.1:22"), refused("127.0.0.1:22"));
    server.finish(0..0);
}

#[test]
fn an_embedder_supplies_the_socket() {
    for server in Server::each() {
        let service = Service::on("127.0.0.1", 70).unwrap();
        let client = server.client();
        let path = server.confirm(client, CallbackAddress::Supplied, 70);
        server.recall(client, 1);
        let wanted = |e: &Event| *e == Event::ConnectionWanted { path };
        let times = || server.hooks.events.lock().unwrap().iter().filter(|e| wanted(e)).count();
        eventually("a connection is asked for", || times() == 1);
        let supply = || {
            let connection = server.runtime.add_connection(TcpStream::connect(service.address).unwrap()).unwrap();
            server.runtime.bind(connection, path).unwrap();
            connection
        };
        let connection = supply();
        server.released(1);
        // It is lost, and another one asked for when there is something to send.
        server.runtime.close_connection(connection);
        server.recall(client, 2);
        eventually("another is asked for", || times() == 2);
        supply();
        server.released(2);
        assert_eq!((server.runtime.stats().connects, service.recalls().len()), (0, 2));
        server.finish(1..3);
    }
}

#[test]
fn operations_that_minor_version_0_has_not_end_without_being_sent() {
    let server = Server::start(Builder::new().backend(Backend::Epoll));
    let service = Service::on("127.0.0.1", 70).unwrap();
    let client = server.client();
    server.confirm(client, at(service.address), 70);
    server.has_been(PathState::Up);
    let ops = [CallbackOp::Notify, CallbackOp::LayoutRecall, CallbackOp::RecallAny, CallbackOp::RecallSlot];
    for (cookie, op) in (1..).zip(ops) {
        assert!(server.runtime.is_unsupported(client, op));
        let key = server.runtime.insert(client, op, cookie).unwrap();
        assert_eq!(server.runtime.try_run(key), TryRun::Submitted);
        server.released(cookie as u32);
        assert!(server.hooks.of(cookie).done[0].starts_with("Unencodable"), "{:?}", server.hooks.of(cookie));
    }
    assert!(service.recalls().is_empty());
    server.finish(1..5);
}

#[test]
fn f5_many_clients_that_do_not_answer_are_few_connections_at_a_time() {
    for backend in backends() {
        let server =
            Server::start(Builder::new().backend(backend).connects_max(2).connect_timeout(Duration::from_millis(20)));
        // A listener whose backlog is full: who connects waits.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut fillers = Vec::new();
        while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            fillers.push(filler);
        }
        for _ in 0..20 {
            server.confirm(server.client(), at(address), 1);
        }
        // Two reactors, of which each has two at a time.
        eventually("all have been tried", || {
            let stats = server.runtime.stats();
            assert!(stats.connects <= stats.connects_failed + 2 * 2 + 2, "{stats:?}");
            stats.connects_failed >= 20
        });
        // One that answers has its turn among them.
        let service = Service::on("127.0.0.1", 70).unwrap();
        let client = server.client();
        server.confirm(client, at(service.address), 70);
        server.recall(client, 1);
        server.released(1);
        server.finish(1..2);
    }
}

#[test]
fn a_client_that_calls_on_its_callback_connection_is_hung_up_on() {
    let server = Server::start(Builder::new().backend(Backend::Epoll));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = server.client();
    server.confirm(client, at(listener.local_addr().unwrap()), 70);
    let (mut stream, _) = listener.accept().unwrap();
    let mut probe = read_record(&mut stream).unwrap();
    // Its own CB_NULL, sent back: a call. `Deaf` would panic if it were handed to the embedder.
    probe[0] ^= 1;
    write_record(&mut stream, &probe);
    assert_eq!(read_record(&mut stream), None, "hung up");
    server.has_been(PathState::Down);
    server.finish(0..0);
}

#[test]
fn t29_a_client_is_removed_in_every_state_of_its_path() {
    for server in Server::each() {
        for cookie in 1..=20 {
            // Of its own: a connection that is not accepted in one round would be in the next.
            let silent = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = silent.local_addr().unwrap();
            let client = server.client();
            let path = server.runtime.set_client_id(client, config(at(address), 1)).unwrap();
            if cookie % 4 > 0 {
                server.runtime.confirm(path).unwrap();
            }
            server.recall(client, cookie);
            let connection = (cookie % 4 > 1).then(|| silent.accept().unwrap().0);
            let probe =
                (cookie % 4 > 2).then(|| read_record(&mut connection.as_ref().unwrap().try_clone().unwrap()).unwrap());
            server.runtime.remove_client(client).unwrap();
            server.released(cookie as u32);
            if let (Some(mut connection), Some(_)) = (connection, probe) {
                assert_eq!(read_record(&mut connection), None, "the connection goes with the client");
            }
        }
        server.finish(1..21);
    }
}
