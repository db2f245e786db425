//! What goes from one process to the next, as the model knows it.

use super::Reference;
use crate::sim::journal::Rule;
use ringback::Restored;
use std::collections::HashSet;

impl Reference {
    /// The reactors may stand still from now on.
    pub(crate) fn stands_still(&mut self) {
        self.still_ns = Some(self.journal.now_ns());
    }

    /// They do not any more.
    pub(crate) fn goes_on(&mut self) {
        self.stood_ns = self.stood_ns();
        self.still_ns = None;
    }

    /// How long they have stood still so far, at most.
    pub(crate) fn stood_ns(&self) -> u64 {
        self.stood_ns + self.still_ns.map_or(0, |since_ns| self.journal.now_ns() - since_ns)
    }

    /// The next process has asked about a callback: it is what it was.
    fn restored(&mut self, restored: &Restored) {
        let journal = self.journal.clone();
        let Some(callback) = self.callback(restored.cookie) else { return };
        let known = callback.exists && (callback.key, callback.op) == (restored.key, restored.op);
        journal.check(Rule::Answer, known, || format!("{restored:?} is not {callback:?}"));
        let running = callback.live.is_some();
        journal.check(Rule::InFlight, running == restored.running, || format!("{restored:?} is not {callback:?}"));
    }

    /// The next process serves: it knows every callback, and nobody waits in it yet.
    pub(crate) fn handed_over(&mut self, restored: &[Restored]) {
        restored.iter().for_each(|restored| self.restored(restored));
        let asked: HashSet<u64> = restored.iter().map(|restored| restored.cookie).collect();
        self.journal.check(Rule::Answer, asked.len() == restored.len(), || format!("twice in {restored:?}"));
        for (cookie, callback) in (0..).zip(&self.callbacks) {
            let right = callback.exists == asked.contains(&cookie);
            self.journal
                .check(Rule::Leak, right, || format!("callback {cookie} has got lost, or is there: {callback:?}"));
        }
        self.waited.clear();
        self.ends.clear();
        self.groups.forget();
        self.moves.clear();
    }

    /// The drain with this number was another process's, and goes on without a report.
    pub(crate) fn orphan_drain(&mut self, number: u64) {
        self.drains.retain(|drain| drain.number != number);
    }

    /// The last drain that was begun takes the place of one of another process.
    pub(crate) fn inherit_drain(&mut self) {
        if let Some(last) = self.drains.last_mut() {
            last.inherited = true;
        }
    }

    /// The clients' callbacks are at home on these reactors now.
    pub(crate) fn settle(&mut self, reactors: usize) {
        self.owners.iter_mut().for_each(|owner| owner.home %= reactors);
    }
}
