//! What must happen: a model of every callback, which the runtime's answers and its calls of the hooks are held
//! against. It knows the rules R1 to R9 and nothing of how they are kept.

mod handover;
mod hooks;
mod owed;

use super::call::Payload;
use super::choices::Choices;
use super::client::Answered;
use super::coverage::Kind;
use super::fore::Named;
use super::groups::{Fate, Groups};
use super::journal::{Journal, Rule};
use super::plant::Plant;
use super::scenario::Scenario;
use super::tenants::Tenants;
use super::waiters::{End, RunId};
use ringback::{CallbackKey, CallbackOp, Cancel, ClientId, DrainReport, Outcome, Remove, Returned, TryRun, WaitError};
use ringback_rpc::nfs4::Status;
use std::collections::{HashMap, HashSet, VecDeque};

/// A client, as far as it decides about its callbacks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner {
    pub home: usize,
    /// `None`: the default one.
    pub tenant: Option<usize>,
    pub removed: bool,
    /// It is being drained, or was: no run is accepted any more.
    pub drained: bool,
    /// A session of it is being drained, or was.
    pub session_drained: bool,
    pub has_lied: bool,
    /// It has refused calls whose first copy it may have executed: they are sent again elsewhere.
    pub has_refused: bool,
    /// Was ever announced to be in courtesy, or expired.
    pub courtesy: bool,
    pub expired: bool,
    /// A reply has told it that its path is down.
    pub told: bool,
    /// It has destroyed a session, and what was under way there is sent again elsewhere.
    pub has_destroyed: bool,
}

/// One run, from the accepted `try_run` to the end of `release`.
#[derive(Clone, Debug, Default)]
struct Live {
    accepted_ns: u64,
    prepared: bool,
    refused: bool,
    encoded: u32,
    settled: bool,
    released: bool,
    rearm: bool,
    keep_rearm: bool,
    /// What the client has answered to it.
    answers: Vec<Status>,
    /// Times that the client has executed it, and times that `done` has asked for it to be sent again.
    executed: u32,
    asked_again: u32,
    /// Somebody has asked for it to be cancelled.
    cancelled_ns: Option<u64>,
    /// How it ended, and the same with its result if somebody waits for it.
    outcome: Option<Outcome<'static>>,
    end: Option<End>,
}

/// One callback.
#[derive(Clone, Debug)]
pub(crate) struct Callback {
    pub key: CallbackKey,
    pub owner: usize,
    pub op: CallbackOp,
    /// In the table of callbacks.
    pub exists: bool,
    dying: bool,
    live: Option<Live>,
    /// Runs so far.
    runs: u32,
    /// References taken and not given back.
    references: u32,
    /// Bytes that fill up its arguments.
    pub filling: usize,
    /// When the return of what it recalled is overdue, if that is awaited.
    owed_ns: Option<u64>,
    /// The same by the last transmission: one that the client is known not to have taken does not count.
    owed_last_ns: u64,
    /// The client has executed it since then, so that the return is awaited for sure.
    owed_surely: bool,
    /// When it was encoded last.
    encoded_ns: u64,
    /// The number of that among all that was encoded.
    encoded_as: u64,
    /// Runs that were encoded, and the turn in which that was done first.
    encoded: Vec<(u32, u64)>,
    /// Calls of the fore channel that a run depends on.
    refers: (u32, Vec<Named>),
}

impl Callback {
    /// There, and not running.
    pub(crate) fn is_idle(&self) -> bool {
        self.exists && self.live.is_none()
    }
}

/// A drain of a client or of a session under way: what it may have to report.
#[derive(Debug)]
struct Draining {
    number: u64,
    owner: usize,
    /// Of one session, or of the whole client.
    of_session: bool,
    /// What was cancelled after it was sent, and whether something else than the drain may have been why.
    cancelled: Vec<(CallbackKey, bool)>,
    /// Another process had begun it, and may have ended what this one does not report.
    inherited: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub accepted: u64,
    pub rearmed: u64,
    pub completed: u64,
    pub released: u64,
    pub prepared: u64,
    pub encoded: u64,
    pub cancelled_sent: u64,
    /// By the clients.
    pub executed: u64,
}

/// See the [module](self).
pub(crate) struct Reference {
    journal: Journal,
    pub owners: Vec<Owner>,
    /// By cookie.
    pub callbacks: Vec<Callback>,
    /// Every key that was given out.
    keys: HashSet<CallbackKey>,
    running: u64,
    existing: u32,
    pub counts: Counts,
    /// How often something was encoded.
    encodings: u64,
    /// The cookies of all runs that were prepared, in order.
    pub prepared: Vec<usize>,
    pub callbacks_max: u32,
    pub run_deadline_ns: u64,
    pub return_deadline_ns: u64,
    /// The least that it may be tuned to.
    pub rpc_timeout_ns_min: u64,
    /// Runs that somebody waits for, and how those ended that have.
    waited: HashSet<RunId>,
    pub ends: HashMap<RunId, End>,
    pub groups: Groups,
    pub tenants: Tenants,
    drains: Vec<Draining>,
    drains_begun: u64,
    /// The runtime accepts no more runs.
    draining: bool,
    /// Runs end in two steps: `done`, and `release` once the embedder has taken the completion off its queue.
    pub queued: bool,
    /// Runs that ended as cancelled after they were sent, since the drain began; and whether something else than the
    /// drain may have cancelled them.
    abandoned: Vec<(CallbackKey, bool)>,
    /// Where clients are to move, in the order in which it was asked for.
    pub moves: HashMap<ClientId, (usize, VecDeque<usize>)>,
    /// The reactor that turns.
    pub turning: Option<usize>,
    /// Turns of all reactors so far.
    pub turn: u64,
    /// How long the reactors have stood still, and since when they do.
    stood_ns: u64,
    still_ns: Option<u64>,
    /// What is encoded goes into a checkpoint, and is not sent.
    pub exporting: bool,
    pub choices: Choices,
}

impl Reference {
    pub(crate) fn new(journal: Journal, scenario: &Scenario, plant: Plant, choices: Choices) -> Self {
        let (owners, callbacks, keys, counts, prepared, abandoned) = Default::default();
        let (running, existing) = (0, 0);
        let (draining, turning, turn) = (false, None, 0);
        Reference {
            journal: journal.clone(),
            owners,
            callbacks,
            keys,
            running,
            existing,
            encodings: 0,
            counts,
            prepared,
            callbacks_max: scenario.callbacks_max,
            run_deadline_ns: scenario.run_deadline_ns,
            return_deadline_ns: scenario.return_deadline_ns,
            rpc_timeout_ns_min: scenario.rpc_timeout_ns / 5,
            waited: HashSet::new(),
            ends: HashMap::new(),
            groups: Groups::new(journal.clone(), plant),
            tenants: Tenants::new(journal, plant),
            drains: Vec::new(),
            drains_begun: 0,
            draining,
            queued: scenario.queue_delay_ns.is_some(),
            abandoned,
            moves: HashMap::new(),
            turning,
            turn,
            stood_ns: 0,
            still_ns: None,
            exporting: false,
            choices,
        }
    }

    /// A client is said to be at its new home.
    pub(crate) fn moved(&mut self, client: ClientId, home: usize) {
        let (journal, turning) = (self.journal.clone(), self.turning);
        let Some((owner, asked)) = self.moves.get_mut(&client) else {
            return journal.fail(Rule::OneOwner, format!("{client:?} has moved, which nobody has asked for"));
        };
        let next = asked.pop_front();
        journal.check(Rule::OneOwner, next == Some(home) && turning == Some(home), || {
            format!("{client:?} is on {home}, says reactor {turning:?}; it was to go to {next:?}")
        });
        let owner = *owner;
        self.owners[owner].home = home;
        if self.callbacks.iter().any(|c| c.owner == owner && c.live.is_some()) {
            journal.reach(Kind::MovedBusy);
        }
    }

    /// All is well: whoever was to move has moved.
    pub(crate) fn check_moves(&self) {
        for (client, (owner, asked)) in &self.moves {
            self.journal.check(Rule::Ends, asked.is_empty() || self.owners[*owner].removed, || {
                format!("{client:?} has not come to {asked:?}")
            });
        }
    }

    /// Runs accepted and not over.
    pub(crate) fn running(&self) -> u64 {
        self.running
    }

    /// The runtime accepts no more runs.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    /// Callbacks in the table.
    pub(crate) fn existing(&self) -> u32 {
        self.existing
    }

    /// Whether a key was ever given out.
    pub(crate) fn knows(&self, key: CallbackKey) -> bool {
        self.keys.contains(&key)
    }

    /// Runs of a client.
    pub(crate) fn runs_of(&self, owner: usize) -> usize {
        self.callbacks.iter().filter(|c| c.owner == owner && c.live.is_some()).count()
    }

    /// The calls of the fore channel that a run depends on, if that is still known.
    pub(crate) fn referred(&self, payload: Payload) -> Option<&[Named]> {
        let callback = self.callbacks.get(payload.cookie as usize)?;
        let (run, calls) = &callback.refers;
        (callback.runs == payload.run).then_some(if *run == payload.run { calls } else { &[] })
    }

    /// The turn in which a run was encoded first.
    pub(crate) fn first_encoded(&self, payload: Payload) -> Option<u64> {
        let callback = self.callbacks.get(payload.cookie as usize)?;
        callback.encoded.iter().find(|(run, _)| *run == payload.run).map(|(_, turn)| *turn)
    }

    /// Whether a run was not encoded more than once.
    pub(crate) fn is_encoded_once(&self, payload: Payload) -> bool {
        let live = self.callbacks.get(payload.cookie as usize).and_then(|callback| callback.live.as_ref());
        live.is_none_or(|live| live.encoded <= 1)
    }

    /// Which a run was, among all that was encoded, when it was encoded last.
    pub(crate) fn encoded_as(&self, payload: Payload) -> u64 {
        self.callbacks.get(payload.cookie as usize).map_or(0, |callback| callback.encoded_as)
    }

    /// How long ago a run was encoded last.
    pub(crate) fn encoded_for_ns(&self, payload: Payload) -> u64 {
        let callback = self.callbacks.get(payload.cookie as usize);
        callback.map_or(u64::MAX, |callback| self.journal.now_ns() - callback.encoded_ns)
    }

    fn callback(&mut self, cookie: u64) -> Option<&mut Callback> {
        let found = self.callbacks.get_mut(cookie as usize);
        if found.is_none() {
            self.journal
                .fail(Rule::Answer, format!("a hook was called with cookie {cookie}, which was never inserted"));
        }
        found
    }

    // --- what the embedder asks ----------------------------------------------------------------------------------

    /// A callback was inserted; its cookie is the next one.
    pub(crate) fn inserted(&mut self, key: CallbackKey, owner: usize, op: CallbackOp, filling: usize) {
        self.existing += 1;
        self.tenants.count(self.owners[owner].tenant, 1);
        self.journal.check(Rule::Answer, self.keys.insert(key), || format!("{key:?} was given out twice"));
        self.callbacks.push(Callback {
            key,
            owner,
            op,
            exists: true,
            dying: false,
            live: None,
            runs: 0,
            references: 0,
            filling,
            owed_ns: None,
            owed_last_ns: 0,
            owed_surely: false,
            encoded_ns: 0,
            encoded_as: 0,
            encoded: Vec::new(),
            refers: Default::default(),
        });
    }

    /// No run of this client is accepted any more.
    fn is_closed(&self, owner: usize) -> bool {
        self.draining || self.owners[owner].removed || self.owners[owner].drained
    }

    /// What `try_run` must answer.
    pub(crate) fn expect_try_run(&self, cookie: usize) -> TryRun {
        let callback = &self.callbacks[cookie];
        if !callback.exists {
            return TryRun::Stale;
        }
        match &callback.live {
            _ if callback.dying => TryRun::Dying,
            Some(live) if live.settled || must_not_lose(callback.op) => TryRun::Rearmed,
            Some(_) => TryRun::Coalesced,
            None if self.is_closed(callback.owner) => TryRun::Closed,
            None => TryRun::Submitted,
        }
    }

    pub(crate) fn tried(&mut self, cookie: usize, expected: TryRun, answer: TryRun) {
        self.journal.reach(Kind::of_run(answer));
        let now_ns = self.journal.now_ns();
        let callback = &mut self.callbacks[cookie];
        self.journal.check(Rule::Answer, answer == expected, || {
            format!("try_run of callback {cookie} answers {answer:?}, expected was {expected:?}: {callback:?}")
        });
        match answer {
            TryRun::Submitted => {
                callback.runs += 1;
                self.counts.accepted += 1;
                self.running += 1;
                callback.live = Some(Live { accepted_ns: now_ns, ..Live::default() });
                let held = callback.references;
                self.journal.check(Rule::OneCompletion, held == 1, || {
                    format!("callback {cookie} was accepted and holds {held} references")
                });
            }
            TryRun::Rearmed => {
                if let Some(live) = &mut callback.live {
                    live.rearm = true;
                }
            }
            TryRun::Closed => self.groups.end(cookie, &[Fate::Failed], true),
            _ => {}
        }
    }

    /// One of several that were asked for together, or a key that was never given out.
    pub(crate) fn joined(&mut self, cookie: Option<usize>, answer: TryRun) {
        self.groups.join(cookie, answer);
        match cookie {
            // Nothing has happened to it since the one before was asked for.
            Some(cookie) => self.tried(cookie, self.expect_try_run(cookie), answer),
            None => self.journal.check(Rule::Answer, answer == TryRun::Stale, || format!("a stranger: {answer:?}")),
        }
    }

    pub(crate) fn expect_remove(&self, cookie: usize) -> Remove {
        let callback = &self.callbacks[cookie];
        match (callback.exists, callback.dying, callback.live.is_some()) {
            (false, ..) => Remove::Stale,
            (_, true, _) => Remove::AlreadyDying,
            (_, _, true) => Remove::Deferred,
            (_, _, false) => Remove::Removed,
        }
    }

    pub(crate) fn removed(&mut self, cookie: usize, expected: Remove, answer: Remove) {
        self.journal.reach(Kind::of_remove(answer));
        let callback = &mut self.callbacks[cookie];
        self.journal.check(Rule::Answer, answer == expected, || {
            format!("remove of callback {cookie} answers {answer:?}, expected was {expected:?}: {callback:?}")
        });
        match answer {
            Remove::Removed => {
                (callback.exists, callback.owed_ns) = (false, None);
                self.existing -= 1;
                self.tenants.count(self.owners[callback.owner].tenant, -1);
            }
            Remove::Deferred => {
                (callback.dying, callback.owed_ns) = (true, None);
                if let Some(live) = &mut callback.live {
                    live.rearm = false;
                }
            }
            _ => return,
        }
        let gone = self.owners[self.callbacks[cookie].owner].removed;
        self.groups.end(cookie, &[if gone { Fate::Failed } else { Fate::Returned }], true);
    }

    /// What waiting for a callback must answer, at first.
    pub(crate) fn expect_wait(&mut self, cookie: usize) -> Result<RunId, WaitError> {
        let callback = &self.callbacks[cookie];
        match &callback.live {
            _ if !callback.exists => Err(WaitError::Stale),
            None => Err(WaitError::Idle),
            Some(live) if live.settled => Err(WaitError::TooLate),
            Some(_) => {
                let run = (cookie as u64, callback.runs);
                self.waited.insert(run);
                Ok(run)
            }
        }
    }

    pub(crate) fn expect_cancel(&self, cookie: usize) -> Cancel {
        let callback = &self.callbacks[cookie];
        match &callback.live {
            _ if !callback.exists => Cancel::Stale,
            Some(live) if !live.settled => Cancel::Asked,
            _ => Cancel::Idle,
        }
    }

    pub(crate) fn cancelled(&mut self, cookie: usize, expected: Cancel, answer: Cancel) {
        self.journal.reach(Kind::of_cancel(answer));
        let now_ns = self.journal.now_ns();
        let callback = &mut self.callbacks[cookie];
        self.journal.check(Rule::Answer, answer == expected, || {
            format!("cancel of callback {cookie} answers {answer:?}, expected was {expected:?}: {callback:?}")
        });
        if let (Cancel::Asked, Some(live)) = (answer, &mut callback.live) {
            live.cancelled_ns.get_or_insert(now_ns);
        }
    }

    /// What was recalled has come back.
    pub(crate) fn returned(&mut self, cookie: usize, answer: Returned) {
        self.journal.reach(Kind::of_returned(answer));
        let callback = &mut self.callbacks[cookie];
        let expected = match (callback.exists, callback.owed_ns.take()) {
            (false, _) => Returned::Stale,
            (true, Some(_)) => Returned::Noted,
            (true, None) => Returned::NotAwaited,
        };
        // Nobody is told of what a removed client owes, and it may be forgotten.
        let owner = self.owners[callback.owner];
        let perhaps = owner.removed || owner.has_lied || !callback.owed_surely;
        let excused = perhaps && answer == Returned::NotAwaited;
        self.journal.check(Rule::Answer, answer == expected || excused, || {
            format!("returned of callback {cookie} answers {answer:?}, expected was {expected:?}: {callback:?}")
        });
        if answer != Returned::Stale {
            self.groups.end(cookie, &[Fate::Returned], true);
        }
    }

    /// The runtime is being drained.
    pub(crate) fn begin_runtime_drain(&mut self) {
        self.draining = true;
        (0..self.owners.len()).for_each(|owner| self.forsake(owner));
    }

    /// A client is removed.
    pub(crate) fn remove_owner(&mut self, owner: usize) {
        self.owners[owner].removed = true;
        self.forsake(owner);
    }

    /// Returns from this client are not awaited any more, as soon as its reactor has heard of it. What runs yet says
    /// itself how it ends.
    fn forsake(&mut self, owner: usize) {
        let idle = self.callbacks.iter().enumerate().filter(|(_, c)| c.owner == owner && c.is_idle());
        idle.for_each(|(cookie, _)| self.groups.end(cookie, &[Fate::Failed], false));
    }

    /// A drain of a client or of one of its sessions begins; gives its number.
    pub(crate) fn begin_drain(&mut self, owner: usize, of_session: bool) -> u64 {
        self.drains_begun += 1;
        if of_session {
            self.owners[owner].session_drained = true;
        } else {
            self.owners[owner].drained = true;
            self.forsake(owner);
        }
        let cancelled = Vec::new();
        self.drains.push(Draining { number: self.drains_begun, owner, of_session, cancelled, inherited: false });
        self.drains_begun
    }

    /// Such a drain has ended.
    pub(crate) fn end_drain(&mut self, number: u64, report: &DrainReport) {
        let Some(at) = self.drains.iter().position(|d| d.number == number) else { return };
        let drain = self.drains.swap_remove(at);
        let known = report.abandoned.iter().all(|key| drain.cancelled.iter().any(|(k, _)| k == key));
        let complete = !drain.of_session && !drain.inherited;
        let mut due = drain.cancelled.iter().filter(|(_, excused)| !excused && complete);
        let whole = due.all(|(key, _)| report.abandoned.contains(key));
        self.journal
            .check(Rule::Ends, known && whole, || format!("{drain:?} reports {:?} as abandoned", report.abandoned));
        let running = self.runs_of(drain.owner);
        self.journal
            .check(Rule::Ends, drain.of_session || running == 0, || format!("{running} runs outlive {drain:?}"));
    }

    // --- what a client did ---------------------------------------------------------------------------------------

    pub(crate) fn answered(&mut self, answered: &Answered) {
        let Payload { cookie, run } = answered.payload;
        let journal = self.journal.clone();
        let owner = self.callbacks.get(cookie as usize).map(|c| self.owners[c.owner]).unwrap_or_default();
        let Some(callback) = self.callback(cookie) else { return };
        let Some(live) = callback.live.as_mut().filter(|_| callback.runs == run) else { return };
        live.answers.push(answered.status);
        // What was too large in a batch, or is to come later, was not done.
        let done = !matches!(answered.status, Status::NFS4ERR_DELAY | Status::NFS4ERR_REP_TOO_BIG);
        live.executed += u32::from(answered.executed && done);
        callback.owed_surely |= answered.executed && answered.status.is_ok();
        let excused = is_repeatable(callback.op) || owner.has_lied || owner.has_refused || owner.has_destroyed;
        journal.check(Rule::SequenceIds, excused || live.executed <= 1 + live.asked_again, || {
            format!("callback {cookie} was executed more than once: {callback:?}")
        });
        self.counts.executed += u64::from(answered.executed && done);
    }

    // --- the end -------------------------------------------------------------------------------------------------

    /// A drain has ended.
    pub(crate) fn drained(&mut self, report: &DrainReport) {
        let mut expected = self.abandoned.clone();
        expected.retain(|(key, excused)| !excused || report.abandoned.contains(key));
        let mut expected: Vec<CallbackKey> = expected.into_iter().map(|(key, _)| key).collect();
        let mut reported = report.abandoned.clone();
        reported.sort();
        expected.sort();
        self.journal.check(Rule::Ends, reported == expected, || {
            format!("the drain reports {reported:?} as abandoned, and cancelled after sending were {expected:?}")
        });
        let running = self.running();
        self.journal.check(Rule::InFlight, running == 0, || format!("{running} runs outlive the drain"));
    }

    /// Nothing runs: every reference is back.
    pub(crate) fn check_rest(&self) {
        for (cookie, callback) in self.callbacks.iter().enumerate() {
            let rests = callback.live.is_none() && callback.references == 0;
            self.journal.check(Rule::OneCompletion, rests, || format!("callback {cookie} is left over: {callback:?}"));
        }
    }
}

/// Kinds that run again for a request that comes while they run.
fn must_not_lose(op: CallbackOp) -> bool {
    matches!(op, CallbackOp::Notify | CallbackOp::RecallAny)
}

/// Kinds that a client may execute twice for one run.
fn is_repeatable(op: CallbackOp) -> bool {
    use CallbackOp::*;
    matches!(op, Getattr | Recall | LayoutRecall | RecallAny | RecallSlot)
}
