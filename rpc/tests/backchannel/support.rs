//! Both ends in one thread with virtual time: a driver that checks what the core does to it, and a client that follows
//! the Linux client's rules for CB_SEQUENCE.

use std::collections::{BTreeMap, VecDeque};

use ringback_rpc::backchannel::{
    Backchannel, Config, ConnToken, Credential, Event, Handled, Host, Outcome, ReferringCalls, Requeue, Sending,
    SessionKey, SessionParams, Token, Transmit,
};
use ringback_rpc::message::{AuthSys, CallHeader, OpaqueAuth, ReplyHeader};
use ringback_rpc::nfs4::callback::{CallbackOp, CbCompoundArgs, CbSequenceArgs, ReferringCallList};
use ringback_rpc::nfs4::{SessionId, Status};
use ringback_rpc::record::LAST_FRAGMENT;
use ringback_rpc::xdr::{Decode, Encode, Reader, Result, Writer};

pub const MS: u64 = 1_000_000;
pub const S: u64 = 1000 * MS;
pub const PROGRAM: u32 = 0x4000_0123;
pub const S1: SessionKey = SessionKey(1);
pub const S2: SessionKey = SessionKey(2);
pub const C1: ConnToken = ConnToken(1);
pub const C2: ConnToken = ConnToken(2);
pub const C3: ConnToken = ConnToken(3);

/// An [`Outcome`] that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Replied(Status, Vec<u8>),
    Other(Outcome<'static>),
}

impl Ended {
    fn of(outcome: &Outcome<'_>) -> Ended {
        Ended::Other(match *outcome {
            Outcome::Replied { status, results } => return Ended::Replied(status, results.to_vec()),
            Outcome::Refused => Outcome::Refused,
            Outcome::Unencodable(e) => Outcome::Unencodable(e),
            Outcome::TimedOut { sent } => Outcome::TimedOut { sent },
            Outcome::PathDown => Outcome::PathDown,
            Outcome::Courtesy => Outcome::Courtesy,
            Outcome::Cancelled { sent } => Outcome::Cancelled { sent },
            Outcome::DeliveredUnknown => Outcome::DeliveredUnknown,
            Outcome::Fault(fault) => Outcome::Fault(fault),
            _ => unreachable!("an outcome that the tests do not know"),
        })
    }

    pub fn ok() -> Ended {
        Ended::Replied(Status::NFS4_OK, Vec::new())
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub link: Option<Token>,
    note: u8,
    pub op: CallbackOp,
    pub started_ns: u64,
    requeue: bool,
    pub running: bool,
    pub refuse: bool,
    pub args_bytes: usize,
    /// Session, sequence id and slot of calls of the fore channel.
    pub referring: Vec<(SessionId, u32, u32)>,
    pub prepared: u32,
    pub ended: Vec<Ended>,
    pub requeues: Vec<Requeue>,
    /// What `done` answers, in this order; then it finishes.
    pub asks: VecDeque<u64>,
}

#[derive(Default)]
pub struct TestHost {
    pub entries: Vec<Entry>,
    pub events: Vec<Event>,
    /// The session for whose sake the next run ends.
    ends_with: Option<SessionKey>,
    /// Runs that ended for the sake of a session.
    pub ended_with: Vec<(Token, SessionKey)>,
    /// It wants to know each step, and makes nothing of it.
    pub watches: bool,
}

impl TestHost {
    fn at(&mut self, token: Token) -> &mut Entry {
        let entry = &mut self.entries[token.0 as usize];
        assert!(entry.running, "{token:?} is not in the core");
        entry
    }
}

impl Host for TestHost {
    type Known = ();

    fn link(&self, token: Token) -> Option<Token> {
        self.entries[token.0 as usize].link
    }
    fn set_link(&mut self, token: Token, next: Option<Token>) {
        self.at(token).link = next;
    }
    fn note(&self, token: Token) -> u8 {
        self.entries[token.0 as usize].note
    }
    fn set_note(&mut self, token: Token, note: u8) {
        self.at(token).note = note;
    }
    fn watches(&self) -> bool {
        self.watches
    }
    fn op(&self, token: Token) -> CallbackOp {
        self.entries[token.0 as usize].op
    }
    fn started_ns(&self, token: Token) -> u64 {
        self.entries[token.0 as usize].started_ns
    }
    fn look(&self, token: Token) -> Sending<()> {
        Sending { token, op: self.op(token), started_ns: self.started_ns(token), known: () }
    }
    fn take_requeue(&mut self, run: &Sending<()>) -> bool {
        std::mem::take(&mut self.at(run.token).requeue)
    }
    fn prepare(&mut self, run: &Sending<()>) -> bool {
        let entry = self.at(run.token);
        entry.prepared += 1;
        assert_eq!(entry.prepared, 1, "prepare ran again for {:?}", run.token);
        !entry.refuse
    }
    fn referring(&self, &Sending { token, .. }: &Sending<()>, calls: &mut ReferringCalls<'_>) -> Result<()> {
        let entry = &self.entries[token.0 as usize];
        assert_eq!(entry.prepared, 1, "{token:?} was asked for its referring calls before it was prepared");
        for (session, sequence_id, slot) in &entry.referring {
            calls.add(*session, *sequence_id, *slot);
        }
        Ok(())
    }
    fn encode(&mut self, &Sending { token, .. }: &Sending<()>, args: &mut Writer<'_>) -> Result<()> {
        let bytes = self.at(token).args_bytes;
        args.u32(token.0)?;
        (0..bytes / 4).try_for_each(|i| args.u32(i as u32))
    }
    fn copy(&mut self, run: &Sending<()>, args: &mut Writer<'_>) -> Result<()> {
        assert_eq!(self.at(run.token).prepared, 1, "{:?} is looked at and was not prepared", run.token);
        self.encode(run, args)
    }
    fn done(&mut self, token: Token, outcome: &Outcome<'_>) -> Option<u64> {
        let with = self.ends_with.take().map(|session| (token, session));
        self.ended_with.extend(with);
        let entry = self.at(token);
        entry.ended.push(Ended::of(outcome));
        let asks = if outcome.may_requeue() { entry.asks.pop_front() } else { None };
        entry.running = asks.is_some();
        asks
    }
    fn ends_with(&mut self, session: SessionKey) {
        self.ends_with = Some(session);
    }
    fn requeued(&mut self, token: Token, why: Requeue) {
        let entry = self.at(token);
        assert!(!entry.requeue, "REQUEUE was set already");
        entry.requeue = true;
        entry.requeues.push(why);
    }
    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// A call as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub conn: ConnToken,
    pub bytes: Vec<u8>,
    pub xid: u32,
    pub program: u32,
    pub credential: Vec<u8>,
    pub session: SessionId,
    pub sequence: u32,
    pub slot: u32,
    pub highest: u32,
    /// Operation and token, the first of a batch; `None`: a lone CB_SEQUENCE.
    pub op: Option<(u32, Token)>,
    /// All operations after CB_SEQUENCE.
    pub ops: Vec<(u32, Token)>,
    /// The calls of all referring call lists.
    pub referring: Vec<(SessionId, u32, u32)>,
}

impl Sent {
    fn parse(conn: ConnToken, bytes: &[u8], entries: &[Entry]) -> Sent {
        let mark = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(mark, LAST_FRAGMENT | (bytes.len() as u32 - 4));
        let mut r = Reader::new(&bytes[4..]);
        let header = CallHeader::decode(&mut r).unwrap();
        assert_eq!((header.version, header.procedure), (1, 1));
        assert_eq!(header.verifier, OpaqueAuth::NONE);
        let compound = CbCompoundArgs::decode(&mut r).unwrap();
        assert_eq!((compound.tag, compound.callback_ident), (&b""[..], 0));
        assert_eq!(r.u32("op").unwrap(), CallbackOp::Sequence as u32);
        let sequence = CbSequenceArgs::decode(&mut r).unwrap();
        assert!(!sequence.cache_this);
        let of_list = |list: ReferringCallList<'_>| {
            list.calls.iter().map(|c| (list.session_id, c.sequence_id, c.slot_id)).collect::<Vec<_>>()
        };
        let referring = sequence.referring_call_lists.iter().flat_map(of_list).collect();
        let mut ops = Vec::new();
        for _ in 1..compound.count {
            let (op, token) = (r.u32("op").unwrap(), Token(r.u32("token").unwrap()));
            for i in 0..entries[token.0 as usize].args_bytes / 4 {
                assert_eq!(r.u32("args").unwrap(), i as u32);
            }
            ops.push((op, token));
        }
        r.finish("CB_COMPOUND").unwrap();
        Sent {
            conn,
            bytes: bytes.to_vec(),
            xid: header.xid,
            program: header.program,
            credential: header.credential.body.to_vec(),
            session: sequence.session_id,
            sequence: sequence.sequence_id,
            slot: sequence.slot_id,
            highest: sequence.highest_slot_id,
            op: ops.first().copied(),
            ops,
            referring,
        }
    }

    pub fn token(&self) -> Token {
        self.op.expect("a lone CB_SEQUENCE").1
    }

    pub fn tokens(&self) -> Vec<Token> {
        self.ops.iter().map(|(_, token)| *token).collect()
    }

    /// CB_SEQUENCE is fine, the first operations have these statuses, and there are no more results.
    pub fn statuses(&self, statuses: &[Status], table: u32) -> Vec<u8> {
        self.reply(|w| {
            let last = statuses.last().copied().unwrap_or(Status::NFS4_OK);
            words(w, &[last.0, 0, 1 + statuses.len() as u32, CallbackOp::Sequence as u32, 0]);
            self.echo(w, table - 1, table - 1);
            for ((op, _), status) in self.ops.iter().zip(statuses) {
                words(w, &[*op, status.0]);
            }
        })
    }

    /// All operations up to `position` went well, that one has `status`.
    pub fn stopped(&self, position: usize, status: Status, table: u32) -> Vec<u8> {
        let mut statuses = vec![Status::NFS4_OK; position];
        statuses.push(status);
        self.statuses(&statuses, table)
    }

    /// CB_SEQUENCE fails.
    pub fn sequence_status(&self, status: Status) -> Vec<u8> {
        self.reply(|w| {
            words(w, &[status.0, 0, 1, CallbackOp::Sequence as u32, status.0]);
        })
    }

    /// CB_SEQUENCE is fine, `table` slots; then the status and the result of the operation, if one was sent.
    pub fn op_status(&self, status: Status, table: u32) -> Vec<u8> {
        self.limits(status, table - 1, table - 1)
    }

    pub fn ok(&self) -> Vec<u8> {
        self.op_status(Status::NFS4_OK, 1024)
    }

    pub fn limits(&self, status: Status, highest: u32, target: u32) -> Vec<u8> {
        self.reply(|w| {
            // An error stops the compound at the first operation.
            let ops = if status.is_ok() { &self.ops[..] } else { &self.ops[..self.ops.len().min(1)] };
            words(w, &[status.0, 0, 1 + ops.len() as u32, CallbackOp::Sequence as u32, 0]);
            self.echo(w, highest, target);
            for (op, _) in ops {
                words(w, &[*op, status.0]);
            }
        })
    }

    pub fn echo(&self, w: &mut Writer<'_>, highest: u32, target: u32) {
        self.session.encode(w).unwrap();
        words(w, &[self.sequence, self.slot, highest, target]);
    }

    /// The compound has no results.
    pub fn empty(&self, status: Status) -> Vec<u8> {
        self.reply(|w| words(w, &[status.0, 0, 0]))
    }

    pub fn reply(&self, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        self.header(ReplyHeader::success(self.xid), body)
    }

    pub fn header(&self, header: ReplyHeader<'_>, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut space = [0; 1024];
        let mut w = Writer::new(&mut space);
        header.encode(&mut w).unwrap();
        body(&mut w);
        w.written().to_vec()
    }
}

/// The operations that are callbacks of their own.
pub fn callbacks() -> impl Iterator<Item = CallbackOp> {
    CallbackOp::ALL.iter().copied().filter(|op| !matches!(op, CallbackOp::Sequence | CallbackOp::Illegal))
}

pub fn words(w: &mut Writer<'_>, values: &[u32]) {
    values.iter().for_each(|v| w.u32(*v).unwrap());
}

pub fn sys(uid: u32) -> Credential {
    Credential::sys(&AuthSys::new(7, b"client", uid, 100, &[100, 101]).unwrap()).unwrap()
}

pub fn session_id(key: SessionKey) -> SessionId {
    SessionId([key.0 as u8; 16])
}

pub fn params(key: SessionKey, slots: u32) -> SessionParams {
    SessionParams {
        session_id: session_id(key),
        program: PROGRAM,
        credential: sys(0),
        slots,
        request_bytes_max: 4096,
        response_bytes_max: 4096,
        operations_max: 2,
        minor_version: 1,
    }
}

/// The server half, with its clock.
pub struct World {
    pub core: Backchannel,
    pub host: TestHost,
    pub now_ns: u64,
    pub conns: Vec<ConnToken>,
    /// ca_maxoperations of the sessions to be added.
    pub operations_max: u32,
    pub space: Vec<u8>,
}

impl World {
    /// One session with `slots` slots on connection [`C1`].
    pub fn new(slots: u32) -> World {
        let mut world = World::empty(Config::default());
        world.add_session(S1, slots);
        world.bind(S1, C1);
        world
    }

    /// As [`World::new`], with up to `operations_max` operations in a compound.
    pub fn batching(slots: u32, operations_max: u32) -> World {
        let mut world = World::empty(Config::default());
        world.operations_max = operations_max;
        world.add_session(S1, slots);
        world.bind(S1, C1);
        world
    }

    pub fn empty(config: Config) -> World {
        World {
            core: Backchannel::new(config),
            host: TestHost::default(),
            now_ns: 1000 * S,
            conns: Vec::new(),
            operations_max: 2,
            space: vec![0; 5000],
        }
    }

    pub fn add_session(&mut self, key: SessionKey, slots: u32) {
        let params = SessionParams { operations_max: self.operations_max, ..params(key, slots) };
        self.core.add_session(key, &params, &mut self.host).unwrap();
    }

    pub fn bind(&mut self, key: SessionKey, conn: ConnToken) {
        self.core.bind(self.now_ns, key, conn, &mut self.host).unwrap();
        if !self.conns.contains(&conn) {
            self.conns.push(conn);
        }
    }

    pub fn disconnect(&mut self, conn: ConnToken) {
        self.core.handle_disconnect(conn, &mut self.host);
        self.conns.retain(|c| *c != conn);
    }

    pub fn new_entry(&mut self, op: CallbackOp) -> Token {
        self.host.entries.push(Entry {
            link: None,
            note: 0,
            op,
            started_ns: self.now_ns,
            requeue: false,
            running: true,
            refuse: false,
            args_bytes: 16,
            referring: Vec::new(),
            prepared: 0,
            ended: Vec::new(),
            requeues: Vec::new(),
            asks: VecDeque::new(),
        });
        Token(self.host.entries.len() as u32 - 1)
    }

    pub fn run(&mut self, op: CallbackOp) -> Token {
        let token = self.new_entry(op);
        self.core.enqueue(token, &mut self.host);
        token
    }

    pub fn run_on(&mut self, key: SessionKey) -> Token {
        let token = self.new_entry(CallbackOp::RecallSlot);
        self.core.enqueue_on(token, key, &mut self.host);
        token
    }

    /// As an embedder starts it: CB_RECALL_SLOT on the session that it is about.
    pub fn start(&mut self, op: CallbackOp) -> Token {
        if op == CallbackOp::RecallSlot { self.run_on(S1) } else { self.run(op) }
    }

    pub fn recall(&mut self) -> Token {
        self.run(CallbackOp::Recall)
    }

    pub fn entry(&mut self, token: Token) -> &mut Entry {
        &mut self.host.entries[token.0 as usize]
    }

    pub fn ended(&self, token: Token) -> &[Ended] {
        &self.host.entries[token.0 as usize].ended
    }

    /// All that goes out now, on all connections.
    pub fn sends(&mut self) -> Vec<Sent> {
        self.conns.clone().into_iter().flat_map(|conn| self.sends_on(conn)).collect()
    }

    pub fn sends_on(&mut self, conn: ConnToken) -> Vec<Sent> {
        let mut sent = Vec::new();
        loop {
            let wanted = self.core.wants_transmit(conn);
            match self.core.poll_transmit(self.now_ns, conn, &mut self.space, &mut self.host) {
                Transmit::Wrote(len) => sent.push(Sent::parse(conn, &self.space[..len], &self.host.entries)),
                Transmit::Again => {}
                Transmit::Idle => break,
                Transmit::NoSpace => panic!("the buffer holds the largest record"),
            }
            assert!(wanted, "wrote, though wants_transmit said no");
        }
        assert!(!self.core.wants_transmit(conn), "idle, though wants_transmit says yes");
        sent
    }

    /// The one call that goes out now.
    #[track_caller]
    pub fn send(&mut self) -> Sent {
        let mut sent = self.sends();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    #[track_caller]
    /// The next call, which is answered.
    pub fn send_and_answer(&mut self) -> Token {
        let sent = self.send();
        self.answer_ok(&sent);
        sent.token()
    }

    pub fn quiet(&mut self) {
        assert_eq!(self.sends(), []);
    }

    pub fn deliver(&mut self, conn: ConnToken, record: &[u8]) -> Handled {
        self.core.handle_record(self.now_ns, conn, record, &mut self.host)
    }

    /// The client answers on the connection of the call.
    #[track_caller]
    pub fn answer(&mut self, sent: &Sent, record: &[u8]) {
        assert_eq!(self.deliver(sent.conn, record), Handled::Settled);
    }

    #[track_caller]
    pub fn answer_ok(&mut self, sent: &Sent) {
        self.answer(sent, &sent.ok());
    }

    /// Lets time pass, timer by timer.
    pub fn pass(&mut self, ns: u64) {
        let until = self.now_ns + ns;
        let mut turns = 0;
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= until) {
            self.now_ns = self.now_ns.max(due);
            self.core.handle_timeout(self.now_ns, &mut self.host);
            self.host_closes();
            turns += 1;
            assert!(turns < 100_000, "the timer spins at {}", self.now_ns);
        }
        self.now_ns = until;
    }

    /// Lets time pass in which the client is heard on each connection, but answers nothing.
    pub fn pass_alive(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.pass(S);
            for conn in &self.conns {
                self.core.heard(self.now_ns, *conn);
            }
        }
    }

    /// Connections that the core gave up are closed.
    pub fn host_closes(&mut self) {
        let closed: Vec<_> = self.host.events.iter().filter_map(closed).collect();
        self.conns.retain(|c| !closed.contains(c));
    }

    /// Nothing is left anywhere.
    #[track_caller]
    pub fn assert_clean(&self) {
        let census = self.core.census();
        assert!(self.core.is_idle());
        assert_eq!((census.slots_with_run, census.slots_quarantined), (0, 0), "{census:?}");
        assert_eq!((census.runs_queued, census.runs_delayed, census.runs_sent), (0, 0, 0), "{census:?}");
        assert!(self.host.entries.iter().all(|e| !e.running));
    }
}

fn closed(event: &Event) -> Option<ConnToken> {
    match event {
        Event::CloseConnection(conn) => Some(*conn),
        _ => None,
    }
}

/// A client with the Linux client's rules for CB_SEQUENCE.
pub struct ModelClient {
    table: u32,
    pub sessions: BTreeMap<SessionId, Vec<u32>>,
    /// How often each token was executed.
    pub executed: BTreeMap<Token, u32>,
}

impl ModelClient {
    pub fn new(table: u32) -> Self {
        ModelClient { table, sessions: BTreeMap::new(), executed: BTreeMap::new() }
    }

    pub fn create(&mut self, key: SessionKey) {
        self.sessions.insert(session_id(key), vec![0; self.table as usize]);
    }

    /// Executes a call, and answers.
    pub fn execute(&mut self, sent: &Sent) -> Vec<u8> {
        self.execute_until(sent, None)
    }

    /// Executes a call; the operation at a position fails.
    pub fn execute_until(&mut self, sent: &Sent, stop: Option<(usize, Status)>) -> Vec<u8> {
        let Some(slots) = self.sessions.get_mut(&sent.session) else {
            return sent.sequence_status(Status::NFS4ERR_BADSESSION);
        };
        let Some(last) = slots.get_mut(sent.slot as usize) else {
            return sent.sequence_status(Status::NFS4ERR_BADSLOT);
        };
        if sent.sequence == *last {
            return sent.op_status(Status::NFS4ERR_RETRY_UNCACHED_REP, self.table);
        }
        if sent.sequence != last.wrapping_add(1) {
            return sent.sequence_status(Status::NFS4ERR_SEQ_MISORDERED);
        }
        *last = sent.sequence;
        let stop = stop.filter(|(position, _)| *position < sent.ops.len());
        for (_, token) in &sent.ops[..stop.map_or(sent.ops.len(), |(position, _)| position)] {
            *self.executed.entry(*token).or_default() += 1;
        }
        match stop {
            Some((position, status)) => sent.stopped(position, status, self.table),
            None => sent.op_status(Status::NFS4_OK, self.table),
        }
    }
}
