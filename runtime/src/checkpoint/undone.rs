//! What other threads do to callbacks while a checkpoint is written of a runtime that stands still, after their entries were
//! read: the next process does not know of it. Whoever hands everything over compares the entries with what it has written, when
//! nobody can ask for anything any more.

use crate::callback::{CallbackKey, Flags, Snapshot};
use crate::hooks::Event;
use crate::keys::ClientId;
use crate::registry::Shared;
use std::collections::HashMap;

/// The words of all entries, as a checkpoint has them: 8 bytes for each, as long as the runtime stands still.
#[derive(Debug, Default)]
pub(crate) struct Exported(HashMap<u32, Vec<Snapshot>>);

impl Exported {
    /// The entries from `first` on.
    pub fn push(&mut self, first: u32, words: Vec<Snapshot>) {
        self.0.insert(first, words);
    }

    /// Tells `told` of everything that was asked for since.
    pub fn compare(&self, shared: &Shared, mut told: impl FnMut(Event)) {
        for range in shared.slab.used() {
            let known = self.0.get(&range.start).map_or(&[][..], |words| words);
            let words = known.iter().copied().chain(std::iter::repeat(Snapshot::new(0, Flags::empty())));
            for (index, then) in range.zip(words) {
                let entry = &shared.slab[index];
                let now = entry.word().snapshot();
                let is_same = (now.generation(), now.flags()) == (then.generation(), then.flags());
                if is_same || entry.is_own() {
                    continue;
                }
                let client = shared.clients.get(entry.client()).map(|known| known.generation());
                let client = client.map(|generation| ClientId { index: entry.client(), generation });
                for (call, generation) in asked(then, now) {
                    let key = Some(CallbackKey { index, generation });
                    told(Event::LeftUndone { call, client, connection: None, key });
                }
            }
        }
    }
}

/// What has made one word of the other, and of which generation.
fn asked(then: Snapshot, now: Snapshot) -> Vec<(&'static str, u32)> {
    let is_live = |word: Snapshot| word.flags().contains(Flags::LIVE);
    let mut asked = Vec::new();
    let lives_on = is_live(then) && is_live(now) && then.generation() == now.generation();
    if is_live(then) && !lives_on && !then.flags().contains(Flags::DYING) {
        asked.push(("remove", then.generation()));
    }
    if !is_live(now) {
        return asked;
    }
    let before = if lives_on { then.flags() } else { Flags::empty() };
    let (set, cleared) = (now.flags() - before, before - now.flags());
    let mut ask = |call, holds: bool| {
        if holds {
            asked.push((call, now.generation()));
        }
    };
    ask("insert", !lives_on);
    ask("try_run", set.intersects(Flags::RUNNING | Flags::REARM));
    ask("cancel", set.contains(Flags::CANCEL));
    ask("remove", set.contains(Flags::DYING));
    ask("returned", cleared.contains(Flags::OWED) && !set.contains(Flags::DYING));
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_seen_by_what_has_changed() {
        let word = |generation, flags| Snapshot::new(generation, flags);
        let (idle, running) = (Flags::LIVE, Flags::LIVE | Flags::RUNNING);
        let cases = [
            (word(1, idle), word(1, idle), &[][..]),
            (word(1, idle), word(1, running), &[("try_run", 1)][..]),
            (word(1, running), word(1, running | Flags::WAKE), &[]),
            (word(1, running | Flags::SETTLED), word(1, running | Flags::SETTLED | Flags::REARM), &[("try_run", 1)]),
            (word(1, running), word(1, running | Flags::CANCEL), &[("cancel", 1)]),
            (word(1, running), word(1, running | Flags::DYING), &[("remove", 1)]),
            (word(1, idle), word(2, Flags::empty()), &[("remove", 1)]),
            (word(1, idle), word(2, running), &[("remove", 1), ("insert", 2), ("try_run", 2)]),
            (word(0, Flags::empty()), word(1, idle), &[("insert", 1)]),
            (word(1, idle | Flags::OWED), word(1, idle), &[("returned", 1)]),
            (word(1, running | Flags::OWED), word(1, running | Flags::DYING), &[("remove", 1)]),
            // Whoever had removed it has freed it.
            (word(1, idle | Flags::DYING), word(2, Flags::empty()), &[]),
        ];
        for (then, now, expected) in cases {
            assert_eq!(asked(then, now), expected, "{then:?} to {now:?}");
        }
    }
}
