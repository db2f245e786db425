//! Callbacks: the state word, the slab of entries that it guards, and the queues that carry entries to their reactor.
//!
//! # The state word
//!
//! Each [`CallbackEntry`] has one 64-bit atomic word. The high half is the entry's *generation*;
//! the lowest bits are the flags below, and between the two is a *member*. Every change, and every answer that a caller acts on, is one successful AcqRel
//! compare-and-swap in one helper ([`state`]): no plain store, no decision on a plain load. Two answers come without a
//! swap. `Stale`: a generation never comes back, so that answer stays true, and a stale key must not touch an entry
//! that belongs to somebody else (R8). And a step of the run's owner that changes nothing, which is an acquire load.
//!
//! * **generation** names one life of the entry, from `insert` to the freeing. 0 is a never used entry, so that a key
//!   of all zero bits is never valid; `u32::MAX` marks a retired entry, which is not used again. Freeing bumps it.
//! * **LIVE**: the entry was inserted and not freed. Set by `activate` (in `insert`), cleared by `free`. Without LIVE
//!   no other flag is set, and every key is stale.
//! * **RUNNING**: this run has one owner. Set by the `try_run` that wins, cleared by the one transition that finishes:
//!   `finish`, or `abandon` for a run that was never queued. Everything but the word may be handed from thread to
//!   thread (the inbox does); RUNNING says that there is exactly one holder.
//! * **SETTLED**: the outcome of the run is decided, a later request needs a new run. Set by `settle`, before the
//!   `done` hook; cleared by `finish`, or by the `requeue` that `done` asked for: then the outcome is open again, a
//!   transmission is still to come, and it serves the requests that arrive before its own outcome. Excludes REQUEUE.
//! * **REQUEUE**: the run waits in its queue to be sent again; `prepare` must not run again. Set by `requeue`, cleared
//!   by `take_requeue` (it leaves the queue to be sent) or by `settle` (it leaves the queue to end). Excludes SETTLED.
//! * **REARM**: asked for again while running, beyond what the current run serves. Set by a losing `try_run`: of a kind
//!   that must not lose a request at any time, of every kind once SETTLED. Cleared by `finish`, which starts a fresh
//!   run, by `remove` and by `abandon`. Coexists with REQUEUE: the resend comes first. Excludes DYING.
//! * **WAKE**: somebody waits for this run. Set by `wait` under RUNNING and not SETTLED, cleared by `finish` or
//!   `abandon`. The finisher finds the waiters in a table of its own ([`waiters`]) and wakes them; who waits for a run
//!   that is abandoned, because its client is closed, is answered when nothing of that client runs any more. Survives a
//!   requeue. A waiter that left costs one empty look at the table.
//! * **CANCEL**: the embedder wants the run to end. Set by `cancel` under RUNNING and not SETTLED, cleared by `finish` or
//!   `abandon`: it is about this run and no later one. The reactor looks when a run comes to it, and is told as well: what
//!   is asked before the run comes shows in the word, what is asked later finds the run there.
//! * **DYING**: the embedder removed the callback: no new run. Set by `remove`, cleared by `free`. Excludes REARM.
//!   Without RUNNING the one caller who was told so frees the entry; with RUNNING the finisher does, after `release`.
//! * **OWED**: a recall was sent, and what it recalls has not been returned as far as the embedder has said. Set by
//!   `recalled`, at the first transmission; cleared by `returned`, which the embedder takes, and the reactor when the
//!   return is overdue, so that only one of them has it; and by `remove`. Independent of the run, which may be over.
//!   Excludes DYING.
//!
//! Between flags and generation stands the first **member** of those groups that wait for the callback ([`members`]). Added
//! by `join`, which is a `try_run`; taken by `take_members`, by who settles the callback: after `finish` or
//! `abandon`, after `returned` and `remove`. Every other transition carries it along. While there is one, the callback is
//! RUNNING or OWED, or about to have it taken. Where `take_members` finds none it answers without a swap too: who joins
//! after that look has asked for a run, which settles him.
//!
//! SETTLED, REQUEUE, REARM, WAKE and CANCEL imply RUNNING; OWED does not. The table of every state and transition is in
//! `tests/transitions.txt`, kept true by a test.
//!
//! # Who may touch which field
//!
//! | field | written | read |
//! |---|---|---|
//! | the word | by its transitions | by its transitions |
//! | `cookie`, `client`, `op` | by `insert`, before LIVE | by the holder of RUNNING; by who was told to free, until it does; by a caller with a key, *before* a transition that then confirms the generation (else the value belongs to nobody) |
//! | `link` | RUNNING: by the queue that holds the entry. Not LIVE: by the slab's remote free stack | the same |
//! | `started_us`, `attempts` | by the holder of RUNNING; on a completion queue they are the age and the ending | by the holder of RUNNING |
//! | `return_stamp` | by the home reactor, under RUNNING, when it sets OWED | by the home reactor, *before* a `returned` that then confirms the generation |
//!
//! A bit of `op` marks the callbacks of the runtime's own, such as CB_RECALL_ANY of the delegation reaper: where a rule
//! speaks of a hook, the runtime itself answers for them.
//!
//! All fields are atomics with relaxed order: the word orders them. After the transition that clears RUNNING the
//! finisher has no right to any field: what it needs later (the cookie, to give the reference back) it reads before.
//!
//! # Rules
//!
//! Code cites them by number.
//!
//! * **R1** A callback never runs concurrently with itself, in any stage (queued, preparing, sent, being answered, in
//!   `done`, in `release`). `release` runs under RUNNING.
//! * **R2** The winner of RUNNING counts in-flight and checks *closed*; drain sets *closed*, then reads the count;
//!   neither misses the other. Both live in one word ([`InFlight`]), so that one of the two comes
//!   first and the other one sees it. The winner takes the object's reference (`acquire`, in the caller's thread) after
//!   that check, so that a closed runtime has nothing to undo in the embedder. The caller holds its own reference
//!   across `try_run`.
//! * **R3** Exactly one completion per accepted run: `done` once for each decided outcome, `release` exactly once and
//!   last, then the reference and in-flight go down. A rearm keeps both. (`settle` twice, or `finish` without
//!   `settle`, panics.)
//! * **R4** A failure to allocate or to queue happens before commit or is a REQUEUE; it never runs `release` as well.
//! * **R5** What a loser changed before losing is seen by the next `prepare` or by the run it lost to: its answer was
//!   an AcqRel swap of the word, even if the word keeps its value; each step of the owner is one, too, or an acquire load,
//!   which sees all swaps before it.
//! * **R6** No path leaves RUNNING set with nobody owning it: every early return is a transition.
//! * **R7** No lock, no wait, no allocation on a reactor. `try_run` never blocks, allocates or calls a hook other than
//!   `acquire`, and is legal under the embedder's locks.
//! * **R8** A stale key (wrong generation) is a normal answer, `Stale`; it never touches another entry.
//! * **R9** Hooks: `acquire`; `prepare` once per run; `encode` for every transmission; `done`; `release`. They may call
//!   `try_run` and `remove` on any key, which here means: no transition is ever taken inside another one, and no lock
//!   is held while a hook runs.

pub(crate) mod inbox;
pub(crate) mod inflight;
pub(crate) mod members;
pub(crate) mod promise;
pub(crate) mod residence;
pub(crate) mod slab;
pub(crate) mod state;
#[cfg(test)]
mod tests;
pub(crate) mod waiters;

#[cfg(not(loom))]
pub(crate) use {
    inbox::{Chain, Inbox, Parking},
    inflight::InFlight,
    members::{MemberPool, Settled, Tally},
    residence::{Residence, Visit},
    slab::{CallbackEntry, CallbackSlab, OWN},
    state::{Abandon, Claim, Dequeue, Finish, Flags, Removal, Wait},
    waiters::{Arrivals, WaitTable, Waiter},
};
#[cfg(all(feature = "checkpoint", not(loom)))]
pub(crate) use {
    slab::{Restored, SEGMENT_ENTRIES},
    state::{GENERATION_RETIRED, GENERATION_UNUSED, Snapshot},
};

/// Names one callback: an entry of the slab and the generation that tells this callback from earlier and later ones in
/// the same entry. A key may be kept and used after its callback is gone: it is then answered as stale.
///
/// # Examples
///
/// ```
/// use ringback::CallbackKey;
///
/// let key = CallbackKey { index: 7, generation: 2 };
/// assert_eq!(CallbackKey::from_bits(key.to_bits()), key);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallbackKey {
    /// The entry.
    pub index: u32,
    /// Which callback of that entry; never 0.
    pub generation: u32,
}

impl CallbackKey {
    /// The key as one integer, for a C struct or a map. Never 0 for a key that `insert` gave.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The key that [`to_bits`](CallbackKey::to_bits) packed. Any value is safe: one that was never given out is stale.
    pub const fn from_bits(bits: u64) -> Self {
        CallbackKey { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// What became of a request to run a callback.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, Runtime, TryRun};
///
/// /// Whether somebody will be told how it ends.
/// fn recall(runtime: &Runtime, key: CallbackKey) -> bool {
///     match runtime.try_run(key) {
///         TryRun::Submitted | TryRun::Coalesced | TryRun::Rearmed => true,
///         // It has come back meanwhile, or the client or the runtime goes away.
///         TryRun::Stale | TryRun::Dying | TryRun::Closed => false,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a request that was not accepted must be dealt with"]
pub enum TryRun {
    /// Accepted: the hooks will be called, `release` exactly once.
    Submitted,
    /// A run that is not decided yet serves this request too. There will be none if the
    /// [`acquire`](crate::Hooks::acquire) of who asked for that run panics, or if the client is being drained.
    Coalesced,
    /// The callback is running and will run once more for this request.
    Rearmed,
    /// There is no such callback any more.
    Stale,
    /// The callback was removed and is on its way out.
    Dying,
    /// The client or the runtime is being drained; nothing was started.
    Closed,
}

/// What became of a request to remove a callback. In every case no run starts afterwards.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, Remove, Runtime};
///
/// /// DELEGRETURN. Whether the object may be freed here; else `Hooks::drop_reference` is the last that is heard of it.
/// fn returned(runtime: &Runtime, key: CallbackKey) -> bool {
///     runtime.remove(key) == Remove::Removed
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remove {
    /// Removed.
    Removed,
    /// It is running, and goes when that run has ended.
    Deferred,
    /// There is no such callback any more.
    Stale,
    /// It was removed already, and is still running or just being freed.
    AlreadyDying,
}

/// What became of a request to cancel a run.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, Cancel, Runtime};
///
/// /// Whoever waited for the answer has lost patience.
/// fn give_up(runtime: &Runtime, key: CallbackKey) {
///     match runtime.cancel(key) {
///         Cancel::Asked => println!("its hooks will be told"),
///         Cancel::Idle | Cancel::Stale => println!("it has ended already"),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The run that is going on ends as [`Outcome::Cancelled`](crate::Outcome::Cancelled), unless it ends otherwise first.
    Asked,
    /// No run is going on, or its outcome is decided already.
    Idle,
    /// There is no such callback any more.
    Stale,
}

/// What became of the word that what was recalled has come back.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, Returned, Runtime};
///
/// /// A layout has come back, and its callback stays for the next one. Whether it was late is known already.
/// fn layout_returned(runtime: &Runtime, key: CallbackKey) -> bool {
///     runtime.returned(key) == Returned::Noted
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// The return was awaited, and is not any more.
    Noted,
    /// No return was awaited: nothing was recalled, or its return was noted or overdue before.
    NotAwaited,
    /// There is no such callback any more.
    Stale,
}

/// Why a callback was not inserted. Nothing has changed.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, CallbackOp, ClientId, InsertError, Runtime};
///
/// /// A delegation is optional: without room for its callback there is none.
/// fn grant(runtime: &Runtime, client: ClientId, cookie: u64) -> Option<CallbackKey> {
///     match runtime.insert(client, CallbackOp::Recall, cookie) {
///         Ok(key) => Some(key),
///         Err(InsertError::Full { limit }) => {
///             eprintln!("all {limit} callbacks are in use");
///             None
///         }
///         Err(_) => None,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError {
    /// As many callbacks exist as the runtime was configured for.
    #[error("the limit of {limit} callbacks is reached")]
    Full {
        /// The configured limit.
        limit: u32,
    },
    /// The client's [tenant](crate::TenantLimits) has as many callbacks as it may have.
    #[error("the client's tenant has {limit} callbacks, which is its limit; raise it with Runtime::set_tenant_limits")]
    TenantFull {
        /// Its limit.
        limit: u32,
    },
    /// The runtime is draining or has been shut down.
    #[error("the runtime is closed: it is draining or has been shut down")]
    Closed,
    /// The client is not registered, or has been removed.
    #[error("no such client: it was never registered here or has been removed")]
    NoSuchClient,
    /// CB_SEQUENCE is sent by the runtime itself (RFC 8881 section 20.9), CB_ILLEGAL by nobody (section 20.13).
    #[error("CB_SEQUENCE and CB_ILLEGAL are no callbacks of their own")]
    NotACallback,
    /// The session is not registered, or has been removed.
    #[error("no such session: it was never registered here or has been removed")]
    NoSuchSession,
    /// No memory for another segment of entries.
    #[error("no memory for more callbacks")]
    OutOfMemory,
}

/// What became of the callbacks of a [group](crate::Group), each counted once: by what came first.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, GroupError, GroupSettled, Runtime};
///
/// /// What is left of these delegations has to be revoked.
/// async fn recall(runtime: &Runtime, keys: &[CallbackKey]) -> Result<bool, GroupError> {
///     let GroupSettled { overdue, failed, .. } = runtime.try_run_many(keys, |_, _| ())?.await;
///     Ok(overdue + failed > 0)
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupSettled {
    /// There is nothing in the way any more. The embedder has said so: with [`returned`](crate::Runtime::returned), with
    /// [`remove`](crate::Runtime::remove) (before it was asked for or since, of a client that it has not removed), or by
    /// [`Prepare::Refuse`](crate::Prepare::Refuse). Or, where nothing is to be given back (not CB_RECALL, not CB_LAYOUTRECALL),
    /// the client has answered NFS4_OK.
    pub returned: u32,
    /// It was not given back by the return deadline: [`Event::ReturnOverdue`](crate::Event::ReturnOverdue) was told.
    pub overdue: u32,
    /// It will not be given back, as far as anybody knows: the run ended otherwise than with NFS4_OK (any other
    /// answer, [`Outcome::TimedOut`](crate::Outcome), `PathDown`, `Courtesy`, `Cancelled`, `Fault`, `Unencodable`, `DeliveredUnknown`), or
    /// was not accepted ([`TryRun::Closed`]); or the client was removed or drained, or the runtime closed, before it was.
    pub failed: u32,
}

/// Why no group was made. Nothing was started.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, Group, GroupError, Runtime};
///
/// /// Asks one by one, and has the opener come again, where there is no room to wait for all.
/// fn recall(runtime: &Runtime, keys: &[CallbackKey]) -> Option<Group> {
///     let group: Result<Group, GroupError> = runtime.try_run_many(keys, |_, _| ());
///     match group {
///         Ok(group) => Some(group),
///         Err(error) => {
///             eprintln!("{error}");
///             keys.iter().for_each(|key| println!("{:?}", runtime.try_run(*key)));
///             None
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Groups wait for as many callbacks as they can, all together.
    #[error("groups would wait for more than {limit} callbacks at once; ask for these without a group")]
    Full {
        /// The limit.
        limit: u32,
    },
    /// No memory for more members.
    #[error("no memory for the members of a group")]
    OutOfMemory,
}
