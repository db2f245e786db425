//! The checker of bounded work: a reactor turns only if there is something to do, and sends no more than it should.

use super::journal::{Journal, Rule};
use ringback::simulator::Wait;

/// Turns without effect that are forgiven in a row: a reactor may look once more before it sleeps.
const IDLE_TURNS_MAX: u32 = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// What had happened when the turn before this one ended.
    happened: u64,
    idle: u32,
    excused: bool,
}

/// See the [module](self).
pub(crate) struct Work {
    journal: Journal,
    loads: Vec<Load>,
}

impl Work {
    pub(crate) fn new(journal: Journal, reactors: usize) -> Self {
        Work { journal, loads: vec![Load::default(); reactors] }
    }

    /// A turn begins. `due`: the time that the reactor waited for has come. `rung`: somebody woke it.
    pub(crate) fn begins(&mut self, reactor: usize, wait: Wait, due: bool, rung: bool) {
        // A timer that fires may find that it has to wait longer; that costs a turn now and then.
        self.loads[reactor].excused = rung || (due && wait != Wait::No);
    }

    /// A turn has ended.
    pub(crate) fn ends(&mut self, reactor: usize) {
        let happened = self.journal.happened();
        let load = &mut self.loads[reactor];
        let idle = happened == load.happened && !load.excused;
        load.happened = happened;
        load.idle = if idle { load.idle + 1 } else { 0 };
        let idle = load.idle;
        self.journal.check(Rule::BoundedWork, idle <= IDLE_TURNS_MAX, || {
            format!("reactor {reactor} has turned {idle} times and nothing has happened")
        });
    }
}
