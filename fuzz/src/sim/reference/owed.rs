//! Recalls whose return is awaited, as the model knows them.

use super::Reference;
use crate::sim::groups::Fate;
use crate::sim::journal::Rule;
use ringback::CallbackKey;

/// A reactor may be late by what it does meanwhile.
const OVERDUE_SLACK_NS: u64 = 2_000_000_000;

impl Reference {
    fn overdue_slack_ns(&self) -> u64 {
        OVERDUE_SLACK_NS + self.return_deadline_ns / 1000 + self.stood_ns()
    }

    /// What was recalled and not returned is overdue.
    pub(crate) fn overdue(&mut self, key: CallbackKey, cookie: u64) {
        let journal = self.journal.clone();
        let (now_ns, late_ns) = (journal.now_ns(), self.overdue_slack_ns());
        let Some(callback) = self.callback(cookie) else { return };
        let owed_ns = callback.owed_ns.take().filter(|_| callback.key == key && callback.exists);
        let last_ns = callback.owed_last_ns;
        let right = owed_ns.is_some_and(|owed_ns| owed_ns <= now_ns && now_ns <= last_ns + late_ns);
        journal.check(Rule::Overdue, right, || format!("{key:?} is overdue: {owed_ns:?} {callback:?}"));
        self.groups.end(cookie as usize, &[Fate::Overdue], true);
    }

    /// Nothing that was overdue for a while is not told.
    pub(crate) fn check_overdue(&self) {
        let now_ns = self.journal.now_ns();
        let late_ns = self.overdue_slack_ns();
        for (cookie, callback) in self.callbacks.iter().enumerate() {
            let told = callback.owed_ns.is_none() || now_ns <= callback.owed_last_ns + late_ns;
            let owner = self.owners[callback.owner];
            let perhaps = owner.removed || owner.has_lied || !callback.owed_surely;
            self.journal.check(Rule::Overdue, told || perhaps, || {
                format!("callback {cookie} is overdue and nobody was told: {callback:?}")
            });
        }
    }
}
