//! Simulated clients: the replier half of the backchannel by the rules of the Linux client, and every way to be worse.

pub(crate) mod behaviour;
mod reply;

use super::call::{self, Call, Op, Payload};
use super::choices::Choices;
use super::coverage::Kind;
use super::fore::{Question, Wish};
use super::journal::{Journal, Rule};
use super::net::{LineId, Net};
use behaviour::{Behaviour, Lie, OP_ERRORS, Refusal};
use reply::{Answer, OpAnswer};
use ringback::{ClientId, SessionKey};
use ringback_rpc::message::{self, MessageType, flavor};
use ringback_rpc::nfs4::callback::{CallbackOp, CbSequenceRes};
use ringback_rpc::nfs4::{SessionId, Status};
use ringback_rpc::record::RecordReader;

/// Program and credential that a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    pub program: u32,
    /// AUTH_SYS's stamp tells credentials apart.
    pub stamp: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Of the last call that was executed.
    last: u32,
    /// Its answer is not sent yet.
    executing: bool,
}

/// What a client takes in one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub request_bytes_max: u32,
    /// CB_SEQUENCE among them.
    pub operations_max: u32,
}

/// A session, as the client sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub id: [u8; 16],
    pub key: SessionKey,
    pub principals: Vec<Principal>,
    pub limits: Limits,
    slots: Vec<Slot>,
    /// The youngest call that was executed, by its xid.
    youngest: Option<u32>,
    /// What the client would like to see used.
    target: u32,
    /// The client has destroyed it.
    pub destroyed: bool,
    /// The server has been told that it is destroyed.
    pub removed: bool,
    /// The client has lied on it: the two may disagree about its slots.
    pub tainted: bool,
    /// Lines that the client has bound to it.
    pub bound: Vec<LineId>,
}

impl Session {
    pub(crate) fn new(id: [u8; 16], key: SessionKey, principal: Principal, slots: u32, limits: Limits) -> Self {
        Session {
            id,
            key,
            principals: vec![principal],
            limits,
            youngest: None,
            slots: vec![Slot::default(); slots as usize],
            target: slots - 1,
            destroyed: false,
            removed: false,
            tainted: false,
            bound: Vec::new(),
        }
    }

    /// From now on the client would like to see slots up to this one used.
    pub(crate) fn set_target(&mut self, target: u32) {
        self.target = target;
    }

    /// What the client executed last on a session slot.
    pub(crate) fn last(&self, slot: u32) -> Option<u32> {
        self.slots.get(slot as usize).map(|s| s.last)
    }

    pub(crate) fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }
}

struct Held {
    due_ns: u64,
    line: LineId,
    /// What it settles on the client's side.
    slot: Option<([u8; 16], u32)>,
    answers: Written,
    bytes: Vec<u8>,
}

/// Which call an answer that was sent belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub session: [u8; 16],
    pub slot: u32,
    pub xid: u32,
}

/// What a client did in one step.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    pub answered: Vec<Answered>,
    pub written: Vec<Written>,
}

/// A callback that was answered, whether the answer arrives or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub payload: Payload,
    pub status: Status,
    /// It was executed just now, not before.
    pub executed: bool,
}

/// See the [module](self).
pub(crate) struct Client {
    pub index: usize,
    pub id: ClientId,
    pub home: usize,
    /// The embedder has forgotten it.
    pub removed: bool,
    pub behaviour: Behaviour,
    pub sessions: Vec<Session>,
    pub lines: Vec<(LineId, RecordReader)>,
    /// As the embedder has announced it.
    pub in_courtesy: bool,
    /// It has lied at least once: what it says is not to be held against what it did.
    pub has_lied: bool,
    /// It has refused a call at least once.
    pub has_refused: bool,
    /// Fore-channel calls without an answer yet.
    asked: Vec<(LineId, Question)>,
    next_xid: u32,
    held: Vec<Held>,
    choices: Choices,
    journal: Journal,
}

impl Client {
    pub(crate) fn new(index: usize, id: ClientId, home: usize, choices: Choices, journal: Journal) -> Self {
        Client {
            index,
            id,
            home,
            removed: false,
            behaviour: Behaviour::GOOD,
            sessions: Vec::new(),
            lines: Vec::new(),
            in_courtesy: false,
            has_lied: false,
            has_refused: false,
            asked: Vec::new(),
            next_xid: 1,
            held: Vec::new(),
            choices,
            journal,
        }
    }

    pub(crate) fn add_line(&mut self, line: LineId) {
        self.lines.push((line, RecordReader::new(1 << 20)));
    }

    pub(crate) fn set_behaviour(&mut self, behaviour: Behaviour, net: &mut Net) {
        self.journal.trace(|| format!("client {} is {}", self.index, behaviour.name));
        self.behaviour = behaviour;
        if !behaviour.reads {
            self.journal.reach(Kind::ClientDead);
        }
        for (line, _) in &self.lines {
            net.lines[*line].reads = behaviour.reads;
        }
    }

    /// What it thinks about it answers soon.
    pub(crate) fn hurry(&mut self) {
        let soon_ns = self.journal.now_ns() + 1_000_000_000;
        for held in &mut self.held {
            held.due_ns = held.due_ns.min(soon_ns);
        }
    }

    /// Sends a fore-channel call.
    pub(crate) fn ask(&mut self, line: LineId, wish: Wish, what: u32, net: &mut Net) {
        let question = Question::draw(self.next_xid, wish, what, &mut self.choices);
        self.next_xid += 1;
        self.journal.note(|| format!("client {}: line {line}: asks {question:?}", self.index), 72);
        net.client_write(line, &question.encode());
        self.asked.push((line, question));
    }

    /// Calls that must still be answered: those on lines that both sides have.
    pub(crate) fn unanswered(&self, net: &Net) -> impl Iterator<Item = (LineId, Question)> {
        let asked = self.asked.iter().copied();
        asked.filter(|(line, question)| question.wish != Wish::Drop && net.is_whole(*line))
    }

    fn fore_reply(&mut self, line: LineId, record: &[u8]) {
        let question = Question::of_reply(record);
        let at = self.asked.iter().position(|asked| question.is_some_and(|q| *asked == (line, q)));
        let Some(at) = at else {
            return self.journal.fail(Rule::Fore, format!("line {line}: nobody asked for {question:?}: {record:02x?}"));
        };
        let (_, question) = self.asked.swap_remove(at);
        self.journal
            .check(Rule::Fore, question.wish != Wish::Drop, || format!("line {line}: an answer to {question:?}"));
        if question.wish == Wish::Bind {
            let named = |s: &&mut Session| s.principals[0].stamp == question.what;
            let session = self.sessions.iter_mut().filter(|s| !s.destroyed).find(named);
            if let Some(session) = session.filter(|s| !s.bound.contains(&line)) {
                session.bound.push(line);
            }
        }
    }

    /// Whether it has something to do now.
    pub(crate) fn is_awake(&self, net: &Net) -> bool {
        let now_ns = self.journal.now_ns();
        self.held.iter().any(|h| h.due_ns <= now_ns) || self.lines.iter().any(|(line, _)| net.client_ready(*line))
    }

    /// When an answer is due.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        self.held.iter().map(|h| h.due_ns).min()
    }

    /// Reads from one line, and sends answers whose time has come.
    pub(crate) fn step(&mut self, net: &mut Net, deeds: &mut Deeds) {
        self.release(net, deeds);
        let ready: Vec<usize> = (0..self.lines.len()).filter(|at| net.client_ready(self.lines[*at].0)).collect();
        let Some(at) = self.choices.any(&ready).copied() else { return };
        let line = self.lines[at].0;
        let Some(bytes) = net.client_read(line) else {
            self.journal.note(|| format!("client {}: line {line} has ended", self.index), 20);
            net.client_close(line, false);
            self.lines.remove(at);
            self.asked.retain(|(asked, _)| *asked != line);
            return;
        };
        let mut reader = std::mem::replace(&mut self.lines[at].1, RecordReader::new(0));
        let mut rest = &bytes[..];
        loop {
            match reader.next(&mut rest) {
                Ok(Some(record)) => self.record(line, &record, net, deeds),
                Ok(None) => break,
                Err(e) => {
                    self.journal.fail(Rule::Wire, format!("line {line} carries no sequence of records: {e}"));
                    break;
                }
            }
        }
        self.lines[at].1 = reader;
        self.release(net, deeds);
    }

    fn release(&mut self, net: &mut Net, deeds: &mut Deeds) {
        let now_ns = self.journal.now_ns();
        let mut due: Vec<Held> = self.held.extract_if(.., |h| h.due_ns <= now_ns).collect();
        due.sort_by_key(|h| h.due_ns);
        for held in due {
            if let Some((session, slot)) = held.slot
                && let Some(session) = self.sessions.iter_mut().find(|s| s.id == session)
                && let Some(slot) = session.slots.get_mut(slot as usize)
            {
                slot.executing = false;
                if session.destroyed {
                    self.journal.reach(Kind::DestroyedMidReply);
                }
            }
            if !held.bytes.is_empty() {
                deeds.written.push(held.answers);
                net.client_write(held.line, &held.bytes);
            }
        }
    }

    fn record(&mut self, line: LineId, record: &[u8], net: &mut Net, deeds: &mut Deeds) {
        match message::peek(record) {
            Ok((_, MessageType::Call)) => {}
            Ok((_, MessageType::Reply)) => return self.fore_reply(line, record),
            other => return self.journal.fail(Rule::Wire, format!("line {line}: no call: {other:?}")),
        }
        let call = match Call::read(record) {
            Ok(call) => call,
            Err(e) => return self.journal.fail(Rule::Wire, format!("line {line}: {e}: {record:02x?}")),
        };
        let (answer, slot) = self.answer(line, &call, record.len(), net.is_history(line), deeds);
        self.journal.note(
            || {
                let (id, slot) = (call.sequence.sequence_id, call.sequence.slot_id);
                let session = u32::from_be_bytes([8, 9, 10, 11].map(|at| call.session()[at]));
                let call = format!("session {session} slot {slot} id {id} {:?}", call.ops);
                format!("client {}: line {line}: {call}: {answer:?}", self.index)
            },
            u64::from(call.header.xid),
        );
        self.send(line, &call, answer, slot, net, deeds);
    }

    /// Sends an answer after a while, or twice, or not at all.
    fn send(
        &mut self,
        line: LineId,
        call: &Call<'_>,
        answer: Answer,
        slot: Option<([u8; 16], u32)>,
        net: &mut Net,
        deeds: &mut Deeds,
    ) {
        let mut bytes = reply::encode(call.header.xid, &answer);
        if self.choices.per_mille(self.behaviour.lie) {
            bytes = self.lie(call, answer, bytes);
        } else {
            answer.reach(&self.journal);
        }
        let answers = Written { session: call.session(), slot: call.sequence.slot_id, xid: call.header.xid };
        let think_ns = self.choices.between(self.behaviour.think_ns.0, self.behaviour.think_ns.1);
        let due_ns = self.journal.now_ns() + think_ns;
        if self.choices.per_mille(self.behaviour.mute) {
            self.journal.reach(Kind::NoReply);
            bytes.clear();
        }
        if self.choices.per_mille(self.behaviour.twice) {
            self.journal.reach(Kind::ReplyTwice);
            let again_ns = due_ns + self.choices.log_between(1, 10_000_000_000);
            self.held.push(Held { due_ns: again_ns, line, slot: None, answers, bytes: bytes.clone() });
        }
        let executing = slot.and_then(|(id, slot)| Some((self.session(&id)?, slot as usize)));
        if let Some((session, slot)) = executing {
            self.sessions[session].slots[slot].executing = true;
        }
        self.held.push(Held { due_ns, line, slot, answers, bytes });
        self.release(net, deeds);
    }

    fn session(&self, id: &[u8; 16]) -> Option<usize> {
        self.sessions.iter().position(|s| s.id == *id)
    }

    /// Decides, and executes.
    fn answer(
        &mut self,
        line: LineId,
        call: &Call<'_>,
        record_bytes: usize,
        history: bool,
        deeds: &mut Deeds,
    ) -> (Answer, Option<([u8; 16], u32)>) {
        let behaviour = self.behaviour;
        if self.choices.per_mille(behaviour.reject) {
            self.has_refused = true;
            return (Answer::Refused(Refusal::draw(&mut self.choices)), None);
        }
        if self.choices.per_mille(behaviour.sequence_delay) {
            return (Answer::Sequence(Status::NFS4ERR_DELAY), None);
        }
        let Some(at) = self.session(&call.session()).filter(|at| !self.sessions[*at].destroyed) else {
            return (Answer::Sequence(Status::NFS4ERR_BADSESSION), None);
        };
        self.check_call(at, line, call, record_bytes);
        let session = &mut self.sessions[at];
        if !session.bound.contains(&line) {
            // From the last line that the server takes for bound, this says that the session is lost.
            self.has_refused = true;
            return (Answer::Sequence(Status::NFS4ERR_BADSESSION), None);
        }
        let (id, slot_id) = (call.sequence.sequence_id, call.sequence.slot_id);
        let highest = session.slots.len() as u32 - 1;
        let Some(slot) = session.slots.get_mut(slot_id as usize) else {
            self.journal.fail(Rule::SequenceIds, format!("slot {slot_id} is beyond the table of {}", highest + 1));
            return (Answer::Sequence(Status::NFS4ERR_BADSLOT), None);
        };
        let echo = CbSequenceRes {
            session_id: SessionId(session.id),
            sequence_id: id,
            slot_id,
            highest_slot_id: highest,
            target_highest_slot_id: session.target,
        };
        if id == slot.last {
            // The Linux client's rules for a repeated call, which was not to be cached.
            if slot.executing {
                return (Answer::Sequence(Status::NFS4ERR_DELAY), None);
            }
            let status = |op| unsupported(op).unwrap_or(Status::NFS4ERR_RETRY_UNCACHED_REP);
            let first = call.ops.first().map(|op| (*op, status(op.op)));
            return (Answer::Taken(echo, self.results(call, first, false, deeds)), None);
        }
        if id != slot.last.wrapping_add(1) {
            let skipped = id.wrapping_sub(slot.last) < 1 << 31;
            if skipped && !history && !session.tainted {
                let last = slot.last;
                self.journal.fail(Rule::SequenceIds, format!("line {line}: slot {slot_id}: id {id} after {last}"));
            }
            return (Answer::Sequence(Status::NFS4ERR_SEQ_MISORDERED), None);
        }
        slot.last = id;
        if session.youngest.is_some_and(|youngest| call::is_older(call.header.xid, youngest)) {
            self.journal.reach(Kind::CallsReordered);
        } else {
            session.youngest = Some(call.header.xid);
        }
        let mut executed = Vec::new();
        for op in &call.ops {
            let status = self.execute(op.op);
            executed.push((*op, status));
            // The first that fails is the last (RFC 8881 section 15).
            if !status.is_ok() {
                break;
            }
        }
        let results = self.results(call, executed, true, deeds);
        (Answer::Taken(echo, results), Some((call.session(), slot_id)))
    }

    fn results(
        &self,
        call: &Call<'_>,
        ops: impl IntoIterator<Item = (Op, Status)>,
        executed: bool,
        deeds: &mut Deeds,
    ) -> Vec<OpAnswer> {
        let alone = call.ops.len() == 1;
        let result = |(op, status): (Op, Status)| {
            deeds.answered.push(Answered { payload: op.payload, status, executed });
            OpAnswer { op: op.op, status, payload: alone.then_some(op.payload) }
        };
        ops.into_iter().map(result).collect()
    }

    fn execute(&mut self, op: CallbackOp) -> Status {
        if let Some(status) = unsupported(op) {
            status
        } else if self.choices.per_mille(self.behaviour.op_delay) {
            Status::NFS4ERR_DELAY
        } else if self.choices.per_mille(self.behaviour.op_error) {
            self.choices.pick(&OP_ERRORS)
        } else {
            Status::NFS4_OK
        }
    }

    /// What must be right whatever became of the call before.
    fn check_call(&self, at: usize, line: LineId, call: &Call<'_>, record_bytes: usize) {
        let session = &self.sessions[at];
        let check = |rule, holds, what: &str| {
            self.journal.check(rule, holds, || format!("line {line}: {what}: {call:?}"));
        };
        let sequence = &call.sequence;
        let known = |p: &Principal| p.program == call.header.program && is_sys(call, p.stamp);
        check(Rule::Stale, session.principals.iter().any(known), "a program or credential that was never asked for");
        check(Rule::Wire, record_bytes <= session.limits.request_bytes_max as usize, "a record over ca_maxrequestsize");
        check(
            Rule::Wire,
            call.compound.count <= session.limits.operations_max,
            "more operations than ca_maxoperations",
        );
        check(Rule::Wire, !sequence.cache_this, "csa_cachethis");
        check(Rule::Wire, sequence.highest_slot_id >= sequence.slot_id, "csa_highest_slotid is below csa_slotid");
        check(Rule::Wire, (sequence.highest_slot_id as usize) < session.slots.len(), "csa_highest_slotid");
    }

    /// Makes an answer wrong.
    fn lie(&mut self, call: &Call<'_>, answer: Answer, mut bytes: Vec<u8>) -> Vec<u8> {
        let lie = Lie::draw(&mut self.choices);
        self.journal.trace(|| format!("client {}: lies: {lie:?}", self.index));
        self.has_lied = true;
        // A flipped bit may make it the answer to any call of the client.
        for session in &mut self.sessions {
            session.tainted |= session.id == call.session() || matches!(lie, Lie::Flip(_) | Lie::Xid(_) | Lie::Noise);
        }
        let (xid, honest) = (call.header.xid, bytes.clone());
        let told = match (lie, answer) {
            (Lie::Sequence(status), _) => reply::encode(xid, &Answer::Sequence(status)),
            (Lie::Echo(which), Answer::Taken(mut echo, ops)) => {
                match which {
                    0 => echo.sequence_id = echo.sequence_id.wrapping_add(1),
                    1 => echo.slot_id += 1,
                    _ => echo.session_id.0[3] ^= 1,
                }
                reply::encode(xid, &Answer::Taken(echo, ops))
            }
            (Lie::OtherOp, Answer::Taken(echo, mut ops)) if !ops.is_empty() => {
                let at = self.choices.index(ops.len());
                ops[at].op = CallbackOp::RecallSlot;
                reply::encode(xid, &Answer::Taken(echo, ops))
            }
            (Lie::NoOp, Answer::Taken(echo, mut ops)) if !ops.is_empty() => {
                ops.truncate(self.choices.index(ops.len()));
                reply::encode(xid, &Answer::Taken(echo, ops))
            }
            (Lie::Cut(len), _) => {
                bytes.truncate(4 + len.min(bytes.len() - 4));
                let mark = ringback_rpc::record::mark(bytes.len() - 4).unwrap_or_default();
                bytes[..4].copy_from_slice(&mark);
                bytes
            }
            (Lie::Flip(at), _) => {
                // Not in the mark: that would be noise.
                let at = 32 + at % ((bytes.len() as u64 - 4) * 8);
                // Nor in what makes it a call, which is for the fore channel.
                let at = if at == TYPE_BIT { at + 1 } else { at };
                bytes[at as usize / 8] ^= 1 << (at % 8);
                bytes
            }
            (Lie::Xid(other), answer) => reply::encode(other, &answer),
            (Lie::Noise, _) => (0..24).map(|_| self.choices.next() as u8).collect(),
            _ => bytes,
        };
        if told != honest {
            self.journal.reach(lie.kind());
        }
        told
    }
}

/// Behind mark and xid, the bit of msg_type that tells a reply from a call (RFC 5531 section 9).
const TYPE_BIT: u64 = 8 * 11;

/// The answer to operations that the Linux client does not know, even as a repetition.
fn unsupported(op: CallbackOp) -> Option<Status> {
    use CallbackOp::*;
    matches!(op, Notify | PushDeleg | RecallableObjAvail | WantsCancelled).then_some(Status::NFS4ERR_NOTSUPP)
}

fn is_sys(call: &Call<'_>, stamp: u32) -> bool {
    let credential = call.header.credential;
    credential.flavor == flavor::AUTH_SYS && credential.body.first_chunk() == Some(&stamp.to_be_bytes())
}
