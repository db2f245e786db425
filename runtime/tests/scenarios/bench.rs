//! A runtime, an embedder whose hooks can be told what to do, and the client's end of a transport.

use ringback::{
    Backend, Builder, Call, CallbackKey, CallbackOp, ClientId, ConnectionId, Done, Event, ForeChannel, Hooks, Outbound,
    Outcome, Prepare, ReferringCalls, Run, Runtime, Security, SessionConfig, SessionKey, Transport, TryRun,
};
use ringback_rpc::message::{CallHeader, ReplyHeader};
use ringback_rpc::nfs4::callback::{CbArgs, CbCompoundArgs, CbCompoundRes, CbSequenceArgs, ReferringCallList};
use ringback_rpc::nfs4::{SessionId, Status};
use ringback_rpc::record::RecordReader;
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for a reactor to do what it should not.
const QUIET: Duration = Duration::from_millis(30);
pub const PROGRAM: u32 = 0x4000_0000;

/// What the hooks saw of one callback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub acquired: u32,
    pub prepared: u32,
    pub done: Vec<String>,
    pub released: u32,
    pub dropped: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Acquire,
    Prepare,
    Referring,
    Encode,
    Done,
    Release,
    DropReference,
}

/// Session, sequence id and slot of a fore-channel call.
pub type Named = ([u8; 16], u32, u32);

type Action = Box<dyn FnOnce(&Runtime) + Send>;

/// An embedder that counts by cookie, and does once in a hook what it was told.
#[derive(Default)]
pub struct Embedder {
    pub seen: Mutex<HashMap<u64, Seen>>,
    pub events: Mutex<Vec<Event>>,
    /// What `done` answers next; then it finishes.
    pub answers: Mutex<VecDeque<Done>>,
    /// Cookies of which `prepare` says that there is nothing to send.
    pub refused: Mutex<Vec<u64>>,
    /// By cookie: the fore-channel calls that it depends on.
    pub referring: Mutex<HashMap<u64, Vec<Named>>>,
    pub closed: Mutex<Vec<ConnectionId>>,
    pub call_panics: AtomicBool,
    pub event_panics: AtomicBool,
    actions: Mutex<Vec<(u64, Stage, Action)>>,
    runtime: OnceLock<Runtime>,
}

impl Embedder {
    fn enter(&self, cookie: u64, stage: Stage, f: impl FnOnce(&mut Seen)) {
        f(self.seen.lock().unwrap().entry(cookie).or_default());
        let mut actions = self.actions.lock().unwrap();
        let Some(at) = actions.iter().position(|(c, s, _)| (*c, *s) == (cookie, stage)) else { return };
        let (_, _, action) = actions.remove(at);
        drop(actions);
        action(self.runtime.get().expect("the runtime is set before anything runs"));
    }

    pub fn of(&self, cookie: u64) -> Seen {
        self.seen.lock().unwrap().get(&cookie).cloned().unwrap_or_default()
    }
}

impl Hooks for Embedder {
    fn acquire(&self, cookie: u64) {
        self.enter(cookie, Stage::Acquire, |s| s.acquired += 1);
    }
    fn prepare(&self, run: &Run) -> Prepare {
        self.enter(run.cookie, Stage::Prepare, |s| s.prepared += 1);
        if self.refused.lock().unwrap().contains(&run.cookie) { Prepare::Refuse } else { Prepare::Send }
    }
    fn referring_calls(&self, run: &Run, calls: &mut ReferringCalls<'_>) {
        self.enter(run.cookie, Stage::Referring, |_| ());
        for (session, sequence_id, slot) in self.referring.lock().unwrap().get(&run.cookie).into_iter().flatten() {
            calls.add(SessionId(*session), *sequence_id, *slot);
        }
    }
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.enter(run.cookie, Stage::Encode, |_| ());
        args.u64(run.cookie)
    }
    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        self.enter(run.cookie, Stage::Done, |s| s.done.push(format!("{outcome:?}")));
        self.answers.lock().unwrap().pop_front().unwrap_or(Done::Finish)
    }
    fn release(&self, run: &Run) {
        self.enter(run.cookie, Stage::Release, |s| s.released += 1);
    }
    fn drop_reference(&self, cookie: u64) {
        self.enter(cookie, Stage::DropReference, |s| s.dropped += 1);
    }
    fn event(&self, event: &Event) {
        assert!(!self.event_panics.load(SeqCst), "a panic of the embedder, on purpose");
        self.events.lock().unwrap().push(event.clone());
    }
}

impl ForeChannel for Embedder {
    fn call(&self, _: Call<'_>) {
        assert!(!self.call_panics.load(SeqCst), "a panic of the embedder, on purpose");
    }
    fn closed(&self, connection: ConnectionId) {
        self.closed.lock().unwrap().push(connection);
    }
}

struct Wire(Sender<Vec<u8>>);

impl Transport for Wire {
    fn send(&mut self, outbound: Outbound) {
        // Nobody reads any more at the end of a test.
        let _ = self.0.send(outbound.bytes().to_vec());
        outbound.complete(Ok(()));
    }
    fn close(&mut self) {}
}

/// A runtime on one reactor.
pub struct Bench {
    pub runtime: Runtime,
    pub hooks: Arc<Embedder>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(Builder::new().reactors(1))
    }

    pub fn with(builder: Builder) -> Bench {
        let hooks = Arc::new(Embedder::default());
        let runtime = builder.backend(Backend::Epoll).build(Arc::clone(&hooks) as _, Arc::clone(&hooks) as _).unwrap();
        assert!(hooks.runtime.set(runtime.clone()).is_ok());
        Bench { runtime, hooks }
    }

    /// A connection.
    pub fn line(&self) -> Line {
        let (sender, sends) = channel();
        let connection = self.runtime.add_transport(Box::new(Wire(sender))).unwrap();
        Line {
            runtime: self.runtime.clone(),
            connection,
            sends,
            reader: RecordReader::new(1 << 20),
            calls: VecDeque::new(),
        }
    }

    /// A client with a session, bound to a connection.
    pub fn client(&self, slots: u32) -> (Line, ClientId, SessionKey) {
        let line = self.line();
        let client = self.runtime.add_client(Some(line.connection)).unwrap();
        let session = self.runtime.add_session(client, session_config(1, slots)).unwrap();
        self.runtime.bind(line.connection, session).unwrap();
        (line, client, session)
    }

    pub fn insert(&self, client: ClientId, op: CallbackOp, cookie: u64) -> CallbackKey {
        self.runtime.insert(client, op, cookie).unwrap()
    }

    /// A recall that was asked for.
    pub fn recall(&self, client: ClientId, cookie: u64) -> CallbackKey {
        let key = self.insert(client, CallbackOp::Recall, cookie);
        self.submit(key);
        key
    }

    pub fn submit(&self, key: CallbackKey) {
        assert_eq!(self.runtime.try_run(key), TryRun::Submitted);
    }

    /// Does something in a hook, the next time that it is called for this cookie.
    pub fn during(&self, cookie: u64, stage: Stage, action: impl FnOnce(&Runtime) + Send + 'static) {
        self.hooks.actions.lock().unwrap().push((cookie, stage, Box::new(action)));
    }

    pub fn until(&self, what: &str, f: impl Fn(&Bench) -> bool) {
        let begun = Instant::now();
        while !f(self) {
            assert!(begun.elapsed() < PATIENCE, "still not: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn until_released(&self, cookie: u64, count: u32) {
        self.until("it is released", |b| b.hooks.of(cookie).released >= count);
    }

    pub fn until_idle(&self) {
        self.until("nothing is in flight", |b| b.runtime.stats().in_flight == 0);
    }

    /// One accepted run, one completion (rule R3).
    #[track_caller]
    pub fn assert_ended_once(&self, cookie: u64, outcome: &str) {
        let seen = self.hooks.of(cookie);
        assert_eq!((seen.acquired, seen.done.len(), seen.released, seen.dropped), (1, 1, 1, 1), "{cookie}: {seen:?}");
        assert!(seen.done[0].starts_with(outcome), "{cookie}: {seen:?}");
    }

    /// Slots of all sessions, all of them free.
    #[track_caller]
    pub fn assert_slots_free(&self) {
        let census = self.runtime.census().unwrap();
        assert_eq!((census.with_run, census.quarantined, census.free), (0, 0, census.slots), "{census:?}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let report = self.runtime.shutdown(Duration::ZERO).unwrap();
        assert!(std::thread::panicking() || report.in_flight == 0);
    }
}

pub fn session_config(id: u8, slots: u32) -> SessionConfig {
    SessionConfig {
        session_id: [id; 16],
        program: PROGRAM,
        security: Security::Sys { stamp: 1, machine_name: b"server".to_vec(), uid: 0, gid: 0, gids: vec![] },
        slots,
        request_bytes_max: 4096,
        response_bytes_max: 4096,
        operations_max: 2,
        minor_version: 1,
    }
}

/// The client's end of a connection.
pub struct Line {
    runtime: Runtime,
    pub connection: ConnectionId,
    sends: Receiver<Vec<u8>>,
    reader: RecordReader,
    calls: VecDeque<Called>,
}

impl Line {
    /// The next call, if it comes in time.
    pub fn call_within(&mut self, patience: Duration) -> Option<Called> {
        let until = Instant::now() + patience;
        while self.calls.is_empty() {
            let bytes = self.sends.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
            let mut input = &bytes[..];
            while let Some(record) = self.reader.next(&mut input).unwrap() {
                self.calls.push_back(Called::parse(&record));
            }
        }
        self.calls.pop_front()
    }

    /// The next call.
    #[track_caller]
    pub fn call(&mut self) -> Called {
        self.call_within(PATIENCE).expect("a call arrives")
    }

    /// Nothing arrives for a while.
    #[track_caller]
    pub fn quiet(&mut self) {
        let arrived = self.call_within(QUIET);
        assert!(arrived.is_none(), "{arrived:?}");
    }

    pub fn reply(&self, record: Vec<u8>) {
        self.runtime.receive(self.connection, record);
    }

    pub fn ok(&self, call: &Called) {
        self.reply(call.status(Status::NFS4_OK));
    }

    /// Takes the next call and says yes; gives its cookie.
    #[track_caller]
    pub fn serve(&mut self) -> u64 {
        let call = self.call();
        self.ok(&call);
        call.cookie()
    }
}

/// A call as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    pub bytes: Vec<u8>,
    pub xid: u32,
    pub program: u32,
    pub credential: u32,
    pub session: SessionId,
    pub sequence: u32,
    pub slot: u32,
    /// The calls of all referring call lists.
    pub referring: Vec<Named>,
    /// The first operation and its cookie; `None`: a lone CB_SEQUENCE.
    pub op: Option<(u32, u64)>,
    /// All of them.
    pub ops: Vec<(u32, u64)>,
}

impl Called {
    pub fn parse(bytes: &[u8]) -> Called {
        let mut r = Reader::new(bytes);
        let header = CallHeader::decode(&mut r).unwrap();
        assert_eq!((header.version, header.procedure), (1, 1));
        let compound = CbCompoundArgs::decode(&mut r).unwrap();
        let Ok(CbArgs::Sequence(sequence)) = CbArgs::decode(&mut r) else { panic!("CB_SEQUENCE comes first") };
        let CbSequenceArgs { session_id, sequence_id, slot_id, referring_call_lists, .. } = sequence;
        let of_list = |list: ReferringCallList<'_>| {
            list.calls.iter().map(|c| (list.session_id.0, c.sequence_id, c.slot_id)).collect::<Vec<_>>()
        };
        let referring = referring_call_lists.iter().flat_map(of_list).collect();
        let ops: Vec<_> = (1..compound.count).map(|_| (r.u32("op").unwrap(), r.u64("cookie").unwrap())).collect();
        r.finish("a call").unwrap();
        Called {
            bytes: bytes.to_vec(),
            xid: header.xid,
            program: header.program,
            credential: header.credential.flavor,
            session: session_id,
            sequence: sequence_id,
            slot: slot_id,
            referring,
            op: ops.first().copied(),
            ops,
        }
    }

    #[track_caller]
    pub fn cookie(&self) -> u64 {
        self.op.expect("a lone CB_SEQUENCE").1
    }

    /// As if it had been sent on another slot.
    pub fn with_slot(&self, slot: u32) -> Called {
        Called { slot, ..self.clone() }
    }

    /// CB_SEQUENCE is fine; then the status of the operations. An error stops at the first of them.
    pub fn status(&self, status: Status) -> Vec<u8> {
        let ops = if status.is_ok() { &self.ops[..] } else { &self.ops[..self.ops.len().min(1)] };
        self.results(|w| {
            CbCompoundRes { status, tag: b"", count: 1 + ops.len() as u32 }.encode(w)?;
            words(w, &[CallbackOp::Sequence as u32, 0])?;
            self.session.encode(w)?;
            words(w, &[self.sequence, self.slot, 63, 63])?;
            ops.iter().try_for_each(|(op, _)| words(w, &[*op, status.0]))
        })
    }

    /// CB_SEQUENCE fails.
    pub fn sequence_status(&self, status: Status) -> Vec<u8> {
        self.results(|w| {
            CbCompoundRes { status, tag: b"", count: 1 }.encode(w)?;
            words(w, &[CallbackOp::Sequence as u32, status.0])
        })
    }

    fn results(&self, write: impl FnOnce(&mut Writer<'_>) -> xdr::Result<()>) -> Vec<u8> {
        let mut space = [0; 512];
        let mut w = Writer::new(&mut space);
        ReplyHeader::success(self.xid).encode(&mut w).unwrap();
        write(&mut w).unwrap();
        w.written().to_vec()
    }
}

fn words(w: &mut Writer<'_>, values: &[u32]) -> xdr::Result<()> {
    values.iter().try_for_each(|value| w.u32(*value))
}
