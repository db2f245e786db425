//! Draining the runtime, a client or a session: no new runs, unsent ones end as cancelled at once, sent ones may still be
//! answered until the deadline, and what was given up is reported by key. And cancelling one run.

use crate::callback::{CallbackKey, Cancel};
use crate::command::Command;
use crate::guard::guard;
use crate::io::monotonic_ns;
use crate::keys::{ClientId, SessionKey};
use crate::log::{LogKind, LogLevel};
use crate::registry::Shared;
use crate::runtime::{Error, Runtime};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// What a drain left behind.
///
/// # Examples
///
/// ```
/// use ringback::{Error, Runtime};
/// use std::time::Duration;
///
/// fn stop(runtime: &Runtime) -> Result<(), Error> {
///     let report = runtime.shutdown(Duration::from_secs(5))?;
///     for key in &report.abandoned {
///         println!("{key:?} was sent, and not answered");
///     }
///     println!("{} were never sent", report.unsent.len());
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Callbacks that were sent and not answered by the deadline: the client may or may not have executed them.
    pub abandoned: Vec<CallbackKey>,
    /// Callbacks that were ended before they were sent: the client knows nothing of them.
    pub unsent: Vec<CallbackKey>,
    /// Runs that have not completed: 0, unless a hook did not return in time. Not told of a session.
    pub in_flight: u64,
}

/// What one reactor has ended for a drain.
#[derive(Debug, Default)]
pub(crate) struct Cancelled {
    pub abandoned: Vec<CallbackKey>,
    pub unsent: Vec<CallbackKey>,
}

/// Longer than this is as good as for ever, and keeps the arithmetic of deadlines from overflowing.
pub(crate) const PATIENCE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// One drain, shared by the thread that asked and the reactors that it concerns.
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
    /// One for each reactor that is done. Shared, so that nobody copies keys while a reactor waits for the lock.
    ended: Vec<Arc<Cancelled>>,
    waker: Option<Waker>,
}

impl DrainJob {
    pub fn new(deadline_ns: u64, reactors: usize) -> Self {
        let state = Mutex::new(State { reactors_left: reactors, ..State::default() });
        DrainJob { deadline_ns, state, ended: Condvar::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A reactor has nothing in flight any more.
    pub fn reactor_done(&self, ended: Arc<Cancelled>) {
        let mut state = self.lock();
        state.ended.push(ended);
        state.reactors_left -= 1;
        if state.reactors_left == 0 {
            self.ended.notify_all();
            let waker = state.waker.take();
            drop(state);
            // A waker is the embedder's code too.
            let _ = waker.map(|waker| guard(|| waker.wake()));
        }
    }

    /// What it has ended so far.
    fn report(&self) -> DrainReport {
        let ended = self.lock().ended.clone();
        let mut report = DrainReport::default();
        for Cancelled { abandoned, unsent } in ended.iter().map(Arc::as_ref) {
            report.abandoned.extend_from_slice(abandoned);
            report.unsent.extend_from_slice(unsent);
        }
        report
    }

    /// The report, once every reactor is done.
    #[cfg(feature = "simulator")]
    pub fn poll(&self) -> Option<DrainReport> {
        self.is_over().then(|| self.report())
    }

    #[cfg(any(test, feature = "simulator"))]
    pub fn is_over(&self) -> bool {
        self.lock().reactors_left == 0
    }

    /// Waits for every reactor until `until`.
    pub fn wait(&self, until: Instant) -> DrainReport {
        let mut state = self.lock();
        while state.reactors_left > 0 {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            state = self.ended.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        drop(state);
        self.report()
    }
}

/// A drain under way, of a thread that must not be blocked by it: a future that any executor drives. It ends as soon as
/// every run has; not before that if a hook does not return, or if nobody polls a
/// [completion queue](crate::CompletionQueue). Does not keep the runtime alive.
///
/// # Examples
///
/// ```
/// use ringback::{DrainReport, Runtime};
/// use std::time::Duration;
///
/// async fn drain(runtime: Runtime) -> DrainReport {
///     runtime.start_drain(Duration::from_secs(5)).await
/// }
/// ```
#[must_use = "whether it has ended is known here alone"]
pub struct Drain {
    shared: Arc<Shared>,
    job: Arc<DrainJob>,
}

impl Drain {
    /// What it has ended so far.
    pub fn report(&self) -> DrainReport {
        let mut report = self.job.report();
        report.in_flight = self.shared.clients.in_flight();
        report
    }
}

impl Future for Drain {
    type Output = DrainReport;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<DrainReport> {
        let mut state = self.job.lock();
        if state.reactors_left > 0 {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        let report = self.report();
        log(&self.shared, None, &report);
        Poll::Ready(report)
    }
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Drain").field(&self.report()).finish()
    }
}

/// Logs a drain that did not go well.
fn log(shared: &Shared, client: Option<ClientId>, report: &DrainReport) {
    let (abandoned, in_flight) = (report.abandoned.len(), report.in_flight);
    if abandoned > 0 || in_flight > 0 {
        let text = format_args!(
            "a drain has given up {abandoned} callbacks that were not answered, and left {in_flight} that did not end"
        );
        shared.log(None, LogKind::Drain, LogLevel::Warn, client, text);
    }
}

/// How long a drain waits past its deadline for hooks to return.
const HOOK_PATIENCE: Duration = Duration::from_secs(1);

impl Runtime {
    /// Ends all callbacks: no new run is accepted, runs not sent yet end at once as cancelled, sent ones may be answered
    /// until `patience` is over and are then given up and reported by key.
    ///
    /// Ends one second after `patience` at the latest, whatever hooks and clients do. A thread that is to poll a
    /// [completion queue](crate::CompletionQueue) meanwhile uses [`Runtime::start_drain`]. [`Error::InHook`] from a hook.
    pub fn drain(&self, patience: Duration) -> Result<DrainReport, Error> {
        let mut report = self.wait_for(patience, |deadline_ns| Ok(self.begin_drain(deadline_ns)))?;
        report.in_flight = self.shared().clients.in_flight();
        log(self.shared(), None, &report);
        Ok(report)
    }

    /// [`Runtime::drain`] without waiting for it. It goes on if the future is dropped.
    pub fn start_drain(&self, patience: Duration) -> Drain {
        let deadline_ns = monotonic_ns() + patience.min(PATIENCE_MAX).as_nanos() as u64;
        Drain { shared: Arc::clone(self.shared()), job: self.begin_drain(deadline_ns) }
    }

    /// Shuts the door, and tells the reactors to end what is inside by `deadline_ns` of their clock.
    pub(crate) fn begin_drain(&self, deadline_ns: u64) -> Arc<DrainJob> {
        let shared = self.shared();
        shared.closed.store(true, SeqCst);
        fence(SeqCst); // before the look at the table; partner: `add_client`
        for client in shared.clients.each() {
            // Whether it was the last one out is found by the reactor, which looks at the counts.
            let _ = client.in_flight.close();
        }
        let job = Arc::new(DrainJob::new(deadline_ns, self.reactors()));
        shared.begin_drain(Arc::clone(&job));
        job
    }

    /// [`Runtime::drain`] of one client. Its callbacks answer [`TryRun::Closed`](crate::TryRun::Closed) from here on;
    /// what is left to do with it is [`Runtime::remove_client`].
    pub fn drain_client(&self, client: ClientId, patience: Duration) -> Result<DrainReport, Error> {
        let mut report = self.wait_for(patience, |deadline_ns| self.begin_drain_client(client, deadline_ns))?;
        // Removed meanwhile: then nothing of it is in flight any more.
        report.in_flight = self.client(client).map_or(0, |known| known.in_flight.count());
        log(self.shared(), Some(client), &report);
        Ok(report)
    }

    /// The beginning of [`Runtime::drain_client`].
    pub(crate) fn begin_drain_client(&self, client: ClientId, deadline_ns: u64) -> Result<Arc<DrainJob>, Error> {
        let job = Arc::new(DrainJob::new(deadline_ns, 1));
        self.with_client(client, |known| {
            let _ = known.in_flight.close();
            self.shared().post_home(known, Command::DrainClient { client, job: Arc::clone(&job) });
        })?;
        Ok(job)
    }

    /// Ends what is out on one session, to be able to answer a DESTROY_SESSION: nothing new is sent on it, sent calls may
    /// be answered until `patience` is over and are then given up and reported by key. Callbacks that are not sent yet
    /// are none of its business: they go over another session of the client, or wait for one; only CB_RECALL_SLOT ends
    /// with its session. What is left to do is [`Runtime::remove_session`].
    pub fn drain_session(&self, session: SessionKey, patience: Duration) -> Result<DrainReport, Error> {
        let report = self.wait_for(patience, |deadline_ns| self.begin_drain_session(session, deadline_ns))?;
        log(self.shared(), Some(session.client), &report);
        Ok(report)
    }

    /// The beginning of [`Runtime::drain_session`].
    pub(crate) fn begin_drain_session(&self, session: SessionKey, deadline_ns: u64) -> Result<Arc<DrainJob>, Error> {
        let known = self.client(session.client)?;
        let job = Arc::new(DrainJob::new(deadline_ns, 1));
        self.shared().post_home(known, Command::DrainSession { session, job: Arc::clone(&job) });
        Ok(job)
    }

    /// Ends the run of one callback as [`Outcome::Cancelled`](crate::Outcome::Cancelled), at once and without waiting for
    /// it: the hooks tell, and so does [`Runtime::wait`]. Requests that would have made it run again go with it. The
    /// callback stays. Walks the queues of its client.
    pub fn cancel(&self, key: CallbackKey) -> Cancel {
        let shared = self.shared();
        let Some(entry) = shared.slab.get(key.index) else { return Cancel::Stale };
        // Read before the transition that confirms the generation.
        let client = entry.client();
        let answer = entry.word().cancel(key.generation);
        if let (Cancel::Asked, Some(known)) = (answer, shared.clients.get(client)) {
            shared.post_home(known, Command::Cancel(client));
        }
        answer
    }

    /// Begins a drain with a deadline on the reactors' clock, and waits for it a little longer than that.
    fn wait_for(
        &self,
        patience: Duration,
        begin: impl FnOnce(u64) -> Result<Arc<DrainJob>, Error>,
    ) -> Result<DrainReport, Error> {
        self.may_wait()?;
        let patience = patience.min(PATIENCE_MAX);
        let until = Instant::now() + patience + HOOK_PATIENCE;
        let job = begin(monotonic_ns() + patience.as_nanos() as u64)?;
        Ok(job.wait(until))
    }
}
