//! Who holds how many delegations, and which of them were used longest ago: what the runtime's reaper asks for when a client
//! keeps more than it was asked to ([`Hooks::recall_least_recently_used`](ringback::Hooks)).
//!
//! The time of the last use stands in the delegation, where it is in the cache anyway when it is used. There is no list in
//! that order to be kept: looking for the oldest happens once in five seconds at most, on the reaper's thread.

use crate::Inner;
use crate::arena::Id;
use crate::delegations::State;
use crate::files::{SHARDS, global};
use ringback::ClientId;

impl Inner {
    /// How many delegations each client holds, by its index.
    pub(crate) fn held_by_clients(&self) -> Vec<u32> {
        let mut counts = Vec::new();
        for number in 0..SHARDS {
            let shard = self.files.shard(number);
            counts.resize(counts.len().max(shard.holders.len()), 0);
            for (count, holder) in counts.iter_mut().zip(&shard.holders) {
                *count += holder.held;
            }
        }
        counts
    }

    /// Recalls up to `count` delegations of a client, those first that were used longest ago; how many there were.
    pub(crate) fn recall_oldest(&self, client: ClientId, count: usize) -> usize {
        let clients = self.clients();
        let mut known = clients.records.values().filter_map(|r| r.client.as_ref());
        let Some(index) = known.find(|c| c.callbacks == client).map(|c| c.index) else { return 0 };
        drop(clients);
        let mut held = self.not_on_recall(index);
        if count < held.len() {
            held.select_nth_unstable(count);
            held.truncate(count);
        }
        held.sort_unstable();
        held.into_iter().filter(|(_, index, generation)| self.recall_if_held((*index, *generation))).count()
    }

    /// A client's delegations, with the seconds of their last use before their names.
    fn not_on_recall(&self, client: u32) -> Vec<(u32, u32, u32)> {
        let mut found = Vec::new();
        for number in 0..SHARDS {
            let shard = self.files.shard(number);
            let of_client = shard.delegations_of_client(client);
            let idle = of_client.filter(|(_, d)| d.state == State::Held && !d.recalled);
            found.extend(idle.filter_map(|(index, d)| {
                let Id { index, generation } = global(number, shard.delegations.id_at(index)?);
                Some((d.used_s, index, generation))
            }));
        }
        found
    }

    /// Under the lock under which it would be returned, like every recall. It may have been returned since it was found.
    fn recall_if_held(&self, (index, generation): (u32, u32)) -> bool {
        let (shard, local) = self.files.shard_of(Id { index, generation });
        let held = shard.delegations.get(local).filter(|d| d.state == State::Held && !d.recalled);
        held.is_some_and(|delegation| self.callbacks.recall(delegation.callback))
    }
}
