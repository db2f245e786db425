//! Simulated clients: the replier half of the backchannel by the rules of the Linux client, and every way to be worse.

pub(crate) mod behaviour;
pub(crate) mod minor0;
mod reply;
mod session;

use super::call::{self, Call, Op, Payload};
use super::choices::Choices;
use super::coverage::Kind;
use super::fore::{Question, Wish};
use super::journal::{Journal, Rule};
use super::net::{LineId, Net};
use behaviour::{Behaviour, Lie, OP_ERRORS, Refusal};
use reply::{Answer, OpAnswer};
use ringback::{ClientId, ClientState};
use ringback_rpc::message::{self, MessageType, flavor};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::record::RecordReader;
use session::ForeSlot;
pub(crate) use session::{Limits, Principal, Session};

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
    /// `None`: the default one.
    pub tenant: Option<usize>,
    /// The embedder has forgotten it.
    pub removed: bool,
    pub behaviour: Behaviour,
    pub sessions: Vec<Session>,
    /// What it said in its SETCLIENTIDs, if it is one of minor version 0.
    pub paths: Option<Vec<minor0::Path>>,
    pub lines: Vec<(LineId, RecordReader)>,
    /// As the embedder has announced it.
    pub state: ClientState,
    /// It has lied at least once: what it says is not to be held against what it did.
    pub has_lied: bool,
    /// Calls that it had not answered at one time, at most.
    pub busiest: usize,
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
            tenant: None,
            removed: false,
            behaviour: Behaviour::GOOD,
            sessions: Vec::new(),
            paths: None,
            lines: Vec::new(),
            state: ClientState::Active,
            has_lied: false,
            has_refused: false,
            busiest: 0,
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

    /// It does not take callbacks at the moment, as the embedder has announced.
    pub(crate) fn is_idle(&self) -> bool {
        self.state != ClientState::Active
    }

    /// Makes the slot table of a session smaller or larger, while no answer is on its way that says how large it was: one
    /// that arrived later than those to come would be taken for the last word.
    pub(crate) fn resize(&mut self, at: usize, highest: u32, net: &Net) {
        let session = &mut self.sessions[at];
        let waits = self.held.iter().any(|h| h.answers.session == session.id);
        let arrived = net.have_arrived_at_one(&session.bound);
        if waits || !arrived || !session.settled || session.tainted || highest == session.highest {
            return;
        }
        self.journal.note(|| format!("client {}: {:?} has slots up to {highest}", self.index, session.key), 21);
        self.journal.reach(if highest < session.highest { Kind::TableShrunk } else { Kind::TableGrown });
        if highest == 0 {
            self.journal.reach(Kind::TableOfOne);
        }
        session.settled = highest > session.highest;
        session.highest = highest;
        session.highest_min = session.highest_min.min(highest);
        // What was told earlier is not this limit, even if it is the same number.
        session.slots.iter_mut().for_each(|slot| slot.told = None);
    }

    /// Sends a fore-channel call, on a session if that has a free slot.
    pub(crate) fn ask(&mut self, line: LineId, wish: Wish, session: Option<usize>, net: &mut Net) {
        let session = session.map(|at| &mut self.sessions[at]);
        let number = session.as_ref().map_or(0, |session| session.principals[0].stamp);
        let mut question = Question::draw(self.next_xid, wish, number, &mut self.choices);
        let free = session.and_then(|session| session.fore.iter_mut().enumerate().find(|(_, slot)| !slot.busy));
        if let Some((at, slot)) = free {
            *slot = ForeSlot { last: slot.last + 1, busy: true };
            (question.slot, question.sequence_id) = (at as u32, slot.last);
        }
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
        let session = self.sessions.iter_mut().find(|s| s.principals[0].stamp == question.what);
        let Some(session) = session else { return };
        if let Some(slot) = session.fore.get_mut(question.slot as usize) {
            slot.busy = false;
        }
        if question.wish == Wish::Bind && !session.destroyed && !session.bound.contains(&line) {
            session.bound.push(line);
        }
    }

    /// Whether a callback depends on a call that has no reply yet, and may still get one.
    fn awaits_reply(&self, call: &Call<'_>, net: &Net) -> bool {
        let mut awaits = false;
        for list in call.sequence.referring_call_lists.iter() {
            let session = self.sessions.iter().find(|s| s.id == list.session_id.0);
            for named in list.calls.iter() {
                let slot = session.and_then(|s| s.fore.get(named.slot_id as usize));
                let made = slot.is_some_and(|slot| slot.last >= named.sequence_id);
                self.journal.check(Rule::Fore, made, || format!("{named:?} was never called: {call:?}"));
                let number = session.map(|s| s.principals[0].stamp);
                let is_named = |q: &Question| (q.slot, q.sequence_id) == (named.slot_id, named.sequence_id);
                awaits |=
                    self.asked.iter().any(|(line, q)| Some(q.what) == number && is_named(q) && net.is_whole(*line));
            }
        }
        awaits
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
                if net.address_of(held.line).is_some() {
                    self.written0(&held.answers);
                } else {
                    deeds.written.push(held.answers);
                }
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
        if self.is_minor0() {
            return self.call0(line, record, net, deeds);
        }
        let call = match Call::read(record) {
            Ok(call) => call,
            Err(e) => return self.journal.fail(Rule::Wire, format!("line {line}: {e}: {record:02x?}")),
        };
        let (answer, slot) = self.answer(line, &call, record.len(), net, deeds);
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

    /// Sends an answer, or a lie.
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
        let executing = slot.and_then(|(id, slot)| Some((self.session(&id)?, slot as usize)));
        if let Some((session, slot)) = executing {
            self.sessions[session].slots[slot].executing = true;
        }
        let answers = Written { session: call.session(), slot: call.sequence.slot_id, xid: call.header.xid };
        self.hold(Held { due_ns: 0, line, slot, answers, bytes }, net, deeds);
    }

    /// An answer is to go out after a while, or twice, or not at all.
    fn hold(&mut self, mut held: Held, net: &mut Net, deeds: &mut Deeds) {
        let think_ns = self.choices.between(self.behaviour.think_ns.0, self.behaviour.think_ns.1);
        held.due_ns = self.journal.now_ns() + think_ns;
        if self.choices.per_mille(self.behaviour.mute) {
            self.journal.reach(Kind::NoReply);
            held.bytes.clear();
        }
        if self.choices.per_mille(self.behaviour.twice) {
            self.journal.reach(Kind::ReplyTwice);
            let due_ns = held.due_ns + self.choices.log_between(1, 10_000_000_000);
            self.held.push(Held { due_ns, slot: None, bytes: held.bytes.clone(), ..held });
        }
        self.held.push(held);
        self.busiest = self.busiest.max(self.held.len());
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
        net: &Net,
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
        if !self.sessions[at].bound.contains(&line) {
            // From the last line that the server takes for bound, this says that the session is lost.
            self.has_refused = true;
            return (Answer::Sequence(Status::NFS4ERR_BADSESSION), None);
        }
        self.take(at, line, call, net, deeds)
    }

    /// Looks at the slot of a call on a session of its own, and executes it.
    fn take(
        &mut self,
        at: usize,
        line: LineId,
        call: &Call<'_>,
        net: &Net,
        deeds: &mut Deeds,
    ) -> (Answer, Option<([u8; 16], u32)>) {
        let awaits = self.awaits_reply(call, net);
        let session = &mut self.sessions[at];
        let (id, slot_id) = (call.sequence.sequence_id, call.sequence.slot_id);
        let last = if session.settled { session.highest } else { session.slot_count() - 1 };
        if slot_id > last {
            // A copy that was overtaken by others on its way may be older than the limit, and so may one that was asked
            // about on another line.
            let copy = session.slots.get(slot_id as usize).is_some_and(|slot| (1..=slot.gone).contains(&id));
            let known = copy || session.tainted || net.is_history(line);
            self.journal.check(Rule::SequenceIds, known, || {
                format!("line {line}: slot {slot_id} is beyond the table, which ends at {last}")
            });
            return (Answer::Sequence(Status::NFS4ERR_BADSLOT), None);
        }
        let echo = session.echo(id, slot_id);
        let slot = &mut session.slots[slot_id as usize];
        if id == slot.last {
            // The Linux client's rules for a repeated call, which was not to be cached.
            if slot.executing {
                return (Answer::Sequence(Status::NFS4ERR_DELAY), None);
            }
            slot.told = None;
            let status = |op| unsupported(op).unwrap_or(Status::NFS4ERR_RETRY_UNCACHED_REP);
            let first = call.ops.first().map(|op| (*op, status(op.op)));
            return (Answer::Taken(echo, self.results(call, first, false, deeds)), None);
        }
        if id != slot.last.wrapping_add(1) {
            let skipped = id.wrapping_sub(slot.last) < 1 << 31;
            if skipped && !net.is_history(line) && !session.tainted {
                let last = slot.last;
                self.journal.fail(Rule::SequenceIds, format!("line {line}: slot {slot_id}: id {id} after {last}"));
            }
            return (Answer::Sequence(Status::NFS4ERR_SEQ_MISORDERED), None);
        }
        if awaits {
            self.journal.reach(Kind::ReferringAwaited);
            return (Answer::Sequence(Status::NFS4ERR_DELAY), None);
        }
        session.learn(slot_id, call.sequence.highest_slot_id);
        let slot = &mut session.slots[slot_id as usize];
        (slot.last, slot.told) = (id, Some(echo.highest_slot_id));
        if session.youngest.is_some_and(|youngest| call::is_older(call.header.xid, youngest)) {
            self.journal.reach(Kind::CallsReordered);
        } else {
            session.youngest = Some(call.header.xid);
        }
        let executed = self.execute_all(&call.ops);
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

    /// The first that fails is the last (RFC 8881 section 15).
    fn execute_all(&mut self, ops: &[Op]) -> Vec<(Op, Status)> {
        let mut executed = Vec::new();
        let (place, fails) = self.behaviour.fails_at;
        for (at, op) in ops.iter().enumerate() {
            let status = if ops.len() > 1 && at + 1 == place { fails } else { self.execute(op.op) };
            executed.push((*op, status));
            if !status.is_ok() {
                break;
            }
        }
        executed
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
