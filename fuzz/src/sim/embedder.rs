//! The file server of the simulation: its hooks, and everything that it asks of the runtime,
//! each answer held against the reference model.

use super::coverage::Kind;
use super::fore::Fore;
use super::journal::{Journal, Rule};
use super::plant::{Plant, Planted};
use super::reference::Reference;
use super::waiters::Waiters;
use ringback::simulator::insert_into_closed;
use ringback::{
    CallbackKey, CallbackOp, Cancel, ClientId, Completion, Done, Ending, Event, Hooks, InsertError, Outcome, Prepare,
    ReferringCalls, Restored, Returned, Run, Runtime, SessionKey, TryRun, WaitError,
};
use ringback_rpc::nfs4::{SessionId, Status};
use ringback_rpc::xdr::{Result, Writer, XdrError, XdrErrorKind};
use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How the embedder's code behaves, of a thousand calls each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    /// `prepare` refuses.
    pub refuse: u64,
    /// `encode` fails.
    pub encode_fails: u64,
    /// `done` asks for another transmission, where it may.
    pub again: u64,
    /// A hook calls `try_run` or `remove`.
    pub meddle: u64,
    /// A hook panics.
    pub stumble: u64,
    /// A callback depends on calls of the fore channel.
    pub refer: u64,
}

/// See the [module](self).
pub(crate) struct Embedder {
    journal: Journal,
    reference: Mutex<Reference>,
    runtime: Mutex<Option<Runtime>>,
    manners: Mutex<Manners>,
    planted: Planted,
    waiters: Mutex<Waiters>,
    /// Sessions whose parameters or bindings were refused.
    pub refused: Mutex<Vec<SessionKey>>,
    /// Clients that have moved, and where.
    pub moved: Mutex<Vec<(ClientId, usize)>>,
    /// Allocations that failed.
    pub starved: Arc<AtomicU64>,
    /// Hooks that have panicked on purpose, and how many of these the runtime has told.
    stumbled: AtomicU64,
    told: AtomicU64,
    /// A run whose `release` has panicked: it is over when that was told.
    unreleased: Mutex<Option<Run>>,
    /// Completions that are to come off a queue, by cookie.
    completions: Mutex<HashMap<u64, (CallbackKey, Ending)>>,
    /// Those that have, and were not given back.
    taken: Mutex<HashMap<u64, (CallbackKey, Ending)>>,
    /// The process that serves, and what the next one was asked about.
    serving: AtomicU32,
    restored: Mutex<Vec<Restored>>,
    fore: Arc<Fore>,
}

/// What a hook does besides its work.
enum Wish {
    TryRun(usize),
    Remove(usize),
    Cancel(usize),
    Returned(usize),
}

impl Embedder {
    pub(crate) fn new(journal: Journal, reference: Reference, manners: Manners, plant: Plant, fore: Arc<Fore>) -> Self {
        let (runtime, refused, moved, starved, stumbled, told, unreleased) = Default::default();
        let (completions, taken, serving, restored) = Default::default();
        let (reference, manners) = (Mutex::new(reference), Mutex::new(manners));
        let waiters = Mutex::new(Waiters::new(journal.clone(), plant == Plant::MuffleWaiter));
        let planted = Planted::new(plant);
        Embedder {
            waiters,
            journal,
            reference,
            runtime,
            manners,
            planted,
            refused,
            moved,
            starved,
            stumbled,
            told,
            unreleased,
            completions,
            taken,
            serving,
            restored,
            fore,
        }
    }

    /// The model. Not to be held while the runtime is called, which calls the hooks.
    pub(crate) fn reference(&self) -> MutexGuard<'_, Reference> {
        self.reference.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_runtime(&self, runtime: Option<Runtime>) {
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = runtime;
    }

    pub(crate) fn runtime(&self) -> Option<Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn planted(&self) -> &Planted {
        &self.planted
    }

    fn manners(&self) -> Manners {
        *self.manners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the embedder does nothing out of the ordinary.
    pub(crate) fn calm_down(&self) {
        *self.manners.lock().unwrap_or_else(PoisonError::into_inner) = Manners::default();
    }

    pub(crate) fn try_run(&self, cookie: usize) {
        let Some(runtime) = self.runtime() else { return };
        let (key, expected) = {
            let reference = self.reference();
            (reference.callbacks[cookie].key, reference.expect_try_run(cookie))
        };
        let mut answer = runtime.try_run(key);
        if answer == TryRun::Submitted && self.planted.strikes(Plant::TwistAnswer) {
            answer = TryRun::Coalesced;
        }
        self.journal.note(|| format!("try_run of callback {cookie}: {answer:?}"), cookie as u64);
        self.reference().tried(cookie, expected, answer);
    }

    pub(crate) fn remove(&self, cookie: usize) {
        let Some(runtime) = self.runtime() else { return };
        let (key, expected) = {
            let reference = self.reference();
            (reference.callbacks[cookie].key, reference.expect_remove(cookie))
        };
        let answer = runtime.remove(key);
        self.journal.note(|| format!("remove of callback {cookie}: {answer:?}"), cookie as u64);
        self.reference().removed(cookie, expected, answer);
    }

    pub(crate) fn cancel(&self, cookie: usize) {
        let Some(runtime) = self.runtime() else { return };
        let (key, expected) = {
            let reference = self.reference();
            (reference.callbacks[cookie].key, reference.expect_cancel(cookie))
        };
        let answer = runtime.cancel(key);
        self.journal.note(|| format!("cancel of callback {cookie}: {answer:?}"), cookie as u64);
        self.reference().cancelled(cookie, expected, answer);
    }

    /// What a callback has recalled has come back.
    pub(crate) fn returned(&self, cookie: usize) {
        let Some(runtime) = self.runtime() else { return };
        let key = self.reference().callbacks[cookie].key;
        let answer = runtime.returned(key);
        self.journal.note(|| format!("returned of callback {cookie}: {answer:?}"), cookie as u64);
        self.reference().returned(cookie, answer);
    }

    /// Waits for the run of a callback that is going on; with `ask`, for one that is asked for.
    pub(crate) fn wait(&self, cookie: usize, ask: bool) {
        let Some(runtime) = self.runtime() else { return };
        let (key, asked) = {
            let reference = self.reference();
            (reference.callbacks[cookie].key, reference.expect_try_run(cookie))
        };
        if !ask {
            let expected = self.reference().expect_wait(cookie);
            self.journal.note(|| format!("wait for callback {cookie}: {expected:?}"), cookie as u64);
            return self.waiters().add(runtime.wait(key), expected);
        }
        let (answer, wait) = runtime.run_and_wait(key);
        self.journal.note(|| format!("run and wait for callback {cookie}: {answer:?}"), cookie as u64);
        self.reference().tried(cookie, asked, answer);
        let expected = match answer {
            TryRun::Submitted | TryRun::Coalesced => self.reference().expect_wait(cookie),
            TryRun::Rearmed => Err(WaitError::TooLate),
            TryRun::Stale | TryRun::Dying => Err(WaitError::Stale),
            TryRun::Closed => Err(WaitError::Closed),
        };
        self.waiters().add(wait, expected);
    }

    /// Asks for callbacks together; with `None` in the place of a cookie it is a key that was never given out. With
    /// `polls`, somebody sleeps until all are settled.
    pub(crate) fn try_run_many(&self, cookies: &[Option<usize>], stranger: CallbackKey, polls: bool) {
        let Some(runtime) = self.runtime() else { return };
        let keys: Vec<CallbackKey> = {
            let mut reference = self.reference();
            reference.groups.begin();
            cookies.iter().map(|cookie| cookie.map_or(stranger, |cookie| reference.callbacks[cookie].key)).collect()
        };
        self.journal.note(|| format!("try_run_many of {} callbacks", keys.len()), 33);
        let mut asked = 0;
        let group = runtime.try_run_many(&keys, |key, answer| {
            let cookie = cookies[asked];
            self.journal.note(|| format!("  callback {cookie:?}: {answer:?}"), asked as u64);
            self.journal.check(Rule::Answer, key == keys[asked], || format!("{key:?} instead of {:?}", keys[asked]));
            asked += 1;
            self.reference().joined(cookie, answer);
        });
        self.journal.check(Rule::Groups, group.is_ok() && asked == keys.len(), || format!("{asked} asked: {group:?}"));
        if let Ok(group) = group {
            self.reference().groups.made(group, polls);
        }
    }

    pub(crate) fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever waits for a run that has ended is told.
    pub(crate) fn look_at_waiters(&self) {
        let mut waiters = self.waiters();
        if !waiters.is_empty() {
            waiters.look(&self.reference().ends);
        }
    }

    /// A key that was never given out.
    pub(crate) fn try_stranger(&self, bits: u64) {
        let Some(runtime) = self.runtime() else { return };
        let key = CallbackKey::from_bits(bits);
        if !self.reference().knows(key) {
            let (run, remove) = (runtime.try_run(key), runtime.remove(key));
            let stale = run == ringback::TryRun::Stale && remove == ringback::Remove::Stale;
            let stale = stale && runtime.cancel(key) == Cancel::Stale && runtime.returned(key) == Returned::Stale;
            self.journal.check(Rule::Answer, stale, || format!("{key:?} was never given out: {run:?} {remove:?}"));
        }
    }

    /// Inserts a callback of the client, who is `owner` in the model; gives its cookie.
    pub(crate) fn insert(&self, client: ClientId, owner: usize, op: CallbackOp, filling: usize) -> Option<usize> {
        let runtime = self.runtime()?;
        let (cookie, full, gone, max, tenant, tenant_full) = {
            let reference = self.reference();
            let (max, tenant) = (reference.callbacks_max, reference.owners[owner].tenant);
            let (cookie, gone) = (reference.callbacks.len(), reference.owners[owner].removed);
            (cookie, reference.existing() == max, gone, max, tenant, reference.tenants.full(tenant))
        };
        let starved = self.starved.load(Relaxed);
        let mut answer = runtime.insert(client, op, cookie as u64);
        if self.reference().is_draining() {
            self.journal.check(Rule::Answer, answer == Err(InsertError::Closed), || {
                format!("insert into a runtime that is drained answers {answer:?}")
            });
            // What has come back is looked at all the same.
            answer = insert_into_closed(&runtime, client, op, cookie as u64);
        }
        let starves = self.starved.load(Relaxed) > starved;
        self.journal.note(|| format!("insert of callback {cookie} ({op}): {answer:?}"), cookie as u64);
        let expected = match answer {
            Ok(_) => !full && !gone && tenant_full.is_none(),
            Err(InsertError::NoSuchClient) => {
                self.journal.reach(Kind::InsertNoClient);
                gone
            }
            Err(InsertError::Full { limit }) => {
                self.journal.reach(Kind::InsertFull);
                full && limit == max && tenant_full.is_none()
            }
            Err(InsertError::TenantFull { limit }) => {
                tenant.into_iter().for_each(|tenant| self.reference().tenants.refused(tenant));
                tenant_full == Some(limit) && !gone
            }
            Err(InsertError::OutOfMemory) => {
                self.journal.reach(Kind::InsertOutOfMemory);
                starves && !gone
            }
            Err(_) => false,
        };
        self.journal.check(Rule::Answer, expected, || {
            format!(
                "insert answers {answer:?}; full: {full} {tenant_full:?}, client gone: {gone}, no memory: {starves}"
            )
        });
        let key = answer.ok()?;
        self.reference().inserted(key, owner, op, filling);
        Some(cookie)
    }

    /// Whether a completion is to come off a queue.
    pub(crate) fn has_completions(&self) -> bool {
        !self.completions.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// A run is over for the runtime: where there are completion queues, it comes off one of them.
    fn settled(&self, run: &Run, outcome: &Outcome<'_>) {
        if self.reference().queued {
            let ending = match Ending::from(outcome) {
                Ending::Replied(status) if !Status::ALL.contains(&status) => {
                    Ending::Replied(Status::NFS4ERR_SERVERFAULT)
                }
                ending => ending,
            };
            let mut completions = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
            completions.insert(run.cookie, (run.key, ending));
        }
    }

    /// Takes what has come off the queues, and gives back what was taken before. Whether anything came.
    pub(crate) fn look_into_queues(&self, limit: usize) -> bool {
        let Some(runtime) = self.runtime() else { return false };
        let (mut batch, mut any) = (Vec::new(), false);
        for queue in (0..runtime.completion_queues()).filter_map(|number| runtime.completion_queue(number)) {
            queue.poll(&mut batch, limit);
            any |= !batch.is_empty();
            for completion in &batch {
                self.complete(completion);
                if self.planted.strikes(Plant::RepeatCompletion) {
                    self.complete(completion);
                }
            }
        }
        any
    }

    fn complete(&self, completion: &Completion) {
        self.journal.note(|| format!("  {completion:?}"), completion.cookie);
        self.journal.reach(Kind::CompletionTaken);
        let expected = self.completions.lock().unwrap_or_else(PoisonError::into_inner).remove(&completion.cookie);
        if let Some(expected) = expected {
            self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(completion.cookie, expected);
        }
        let right = expected == Some((completion.key, completion.ending));
        self.journal.check(Rule::OneCompletion, right, || format!("{completion:?}, expected was {expected:?}"));
    }

    /// Added to the number of the process that serves when it crashes.
    pub(crate) const CRASHED: u32 = 1 << 16;

    /// The process that serves.
    pub(crate) fn serving(&self) -> u32 {
        self.serving.load(Relaxed)
    }

    /// Another process is about to be asked what it knows.
    pub(crate) fn begin_restore(&self) {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The next process is asked about a callback.
    pub(crate) fn restored(&self, callback: &Restored) {
        self.journal.note(|| format!("  {callback:?}"), callback.cookie);
        self.restored.lock().unwrap_or_else(PoisonError::into_inner).push(*callback);
    }

    /// The next process serves. It is given what the last one had taken off its queues and not given back; who waited there
    /// waits no longer.
    pub(crate) fn hand_over(&self, runtime: Runtime) {
        let asked = std::mem::take(&mut *self.restored.lock().unwrap_or_else(PoisonError::into_inner));
        self.reference().handed_over(&asked);
        self.serving.fetch_add(1, Relaxed);
        let taken = std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner));
        self.completions.lock().unwrap_or_else(PoisonError::into_inner).extend(taken);
        self.waiters().forget();
        self.fore.set_runtime(Some(runtime.clone()));
        self.set_runtime(Some(runtime));
    }

    /// The process that has served is gone.
    pub(crate) fn crash(&self) {
        self.serving.fetch_add(Self::CRASHED, Relaxed);
        self.waiters().forget();
        self.reference().groups.forget();
        self.fore.set_runtime(None);
        self.set_runtime(None);
    }

    /// Hooks that have panicked on purpose.
    pub(crate) fn stumbled(&self) -> u64 {
        self.stumbled.load(Relaxed)
    }

    /// Whether this call of a hook is to end in a panic.
    fn stumbles(&self) -> bool {
        let per_mille = self.manners().stumble;
        self.reference().choices.per_mille(per_mille)
    }

    /// Ends a hook; no panic hook of the process is to know.
    fn stumble(&self) -> ! {
        self.stumbled.fetch_add(1, Relaxed);
        self.journal.reach(Kind::HookPanics);
        resume_unwind(Box::new("on purpose"))
    }

    /// In a hook: sometimes calls the runtime.
    fn meddle(&self, run: Option<&Run>) {
        let per_mille = self.manners().meddle;
        let wish = {
            let mut reference = self.reference();
            let count = reference.callbacks.len();
            let choices = &mut reference.choices;
            if count == 0 || !choices.per_mille(per_mille) {
                return;
            }
            let own = run.filter(|_| choices.below(2) == 0).map(|run| run.cookie as usize);
            let cookie = own.unwrap_or_else(|| choices.index(count));
            match choices.below(8) {
                0 => Wish::Remove(cookie),
                1 => Wish::Cancel(cookie),
                2 => Wish::Returned(cookie),
                _ => Wish::TryRun(cookie),
            }
        };
        self.journal.reach(Kind::HookCalls);
        match wish {
            Wish::TryRun(cookie) => self.try_run(cookie),
            Wish::Remove(cookie) => self.remove(cookie),
            Wish::Cancel(cookie) => self.cancel(cookie),
            Wish::Returned(cookie) => self.returned(cookie),
        }
    }
}

impl Hooks for Embedder {
    fn acquire(&self, cookie: u64) {
        self.reference().acquired(cookie);
    }

    fn prepare(&self, run: &Run) -> Prepare {
        let manners = self.manners();
        let (stumbles, refuse) = (self.stumbles(), self.reference().choices.per_mille(manners.refuse));
        if !self.planted.strikes(Plant::SwallowPrepare) {
            let mut reference = self.reference();
            reference.prepare(run, refuse || stumbles);
            if reference.choices.per_mille(manners.refer) {
                let calls = self.fore.open_calls(run.client, &mut reference.choices);
                reference.refers(run, calls);
            }
        }
        assert!(!self.planted.strikes(Plant::PanicInHook), "planted");
        self.meddle(Some(run));
        if stumbles {
            self.stumble();
        }
        if !refuse {
            return Prepare::Send;
        }
        self.journal.reach(Kind::PrepareRefuses);
        Prepare::Refuse
    }

    fn referring_calls(&self, run: &Run, calls: &mut ReferringCalls<'_>) {
        let named = self.reference().referring(run);
        if named.is_empty() {
            return;
        }
        if self.stumbles() {
            self.stumble();
        }
        if !self.planted.strikes(Plant::SwallowReferring) {
            named.iter().for_each(|call| calls.add(SessionId(call.session), call.sequence_id, call.slot));
        }
    }

    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> Result<()> {
        let stumbles = self.stumbles();
        let fails = self.reference().choices.per_mille(self.manners().encode_fails);
        let (payload, filling) = self.reference().encode(run);
        self.meddle(Some(run));
        if stumbles {
            self.stumble();
        }
        if fails {
            self.journal.reach(Kind::EncodeFails);
            return Err(XdrError { what: "a failing encoder", offset: 0, kind: XdrErrorKind::BadValue { value: 0 } });
        }
        payload.write(filling, args)?;
        self.reference().encoded(run);
        Ok(())
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        self.journal.reach(Kind::of_outcome(outcome));
        let told = if self.planted.strikes(Plant::TwistOutcome) { &Outcome::Refused } else { outcome };
        if !self.planted.strikes(Plant::SwallowDone) {
            self.reference().done(run, told);
        }
        self.meddle(Some(run));
        if self.stumbles() {
            self.reference().done_returns(run, false);
            self.settled(run, outcome);
            self.stumble();
        }
        let again_ns = {
            let mut reference = self.reference();
            let again = reference.choices.per_mille(self.manners().again);
            again.then(|| reference.choices.log_between(1, 10_000_000_000))
        };
        let again = again_ns.is_some() && outcome.may_requeue();
        if again {
            self.journal.reach(Kind::DoneRequeues);
        }
        self.reference().done_returns(run, again);
        if !again {
            self.settled(run, outcome);
        }
        again_ns.map_or(Done::Finish, Done::RequeueAfter)
    }

    fn release(&self, run: &Run) {
        if self.planted.strikes(Plant::SwallowRelease) {
            return;
        }
        self.reference().release(run);
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&run.cookie);
        self.meddle(Some(run));
        if self.stumbles() {
            *self.unreleased.lock().unwrap_or_else(PoisonError::into_inner) = Some(*run);
            self.stumble();
        }
        self.reference().release_returns(run);
    }

    fn drop_reference(&self, cookie: u64) {
        self.reference().reference_dropped(cookie);
        self.meddle(None);
        if self.stumbles() {
            self.stumble();
        }
    }

    fn event(&self, event: &Event) {
        self.journal.note(|| format!("  event: {event:?}"), 30);
        self.journal.reach(Kind::of_event(event));
        match event {
            Event::SessionRefused { session, .. } => {
                self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(*session);
            }
            Event::Moved { client, reactor } => {
                let stray = usize::from(self.planted.strikes(Plant::MisplaceClient));
                self.reference().moved(*client, *reactor + stray);
                self.moved.lock().unwrap_or_else(PoisonError::into_inner).push((*client, *reactor));
            }
            Event::Panicked { .. } => {
                let told = self.told.fetch_add(1, Relaxed) + 1;
                self.journal.check(Rule::Panic, told <= self.stumbled(), || format!("{event:?}"));
            }
            Event::ReturnOverdue { .. } if self.planted.strikes(Plant::SwallowOverdue) => {}
            Event::ReturnOverdue { key, cookie, .. } => {
                self.reference().overdue(*key, *cookie);
                if self.planted.strikes(Plant::RepeatOverdue) {
                    self.reference().overdue(*key, *cookie);
                }
            }
            _ => {}
        }
        self.meddle(None);
        if let Event::Panicked { .. } = event
            && let Some(run) = self.unreleased.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            self.reference().release_returns(&run);
        }
        if self.stumbles() {
            self.stumble();
        }
    }
}
