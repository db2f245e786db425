//! What everything in a simulation shares: the virtual clock, the trace, and the list of what went wrong.

use super::coverage::{Coverage, Kind};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a checker holds the code to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// R1: a callback has one owner at a time, on its home reactor.
    OneOwner,
    /// R3: one `done` for each outcome, one `release` for each run, and the reference goes back once.
    OneCompletion,
    /// R9: the hooks of a run come in their order.
    HookOrder,
    /// An answer of the runtime (`try_run`, `remove`, `insert`) is not the reference model's.
    Answer,
    /// R2: in-flight is the number of runs, and 0 at the end; the counters add up.
    InFlight,
    /// An outcome says what did not happen.
    Outcome,
    /// A run ends by its deadline.
    Deadline,
    /// No session slot is lost.
    Slots,
    /// Nothing new goes out with an old program or credential, on a removed session, or where nothing was bound.
    Stale,
    /// A call that is sent again is the same bytes.
    SameBytes,
    /// Sequence ids are neither skipped nor used for two requests.
    SequenceIds,
    /// What goes over the wire is well formed.
    Wire,
    /// A reactor does not turn while nothing can move, and does not send for ever.
    BoundedWork,
    /// Every run ends, every drain ends, every reactor stops.
    Ends,
    /// Memory: every entry, buffer, connection and reference comes back.
    Leak,
    /// The reactor keeps to the contract of the seam.
    Seam,
    /// Who waits for a run is told how it ended.
    Waiters,
    /// A group is settled once, when its last member is, and says what became of them.
    Groups,
    /// Fore-channel calls are answered once, on their connection.
    Fore,
    /// A recall that is not returned in time is told as overdue, once.
    Overdue,
    /// Nobody gets more than a limit or a share allows, nor less than a floor; what is counted for it is right.
    Limits,
    /// The code panicked.
    Panic,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 22] = [
        Rule::OneOwner,
        Rule::OneCompletion,
        Rule::HookOrder,
        Rule::Answer,
        Rule::InFlight,
        Rule::Outcome,
        Rule::Deadline,
        Rule::Slots,
        Rule::Stale,
        Rule::SameBytes,
        Rule::SequenceIds,
        Rule::Wire,
        Rule::BoundedWork,
        Rule::Ends,
        Rule::Leak,
        Rule::Seam,
        Rule::Waiters,
        Rule::Groups,
        Rule::Fore,
        Rule::Overdue,
        Rule::Limits,
        Rule::Panic,
    ];
}

/// Something that must not happen, and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was broken.
    pub rule: Rule,
    /// What was seen.
    pub what: String,
    /// When, on the virtual clock.
    pub at_ns: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}: {}", self.rule, Seconds(self.at_ns), self.what)
    }
}

struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// More failures than these say nothing new.
const FAILURES_MAX: usize = 8;

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct Journal(Arc<Inner>);

struct Inner {
    trace: bool,
    now_ns: AtomicU64,
    /// Things that happened: what a turn that does something adds to.
    happened: AtomicU64,
    /// A digest of everything that happened, to tell one history from another.
    digest: AtomicU64,
    failures: Mutex<Vec<Failure>>,
    reached: [AtomicU64; Kind::ALL.len()],
}

impl Journal {
    pub(crate) fn new(now_ns: u64, trace: bool) -> Self {
        Journal(Arc::new(Inner {
            trace,
            now_ns: AtomicU64::new(now_ns),
            happened: AtomicU64::new(0),
            digest: AtomicU64::new(0),
            failures: Mutex::default(),
            reached: [const { AtomicU64::new(0) }; Kind::ALL.len()],
        }))
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.0.now_ns.load(Relaxed)
    }

    pub(crate) fn set_now_ns(&self, now_ns: u64) {
        debug_assert!(now_ns >= self.now_ns(), "time goes forward");
        self.0.now_ns.store(now_ns, Relaxed);
    }

    /// Something happened.
    pub(crate) fn note(&self, what: impl FnOnce() -> String, mark: u64) {
        self.0.happened.fetch_add(1, Relaxed);
        let digest = self.0.digest.load(Relaxed) ^ mark ^ self.now_ns();
        self.0.digest.store(digest.wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23), Relaxed);
        self.trace(what);
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.0.trace {
            eprintln!("{} {}", Seconds(self.now_ns()), what());
        }
    }

    /// Counts that the simulation has come across it.
    pub(crate) fn reach(&self, kind: impl Into<Option<Kind>>) {
        if let Some(kind) = kind.into() {
            self.0.reached[kind as usize].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn coverage(&self) -> Coverage {
        Coverage::new(std::array::from_fn(|kind| self.0.reached[kind].load(Relaxed)))
    }

    pub(crate) fn happened(&self) -> u64 {
        self.0.happened.load(Relaxed)
    }

    pub(crate) fn digest(&self) -> u64 {
        self.0.digest.load(Relaxed)
    }

    fn failures_locked(&self) -> MutexGuard<'_, Vec<Failure>> {
        self.0.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fail(&self, rule: Rule, what: String) {
        let failure = Failure { rule, what, at_ns: self.now_ns() };
        self.trace(|| format!("FAILED {failure}"));
        let mut failures = self.failures_locked();
        if failures.len() < FAILURES_MAX {
            failures.push(failure);
        }
    }

    /// `what` must hold.
    pub(crate) fn check(&self, rule: Rule, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(rule, what());
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.failures_locked().is_empty()
    }

    pub(crate) fn take_failures(&self) -> Vec<Failure> {
        std::mem::take(&mut *self.failures_locked())
    }
}
