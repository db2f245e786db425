//! The hooks, as the model sees them called.

use super::{Live, Owner, Reference};
use crate::sim::call::Payload;
use crate::sim::fore::Named;
use crate::sim::groups::Fate;
use crate::sim::journal::Rule;
use crate::sim::waiters::End;
use ringback::{CallbackOp, Outcome, Run};
use ringback_rpc::nfs4::Status;

impl Reference {
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
        // An embedder takes its time, and its run is as old as it was when it came onto the queue.
        let waited = self.queued && name == "release";
        // Time may have stood still.
        let stood_ns = self.stood_ns();
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
        journal.check(
            Rule::Deadline,
            waited || run.age_ns + stood_ns + AGE_SLACK_NS >= age_ns && run.age_ns <= age_ns + AGE_SLACK_NS,
            || format!("{name}: age {} of a run that was accepted {age_ns} ns ago", run.age_ns),
        );
        let latest_ns = 2 * run_deadline_ns + DEADLINE_SLACK_NS + stood_ns;
        journal.check(Rule::Deadline, waited || age_ns <= latest_ns, || {
            format!("{name} of callback {} {age_ns} ns after it was accepted", run.cookie)
        });
        Some(live)
    }

    pub(crate) fn prepare(&mut self, run: &Run, refuse: bool) {
        self.counts.prepared += 1;
        self.prepared.push(run.cookie as usize);
        let journal = self.journal.clone();
        let Some(live) = self.hook("prepare", run) else { return };
        journal.check(Rule::HookOrder, !live.prepared && !live.settled, || format!("a late prepare: {run:?} {live:?}"));
        live.prepared = true;
        live.refused = refuse;
    }

    /// The run depends on these calls of the fore channel.
    pub(crate) fn refers(&mut self, run: &Run, calls: Vec<Named>) {
        if let Some(callback) = self.callbacks.get_mut(run.cookie as usize) {
            callback.refers = (callback.runs, calls);
        }
    }

    /// The calls that it depends on, which the runtime asks for.
    pub(crate) fn referring(&mut self, run: &Run) -> Vec<Named> {
        let journal = self.journal.clone();
        if let Some(live) = self.hook("referring_calls", run) {
            let fine = live.prepared && !live.refused && !live.settled;
            journal.check(Rule::HookOrder, fine, || format!("referring_calls in the wrong place: {run:?} {live:?}"));
        }
        let callback = self.callbacks.get(run.cookie as usize);
        callback.filter(|c| c.refers.0 == c.runs).map(|c| c.refers.1.clone()).unwrap_or_default()
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
        if self.exporting {
            return;
        }
        let Some(callback) = self.callbacks.get_mut(run.cookie as usize) else { return };
        if let Some(live) = &mut callback.live {
            live.encoded += 1;
        }
        let recalls = matches!(callback.op, CallbackOp::Recall | CallbackOp::LayoutRecall);
        if recalls && !callback.dying {
            let owed_ns = self.journal.now_ns() + self.return_deadline_ns;
            if callback.owed_ns.is_none() {
                (callback.owed_ns, callback.owed_surely) = (Some(owed_ns), false);
            }
            // What a liar has executed may be taken for not executed.
            if !callback.owed_surely || self.owners[callback.owner].has_lied {
                callback.owed_last_ns = owed_ns;
            }
        }
        callback.encoded_ns = self.journal.now_ns();
        self.encodings += 1;
        callback.encoded_as = self.encodings;
        if callback.encoded.last().is_none_or(|(run, _)| *run != callback.runs) {
            callback.encoded.push((callback.runs, self.turn));
            if let Some(tenant) = self.owners[callback.owner].tenant {
                self.tenants.sent(tenant);
            }
        }
    }

    pub(crate) fn done(&mut self, run: &Run, outcome: &Outcome<'_>) {
        let journal = self.journal.clone();
        let cookie = run.cookie as usize;
        let owner = self.callbacks.get(cookie).map(|c| self.owners[c.owner]).unwrap_or_default();
        // What belongs to a session goes with it.
        let waited = self.callbacks.get(cookie).is_some_and(|c| self.waited.contains(&(run.cookie, c.runs)));
        let stood_ns = self.stood_ns();
        let asked = self.callbacks.get(cookie).and_then(|c| c.live.as_ref()).is_some_and(|l| l.cancelled_ns.is_some());
        let gone = owner.expired || owner.removed || run.op == CallbackOp::RecallSlot;
        let excused = gone || asked || owner.drained || owner.session_drained;
        let cancelled = self.draining || excused;
        let draining = self.draining;
        journal.trace(|| format!("  outcome of callback {cookie}: {outcome:?}"));
        let Some(live) = self.hook("done", run) else { return };
        journal.check(Rule::OneCompletion, !live.settled && !live.released, || {
            format!("a second done of callback {cookie}: {outcome:?} {live:?}")
        });
        live.settled = true;
        live.outcome = Some(outcome.without_results());
        live.end = waited.then(|| End::new(outcome));
        live.keep_rearm = !matches!(outcome, Outcome::Cancelled { .. } | Outcome::Courtesy);
        if let Some(why) = implausible(live, &owner, cancelled, outcome) {
            journal
                .fail(Rule::Outcome, format!("callback {cookie} ends as {outcome:?}, but {why}: {owner:?} {live:?}"));
        }
        let late_ns = live.cancelled_ns.map_or(0, |asked_ns| journal.now_ns() - asked_ns);
        journal.check(Rule::Deadline, late_ns <= CANCEL_SLACK_NS + stood_ns, || {
            format!("callback {cookie} ends {late_ns} ns after it was cancelled: {outcome:?}")
        });
        if matches!(outcome, Outcome::Cancelled { sent: true }) {
            self.counts.cancelled_sent += 1;
            let client = self.callbacks[cookie].owner;
            // One that was begun while another one is under way may come to the reactor too late to see this.
            let first = self.drains.iter().filter(|d| d.owner == client && !d.of_session).map(|d| d.number).min();
            for drain in self.drains.iter_mut().filter(|d| d.owner == client) {
                let late = first != Some(drain.number);
                drain.cancelled.push((run.key, gone || asked || late || owner.session_drained));
            }
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
        if self.queued && !again {
            self.tell_waiters(run);
        }
    }

    /// Whoever waits for the run may know now how it has ended.
    fn tell_waiters(&mut self, run: &Run) {
        let Some(callback) = self.callbacks.get_mut(run.cookie as usize) else { return };
        let run_id = (run.cookie, callback.runs);
        if let Some(end) = callback.live.as_mut().and_then(|live| live.end.take())
            && self.waited.remove(&run_id)
        {
            self.ends.insert(run_id, end);
        }
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
        self.tell_waiters(run);
        let Some(callback) = self.callbacks.get_mut(run.cookie as usize) else { return };
        let Some(live) = callback.live.take() else { return };
        self.running -= 1;
        let rearms = !callback.dying && live.rearm && live.keep_rearm;
        if !rearms {
            self.end_for_groups(run.cookie as usize, &live);
        }
        let Some(callback) = self.callbacks.get_mut(run.cookie as usize) else { return };
        if callback.dying {
            (callback.exists, callback.dying) = (false, false);
            self.existing -= 1;
            self.tenants.count(self.owners[callback.owner].tenant, -1);
        } else if rearms {
            callback.runs += 1;
            self.counts.rearmed += 1;
            self.running += 1;
            callback.live = Some(Live { accepted_ns: now_ns, ..Live::default() });
        }
    }

    /// A run has ended, and none follows: what that says to the groups that wait for it. What was recalled is yet to
    /// come back, unless nobody will hear of it.
    fn end_for_groups(&mut self, cookie: usize, live: &Live) {
        let callback = &self.callbacks[cookie];
        let (closed, lied) = (self.is_closed(callback.owner), self.owners[callback.owner].has_lied);
        let (fates, surely): (&[Fate], bool) = match &live.outcome {
            Some(Outcome::Refused) => (&[Fate::Returned], true),
            Some(Outcome::Replied { status: Status::NFS4_OK, .. }) => match callback.owed_ns {
                None => (&[Fate::Returned], true),
                // It may be taken for a call that the client has not taken.
                Some(_) if lied || !callback.owed_surely => {
                    (&[Fate::Returned, Fate::Failed][..1 + usize::from(closed)], closed)
                }
                Some(_) if closed => (&[Fate::Failed], true),
                Some(_) => return,
            },
            _ => (&[Fate::Failed], true),
        };
        self.groups.end(cookie, fates, surely);
    }

    pub(crate) fn reference_dropped(&mut self, cookie: u64) {
        let journal = self.journal.clone();
        let Some(callback) = self.callback(cookie) else { return };
        journal.check(Rule::OneCompletion, callback.references == 1 && callback.live.is_none(), || {
            format!("the reference of callback {cookie} goes back: {callback:?}")
        });
        callback.references = callback.references.saturating_sub(1);
    }
}

/// Delays end on a grid, and a reactor may be late by what it does meanwhile.
const DEADLINE_SLACK_NS: u64 = 2_000_000_000;

/// A run that is to be cancelled is, as soon as its reactor has heard of it.
const CANCEL_SLACK_NS: u64 = 500_000_000;

/// The age of a run is counted from the turn in which it was accepted, or from the one that its acceptance began.
const AGE_SLACK_NS: u64 = 20_000_000;

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
