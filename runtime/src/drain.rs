//! Draining: no new runs, unsent ones end as cancelled at once, sent ones may still be answered until the deadline, and
//! what was given up is reported by key.

use crate::callback::CallbackKey;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// What a drain left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Callbacks that were sent and not answered by the deadline: the client may or may not have executed them.
    pub abandoned: Vec<CallbackKey>,
    /// Runs that were ended before they were sent.
    pub cancelled_unsent: u64,
    /// Runs that have not completed. Not 0 only if a hook did not return in time.
    pub in_flight: u64,
}

/// Longer than this is as good as for ever, and keeps the arithmetic of deadlines from overflowing.
pub(crate) const PATIENCE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// One drain of the runtime, shared by the thread that asked and the reactors.
#[derive(Debug)]
pub(crate) struct DrainJob {
    /// On the reactors' clock.
    pub deadline_ns: u64,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    reactors_left: usize,
    report: DrainReport,
}

impl DrainJob {
    pub fn new(deadline_ns: u64, reactors: usize) -> Self {
        let state = Mutex::new(State { reactors_left: reactors, report: DrainReport::default() });
        DrainJob { deadline_ns, state, ended: Condvar::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A reactor has nothing in flight any more.
    pub fn reactor_done(&self, abandoned: &[CallbackKey], cancelled_unsent: u64) {
        let mut state = self.lock();
        state.report.abandoned.extend_from_slice(abandoned);
        state.report.cancelled_unsent += cancelled_unsent;
        state.reactors_left -= 1;
        if state.reactors_left == 0 {
            self.ended.notify_all();
        }
    }

    /// The report, once every reactor is done.
    #[cfg(feature = "simulator")]
    pub fn poll(&self) -> Option<DrainReport> {
        let state = self.lock();
        (state.reactors_left == 0).then(|| state.report.clone())
    }

    /// Waits for every reactor until `until`.
    pub fn wait(&self, until: Instant) -> DrainReport {
        let mut state = self.lock();
        while state.reactors_left > 0 {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            state = self.ended.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        state.report.clone()
    }
}
