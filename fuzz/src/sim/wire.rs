//! The checker that listens in on what reactors send: sequence ids, resends, and nothing stale.

use super::call::{self, Call, Op, Payload};
use super::client::{Client, Principal, Session, Written};
use super::coverage::Kind;
use super::fore::Named;
use super::journal::{Journal, Rule};
use super::net::{LineId, Net};
use super::reference::Reference;
use ringback_rpc::message::{self, MessageType};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::record::RecordReader;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What a session's calls may not do any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ban {
    /// New calls with parameters before this version.
    Before(usize),
    /// New calls.
    Fresh,
    /// Any call.
    All,
}

/// Something that the embedder asked for, and how far it has got: what was encoded before may still go out.
#[derive(Debug)]
struct Effect {
    ban: Ban,
    /// The turn in which the home reactor took it up.
    home_turn: Option<u64>,
}

/// A sequence id in use.
#[derive(Debug)]
struct Use {
    id: u32,
    /// How often the client had given the slot up.
    lives: u32,
    principal: Principal,
    /// Calls under it, with their bytes.
    calls: Vec<(u32, Vec<u8>)>,
    /// Of those, the ones that the client has answered.
    answered: BTreeSet<u32>,
    /// The operations, if any were sent.
    op: Option<Vec<u8>>,
    /// The first of them, and the line on which it went last.
    first: Option<(Payload, LineId)>,
    /// It went as a lone CB_SEQUENCE too.
    lone: bool,
}

#[derive(Debug)]
struct Watched {
    client: usize,
    home: usize,
    principals: Vec<Principal>,
    effects: Vec<Effect>,
    slots: BTreeMap<u32, Use>,
    /// Slots of which a call was sent again while the client had not answered it: it may come to the first copy at any time.
    copied: BTreeSet<u32>,
}

struct Tap {
    reader: RecordReader,
    xids: HashSet<u32>,
}

/// See the [module](self).
pub(crate) struct Wire {
    journal: Journal,
    taps: HashMap<LineId, Tap>,
    sessions: BTreeMap<[u8; 16], Watched>,
    /// Sessions with an effect that their home has not taken up yet.
    unsettled: BTreeSet<[u8; 16]>,
    /// By line, the last turn after which it carried nothing any more that was encoded before.
    quiet: HashMap<LineId, u64>,
    /// Callback records seen.
    pub records: u64,
}

impl Wire {
    pub(crate) fn new(journal: Journal) -> Self {
        let (taps, sessions, unsettled, quiet) = Default::default();
        Wire { journal, taps, sessions, unsettled, quiet, records: 0 }
    }

    // --- what the embedder does ----------------------------------------------------------------------------------

    pub(crate) fn session_added(&mut self, id: [u8; 16], client: usize, home: usize, principal: Principal) {
        let watched = Watched {
            client,
            home,
            principals: vec![principal],
            effects: Vec::new(),
            slots: BTreeMap::new(),
            copied: BTreeSet::new(),
        };
        self.sessions.insert(id, watched);
    }

    /// A client has another home.
    pub(crate) fn moved(&mut self, client: usize, home: usize) {
        self.sessions.values_mut().filter(|s| s.client == client).for_each(|s| s.home = home);
    }

    pub(crate) fn controlled(&mut self, id: [u8; 16], principal: Principal) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.principals.push(principal);
            let ban = Ban::Before(session.principals.len() - 1);
            session.effects.push(Effect { ban, home_turn: None });
            self.unsettled.insert(id);
        }
    }

    pub(crate) fn session_drained(&mut self, id: [u8; 16]) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.effects.push(Effect { ban: Ban::Fresh, home_turn: None });
            self.unsettled.insert(id);
        }
    }

    pub(crate) fn session_removed(&mut self, id: [u8; 16]) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.effects.push(Effect { ban: Ban::All, home_turn: None });
            self.unsettled.insert(id);
        }
    }

    /// A reactor has turned, which has this number on the net: what the embedder asked for before has reached that far.
    pub(crate) fn turned(&mut self, reactor: usize, number: usize, turn: u64, net: &Net) {
        let sessions = &mut self.sessions;
        self.unsettled.retain(|id| {
            let Some(session) = sessions.get_mut(id).filter(|s| s.home == reactor) else { return true };
            for effect in &mut session.effects {
                effect.home_turn.get_or_insert(turn);
            }
            false
        });
        let own = net.live().filter(|line| net.reactor_of(*line) == Some(number));
        self.quiet.extend(own.filter(|line| net.is_quiet(*line)).map(|line| (line, turn)));
    }

    /// A client has answered a call.
    pub(crate) fn answered(&mut self, answer: &Written) {
        if let Some(used) = self.sessions.get_mut(&answer.session).and_then(|s| s.slots.get_mut(&answer.slot)) {
            if used.calls.last().is_some_and(|(xid, _)| *xid != answer.xid) {
                self.journal.reach(Kind::ReplyLate);
            }
            used.answered.insert(answer.xid);
        }
    }

    /// New parameters of a session were refused, and it is not said which: no more is known about them.
    pub(crate) fn refused(&mut self, id: &[u8; 16]) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.effects.retain(|e| !matches!(e.ban, Ban::Before(_)));
        }
    }

    // --- what goes out -------------------------------------------------------------------------------------------

    /// Bytes that a reactor has sent on a line.
    pub(crate) fn sent(&mut self, line: LineId, bytes: &[u8], clients: &[Client], reference: &Reference, net: &Net) {
        let mut tap =
            self.taps.remove(&line).unwrap_or_else(|| Tap { reader: RecordReader::new(1 << 24), xids: HashSet::new() });
        let mut rest = bytes;
        loop {
            match tap.reader.next(&mut rest) {
                Ok(Some(record)) => self.record(line, &record, &mut tap.xids, clients, (reference, net)),
                Ok(None) => break,
                Err(e) => {
                    self.journal.fail(Rule::Wire, format!("line {line} carries no sequence of records: {e}"));
                    break;
                }
            }
        }
        self.taps.insert(line, tap);
    }

    fn record(
        &mut self,
        line: LineId,
        record: &[u8],
        xids: &mut HashSet<u32>,
        clients: &[Client],
        (reference, net): (&Reference, &Net),
    ) {
        if !matches!(message::peek(record), Ok((_, MessageType::Call))) {
            return;
        }
        self.records += 1;
        let call = match Call::read(record) {
            Ok(call) => call,
            Err(e) => return self.journal.fail(Rule::Wire, format!("line {line}: {e}: {record:02x?}")),
        };
        self.journal.check(Rule::SameBytes, xids.insert(call.header.xid), || {
            format!("xid {:#x} twice on line {line}", call.header.xid)
        });
        let Some(session) = self.sessions.get_mut(&call.session()) else {
            return self.journal.fail(Rule::Stale, format!("line {line}: a session that never was: {call:?}"));
        };
        let quiet = self.quiet.get(&line).copied();
        let look = Look { journal: &self.journal, line, quiet, call: &call, record };
        // What was encoded before may have been lost before a kernel took it, and is sent again all the same; and a lone
        // CB_SEQUENCE stands for something that was sent before.
        let first = call.ops.first().filter(|op| reference.is_encoded_once(op.payload));
        let client = session.client;
        if look.at(session, clients, reference)
            && let Some(op) = first
        {
            self.check_tenant(client, reference.encoded_as(op.payload), clients, reference, net);
        }
    }

    /// A new call has gone out, encoded as this number: no more of its tenant's are out than may be. Counted are those that the
    /// server had to count when it encoded this one, too: their clients have not answered them, their connections are there,
    /// and they have not come back since, as those do whose connection was lost.
    fn check_tenant(&self, client: usize, number: u64, clients: &[Client], reference: &Reference, net: &Net) {
        let Some(tenant) = clients[client].tenant else { return };
        let Some(most) = reference.tenants.calls_most(tenant) else { return };
        let counts = |(id, watched): &(&[u8; 16], &Watched)| {
            let client = &clients[watched.client];
            let honest = !client.removed && !client.has_lied && !client.has_refused;
            let alive = |s: &&Session| s.id == **id && !s.destroyed && !s.tainted;
            client.tenant == Some(tenant) && honest && client.sessions.iter().any(|s| alive(&s))
        };
        let watched = self.sessions.iter().filter(counts).flat_map(|(_, watched)| watched.slots.values());
        let out = watched.filter(|used| used.is_out(number, reference, net)).count();
        self.journal.check(Rule::Limits, out <= most as usize, || {
            format!("{out} calls of tenant {tenant} are out, and {most} may be")
        });
    }
}

/// Session id and count of a `referring_call_list4`; sequence id and slot of a `referring_call4`.
const LIST_BYTES: usize = 20;
const CALL_BYTES: usize = 8;

/// One look at one record.
struct Look<'a> {
    journal: &'a Journal,
    line: LineId,
    /// The last turn after which the line carried nothing that was encoded before.
    quiet: Option<u64>,
    call: &'a Call<'a>,
    record: &'a [u8],
}

impl Look<'_> {
    fn fail(&self, rule: Rule, what: &str) {
        self.journal.fail(rule, format!("line {}: {what}: {:?}", self.line, self.call));
    }

    /// Whether it is a new call.
    fn at(&self, session: &mut Watched, clients: &[Client], reference: &Reference) -> bool {
        let (program, credential) = self.call.principal();
        let stamp = credential.body.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let principal = Principal { program, stamp };
        let seen = clients[session.client].sessions.iter().find(|s| s.id == self.call.session());
        let (id, slot) = (self.call.sequence.sequence_id, self.call.sequence.slot_id);
        let used = session.slots.get(&slot);
        if used.is_some_and(|used| used.is_newer_than(self.call.header.xid)) {
            // It waited behind others on its line, while the slot went on elsewhere.
            self.check_stale(session, principal, false, reference);
            return false;
        }
        let lives = seen.map_or(0, |s| s.lives(slot));
        let before = used.map(|used| used.id);
        let fresh = used.is_none_or(|used| (used.id, used.lives) != (id, lives));
        if fresh {
            // Only an executed call moves the id on.
            let tainted = seen.is_none_or(|s| s.tainted);
            let expected = before.map_or(1, |id| id.wrapping_add(1));
            let last = seen.and_then(|s| s.last(slot));
            let executed = before.is_none_or(|id| last == Some(id));
            // A slot starts anew once csr_highest_slotid fell below it, which a lie may say.
            let anew = id == 1 && (tainted || last == Some(0));
            if anew && before.is_some() && !tainted {
                self.journal.reach(Kind::SlotAnew);
                if session.copied.contains(&slot) {
                    self.fail(Rule::SequenceIds, &format!("slot {slot} starts anew, and a copy is under way"));
                }
            }
            if !anew && !(id == expected && (executed || tainted)) {
                self.fail(Rule::SequenceIds, &format!("slot {slot} goes on from {before:?} (executed: {executed})"));
            }
        }
        self.check_stale(session, principal, fresh, reference);
        self.check_referring(seen.map(|s| s.limits.request_bytes_max as usize), reference);
        let used = session.slots.entry(slot).or_insert_with(|| Use::new(id, lives, principal));
        if fresh {
            *used = Use::new(id, lives, principal);
        }
        if used.calls.iter().any(|(xid, _)| !used.answered.contains(xid)) {
            session.copied.insert(slot);
        }
        if let Some(op) = self.call.ops.first() {
            used.first = Some((op.payload, self.line));
        }
        self.check_use(used, principal);
        fresh
    }

    /// A callback names the calls that it depends on; together with others it goes only if they do not fit.
    fn check_referring(&self, bytes_max: Option<usize>, reference: &Reference) {
        let lists = self.call.sequence.referring_call_lists.iter();
        let named: Vec<Named> = lists
            .flat_map(|list| {
                let session = list.session_id.0;
                list.calls.iter().map(move |c| Named { session, sequence_id: c.sequence_id, slot: c.slot_id })
            })
            .collect();
        if !named.is_empty() {
            self.journal.reach(Kind::Referring);
        }
        let depends = |op: &Op| reference.referred(op.payload);
        let expected = self.call.ops.first().map_or(Some(&[][..]), depends);
        let Some(expected) = expected else { return };
        let joined = self.call.ops.iter().skip(1).any(|op| depends(op).is_some_and(|calls| !calls.is_empty()));
        let left_out = named.is_empty() && !expected.is_empty();
        let groups = expected.chunk_by(|a, b| a.session == b.session).count();
        let needed = self.record.len() + groups * LIST_BYTES + expected.len() * CALL_BYTES;
        let fits = bytes_max.is_some_and(|max| needed <= max);
        if left_out {
            self.journal.reach(Kind::ReferringLeftOut);
        }
        let right = if left_out { !fits } else { named == expected };
        if !right || joined {
            self.fail(Rule::Wire, &format!("depends on {expected:?}, in {needed} of {bytes_max:?} bytes"));
        }
    }

    /// Nothing new goes out with parameters that were replaced, and nothing at all on a session that is removed.
    fn check_stale(&self, session: &Watched, principal: Principal, fresh: bool, reference: &Reference) {
        let Some(version) = session.principals.iter().rposition(|p| *p == principal) else {
            return self.fail(Rule::Stale, "a program or credential that nobody asked for");
        };
        let in_force = session.effects.iter().filter(|e| e.home_turn.is_some() && e.home_turn <= self.quiet);
        let Some(effect) = in_force.max_by_key(|e| e.ban) else { return };
        match effect.ban {
            Ban::All => self.fail(Rule::Stale, "the session was removed"),
            Ban::Fresh if fresh && !self.call.ops.is_empty() && !self.is_old(effect, reference) => {
                self.fail(Rule::Stale, "a new call on a session that is being drained");
            }
            Ban::Before(least) if fresh && version < least && !self.call.ops.is_empty() => {
                if !self.is_old(effect, reference) {
                    self.fail(Rule::Stale, &format!("version {version} where {least} is in force"));
                }
            }
            Ban::Fresh | Ban::Before(_) => {}
        }
    }

    /// Whether it may be a resend of something that left on a line which was lost before its kernel took it.
    fn is_old(&self, effect: &Effect, reference: &Reference) -> bool {
        let before = |turn: Option<u64>| turn.is_some_and(|turn| Some(turn) < effect.home_turn);
        self.call.ops.iter().any(|op| before(reference.first_encoded(op.payload)))
    }

    /// One sequence id is one request, and one xid is the same bytes.
    fn check_use(&self, used: &mut Use, principal: Principal) {
        let xid = self.call.header.xid;
        let op = (!self.call.ops.is_empty()).then(|| self.call.tail.to_vec());
        match self.call.ops.len() {
            0 => self.journal.reach(Kind::LoneSequence),
            1 => {}
            _ => {
                self.journal.reach(Kind::Batch);
                if self.call.ops.iter().any(|op| op.op == CallbackOp::Getattr) {
                    self.fail(Rule::Wire, "CB_GETATTR in one call with others");
                }
            }
        }
        if let Some((_, bytes)) = used.calls.iter().find(|(before, _)| *before == xid) {
            self.journal.reach(Kind::Resent);
            if bytes != self.record {
                self.fail(Rule::SameBytes, &format!("xid {xid:#x} was {bytes:02x?} before, is {:02x?}", self.record));
            }
            return;
        }
        let all_answered = used.calls.iter().all(|(xid, _)| used.answered.contains(xid));
        if principal != used.principal && !all_answered {
            self.fail(Rule::SameBytes, "another principal under the same sequence id");
        }
        match op {
            None => used.lone = true,
            Some(_) if used.lone => self.fail(Rule::SequenceIds, "an operation after a lone CB_SEQUENCE"),
            Some(op) => {
                if used.op.as_ref().is_some_and(|before| *before != op) && !all_answered {
                    self.fail(Rule::SequenceIds, "two requests under one sequence id");
                }
                used.op = Some(op);
            }
        }
        used.principal = principal;
        used.calls.push((xid, self.record.to_vec()));
    }
}

impl Use {
    /// Whether a call that was made after the one with this xid, which was not seen before, was seen already.
    fn is_newer_than(&self, xid: u32) -> bool {
        let known = self.calls.iter().any(|(seen, _)| *seen == xid);
        !known && self.calls.iter().any(|(seen, _)| call::is_older(xid, *seen))
    }

    /// Whether the server has waited for its answer since what was encoded as `number`, for sure: it has the connection, and
    /// cannot have given it up yet.
    fn is_out(&self, number: u64, reference: &Reference, net: &Net) -> bool {
        let waits = |(payload, line): (Payload, LineId)| {
            net.is_attached(line)
                && reference.encoded_for_ns(payload) < reference.rpc_timeout_ns_min
                && reference.encoded_as(payload) <= number
        };
        self.answered.is_empty() && self.first.is_some_and(waits)
    }

    fn new(id: u32, lives: u32, principal: Principal) -> Use {
        Use { id, lives, principal, calls: Vec::new(), answered: BTreeSet::new(), op: None, first: None, lone: false }
    }
}
