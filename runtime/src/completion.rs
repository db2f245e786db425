//! Completions on a queue, for an embedder that wants them on a thread of its own and not in hooks on a reactor.
//!
//! A run whose outcome is final is linked into the queue through its entry, which it still owns (RUNNING and SETTLED): it
//! takes no memory, and cannot overflow. The entry's `attempts` and `started_us` are of no other use by then; they hold
//! the ending and the age. The embedder takes completions in batches. With the next batch it gives the last one back, each
//! run to the home reactor of its client, which ends it as it ends every other: `release`, the transition, the reference,
//! the in-flight count (R3). So all of that stays with one thread, and what an embedder is told about a callback is never
//! told twice at a time.
//!
//! A reactor that was told to end does not wait for embedders: who gives back to one that has ended ends the run himself.

use crate::callback::{CallbackEntry, CallbackKey, Chain, Finish, Inbox, Parking};
use crate::command::Command;
use crate::hooks::{Hooks, Outcome, Run};
use crate::keys::ClientId;
use crate::registry::{ClientShared, ReactorPort, Shared};
use crate::runtime::Runtime;
use ringback_rpc::backchannel::{OutcomeKind, PathFaultKind};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// How a run ended, in short: an [`Outcome`] without the bytes and the details.
///
/// # Examples
///
/// ```
/// use ringback::{Ending, Outcome};
/// use ringback_rpc::nfs4::Status;
///
/// let outcome = Outcome::Replied { status: Status::NFS4_OK, results: &[] };
/// assert_eq!(Ending::from(&outcome), Ending::Replied(Status::NFS4_OK));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The client answered, with this status. One that no RFC defines is told as NFS4ERR_SERVERFAULT.
    Replied(Status),
    /// See [`Outcome::Refused`].
    Refused,
    /// See [`Outcome::Unencodable`].
    Unencodable,
    /// See [`Outcome::TimedOut`].
    TimedOut {
        /// It was sent at least once.
        sent: bool,
    },
    /// See [`Outcome::PathDown`].
    PathDown,
    /// See [`Outcome::Courtesy`].
    Courtesy,
    /// See [`Outcome::Cancelled`].
    Cancelled {
        /// It was sent at least once.
        sent: bool,
    },
    /// See [`Outcome::DeliveredUnknown`].
    DeliveredUnknown,
    /// See [`Outcome::Fault`].
    Fault(PathFaultKind),
}

/// The endings without a status of the client, by their codes behind those of all statuses.
const OTHERS: [Ending; 16] = [
    Ending::Refused,
    Ending::Unencodable,
    Ending::TimedOut { sent: false },
    Ending::TimedOut { sent: true },
    Ending::PathDown,
    Ending::Courtesy,
    Ending::Cancelled { sent: false },
    Ending::Cancelled { sent: true },
    Ending::DeliveredUnknown,
    Ending::Fault(PathFaultKind::Denied),
    Ending::Fault(PathFaultKind::NotExecuted),
    Ending::Fault(PathFaultKind::NoResults),
    Ending::Fault(PathFaultKind::WrongEcho),
    Ending::Fault(PathFaultKind::Malformed),
    Ending::Fault(PathFaultKind::NoSlots),
    Ending::Fault(PathFaultKind::NoAnswer),
];

/// An ending is kept in one byte of the entry.
const _: () = assert!(Ending::CODES <= u8::MAX as usize + 1);

impl Ending {
    /// How many codes there are.
    pub(crate) const CODES: usize = Status::ALL.len() + OTHERS.len();

    pub(crate) fn to_code(self) -> u8 {
        let code = match self {
            Ending::Replied(status) => {
                Status::ALL.binary_search(&status).or_else(|_| Status::ALL.binary_search(&Status::NFS4ERR_SERVERFAULT))
            }
            other => OTHERS.iter().position(|o| *o == other).map(|at| Status::ALL.len() + at).ok_or(0),
        };
        match code {
            Ok(code) => code as u8,
            Err(_) => unreachable!("{self:?} has no code"),
        }
    }

    pub(crate) fn from_code(code: u8) -> Self {
        let code = usize::from(code);
        match (Status::ALL.get(code), OTHERS.get(code.wrapping_sub(Status::ALL.len()))) {
            (Some(status), _) => Ending::Replied(*status),
            (_, Some(ending)) => *ending,
            _ => unreachable!("{code} is the code of no ending"),
        }
    }

    /// A word for it: the RFC's name of a status, and what [`OutcomeKind`] says of the others, with the fault of one.
    pub fn name(self) -> &'static str {
        match self {
            Ending::Replied(status) => status.name().unwrap_or("NFS4ERR_SERVERFAULT"),
            Ending::Refused => OutcomeKind::Refused.name(),
            Ending::Unencodable => OutcomeKind::Unencodable.name(),
            Ending::TimedOut { sent: true } => OutcomeKind::TimedOut.name(),
            Ending::TimedOut { sent: false } => OutcomeKind::TimedOutUnsent.name(),
            Ending::PathDown => OutcomeKind::PathDown.name(),
            Ending::Courtesy => OutcomeKind::Courtesy.name(),
            Ending::Cancelled { sent: true } => OutcomeKind::Cancelled.name(),
            Ending::Cancelled { sent: false } => OutcomeKind::CancelledUnsent.name(),
            Ending::DeliveredUnknown => OutcomeKind::DeliveredUnknown.name(),
            Ending::Fault(PathFaultKind::Denied) => "fault_denied",
            Ending::Fault(PathFaultKind::NotExecuted) => "fault_not_executed",
            Ending::Fault(PathFaultKind::NoResults) => "fault_no_results",
            Ending::Fault(PathFaultKind::WrongEcho) => "fault_wrong_echo",
            Ending::Fault(PathFaultKind::Malformed) => "fault_malformed",
            Ending::Fault(PathFaultKind::NoSlots) => "fault_no_slots",
            Ending::Fault(PathFaultKind::NoAnswer) => "fault_no_answer",
            // All of them are above, as a test sees.
            Ending::Fault(_) => "fault",
        }
    }

    /// Whether a request to run again that came meanwhile stands.
    pub(crate) fn keeps_rearm(self) -> bool {
        !matches!(self, Ending::Cancelled { .. } | Ending::Courtesy)
    }
}

impl From<&Outcome<'_>> for Ending {
    #[inline(always)]
    fn from(outcome: &Outcome<'_>) -> Self {
        match *outcome {
            Outcome::Replied { status, .. } => Ending::Replied(status),
            Outcome::Refused => Ending::Refused,
            Outcome::TimedOut { sent } => Ending::TimedOut { sent },
            Outcome::PathDown => Ending::PathDown,
            Outcome::Courtesy => Ending::Courtesy,
            Outcome::Cancelled { sent } => Ending::Cancelled { sent },
            Outcome::DeliveredUnknown => Ending::DeliveredUnknown,
            Outcome::Fault(fault) => Ending::Fault(fault.kind()),
            // The other outcome there is, and whatever may come: there is nothing that the client has said.
            _ => Ending::Unencodable,
        }
    }
}

/// The end of one run. There is exactly one for each run that was accepted (rule R3).
///
/// # Examples
///
/// ```
/// use ringback::{Completion, Ending};
///
/// fn ended(completion: &Completion) {
///     let Completion { cookie, ending, age_ns, .. } = completion;
///     match ending {
///         Ending::Replied(status) => println!("{cookie}: {status:?} after {age_ns} ns"),
///         _ => println!("{cookie}: {ending:?}"),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// The callback.
    pub key: CallbackKey,
    /// The embedder's own value, given to [`insert`](Runtime::insert).
    pub cookie: u64,
    /// The client that was called.
    pub client: ClientId,
    /// Which operation.
    pub op: CallbackOp,
    /// How it ended.
    pub ending: Ending,
    /// Nanoseconds from the accepted `try_run` to the ending.
    pub age_ns: u64,
}

/// A queue of completions with a descriptor to poll: see [`Builder::completion_queues`](crate::Builder). Clones name the
/// same queue, and may be used from any thread; each completion is given to one of them. But whichever is polled releases
/// what any of them took last: a queue is worked by one thread at a time, and several threads have a queue each.
///
/// # Examples
///
/// ```
/// use ringback::{Completion, CompletionQueue};
///
/// /// The queue's descriptor is readable.
/// fn readable(queue: &CompletionQueue, ended: impl Fn(&Completion)) {
///     let mut batch = Vec::new();
///     while queue.poll(&mut batch, 64) > 0 {
///         batch.iter().for_each(&ended);
///     }
/// }
/// ```
#[derive(Clone)]
pub struct CompletionQueue {
    shared: Arc<Shared>,
    number: usize,
}

/// One queue, as reactors and the embedder share it.
pub(crate) struct QueueState {
    arrived: Inbox,
    /// Whether the embedder has found the queue empty and waits for its descriptor.
    parking: Parking,
    eventfd: OwnedFd,
    taken: Mutex<Taken>,
}

/// The embedder's side.
#[derive(Default)]
struct Taken {
    /// Taken off the queue and not given to the embedder yet.
    waiting: Chain,
    /// Given to the embedder and not released.
    given: Chain,
}

impl QueueState {
    pub fn new() -> Result<Self, io::Error> {
        let queue = QueueState {
            arrived: Inbox::new(),
            parking: Parking::new(),
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            taken: Mutex::default(),
        };
        // An embedder may well poll the descriptor before it looks into the queue for the first time.
        let _ = queue.parking.prepare_park(|| true);
        Ok(queue)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the descriptor readable, if somebody waits for that.
    fn signal(&self) {
        if self.parking.must_wake() {
            // It is open, and a counter that is full is readable.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// The descriptor is readable no more, until something comes. `false`: something has come already.
    fn park(&self) -> bool {
        // Fails if it was not readable.
        let _ = rustix::io::read(&self.eventfd, &mut [0u8; 8]);
        self.parking.prepare_park(|| self.arrived.is_empty())
    }
}

impl Wake for QueueState {
    fn wake(self: Arc<Self>) {
        self.signal();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.signal();
    }
}

impl Shared {
    /// The queue that takes the completions of a reactor's clients, if there is one.
    pub fn queue_of(&self, reactor: usize) -> Option<&QueueState> {
        self.queues.get(reactor.checked_rem(self.queues.len())?).map(Arc::as_ref)
    }

    /// Hands a run whose outcome is final to the embedder. The caller has no right to the entry any more.
    pub fn deliver(&self, queue: &QueueState, index: u32, run: &Run, outcome: &Outcome<'_>) {
        let Some(entry) = self.slab.get(index) else { return };
        entry.set_attempts(Ending::from(outcome).to_code());
        entry.set_started_us(u32::try_from(run.age_ns / 1000).unwrap_or(u32::MAX));
        queue.arrived.push(&self.slab, index);
        queue.signal();
    }

    /// A run that another process had handed over, as its entry says, comes again.
    #[cfg(feature = "checkpoint")]
    pub fn deliver_again(&self, queue: &QueueState, index: u32) {
        queue.arrived.push(&self.slab, index);
        queue.signal();
    }

    /// A run that [`deliver`](Shared::deliver) handed over: what the embedder is told, and the hooks.
    fn completion(&self, index: u32) -> Completion {
        let entry = &self.slab[index];
        let client = entry.client();
        let Some(known) = self.clients.get(client) else {
            unreachable!("entry {index} names client {client}, which was never registered")
        };
        let Ok(op) = CallbackOp::try_from(u32::from(entry.op())) else {
            unreachable!("entry {index} holds operation {}, which `insert` never stored", entry.op())
        };
        Completion {
            key: CallbackKey { index, generation: entry.word().snapshot().generation() },
            cookie: entry.cookie(),
            // In flight, so the generation of the client cannot have changed.
            client: ClientId { index: client, generation: known.generation() },
            op,
            ending: Ending::from_code(entry.attempts()),
            age_ns: u64::from(entry.started_us()) * 1000,
        }
    }

    /// The run that a completion was about, for its last hook, and how it ended.
    pub fn run_of(&self, index: u32) -> (Run, Ending) {
        let Completion { key, cookie, client, op, ending, age_ns } = self.completion(index);
        (Run { key, cookie, client, op, age_ns, own: false }, ending)
    }

    /// What follows the transition that has ended a run for good: the entry goes if it is `Finish::Free`, and the groups that
    /// waited are told. Then the caller gives back the reference and takes down the in-flight count.
    #[inline(always)]
    pub fn let_go(
        &self,
        entry: &CallbackEntry,
        client: &ClientShared,
        key: CallbackKey,
        ending: Ending,
        finished: Finish,
    ) {
        match finished {
            Finish::Free { .. } => self.free(key, client),
            Finish::Joined { .. } => self.settle_ended(entry, key, ending, client),
            Finish::Idle { .. } | Finish::RunAgain { .. } => {}
        }
    }

    /// The run's reference goes. `hooks` are those of the run.
    #[inline(always)]
    pub fn drop_reference(&self, port: &ReactorPort, hooks: &dyn Hooks, run: &Run) {
        self.call_of_run(port, "Hooks::drop_reference", run, || hooks.drop_reference(run.cookie));
    }

    /// Ends the runs that were given back to a reactor that has ended. Any thread may do it: each run is taken by one.
    pub fn finish_returned(&self, reactor: usize) {
        #[cfg(feature = "checkpoint")]
        if self.standstill.has_left() {
            // They end in another process.
            return;
        }
        let port = &self.reactors[reactor];
        let mut returned = port.returned.take_all(&self.slab);
        while let Some(index) = returned.pop(&self.slab) {
            if let Some(home) = self.home_of(self.slab[index].client()).filter(|home| *home != reactor) {
                self.reactors[home].post(Command::TakeBack(index));
                continue;
            }
            let (run, ending) = self.run_of(index);
            self.call_hook(|| self.call(port, "Hooks::release", Some(run.key), || self.hooks.release(&run)));
            port.stats.released.fetch_add(1, Relaxed);
            // There is nobody to run it again.
            let entry = &self.slab[index];
            let finished = entry.word().finish(false);
            let client = self.client_of(entry);
            self.call_hook(|| {
                self.let_go(entry, client, run.key, ending, finished);
                self.drop_reference(port, &*self.hooks, &run);
            });
            let _ = client.in_flight.leave();
        }
    }
}

impl CompletionQueue {
    pub(crate) fn new(shared: Arc<Shared>, number: usize) -> Option<Self> {
        (number < shared.queues.len()).then_some(CompletionQueue { shared, number })
    }

    fn state(&self) -> &Arc<QueueState> {
        &self.shared.queues[self.number]
    }

    /// Takes up to `limit` completions into `batch`, whatever it held before, and releases those that were taken last: an
    /// object may be looked at on behalf of its completion until then. Never blocks.
    ///
    /// With a `limit` of 0 it only releases. Else, when it gives 0, the descriptor is not readable any more, and is again when something comes. So call it until it
    /// gives 0: the last completions are released by that call, too.
    pub fn poll(&self, batch: &mut Vec<Completion>, limit: usize) -> usize {
        batch.clear();
        self.release();
        let (state, slab) = (self.state(), &self.shared.slab);
        let mut taken = state.taken();
        // Again if something came while the descriptor was cleared.
        while batch.is_empty() && limit > 0 {
            if taken.waiting.is_empty() {
                taken.waiting = state.arrived.take_all(slab);
            }
            while batch.len() < limit
                && let Some(index) = taken.waiting.pop(slab)
            {
                batch.push(self.shared.completion(index));
                taken.given.push(slab, index);
            }
            if batch.is_empty() && state.park() {
                break;
            }
        }
        batch.len()
    }

    /// Releases the completions that were taken last, without taking more.
    pub fn release(&self) {
        // A hook may be called in here, and may come here again: not under the lock.
        let given = std::mem::take(&mut self.state().taken().given);
        self.give_back(given);
    }

    /// Makes the descriptor readable, unless whoever polls it is awake: for what else an embedder's thread is to look at
    /// after [`poll`](CompletionQueue::poll) gave 0, such as a [`Wait`](crate::Wait) or a [`Drain`](crate::Drain). Does not
    /// keep the runtime alive.
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(self.state()))
    }

    /// Gives runs back to the home reactors of their clients.
    fn give_back(&self, mut given: Chain) {
        let shared = &self.shared;
        let mut last = None;
        while let Some(index) = given.pop(&shared.slab) {
            let client = shared.slab[index].client();
            let home = shared.clients.get(client).map_or(0, crate::registry::ClientShared::home);
            if let Some(last) = last.replace(home).filter(|last| *last != home) {
                shared.returned_to(last);
            }
            shared.reactors[home].returned.push(&shared.slab, index);
        }
        if let Some(last) = last {
            shared.returned_to(last);
        }
    }
}

impl Shared {
    /// Runs were given back to a reactor: wakes it if it sleeps, and does its work if it has ended.
    fn returned_to(&self, reactor: usize) {
        let port = &self.reactors[reactor];
        // Has the fence between the push and the look at `ended`, as in `ReactorPort::post`.
        if port.parking.must_wake() {
            port.wake();
        }
        if port.has_ended() {
            self.finish_returned(reactor);
        }
    }
}

impl AsFd for CompletionQueue {
    /// Readable when there are completions, or after its [`waker`](CompletionQueue::waker) was woken. To be polled, not read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.state().eventfd.as_fd()
    }
}

impl std::fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CompletionQueue({})", self.number)
    }
}

impl Runtime {
    /// One of the queues that [`Builder::completion_queues`](crate::Builder::completion_queues) asked for, numbered from
    /// 0. Queue `n` takes the completions of the clients whose home is reactor `n`, or `n` plus a multiple of the number
    /// of queues.
    pub fn completion_queue(&self, number: usize) -> Option<CompletionQueue> {
        CompletionQueue::new(Arc::clone(self.shared()), number)
    }

    /// How many completion queues there are.
    pub fn completion_queues(&self) -> usize {
        self.shared().queues.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_has_a_code_and_a_name_of_its_own() {
        let replied = Status::ALL.iter().map(|status| Ending::Replied(*status));
        let mut names = std::collections::HashSet::new();
        for ending in replied.chain(OTHERS) {
            assert_eq!(Ending::from_code(ending.to_code()), ending);
            assert!(names.insert(ending.name()), "{ending:?}");
        }
        for kind in PathFaultKind::ALL {
            assert!(OTHERS.contains(&Ending::Fault(*kind)));
            assert_eq!(Ending::Fault(*kind).name(), format!("fault_{}", kind.name()));
        }
        let unknown = Ending::Replied(Status(4_000_000));
        assert_eq!(Ending::from_code(unknown.to_code()), Ending::Replied(Status::NFS4ERR_SERVERFAULT));
    }

    #[test]
    fn the_short_form_of_an_outcome() {
        use ringback_rpc::backchannel::PathFault;
        let kind = |outcome: Outcome<'_>| Ending::from(&outcome);
        assert_eq!(kind(Outcome::TimedOut { sent: true }), Ending::TimedOut { sent: true });
        assert_eq!(kind(Outcome::Fault(PathFault::NoSlots)), Ending::Fault(PathFaultKind::NoSlots));
        assert!(!kind(Outcome::Courtesy).keeps_rearm() && kind(Outcome::PathDown).keeps_rearm());
    }
}
