//! The state word and its transitions. What each flag means is told in [the module above](super).
//!
//! A transition returns the caller's duty. A transition that only the owner of the run may take panics, with the state,
//! when there is no such run: that is a bug of this crate, and going on would lose or double a completion.

use super::members::Members;
use super::{Cancel, Returned};
use crate::sync::{AtomicU64, Ordering};
use ringback_rpc::nfs4::callback::CallbackOp;
use std::fmt;

bitflags::bitflags! {
    /// The lowest bits of the word.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct Flags: u32 {
        const LIVE = 1 << 0;
        const RUNNING = 1 << 1;
        const SETTLED = 1 << 2;
        const REQUEUE = 1 << 3;
        const REARM = 1 << 4;
        const WAKE = 1 << 5;
        const DYING = 1 << 6;
        const OWED = 1 << 7;
        const CANCEL = 1 << 8;
    }
}

/// Between the flags and the generation: the first of the group members that wait for the callback, plus 1; 0: nobody.
const MEMBER_SHIFT: u32 = 10;
const MEMBER_BITS: u64 = (1 << 32) - (1 << MEMBER_SHIFT);
/// Group members that the word can tell apart.
pub(crate) const MEMBERS_MAX: u32 = (1 << (32 - MEMBER_SHIFT)) - 1;

const _: () = assert!(Flags::all().bits() < 1 << MEMBER_SHIFT);

/// The generation of an entry that was never used. No key carries it.
pub(crate) const GENERATION_UNUSED: u32 = 0;
/// The generation of an entry that is used up. No key carries it.
pub(crate) const GENERATION_RETIRED: u32 = u32::MAX;

/// One value of the word.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Snapshot(u64);

impl Snapshot {
    pub(crate) const fn new(generation: u32, flags: Flags) -> Self {
        Snapshot((generation as u64) << 32 | flags.bits() as u64)
    }

    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) const fn flags(self) -> Flags {
        Flags::from_bits_truncate(self.0 as u32)
    }

    /// The first of the group members that wait for the callback.
    pub(crate) fn member(self) -> Option<u32> {
        (((self.0 & MEMBER_BITS) >> MEMBER_SHIFT) as u32).checked_sub(1)
    }

    pub(crate) fn with_member(self, member: Option<u32>) -> Self {
        let bits = u64::from(member.map_or(0, |member| member + 1)) << MEMBER_SHIFT;
        Snapshot(self.0 & !MEMBER_BITS | bits & MEMBER_BITS)
    }

    fn has(self, flag: Flags) -> bool {
        self.flags().contains(flag)
    }

    fn with(self, set: Flags) -> Self {
        Snapshot(self.0 | u64::from(set.bits()))
    }

    fn without(self, clear: Flags) -> Self {
        Snapshot(self.0 & !u64::from(clear.bits()))
    }

    /// Whether a key of `generation` names this life of the entry.
    fn is_live(self, generation: u32) -> bool {
        self.generation() == generation && self.has(Flags::LIVE)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} ", self.generation())?;
        if self.flags().is_empty() {
            f.write_str("FREE")
        } else {
            bitflags::parser::to_writer(&self.flags(), &mut *f)
        }?;
        self.member().map_or(Ok(()), |member| write!(f, ", member {member}"))
    }
}

/// What a `try_run` that loses may do with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// A run that is not settled serves it: what is sent does not depend on the number of requests.
    MayCoalesce,
    /// Each request may add to what must be told, and what was prepared already does not hold it: run again.
    MustNotLose,
}

impl Loss {
    /// The policy of an operation (`nfs_cb_opnum4`, RFC 8881 section 20).
    pub(crate) const fn of(op: u8) -> Self {
        const NOTIFY: u8 = CallbackOp::Notify as u8;
        const RECALL_ANY: u8 = CallbackOp::RecallAny as u8;
        match op {
            NOTIFY | RECALL_ANY => Loss::MustNotLose,
            _ => Loss::MayCoalesce,
        }
    }
}

/// The caller's duty after [`StateWord::try_run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a won run must be submitted or abandoned"]
pub(crate) enum Claim {
    /// The caller owns the run: count it in flight, then queue it, or [`abandon`](StateWord::abandon) it.
    Submit,
    /// Nothing to do: the current run serves the request.
    Coalesced,
    /// Nothing to do: the finisher starts another run.
    Rearmed,
    /// Nothing to do: the key is stale.
    Stale,
    /// Nothing to do: the callback was removed.
    Dying,
}

/// The caller's duty after [`StateWord::abandon`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an entry that died must be freed"]
pub(crate) enum Abandon {
    /// The entry is idle; wake the waiters if `wake`.
    Idle { wake: bool },
    /// The caller frees the entry, and wakes the waiters if `wake`.
    Free { wake: bool },
}

/// How a run leaves its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "decides whether prepare is called"]
pub(crate) enum Dequeue {
    /// First time in this run: `prepare` is due.
    Prepare,
    /// It was sent, or was about to be: `prepare` must not be called again.
    Resend,
}

/// The caller's duty after [`StateWord::finish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a rearmed run must be queued, an entry that died must be freed"]
pub(crate) enum Finish {
    /// The run is over: reference and in-flight go down; wake the waiters if `wake`.
    Idle { wake: bool },
    /// As `Idle`, and members of groups wait for the callback: the caller settles those whom the outcome settles. Who
    /// joins later has a run of his own, whose end finds him.
    Joined { wake: bool },
    /// The caller owns a fresh run: to the tail of the queue, with `prepare`. Reference and in-flight stay (R3). Wake
    /// the waiters of the run that ended if `wake`.
    RunAgain { wake: bool },
    /// As `Idle`, and the caller frees the entry.
    Free { wake: bool },
}

/// The caller's duty after [`StateWord::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an idle entry that was removed must be freed"]
pub(crate) enum Removal {
    /// It was idle: the caller frees the entry.
    FreeNow,
    /// Nothing to do: the finisher frees it.
    Deferred,
    /// Nothing to do: the key is stale.
    Stale,
    /// Nothing to do: somebody else frees it.
    AlreadyDying,
}

/// The answer of [`StateWord::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "only a registered waiter is woken"]
pub(crate) enum Wait {
    /// The end of this run wakes the waiter.
    Registered,
    /// The run is decided already: its result may be older than the request, ask for another run.
    TooLate,
    /// Nothing runs.
    Idle,
    /// The key is stale.
    Stale,
}

/// Where a freed entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a freed entry goes back to its free list, unless it is used up"]
pub(crate) enum Freed {
    /// Back to the free list.
    Reusable,
    /// Nowhere: its generations are used up, and one more life could meet an old key.
    Retired,
}

/// The word. All bits zero is a never used entry, so that zeroed memory is an array of free entries.
#[repr(transparent)]
pub(crate) struct StateWord(AtomicU64);

impl StateWord {
    /// A never used entry.
    #[cfg(any(loom, test))]
    pub(crate) fn new() -> Self {
        StateWord(AtomicU64::new(0))
    }

    /// The word in this state.
    #[cfg(test)]
    pub(crate) fn with(snapshot: Snapshot) -> Self {
        StateWord(AtomicU64::new(snapshot.0))
    }

    /// Overwrites the state, to age an entry.
    #[cfg(test)]
    pub(crate) fn overwrite(&self, snapshot: Snapshot) {
        self.0.store(snapshot.0, Ordering::Release);
    }

    /// The state now, to be printed or counted: nothing may be decided on it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.0.load(Ordering::Relaxed))
    }

    /// The one place where the word is decided on and changed. `step` is pure, for it reruns when another thread was
    /// faster. AcqRel even where the value stays the same: the swap publishes what the caller did before (R5).
    #[inline(always)]
    fn transition<D>(&self, step: impl Fn(Snapshot) -> (Option<Snapshot>, D)) -> D {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            let (next, duty) = step(Snapshot(seen));
            let Some(next) = next else { return duty };
            match self.0.compare_exchange_weak(seen, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return duty,
                Err(now) => seen = now,
            }
        }
    }

    /// A transition that only the owner of the run may take, in a state that `legal` accepts. One that changes nothing is
    /// the load alone: it sees all who lost before it (R5), and the owner has nothing to publish, for losers read nothing
    /// of the run.
    #[inline(always)]
    fn owner<D>(&self, name: &str, legal: fn(Snapshot) -> bool, step: impl Fn(Snapshot) -> (Snapshot, D)) -> D {
        self.transition(|now| {
            if !legal(now) {
                illegal(name, now);
            }
            let (next, duty) = step(now);
            ((next != now).then_some(next), duty)
        })
    }

    /// Asks for a run.
    pub(crate) fn try_run(&self, generation: u32, loss: Loss) -> Claim {
        self.request(generation, loss, |now| now)
    }

    /// Asks for a run on behalf of a group's member, which waits for the callback from then on, unless it is stale or
    /// dying. One swap does both: no run can end in between. `link` notes who is first so far.
    pub(crate) fn join(&self, generation: u32, loss: Loss, member: u32, link: impl Fn(Option<u32>)) -> Claim {
        self.request(generation, loss, |now| {
            link(now.member()); // the member is the caller's own until the swap
            now.with_member(Some(member))
        })
    }

    fn request(&self, generation: u32, loss: Loss, joined: impl Fn(Snapshot) -> Snapshot) -> Claim {
        self.transition(|now| {
            if !now.is_live(generation) {
                (None, Claim::Stale) // R8
            } else if now.has(Flags::DYING) {
                (Some(now), Claim::Dying)
            } else if !now.has(Flags::RUNNING) {
                (Some(joined(now).with(Flags::RUNNING)), Claim::Submit)
            } else if now.has(Flags::SETTLED) || loss == Loss::MustNotLose {
                (Some(joined(now).with(Flags::REARM)), Claim::Rearmed)
            } else {
                (Some(joined(now)), Claim::Coalesced)
            }
        })
    }

    /// Takes the members that wait for the callback, to be settled by the caller; none while one of `unless` is set, for
    /// then they wait for what is to come.
    pub(crate) fn take_members(&self, generation: u32, unless: Flags) -> Members {
        self.transition(|now| {
            if !now.is_live(generation) || now.flags().intersects(unless) || now.member().is_none() {
                (None, Members::NONE) // as it was at the load: who joins later has a run of his own to end
            } else {
                (Some(now.with_member(None)), Members::first(now.member()))
            }
        })
    }

    /// The winner of RUNNING found the runtime closed, before anything was queued: gives the run up (R6). Requests that
    /// were coalesced into it meanwhile, or rearmed it, go with it: they would have been refused too.
    pub(crate) fn abandon(&self) -> Abandon {
        let legal = |now: Snapshot| is_running(now) && !now.flags().intersects(Flags::SETTLED | Flags::REQUEUE);
        self.owner("abandon", legal, |now| {
            let wake = now.has(Flags::WAKE);
            let duty = if now.has(Flags::DYING) { Abandon::Free { wake } } else { Abandon::Idle { wake } };
            (now.without(Flags::RUNNING | Flags::REARM | Flags::WAKE | Flags::CANCEL), duty)
        })
    }

    /// The outcome is decided: taken before `done` is called. Takes the run out of its requeue, if it ends there.
    /// `true`: somebody waits for the run. From here on nobody can begin to, unless `done` has the run requeued.
    #[inline(always)]
    pub(crate) fn settle(&self) -> bool {
        self.owner("settle", is_undecided, |now| {
            (now.with(Flags::SETTLED).without(Flags::REQUEUE), now.has(Flags::WAKE))
        })
    }

    /// The run goes back to its queue, to be sent again without `prepare`: it failed before it was decided, or `done`
    /// asked for it, which opens the outcome again. Then this is taken as soon as `done` has asked, for the run may end
    /// on its way back to the queue (by its deadline), and that is a new outcome, to be settled like any other.
    pub(crate) fn requeue(&self) {
        let legal = |now: Snapshot| is_running(now) && !now.has(Flags::REQUEUE);
        self.owner("requeue", legal, |now| (now.with(Flags::REQUEUE).without(Flags::SETTLED), ()));
    }

    /// The run leaves its queue to be sent. `prepare`, which comes next, sees what losers did before they lost (R5), even
    /// if REQUEUE was not set and nothing changes.
    pub(crate) fn take_requeue(&self) -> Dequeue {
        self.owner("take_requeue", is_undecided, |now| {
            let duty = if now.has(Flags::REQUEUE) { Dequeue::Resend } else { Dequeue::Prepare };
            (now.without(Flags::REQUEUE), duty)
        })
    }

    /// The run is over, after `release`. `keep_rearm` is false for an outcome that drops further requests (Cancelled,
    /// Courtesy). Unless a fresh run is started, the caller has no right to the entry afterwards, but to free it.
    #[inline(always)]
    pub(crate) fn finish(&self, keep_rearm: bool) -> Finish {
        const RUN: Flags =
            Flags::RUNNING.union(Flags::SETTLED).union(Flags::REARM).union(Flags::WAKE).union(Flags::CANCEL);
        let legal = |now: Snapshot| is_running(now) && now.has(Flags::SETTLED);
        self.owner("finish", legal, |now| {
            let wake = now.has(Flags::WAKE);
            let over = now.without(RUN);
            if now.has(Flags::DYING) {
                (over, Finish::Free { wake })
            } else if now.has(Flags::REARM) && keep_rearm {
                (over.with(Flags::RUNNING), Finish::RunAgain { wake })
            } else if now.member().is_some() {
                (over, Finish::Joined { wake })
            } else {
                (over, Finish::Idle { wake })
            }
        })
    }

    /// The embedder removes the callback: no new run from here on.
    pub(crate) fn remove(&self, generation: u32) -> Removal {
        self.transition(|now| {
            let dying = now.with(Flags::DYING).without(Flags::REARM | Flags::OWED);
            if !now.is_live(generation) {
                (None, Removal::Stale) // R8
            } else if now.has(Flags::DYING) {
                (Some(now), Removal::AlreadyDying)
            } else if now.has(Flags::RUNNING) {
                (Some(dying), Removal::Deferred)
            } else {
                (Some(dying), Removal::FreeNow)
            }
        })
    }

    /// A recall is about to be sent: what it recalls is owed from here on, unless the callback was removed. `true`: it
    /// was not owed before, so the time begins to run.
    pub(crate) fn recalled(&self) -> bool {
        self.owner("recalled", is_undecided, |now| {
            let begins = !now.flags().intersects(Flags::OWED | Flags::DYING);
            (if begins { now.with(Flags::OWED) } else { now }, begins)
        })
    }

    /// Asks for the end of the current run, and of no later one.
    pub(crate) fn cancel(&self, generation: u32) -> Cancel {
        self.transition(|now| {
            if !now.is_live(generation) {
                (None, Cancel::Stale) // R8
            } else if now.has(Flags::RUNNING) && !now.has(Flags::SETTLED) {
                (Some(now.with(Flags::CANCEL)), Cancel::Asked)
            } else {
                (Some(now), Cancel::Idle)
            }
        })
    }

    /// Whether the end of the current run has been asked for; for the owner of the run. A plain load will do: nobody else
    /// takes the wish back, and who has it after the load tells the reactor after that.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.snapshot().has(Flags::CANCEL)
    }

    /// Whether what was recalled is still owed. Nobody but the home reactor, which asks, makes it so.
    pub(crate) fn is_owed(&self, generation: u32) -> bool {
        self.transition(|now| if now.is_live(generation) { (Some(now), now.has(Flags::OWED)) } else { (None, false) })
    }

    /// What was recalled has been returned, or is not expected any more.
    pub(crate) fn returned(&self, generation: u32) -> Returned {
        self.transition(|now| {
            if !now.is_live(generation) {
                (None, Returned::Stale) // R8
            } else if now.has(Flags::OWED) {
                (Some(now.without(Flags::OWED)), Returned::Noted)
            } else {
                (Some(now), Returned::NotAwaited)
            }
        })
    }

    /// Asks to be woken when the current run ends. How a waiter is found then is told in [`super::waiters`].
    pub(crate) fn wait(&self, generation: u32) -> Wait {
        self.transition(|now| {
            if !now.is_live(generation) {
                (None, Wait::Stale) // R8
            } else if !now.has(Flags::RUNNING) {
                (Some(now), Wait::Idle)
            } else if now.has(Flags::SETTLED) {
                (Some(now), Wait::TooLate)
            } else {
                (Some(now.with(Flags::WAKE)), Wait::Registered)
            }
        })
    }

    /// A never used entry becomes what an entry of another process was; publishes the fields that were written before.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn restore(&self, generation: u32, flags: Flags) {
        self.owner("restore", |now| now == Snapshot(0), |_| (Snapshot::new(generation, flags), ()));
    }

    /// A free entry becomes a callback; publishes the fields that were written before. Returns its generation.
    pub(crate) fn activate(&self) -> u32 {
        let legal = |now: Snapshot| now.flags().is_empty() && now.generation() != GENERATION_RETIRED;
        self.owner("activate", legal, |now| {
            let generation = now.generation().max(GENERATION_UNUSED + 1);
            (Snapshot::new(generation, Flags::LIVE), generation)
        })
    }

    /// Ends this life of the entry. Every key to it is stale from here on.
    pub(crate) fn free(&self) -> Freed {
        let legal = |now: Snapshot| now.flags() == Flags::LIVE | Flags::DYING && now.member().is_none();
        self.owner("free", legal, |now| {
            let generation = now.generation() + 1;
            let duty = if generation == GENERATION_RETIRED { Freed::Retired } else { Freed::Reusable };
            (Snapshot::new(generation, Flags::empty()), duty)
        })
    }
}

impl fmt::Debug for StateWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

fn is_running(now: Snapshot) -> bool {
    now.has(Flags::RUNNING)
}

fn is_undecided(now: Snapshot) -> bool {
    is_running(now) && !now.has(Flags::SETTLED)
}

#[cold]
#[inline(never)]
fn illegal(transition: &str, now: Snapshot) -> ! {
    panic!("{transition} of a callback in state {now:?}")
}
