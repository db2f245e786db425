//! A reactor that is turned by hand, on a virtual clock, over a back end that can be told to fail; and one client at the
//! other end of a socket, in the same thread. Nothing runs beside it, so that turns can be counted.

mod bounds;
mod ended;
mod failures;
mod log;
mod moving;
mod races;
mod steady;
mod stepped;
mod tenants;
mod tune;

use super::Reactor;
use crate::callback::{CallbackKey, CallbackSlab, InsertError};
use crate::fore::{Call, ForeChannel};
use crate::hooks::{Done, Hooks, Outcome, Prepare, Run};
use crate::io::conformance::harness::make;
use crate::io::{
    Backend, BackendKind, BackendReport, ConnKey, Io, IoConfig, IoCounters, IoEvent, RecvBuf, SendBuf, Wait, Wake,
};
use crate::registry::Shared;
use crate::runtime::Runtime;
use crate::session::{Security, SessionConfig};
use crate::settings::Settings;
use crate::{ClientId, TryRun};
use ringback_rpc::message::{CallHeader, ReplyHeader};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::{CallbackOp, CbArgs, CbCompoundArgs, CbCompoundRes, CbRes, CbSequenceRes};
use ringback_rpc::record::RecordReader;
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Which attempts to get something fail: memory for a segment of the slab, a staging buffer, a place for a send. They are
/// counted together.
pub(super) struct Failures {
    attempts: AtomicU64,
    failed: AtomicU64,
    fails: Box<dyn Fn(Attempt) -> bool + Send + Sync>,
}

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// Its number, from 1.
    pub number: u64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Slab,
    Staging,
    Send,
}

impl Failures {
    pub fn new(fails: impl Fn(Attempt) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Failures { attempts: AtomicU64::new(0), failed: AtomicU64::new(0), fails: Box::new(fails) })
    }

    /// Whether this attempt succeeds.
    fn grants(&self, what: What) -> bool {
        let number = self.attempts.fetch_add(1, SeqCst) + 1;
        let fails = (self.fails)(Attempt { number, what });
        self.failed.fetch_add(fails.into(), SeqCst);
        !fails
    }
}

/// A back end with a clock of its own, which jumps to the next timer when there is nothing else, and whose sends may be
/// refused.
struct Failing {
    inner: Box<dyn Io>,
    now_ns: u64,
    failures: Arc<Failures>,
    /// The reactor has waited for something that is not time.
    idle: bool,
}

impl Io for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }
    fn attach(&mut self, conn: ConnKey, socket: OwnedFd) -> io::Result<()> {
        self.inner.attach(conn, socket)
    }
    fn detach(&mut self, conn: ConnKey) {
        self.inner.detach(conn)
    }
    fn lift(&mut self, conn: ConnKey) {
        self.inner.lift(conn)
    }
    fn pause(&mut self, conn: ConnKey) {
        self.inner.pause(conn)
    }
    fn resume(&mut self, conn: ConnKey) {
        self.inner.resume(conn)
    }
    fn send(&mut self, conn: ConnKey, buf: SendBuf) -> Result<(), SendBuf> {
        if self.failures.grants(What::Send) { self.inner.send(conn, buf) } else { Err(buf) }
    }
    fn turn(&mut self, wait: Wait, events: &mut Vec<IoEvent>) -> io::Result<()> {
        let before = events.len();
        self.inner.turn(Wait::No, events)?;
        self.idle = false;
        match wait {
            Wait::Until(at) if events.len() == before => self.now_ns = self.now_ns.max(at),
            Wait::Forever => self.idle = events.len() == before,
            _ => {}
        }
        Ok(())
    }
    fn received(&self, buf: &RecvBuf) -> &[u8] {
        self.inner.received(buf)
    }
    fn recycle(&mut self, buf: RecvBuf) {
        self.inner.recycle(buf)
    }
    fn counters(&self) -> IoCounters {
        self.inner.counters()
    }
}

/// What the hooks saw of one callback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub acquired: u32,
    pub prepared: u32,
    pub done: Vec<String>,
    pub released: u32,
    pub dropped: u32,
}

/// Counts by cookie, unless it is to take no memory.
#[derive(Default)]
struct Counting {
    seen: Mutex<BTreeMap<u64, Seen>>,
    quiet: AtomicBool,
}

impl Counting {
    fn see(&self, cookie: u64, f: impl FnOnce(&mut Seen)) {
        if self.quiet.load(SeqCst) {
            return;
        }
        f(self.seen.lock().expect("no hook panics").entry(cookie).or_default());
    }
}

impl Hooks for Counting {
    fn acquire(&self, cookie: u64) {
        self.see(cookie, |s| s.acquired += 1);
    }
    fn prepare(&self, run: &Run) -> Prepare {
        self.see(run.cookie, |s| s.prepared += 1);
        Prepare::Send
    }
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        args.u64(run.cookie)
    }
    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        self.see(run.cookie, |s| s.done.push(format!("{outcome:?}")));
        Done::Finish
    }
    fn release(&self, run: &Run) {
        self.see(run.cookie, |s| s.released += 1);
    }
    fn drop_reference(&self, cookie: u64) {
        self.see(cookie, |s| s.dropped += 1);
    }
}

impl ForeChannel for Counting {
    fn call(&self, _: Call<'_>) {}
}

/// The client: executes what arrives, and answers.
struct Client {
    stream: UnixStream,
    reader: RecordReader,
    /// How often each cookie was executed.
    executed: BTreeMap<u64, u32>,
}

impl Client {
    fn step(&mut self) {
        let mut bytes = [0; 1 << 16];
        while let Ok(len @ 1..) = self.stream.read(&mut bytes) {
            let mut input = &bytes[..len];
            while let Some(record) = self.reader.next(&mut input).expect("records") {
                let (cookie, reply) = answer(&record);
                *self.executed.entry(cookie).or_default() += 1;
                self.stream.write_all(&reply).expect("the socket takes a reply");
            }
        }
    }
}

/// Takes CB_SEQUENCE and one operation, whose arguments are the cookie; gives it and the marked reply.
fn answer(call: &[u8]) -> (u64, Vec<u8>) {
    let mut r = Reader::new(call);
    let header = CallHeader::decode(&mut r).expect("a call");
    assert_eq!(CbCompoundArgs::decode(&mut r).expect("a compound").count, 2);
    let Ok(CbArgs::Sequence(s)) = CbArgs::decode(&mut r) else { panic!("CB_SEQUENCE comes first") };
    assert_eq!(r.u32("op"), Ok(CallbackOp::Recall as u32));
    let cookie = r.u64("cookie").expect("a cookie");
    let mut space = [0; 512];
    let mut w = Writer::new(&mut space);
    let mark = ringback_rpc::record::begin(&mut w).expect("room");
    ReplyHeader::success(header.xid).encode(&mut w).expect("room");
    CbCompoundRes { status: Status::NFS4_OK, tag: b"", count: 2 }.encode(&mut w).expect("room");
    let echo = CbSequenceRes {
        session_id: s.session_id,
        sequence_id: s.sequence_id,
        slot_id: s.slot_id,
        highest_slot_id: 63,
        target_highest_slot_id: 63,
    };
    CbRes::Sequence(Ok(echo)).encode(&mut w).expect("room");
    CbRes::Recall(Status::NFS4_OK).encode(&mut w).expect("room");
    ringback_rpc::record::end(&mut w, mark).expect("room");
    (cookie, w.written().to_vec())
}

/// All of it.
pub(super) struct Stage {
    runtime: Runtime,
    shared: Arc<Shared>,
    reactor: Reactor<Failing>,
    hooks: Arc<Counting>,
    failures: Arc<Failures>,
    client: Client,
    id: ClientId,
    pub turns: u64,
}

/// Where a play ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Final {
    pub seen: BTreeMap<u64, Seen>,
    pub executed: BTreeMap<u64, u32>,
    pub in_flight: u64,
    pub slots_free: u64,
    pub completed: u64,
}

impl Stage {
    /// One client with one session of `slots` slots. `None`, said aloud: this host lacks the back end.
    pub fn new(backend: Backend, slots: u32, failures: Arc<Failures>) -> Option<Stage> {
        Stage::with(backend, slots, failures, Settings::default())
    }

    /// The same with other settings.
    pub fn with(backend: Backend, slots: u32, failures: Arc<Failures>, settings: Settings) -> Option<Stage> {
        let inner = make(backend, &IoConfig::default())?;
        let settings = Settings { reactors: 1, ..settings };
        let hooks = Arc::new(Counting::default());
        let growth = Arc::clone(&failures);
        let gate = Box::new(move |_| growth.grants(What::Slab));
        let slab = CallbackSlab::new(settings.callbacks_max, 1).with_growth_gate(gate);
        let mut shared = Shared::new(settings, Arc::clone(&hooks) as _, Arc::clone(&hooks) as _);
        shared.slab = slab;
        let shared = Arc::new(shared);
        let io = Failing { inner, now_ns: 1_000_000_000, failures: Arc::clone(&failures), idle: false };
        let mut reactor = Reactor::new(0, Arc::clone(&shared), io);
        let staging = Arc::clone(&failures);
        reactor.lines.pool.gate = Some(Box::new(move || staging.grants(What::Staging)));
        let report = BackendReport { kind: BackendKind::Epoll, name: "failing", reason: "a test".to_owned() };
        let runtime = Runtime::new(Arc::clone(&shared), report);
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        far.set_nonblocking(true).expect("a socket");
        let connection = runtime.add_connection(near).expect("open");
        let id = runtime.add_client(Some(connection)).expect("open");
        let session = runtime.add_session(id, session(slots)).expect("open");
        runtime.bind(connection, session).expect("open");
        let client = Client { stream: far, reader: RecordReader::new(1 << 20), executed: BTreeMap::new() };
        let mut stage = Stage { runtime, shared, reactor, hooks, failures, client, id, turns: 0 };
        stage.run_until(|s| s.reactor.io.idle);
        Some(stage)
    }

    /// Turns the reactor, and lets the client answer, until `over`.
    pub fn run_until(&mut self, mut over: impl FnMut(&Stage) -> bool) {
        loop {
            self.reactor.turn().expect("a turn");
            self.turns += 1;
            if over(self) {
                return;
            }
            self.client.step();
            assert!(self.turns < 1_000_000, "it goes on and on");
        }
    }

    /// Makes callbacks, as an embedder that tries again when there is no memory.
    pub fn insert(&self, cookies: std::ops::Range<u64>) -> Vec<CallbackKey> {
        let insert = |cookie| loop {
            match self.runtime.insert(self.id, CallbackOp::Recall, cookie) {
                Ok(key) => return key,
                Err(InsertError::OutOfMemory) => {}
                Err(other) => panic!("{other}"),
            }
        };
        cookies.map(insert).collect()
    }

    pub fn submit(&self, keys: &[CallbackKey]) {
        keys.iter().for_each(|key| assert_eq!(self.runtime.try_run(*key), TryRun::Submitted));
    }

    pub fn in_flight(&self) -> u64 {
        self.runtime.stats().in_flight
    }

    pub fn now_ns(&self) -> u64 {
        self.reactor.io.now_ns
    }

    pub fn attempts(&self) -> u64 {
        self.failures.attempts.load(SeqCst)
    }

    pub fn failed(&self) -> u64 {
        self.failures.failed.load(SeqCst)
    }

    pub fn seen(&self) -> BTreeMap<u64, Seen> {
        self.hooks.seen.lock().expect("no hook panics").clone()
    }

    pub fn end(&self) -> Final {
        Final {
            seen: self.seen(),
            executed: self.client.executed.clone(),
            in_flight: self.in_flight(),
            slots_free: self.reactor.home.census(|_| true).free,
            completed: self.runtime.stats().completed,
        }
    }
}

fn session(slots: u32) -> SessionConfig {
    SessionConfig {
        session_id: [1; 16],
        program: 0x4000_0000,
        security: Security::None,
        slots,
        request_bytes_max: 4096,
        response_bytes_max: 4096,
        operations_max: 2,
        minor_version: 1,
    }
}
