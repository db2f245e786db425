//! Both processes of an upgrade, in one: each on a thread of its own.

mod faults;
mod minor0;
mod peer;
mod whole;

use super::{FAULT, Fault, Step, Upgrade, UpgradeError, Upgraded};
use crate::common::*;
use crate::{Backend, Builder, Call, CallToken, CallbackKey, ClientId, ForeChannel, Hooks, Runtime, TryRun};
use ringback_rpc::message::peek;
use ringback_rpc::nfs4::Status;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers calls with as many bytes as they ask for, or later.
#[derive(Default)]
struct Fore {
    /// Their xids.
    calls: Mutex<Vec<u32>>,
    deferred: Mutex<Vec<(CallToken, Vec<u8>)>>,
}

impl ForeChannel for Fore {
    fn call(&self, call: Call<'_>) {
        let (xid, _) = peek(call.record()).unwrap();
        self.calls.lock().unwrap().push(xid);
        if xid >= LATER {
            return self.deferred.lock().unwrap().push(call.defer());
        }
        let length = call.record().len();
        let _ = call.reply(xid as usize, |_, reply| reply.raw(&bytes(length, xid)));
    }
}

/// A call with such an xid is answered later.
const LATER: u32 = 1 << 24;

/// A call of so many bytes, to be answered with so many.
fn call(length: usize, xid: u32) -> Vec<u8> {
    let mut call = xid.to_be_bytes().to_vec();
    call.resize(length, 0);
    call
}

fn bytes(call: usize, count: u32) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8 ^ call as u8).collect()
}

/// A runtime, and the clients of it at the other ends.
struct Bed {
    runtime: Runtime,
    hooks: Arc<Counting>,
    fore: Arc<Fore>,
    clients: Vec<Peer>,
}

/// A client: it has two connections, of which one carries its session.
struct Peer {
    id: ClientId,
    stream: TcpStream,
    /// The other one.
    other: TcpStream,
    slots: SlotIds,
    keys: Vec<CallbackKey>,
}

fn builder(backend: Backend, reactors: usize) -> Builder {
    Builder::new().backend(backend).reactors(reactors).rpc_timeout(Duration::from_secs(20))
}

/// Both back ends, from one to the other, and with other numbers of reactors.
fn pairs() -> Vec<((Backend, usize), (Backend, usize))> {
    let all = backends();
    let both = |a: &Backend| all.iter().map(|b| ((*a, 3), (*b, 2))).collect::<Vec<_>>();
    let more = all.iter().map(|b| ((*b, 1), (*b, 4)));
    all.iter().flat_map(both).chain(more).collect()
}

impl Bed {
    /// Clients with so many callbacks each, and sessions of two slots.
    fn new(builder: Builder, clients: u64, callbacks: u64) -> Self {
        let (hooks, fore) = (Arc::new(Counting::default()), Arc::new(Fore::default()));
        let runtime = builder.build(Arc::clone(&hooks) as _, Arc::clone(&fore) as _).unwrap();
        let peer = |n: u64| {
            let (ours, stream) = pair();
            let connection = runtime.add_connection(ours).unwrap();
            let id = runtime.add_client(Some(connection)).unwrap();
            // Whose home is elsewhere than one of its connections, where there is more than one reactor.
            let (ours, other) = pair();
            let elsewhere = runtime.add_connection(ours).unwrap();
            let session = runtime.add_session(id, session_config(n as u8, 2)).unwrap();
            let (carries, stream, other) =
                if n.is_multiple_of(2) { (connection, stream, other) } else { (elsewhere, other, stream) };
            runtime.bind(carries, session).unwrap();
            let keys = insert_all(&runtime, id, n * callbacks..(n + 1) * callbacks);
            Peer { id, stream, other, slots: SlotIds::default(), keys }
        };
        let clients = (0..clients).map(peer).collect();
        Bed { runtime, hooks, fore, clients }
    }

    /// Starts these callbacks of each client; reads the two that go out, and sends the first half of the reply to the first.
    fn start(&mut self, count: usize) -> Vec<Begun> {
        for client in &self.clients {
            for key in &client.keys[..count] {
                assert_eq!(self.runtime.try_run(*key), TryRun::Submitted);
            }
        }
        self.clients.iter_mut().map(Peer::begin).collect()
    }
}

/// Where a client is with its answers.
struct Begun {
    /// What is left of the first reply.
    rest: Vec<u8>,
    second: Vec<u8>,
    cookies: Vec<u64>,
}

impl Peer {
    fn begin(&mut self) -> Begun {
        use std::io::Write;
        let (first, reply) = answer_recall(&read_record(&mut self.stream).unwrap(), &mut self.slots, Status::NFS4_OK);
        let (second, later) = answer_recall(&read_record(&mut self.stream).unwrap(), &mut self.slots, Status::NFS4_OK);
        let marked = [&(reply.len() as u32 | 1 << 31).to_be_bytes()[..], &reply].concat();
        let (now, rest) = marked.split_at(marked.len() / 2);
        self.stream.write_all(now).unwrap();
        Begun { rest: rest.to_vec(), second: later, cookies: vec![first, second] }
    }

    /// Answers the rest, so many callbacks in all, each of which comes for the first time (`answer_recall` sees to that).
    fn finish(&mut self, begun: Begun, count: usize) -> Vec<u64> {
        use std::io::Write;
        self.stream.write_all(&begun.rest).unwrap();
        write_record(&mut self.stream, &begun.second);
        let mut cookies = begun.cookies;
        while cookies.len() < count {
            let record = read_record(&mut self.stream).unwrap();
            let (cookie, reply) = answer_recall(&record, &mut self.slots, Status::NFS4_OK);
            cookies.push(cookie);
            write_record(&mut self.stream, &reply);
        }
        cookies.sort_unstable();
        cookies
    }
}

/// The new process.
struct Next {
    runtime: Runtime,
    hooks: Arc<Counting>,
    fore: Arc<Fore>,
    upgraded: Upgraded,
}

/// Takes over what is at the other end.
fn take_over(builder: Builder, socket: UnixStream, patience: Duration) -> Result<Next, UpgradeError> {
    let upgrade = Upgrade::receive(socket, patience)?;
    let (hooks, fore) = (Arc::new(Counting::default()), Arc::new(Fore::default()));
    let builder = builder.upgrade_from(&upgrade);
    let runtime = builder
        .build(Arc::clone(&hooks) as _, Arc::clone(&fore) as _)
        .map_err(|error| UpgradeError::Io(std::io::Error::other(error.to_string())))?;
    let upgraded = upgrade.confirm()?;
    Ok(Next { runtime, hooks, fore, upgraded })
}

/// The new process, on a thread that fails as it is told to.
fn successor(builder: Builder, fault: Option<(Step, Fault)>) -> (UnixStream, JoinHandle<Result<Next, UpgradeError>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        FAULT.set(fault);
        take_over(builder, theirs, PATIENCE)
    });
    (ours, thread)
}
