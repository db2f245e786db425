//! The fore channel: calls of the clients on the same lines, answered by the embedder at once, later, or never.

use super::choices::Choices;
use super::coverage::Kind;
use super::journal::{Journal, Rule};
use super::plant::{Plant, Planted};
use ringback::{Call, CallToken, ClientId, ConnectionId, ForeChannel, Runtime, SessionKey};
use ringback_rpc::message::{CallHeader, OpaqueAuth, ReplyHeader};
use ringback_rpc::record;
use ringback_rpc::session::{Check, ReplierSlots, SequenceId, SlotId};
use ringback_rpc::xdr::{Decode, Encode, Reader, Result, Writer};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the embedder does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Wish {
    /// Answers at once.
    Inline = 0,
    /// Answers later.
    Defer = 1,
    /// Never answers.
    Drop = 2,
    /// BIND_CONN_TO_SESSION: binds the connection to the session with the number in `what`, and answers at once.
    Bind = 3,
}

/// The arguments of a call, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub xid: u32,
    pub wish: Wish,
    /// The session, by the number that a client names it with; 0: none.
    pub what: u32,
    /// What SEQUENCE says, if the call has one.
    pub slot: u32,
    pub sequence_id: u32,
    pub filling: u32,
}

/// Slots of a session's fore channel, and what stands in the place of one in calls without SEQUENCE.
pub(crate) const FORE_SLOTS: usize = 16;
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// A call of the fore channel, as a referring call list names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub session: [u8; 16],
    pub sequence_id: u32,
    pub slot: u32,
}

/// The fore channel of a session, as the embedder sees it.
struct Table {
    client: ClientId,
    id: [u8; 16],
    slots: ReplierSlots,
    /// Calls that are answered sooner or later, whatever becomes of a callback, the last ones.
    calls: Vec<Named>,
}

/// Calls that are remembered, to be named.
const CALLS_MAX: usize = 32;

const PROGRAM: u32 = 100_003;

impl Question {
    /// One without SEQUENCE.
    pub(crate) fn draw(xid: u32, wish: Wish, what: u32, choices: &mut Choices) -> Question {
        let filling = if choices.below(8) == 0 { choices.log_between(1, 8000) } else { choices.below(64) };
        Question { xid, wish, what, slot: NO_SLOT, sequence_id: 0, filling: filling as u32 }
    }

    /// The CALL record with its mark.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (credential, verifier) = (OpaqueAuth::NONE, OpaqueAuth::NONE);
        let header = CallHeader { xid: self.xid, program: PROGRAM, version: 4, procedure: 1, credential, verifier };
        marked(self.filling, |w| {
            header.encode(w)?;
            self.write(w)
        })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u32(self.wish as u32)?;
        w.u32(self.what)?;
        w.u32(self.slot)?;
        w.u32(self.sequence_id)?;
        w.u32(self.filling)?;
        (0..self.filling).try_for_each(|at| w.u32(at ^ self.xid))
    }

    /// Reads it, from a call or from its answer. `None`: it is not what was written.
    fn read(r: &mut Reader<'_>, xid: u32) -> Option<Question> {
        let wish = match r.u32("wish").ok()? {
            0 => Wish::Inline,
            1 => Wish::Defer,
            2 => Wish::Drop,
            3 => Wish::Bind,
            _ => return None,
        };
        let what = r.u32("what").ok()?;
        let (slot, sequence_id) = (r.u32("slot").ok()?, r.u32("sequence id").ok()?);
        let filling = r.u32("filling").ok()?;
        let whole = (0..filling).all(|at| r.u32("filling").is_ok_and(|word| word == at ^ xid));
        (whole && r.remaining().is_empty()).then_some(Question { xid, wish, what, slot, sequence_id, filling })
    }

    fn of_call(record: &[u8]) -> Option<Question> {
        let mut r = Reader::new(record);
        let header = CallHeader::decode(&mut r).ok()?;
        Question::read(&mut r, header.xid)
    }

    /// The question that a REPLY record answers.
    pub(crate) fn of_reply(record: &[u8]) -> Option<Question> {
        let mut r = Reader::new(record);
        let header = ReplyHeader::decode(&mut r).ok()?;
        Question::read(&mut r, header.xid)
    }

    fn reply(&self, w: &mut Writer<'_>) -> Result<()> {
        ReplyHeader::success(self.xid).encode(w)?;
        self.write(w)
    }

    fn reply_bytes(&self) -> usize {
        72 + 4 * self.filling as usize
    }
}

fn marked(filling: u32, write: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Vec<u8> {
    let mut bytes = vec![0; 128 + 4 * filling as usize];
    let mut w = Writer::new(&mut bytes);
    let written = record::begin(&mut w).and_then(|mark| {
        write(&mut w)?;
        record::end(&mut w, mark)
    });
    assert!(written.is_ok(), "{written:?}");
    let len = w.position();
    bytes.truncate(len);
    bytes
}

/// See the [module](self).
pub(crate) struct Fore {
    journal: Journal,
    /// Calls that are answered later.
    deferred: Mutex<Vec<(CallToken, Question)>>,
    /// Every call is answered at once.
    prompt: AtomicBool,
    runtime: Mutex<Option<Runtime>>,
    /// Sessions by the number that a client names them with.
    sessions: Mutex<HashMap<u32, SessionKey>>,
    tables: Mutex<BTreeMap<u32, Table>>,
    planted: Planted,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fore {
    pub(crate) fn new(journal: Journal, plant: Plant) -> Self {
        let planted = Planted::new(plant);
        let (deferred, prompt, runtime, sessions, tables) = Default::default();
        Fore { journal, deferred, prompt, runtime, sessions, tables, planted }
    }

    pub(crate) fn set_runtime(&self, runtime: Option<Runtime>) {
        *lock(&self.runtime) = runtime;
    }

    pub(crate) fn set_prompt(&self) {
        self.prompt.store(true, Relaxed);
    }

    pub(crate) fn add_session(&self, number: u32, key: SessionKey, client: ClientId, id: [u8; 16]) {
        lock(&self.sessions).insert(number, key);
        let table = Table { client, id, slots: ReplierSlots::new(FORE_SLOTS as u32, 0), calls: Vec::new() };
        lock(&self.tables).insert(number, table);
    }

    /// Some of the client's calls that it may not have the replies to yet.
    pub(crate) fn open_calls(&self, client: ClientId, choices: &mut Choices) -> Vec<Named> {
        let tables = lock(&self.tables);
        let own = tables.values().filter(|table| table.client == client);
        let open = own.flat_map(|table| {
            let passed = |call: &&Named| table.slots.has_passed(SlotId(call.slot), SequenceId(call.sequence_id));
            table.calls.iter().filter(move |call| !passed(call))
        });
        open.filter(|_| choices.below(4) > 0).copied().collect()
    }

    /// A call with SEQUENCE has come.
    fn begin(&self, question: &Question) {
        let mut tables = lock(&self.tables);
        let Some(table) = tables.get_mut(&question.what).filter(|_| question.slot != NO_SLOT) else { return };
        let (slot, id, highest) = (SlotId(question.slot), SequenceId(question.sequence_id), table.slots.highest());
        let check = table.slots.check(slot, id, highest, 0);
        let new = matches!(check, Ok(Check::New));
        self.journal.check(Rule::Fore, new, || format!("{question:?} is not new: {check:?}"));
        if question.wish != Wish::Drop {
            if table.calls.len() == CALLS_MAX {
                table.calls.remove(0);
            }
            table.calls.push(Named { session: table.id, sequence_id: id.0, slot: slot.0 });
        }
    }

    /// It is answered.
    fn finish(&self, question: &Question) {
        if let Some(table) = lock(&self.tables).get_mut(&question.what).filter(|_| question.slot != NO_SLOT) {
            table.slots.finish(SlotId(question.slot), None);
        }
    }

    /// A connection is there no more, of which nobody tells.
    pub(crate) fn forget(&self, connection: ConnectionId) {
        lock(&self.deferred).retain(|(token, _)| token.connection() != connection);
    }

    /// Answers some calls that were deferred, in any order; with `all`, all of them.
    pub(crate) fn answer_deferred(&self, choices: &mut Choices, all: bool) {
        let Some(runtime) = lock(&self.runtime).clone() else { return };
        let count = lock(&self.deferred).len();
        let count = if all { count } else { choices.below(count as u64 + 1) as usize };
        for _ in 0..count {
            let (token, question) = {
                let mut deferred = lock(&self.deferred);
                let at = choices.index(deferred.len());
                deferred.swap_remove(at)
            };
            let mut bytes = vec![0; question.reply_bytes()];
            let mut w = Writer::new(&mut bytes);
            let written = question.reply(&mut w);
            assert!(written.is_ok(), "{written:?}");
            let len = w.position();
            bytes.truncate(len);
            // In one piece or in several, empty ones among them.
            let mut pieces = Vec::new();
            while choices.below(2) == 0 && pieces.len() < 3 {
                let rest = bytes.split_off(choices.below(bytes.len() as u64 + 1) as usize);
                pieces.push(std::mem::replace(&mut bytes, rest));
            }
            pieces.push(bytes);
            self.journal.note(|| format!("reply to {question:?} on {:?}", token.connection()), 70);
            self.finish(&question);
            runtime.reply(token, pieces);
        }
    }
}

impl ForeChannel for Fore {
    fn call(&self, call: Call<'_>) {
        let Some(question) = Question::of_call(call.record()) else {
            return self.journal.fail(Rule::Fore, format!("not what a client sent: {:02x?}", call.record()));
        };
        self.journal.note(|| format!("  fore call {question:?} on {:?}", call.connection()), 71);
        if question.wish == Wish::Bind {
            let key = lock(&self.sessions).get(&question.what).copied();
            let runtime = lock(&self.runtime).clone();
            if let (Some(key), Some(runtime)) = (key, runtime) {
                self.journal.reach(Kind::BoundByCall);
                // A removed client has no sessions; the answer is the same.
                let _ = runtime.bind(call.connection(), key);
            }
        }
        self.begin(&question);
        let later = question.wish == Wish::Defer && !self.prompt.load(Relaxed);
        let call = match question.wish {
            Wish::Drop => return self.journal.reach(Kind::ForeDropped),
            _ if later => call,
            _ => match call.reply(question.reply_bytes(), |_, w| question.reply(w)) {
                Ok(()) => {
                    self.finish(&question);
                    return self.journal.reach(Kind::ForeInline);
                }
                // No memory for the answer: it is given later.
                Err((call, _)) => call,
            },
        };
        self.journal.reach(Kind::ForeDeferred);
        let (token, record) = call.defer();
        let same = Question::of_call(&record) == Some(question);
        self.journal.check(Rule::Fore, same, || format!("a deferred call is not what it was: {record:02x?}"));
        let swapped = self.planted.strikes(Plant::SwapAnswer);
        let question = Question { xid: question.xid ^ u32::from(swapped), ..question };
        lock(&self.deferred).push((token, question));
    }

    fn closed(&self, connection: ConnectionId) {
        self.journal.note(|| format!("  closed: {connection:?}"), 31);
        lock(&self.deferred).retain(|(token, _)| token.connection() != connection);
    }
}
