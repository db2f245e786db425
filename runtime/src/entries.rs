//! What any thread does to callback entries: makes them, asks for their runs, removes them.

use crate::callback::{
    Abandon, CallbackEntry, CallbackKey, Claim, Flags, InsertError, OWN, Removal, Remove, Returned, Settled, TryRun,
};
use crate::command::Command;
use crate::hooks::Hooks;
use crate::keys::{ClientId, SessionKey};
use crate::reaper::Own;
use crate::registry::{ClientShared, Shared};
use ringback_rpc::nfs4::callback::CallbackOp;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::*;

/// How many entries name a client, and how many of them are CB_RECALLs: in a server that makes one with each grant, the
/// delegations that it holds. One word, so that counting both costs what counting one does.
#[derive(Debug)]
pub(crate) struct EntryCount(AtomicU64);

impl EntryCount {
    /// Any entry, or whoever looks at the client for a moment.
    const ONE: u64 = 1;
    const DELEGATION: u64 = 1 << 32;

    pub const fn new() -> Self {
        EntryCount(AtomicU64::new(0))
    }

    fn weight(op: u8) -> u64 {
        if op == CallbackOp::Recall as u8 { Self::ONE + Self::DELEGATION } else { Self::ONE }
    }

    /// Keeps the client's place from being the next one's, without an entry.
    pub fn pin(&self) {
        self.0.fetch_add(Self::ONE, SeqCst);
    }

    pub fn unpin(&self) {
        self.0.fetch_sub(Self::ONE, AcqRel);
    }

    pub fn add(&self, op: u8) {
        self.0.fetch_add(Self::weight(op), SeqCst);
    }

    pub fn sub(&self, op: u8) {
        self.0.fetch_sub(Self::weight(op), AcqRel);
    }

    pub fn is_zero(&self) -> bool {
        self.0.load(SeqCst) == 0
    }

    /// CB_RECALLs.
    pub fn delegations(&self) -> u32 {
        (self.0.load(Relaxed) >> 32) as u32
    }
}

impl Shared {
    /// See [`Runtime::insert`](crate::Runtime::insert).
    pub fn insert(&self, client: ClientId, op: CallbackOp, cookie: u64) -> Result<CallbackKey, InsertError> {
        if matches!(op, CallbackOp::Sequence | CallbackOp::Illegal) {
            return Err(InsertError::NotACallback);
        }
        if self.is_closed() {
            return Err(InsertError::Closed);
        }
        self.insert_entry(client, op as u8, cookie)
    }

    /// Makes an entry; `op` may be marked as [`OWN`].
    pub fn insert_entry(&self, client: ClientId, op: u8, cookie: u64) -> Result<CallbackKey, InsertError> {
        let known = self.clients.live(client).ok_or(InsertError::NoSuchClient)?;
        known.entries.add(op);
        // Looked at again now that the count keeps the place: in between the client may have gone and the next one come,
        // and the entry would have named that one. Sequentially consistent, like their partners `remove_client` and
        // `ClientTable::add`: either the client is seen to be gone here, or the count is seen there.
        let inserted = match self.clients.live(client) {
            Some(_) => self.insert_of_tenant(known, client, op, cookie),
            None => Err(InsertError::NoSuchClient),
        };
        inserted.inspect_err(|_| known.entries.sub(op))
    }

    /// As its tenant may have one more.
    fn insert_of_tenant(
        &self,
        known: &ClientShared,
        client: ClientId,
        op: u8,
        cookie: u64,
    ) -> Result<CallbackKey, InsertError> {
        let insert = || self.slab.insert(known.home(), client.index, op, cookie);
        let Some(tenant) = self.tenant_of(known) else { return insert() };
        tenant.take_callback().map_err(|limit| InsertError::TenantFull { limit })?;
        insert().inspect_err(|_| tenant.give_callback())
    }

    /// Sends a callback of the runtime's own, once: the entry goes when the run has ended. The cookie is all that
    /// [`Own`] knows of it; CB_RECALL_SLOT belongs to `session`.
    pub fn send_own(
        &self,
        client: ClientId,
        op: CallbackOp,
        cookie: u64,
        session: Option<SessionKey>,
    ) -> Result<CallbackKey, InsertError> {
        let known = self.clients.live(client).ok_or(InsertError::NoSuchClient)?;
        let key = self.insert_entry(client, op as u8 | OWN, cookie)?;
        if let Some(session) = session {
            self.post_home(known, Command::Belongs { key, session });
        }
        let asked = self.ask(key, || ());
        let _ = self.remove(key);
        // Else the client, or the runtime, is going.
        if asked == TryRun::Submitted { Ok(key) } else { Err(InsertError::NoSuchClient) }
    }

    /// Whether a callback has not gone yet.
    pub fn is_there(&self, key: CallbackKey) -> bool {
        // That of the runtime's own is never awaited, so this changes nothing.
        self.slab.get(key.index).is_some_and(|entry| entry.word().returned(key.generation) != Returned::Stale)
    }

    /// Who is asked about a callback: the embedder, or the runtime itself.
    pub fn hooks_of(&self, own: bool) -> &dyn Hooks {
        if own { &Own } else { &*self.hooks }
    }

    /// [`Runtime::try_run`](crate::Runtime::try_run); `won` is called if it is accepted, before the run can end.
    pub fn ask(&self, key: CallbackKey, won: impl FnOnce()) -> TryRun {
        let (asked, reactor) = self.ask_quietly(key, |entry| entry.try_run(key.generation), won);
        if let Some(reactor) = reactor
            && self.reactors[reactor].parking.must_wake()
        {
            self.wake(reactor);
        }
        asked
    }

    /// The answer to a request that a run is to serve which is going on: not here, if it goes on in another process.
    fn unless_left(&self, answer: TryRun) -> TryRun {
        #[cfg(feature = "checkpoint")]
        if self.standstill.has_left() {
            return TryRun::Closed;
        }
        answer
    }

    /// A request that `claim` makes. If it is accepted by a reactor that may have to be woken: which.
    pub fn ask_quietly(
        &self,
        key: CallbackKey,
        claim: impl FnOnce(&CallbackEntry) -> Claim,
        won: impl FnOnce(),
    ) -> (TryRun, Option<usize>) {
        if self.is_forked() {
            return (TryRun::Closed, None);
        }
        let Some(entry) = self.slab.get(key.index) else { return (TryRun::Stale, None) };
        match claim(entry) {
            Claim::Submit => {}
            Claim::Coalesced => return (self.unless_left(TryRun::Coalesced), None),
            Claim::Rearmed => return (self.unless_left(TryRun::Rearmed), None),
            Claim::Stale => return (TryRun::Stale, None),
            Claim::Dying => return (TryRun::Dying, None),
        }
        // The winner owns the entry from here to its push (rule R6: every way out is a transition).
        let client = self.client_of(entry);
        // A client that is at home in the reactor whose turn this is stays there for the turn.
        let here = self.reactors[client.home()].is_in_turn_here();
        let entered = if here { client.in_flight.enter_at_home() } else { client.in_flight.enter() };
        if !entered {
            // Who waits for this run is answered when nothing of the client runs any more.
            self.abandon(key, entry, client);
            return (TryRun::Closed, None);
        }
        let undo = Undo { shared: self, key, entry, client, client_index: entry.client() };
        self.call_hook(|| self.hooks_of(entry.is_own()).acquire(entry.cookie()));
        std::mem::forget(undo);
        won();
        let home = client.home();
        let port = &self.reactors[home];
        entry.set_started_us(port.turn_us.load(Relaxed));
        if here {
            port.inbox.push_own(&self.slab, key.index);
            return (TryRun::Submitted, None);
        }
        port.inbox.push(&self.slab, key.index);
        (TryRun::Submitted, Some(home))
    }

    /// Gives up a run that was won and not queued. Who waits for it is told by the reactor, a group at once.
    fn abandon(&self, key: CallbackKey, entry: &CallbackEntry, client: &ClientShared) {
        match entry.word().abandon() {
            Abandon::Idle { .. } => self.settle(key, Flags::RUNNING, Settled::Failed),
            Abandon::Free { .. } => self.free(key, client),
        }
    }

    /// The client of an entry that the caller owns.
    pub fn client_of(&self, entry: &CallbackEntry) -> &ClientShared {
        match self.clients.get(entry.client()) {
            Some(client) => client,
            None => unreachable!("an entry names client {}, which was never registered", entry.client()),
        }
    }

    /// Gives back an entry whose last holder the caller is. Those that waited for the callback are told.
    pub fn free(&self, key: CallbackKey, client: &ClientShared) {
        self.settle(key, Flags::empty(), client.how_removed());
        let op = self.slab[key.index].op();
        self.slab.free(key.index);
        if let Some(tenant) = self.tenant_of(client) {
            tenant.give_callback();
        }
        client.entries.sub(op);
    }

    /// See [`Runtime::remove`](crate::Runtime::remove).
    pub fn remove(&self, key: CallbackKey) -> Remove {
        let Some(entry) = self.slab.get(key.index) else { return Remove::Stale };
        // Read before the transition that confirms the generation, after which the finisher may free the entry.
        let client = self.clients.get(entry.client());
        match entry.word().remove(key.generation) {
            Removal::FreeNow => {
                self.free(key, self.client_of(entry));
                Remove::Removed
            }
            Removal::Deferred => {
                let how = client.map_or(Settled::Returned, ClientShared::how_removed);
                self.settle(key, Flags::empty(), how);
                Remove::Deferred
            }
            Removal::Stale => Remove::Stale,
            Removal::AlreadyDying => Remove::AlreadyDying,
        }
    }
}

/// Takes back a run whose `acquire` panicked (rule R6).
struct Undo<'a> {
    shared: &'a Shared,
    key: CallbackKey,
    entry: &'a CallbackEntry,
    client: &'a ClientShared,
    client_index: u32,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        // Read first: when the run is counted out, the client may be gone.
        let client = self.client_index;
        self.shared.abandon(self.key, self.entry, self.client);
        let _ = self.client.in_flight.leave();
        // Elsewhere it is the reactor that counts a run out, and looks then what has waited for it. Here it may sleep, and
        // compares counts when it is awake: not the last one out alone matters.
        self.shared.post_home(self.client, Command::Abandoned { callback: self.key.index, client });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_delegations_are_counted_in_one_word() {
        let count = EntryCount::new();
        let (recall, getattr) = (CallbackOp::Recall as u8, CallbackOp::Getattr as u8);
        count.add(recall);
        count.add(getattr);
        count.add(recall);
        count.pin();
        assert_eq!((count.delegations(), count.is_zero()), (2, false));
        count.sub(recall);
        count.unpin();
        count.sub(getattr);
        assert_eq!((count.delegations(), count.is_zero()), (1, false));
        count.sub(recall);
        assert_eq!((count.delegations(), count.is_zero()), (0, true));
    }
}
