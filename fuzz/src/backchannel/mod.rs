//! The backchannel core, driven by arbitrary bytes: each step of an input is something that the driver, the embedder, the
//! network or the client does. Whatever it is, every run ends once and in time, no session slot gets lost, and nothing
//! goes out that must not.
//!
//! The first byte of an input says what kind of world it is. If its client is honest and only the network is bad, more
//! must hold: the two never disagree about a session slot. The client has sessions, or a path of minor version 0, to which the
//! driver makes the connections that the core asks for; or both.

mod client;
mod host;
mod minor0;

use client::{Client, Place, Sent, Twist, refusal, session_id};
use host::{Manner, TOKENS, Table, op_of};
use minor0::Path;
use ringback_rpc::backchannel::{
    Backchannel, ClientState, Config, ConnToken, Credential, SessionKey, SessionParams, TIMER_GRAIN_NS, Token, Transmit,
};
use ringback_rpc::message::AuthSys;
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;
use std::collections::HashMap;

const S: u64 = 1_000_000_000;
const RUN_DEADLINE_NS: u64 = 10 * S;
const SLOTS: u32 = 3;
const REQUEST_BYTES_MAX: u32 = 400;
/// What a call of minor version 0 may have, with its mark.
const MINOR0_BYTES_MAX: usize = 4100;
const CONNS_MAX: usize = 4;
/// Steps of one input: more show nothing new, and take time.
const STEPS_MAX: usize = 400;
/// What the core does at one point in time, before it is called spinning.
const TURNS_MAX: usize = 10_000;

/// What CB_SEQUENCE may answer (RFC 8881 section 15.3), and some statuses that it may not.
const SEQUENCE_STATUSES: [Status; 13] = [
    Status::NFS4ERR_DELAY,
    Status::NFS4ERR_BADSESSION,
    Status::NFS4ERR_BADSLOT,
    Status::NFS4ERR_BADXDR,
    Status::NFS4ERR_BAD_HIGH_SLOT,
    Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION,
    Status::NFS4ERR_REP_TOO_BIG,
    Status::NFS4ERR_REQ_TOO_BIG,
    Status::NFS4ERR_RETRY_UNCACHED_REP,
    Status::NFS4ERR_SEQ_FALSE_RETRY,
    Status::NFS4ERR_SEQ_MISORDERED,
    Status::NFS4ERR_TOO_MANY_OPS,
    Status::NFS4ERR_SERVERFAULT,
];

/// What operations answer.
const STATUSES: [Status; 6] = [
    Status::NFS4ERR_DELAY,
    Status::NFS4ERR_BAD_STATEID,
    Status::NFS4ERR_REP_TOO_BIG,
    Status::NFS4ERR_NOTSUPP,
    Status::NFS4ERR_RETRY_UNCACHED_REP,
    Status::NFS4ERR_OP_NOT_IN_SESSION,
];

/// Statuses of operations that an honest client gives.
const HONEST_STATUSES: usize = 3;

/// What is left of an input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A byte, or 0 at the end.
    fn any(&mut self) -> usize {
        self.byte().unwrap_or(0).into()
    }

    fn take(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The core between a table of callbacks and a client.
struct Play {
    honest: bool,
    core: Backchannel,
    table: Table,
    client: Client,
    now_ns: u64,
    sessions: Vec<SessionKey>,
    path: Option<Path>,
    conns: Vec<ConnToken>,
    keys: u64,
    operations_max: u32,
    /// Calls that have not reached the client, and answers that have come.
    wire: Vec<Sent>,
    replies: Vec<(ConnToken, Vec<u8>)>,
    /// By xid: the bytes, and the connections that they went out on.
    calls: HashMap<u32, (Vec<u8>, Vec<ConnToken>)>,
    /// The last sequence id that was used on a slot.
    ids: HashMap<(SessionKey, u32), u32>,
    space: Vec<u8>,
}

/// Takes the steps of an input. Returns how many runs have ended.
pub fn backchannel(data: &[u8]) -> usize {
    let mut input = Input(data);
    let Some(kind) = input.byte() else { return 0 };
    let mut play = Play::new(kind);
    for _ in 0..STEPS_MAX {
        let Some(step) = input.byte() else { break };
        play.step(step, &mut input);
        play.check();
    }
    if kind & 0x80 == 0 {
        play.expire()
    } else {
        play.drain()
    }
    play.table.ended
}

impl Play {
    fn new(kind: u8) -> Play {
        let config = Config {
            run_deadline_ns: RUN_DEADLINE_NS,
            lease_ns: RUN_DEADLINE_NS,
            batch_max: 1 + u32::from(kind >> 1 & 3),
            first_xid: if kind & 8 == 0 { 1 } else { 0xf_fffe },
            ..Config::for_lease(RUN_DEADLINE_NS)
        };
        let has_path = kind >> 4 & 3 == 3;
        let mut play = Play {
            honest: kind & 1 == 0,
            core: Backchannel::new(config),
            table: Table::new(),
            client: Client::default(),
            now_ns: 1000 * S,
            sessions: Vec::new(),
            path: None,
            conns: Vec::new(),
            keys: 0,
            operations_max: [2, 3, 5, 5][usize::from(kind >> 4 & 3)],
            wire: Vec::new(),
            replies: Vec::new(),
            calls: HashMap::new(),
            ids: HashMap::new(),
            space: vec![0; if has_path { MINOR0_BYTES_MAX } else { REQUEST_BYTES_MAX as usize + 4 }],
        };
        for _ in 0..u8::from(!has_path) + (kind >> 6 & 1) {
            play.create();
        }
        if has_path {
            play.confirm(usize::from(kind));
        }
        if !play.sessions.is_empty() {
            play.bind(0, 0);
        }
        play.settle();
        play
    }

    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        let now_ns = self.now_ns;
        match step % 22 {
            0..=2 => self.run(input.any(), input.any()),
            3..=4 => self.send(input.any(), usize::MAX),
            5..=7 => self.answer(input.any(), input),
            8 => self.cut(input.any()),
            9 => self.bind(input.any(), input.any()),
            10 => self.pass((input.any() as u64).pow(3) * 1_000_000),
            11 => {
                self.core.cancel(now_ns, Token((input.any() % TOKENS) as u32), &mut self.table);
            }
            12 => self.replace(input.any()),
            13 if !self.sessions.is_empty() => {
                let session = self.sessions[input.any() % self.sessions.len()];
                let uid = self.next_key() as u32;
                let known = self.core.control(session, 0x4000_0000 + uid, &credential(uid), &mut self.table);
                assert!(known.is_ok(), "{known:?}");
            }
            14 => {
                let states = [ClientState::Active, ClientState::Active, ClientState::Courtesy, ClientState::Expired];
                self.core.set_client_state(now_ns, states[input.any() % 4], &mut self.table);
            }
            15 if self.core.seq4_status(None) != 0 => self.core.path_down_told(now_ns),
            16 => self.drain_session(input.any()),
            17 => self.send(input.any(), 8 * input.any()),
            18 => self.repeat(input.any()),
            19 if !self.honest => self.noise(input),
            20 => self.connect(input.any()),
            21 if self.path.is_some() => self.confirm(input.any()),
            _ => {
                if let Some(conn) = self.conn(input.any()) {
                    self.core.heard(now_ns, conn);
                }
            }
        }
        self.settle();
    }

    /// What the core wants of the driver.
    fn settle(&mut self) {
        while let Some(key) = self.core.poll_connect(self.now_ns, &mut self.table) {
            let path = self.path.as_mut().filter(|path| path.key == key).expect("a path that is known");
            assert!(!std::mem::replace(&mut path.wanted, true), "asked for twice");
        }
        self.close();
    }

    fn next_key(&mut self) -> u64 {
        self.keys += 1;
        self.keys
    }

    /// A session, or the path.
    fn key(&self, at: usize) -> SessionKey {
        let count = self.sessions.len() + usize::from(self.path.is_some());
        self.sessions.get(at % count).copied().or(self.path.as_ref().map(|path| path.key)).expect("one of them")
    }

    fn conn(&self, at: usize) -> Option<ConnToken> {
        self.conns.get(at.checked_rem(self.conns.len())?).copied()
    }

    fn create(&mut self) {
        let key = SessionKey(self.next_key());
        let params = SessionParams {
            session_id: session_id(key),
            program: 0x4000_0000,
            credential: credential(0),
            slots: SLOTS,
            request_bytes_max: REQUEST_BYTES_MAX,
            response_bytes_max: 4096,
            operations_max: self.operations_max,
            minor_version: 1,
        };
        let added = self.core.add_session(key, &params, &mut self.table);
        assert!(added.is_ok(), "{added:?}");
        self.sessions.push(key);
    }

    /// SETCLIENTID_CONFIRM: the path takes the place of the one that there was.
    fn confirm(&mut self, window: usize) {
        let path = Path::new(SessionKey(self.next_key()), 1 + window as u32 % SLOTS);
        let confirmed = self.core.confirm_path(self.now_ns, path.key, &path.params(), &mut self.table);
        assert!(confirmed.is_ok(), "{confirmed:?}");
        self.path = Some(path);
    }

    /// The connection that the core wants is there, or cannot be made. Or another SETCLIENTID has come, and then it is of
    /// no use.
    fn connect(&mut self, how: usize) {
        let Some(path) = self.path.as_mut().filter(|path| path.wanted) else { return };
        let key = path.key;
        path.wanted = false;
        if how % 4 == 1 || self.conns.len() == CONNS_MAX {
            self.core.connect_failed(self.now_ns, key, &mut self.table);
        } else if how % 16 == 2 {
            self.confirm(how);
            let conn = ConnToken(self.next_key());
            assert!(self.core.bind(self.now_ns, key, conn, &mut self.table).is_err());
        } else {
            self.bind_to(key, usize::MAX);
        }
    }

    /// Binds an old connection or a new one.
    fn bind(&mut self, session: usize, conn: usize) {
        self.bind_to(self.key(session), conn % (self.conns.len() + 1));
    }

    fn bind_to(&mut self, key: SessionKey, conn: usize) {
        let conn = match self.conns.get(conn) {
            Some(conn) => *conn,
            None if self.conns.len() == CONNS_MAX => self.conns[0],
            None => {
                let conn = ConnToken(self.next_key());
                self.conns.push(conn);
                conn
            }
        };
        let bound = self.core.bind(self.now_ns, key, conn, &mut self.table);
        assert!(bound.is_ok(), "{bound:?}");
        if let Some(path) = self.path.as_mut().filter(|path| path.key == key) {
            path.wanted = false;
        }
    }

    fn run(&mut self, token: usize, how: usize) {
        let token = Token((token % TOKENS) as u32);
        let manner = Manner {
            refuses: how % 16 == 1,
            fails: how % 16 == 2,
            filling: [0, 0, 3, 60][how / 16 % 4],
            again: if how % 16 == 3 { how as u8 / 64 } else { 0 },
        };
        let Some(token) = self.table.accept(token, self.now_ns, manner) else { return };
        if op_of(token) == CallbackOp::RecallSlot {
            let session = self.key(how / 16);
            self.core.enqueue_on(token, session, &mut self.table);
        } else {
            self.core.enqueue(token, &mut self.table);
        }
    }

    /// All that can go out on a connection now, through a buffer of that size.
    fn send(&mut self, conn: usize, room: usize) {
        let Some(conn) = self.conn(conn) else { return };
        let room = room.min(self.space.len());
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "there is no end of what is sent");
            let wanted = self.core.wants_transmit(conn);
            let len = match self.core.poll_transmit(self.now_ns, conn, &mut self.space[..room], &mut self.table) {
                Transmit::Wrote(len) => len,
                Transmit::Again => continue,
                Transmit::NoSpace => {
                    assert!(room < self.core.record_bytes_max(), "the buffer holds the largest record");
                    break;
                }
                Transmit::Idle => {
                    assert!(!self.core.wants_transmit(conn), "idle, though wants_transmit says yes");
                    break;
                }
            };
            assert!(wanted, "wrote, though wants_transmit said no");
            let sent = Sent::read(conn, &self.space[..len], &self.table).expect("a call can be read");
            match sent.place {
                Some(place) => self.check_sequence(&sent, place),
                None => self.path.as_mut().expect("there is one").sent(&sent),
            }
            self.check_sent(&sent);
            self.wire.push(sent);
        }
    }

    fn check_sent(&mut self, sent: &Sent) {
        assert!(self.core.is_bound(sent.key, sent.conn), "not bound: {sent:?}");
        let alone = |op: &CallbackOp| matches!(op, CallbackOp::Getattr | CallbackOp::RecallSlot);
        assert!(sent.ops.len() < 2 || !sent.ops.iter().any(alone), "{sent:?}");
        let (bytes, conns) = self.calls.entry(sent.xid).or_insert_with(|| (sent.record.clone(), Vec::new()));
        assert_eq!(*bytes, sent.record, "an xid is the same bytes");
        assert!(!conns.contains(&sent.conn), "a second time on the same connection: {sent:?}");
        conns.push(sent.conn);
    }

    fn check_sequence(&mut self, sent: &Sent, Place { id, slot, highest }: Place) {
        assert!(sent.record.len() <= REQUEST_BYTES_MAX as usize && sent.ops.len() < self.operations_max as usize);
        assert!(slot <= highest && highest < SLOTS, "{sent:?}");
        let last = self.ids.insert((sent.key, slot), id).unwrap_or(0);
        // A slot that the client has taken out of its table begins anew; an honest one takes none.
        let begins = !self.honest && id == 1;
        assert!(id == last || id == last.wrapping_add(1) || begins, "after {last}: {sent:?}");
        let taken = self.client.last(sent.key, slot) == last;
        assert!(id == last || !self.honest || taken, "{last} was not taken: {sent:?}");
    }

    /// The client treats a call that has reached it: by its rules, or with a twist, or not at all.
    fn answer(&mut self, at: usize, input: &mut Input<'_>) {
        let Some(at) = at.checked_rem(self.wire.len()) else { return };
        let sent = self.wire.swap_remove(at);
        let mut twist = Twist::NONE;
        let (how, what) = (input.any(), input.any());
        let reply = match how % 16 {
            0 => return,
            // It is executed, and the answer gets lost.
            1 => return drop(self.client.execute(&sent, SLOTS, twist)),
            2 => self.client.execute(&sent, SLOTS, Twist { sequence: Status::NFS4ERR_DELAY, ..twist }),
            3 if !self.honest => refusal(sent.xid, what as u8),
            4 if !self.honest => {
                twist.sequence = SEQUENCE_STATUSES[what % SEQUENCE_STATUSES.len()];
                self.client.execute(&sent, SLOTS, twist)
            }
            _ => {
                twist.target = (what % 8) as u32;
                let statuses = if self.honest { HONEST_STATUSES } else { STATUSES.len() };
                let stop = how / 16;
                twist.stop = (stop > 0).then(|| (what % 4, STATUSES[stop % statuses]));
                match how % 16 {
                    _ if self.honest => {}
                    5 => twist.echo[what % 3] = 1 + what as u8 / 4,
                    6 => twist.cut = what,
                    7 => twist.flip = Some((what << 3 | input.any()) as u16),
                    8 => twist.missing = what % 4,
                    9 => twist.other = true,
                    10 => twist.lower = (what % 4) as u32,
                    _ => {}
                }
                self.client.execute(&sent, SLOTS, twist)
            }
        };
        self.deliver(sent.conn, reply);
    }

    fn deliver(&mut self, conn: ConnToken, reply: Vec<u8>) {
        if let (Some(path), Some(xid)) = (&mut self.path, reply.first_chunk()) {
            path.answered(u32::from_be_bytes(*xid));
        }
        self.core.handle_record(self.now_ns, conn, &reply, &mut self.table);
        self.replies.push((conn, reply));
    }

    /// An answer that came before comes once more, in a dishonest world on any connection.
    fn repeat(&mut self, at: usize) {
        let Some(at) = at.checked_rem(self.replies.len()) else { return };
        let (conn, reply) = self.replies[at].clone();
        let conn = if self.honest { Some(conn).filter(|c| self.conns.contains(c)) } else { self.conn(at) };
        if let Some(conn) = conn {
            self.deliver(conn, reply);
        }
    }

    /// Something that is no answer, but may name a call.
    fn noise(&mut self, input: &mut Input<'_>) {
        let (conn, at, len) = (input.any(), input.any(), input.any());
        let mut record = input.take(len % 64).to_vec();
        if let Some(at) = at.checked_rem(self.wire.len())
            && let Some(xid) = record.first_chunk_mut()
        {
            *xid = self.wire[at].xid.to_be_bytes();
        }
        if let Some(conn) = self.conn(conn) {
            self.deliver(conn, record);
        }
    }

    fn cut(&mut self, conn: usize) {
        if let Some(conn) = self.conn(conn) {
            self.core.handle_disconnect(conn, &mut self.table);
            self.table.close.push(conn);
        }
    }

    /// Connections that the core has given up: what was on its way there is gone.
    fn close(&mut self) {
        for conn in std::mem::take(&mut self.table.close) {
            self.conns.retain(|c| *c != conn);
            self.wire.retain(|sent| sent.conn != conn);
        }
    }

    fn replace(&mut self, at: usize) {
        let key = self.key(at);
        assert!(self.core.remove_session(self.now_ns, key, &mut self.table));
        self.wire.retain(|sent| sent.key != key);
        if self.path.take_if(|path| path.key == key).is_some() {
            return self.confirm(at);
        }
        self.sessions.retain(|session| *session != key);
        self.create();
    }

    /// Nothing new goes out on a session; what is out is given up at once.
    fn drain_session(&mut self, at: usize) {
        let key = self.key(at);
        assert!(self.core.drain_session(key, &mut self.table));
        self.core.give_up_session(self.now_ns, key, &mut self.table);
        assert_eq!(self.core.session_runs(key), 0);
        self.replace(at);
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, ns: u64) {
        let until_ns = self.now_ns + ns;
        let mut turns = 0;
        while let Some(due_ns) = self.core.poll_timeout().filter(|due_ns| *due_ns <= until_ns) {
            turns = if due_ns > self.now_ns { 0 } else { turns + 1 };
            assert!(turns < TURNS_MAX, "the timer spins");
            self.now_ns = self.now_ns.max(due_ns);
            self.core.handle_timeout(self.now_ns, &mut self.table);
            self.settle();
        }
        self.now_ns = until_ns;
        // The order of a queue may let a run wait behind a younger one.
        let oldest_ns = self.table.oldest_ns().unwrap_or(self.now_ns);
        assert!(self.now_ns - oldest_ns <= 2 * RUN_DEADLINE_NS + TIMER_GRAIN_NS, "a run does not end");
    }

    fn check(&self) {
        let census = self.core.census();
        let parts = census.slots_free + census.slots_with_run + census.slots_quarantined + census.slots_retired;
        let slots = SLOTS * self.sessions.len() as u32 + self.path.as_ref().map_or(0, |path| path.window);
        assert_eq!((census.slots, census.slots), (parts, slots), "{census:?}");
        let runs = census.runs_sent + census.runs_queued + census.runs_delayed;
        assert_eq!((runs, runs), (self.core.run_count(), self.table.running), "{census:?}");
        if self.honest {
            let counters = self.core.counters();
            assert_eq!((census.slots_retired, counters.misordered, counters.false_retries), (0, 0, 0), "{counters:?}");
        }
    }

    /// Nobody does anything any more: what runs ends by its deadline.
    fn expire(&mut self) {
        self.pass(3 * RUN_DEADLINE_NS);
        self.check();
        assert!(self.core.is_idle());
    }

    /// What runs ends by the deadline of the drain.
    fn drain(&mut self) {
        let deadline_ns = self.now_ns + S;
        self.core.drain(self.now_ns, deadline_ns, &mut self.table);
        self.settle();
        self.pass(S);
        self.check();
        assert!(self.core.is_idle(), "a drain does not end");
    }
}

fn credential(uid: u32) -> Credential {
    let sys = AuthSys::new(7, b"client", uid, 100, &[]).expect("it is short");
    Credential::sys(&sys).expect("it is short")
}
