//! Groups of callbacks: one call asks for all of them, one answer says when the last is settled. A conflicting OPEN of a
//! file with 10,000 readers recalls 10,000 delegations, and is to be resumed once.

use crate::callback::{CallbackEntry, CallbackKey, Flags, GroupError, GroupSettled, Settled, Tally, TryRun};
use crate::completion::Ending;
use crate::registry::{ClientShared, Shared};
use crate::runtime::Runtime;
use crate::wait::{WaitError, block};
use ringback_rpc::nfs4::Status;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{
    Ordering::{Acquire, SeqCst},
    fence,
};
use std::task::{Context, Poll};
use std::time::Duration;

/// Callbacks that were asked for together: see [`Runtime::try_run_many`]. A future that any executor drives, or that is
/// looked at now and then.
///
/// Its waker is called once, by who settles the last callback: on a reactor, or in a call of
/// [`returned`](Runtime::returned), [`remove`](Runtime::remove) or `try_run` in one of the embedder's threads. It must
/// not take a lock that is held around these.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, Group, GroupError, Runtime};
///
/// struct File {
///     readers: Vec<CallbackKey>,
///     recalled: Option<Group>,
/// }
///
/// /// A conflicting OPEN. `true`: nothing is in the way any more; else it is answered NFS4ERR_DELAY, and comes again.
/// fn open(runtime: &Runtime, file: &mut File) -> Result<bool, GroupError> {
///     match &file.recalled {
///         Some(group) => Ok(group.settled().is_some_and(|settled| settled.overdue + settled.failed == 0)),
///         None => {
///             file.recalled = Some(runtime.try_run_many(&file.readers, |key, asked| println!("{key:?}: {asked:?}"))?);
///             Ok(file.readers.is_empty())
///         }
///     }
/// }
/// ```
#[must_use = "when it is settled is told here alone"]
pub struct Group {
    tally: Arc<Tally>,
    /// The runtime, by its address: an embedder may keep the group where its hooks can reach it, and shall not own the
    /// runtime by it.
    runtime: usize,
}

impl Group {
    /// What became of its callbacks, once all are settled. From then on it stays the same.
    pub fn settled(&self) -> Option<GroupSettled> {
        self.tally.promise.get().copied()
    }

    /// Waits on the caller's own thread, for `patience` at most: [`WaitError::TimedOut`]. An error from a hook.
    pub fn block(self, patience: Duration) -> Result<GroupSettled, WaitError> {
        if Shared::is_in_hook_of(self.runtime) {
            return Err(WaitError::InHook);
        }
        block(patience, |waker| self.tally.promise.poll(waker).copied()).ok_or(WaitError::TimedOut)
    }
}

impl Future for Group {
    type Output = GroupSettled;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<GroupSettled> {
        self.tally.promise.poll(cx.waker()).map_or(Poll::Pending, |settled| Poll::Ready(*settled))
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Group").field(&self.settled()).finish()
    }
}

/// Reactors that were handed work and are to be woken, once each, however the call ends.
struct Nudges<'a> {
    shared: &'a Shared,
    due: Vec<bool>,
}

/// So many requests before an entry is asked to run it is on its way to the cache: one takes about 30 ns, and a load from memory
/// a few times that.
const PREFETCH_AHEAD: usize = 8;

impl Drop for Nudges<'_> {
    fn drop(&mut self) {
        let ports = self.shared.reactors.iter().zip(&self.due).enumerate();
        for (reactor, _) in ports.filter(|(_, (port, due))| **due && port.parking.must_wake()) {
            self.shared.wake(reactor);
        }
    }
}

impl Runtime {
    /// [`Runtime::try_run`] of many callbacks, and one answer when each of them is settled: the returns of what is recalled
    /// included. `asked` hears what became of each request. What counts as what is told at [`GroupSettled`]; a
    /// callback that is running already is waited for like the others, and one that is listed twice counts twice.
    ///
    /// Any number of groups may wait for the same callback. Every group is settled at some time, by the
    /// [`return_deadline`](crate::Builder::return_deadline) or by a drain; each costs 16 bytes for each callback
    /// until that one is settled, even if the [`Group`] is dropped before, which is all it takes to stop waiting. Ending
    /// the runs is another matter: [`Runtime::cancel`].
    ///
    /// Calls no hook but `acquire`, in the caller's thread, and is legal under the embedder's locks; but unlike `try_run` it
    /// allocates, and takes a lock that no reactor takes. If there is no memory it says so before anything is started.
    pub fn try_run_many(
        &self,
        keys: &[CallbackKey],
        mut asked: impl FnMut(CallbackKey, TryRun),
    ) -> Result<Group, GroupError> {
        let shared = self.shared();
        let pool = &shared.members;
        let mut reserved = pool.reserve(keys.len())?;
        let group = Group { tally: Arc::new(Tally::new(keys.len() as u32)), runtime: shared.address() };
        let mut nudges = Nudges { shared, due: vec![false; shared.reactors.len()] };
        for (at, &key) in keys.iter().enumerate() {
            if let Some(ahead) = keys.get(at + PREFETCH_AHEAD) {
                shared.slab.prefetch(ahead.index);
            }
            let Some(member) = reserved.pop() else { unreachable!("as many were reserved as there are keys") };
            pool.prepare(member, key.index, &group.tally);
            let claim = |entry: &CallbackEntry| entry.join(key.generation, member, |first| pool.link(member, first));
            let (answer, reactor) = shared.ask_quietly(key, claim, || ());
            if let Some(reactor) = reactor {
                nudges.due[reactor] = true;
            }
            if matches!(answer, TryRun::Stale | TryRun::Dying) {
                pool.settle_one(member, Settled::Returned); // it did not join
            }
            asked(key, answer);
        }
        drop(nudges);
        fence(SeqCst); // after the joining, before the look at `ended`; partner: `Shared::end_reactor`
        for reactor in (0..shared.reactors.len()).filter(|reactor| shared.reactors[*reactor].has_ended()) {
            shared.forsake_reactor(reactor);
        }
        group.tally.close();
        Ok(group)
    }
}

impl Shared {
    /// Settles the members that wait for a callback, unless the word has one of `unless`.
    pub fn settle(&self, key: CallbackKey, unless: Flags, how: Settled) {
        if let Some(entry) = self.slab.get(key.index) {
            self.settle_entry(entry, key, unless, how);
        }
    }

    #[inline]
    fn settle_entry(&self, entry: &CallbackEntry, key: CallbackKey, unless: Flags, how: Settled) {
        let members = entry.word().take_members(key.generation, unless);
        if !members.is_empty() {
            self.members.settle(members, how);
        }
    }

    /// Settles those that waited for a run that ended for good.
    #[inline(never)]
    pub fn settle_ended(&self, entry: &CallbackEntry, key: CallbackKey, ending: Ending, client: &ClientShared) {
        let (unless, how) = match ending {
            // What was recalled is yet to come back.
            Ending::Replied(Status::NFS4_OK) => (Flags::RUNNING | Flags::OWED, Settled::Returned),
            Ending::Refused => (Flags::RUNNING, Settled::Returned),
            _ => (Flags::RUNNING, Settled::Failed),
        };
        self.settle_entry(entry, key, unless, how);
        if ending != Ending::Replied(Status::NFS4_OK) {
            return;
        }
        // A drain does not wait for returns. One that begins after this look finds who is left: on this thread, or
        // after the reactor's end.
        if client.in_flight.is_closed() {
            self.settle(key, Flags::RUNNING, Settled::Failed);
        }
    }

    /// Those that wait for callbacks of the clients that `over` names wait in vain, unless the word has one of `unless`. Walks
    /// the members of all groups, if there are any.
    pub fn forsake(&self, unless: Flags, over: impl Fn(u32) -> bool) {
        if self.members.is_idle() {
            return;
        }
        for index in self.members.entries() {
            let Some(entry) = self.slab.get(index) else { continue };
            let generation = entry.word().snapshot().generation();
            // The client is that of this life of the entry or of a later one, of which the transition takes nothing.
            fence(Acquire);
            if over(entry.client()) {
                self.settle(CallbackKey { index, generation }, unless, Settled::Failed);
            }
        }
    }

    /// A reactor has ended, and nobody else ends its runs.
    pub fn forsake_reactor(&self, reactor: usize) {
        self.forsake(Flags::empty(), |client| self.home_of(client) == Some(reactor));
    }

    /// The home of the client at that place.
    pub fn home_of(&self, client: u32) -> Option<usize> {
        self.clients.get(client).map(ClientShared::home)
    }
}

impl ClientShared {
    /// What the removal of a callback says to who waits for it.
    pub fn how_removed(&self) -> Settled {
        if self.live.load(SeqCst) { Settled::Returned } else { Settled::Failed }
    }
}
