//! Live upgrades: how each of the two processes fares, as the seed says, and what it waits for.

use super::choices::Choices;
use super::coverage::Kind;
use super::journal::Journal;
use ringback::simulator::upgrade::{Step, Stepper, Verdict};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

/// A process of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Old,
    New,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is gone.
    Crash,
    /// It finds something wrong, and says so.
    Refuse,
    /// It takes so long, which may be longer than anybody waits.
    Delay(u64),
}

/// The steps that each of them takes.
pub(crate) const OF_THE_OLD: [Step; 9] = [
    Step::Greet,
    Step::Suspend,
    Step::Lift,
    Step::Write,
    Step::State,
    Step::Files,
    Step::Sockets,
    Step::Go,
    Step::Leave,
];
pub(crate) const OF_THE_NEW: [Step; 7] =
    [Step::Greet, Step::State, Step::Files, Step::Sockets, Step::Open, Step::Restore, Step::Ready];

/// How an upgrade is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Where who fails, and how.
    pub fault: Option<(Side, Step, Fault)>,
    /// How long the old process and the new one are willing to wait.
    pub patience_ns: [u64; 2],
    /// The embedder's threads go on asking, as if they knew of nothing: only of a runtime that will not be handed over.
    pub busy: bool,
    /// Reactors of the new process.
    pub reactors: usize,
    /// Descriptors of the embedder that go along.
    pub files: usize,
}

impl Plan {
    pub(crate) fn draw(choices: &mut Choices) -> Plan {
        let fails = choices.below(4) > 0;
        let patience_ns = choices.pick(&[20 * MS, 200 * MS, 2 * S, 5 * S]);
        let fault = fails.then(|| {
            let side = choices.pick(&[Side::Old, Side::New]);
            let step = match side {
                Side::Old => choices.pick(&OF_THE_OLD),
                Side::New => choices.pick(&OF_THE_NEW),
            };
            let delay_ns = choices.pick(&[patience_ns / 16, patience_ns / 2, patience_ns * 2]);
            let faults = [Fault::Refuse, Fault::Crash, Fault::Delay(delay_ns)];
            // Who has let go cannot refuse any more.
            (side, step, choices.pick(if step == Step::Leave { &faults[1..] } else { &faults }))
        });
        // Nothing but time keeps it from being handed over.
        let perhaps = !matches!(fault, Some((_, step, Fault::Refuse | Fault::Crash)) if step != Step::Leave);
        Plan {
            fault,
            patience_ns: [patience_ns, choices.pick(&[patience_ns, 5 * S])],
            busy: !perhaps && choices.below(2) == 0,
            reactors: choices.pick(&[1, 2, 2, 3]),
            files: choices.index(3),
        }
    }

    /// What becomes of one side at its steps.
    fn of(&self, side: Side) -> Option<(Step, Fault)> {
        self.fault.filter(|(at, ..)| *at == side).map(|(_, step, fault)| (step, fault))
    }
}

#[derive(Debug, Default)]
struct Progress {
    /// It is to wait at its step until then.
    delayed_ns: Option<u64>,
    /// What it waits for is given up then.
    wakes_ns: Option<u64>,
    /// How often something has come.
    count: u64,
    crashed: bool,
    /// It has come to where it fails.
    met: bool,
    /// It has let go.
    left: bool,
}

/// One process on its way.
pub(crate) struct Pacer {
    journal: Journal,
    side: Side,
    fault: Option<(Step, Fault)>,
    progress: Mutex<Progress>,
}

impl Pacer {
    pub(crate) fn new(journal: Journal, side: Side, plan: &Plan) -> Self {
        Pacer { journal, side, fault: plan.of(side), progress: Mutex::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> u64 {
        self.progress().count
    }

    /// When it is to be asked again, if nothing comes before.
    pub(crate) fn wakes_ns(&self) -> Option<u64> {
        self.progress().wakes_ns
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.progress().crashed
    }

    pub(crate) fn has_met(&self) -> bool {
        self.progress().met
    }

    pub(crate) fn has_left(&self) -> bool {
        self.progress().left
    }

    fn meets(&self, step: Step, fault: Fault) {
        self.journal.note(|| format!("the {:?} process at {step:?}: {fault:?}", self.side), 90 + step as u64);
        self.journal.reach(Kind::of_handover(self.side, step, fault));
    }
}

impl Stepper for Pacer {
    fn now_ns(&self) -> u64 {
        self.journal.now_ns()
    }

    fn begin(&self, step: Step) -> Verdict {
        let now_ns = self.journal.now_ns();
        let mut progress = self.progress();
        progress.left |= step == Step::Leave;
        let fault = self.fault.filter(|(at, _)| *at == step).map(|(_, fault)| fault);
        progress.met |= fault.is_some();
        match fault {
            None => Verdict::Go,
            Some(Fault::Refuse) => {
                self.meets(step, Fault::Refuse);
                Verdict::Refuse
            }
            Some(Fault::Crash) => {
                if !std::mem::replace(&mut progress.crashed, true) {
                    self.meets(step, Fault::Crash);
                }
                Verdict::Wait
            }
            Some(Fault::Delay(delay_ns)) => {
                let until_ns = *progress.delayed_ns.get_or_insert_with(|| {
                    self.meets(step, Fault::Delay(delay_ns));
                    now_ns + delay_ns
                });
                progress.wakes_ns = Some(until_ns);
                if now_ns < until_ns { Verdict::Wait } else { Verdict::Go }
            }
        }
    }

    fn goes_on(&self) {
        let mut progress = self.progress();
        progress.count += 1;
        progress.wakes_ns = None;
    }

    fn waits(&self, until_ns: Option<u64>) {
        // It is given up when its time is over, and not as soon as it has come.
        self.progress().wakes_ns = until_ns.map(|until_ns| until_ns + 1);
    }
}
