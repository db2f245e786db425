//! What must happen: a model of every callback, which the runtime's answers and its calls of the hooks are held
//! against. It knows the rules R1 to R9 and nothing of how they are kept.

use super::call::Payload;
use super::choices::Choices;
use super::client::Answered;
use super::journal::{Journal, Rule};
use ringback::{CallbackKey, CallbackOp, DrainReport, Outcome, Remove, Run, TryRun};
use ringback_rpc::nfs4::Status;

/// A client, as far as it decides about its callbacks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner {
    pub home: usize,
    /// No run is accepted any more.
    pub removed: bool,
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
    /// Runs that were encoded, and the turn in which that was done first.
    encoded: Vec<(u32, u64)>,
}

impl Callback {
    /// There, and not running.
    pub(crate) fn is_idle(&self) -> bool {
        self.exists && self.live.is_none()
    }
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
}

/// See the [module](self).
pub(crate) struct Reference {
    journal: Journal,
    pub owners: Vec<Owner>,
    /// By cookie.
    pub callbacks: Vec<Callback>,
    pub counts: Counts,
    pub callbacks_max: u32,
    pub run_deadline_ns: u64,
    /// The runtime accepts no more runs.
    pub draining: bool,
    /// Runs that ended as cancelled after they were sent, since the drain began; and whether something else than the
    /// drain may have cancelled them.
    abandoned: Vec<(CallbackKey, bool)>,
    /// The reactor that turns.
    pub turning: Option<usize>,
    /// Turns of all reactors so far.
    pub turn: u64,
    pub choices: Choices,
}

impl Reference {
    pub(crate) fn new(journal: Journal, callbacks_max: u32, run_deadline_ns: u64, choices: Choices) -> Self {
        let (owners, callbacks, counts, abandoned) = Default::default();
        let (draining, turning, turn) = (false, None, 0);
        Reference {
            journal,
            owners,
            callbacks,
            counts,
            callbacks_max,
            run_deadline_ns,
            draining,
            abandoned,
            turning,
            turn,
            choices,
        }
    }

    /// Runs accepted and not over.
    pub(crate) fn running(&self) -> u64 {
        self.callbacks.iter().filter(|c| c.live.is_some()).count() as u64
    }

    /// Callbacks in the table.
    pub(crate) fn existing(&self) -> u32 {
        self.callbacks.iter().filter(|c| c.exists).count() as u32
    }

    /// The turn in which a run was encoded first.
    pub(crate) fn first_encoded(&self, payload: Payload) -> Option<u64> {
        let callback = self.callbacks.get(payload.cookie as usize)?;
        callback.encoded.iter().find(|(run, _)| *run == payload.run).map(|(_, turn)| *turn)
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
        let known = self.callbacks.iter().any(|c| c.key == key);
        self.journal.check(Rule::Answer, !known, || format!("{key:?} was given out twice"));
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
            encoded: Vec::new(),
        });
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
            None if self.draining || self.owners[callback.owner].removed => TryRun::Closed,
            None => TryRun::Submitted,
        }
    }

    pub(crate) fn tried(&mut self, cookie: usize, expected: TryRun, answer: TryRun) {
        let now_ns = self.journal.now_ns();
        let callback = &mut self.callbacks[cookie];
        self.journal.check(Rule::Answer, answer == expected, || {
            format!("try_run of callback {cookie} answers {answer:?}, expected was {expected:?}: {callback:?}")
        });
        match answer {
            TryRun::Submitted => {
                callback.runs += 1;
                self.counts.accepted += 1;
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
            _ => {}
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
        let callback = &mut self.callbacks[cookie];
        self.journal.check(Rule::Answer, answer == expected, || {
            format!("remove of callback {cookie} answers {answer:?}, expected was {expected:?}: {callback:?}")
        });
        match answer {
            Remove::Removed => callback.exists = false,
            Remove::Deferred => {
                callback.dying = true;
                if let Some(live) = &mut callback.live {
                    live.rearm = false;
                }
            }
            _ => {}
        }
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
        let excused = is_repeatable(callback.op) || owner.has_lied || owner.has_refused || owner.has_destroyed;
        journal.check(Rule::SequenceIds, excused || live.executed <= 1 + live.asked_again, || {
            format!("callback {cookie} was executed more than once: {callback:?}")
        });
    }

    // --- the hooks -----------------------------------------------------------------------------------------------

    pub(crate) fn acquired(&mut self, cookie: u64) {
        let Some(callback) = self.callback(cookie) else { return };
        callback.references += 1;
        let (held, live) = (callback.references, callback.live.is_some());
        self.journal.check(Rule::OneCompletion, held == 1 && !live, || {
            format!("acquire of callback {cookie}, which holds {held} references")
        });
    }

    /// What holds for every hook of a run. `None`: it was so wrong that there is no going on.
    fn hook(&mut self, name: &'static str, run: &Run) -> Option<&mut Live> {
        let journal = self.journal.clone();
        journal
            .note(|| format!("  {name} of callback {} ({})", run.cookie, run.op), run.cookie << 8 | name.len() as u64);
        let (turning, run_deadline_ns) = (self.turning, self.run_deadline_ns);
        let home = self.callbacks.get(run.cookie as usize).map(|c| self.owners[c.owner].home);
        let callback = self.callback(run.cookie)?;
        journal.check(Rule::OneOwner, turning == home, || {
            format!("{name} of callback {} on reactor {turning:?}, whose home is {home:?}", run.cookie)
        });
        journal.check(Rule::HookOrder, callback.key == run.key && callback.op == run.op && callback.exists, || {
            format!("{name}: {run:?} is not {callback:?}")
        });
        let Some(live) = &mut callback.live else {
            journal.fail(Rule::OneOwner, format!("{name} of callback {}, which does not run", run.cookie));
            return None;
        };
        let age_ns = journal.now_ns() - live.accepted_ns;
        journal.check(Rule::Deadline, run.age_ns.abs_diff(age_ns) <= AGE_SLACK_NS, || {
            format!("{name}: age {} of a run that was accepted {age_ns} ns ago", run.age_ns)
        });
        let latest_ns = 2 * run_deadline_ns + DEADLINE_SLACK_NS;
        journal.check(Rule::Deadline, age_ns <= latest_ns, || {
            format!("{name} of callback {} {age_ns} ns after it was accepted", run.cookie)
        });
        Some(live)
    }

    pub(crate) fn prepare(&mut self, run: &Run, refuse: bool) {
        self.counts.prepared += 1;
        let journal = self.journal.clone();
        let Some(live) = self.hook("prepare", run) else { return };
        journal.check(Rule::HookOrder, !live.prepared && !live.settled, || format!("a late prepare: {run:?} {live:?}"));
        live.prepared = true;
        live.refused = refuse;
    }

    /// The payload to encode, and how long it is to be.
    pub(crate) fn encode(&mut self, run: &Run) -> (Payload, usize) {
        self.counts.encoded += 1;
        let journal = self.journal.clone();
        if let Some(live) = self.hook("encode", run) {
            let fine = live.prepared && !live.refused && !live.settled;
            journal.check(Rule::HookOrder, fine, || format!("encode in the wrong place: {run:?} {live:?}"));
        }
        let callback = self.callbacks.get(run.cookie as usize);
        let (number, filling) = callback.map_or((0, 0), |c| (c.runs, c.filling));
        (Payload { cookie: run.cookie, run: number }, filling)
    }

    pub(crate) fn encoded(&mut self, run: &Run) {
        let Some(callback) = self.callbacks.get_mut(run.cookie as usize) else { return };
        if let Some(live) = &mut callback.live {
            live.encoded += 1;
        }
        if callback.encoded.last().is_none_or(|(run, _)| *run != callback.runs) {
            callback.encoded.push((callback.runs, self.turn));
        }
    }

    pub(crate) fn done(&mut self, run: &Run, outcome: &Outcome<'_>) {
        let journal = self.journal.clone();
        let cookie = run.cookie as usize;
        let owner = self.callbacks.get(cookie).map(|c| self.owners[c.owner]).unwrap_or_default();
        // What belongs to a session goes with it.
        let excused = owner.expired || owner.removed || run.op == CallbackOp::RecallSlot;
        let cancelled = self.draining || excused;
        let draining = self.draining;
        journal.trace(|| format!("  outcome of callback {cookie}: {outcome:?}"));
        let Some(live) = self.hook("done", run) else { return };
        journal.check(Rule::OneCompletion, !live.settled && !live.released, || {
            format!("a second done of callback {cookie}: {outcome:?} {live:?}")
        });
        live.settled = true;
        live.keep_rearm = !matches!(outcome, Outcome::Cancelled { .. } | Outcome::Courtesy);
        if let Some(why) = implausible(live, &owner, cancelled, outcome) {
            journal
                .fail(Rule::Outcome, format!("callback {cookie} ends as {outcome:?}, but {why}: {owner:?} {live:?}"));
        }
        if matches!(outcome, Outcome::Cancelled { sent: true }) {
            self.counts.cancelled_sent += 1;
            if draining {
                self.abandoned.push((run.key, excused));
            }
        }
    }

    /// `done` returns; `again`: it has asked for another transmission, and may.
    pub(crate) fn done_returns(&mut self, run: &Run, again: bool) {
        if again && let Some(live) = self.callbacks.get_mut(run.cookie as usize).and_then(|c| c.live.as_mut()) {
            live.settled = false;
            live.asked_again += 1;
        }
        self.counts.completed += u64::from(!again);
    }

    pub(crate) fn release(&mut self, run: &Run) {
        self.counts.released += 1;
        let journal = self.journal.clone();
        let Some(live) = self.hook("release", run) else { return };
        journal.check(Rule::OneCompletion, live.settled && !live.released, || {
            format!("release in the wrong place: {run:?} {live:?}")
        });
        live.released = true;
    }

    /// `release` returns, and the one transition that finishes comes next.
    pub(crate) fn release_returns(&mut self, run: &Run) {
        let now_ns = self.journal.now_ns();
        let Some(callback) = self.callbacks.get_mut(run.cookie as usize) else { return };
        let Some(live) = callback.live.take() else { return };
        if callback.dying {
            (callback.exists, callback.dying) = (false, false);
        } else if live.rearm && live.keep_rearm {
            callback.runs += 1;
            self.counts.rearmed += 1;
            callback.live = Some(Live { accepted_ns: now_ns, ..Live::default() });
        }
    }

    pub(crate) fn reference_dropped(&mut self, cookie: u64) {
        let journal = self.journal.clone();
        let Some(callback) = self.callback(cookie) else { return };
        journal.check(Rule::OneCompletion, callback.references == 1 && callback.live.is_none(), || {
            format!("the reference of callback {cookie} goes back: {callback:?}")
        });
        callback.references = callback.references.saturating_sub(1);
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

/// Delays end on a grid, and a reactor may be late by what it does meanwhile.
const DEADLINE_SLACK_NS: u64 = 2_000_000_000;

/// The age of a run is counted from the turn in which it was accepted, or from the one that its acceptance began.
const AGE_SLACK_NS: u64 = 20_000_000;

/// Kinds that run again for a request that comes while they run.
fn must_not_lose(op: CallbackOp) -> bool {
    matches!(op, CallbackOp::Notify | CallbackOp::RecallAny)
}

/// Kinds that a client may execute twice for one run.
fn is_repeatable(op: CallbackOp) -> bool {
    use CallbackOp::*;
    matches!(op, Getattr | Recall | LayoutRecall | RecallAny | RecallSlot)
}

/// Why a run cannot have ended like that.
fn implausible(live: &Live, owner: &Owner, cancelled: bool, outcome: &Outcome<'_>) -> Option<&'static str> {
    let sent = live.encoded > 0;
    let no = |wrong: bool, why: &'static str| wrong.then_some(why);
    match outcome {
        Outcome::Refused => no(!live.refused, "prepare did not refuse"),
        _ if live.refused => Some("prepare refused"),
        Outcome::Replied { .. } if !sent => Some("it was never sent"),
        Outcome::Replied { status, .. } if !owner.has_lied => {
            no(!live.answers.contains(status), "the client did not say that")
        }
        Outcome::TimedOut { sent: told } => wrongly_sent(live, owner, *told),
        Outcome::Cancelled { sent: told } => {
            wrongly_sent(live, owner, *told).or_else(|| no(!cancelled, "nobody cancelled it"))
        }
        Outcome::Courtesy => no(!owner.courtesy, "the client was never in courtesy"),
        Outcome::PathDown => no(!owner.told, "the client was not told"),
        Outcome::DeliveredUnknown => no(!sent, "it was never sent"),
        Outcome::Fault(_) => no(!sent, "it was never sent"),
        _ => None,
    }
}

/// `told`: the outcome says that the run was sent. What the client did not get to, behind a failure in a batch, counts
/// as not sent.
fn wrongly_sent(live: &Live, owner: &Owner, told: bool) -> Option<&'static str> {
    if told && live.encoded == 0 {
        return Some("it was never sent");
    }
    (!told && live.executed > 0 && !owner.has_lied).then_some("the client has executed it")
}
