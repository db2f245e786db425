//! Delegations from the outside: counting them, and recalling many by hand.

use crate::Server;
use crate::arena::Id;
use crate::delegations::{Delegation, State};
use crate::files::{SHARDS, global};
use ringback::{Budget, CallbackKey, ClientId, TryRun};
use std::sync::atomic::Ordering::Relaxed;

/// Delegations taken from a shard at a time: short under its lock, and worth the lock.
const BATCH: usize = 256;

/// A delegation that a client holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldDelegation {
    pub(crate) id: Id,
    /// Its CB_RECALL.
    pub key: CallbackKey,
    /// Who holds it.
    pub client: ClientId,
}

/// A confirmed client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownClient {
    /// The runtime's name for it.
    pub client: ClientId,
    /// Its own name, co_ownerid (RFC 8881 section 2.4).
    pub owner: Vec<u8>,
    index: u32,
}

impl Server {
    /// The delegations that clients hold.
    pub fn delegations(&self) -> u64 {
        let files = &self.inner.files;
        let revoked: u64 = files.revoked.iter().map(|count| u64::from(count.load(Relaxed))).sum();
        files.delegations.used().saturating_sub(revoked)
    }

    /// The delegations that were revoked since the server started.
    pub fn revocations(&self) -> u64 {
        self.inner.files.revocations.load(Relaxed)
    }

    /// Sets how many delegations there may be. Clients are asked to give up what there is beyond it.
    pub fn set_delegations_max(&self, max: u64) {
        self.inner.files.delegations.set_max(max);
        self.runtime.set_budget(Budget::delegations(max));
    }

    /// The files.
    pub fn files(&self) -> u64 {
        self.inner.files.files.used()
    }

    /// The confirmed clients.
    pub fn clients(&self) -> Vec<KnownClient> {
        let clients = self.inner.clients();
        let confirmed = clients.records.values().filter_map(|r| r.client.as_ref());
        confirmed.map(|c| KnownClient { client: c.callbacks, owner: c.owner.to_vec(), index: c.index }).collect()
    }

    /// Every delegation held now, clients mixed. Delegations that come and go meanwhile may be missed or be gone.
    pub fn held(&self) -> Delegations<'_> {
        let mut names = Vec::new();
        for client in self.clients() {
            let at = client.index as usize;
            names.resize(names.len().max(at + 1), None);
            names[at] = Some(client.client);
        }
        Delegations { server: self, names, batch: Vec::new(), shard: 0, next: 0 }
    }

    /// Recalls a delegation. Like every `try_run` of this server it happens under the lock under which the delegation
    /// would be returned: the run and the removal of its callback never cross.
    pub fn recall(&self, held: &HeldDelegation) -> TryRun {
        let (shard, local) = self.inner.files.shard_of(held.id);
        match shard.delegations.get(local) {
            Some(Delegation { state: State::Held, .. }) => self.runtime().try_run(held.key),
            _ => TryRun::Stale,
        }
    }
}

/// The delegations of a server, see [`Server::held`].
#[derive(Debug)]
pub struct Delegations<'a> {
    server: &'a Server,
    /// By client index.
    names: Vec<Option<ClientId>>,
    batch: Vec<HeldDelegation>,
    shard: usize,
    next: u32,
}

impl Delegations<'_> {
    fn refill(&mut self) {
        while self.batch.is_empty() && self.shard < SHARDS {
            let shard = self.server.inner.files.shard(self.shard);
            let end = shard.delegations.index_end();
            while self.next < end && self.batch.len() < BATCH {
                let index = self.next;
                self.next += 1;
                let (Some(delegation), Some(local)) = (shard.delegations.at(index), shard.delegations.id_at(index))
                else {
                    continue;
                };
                let name = self.names.get(delegation.client as usize).copied().flatten();
                if let (State::Held, Some(client)) = (delegation.state, name) {
                    let id = global(self.shard, local);
                    self.batch.push(HeldDelegation { id, key: delegation.callback, client });
                }
            }
            if self.next >= end {
                self.shard += 1;
                self.next = 0;
            }
        }
    }
}

impl Iterator for Delegations<'_> {
    type Item = HeldDelegation;

    fn next(&mut self) -> Option<HeldDelegation> {
        if self.batch.is_empty() {
            self.refill();
        }
        self.batch.pop()
    }
}
