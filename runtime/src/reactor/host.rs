//! What the backchannel core asks of its driver: the entries of the slab that are running for a client, and the hooks.

use super::draining::{ClientDrain, Draining, core_key};
use super::home::Watch;
use super::owed::Owed;
use super::turn_us;
use crate::callback::{CallbackEntry, CallbackKey, Dequeue, Finish, WaitTable};
use crate::completion::{Ending, QueueState};
use crate::flight::{FlightStep, Raw, answer_code, note};
use crate::hooks::{Done, Event, Hooks, Outcome, Prepare, Run};
use crate::keys::{ClientId, ConnectionId, SessionKey};
use crate::latency::LatencyStage;
use crate::reaper::Own;
use crate::registry::{ClientShared, ReactorPort, Shared};
use crate::stats::count;
use crate::wait::{Answer, Ended};
use ringback_rpc::backchannel::{
    self, Backchannel, CallStep, CallView, Class, Host, ReferringCalls, Requeue, Sending, Token,
};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::xdr::{self, Writer, XdrError, XdrErrorKind};
use std::collections::HashMap;

/// The bit of an entry's `attempts` that the core leaves to its driver: it is this run that made the return owed.
const NOTE_OWED: u8 = 0x80;

/// The driver of one client's backchannel: its tokens are indices of slab entries. The run owns its entry while the core
/// holds the token (rule R1), so the generation cannot change.
///
/// `WATCHED`: somebody may want to know each step. Where it is false no question of it is left in the code.
pub(super) struct ClientHost<'a, const WATCHED: bool = true> {
    pub shared: &'a Shared,
    pub port: &'a ReactorPort,
    /// The embedder's.
    pub hooks: &'a dyn Hooks,
    pub reactor: usize,
    pub client: ClientId,
    /// The client as other threads see it.
    pub known_to_all: &'a ClientShared,
    pub now_ns: u64,
    pub now_us: u32,
    pub drain: Option<&'a mut Draining>,
    pub waits: &'a mut WaitTable<Answer>,
    pub owed: &'a mut Owed,
    /// If steps are recorded, traced, or measured.
    pub watch: Option<&'a mut Watch>,
    /// Connections that the core has given up.
    pub condemned: &'a mut Vec<(ClientId, ConnectionId)>,
    /// Drains of the client, which get them back.
    pub drains: Vec<ClientDrain>,
    /// Runs that went to an embedder, who has yet to take them off a completion queue and to give them back, less those that
    /// came back.
    pub delivered: i64,
    /// The run that ends next is cancelled for the sake of this session.
    pub ending: Option<SessionKey>,
    /// Callbacks that are about a session: see [`Home::of_session`](super::home::Home::of_session).
    pub of_session: &'a HashMap<u32, (u32, SessionKey)>,
}

/// A run and its entry: looked up once, for all hooks that are called for it in a row.
#[derive(Clone, Copy)]
pub(super) struct Described<'a> {
    entry: &'a CallbackEntry,
    run: Run,
}

/// Runs of one operation that have come one after the other, linked in this order.
pub(super) struct Alike {
    op: u8,
    count: u32,
    /// Both mean something if there is one.
    first: Token,
    last: Token,
}

impl Default for Alike {
    fn default() -> Self {
        Alike { op: 0, count: 0, first: Token(0), last: Token(0) }
    }
}

impl<'a, const WATCHED: bool> ClientHost<'a, WATCHED> {
    #[inline(always)]
    fn entry(&self, token: Token) -> &'a CallbackEntry {
        match self.shared.slab.get(token.0) {
            Some(entry) => entry,
            None => unreachable!("token {} names no entry of the slab", token.0),
        }
    }

    /// Whether the embedder has asked for the end of a run.
    pub fn is_cancelled(&self, token: Token) -> bool {
        self.entry(token).word().is_cancelled()
    }

    #[inline]
    fn described(&self, token: Token) -> Described<'a> {
        let entry = self.entry(token);
        Described { entry, run: self.run_of(token, entry) }
    }

    #[inline]
    fn started_ns_of(&self, age_ns: u64) -> u64 {
        self.now_ns.saturating_sub(age_ns)
    }

    fn age_us(&self, entry: &CallbackEntry) -> u32 {
        self.now_us.wrapping_sub(entry.started_us())
    }

    pub fn run(&self, token: Token) -> Run {
        self.run_of(token, self.entry(token))
    }

    #[inline(always)]
    fn run_of(&self, token: Token, entry: &CallbackEntry) -> Run {
        Run {
            key: CallbackKey { index: token.0, generation: entry.word().snapshot().generation() },
            cookie: entry.cookie(),
            client: self.client,
            op: op_of(entry),
            age_ns: u64::from(self.age_us(entry)) * 1000,
            own: entry.is_own(),
        }
    }

    /// Calls a hook about a run.
    #[inline(always)]
    fn call<R>(&self, what: &'static str, run: &Run, call: impl FnOnce(&dyn Hooks) -> R) -> Option<R> {
        self.shared.call_about(self.port, self.hooks, what, run, call)
    }

    #[inline(always)]
    fn call_encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        match self.call("Hooks::encode", run, |hooks| hooks.encode(run, args)) {
            Some(written) => written,
            None => Err(encoder_failed("Hooks::encode")),
        }
    }

    /// Records a step of a run.
    #[inline]
    fn note(&self, raw: impl FnOnce() -> Raw) {
        if self.watches() {
            note(self.port.flight.as_ref(), self.now_ns, raw);
        }
    }

    /// Records a step of a path.
    pub fn note_path(&self, step: FlightStep, code: u8, session: u64) {
        self.note(|| Raw { code, session, ..Raw::new(step, self.client) });
    }

    /// Hands an accepted run to the core, together with others that are `alike`: those that follow each other are handed
    /// over when one comes that is not, and the last of them by [`submit_alike`](Self::submit_alike).
    #[inline(always)]
    pub fn submit(&mut self, backchannel: &mut Backchannel, alike: &mut Alike, token: Token, entry: &CallbackEntry) {
        if self.watches() {
            self.watch_run(FlightStep::Queued, 0, LatencyStage::Queued, &self.run(token));
        }
        let op = entry.op();
        if alike.count > 0 && alike.op == op {
            (alike.last, alike.count) = (token, alike.count + 1);
            return;
        }
        self.submit_alike(backchannel, std::mem::take(alike));
        if op != CallbackOp::RecallSlot as u8 {
            *alike = Alike { op, count: 1, first: token, last: token };
            return;
        }
        match self.session_of(token, entry) {
            None => backchannel.enqueue(token, self),
            Some(session) => backchannel.enqueue_on(token, core_key(session), self),
        }
    }

    /// Hands over runs that are alike.
    #[inline]
    pub fn submit_alike(&mut self, backchannel: &mut Backchannel, Alike { count, first, last, .. }: Alike) {
        if count > 0 {
            backchannel.enqueue_all(first, last, count, self);
        }
    }

    fn session_of(&self, token: Token, entry: &CallbackEntry) -> Option<SessionKey> {
        let (generation, session) = *self.of_session.get(&token.0)?;
        // The run owns the entry, whose generation cannot change.
        (entry.word().snapshot().generation() == generation).then_some(session)
    }

    /// Records a step of a run, and how long it took so far.
    #[cold]
    fn watch_run(&mut self, step: FlightStep, code: u8, stage: LatencyStage, run: &Run) {
        self.note(|| Raw { code, ..Raw::of_run(step, run) });
        self.measure(stage, run.op, run.age_ns, 1);
    }

    #[cold]
    fn measure(&mut self, stage: LatencyStage, op: CallbackOp, took_ns: u64, count: u64) {
        if let Some(Watch { latencies: Some(latencies), .. }) = &mut self.watch {
            latencies.record(Class::of(op), stage, took_ns / 1000, count);
        }
    }

    #[inline(always)]
    fn count_outcome(&mut self, run: &Run, outcome: &Outcome<'_>) {
        let code = self.port.stats.endings.count(outcome);
        if self.watches() {
            self.watch_run(FlightStep::Done, code, LatencyStage::Done, run);
        }
        if let (Outcome::Cancelled { sent }, false) = (outcome, run.own) {
            let ending = self.ending.take();
            let of_client = self.drains.iter_mut().filter(|d| d.covers(ending)).map(|d| &mut d.report);
            for drain in self.drain.as_deref_mut().into_iter().chain(of_client) {
                drain.count(run.key, *sent);
            }
        }
    }

    /// Whose hooks are called for a run.
    #[inline(always)]
    fn hooks_of(&self, run: &Run) -> &'a dyn Hooks {
        if run.own { &Own } else { self.hooks }
    }

    /// The outcome is final. It goes to a completion queue, or the run ends. `waited`: somebody waits for it.
    #[inline(always)]
    fn finish(&mut self, hooks: &dyn Hooks, entry: &CallbackEntry, run: &Run, outcome: &Outcome<'_>, waited: bool) {
        self.count_outcome(run, outcome);
        match self.shared.queue_of(self.reactor) {
            Some(queue) if !run.own => self.deliver(queue, run, outcome, waited),
            _ => self.end(hooks, entry, run, outcome.into(), waited.then_some(outcome)),
        }
    }

    #[inline(never)]
    fn deliver(&mut self, queue: &QueueState, run: &Run, outcome: &Outcome<'_>, waited: bool) {
        if waited {
            // Nobody else begins to wait before `finish`.
            let waiters = self.waits.take(&self.port.waits, run.key.index);
            let ended = Ended::new(outcome);
            self.waits.answer(waiters, |waiter| ended.told_to(waiter, run.key));
        }
        self.delivered += 1;
        self.shared.deliver(queue, run.key.index, run, outcome);
    }

    /// The embedder has given back a run that it took off a completion queue.
    pub fn finish_returned(&mut self, token: Token) {
        self.delivered -= 1;
        let (run, ending) = self.shared.run_of(token.0);
        self.end(self.hooks_of(&run), self.entry(token), &run, ending, None);
    }

    /// Rule R3: `release`, then the one transition that finishes, then the reference and in-flight. `told`: what those
    /// are told who wait for the run.
    #[inline(always)]
    fn end(&mut self, hooks: &dyn Hooks, entry: &CallbackEntry, run: &Run, ending: Ending, told: Option<&Outcome<'_>>) {
        self.shared.call_of_run(self.port, "Hooks::release", run, || hooks.release(run));
        self.note(|| Raw::of_run(FlightStep::Released, run));
        count(&self.port.stats.released);
        // Before `finish`, after which a next run could have waiters of its own.
        let waiters = told.map(|outcome| (self.waits.take(&self.port.waits, run.key.index), Ended::new(outcome)));
        let finished = entry.word().finish(ending.keeps_rearm());
        if let Some((waiters, ended)) = waiters {
            self.waits.answer(waiters, |waiter| ended.told_to(waiter, run.key));
        }
        if matches!(finished, Finish::RunAgain { .. }) {
            // A fresh run, with the same reference: through the inbox to the tail of the queue. This reactor is awake, so
            // nobody needs to be woken.
            entry.set_started_us(turn_us(self.now_ns));
            self.port.inbox.push_own(&self.shared.slab, run.key.index);
        } else {
            self.shared.let_go(entry, self.known_to_all, run.key, ending, finished);
            self.shared.drop_reference(self.port, hooks, run);
            self.known_to_all.in_flight.leave_later();
        }
    }
}

impl<'a, const WATCHED: bool> Host for ClientHost<'a, WATCHED> {
    type Known = Described<'a>;

    #[inline]
    fn link(&self, token: Token) -> Option<Token> {
        let next = self.entry(token).link()?;
        // The entry after this one is the next that the core looks at: by then it is in the cache.
        self.shared.slab.prefetch(next);
        Some(Token(next))
    }

    fn set_link(&mut self, token: Token, next: Option<Token>) {
        self.entry(token).set_link(next.map(|t| t.0));
    }

    fn note(&self, token: Token) -> u8 {
        self.entry(token).attempts() & !NOTE_OWED
    }

    fn set_note(&mut self, token: Token, note: u8) {
        let entry = self.entry(token);
        entry.set_attempts(note | entry.attempts() & NOTE_OWED);
    }

    #[inline(always)]
    fn look(&self, token: Token) -> Sending<Described<'a>> {
        let known = self.described(token);
        Sending { token, op: known.run.op, started_ns: self.started_ns_of(known.run.age_ns), known }
    }

    #[inline]
    fn op(&self, token: Token) -> CallbackOp {
        op_of(self.entry(token))
    }

    #[inline]
    fn started_ns(&self, token: Token) -> u64 {
        self.started_ns_of(u64::from(self.age_us(self.entry(token))) * 1000)
    }

    #[inline(always)]
    fn take_requeue(&mut self, run: &Sending<Described<'a>>) -> bool {
        run.known.entry.word().take_requeue() == Dequeue::Resend
    }

    #[inline(always)]
    fn prepare(&mut self, Sending { known: Described { run, .. }, .. }: &Sending<Described<'a>>) -> bool {
        if self.watches() {
            self.measure(LatencyStage::Unsent, run.op, run.age_ns, 1);
        }
        self.call("Hooks::prepare", run, |hooks| hooks.prepare(run)) == Some(Prepare::Send)
    }

    #[inline(always)]
    fn referring(&self, sending: &Sending<Described<'a>>, calls: &mut ReferringCalls<'_>) -> xdr::Result<()> {
        let run = &sending.known.run;
        match self.call("Hooks::referring_calls", run, |hooks| hooks.referring_calls(run, calls)) {
            Some(()) => Ok(()),
            None => Err(encoder_failed("Hooks::referring_calls")),
        }
    }

    #[inline(always)]
    fn encode(&mut self, sending: &Sending<Described<'a>>, args: &mut Writer<'_>) -> xdr::Result<()> {
        let Described { entry, run } = &sending.known;
        self.call_encode(run, args)?;
        // The time until the return is overdue begins here and not with the request, which may have waited for a path
        // for most of it.
        if matches!(run.op, CallbackOp::Recall | CallbackOp::LayoutRecall) && entry.word().recalled() {
            let stamp = self.owed.push(run.key, self.now_ns);
            entry.set_return_stamp(stamp);
            entry.set_attempts(entry.attempts() | NOTE_OWED);
        }
        Ok(())
    }

    fn copy(&mut self, sending: &Sending<Described<'a>>, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.call_encode(&sending.known.run, args)
    }

    fn unsent(&mut self, token: Token) {
        let (entry, generation) = (self.entry(token), self.run(token).key.generation);
        if entry.attempts() & NOTE_OWED != 0 {
            entry.set_attempts(entry.attempts() & !NOTE_OWED);
            // Or the embedder has said so meanwhile.
            let _ = entry.word().returned(generation);
        }
    }

    #[inline(always)]
    fn done(&mut self, token: Token, outcome: &Outcome<'_>) -> Option<u64> {
        let Described { entry, run } = self.described(token);
        let hooks = self.hooks_of(&run);
        let waited = entry.word().settle();
        match self.shared.call_of_run(self.port, "Hooks::done", &run, || hooks.done(&run, outcome)) {
            Some(Done::RequeueAfter(delay_ns)) if outcome.may_requeue() => {
                // Before the core looks at its deadlines: if the run is to end instead, this is settled once more.
                entry.word().requeue();
                Some(delay_ns)
            }
            _ => {
                self.finish(hooks, entry, &run, outcome, waited);
                None
            }
        }
    }

    fn ends_with(&mut self, session: backchannel::SessionKey) {
        self.ending = Some(SessionKey { client: self.client, serial: session.0 });
    }

    fn requeued(&mut self, token: Token, why: Requeue) {
        count(&self.port.stats.requeued);
        self.note(|| Raw { code: why as u8, ..Raw::of_run(FlightStep::Requeued, &self.run(token)) });
        if why != Requeue::Asked {
            self.entry(token).word().requeue();
        }
    }

    fn event(&mut self, event: backchannel::Event) {
        let client = self.client;
        let session = |key: backchannel::SessionKey| SessionKey { client, serial: key.0 };
        let told = match event {
            backchannel::Event::Path(state) => {
                self.note_path(FlightStep::Path, state as u8, 0);
                Event::PathState { client, state }
            }
            backchannel::Event::CloseConnection(conn) => {
                self.note_path(FlightStep::Condemned, 0, conn.0);
                self.condemned.push((client, ConnectionId::from_bits(conn.0)));
                return;
            }
            backchannel::Event::Unbound { session: key, conn } => {
                self.note_path(FlightStep::Unbound, 0, conn.0);
                Event::Unbound { session: session(key), connection: ConnectionId::from_bits(conn.0) }
            }
            backchannel::Event::SessionLost(key) => {
                self.note_path(FlightStep::SessionLost, 0, key.0);
                Event::SessionLost { session: session(key) }
            }
            backchannel::Event::SessionFault { session: key, fault } => {
                self.note_path(FlightStep::SessionFault, fault.kind() as u8, key.0);
                Event::BackchannelFault { session: session(key), fault }
            }
            // The core may learn to tell more; nothing of that is for the embedder yet.
            _ => return,
        };
        self.shared.tell(Some(self.port), &told);
    }

    #[inline]
    fn watches(&self) -> bool {
        WATCHED && self.watch.is_some()
    }

    fn step(&mut self, call: &CallView, step: CallStep) {
        let (step, code) = match step {
            CallStep::Sent => (FlightStep::Sent, 0),
            CallStep::Resent => (FlightStep::Resent, 0),
            CallStep::Resynchronising => (FlightStep::Resynchronising, 0),
            CallStep::Answered(status) => (FlightStep::Answered, answer_code(status)),
            CallStep::SlotFreed => (FlightStep::SlotFreed, 0),
        };
        let run = call.token.map(|token| self.run(token));
        self.note(|| {
            let raw = run.map_or(Raw::new(step, self.client), |run| Raw::of_run(step, &run));
            Raw { code, session: call.session.0, slot: call.slot, xid: call.xid, ..raw }
        });
        if let (FlightStep::Answered, Some(run)) = (step, run) {
            let took_ns = self.now_ns.saturating_sub(call.sent_ns);
            self.measure(LatencyStage::Wire, run.op, took_ns, call.runs.into());
        }
    }
}

#[cold]
fn encoder_failed(what: &'static str) -> XdrError {
    XdrError { what, offset: 0, kind: XdrErrorKind::EncoderFailed }
}

#[inline]
fn op_of(entry: &CallbackEntry) -> CallbackOp {
    match CallbackOp::try_from(u32::from(entry.op())) {
        Ok(op) => op,
        Err(_) => unreachable!("entry holds operation {}, which `insert` never stored", entry.op()),
    }
}
