//! Random events, and what must hold whatever happens: each run ends exactly once (the driver in `support` checks
//! that), no session slot is lost, a sequence id is neither skipped nor used for two requests, a resend is the same
//! bytes and never goes to a connection that has it already, and a batch stays within the client's limit.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::support::*;
use ringback_rpc::backchannel::{ClientState, ConnToken, Requeue, SessionKey, Token};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::nfs4::{SessionId, Status};

const OPS: [CallbackOp; 5] =
    [CallbackOp::Recall, CallbackOp::Getattr, CallbackOp::Offload, CallbackOp::RecallAny, CallbackOp::RecallSlot];
const SLOTS: u32 = 3;
const BATCH_MAX: usize = 4;

/// How the client treats one call.
#[derive(Clone, Copy, Debug)]
enum Treat {
    Execute,
    /// It is executed, and the reply gets lost with the connection.
    ExecuteSilently,
    Lose,
    SequenceDelay,
    /// The operation at this position fails, if there is one.
    Stop(usize, Status),
    /// A lie: a status that no honest client would send here.
    SequenceStatus(Status),
    WrongEcho,
    Truncate(usize),
    Missing(usize),
    Empty,
}

#[derive(Clone, Debug)]
enum Step {
    Run(usize, Option<u64>),
    Send(usize),
    Treat(usize, Treat),
    /// A reply that came before comes once more.
    Repeat(usize),
    Cut(usize),
    Bind(usize, usize),
    Replace(usize),
    Control(usize),
    Pass(u64),
    Cancel(usize),
    State(ClientState),
    Told,
    /// The core goes on elsewhere, with its connections or without.
    CarryOver(bool),
}

fn treat(honest: bool) -> BoxedStrategy<Treat> {
    let failures = [Status::NFS4ERR_DELAY, Status::NFS4ERR_BAD_STATEID, Status::NFS4ERR_REP_TOO_BIG];
    let truth = prop_oneof![
        8 => Just(Treat::Execute),
        1 => Just(Treat::ExecuteSilently),
        1 => Just(Treat::Lose),
        1 => Just(Treat::SequenceDelay),
        1 => (0..BATCH_MAX, proptest::sample::select(failures.to_vec())).prop_map(|(k, s)| Treat::Stop(k, s)),
    ];
    if honest {
        return truth.boxed();
    }
    let lies = [
        Status::NFS4ERR_BADSESSION,
        Status::NFS4ERR_BADSLOT,
        Status::NFS4ERR_BAD_HIGH_SLOT,
        Status::NFS4ERR_SEQ_MISORDERED,
        Status::NFS4ERR_SEQ_FALSE_RETRY,
        Status::NFS4ERR_RETRY_UNCACHED_REP,
        Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION,
        Status::NFS4ERR_SERVERFAULT,
        Status::NFS4ERR_TOO_MANY_OPS,
    ];
    prop_oneof![
        4 => truth,
        3 => proptest::sample::select(lies.to_vec()).prop_map(Treat::SequenceStatus),
        1 => Just(Treat::WrongEcho),
        1 => (0usize..110).prop_map(Treat::Truncate),
        1 => (0..BATCH_MAX).prop_map(Treat::Missing),
        1 => Just(Treat::Empty),
    ]
    .boxed()
}

fn step(honest: bool) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..OPS.len(), proptest::option::weighted(0.1, 0..5 * S)).prop_map(|(op, ask)| Step::Run(op, ask)),
        8 => any::<usize>().prop_map(Step::Send),
        10 => (any::<usize>(), treat(honest)).prop_map(|(i, t)| Step::Treat(i, t)),
        1 => any::<usize>().prop_map(Step::Repeat),
        2 => any::<usize>().prop_map(Step::Cut),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(s, c)| Step::Bind(s, c)),
        1 => any::<usize>().prop_map(Step::Replace),
        1 => any::<usize>().prop_map(Step::Control),
        3 => (0..12 * S).prop_map(Step::Pass),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => prop_oneof![3 => Just(ClientState::Active), 1 => Just(ClientState::Courtesy)].prop_map(Step::State),
        1 => Just(Step::Told),
        2 => any::<bool>().prop_map(Step::CarryOver),
    ]
}

/// What the checker knows about the sequence id that a slot has in use.
struct Id {
    id: u32,
    /// A copy is out, or was lost, or was answered by nonsense: these are its bytes after the xid, of the operation.
    pinned: Option<Vec<u8>>,
    /// Copies of which the client may have taken any.
    copies: u32,
    /// It went as a lone CB_SEQUENCE.
    resync: bool,
    /// The client has proved that it took it.
    taken: bool,
}

struct Play {
    w: World,
    client: ModelClient,
    sessions: Vec<SessionKey>,
    next_session: u64,
    next_conn: u64,
    /// Calls that the client has received and not treated.
    wire: Vec<Sent>,
    replies: Vec<(Sent, Vec<u8>)>,
    ids: BTreeMap<(SessionId, u32), Id>,
    seen: BTreeSet<(ConnToken, u32)>,
}

impl Play {
    fn new(batch_max: usize) -> Play {
        let mut play = Play {
            w: World { operations_max: batch_max as u32 + 1, ..World::empty(Default::default()) },
            client: ModelClient::new(SLOTS),
            sessions: Vec::new(),
            next_session: 1,
            next_conn: 1,
            wire: Vec::new(),
            replies: Vec::new(),
            ids: BTreeMap::new(),
            seen: BTreeSet::new(),
        };
        play.create();
        play.create();
        play.bind(0, 0);
        play
    }

    fn create(&mut self) {
        let key = SessionKey(self.next_session);
        self.next_session += 1;
        self.w.add_session(key, SLOTS);
        self.client.create(key);
        self.sessions.push(key);
    }

    /// Binds an old connection or a new one.
    fn bind(&mut self, session: usize, conn: usize) {
        let key = self.sessions[session % self.sessions.len()];
        let conns = &self.w.conns;
        let conn = match conns.get(conn % (conns.len() + 1)) {
            Some(conn) => *conn,
            None if conns.len() < 4 => {
                self.next_conn += 1;
                ConnToken(self.next_conn)
            }
            None => conns[0],
        };
        self.w.bind(key, conn);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Run(op, ask) => {
                let token = match OPS[op] {
                    CallbackOp::RecallSlot => self.w.run_on(self.sessions[op % self.sessions.len()]),
                    op => self.w.run(op),
                };
                self.w.entry(token).asks.extend(ask);
            }
            Step::Send(conn) => {
                if let Some(conn) = pick(&self.w.conns, conn) {
                    self.send(conn);
                }
            }
            Step::Treat(i, treat) if !self.wire.is_empty() => {
                let sent = self.wire.remove(i % self.wire.len());
                self.treat(sent, treat);
            }
            Step::Repeat(i) => {
                if let Some((sent, reply)) = pick(&self.replies, i)
                    && self.w.conns.contains(&sent.conn)
                {
                    self.w.deliver(sent.conn, &reply);
                }
            }
            Step::Cut(conn) => {
                if let Some(conn) = pick(&self.w.conns, conn) {
                    self.w.disconnect(conn);
                }
            }
            Step::Bind(session, conn) => self.bind(session, conn),
            Step::Replace(i) => self.replace(i),
            Step::Control(i) => {
                let key = self.sessions[i % self.sessions.len()];
                let _ = self.w.core.control(key, i as u32, &sys(i as u32), &mut self.w.host);
            }
            Step::Pass(ns) => self.w.pass(ns),
            Step::Cancel(i) => {
                let count = self.w.host.entries.len();
                if count > 0 {
                    self.w.core.cancel(self.w.now_ns, Token((i % count) as u32), &mut self.w.host);
                }
            }
            Step::State(state) => self.w.core.set_client_state(self.w.now_ns, state, &mut self.w.host),
            Step::Told => self.w.core.path_down_told(self.w.now_ns),
            Step::CarryOver(with_connections) => self.w.carry_over(with_connections),
            Step::Treat(..) => {}
        }
        self.close_dead();
        self.check_census();
    }

    fn replace(&mut self, i: usize) {
        let key = self.sessions.remove(i % self.sessions.len());
        self.w.core.remove_session(self.w.now_ns, key, &mut self.w.host);
        self.client.sessions.remove(&session_id(key));
        self.create();
    }

    /// What was on its way on a closed connection is gone.
    fn close_dead(&mut self) {
        let conns = &self.w.conns;
        self.wire.retain(|sent| conns.contains(&sent.conn));
    }

    fn send(&mut self, conn: ConnToken) {
        for sent in self.w.sends_on(conn) {
            self.check_sent(&sent);
            self.wire.push(sent);
        }
    }

    fn check_sent(&mut self, sent: &Sent) {
        assert!(self.seen.insert((sent.conn, sent.xid)), "the same xid twice on one connection: {sent:?}");
        let first = Id { id: 1, pinned: None, copies: 0, resync: false, taken: false };
        let alone = [CallbackOp::Getattr as u32, CallbackOp::RecallSlot as u32];
        assert!(sent.ops.len() < self.w.operations_max as usize, "a batch of {}", sent.ops.len());
        assert!(sent.ops.len() < 2 || sent.ops.iter().all(|(op, _)| !alone.contains(op)));
        let slot = self.ids.entry((sent.session, sent.slot)).or_insert(first);
        if slot.taken {
            assert_eq!(sent.sequence, slot.id.wrapping_add(1), "the id must move on by one: {sent:?}");
            *slot = Id { id: sent.sequence, pinned: None, copies: 0, resync: false, taken: false };
        }
        assert_eq!(sent.sequence, slot.id, "the id must stay: {sent:?}");
        match (&sent.op, &slot.pinned) {
            (None, _) => slot.resync = true,
            (Some(_), Some(bytes)) => {
                assert!(!slot.resync, "an operation after a lone CB_SEQUENCE with the same id");
                assert_eq!(&sent.bytes[8..], bytes, "two requests with one id");
            }
            (Some(_), None) => {}
        }
        slot.copies += 1;
        if slot.pinned.is_none() {
            slot.pinned = Some(sent.bytes[8..].to_vec());
        }
    }

    fn treat(&mut self, sent: Sent, treat: Treat) {
        let reply = match treat {
            Treat::Lose => return,
            Treat::ExecuteSilently => {
                self.client.execute(&sent);
                return;
            }
            Treat::Execute => self.client.execute(&sent),
            Treat::SequenceDelay => sent.sequence_status(Status::NFS4ERR_DELAY),
            Treat::Stop(position, status) => self.client.execute_until(&sent, Some((position, status))),
            Treat::Missing(count) => sent.statuses(&[Status::NFS4_OK; BATCH_MAX][..count], SLOTS),
            Treat::SequenceStatus(status) => sent.sequence_status(status),
            Treat::WrongEcho => Sent { slot: sent.slot + 1, ..sent.clone() }.ok(),
            Treat::Truncate(len) => {
                let mut reply = sent.ok();
                reply.truncate(len);
                reply
            }
            Treat::Empty => sent.empty(Status::NFS4ERR_RESOURCE),
        };
        self.w.deliver(sent.conn, &reply);
        self.note_answer(&sent, treat);
        self.replies.push((sent, reply));
    }

    /// What the answer tells about the slot. An error proves nothing once a copy was lost or is still out.
    fn note_answer(&mut self, sent: &Sent, treat: Treat) {
        let Some(slot) = self.ids.get_mut(&(sent.session, sent.slot)) else { return };
        if slot.id != sent.sequence || slot.taken {
            return;
        }
        match treat {
            // An honest reply to a call that was resynchronised meanwhile is late, and the core waits for the other
            // one.
            Treat::Execute | Treat::Stop(..) | Treat::Missing(_) => slot.taken = !slot.resync || sent.op.is_none(),
            Treat::SequenceStatus(Status::NFS4ERR_SEQ_FALSE_RETRY | Status::NFS4ERR_RETRY_UNCACHED_REP) => {
                slot.taken = !slot.resync || sent.op.is_none();
            }
            // The end of CB_SEQUENCE's result: the rest does not matter.
            Treat::Truncate(len) if len >= sent.ok().len() - 8 * sent.ops.len() => {
                slot.taken = !slot.resync || sent.op.is_none();
            }
            // csa_highest_slotid has to be lowered, whatever became of the first copy.
            Treat::SequenceStatus(Status::NFS4ERR_BAD_HIGH_SLOT) if slot.copies > 1 => slot.pinned = None,
            Treat::SequenceStatus(_) | Treat::SequenceDelay | Treat::Empty if slot.copies == 1 && !slot.resync => {
                (slot.pinned, slot.copies) = (None, 0);
            }
            _ => {}
        }
    }

    fn check_census(&self) {
        let census = self.w.core.census();
        let parts =
            [census.slots_free, census.slots_with_run, census.slots_quarantined, census.slots_retired].iter().sum();
        assert_eq!(census.slots, parts);
        assert_eq!(census.slots, SLOTS * self.sessions.len() as u32);
        let runs = census.runs_sent + census.runs_queued + census.runs_delayed;
        assert_eq!(self.w.core.run_count(), runs);
    }

    /// From now on the client is at its best: everything must end.
    fn settle(&mut self) {
        self.w.core.set_client_state(self.w.now_ns, ClientState::Active, &mut self.w.host);
        for _ in 0..130 {
            for i in 0..self.sessions.len() {
                self.bind(i, 0);
            }
            for conn in self.w.conns.clone() {
                self.send(conn);
            }
            while !self.wire.is_empty() {
                let sent = self.wire.remove(0);
                self.treat(sent, Treat::Execute);
            }
            self.w.pass(S);
            self.close_dead();
        }
    }
}

fn pick<T: Clone>(items: &[T], i: usize) -> Option<T> {
    items.get(i.checked_rem(items.len())?).cloned()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_honest_client_behind_a_bad_network(
        batch_max in 1..=BATCH_MAX,
        steps in proptest::collection::vec(step(true), 1..150),
    ) {
        let mut play = Play::new(batch_max);
        steps.iter().for_each(|s| play.step(s));
        play.settle();
        play.w.assert_clean();
        prop_assert_eq!(play.w.core.census().slots_retired, 0);
        prop_assert_eq!(play.w.core.counters().misordered, 0);
        for (i, entry) in play.w.host.entries.iter().enumerate() {
            let executed = play.client.executed.get(&Token(i as u32)).copied().unwrap_or(0);
            // These say that it was not executed, or had better not be executed twice.
            let harmless = [Requeue::NoSpace, Requeue::NotReached, Requeue::BatchSplit, Requeue::BatchTorn, Requeue::Delay];
            let again = entry.requeues.iter().any(|why| !harmless.contains(why));
            if entry.ended.last() == Some(&Ended::ok()) {
                prop_assert!(executed > 0);
            }
            if entry.op == CallbackOp::Offload && !again {
                prop_assert!(executed <= 1, "CB_OFFLOAD was executed {} times", executed);
            }
        }
    }

    #[test]
    fn a_client_that_lies(
        batch_max in 1..=BATCH_MAX,
        steps in proptest::collection::vec(step(false), 1..150),
    ) {
        let mut play = Play::new(batch_max);
        steps.iter().for_each(|s| play.step(s));
        play.w.core.drain(play.w.now_ns, play.w.now_ns + 5 * S, &mut play.w.host);
        play.w.pass(6 * S);
        prop_assert!(play.w.core.is_idle());
        play.check_census();
    }

    /// A reply is read at once where nobody watches, and step by step where somebody does: the same comes of it.
    #[test]
    fn a_watched_core_does_the_same(
        batch_max in 1..=BATCH_MAX,
        steps in proptest::collection::vec(step(false), 1..150),
    ) {
        let [watched, alone] = [true, false].map(|watches| {
            let mut play = Play::new(batch_max);
            play.w.host.watches = watches;
            steps.iter().for_each(|s| play.step(s));
            let ends: Vec<_> = play.w.host.entries.iter().map(|entry| entry.ended.clone()).collect();
            (ends, play.w.host.events.clone(), *play.w.core.counters(), play.w.core.census(), play.w.core.poll_timeout())
        });
        prop_assert_eq!(watched, alone);
    }

    #[test]
    fn f8_no_reply_makes_the_core_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), keep in 4usize..60) {
        let mut w = World::new(1);
        w.recall();
        let sent = w.send();
        let mut reply = sent.ok();
        reply.truncate(keep);
        reply.extend_from_slice(&tail);
        w.deliver(C1, &reply);
        w.core.drain(w.now_ns, w.now_ns, &mut w.host);
        prop_assert!(w.core.is_idle());
    }
}
