//! The checker of waiters: who waits for a run is told how it ended, once it has ended and no earlier, and is woken.

use super::coverage::Kind;
use super::journal::{Journal, Rule};
use ringback::{Outcome, Wait, WaitError};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

/// A run, by the cookie of its callback and its number.
pub(crate) type RunId = (u64, u32);

/// How a run ended, and the result that came with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    outcome: Outcome<'static>,
    results: Vec<u8>,
}

impl End {
    pub(crate) fn new(outcome: &Outcome<'_>) -> End {
        let results = match outcome {
            Outcome::Replied { results, .. } => results.to_vec(),
            _ => Vec::new(),
        };
        End { outcome: outcome.without_results(), results }
    }
}

/// The waker of somebody who waits.
#[derive(Default)]
pub(crate) struct Alarm {
    rings: AtomicU32,
}

impl Alarm {
    /// How often it was rung.
    pub(crate) fn rings(&self) -> u32 {
        self.rings.load(Relaxed)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rings.fetch_add(1, Relaxed);
    }
}

struct Waiter {
    run: RunId,
    wait: Wait,
    alarm: Arc<Alarm>,
    /// It has been polled in vain, so that it must be woken.
    asleep: bool,
}

/// See the [module](self).
pub(crate) struct Waiters {
    journal: Journal,
    waiting: Vec<Waiter>,
    /// A planted fault: nobody is woken.
    muffled: bool,
}

impl Waiters {
    pub(crate) fn new(journal: Journal, muffled: bool) -> Self {
        Waiters { journal, waiting: Vec::new(), muffled }
    }

    /// Somebody waits. `expected`: for the end of this run, or why not.
    pub(crate) fn add(&mut self, mut wait: Wait, expected: Result<RunId, WaitError>) {
        let run = match expected {
            Ok(run) => run,
            Err(error) => {
                self.journal.reach(Kind::WaiterRefused);
                let answer = Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop()));
                let told = matches!(&answer, Poll::Ready(Err(told)) if *told == error);
                return self.journal.check(Rule::Waiters, told, || format!("{answer:?}, expected was {error:?}"));
            }
        };
        self.waiting.push(Waiter { run, wait, alarm: Arc::default(), asleep: false });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nobody waits any longer: the process is gone.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Somebody waits no longer.
    pub(crate) fn give_up(&mut self, at: usize) {
        if at < self.waiting.len() {
            self.journal.reach(Kind::WaiterLeft);
            self.waiting.swap_remove(at);
        }
    }

    /// Looks at everybody who waits. `ends` has every run that has ended and is waited for.
    pub(crate) fn look(&mut self, ends: &HashMap<RunId, End>) {
        let (journal, muffled) = (self.journal.clone(), self.muffled);
        self.waiting.retain_mut(|waiter| {
            let end = ends.get(&waiter.run);
            let slept = waiter.asleep && waiter.alarm.rings() == 0;
            if slept && end.is_none() {
                return true;
            }
            journal.check(Rule::Waiters, !slept, || format!("nobody woke who waited for {:?}", waiter.run));
            let waker = if muffled { Waker::noop().clone() } else { Waker::from(Arc::clone(&waiter.alarm)) };
            let answer = match Pin::new(&mut waiter.wait).poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => {
                    journal.check(Rule::Waiters, end.is_none(), || format!("{:?} has ended: {end:?}", waiter.run));
                    waiter.asleep = true;
                    waiter.alarm.rings.store(0, Relaxed);
                    return true;
                }
                Poll::Ready(answer) => answer,
            };
            journal.reach(Kind::WaiterTold);
            let told = answer.map(|ended| End::new(&ended.outcome()));
            let right = matches!((&told, end), (Ok(told), Some(end)) if told == end);
            journal.check(Rule::Waiters, right, || format!("{:?} ended as {end:?}, told was {told:?}", waiter.run));
            false
        });
    }
}
