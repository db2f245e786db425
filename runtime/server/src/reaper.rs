//! Too many delegations: CB_RECALL_ANY asks the clients to give up some, of their choice (RFC 8881 section 20.6), those that
//! hold most the most. What they do not give up is recalled, if there are more delegations than there may be.

use crate::Inner;
use crate::arena::Id;
use crate::callbacks::{Callbacks, Subject};
use crate::delegations::State;
use crate::files::SHARDS;
use ringback::{CallbackKey, ClientId};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Between two CB_RECALL_ANY to one client.
const PAUSE_S: u64 = 5;
/// The part of the limit that is kept in use, in eighths: what is asked for is room for the next eighth.
const KEPT_EIGHTHS: u64 = 7;

/// What each client was asked to give up, by its index.
#[derive(Debug, Default)]
pub(crate) struct Reaper(Mutex<Vec<Option<Asked>>>);

/// What one client was asked.
#[derive(Clone, Copy, Debug)]
struct Asked {
    generation: u32,
    callback: CallbackKey,
    at_s: u64,
    /// craa_objects_to_keep, of the next run.
    wanted: u32,
    /// The same, of the current run: it does not change between `prepare` and the end.
    keep: u32,
}

impl Reaper {
    fn table(&self) -> MutexGuard<'_, Vec<Option<Asked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run begins: what it says is decided now. False: there is nothing to say any more.
    pub(crate) fn prepare(&self, client: Id) -> bool {
        let mut table = self.table();
        let asked = table.get_mut(client.index as usize).and_then(Option::as_mut);
        let Some(asked) = asked.filter(|a| a.generation == client.generation) else { return false };
        asked.keep = asked.wanted;
        true
    }

    /// craa_objects_to_keep of the current run.
    pub(crate) fn keep(&self, client: Id) -> Option<u32> {
        let asked = (*self.table().get(client.index as usize)?)?;
        (asked.generation == client.generation).then_some(asked.keep)
    }

    /// The client is gone.
    pub(crate) fn forget(&self, index: u32, callbacks: &Callbacks) {
        if let Some(asked) = self.table().get_mut(index as usize).and_then(Option::take) {
            callbacks.remove_is_final(asked.callback);
        }
    }

    /// Asks a client to keep so many, unless it was asked just now. True: it was asked long enough ago to have done it.
    fn ask(&self, client: Id, name: ClientId, keep: u32, now_s: u64, callbacks: &Callbacks) -> bool {
        let (mut table, at) = (self.table(), client.index as usize);
        let len = table.len().max(at + 1);
        table.resize(len, None);
        let asked = match &mut table[at] {
            Some(asked) if asked.at_s + PAUSE_S > now_s => return false,
            Some(asked) => asked,
            none => {
                let Some(callback) = callbacks.insert(name, Subject::Client(client)) else { return false };
                let generation = client.generation;
                none.insert(Asked { generation, callback, at_s: 0, wanted: keep, keep })
            }
        };
        let before = std::mem::replace(&mut asked.at_s, now_s);
        asked.wanted = keep;
        callbacks.run(asked.callback);
        before > 0
    }
}

impl Inner {
    /// Once in a second: makes room if there are too many delegations, or if somebody was refused one.
    pub(crate) fn reap_delegations(&self) {
        let quota = &self.files.delegations;
        let (held, max) = (quota.used(), quota.max());
        let wanted = self.files.delegations_wanted.swap(false, Relaxed);
        if held > max || wanted && held == max && max > 0 {
            let again = self.recall_any(max.saturating_mul(KEPT_EIGHTHS) / 8);
            if again && held > max {
                self.recall_some(held - max);
            }
        }
    }

    /// Asks all clients to give up delegations until there are `keep` in all; whether one was asked before.
    pub(crate) fn recall_any(&self, keep: u64) -> bool {
        let now_s = self.now_ns() / 1_000_000_000 + PAUSE_S;
        let counts = self.held_by_clients();
        let all: u64 = counts.iter().map(|n| u64::from(*n)).sum();
        let mut again = false;
        let clients = self.clients();
        for client in clients.records.values().filter_map(|r| r.client.as_ref()) {
            let held = counts.get(client.index as usize).copied().unwrap_or(0);
            if held == 0 {
                continue;
            }
            let share = u128::from(held) * u128::from(keep) / u128::from(all.max(1));
            let id = Id { index: client.index, generation: client.generation };
            let keep = u32::try_from(share).unwrap_or(u32::MAX).min(held);
            again |= self.reaper.ask(id, client.callbacks, keep, now_s, &self.callbacks);
        }
        again
    }

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

    /// Recalls so many delegations that are not recalled yet.
    fn recall_some(&self, count: u64) {
        let mut left = count;
        for number in 0..SHARDS {
            let shard = self.files.shard(number);
            for index in 0..shard.delegations.index_end() {
                if left == 0 {
                    return;
                }
                let Some(delegation) = shard.delegations.at(index).filter(|d| d.state == State::Held) else { continue };
                left -= 1;
                if !delegation.recalled {
                    self.callbacks.recall(delegation.callback);
                }
            }
        }
    }
}
