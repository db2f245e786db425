//! The stateids of clients of minor version 0 whose lease has run out: what they still say of them is NFS4ERR_EXPIRED, and not
//! NFS4ERR_BAD_STATEID, so that they know to recover (RFC 7530 sections 9.6.3 and 13.1.5.5).

use crate::arena::Id;
use crate::files::{Files, SHARDS, global};
use crate::stateids::Kind;
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Stateids that are remembered, the latest ones. Of an older one a client hears NFS4ERR_BAD_STATEID.
const EXPIRED_MAX: usize = 1 << 16;

/// What a stateid names: its kind, and the object's index and generation.
type Name = (u32, u32, u32);

/// The latest of them.
#[derive(Debug, Default)]
pub(crate) struct Expired(Mutex<(HashSet<Name>, VecDeque<Name>)>);

impl Expired {
    /// What a client held expires with it.
    pub(crate) fn add(&self, states: Vec<(Kind, Id)>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (names, order) = &mut *known;
        for (kind, id) in states {
            let name = (kind as u32, id.index, id.generation);
            if names.insert(name) {
                order.push_back(name);
            }
            if order.len() > EXPIRED_MAX
                && let Some(oldest) = order.pop_front()
            {
                names.remove(&oldest);
            }
        }
    }

    pub(crate) fn contains(&self, kind: Kind, id: Id) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.contains(&(kind as u32, id.index, id.generation))
    }
}

impl Files {
    /// What a client holds.
    pub(crate) fn states_of(&self, client: u32) -> Vec<(Kind, Id)> {
        let mut states = Vec::new();
        for number in 0..SHARDS {
            let shard = self.shard(number);
            let Some(holder) = shard.holders.get(client as usize) else { continue };
            let opens = shard.opens.list::<crate::opens::OfClient>(holder.opens);
            let opens = opens.filter_map(|(index, _)| Some((Kind::Open, shard.opens.id_at(index)?)));
            let locks = shard.locks.list::<crate::locks::OfClient>(holder.locks);
            let locks = locks.filter_map(|(index, _)| Some((Kind::Lock, shard.locks.id_at(index)?)));
            let held = shard.delegations_of_client(client);
            let held = held.filter_map(|(index, _)| Some((Kind::Delegation, shard.delegations.id_at(index)?)));
            states.extend(opens.chain(locks).chain(held).map(|(kind, id)| (kind, global(number, id))));
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered() {
        let expired = Expired::default();
        let id = |index| Id { index, generation: 1 };
        expired.add((0..EXPIRED_MAX as u32 + 10).map(|n| (Kind::Open, id(n))).collect());
        assert!(!expired.contains(Kind::Open, id(9)) && expired.contains(Kind::Open, id(10)));
        assert!(!expired.contains(Kind::Lock, id(10)));
        assert!(!expired.contains(Kind::Open, Id { index: 10, generation: 2 }));
    }
}
