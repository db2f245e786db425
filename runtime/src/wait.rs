//! Waiting for the end of a run: a plain future that any executor drives, or the embedder's own thread until a deadline.
//! A CB_GETATTR is what one waits for: its result is wanted here and now, by however many there are.

use crate::callback::{self, CallbackKey, TryRun, Waiter};
use crate::hooks::Outcome;
use crate::registry::Shared;
use crate::runtime::Runtime;
use ringback_rpc::nfs4::Status;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Bytes of a result that are kept for who waits. A CB_GETATTR of size, change and the two delegated times takes 60.
const RESULTS_BYTES_MAX: usize = 512;

/// What a waiter is told.
pub(crate) type Answer = Result<Ended, WaitError>;

/// How a run ended, for who waited for it (with a [completion queue](crate::CompletionQueue): before the embedder has
/// taken the completion off): an [`Outcome`] with its own copy of the result.
///
/// # Examples
///
/// ```
/// use ringback::Ended;
/// use ringback_rpc::nfs4::Status;
///
/// fn is_answered(ended: &Ended) -> bool {
///     ended.status() == Some(Status::NFS4_OK) && ended.is_whole()
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Ended {
    outcome: Outcome<'static>,
    results: [u8; RESULTS_BYTES_MAX],
    /// Of the result, which may be longer than what is kept.
    results_bytes: usize,
}

impl Ended {
    /// Copies an outcome. Allocates nothing: the place for the copy came with the waiter.
    pub(crate) fn new(outcome: &Outcome<'_>) -> Self {
        let mut kept = [0; RESULTS_BYTES_MAX];
        let results = match outcome {
            Outcome::Replied { results, .. } => *results,
            _ => &[],
        };
        let len = results.len().min(RESULTS_BYTES_MAX);
        kept[..len].copy_from_slice(&results[..len]);
        Ended { outcome: outcome.without_results(), results: kept, results_bytes: results.len() }
    }

    /// What somebody is told who waited for `waiter`, when a run of `ran` has ended in the same entry.
    pub(crate) fn told_to(&self, waiter: CallbackKey, ran: CallbackKey) -> Answer {
        if waiter == ran { Ok(*self) } else { Err(WaitError::Stale) }
    }

    /// The outcome, as `done` saw it. Of a result that [is not whole](Ended::is_whole) it has the beginning.
    pub fn outcome(&self) -> Outcome<'_> {
        match self.outcome {
            Outcome::Replied { status, .. } => {
                Outcome::Replied { status, results: &self.results[..self.results_bytes.min(RESULTS_BYTES_MAX)] }
            }
            other => other,
        }
    }

    /// The status with which the client answered, if it did.
    pub fn status(&self) -> Option<Status> {
        match self.outcome {
            Outcome::Replied { status, .. } => Some(status),
            _ => None,
        }
    }

    /// Whether all of the result was kept: up to 512 bytes are.
    pub fn is_whole(&self) -> bool {
        self.results_bytes <= RESULTS_BYTES_MAX
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ended").field(&self.outcome()).finish()
    }
}

/// Why there is nothing to wait for.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, Runtime, WaitError};
/// use std::time::Duration;
///
/// fn is_over(runtime: &Runtime, key: CallbackKey) -> bool {
///     !matches!(runtime.wait_blocking(key, Duration::from_secs(1)), Err(WaitError::TimedOut))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// No run is going on. One that was asked for before has ended: its hooks have been called.
    #[error("no run is going on")]
    Idle,
    /// The outcome of the run that is going on is decided already, and may be older than the question. Ask for another
    /// run.
    #[error("the current run is decided already")]
    TooLate,
    /// There is no such callback any more.
    #[error("no such callback")]
    Stale,
    /// The client or the runtime is closed, and no run of its callbacks is left.
    #[error("the client or the runtime is closed")]
    Closed,
    /// The run has not ended in time. It goes on.
    #[error("the run did not end in time")]
    TimedOut,
    /// Blocking was asked for in a hook, on the thread that has to end the run.
    #[error("called from a hook, where nothing may be waited for")]
    InHook,
}

/// The end of a run, as a future: see [`Runtime::wait`]. It may be dropped at any time.
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, Ended, Runtime, WaitError};
///
/// /// A CB_GETATTR: several who ask at once share one, and all get its result.
/// async fn ask_the_holder(runtime: &Runtime, getattr: CallbackKey) -> Result<Ended, WaitError> {
///     let (_, wait) = runtime.run_and_wait(getattr);
///     wait.await
/// }
/// ```
#[must_use = "a future does nothing unless it is polled"]
pub struct Wait(State);

enum State {
    Refused(WaitError),
    Waiting { waiter: Arc<Waiter<Answer>>, shared: Arc<Shared>, reactor: usize },
}

impl Wait {
    fn in_hook(&self) -> bool {
        matches!(&self.0, State::Waiting { shared, .. } if shared.is_in_hook())
    }

    fn answer(&self, waker: &Waker) -> Option<Answer> {
        match &self.0 {
            State::Refused(error) => Some(Err(*error)),
            State::Waiting { waiter, .. } => waiter.poll(waker).copied(),
        }
    }
}

impl Future for Wait {
    type Output = Result<Ended, WaitError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer(cx.waker()).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let State::Waiting { waiter, shared, reactor } = &self.0 {
            let port = &shared.reactors[*reactor];
            if port.waits.depart(waiter) {
                port.post(crate::command::Command::ForgetWaiters);
            }
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            State::Refused(error) => f.debug_tuple("Wait").field(error).finish(),
            State::Waiting { .. } => f.write_str("Wait(..)"),
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Runtime {
    /// Waits for the end of the run that is going on now; any number may. The future works in any executor, begins to
    /// wait here and not when it is first polled, and costs the reactor nothing if it is dropped. A run of a drained
    /// client ends too, so it is always answered.
    ///
    /// Between a `try_run` and this call the run may end, which is told as [`WaitError::Idle`]:
    /// [`Runtime::run_and_wait`] cannot miss it.
    pub fn wait(&self, key: CallbackKey) -> Wait {
        let shared = self.shared();
        let refused = |error| Wait(State::Refused(error));
        if shared.is_forked() {
            return refused(WaitError::Closed);
        }
        let Some(entry) = shared.slab.get(key.index) else { return refused(WaitError::Stale) };
        // Read before the transition that confirms the generation; without that it is nobody's.
        let client = entry.client();
        let Some(known) = shared.clients.get(client) else { return refused(WaitError::Stale) };
        // A visit: a client that moves takes with it who waits at its old home.
        let register = |reactor: usize| (reactor, shared.reactors[reactor].waits.register(entry.word(), key, client));
        let (reactor, registered) = shared.visit_home(known, register);
        match registered {
            Ok(waiter) => {
                let wait = Wait(State::Waiting { waiter, shared: Arc::clone(shared), reactor });
                // Then the run is one that was just refused, or there is nobody to end it.
                if (known.in_flight.is_over() || shared.reactors[reactor].has_ended())
                    && wait.answer(Waker::noop()).is_none()
                {
                    return refused(WaitError::Closed);
                }
                wait
            }
            Err(callback::Wait::TooLate) => refused(WaitError::TooLate),
            Err(callback::Wait::Stale) => refused(WaitError::Stale),
            Err(callback::Wait::Idle | callback::Wait::Registered) => refused(WaitError::Idle),
        }
    }

    /// [`Runtime::try_run`] and [`Runtime::wait`] in one: of a run that is submitted or coalesced into, the end is not
    /// missed. Only [`TryRun::Rearmed`] goes with [`WaitError::TooLate`], because the run that serves the request has not
    /// begun. Unlike `try_run` this allocates.
    pub fn run_and_wait(&self, key: CallbackKey) -> (TryRun, Wait) {
        loop {
            let mut wait = None;
            let asked = self.shared().ask(key, || wait = Some(self.wait(key)));
            let error = match asked {
                TryRun::Submitted | TryRun::Coalesced => {
                    let wait = wait.unwrap_or_else(|| self.wait(key));
                    match wait.0 {
                        // Coalesced, and decided since: ask again.
                        State::Refused(WaitError::Idle | WaitError::TooLate) => continue,
                        _ => return (asked, wait),
                    }
                }
                TryRun::Rearmed => WaitError::TooLate,
                TryRun::Stale | TryRun::Dying => WaitError::Stale,
                TryRun::Closed => WaitError::Closed,
            };
            return (asked, Wait(State::Refused(error)));
        }
    }

    /// As [`Runtime::wait`], on the caller's own thread and for `patience` at most.
    pub fn wait_blocking(&self, key: CallbackKey, patience: Duration) -> Result<Ended, WaitError> {
        if self.shared().is_in_hook() {
            return Err(WaitError::InHook);
        }
        self.wait(key).block(patience)
    }
}

impl Wait {
    /// Waits on the caller's own thread, for `patience` at most. An error from a hook.
    pub fn block(self, patience: Duration) -> Result<Ended, WaitError> {
        if self.in_hook() {
            return Err(WaitError::InHook);
        }
        block(patience, |waker| self.answer(waker)).unwrap_or(Err(WaitError::TimedOut))
    }
}

/// Sleeps until there is an answer, for `patience` at most.
pub(crate) fn block<T>(patience: Duration, answer: impl Fn(&Waker) -> Option<T>) -> Option<T> {
    // A time too far away to be told is for ever.
    let until = Instant::now().checked_add(patience);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Some(answer) = answer(&waker) {
            return Some(answer);
        }
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
            None => thread::park(),
        }
    }
}
